//! Rows that come from elsewhere into a store that nobody uses yet.

use hodei_core::job::Job;
use hodei_core::store::SlotRow;
use hodei_core::{Error, Fault, JobId, Result};

use super::work::Work;
use crate::codec;
use crate::error::corrupt;
use crate::key;
use crate::rows::Rows;
use crate::table::{META_INCARNATION, Tab};

/// Stores a row; returns what is wrong with it, where it cannot be beside those that came before.
pub(crate) fn bring_row(work: &mut Work<'_, '_>, row: &SlotRow) -> Result<Option<Fault>> {
    match row {
        SlotRow::Queue(policy) => {
            let key = key::tenant_text(&policy.tenant, policy.queue.as_str());
            put_new(work, Tab::Queues, &key, &codec::queue_row(policy)?, "queue")
        }
        SlotRow::Limit(limit, spent) => {
            work.bring_rate(limit, *spent)?;
            put_new(work, Tab::Limits, &key::limit(&limit.of), &codec::limit_row(limit)?, "limit")
        }
        SlotRow::Schedule(schedule) => {
            let key = key::tenant_text(&schedule.tenant, schedule.name.as_str());
            put_new(work, Tab::Schedules, &key, &codec::schedule_row(schedule)?, "name")
        }
        SlotRow::Job { job, edges, last } => bring_job(work, job, edges, *last),
    }
}

fn is_there(work: &mut Work<'_, '_>, tab: Tab, key: &[u8]) -> Result<bool> {
    Ok(work.read(tab, key, |_| Ok(()))?.is_some())
}

fn put_new(
    work: &mut Work<'_, '_>,
    tab: Tab,
    key: &[u8],
    row: &[u8],
    field: &'static str,
) -> Result<Option<Fault>> {
    if is_there(work, tab, key)? {
        return Ok(Some(Fault::new(field, "duplicate")));
    }
    work.put(tab, key, row)?;
    Ok(None)
}

fn bring_job(
    work: &mut Work<'_, '_>,
    job: &Job,
    edges: &[(JobId, bool)],
    last: bool,
) -> Result<Option<Fault>> {
    if is_there(work, Tab::Born, job.id.as_bytes())? {
        return Ok(Some(Fault::new("id", "duplicate")));
    }
    if let Some(text) = job.held_key()
        && is_there(work, Tab::Unique, &key::tenant_text(&job.tenant, text))?
    {
        return Ok(Some(Fault::new("unique", "duplicate")));
    }
    work.store_whole(job, edges, last)?;
    work.delta.moved(&job.tenant, Some(job.spec.queue()), None, Some(job.state));
    // Whoever registers here must not be taken for who held the job elsewhere.
    let held = job.lease.as_ref().map_or(0, |lease| lease.incarnation);
    let last = work.delta.incarnation.unwrap_or_else(|| work.look(|index| index.incarnation));
    if held > last {
        work.put(Tab::Meta, META_INCARNATION, &codec::number_row(held)?)?;
        work.delta.incarnation = Some(held);
    }
    Ok(None)
}

/// Returns what is wrong with an edge; a child that waits for what cannot come would wait for ever.
fn edge_fault(
    work: &mut Work<'_, '_>,
    parent: JobId,
    child: JobId,
    told: bool,
) -> Result<Option<&'static str>> {
    let Some(of) = work.current(parent)? else { return Ok(Some("unknown_parent")) };
    let same = work.current(child)?.is_none_or(|child| child.job.tenant == of.job.tenant);
    Ok(match (same, told) {
        (false, _) => Some("another_tenant"),
        (true, false) if of.job.state.is_terminal() => Some("parent_has_ended"),
        (true, _) => None,
    })
}

/// How many edges are looked at in one go.
const TOGETHER: usize = 1_000;

/// Makes sure that every edge is from a job that came, and of which its child can still hear.
pub(crate) fn check_edges(work: &mut Work<'_, '_>) -> Result<()> {
    let mut from: Vec<u8> = Vec::new();
    loop {
        let mut edges: Vec<(JobId, JobId, bool)> = Vec::new();
        work.scan(Tab::Children, (Some(from.as_slice()), None).into(), |key, row| {
            let short = || corrupt("store.import", "a short key");
            let parent = JobId::from_bytes(*key.first_chunk().ok_or_else(short)?);
            let child = key::last_id(key).ok_or_else(short)?;
            edges.push((parent, child, codec::edge(row)?.1));
            Ok(edges.len() < TOGETHER)
        })?;
        let Some((parent, child, _)) = edges.last() else { return Ok(()) };
        from = [&key::child(*parent, *child)[..], &[0]].concat();
        for (parent, child, told) in edges {
            if let Some(code) = edge_fault(work, parent, child, told)? {
                let fault = Fault::new("edges", code).detail(parent.to_string());
                return Err(Error::invalid("store.import", vec![fault]));
            }
        }
    }
}
