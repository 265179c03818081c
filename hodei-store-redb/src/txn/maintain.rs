//! Reaping, firing, pruning: fenced by a term.

use hodei_core::job::{NewJob, State, rules};
use hodei_core::store::{Fired, Pruned, Reaped, Retention, Schedule, SubmitOptions, Term};
use hodei_core::{JobId, Name, Result, Tenant, Timestamp};

use super::submit::Room;
use super::work::{Was, Work};
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::key;
use crate::rows::{Rows, Span};
use crate::sync::lock;
use crate::table::{META_FLOOR, Tab};

/// Takes jobs back from dead owners and fails those whose deadline has passed.
pub(crate) fn reap(work: &mut Work<'_, '_>, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
    if !work.holds(term)? {
        return Ok(Reaped { term_lost: true, ..Reaped::default() });
    }
    let mut done = Reaped::default();
    let mut left = limit;
    for owner in dead_owners(work)? {
        let ids = work.first_ids(Tab::Leases, &owner, left.saturating_add(1))?;
        done.more |= ids.len() > left;
        for id in ids.into_iter().take(left) {
            left -= 1;
            let Some(mut head) = work.head(id)? else { continue };
            let was = Was::of(&head);
            if let Some(change) = rules::lose(&mut head.job, lost_max, work.now) {
                work.transit(was, head, change, &mut done.changes)?;
            }
        }
    }
    work.write_out()?;
    expire_deadlines(work, left, &mut done)?;
    Ok(done)
}

/// Returns the prefixes of the leases whose owners are dead: one step per owner, however many jobs it holds.
fn dead_owners(work: &mut Work<'_, '_>) -> Result<Vec<Vec<u8>>> {
    let mut dead = Vec::new();
    let mut from: Vec<u8> = Vec::new();
    loop {
        let mut found = None;
        work.scan(Tab::Leases, (Some(from.as_slice()), None).into(), |key, _| {
            let (owner, incarnation) =
                key::split_lease(key).ok_or_else(|| corrupt("store.reap", "a short key"))?;
            found = Some((owner.to_owned(), incarnation, key[..key.len() - 16].to_vec()));
            Ok(false)
        })?;
        let Some((owner, incarnation, prefix)) = found else { return Ok(dead) };
        let behind = key::behind(&prefix);
        if !work.lives(&owner, incarnation)? {
            dead.push(prefix);
        }
        let Some(behind) = behind else { return Ok(dead) };
        from = behind;
    }
}

fn expire_deadlines(work: &mut Work<'_, '_>, left: usize, done: &mut Reaped) -> Result<()> {
    let (now, mut passed, mut more) = (work.now, Vec::new(), false);
    work.scan(Tab::Deadlines, Span::ALL, |key, _| {
        let at = key::last_time(key).ok_or_else(|| corrupt("store.reap", "a short key"))?;
        if at > now {
            return Ok(false);
        }
        more = passed.len() == left;
        if !more {
            passed.push(key::last_id(key).ok_or_else(|| corrupt("store.reap", "a short key"))?);
        }
        Ok(!more)
    })?;
    done.more |= more;
    for id in passed {
        let Some(mut head) = work.head(id)? else { continue };
        let was = Was::of(&head);
        if let Some(change) = rules::expire(&mut head.job, work.now) {
            work.transit(was, head, change, &mut done.changes)?;
        }
    }
    Ok(())
}

/// Submits the job of a schedule for a fire time, once.
pub(crate) fn fire(
    work: &mut Work<'_, '_>,
    term: &Term,
    tenant: &Tenant,
    name: &Name,
    at: Timestamp,
) -> Result<Fired> {
    if !work.holds(term)? {
        return Ok(Fired::TermLost);
    }
    let key = key::tenant_text(tenant, name.as_str());
    let Some(schedule) = work.read(Tab::Schedules, &key, codec::schedule)? else {
        return Ok(Fired::NotFound);
    };
    if schedule.last_fired.is_some_and(|last| last >= at) {
        return Ok(Fired::Already);
    }
    let id = JobId::mint(tenant, work.context.clock);
    let job = NewJob::of(tenant.clone(), std::sync::Arc::clone(&schedule.spec)).id(id);
    super::submit(work, &[job], SubmitOptions::each(), Room::UNBOUNDED)?;
    let schedule = Schedule { last_fired: Some(at), ..schedule };
    work.put(Tab::Schedules, &key, &codec::schedule_row(&schedule)?)?;
    Ok(Fired::New(id))
}

/// Removes what retention no longer keeps.
pub(crate) fn prune(
    work: &mut Work<'_, '_>,
    term: &Term,
    retention: Retention,
    limit: usize,
) -> Result<Pruned> {
    if !work.holds(term)? {
        return Ok(Pruned { term_lost: true, ..Pruned::default() });
    }
    let mut done = Pruned::default();
    prune_jobs(work, retention, limit, &mut done)?;
    prune_changes(work, retention, limit, &mut done)?;
    prune_lanes(work, limit)?;
    prune_owners(work, limit)?;
    Ok(done)
}

fn prune_jobs(work: &mut Work<'_, '_>, retention: Retention, limit: usize, done: &mut Pruned) -> Result<()> {
    let cutoff = work.now.saturating_sub(retention.jobs.max(Retention::KEYS_MIN));
    let mut tenants: Vec<Tenant> = lock(work.context.index).counts.keys().cloned().collect();
    tenants.extend(work.delta.counts.keys().cloned());
    tenants.sort();
    tenants.dedup();
    let mut left = limit;
    for tenant in &tenants {
        for state in State::ALL.into_iter().filter(|state| state.is_terminal()) {
            let mut list = Old { from: key::state_prefix(tenant, state), tenant, state, cutoff };
            while let Some(id) = list.next(work)? {
                let Some(head) = work.head(id)?.filter(|head| head.job.moved_at <= cutoff) else { continue };
                if !children_ended(work, id)? {
                    continue;
                }
                if left == 0 {
                    done.more = true;
                    return Ok(());
                }
                left -= 1;
                forget(work, &head)?;
                done.jobs += 1;
                done.gone.push((tenant.clone(), id));
            }
        }
    }
    Ok(())
}

/// Goes through a list from the oldest job on, a row at a time: however long it is, no more is read than is removed.
struct Old<'t> {
    tenant: &'t Tenant,
    state: State,
    cutoff: Timestamp,
    /// Where to go on.
    from: Vec<u8>,
}

impl Old<'_> {
    /// Returns the next job. Who was created after the cutoff cannot have settled before it.
    fn next(&mut self, work: &mut Work<'_, '_>) -> Result<Option<JobId>> {
        let end = key::behind(&key::state_prefix(self.tenant, self.state));
        let mut found = None;
        work.scan(Tab::ByState, (Some(self.from.as_slice()), end.as_deref()).into(), |key, _| {
            found = Some(key.to_vec());
            Ok(false)
        })?;
        let Some(key) = found else { return Ok(None) };
        let place = key::last_time(&key).zip(key::last_id(&key));
        let (at, id) = place.ok_or_else(|| corrupt("store.prune", "a short key"))?;
        self.from = key;
        self.from.push(0);
        Ok((at <= self.cutoff).then_some(id))
    }
}

fn children_ended(work: &mut Work<'_, '_>, parent: JobId) -> Result<bool> {
    for child in work.ids(Tab::Children, parent.as_bytes())? {
        if work.head(child)?.is_some_and(|head| !head.job.state.is_terminal()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes every row of a job.
fn forget(work: &mut Work<'_, '_>, head: &Head) -> Result<()> {
    let job = &head.job;
    let fixed = work.fixed(job.id)?;
    for child in work.ids(Tab::Children, job.id.as_bytes())? {
        work.remove(Tab::Children, &key::child(job.id, child))?;
    }
    for parent in fixed.parents.iter() {
        work.remove(Tab::Children, &key::child(parent.id, job.id))?;
    }
    if let Some(text) = &fixed.unique {
        work.remove(Tab::Unique, &key::tenant_text(&job.tenant, text))?;
    }
    if let Some(pipeline) = job.pipeline {
        work.remove(Tab::Pipelines, &key::pipeline(pipeline, job.created_at, job.id))?;
    }
    work.remove(Tab::ByState, &key::by_state(&job.tenant, job.state, job.created_at, job.id))?;
    for tab in [Tab::Specs, Tab::Heads, Tab::Ends] {
        work.remove(tab, job.id.as_bytes())?;
    }
    work.delta.moved(&job.tenant, Some(job.state), None);
    Ok(())
}

fn prune_changes(
    work: &mut Work<'_, '_>,
    retention: Retention,
    limit: usize,
    done: &mut Pruned,
) -> Result<()> {
    let index_floor = lock(work.context.index).floor;
    let floor = work.delta.floor.unwrap_or(index_floor);
    let surplus = work.next_change.saturating_sub(floor).saturating_sub(retention.changes);
    let remove = surplus.min(limit as u64);
    if remove == 0 {
        return Ok(());
    }
    for row in rows_below(work, floor + remove)? {
        work.remove(Tab::Changes, &key::sequence(row))?;
    }
    work.put(Tab::Meta, META_FLOOR, &codec::number_row(floor + remove)?)?;
    work.delta.floor = Some(floor + remove);
    done.changes = remove;
    done.more |= surplus > remove;
    Ok(())
}

/// Returns the numbers of the rows whose changes are all below a number.
fn rows_below(work: &mut Work<'_, '_>, floor: u64) -> Result<Vec<u64>> {
    let mut rows = Vec::new();
    let mut last = None;
    work.scan(Tab::Changes, Span::ALL, |key, _| {
        let number = key::sequence_of(key).ok_or_else(|| corrupt("store.prune", "a short key"))?;
        // A row ends where the next begins.
        let below = number <= floor;
        rows.extend(last.filter(|_| below));
        last = Some(number);
        Ok(below)
    })?;
    if floor == work.next_change && work.nothing_to_log() {
        rows.extend(last);
    }
    Ok(rows)
}

/// Removes the rows of lanes in which nothing waits. Lanes that the same transaction touched stay.
fn prune_lanes(work: &mut Work<'_, '_>, limit: usize) -> Result<()> {
    let empty: Vec<Vec<u8>> = {
        let index = lock(work.context.index);
        let idle = index.lanes.iter().filter(|(_, lane)| lane.levels.is_empty() && lane.waiting == 0);
        let untouched = idle.filter(|(key, _)| !work.delta.depths.contains_key(*key));
        untouched.take(limit).map(|(key, _)| key.clone()).collect()
    };
    for lane in empty {
        if work.remove(Tab::Lanes, &lane)? {
            work.delta.gone_lanes.push(lane);
        }
    }
    Ok(())
}

/// Removes dead owners that hold nothing: incarnations come from one counter, so none is given out twice.
fn prune_owners(work: &mut Work<'_, '_>, limit: usize) -> Result<()> {
    let (now, mut dead) = (work.now.as_micros(), Vec::new());
    work.scan(Tab::Owners, Span::ALL, |key, row| {
        let row: codec::OwnerRow = codec::decode(row)?;
        if row.expires_at <= now {
            dead.push(key.to_vec());
        }
        Ok(dead.len() < limit)
    })?;
    for owner in dead {
        let mut prefix = owner.clone();
        prefix.push(0);
        if work.ids(Tab::Leases, &prefix)?.is_empty() {
            work.remove(Tab::Owners, &owner)?;
        }
    }
    Ok(())
}
