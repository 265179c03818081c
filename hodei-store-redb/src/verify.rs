//! Compares every index with the rows it is made of, as of one commit, while others are made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use hodei_core::job::State;
use hodei_core::store::QueueTally;
use hodei_core::{JobId, Result};

use crate::codec::{self, Head};
use crate::error::{corrupt, guarded};
use crate::inner::Inner;
use crate::key;
use crate::memory::{Index, Slots};
use crate::reader::Snapshot;
use crate::rows::{Rows, Span};
use crate::sync::lock;
use crate::table::Tab;
use crate::txn::had_turn;

const OP: &str = "store.verify";

/// A table as the rows of the jobs say that it should be.
type Rowset = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every index that follows from the rows of the jobs.
const DERIVED: [Tab; 6] =
    [Tab::Ended, Tab::Pipelines, Tab::Unique, Tab::Sequences, Tab::Children, Tab::Counts];

/// Names what contradicts as of the last commit; empty when all is well. Reads the whole file, and keeps what the indexes
/// should be: one at a time does so.
pub(crate) fn contradictions(inner: &Inner) -> Result<Vec<String>> {
    let _alone = lock(&inner.verifying);
    // What is in memory has to be of the same commit as the view; that it is copied is all that a commit waits for.
    let committed = lock(&inner.committed).copied();
    let (view, committed) = (Arc::clone(&committed.view), Mutex::new(committed));
    let now = inner.config.clock.now();
    guarded(OP, || {
        let mut wrong = Vec::new();
        let mut rows = Snapshot::as_of(inner, &committed);
        compare_tables(&mut rows, &view.slots, &mut wrong)?;
        compare_batches(&mut rows, &mut wrong)?;
        check_checkpoints(&mut rows, &mut wrong)?;
        drop(rows);
        let mut memory = committed.into_inner().unwrap_or_else(PoisonError::into_inner).index;
        // What was due when the clock was later is ready.
        let latest = memory.latest.map_or(now, |latest| latest.max(now));
        let mut read = Index::read(&mut Snapshot::first(view, &inner.stats, &inner.specs), None, latest)?;
        while memory.promote(latest) {}
        read.remember(&memory);
        memory.lanes.retain(|_, lane| !lane.is_idle());
        if memory != read {
            wrong.push("the index in memory contradicts the rows".to_owned());
        }
        Ok(wrong)
    })
}

/// Holds every table that follows from the rows of the jobs to what they say.
fn compare_tables(rows: &mut impl Rows, slots: &Slots, wrong: &mut Vec<String>) -> Result<()> {
    let mut expected = expected(rows, slots, wrong)?;
    for tab in DERIVED {
        compare(rows, slots, tab, expected.remove(&tab).unwrap_or_default(), wrong)?;
    }
    Ok(())
}

/// Compares the rows of what is open with the jobs: each open one is named by the row of its batch, and no row names
/// only what has ended.
fn compare_batches(rows: &mut impl Rows, wrong: &mut Vec<String>) -> Result<()> {
    let mut named: BTreeMap<u64, Vec<JobId>> = BTreeMap::new();
    rows.scan(Tab::Open, Span::ALL, |key, row| {
        let number = key::sequence_of(key).ok_or_else(|| corrupt(OP, "a short key"))?;
        named.insert(number, codec::ids(row)?);
        Ok(true)
    })?;
    let mut open: BTreeSet<u64> = BTreeSet::new();
    for id in rows.ids(Tab::Born, &[])? {
        let Some(batch) = rows.head(id)?.and_then(|head| head.open_batch()) else { continue };
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
fn seen(rows: &mut impl Rows, slots: &Slots, tab: Tab) -> Result<Vec<JobId>> {
    let mut ids = rows.ids(tab, &[])?;
    ids.retain(|id| !slots.hides(|| id.slot()));
    Ok(ids)
}

/// Reads a table beside what it should be, both in the order of their keys. What is out of sight is on its way, and is
/// compared when it has come.
fn compare(
    rows: &mut impl Rows,
    slots: &Slots,
    tab: Tab,
    expected: Rowset,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let name = tab.name();
    let mut expected = expected.into_iter().peekable();
    rows.scan(tab, Span::ALL, |key, row| {
        let slot = match tab {
            Tab::Pipelines | Tab::Children => key::last_id(key).map(JobId::slot),
            _ => key::tenant_of(key).map(|tenant| tenant.slot()),
        };
        let slot = slot.ok_or_else(|| corrupt(OP, "a short key"))?;
        if slots.hides(|| slot) {
            return Ok(true);
        }
        while let Some((key, _)) = expected.next_if(|(expected, _)| expected.as_slice() < key) {
            wrong.push(format!("{name}: no row {}", hex(&key)));
        }
        match expected.next_if(|(expected, _)| expected == key) {
            None => wrong.push(format!("{name}: a row too many {}", hex(key))),
            Some((_, expected)) if expected != row => {
                wrong.push(format!("{name}: another row {}", hex(key)));
            }
            Some(_) => {}
        }
        Ok(true)
    })?;
    wrong.extend(expected.map(|(key, _)| format!("{name}: no row {}", hex(&key))));
    Ok(())
}

/// Reads every checkpoint, to find what cannot be read; names those.
fn check_checkpoints(rows: &mut impl Rows, wrong: &mut Vec<String>) -> Result<()> {
    rows.scan(Tab::Checkpoints, Span::ALL, |key, row| {
        codec::checkpoint(row)?;
        if key::split_checkpoint(key).is_none() {
            wrong.push("checkpoints: a key of no job".to_owned());
        }
        Ok(true)
    })
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Builds every index from the rows of the jobs.
fn expected(rows: &mut impl Rows, slots: &Slots, wrong: &mut Vec<String>) -> Result<BTreeMap<Tab, Rowset>> {
    let ids = seen(rows, slots, Tab::Born)?;
    if let Some(lost) = seen(rows, slots, Tab::Heads)?.iter().find(|id| ids.binary_search(id).is_err()) {
        wrong.push(format!("heads: job {lost} was never born"));
    }
    let mut ended = Vec::new();
    let mut expected: BTreeMap<Tab, Rowset> = BTreeMap::new();
    let mut counts = QueueTally::default();
    for id in ids {
        let head = rows.head(id)?.ok_or_else(|| corrupt(OP, "a job that went away"))?;
        if head.has_end {
            ended.push(id);
        }
        counts.moved(&head.job.tenant, &head.queue, None, Some(head.job.state));
        let mut row =
            |tab: Tab, key: Vec<u8>, row: Vec<u8>| expected.entry(tab).or_default().insert(key, row);
        of_head(&head, &mut row);
        of_spec(rows, &head, &mut row, wrong)?;
    }
    if ended != seen(rows, slots, Tab::Ends)? {
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
    rows: &mut impl Rows,
    head: &Head,
    row: &mut impl FnMut(Tab, Vec<u8>, Vec<u8>) -> Option<Vec<u8>>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let job = &head.job;
    let fixed = rows.fixed(job.id)?;
    if let Some(text) = fixed.unique.as_ref().filter(|_| head.holds_key()) {
        row(Tab::Unique, key::tenant_text(&job.tenant, text), codec::id_row(job.id)?);
    }
    if let Some(key) = fixed.spec.sequence().map(|sequence| key::tenant_text(&job.tenant, sequence)) {
        // A row that names nobody, or somebody of another sequence, is one too many.
        if rows.read(Tab::Sequences, &key, codec::id)? == Some(job.id) {
            row(Tab::Sequences, key, codec::id_row(job.id)?);
        }
    }
    let mut untold = 0;
    for parent in fixed.parents.iter() {
        let edge = key::child(parent.id, job.id);
        let told = rows.read(Tab::Children, &edge, |row| Ok(codec::edge(row)?.1))?;
        let Some(of_parent) = rows.head(parent.id)? else { continue };
        if told.is_none() && job.state != State::Blocked {
            // A pruning of many children removes their edges first, which have told all that they had to.
            continue;
        }
        // Who was told once is not told again, though the parent may go round again.
        // Who ended before its turn has not told those behind it.
        let settled = of_parent.job.state.is_terminal()
            && (!parent.requires.is_turn() || told == Some(true) || had_turn(rows, parent.id)?);
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
