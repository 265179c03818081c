//! Compares every index with the rows it is made of.

use std::collections::{BTreeMap, BTreeSet};

use hodei_core::job::State;
use hodei_core::store::QueueTally;
use hodei_core::{JobId, Result};

use super::submit::had_turn;
use super::work::Work;
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::key;
use crate::memory::Index;
use crate::rows::{Rows, Span};
use crate::table::Tab;

/// A table as it is, or as the rows say that it should be.
type Rowset = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every index that follows from the rows of the jobs.
const DERIVED: [Tab; 6] =
    [Tab::Ended, Tab::Pipelines, Tab::Unique, Tab::Sequences, Tab::Children, Tab::Counts];

/// Names what contradicts; empty when all is well.
pub(crate) fn contradictions(work: &mut Work<'_, '_>) -> Result<Vec<String>> {
    work.flush()?;
    let mut wrong = Vec::new();
    let expected = expected(work, &mut wrong)?;
    for tab in DERIVED {
        let found = rowset(work, tab)?;
        compare(tab, &found, expected.get(&tab).unwrap_or(&Rowset::new()), &mut wrong);
    }
    compare_batches(work, &mut wrong)?;
    work.check_checkpoints(&mut wrong)?;
    let mut memory = work.look(Index::clone);
    // What was due when the clock was later is ready.
    let latest = memory.latest.map_or(work.now, |latest| latest.max(work.now));
    let mut read = Index::read(work, None, latest)?;
    while memory.promote(latest) {}
    read.remember(&memory);
    memory.lanes.retain(|_, lane| !lane.is_idle());
    if memory != read {
        wrong.push("the index in memory contradicts the rows".to_owned());
    }
    Ok(wrong)
}

/// Compares the rows of what is open with the jobs: each open one is named by the row of its batch, and no row names
/// only what has ended.
fn compare_batches(work: &mut Work<'_, '_>, wrong: &mut Vec<String>) -> Result<()> {
    let mut named: BTreeMap<u64, Vec<JobId>> = BTreeMap::new();
    work.scan(Tab::Open, Span::ALL, |key, row| {
        let number = key::sequence_of(key).ok_or_else(|| corrupt("store.verify", "a short key"))?;
        named.insert(number, codec::ids(row)?);
        Ok(true)
    })?;
    let mut open: BTreeSet<u64> = BTreeSet::new();
    for id in work.ids(Tab::Born, &[])? {
        let Some(batch) = work.head(id)?.and_then(|head| head.open_batch()) else { continue };
        open.insert(batch);
        if !named.get(&batch).is_some_and(|ids| ids.contains(&id)) {
            wrong.push(format!("open: job {id} is not named by row {batch}"));
        }
    }
    let over = named.keys().filter(|number| !open.contains(number));
    wrong.extend(over.map(|number| format!("open: row {number} names nothing that is open")));
    Ok(())
}

/// Returns the jobs of a table that are in sight.
fn seen(work: &mut Work<'_, '_>, tab: Tab) -> Result<Vec<JobId>> {
    let mut ids = work.ids(tab, &[])?;
    ids.retain(|id| !work.slots.hides(|| id.slot()));
    Ok(ids)
}

/// Reads the rows of an index that are in sight: what is out of sight is on its way, and is compared when it has come.
fn rowset(work: &mut Work<'_, '_>, tab: Tab) -> Result<Rowset> {
    let (mut rows, slots) = (Rowset::new(), work.slots.clone());
    work.scan(tab, Span::ALL, |key, row| {
        let short = || corrupt("store.verify", "a short key");
        let slot = match tab {
            Tab::Pipelines | Tab::Children => key::last_id(key).map(JobId::slot),
            _ => key::tenant_of(key).map(|tenant| tenant.slot()),
        };
        let slot = slot.ok_or_else(short)?;
        if !slots.hides(|| slot) {
            rows.insert(key.to_vec(), row.to_vec());
        }
        Ok(true)
    })?;
    Ok(rows)
}

fn compare(tab: Tab, found: &Rowset, expected: &Rowset, wrong: &mut Vec<String>) {
    let name = tab.name();
    for (key, row) in expected {
        match found.get(key) {
            None => wrong.push(format!("{name}: no row {}", hex(key))),
            Some(found) if found != row => wrong.push(format!("{name}: another row {}", hex(key))),
            Some(_) => {}
        }
    }
    let surplus = found.keys().filter(|key| !expected.contains_key(*key));
    wrong.extend(surplus.map(|key| format!("{name}: a row too many {}", hex(key))));
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Builds every index from the rows of the jobs.
fn expected(work: &mut Work<'_, '_>, wrong: &mut Vec<String>) -> Result<BTreeMap<Tab, Rowset>> {
    let ids = seen(work, Tab::Born)?;
    if let Some(lost) = seen(work, Tab::Heads)?.iter().find(|id| ids.binary_search(id).is_err()) {
        wrong.push(format!("heads: job {lost} was never born"));
    }
    let mut ended = Vec::new();
    let mut expected: BTreeMap<Tab, Rowset> = BTreeMap::new();
    let mut counts = QueueTally::default();
    for id in ids {
        let head = work.head(id)?.ok_or_else(|| corrupt("store.verify", "a job that went away"))?;
        if head.has_end {
            ended.push(id);
        }
        counts.moved(&head.job.tenant, &head.queue, None, Some(head.job.state));
        let mut row =
            |tab: Tab, key: Vec<u8>, row: Vec<u8>| expected.entry(tab).or_default().insert(key, row);
        of_head(&head, &mut row);
        of_spec(work, &head, &mut row, wrong)?;
    }
    if ended != seen(work, Tab::Ends)? {
        wrong.push("the ends are not those of the jobs that have one".to_owned());
    }
    for (tenant, queue, counts) in counts.iter() {
        let row = codec::counts_row(tenant, queue, counts)?;
        let key = key::tenant_text(tenant, queue.as_str());
        expected.entry(Tab::Counts).or_default().insert(key, row);
    }
    Ok(expected)
}

fn of_head(head: &Head, row: &mut impl FnMut(Tab, Vec<u8>, Vec<u8>) -> Option<Vec<u8>>) {
    let job = &head.job;
    if job.state.is_terminal() {
        row(Tab::Ended, key::ended(&job.tenant, job.state, job.created_at, job.id), Vec::new());
    }
    if let Some(pipeline) = job.pipeline {
        row(Tab::Pipelines, key::pipeline(pipeline, job.created_at, job.id), Vec::new());
    }
}

fn of_spec(
    work: &mut Work<'_, '_>,
    head: &Head,
    row: &mut impl FnMut(Tab, Vec<u8>, Vec<u8>) -> Option<Vec<u8>>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let job = &head.job;
    let fixed = work.fixed(job.id)?;
    if let Some(text) = fixed.unique.as_ref().filter(|_| head.holds_key()) {
        row(Tab::Unique, key::tenant_text(&job.tenant, text), codec::id_row(job.id)?);
    }
    if let Some(key) = fixed.spec.sequence().map(|sequence| key::tenant_text(&job.tenant, sequence)) {
        // A row that names nobody, or somebody of another sequence, is one too many.
        if work.read(Tab::Sequences, &key, codec::id)? == Some(job.id) {
            row(Tab::Sequences, key, codec::id_row(job.id)?);
        }
    }
    let mut untold = 0;
    for parent in fixed.parents.iter() {
        let edge = key::child(parent.id, job.id);
        let told = work.read(Tab::Children, &edge, |row| Ok(codec::edge(row)?.1))?;
        let Some(of_parent) = work.head(parent.id)? else { continue };
        if told.is_none() && job.state != State::Blocked {
            // A pruning of many children removes their edges first, which have told all that they had to.
            continue;
        }
        // Who was told once is not told again, though the parent may go round again.
        // Who ended before its turn has not told those behind it.
        let settled = of_parent.job.state.is_terminal()
            && (!parent.requires.is_turn() || told == Some(true) || had_turn(work, parent.id)?);
        let told = told.unwrap_or(false) || settled;
        untold += u32::from(!told);
        row(Tab::Children, edge.to_vec(), codec::edge_row(parent.requires, told)?);
    }
    if job.state == State::Blocked && job.waits_for != untold {
        wrong.push(format!(
            "job {} waits for {} parents, and {untold} have not told it",
            job.id, job.waits_for
        ));
    }
    Ok(())
}
