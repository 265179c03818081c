//! Compares every index with the rows it is made of.

use std::collections::BTreeMap;

use hodei_core::job::State;
use hodei_core::store::Counts;
use hodei_core::{Result, Tenant};

use super::work::Work;
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::index::Index;
use crate::key;
use crate::rows::{Rows, Span};
use crate::sync::lock;
use crate::table::Tab;

/// A table as it is, or as the rows say that it should be.
type Rowset = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every index that follows from the rows of the jobs.
const DERIVED: [Tab; 9] = [
    Tab::ByState,
    Tab::Ready,
    Tab::Pipelines,
    Tab::Leases,
    Tab::Cancels,
    Tab::Unique,
    Tab::Children,
    Tab::Deadlines,
    Tab::Counts,
];

/// Names what contradicts; empty when all is well.
pub(crate) fn contradictions(work: &mut Work<'_, '_>) -> Result<Vec<String>> {
    work.flush()?;
    let mut wrong = Vec::new();
    let expected = expected(work, &mut wrong)?;
    for tab in DERIVED {
        let mut found = rowset(work, tab)?;
        if tab == Tab::Ready {
            // A job whose time has come may still be where it waited.
            for (_, row) in rowset(work, Tab::Due)? {
                found.insert(codec::place(&row)?.to_vec(), Vec::new());
            }
        }
        compare(tab, &found, expected.get(&tab).unwrap_or(&Rowset::new()), &mut wrong);
    }
    let mut memory = lock(work.context.index).clone();
    memory.apply(work.delta.clone());
    if memory != Index::read(work)? {
        wrong.push("the index in memory contradicts the rows".to_owned());
    }
    Ok(wrong)
}

fn rowset(work: &mut Work<'_, '_>, tab: Tab) -> Result<Rowset> {
    let mut rows = Rowset::new();
    work.scan(tab, Span::ALL, |key, row| {
        rows.insert(key.to_vec(), row.to_vec());
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
    let ids = work.ids(Tab::Heads, &[])?;
    if ids != work.ids(Tab::Specs, &[])? {
        wrong.push("specs and heads are not of the same jobs".to_owned());
    }
    let mut expected: BTreeMap<Tab, Rowset> = BTreeMap::new();
    let mut counts: BTreeMap<Tenant, Counts> = BTreeMap::new();
    for id in ids {
        let head = work.head(id)?.ok_or_else(|| corrupt("store.verify", "a job that went away"))?;
        counts.entry(head.job.tenant.clone()).or_default().moved(None, Some(head.job.state));
        let mut row =
            |tab: Tab, key: Vec<u8>, row: Vec<u8>| expected.entry(tab).or_default().insert(key, row);
        of_head(&head, &mut row)?;
        of_spec(work, &head, &mut row, wrong)?;
    }
    for (tenant, counts) in counts {
        let row = codec::counts_row(&tenant, &counts)?;
        expected.entry(Tab::Counts).or_default().insert(key::tenant_prefix(&tenant), row);
    }
    Ok(expected)
}

fn of_head(head: &Head, row: &mut impl FnMut(Tab, Vec<u8>, Vec<u8>) -> Option<Vec<u8>>) -> Result<()> {
    let job = &head.job;
    row(Tab::ByState, key::by_state(&job.tenant, job.state, job.created_at, job.id), Vec::new());
    if let Some(pipeline) = job.pipeline {
        row(Tab::Pipelines, key::pipeline(pipeline, job.created_at, job.id), Vec::new());
    }
    if job.state == State::Pending {
        let lane = key::lane(job.tenant.as_str(), head.queue.as_str(), head.class.number());
        row(Tab::Ready, key::ready(lane, head.priority, job.eligible_at, job.id), Vec::new());
        if let Some(deadline) = job.deadline {
            row(Tab::Deadlines, key::at(deadline, job.id).to_vec(), Vec::new());
        }
    }
    if let Some(lease) = &job.lease {
        row(Tab::Leases, key::lease(lease, job.id), Vec::new());
        if job.cancel_requested {
            row(Tab::Cancels, key::lease(lease, job.id), codec::number_row(job.epoch.number())?);
        }
    }
    Ok(())
}

fn of_spec(
    work: &mut Work<'_, '_>,
    head: &Head,
    row: &mut impl FnMut(Tab, Vec<u8>, Vec<u8>) -> Option<Vec<u8>>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let job = &head.job;
    let fixed = work.fixed(job.id)?;
    if let Some(text) = &fixed.unique {
        row(Tab::Unique, key::tenant_text(&job.tenant, text), codec::id_row(job.id)?);
    }
    let mut untold = 0;
    for parent in fixed.parents.iter() {
        let edge = key::child(parent.id, job.id);
        let told = work.read(Tab::Children, &edge, |row| Ok(codec::edge(row)?.1))?;
        let Some(of_parent) = work.head(parent.id)? else { continue };
        // Who was told once is not told again, though the parent may go round again.
        let told = told.unwrap_or(false) || of_parent.job.state.is_terminal();
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
