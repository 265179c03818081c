//! Settling, claiming, cancelling, redriving.

use std::sync::Arc;

use hodei_core::job::{NewJob, State, rules};
use hodei_core::store::{
    Applied, CancelReply, Change, Claimed, Committed, Exchange, Exchanged, Move, Pick, Redriven, Scope,
    SubmitOptions, Transition,
};
use hodei_core::{JobId, Result};

use super::submit::Room;
use super::work::{Was, Work, first_time, floor_byte};
use crate::codec;
use crate::error::corrupt;
use crate::index::limits_of;
use crate::key;
use crate::rows::{Rows, Span};
use crate::sync::lock;
use crate::table::Tab;

/// How many delayed jobs one transaction moves into their lanes at most; the next one goes on.
const PROMOTE_MAX: usize = 10_000;

/// Applies what an owner reports, then claims for it.
pub(crate) fn exchange(work: &mut Work<'_, '_>, exchange: &Exchange) -> Result<Exchanged> {
    promote(work)?;
    let mut done = Exchanged::default();
    done.applied.reserve(exchange.transitions.len());
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
    done.next_due = first_time(work, Tab::Due)?;
    Ok(done)
}

/// Moves delayed jobs whose time has come into their lanes.
pub(crate) fn promote(work: &mut Work<'_, '_>) -> Result<()> {
    let mut due = Vec::new();
    let now = work.now;
    work.scan(Tab::Due, Span::ALL, |key, row| {
        let at = key::last_time(key).ok_or_else(|| corrupt("store.promote", "a short key"))?;
        if at <= now && due.len() < PROMOTE_MAX {
            due.push((key.to_vec(), codec::place(row)?.to_vec()));
            Ok(true)
        } else {
            Ok(false)
        }
    })?;
    for (due, ready) in due {
        let (lane, level, ..) =
            key::split_ready(&ready).ok_or_else(|| corrupt("store.promote", "a short place"))?;
        work.remove(Tab::Due, &due)?;
        work.delta.waiting(lane, -1);
        work.put(Tab::Ready, &ready, &[])?;
        work.delta.ready(lane, level, 1);
    }
    Ok(())
}

fn apply(work: &mut Work<'_, '_>, transition: &Transition, changes: &mut Vec<Change>) -> Result<Applied> {
    let Some(mut head) = work.head(transition.job)? else { return Ok(Applied::NotFound) };
    let was = Was::of(&head);
    let (applied, change) = rules::apply(&mut head.job, transition, work.now);
    let Some(change) = change else { return Ok(applied) };
    let tenant = head.job.tenant.clone();
    work.transit(was, head, change, changes)?;
    if let Move::Finished(finish) = &transition.step
        && !finish.spawn.is_empty()
    {
        let own = |job: &&NewJob| job.tenant == tenant;
        let spawn: Vec<NewJob> = finish.spawn.iter().filter(own).cloned().collect();
        // A run that has ended is not undone because the store is full.
        changes.extend(super::submit(work, &spawn, SubmitOptions::each(), Room::UNBOUNDED)?.changes);
    }
    Ok(applied)
}

/// Returns how many jobs of a lane its policy and its limits let through; `u64::MAX` without limits.
fn room(work: &mut Work<'_, '_>, pick: &Pick, lane: &[u8]) -> Result<u64> {
    if work.policy(&pick.lane)?.is_some_and(|policy| policy.paused) {
        return Ok(0);
    }
    let Some(keys) = work.limit_keys(lane) else { return Ok(0) };
    let mut room = u64::MAX;
    for of in limits_of(&pick.lane.tenant, &keys) {
        if let Some(limit) = work.limit(&of)? {
            room = room.min(u64::from(limit.max).saturating_sub(work.uses(&of)));
        }
    }
    Ok(room)
}

/// How many more keys than wanted are looked at in one go: jobs past their deadline do not count.
const LOOK: usize = 32;

fn claim(work: &mut Work<'_, '_>, exchange: &Exchange, pick: &Pick, done: &mut Exchanged) -> Result<()> {
    let lane = key::lane_of(&pick.lane);
    let wanted = room(work, pick, &lane)?.min(u64::from(pick.n));
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut end = lane.clone();
    end.push(floor_byte(pick.floor) + 1);
    let mut from = lane;
    let mut claimed = 0;
    while claimed < wanted {
        let most = (wanted - claimed).saturating_add(LOOK);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        work.scan(Tab::Ready, (Some(from.as_slice()), Some(end.as_slice())).into(), |key, _| {
            keys.push(key.to_vec());
            Ok(keys.len() < most)
        })?;
        let Some(last) = keys.last() else { break };
        from.clone_from(last);
        from.push(0);
        for key in &keys {
            if claimed == wanted {
                break;
            }
            let id = key::last_id(key).ok_or_else(|| corrupt("store.claim", "a short key"))?;
            match claim_one(work, exchange, id, claimed == 0, done)? {
                Took::Job => claimed += 1,
                Took::Last => return Ok(()),
                Took::Nothing => {}
            }
        }
        if keys.len() < most {
            break;
        }
    }
    Ok(())
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
    first: bool,
    done: &mut Exchanged,
) -> Result<Took> {
    let missing = || corrupt("store.claim", "ready work without its job");
    let mut head = work.head(id)?.ok_or_else(missing)?;
    if head.job.deadline.is_some_and(|deadline| deadline <= work.now) {
        return Ok(Took::Nothing);
    }
    let lost_before = head.job.lost_count > 0;
    if lost_before && !first {
        return Ok(Took::Last);
    }
    let was = Was::of(&head);
    let Some(change) = rules::claim(&mut head.job, exchange.owner.clone(), work.now) else {
        return Ok(Took::Nothing);
    };
    work.note(change, &mut done.changes);
    work.keep(Some(was), head.clone());
    let known = lock(work.context.recent).take(id);
    let fixed = match known {
        Some(fixed) => fixed,
        None => work.fixed(id)?,
    };
    let end = work.end(&head)?;
    let job = head.full(fixed, end);
    let inputs = work.inputs(&job)?;
    done.claimed.push(Claimed { job: Arc::new(job), inputs });
    Ok(if lost_before { Took::Last } else { Took::Job })
}

/// Asks for the end of jobs.
pub(crate) fn cancel(
    work: &mut Work<'_, '_>,
    scope: &Scope,
    jobs: &[JobId],
) -> Result<Committed<CancelReply>> {
    let mut done = Committed::default();
    for id in jobs {
        let Some(mut head) = work.head(*id)?.filter(|head| scope.covers(&head.job.tenant)) else {
            done.replies.push(CancelReply::NotFound);
            continue;
        };
        let (was, asked_before) = (Was::of(&head), head.job.cancel_requested);
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
    let mut done = Committed::default();
    for id in jobs {
        let Some(mut head) = work.head(*id)?.filter(|head| scope.covers(&head.job.tenant)) else {
            done.replies.push(Redriven::NotFound);
            continue;
        };
        let was = Was::of(&head);
        let reply = match rules::redrive(&mut head.job, work.now) {
            Some(change) => {
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
