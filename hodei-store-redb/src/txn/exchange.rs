//! Settling, claiming, cancelling, redriving.

use std::sync::Arc;

use hodei_core::job::{NewJob, State, rules};
use hodei_core::store::{
    Applied, CancelReply, Change, Claimed, Committed, Exchange, Exchanged, Lane, Move, Pick, Redriven, Scope,
    SubmitOptions, Transition,
};
use hodei_core::{ErrorKind, JobId, Result};

use super::submit::{Room, had_turn, sequence_key};
use super::work::Work;
use crate::codec::{self, Fixed, Head};
use crate::error::corrupt;
use crate::memory::{Index, Place, Standing, Step, Waiting};
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// Applies what an owner reports, then claims for it.
pub(crate) fn exchange(work: &mut Work<'_, '_>, exchange: &Exchange) -> Result<Exchanged> {
    let now = work.now;
    lock(work.context.committed).index.promote(now);
    let mut done = Exchanged::default();
    done.applied.reserve(exchange.transitions.len());
    work.expect(exchange.transitions.len());
    for transition in &exchange.transitions {
        let applied = apply(work, transition, &mut done.changes)?;
        done.applied.push(applied);
    }
    work.write_out()?;
    done.owner_lost = !work.is_alive(&exchange.owner)?;
    if !done.owner_lost {
        for pick in &exchange.picks {
            claim(work, exchange, pick, &mut done)?;
            work.write_out()?;
        }
    }
    if work.delta.delays() || work.look(Index::delays) {
        work.delta.catch_up();
    }
    done.next_due = work.look(|index| index.next_due(&work.delta));
    Ok(done)
}

fn apply(work: &mut Work<'_, '_>, transition: &Transition, changes: &mut Vec<Change>) -> Result<Applied> {
    if work.slots.closed(|| transition.job.slot()) {
        return Ok(Applied::Unavailable);
    }
    if matches!(&transition.step, Move::Finished(finish) if !codec::end_fits(finish)) {
        // The others of the batch are not held up by it.
        return Ok(Applied::Illegal);
    }
    let step = match work.step(transition.job) {
        // Whoever asks for the job is told what is wrong with it.
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Applied::Unavailable),
        step => step?,
    };
    let Some(mut step) = step else { return Ok(Applied::NotFound) };
    let (applied, change) = rules::apply(&mut step.head.job, transition, work.now);
    let Some(change) = change else { return Ok(applied) };
    let spawns = match &transition.step {
        Move::Finished(finish) if !finish.spawn.is_empty() => Some((step.head.job.tenant.clone(), finish)),
        _ => None,
    };
    work.go(step, change, changes)?;
    if let Some((tenant, finish)) = spawns {
        let own = |job: &&NewJob| job.tenant == tenant && codec::fits(job);
        let spawn: Vec<NewJob> = finish.spawn.iter().filter(own).cloned().collect();
        // A run that has ended is not undone because the store is full.
        changes.extend(super::submit(work, &spawn, SubmitOptions::each(), Room::UNBOUNDED)?.changes);
    }
    Ok(applied)
}

/// Whether a lane is served.
fn is_served(work: &mut Work<'_, '_>, lane: &Lane) -> Result<bool> {
    let closed = work.slots.closed(|| lane.tenant.slot());
    Ok(!closed && !work.policy(lane)?.is_some_and(|policy| policy.paused))
}

/// How many jobs one claim passes over at most that cannot be claimed now: they are past their deadline, and gone when they
/// are reaped.
const LATE_MAX: usize = 4_096;

fn claim(work: &mut Work<'_, '_>, exchange: &Exchange, pick: &Pick, done: &mut Exchanged) -> Result<()> {
    if !is_served(work, &pick.lane)? {
        return Ok(());
    }
    let Some(request) = work.request(&pick.lane) else { return Ok(()) };
    let room = work.room(&pick.lane, &request)?.min(u64::from(pick.n));
    let before = done.claimed.len();
    claim_up_to(work, exchange, pick, usize::try_from(room).unwrap_or(usize::MAX), done)?;
    work.spend(&pick.lane, &request, done.claimed.len() - before);
    Ok(())
}

/// Claims so many jobs of a lane, or as many as there are.
fn claim_up_to(
    work: &mut Work<'_, '_>,
    exchange: &Exchange,
    pick: &Pick,
    wanted: usize,
    done: &mut Exchanged,
) -> Result<()> {
    // Nothing is in that place, only behind it.
    let (mut after, mut claimed, mut late) = (Some(Place::before(pick.ceiling)), 0, 0);
    while claimed < wanted && late <= LATE_MAX {
        let most = wanted - claimed;
        work.delta.catch_up();
        let found = work.look(|index| index.candidates(&work.delta, &pick.lane, pick.floor, after, most));
        after = found.last().map(|(place, _)| *place);
        let all = found.len() < most;
        let now = work.now;
        let in_time = |(_, waiting): &&(Place, Waiting)| waiting.deadline.is_none_or(|at| at > now);
        let ids: Vec<(JobId, bool)> =
            found.iter().filter(in_time).map(|(place, waiting)| (place.id, waiting.newborn)).collect();
        late += found.len() - ids.len();
        for ((id, _), newborn) in ids.iter().zip(newborn(work, &ids)?) {
            match claim_one(work, exchange, *id, newborn, claimed == 0, done) {
                Ok(Took::Job) => claimed += 1,
                Ok(Took::Last) => return Ok(()),
                Ok(Took::Nothing) => late += 1,
                // Nothing was done with it, and those behind it are not held up.
                Err(error) if error.kind() == ErrorKind::Corrupt => late += 1,
                Err(error) => return Err(error),
            }
        }
        if all {
            break;
        }
    }
    Ok(())
}

/// A job that is as it was born, and what never changes of it.
type Newborn = (Box<Step>, Fixed);

/// Brings the jobs that are as they were born: those that are not remembered are read in one go.
fn newborn(work: &mut Work<'_, '_>, ids: &[(JobId, bool)]) -> Result<Vec<Option<Newborn>>> {
    let mut jobs: Vec<Option<Newborn>> = Vec::with_capacity(ids.len());
    let mut unknown = Vec::new();
    {
        let mut recent = lock(work.context.recent);
        for (number, (id, newborn)) in ids.iter().enumerate() {
            let known = newborn.then(|| recent.born(*id)).flatten();
            if *newborn && known.is_none() {
                unknown.push((*id, number));
            }
            jobs.push(known.map(|mut step| {
                step.was = Some(Standing::of(&step.head));
                let fixed = step.head.take_fixed();
                (step, fixed)
            }));
        }
    }
    unknown.sort_unstable();
    let recent = work.context.recent;
    let mut names = std::mem::take(work.names());
    let mut read: Vec<(Head, Fixed, usize)> = Vec::with_capacity(unknown.len());
    work.seek(Tab::Born, unknown.iter().map(|(id, _)| &id.as_bytes()[..]), |found, row| {
        let (id, number) = unknown[found];
        match codec::born(id, row, &mut names, |spec| lock(recent).spec(spec)) {
            // Looked at again by itself.
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            born => {
                let (head, fixed) = born?;
                lock(recent).know(&fixed.spec);
                read.push((head, fixed, number));
            }
        }
        Ok(())
    })?;
    *work.names() = names;
    for (head, fixed, number) in read {
        jobs[number] = Some((work.boxed(Some(Standing::of(&head)), head), fixed));
    }
    Ok(jobs)
}

/// What trying to claim a job means for its pick.
enum Took {
    Job,
    Nothing,
    Last,
}

fn claim_one(
    work: &mut Work<'_, '_>,
    exchange: &Exchange,
    id: JobId,
    newborn: Option<Newborn>,
    first: bool,
    done: &mut Exchanged,
) -> Result<Took> {
    let missing = || corrupt("store.claim", "ready work without its job");
    let (mut step, fixed) = match newborn {
        Some((step, fixed)) => (step, Some(fixed)),
        None => (work.step(id)?.ok_or_else(missing)?, None),
    };
    let lost_before = step.head.job.lost_count > 0;
    if lost_before && !first {
        return Ok(Took::Last);
    }
    // Whatever has to be read is read before anything is done.
    let fixed = match fixed {
        Some(fixed) => fixed,
        None => work.fixed(id)?,
    };
    let (end, inputs) = (work.end(&step.head)?, work.inputs(&fixed.parents)?);
    // It is ready, though the clock be set back since it was.
    let now = work.now.max(step.head.job.eligible_at);
    let Some(change) = rules::claim(&mut step.head.job, exchange.owner.clone(), now) else {
        return Ok(Took::Nothing);
    };
    work.free_key(&step.head)?;
    work.note(change, &step.head.queue, &mut done.changes);
    let job = step.head.with(fixed, end);
    work.keep_step(step);
    done.claimed.push(Claimed { job: Arc::new(job), inputs });
    Ok(if lost_before { Took::Last } else { Took::Job })
}

/// Asks for the end of jobs.
pub(crate) fn cancel(
    work: &mut Work<'_, '_>,
    scope: &Scope,
    jobs: &[JobId],
) -> Result<Committed<CancelReply>> {
    work.slots.writable("store.request_cancel", jobs.iter().map(|id| id.slot()))?;
    let mut done = Committed::default();
    for id in jobs {
        let Some(mut head) = work.current(*id)?.filter(|head| scope.covers(&head.job.tenant)) else {
            done.replies.push(CancelReply::NotFound);
            continue;
        };
        let (was, asked_before) = (Standing::of(&head), head.job.cancel_requested);
        let (reply, change) = rules::cancel(&mut head.job, work.now);
        match change {
            Some(change) => work.transit(was, head, change, &mut done.changes)?,
            None if head.job.cancel_requested != asked_before => work.keep(Some(was), head),
            None => {}
        }
        done.replies.push(reply);
    }
    Ok(done)
}

/// Sends failed and cancelled jobs round again.
pub(crate) fn redrive(work: &mut Work<'_, '_>, scope: &Scope, jobs: &[JobId]) -> Result<Committed<Redriven>> {
    work.slots.writable("store.redrive", jobs.iter().map(|id| id.slot()))?;
    let mut done = Committed::default();
    for id in jobs {
        let Some(mut head) = work.current(*id)?.filter(|head| scope.covers(&head.job.tenant)) else {
            done.replies.push(Redriven::NotFound);
            continue;
        };
        let was = Standing::of(&head);
        let ended_badly = matches!(head.job.state, State::Failed | State::Cancelled);
        let sequence = if ended_badly { sequence_of(work, &head)? } else { None };
        if let Some(key) = &sequence
            && !is_free(work, key, *id)?
        {
            done.replies.push(Redriven::OutOfTurn);
            continue;
        }
        let key = if ended_badly { work.key_taken_again(&head)? } else { None };
        if let Some(key) = &key
            && let Some(holder) = work.read(Tab::Unique, key, codec::id)?
        {
            done.replies.push(Redriven::KeyTaken(holder));
            continue;
        }
        let reply = match rules::redrive(&mut head.job, work.now) {
            Some(change) => {
                head.batch = work.open(*id);
                if let Some(key) = &key {
                    work.put(Tab::Unique, key, &codec::id_row(*id)?)?;
                }
                if let Some(key) = &sequence {
                    // Whoever comes next has its turn behind it.
                    work.put(Tab::Sequences, key, &codec::id_row(*id)?)?;
                }
                work.transit(was, head, change, &mut done.changes)?;
                Redriven::Done
            }
            None if head.job.state == State::Succeeded => Redriven::Succeeded,
            None => Redriven::NotTerminal,
        };
        done.replies.push(reply);
    }
    Ok(done)
}

/// Where the last job of a job's sequence is.
fn sequence_of(work: &mut Work<'_, '_>, head: &Head) -> Result<Option<Vec<u8>>> {
    let fixed = work.fixed(head.job.id)?;
    Ok(sequence_key(&head.job.tenant, &fixed.spec))
}

/// Whether all of a sequence have ended and had their turn, as they have when the last one has; of a job that is to go
/// round again.
fn is_free(work: &mut Work<'_, '_>, sequence: &[u8], job: JobId) -> Result<bool> {
    let last = work.read(Tab::Sequences, sequence, codec::id)?.unwrap_or(job);
    match work.current(last)? {
        Some(head) => Ok(head.job.state.is_terminal() && had_turn(work, last)?),
        None => Ok(true),
    }
}
