//! Reaping, firing, pruning: fenced by a term.

use std::collections::BTreeSet;

use hodei_core::job::{Lease, State, rules};
use hodei_core::store::{Fired, Pruned, Reaped, Retention, Schedule, SubmitOptions, Submitted, Term};
use hodei_core::{JobId, Name, Result, Tenant, Timestamp};

use super::submit::{Room, had_turn, sequence_key};
use super::work::Work;
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::key;
use crate::memory::{Index, Standing};
use crate::rows::{Rows, Span};
use crate::table::{META_FLOOR, Tab};

/// Takes jobs back from dead owners and fails those whose deadline has passed.
pub(crate) fn reap(work: &mut Work<'_, '_>, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
    if !work.holds(term)? {
        return Ok(Reaped { term_lost: true, ..Reaped::default() });
    }
    let mut done = Reaped::default();
    let mut left = limit;
    for owner in dead_owners(work)? {
        let first = |index: &Index| -> Vec<JobId> {
            let held = index.leases.get(&owner).into_iter().flatten();
            let held = held.filter(|id| !index.slots.closed(|| id.slot()));
            held.take(left.saturating_add(1)).copied().collect()
        };
        let ids = work.look(first);
        done.more |= ids.len() > left;
        for id in ids.into_iter().take(left) {
            left -= 1;
            let Some(mut head) = work.current(id)? else { continue };
            let was = Standing::of(&head);
            if let Some(change) = rules::lose(&mut head.job, lost_max, work.now) {
                work.transit(was, head, change, &mut done.changes)?;
            }
        }
    }
    work.write_out()?;
    expire_deadlines(work, left, &mut done)?;
    Ok(done)
}

/// Returns the dead owners that hold something.
fn dead_owners(work: &mut Work<'_, '_>) -> Result<Vec<Lease>> {
    let mut dead = Vec::new();
    for owner in work.look(|index| index.leases.keys().cloned().collect::<Vec<_>>()) {
        if !work.is_alive(&owner)? {
            dead.push(owner);
        }
    }
    Ok(dead)
}

fn expire_deadlines(work: &mut Work<'_, '_>, left: usize, done: &mut Reaped) -> Result<()> {
    let now = work.now;
    let passed = |index: &Index| -> Vec<JobId> {
        let passed = index.deadlines.iter().take_while(|(at, _)| *at <= now);
        let passed = passed.filter(|(_, id)| !index.slots.closed(|| id.slot()));
        passed.take(left.saturating_add(1)).map(|(_, id)| *id).collect()
    };
    let passed = work.look(passed);
    done.more |= passed.len() > left;
    for id in passed.into_iter().take(left) {
        let Some(mut head) = work.current(id)? else { continue };
        let was = Standing::of(&head);
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
    work.slots.writable("store.fire", std::iter::once(tenant.slot()))?;
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
    let job = schedule.job(at).id(id);
    let submitted = super::submit(work, &[job], SubmitOptions::each(), Room::UNBOUNDED)?;
    let schedule = Schedule { last_fired: Some(at), ..schedule };
    work.put(Tab::Schedules, &key, &codec::schedule_row(&schedule)?)?;
    Ok(match submitted.replies.first() {
        Some(Submitted::New(id)) => Fired::New(*id),
        _ => Fired::Already,
    })
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
    work.delta.forget_idle = true;
    prune_owners(work, limit)?;
    Ok(done)
}

/// How many jobs that may not go yet, and children of those that may, one call looks at, at most, beyond the jobs that it
/// removes; the next one goes on behind them.
const EXAMINED_MAX: usize = 4_096;

fn prune_jobs(work: &mut Work<'_, '_>, retention: Retention, limit: usize, done: &mut Pruned) -> Result<()> {
    let from = work.look(|index| index.prune_from.clone());
    let (mut left, mut examined) = (limit, limit.saturating_add(EXAMINED_MAX));
    let has_checkpoints = work.has_checkpoints()?;
    let mut list = Old { retention, from, of: None };
    loop {
        let here = list.from.clone();
        let Some((id, cutoff)) = list.next(work)? else {
            list.from.clear();
            break;
        };
        let goes = match work.head(id)?.filter(|head| head.job.moved_at <= cutoff) {
            Some(head) if had_turn(work, id)? && let_go(work, id, &mut examined)? => Some(head),
            _ => None,
        };
        if examined == 0 || (left == 0 && goes.is_some()) {
            // The next call begins with this one.
            list.from = here;
            done.more = true;
            break;
        }
        examined -= 1;
        if let Some(head) = goes {
            left -= 1;
            examined = examined.saturating_sub(forget(work, &head)?);
            if has_checkpoints {
                // Not where a slot only leaves: whoever runs the job elsewhere goes on from here.
                work.remove(Tab::Checkpoints, &key::checkpoint(id, &head.job.tenant))?;
            }
            work.delta.moved(
                &head.job.tenant,
                work.queue_counting(id, &head.queue),
                Some(head.job.state),
                None,
            );
            done.jobs += 1;
            done.gone.push((head.job.tenant.clone(), id));
        }
    }
    work.delta.prune_from = Some(list.from);
    Ok(())
}

/// Goes through the lists of what has ended, each from the oldest job on, a row at a time: however long they are, no more is
/// read than is looked at. A call that comes to the end leaves it to the next to begin again.
struct Old {
    retention: Retention,
    /// Where to go on.
    from: Vec<u8>,
    /// The list that it is in.
    of: Option<(Tenant, State)>,
}

impl Old {
    /// Returns the next job, and when it must have settled to go. Who was created after that cannot have settled before
    /// it: the rest of its list is left out.
    fn next(&mut self, work: &mut Work<'_, '_>) -> Result<Option<(JobId, Timestamp)>> {
        loop {
            let mut found = None;
            work.scan(Tab::Ended, (Some(self.from.as_slice()), None).into(), |key, _| {
                found = Some(key.to_vec());
                Ok(false)
            })?;
            let Some(key) = found else { return Ok(None) };
            let short = || corrupt("store.prune", "a short key");
            let (at, id) = key::last_time(&key).zip(key::last_id(&key)).ok_or_else(short)?;
            let cutoff = self.cutoff(work, &key).ok_or_else(short)?;
            let stays = self.of.as_ref().is_some_and(|(tenant, _)| work.slots.closed(|| tenant.slot()));
            if at <= cutoff && !stays {
                self.from = key;
                self.from.push(0);
                return Ok(Some((id, cutoff)));
            }
            let behind = key::behind(&key[..key.len() - 24]);
            self.from = behind.unwrap_or_else(|| vec![u8::MAX]);
        }
    }

    /// Returns when a job of the list that a key is in must have settled to go; nothing for a key of no list.
    fn cutoff(&mut self, work: &Work<'_, '_>, key: &[u8]) -> Option<Timestamp> {
        let (tenant, state) = key::split_ended(key)?;
        if self.of.as_ref().is_none_or(|of| of.0.as_str() != tenant || of.1 != state) {
            self.of = Some((Tenant::new(tenant).ok()?, state));
        }
        let (tenant, state) = self.of.as_ref()?;
        let surplus = work.count_of(tenant, *state) > self.retention.most;
        let age = if surplus { Retention::KEYS_MIN } else { self.retention.age(*state) };
        Some(work.now.saturating_sub(age))
    }
}

/// How many children are looked at in one go; a job with fewer keeps the edges to them until it goes.
const CHILDREN: usize = 64;

/// Says whether all children of a job that has ended, and has had its turn, have ended too. Looks at no more of them than it
/// may, and at none more than once if there are many: the edges to those that have ended go at once, since they have told
/// all that they had to.
fn let_go(work: &mut Work<'_, '_>, parent: JobId, examined: &mut usize) -> Result<bool> {
    let mut some = work.first_ids(Tab::Children, parent.as_bytes(), CHILDREN)?;
    let many = some.len() == CHILDREN;
    while !some.is_empty() {
        for child in &some {
            if *examined == 0 || work.head(*child)?.is_some_and(|head| !head.job.state.is_terminal()) {
                return Ok(false);
            }
            *examined -= 1;
            if many {
                work.remove(Tab::Children, &key::child(parent, *child))?;
            }
        }
        if !many {
            break;
        }
        some = work.first_ids(Tab::Children, parent.as_bytes(), CHILDREN)?;
    }
    Ok(*examined > 0)
}

/// Removes edges to the children of a job that is to be removed, and says whether none is left, and there is room for the job.
pub(super) fn shed(work: &mut Work<'_, '_>, parent: JobId, left: &mut usize) -> Result<bool> {
    let children = work.first_ids(Tab::Children, parent.as_bytes(), *left)?;
    for child in &children {
        work.remove(Tab::Children, &key::child(parent, *child))?;
    }
    *left -= children.len();
    Ok(*left > 0)
}

/// Removes every row of a job, and returns how many edges there may have been.
pub(super) fn forget(work: &mut Work<'_, '_>, head: &Head) -> Result<usize> {
    let job = &head.job;
    let fixed = work.fixed(job.id)?;
    let children = work.ids(Tab::Children, job.id.as_bytes())?;
    let edges = children.len() + fixed.parents.len();
    for child in children {
        work.remove(Tab::Children, &key::child(job.id, child))?;
    }
    for parent in fixed.parents.iter() {
        work.remove(Tab::Children, &key::child(parent.id, job.id))?;
    }
    if let Some(text) = fixed.unique.as_ref().filter(|_| head.holds_key()) {
        work.remove(Tab::Unique, &key::tenant_text(&job.tenant, text))?;
    }
    if let Some(key) = sequence_key(&job.tenant, &fixed.spec)
        && work.read(Tab::Sequences, &key, codec::id)? == Some(job.id)
    {
        work.remove(Tab::Sequences, &key)?;
    }
    if let Some(pipeline) = job.pipeline {
        work.remove(Tab::Pipelines, &key::pipeline(pipeline, job.created_at, job.id))?;
    }
    if job.state.is_terminal() {
        work.remove(Tab::Ended, &key::ended(&job.tenant, job.state, job.created_at, job.id))?;
    }
    for tab in [Tab::Born, Tab::Heads, Tab::Ends] {
        work.remove(tab, job.id.as_bytes())?;
    }
    work.delta.forgotten.push(job.id);
    Ok(edges)
}

/// How many rows of changes one call removes for each job that it may remove. Each commit of a lone caller makes a row; of
/// many callers they share them.
const ROWS_PER_JOB: usize = 4;

fn prune_changes(
    work: &mut Work<'_, '_>,
    retention: Retention,
    limit: usize,
    done: &mut Pruned,
) -> Result<()> {
    let index_floor = work.look(|index| index.floor);
    let floor = work.delta.floor.unwrap_or(index_floor);
    let surplus = work.next_change.saturating_sub(floor).saturating_sub(retention.changes);
    if surplus == 0 || limit == 0 {
        done.more |= surplus > 0;
        return Ok(());
    }
    let (rows, until) = rows_below(work, floor + surplus, limit.saturating_mul(ROWS_PER_JOB))?;
    for row in rows {
        work.remove(Tab::Changes, &key::sequence(row))?;
    }
    let until = until.max(floor);
    work.put(Tab::Meta, META_FLOOR, &codec::number_row(until)?)?;
    work.delta.floor = Some(until);
    done.changes = until - floor;
    done.more |= surplus > done.changes;
    Ok(())
}

/// Returns the numbers of the first rows whose changes are all below a number, at most so many, and below which number
/// nothing is left of them: that number, or a lower one where there are more such rows.
fn rows_below(work: &mut Work<'_, '_>, floor: u64, most: usize) -> Result<(Vec<u64>, u64)> {
    let (mut rows, mut last, mut until) = (Vec::new(), None, floor);
    work.scan(Tab::Changes, Span::ALL, |key, _| {
        let number = key::sequence_of(key).ok_or_else(|| corrupt("store.prune", "a short key"))?;
        // A row ends where the next begins.
        let below = number <= floor;
        rows.extend(last.filter(|_| below));
        last = Some(number);
        if below && rows.len() == most {
            until = number;
        }
        Ok(below && rows.len() < most)
    })?;
    if floor == work.next_change && work.nothing_to_log() && rows.len() < most {
        rows.extend(last);
    }
    Ok((rows, until))
}

/// Removes dead owners that hold nothing: incarnations come from one counter, so none is given out twice.
fn prune_owners(work: &mut Work<'_, '_>, limit: usize) -> Result<()> {
    let holding = |index: &Index| -> BTreeSet<Vec<u8>> {
        index.leases.keys().map(|lease| lease.owner.name().as_str().as_bytes().to_vec()).collect()
    };
    let (now, holding, mut idle) = (work.now.as_micros(), work.look(holding), Vec::new());
    work.scan(Tab::Owners, Span::ALL, |key, row| {
        let row: codec::OwnerRow = codec::decode(row)?;
        if row.expires_at <= now && !holding.contains(key) {
            idle.push(key.to_vec());
        }
        Ok(idle.len() < limit)
    })?;
    for owner in idle {
        work.remove(Tab::Owners, &owner)?;
    }
    Ok(())
}
