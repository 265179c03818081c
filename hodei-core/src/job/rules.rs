//! The rules that every store applies inside its transactions.
//!
//! Each function moves one record and returns the [`Change`] to write beside it. None reads a clock or another
//! record: a store brings what is needed and keeps what comes back. This is the only code that moves a job.

use std::sync::Arc;
use std::time::Duration;

use super::new::{NewJob, Parent, Requires};
use super::outcome::{Failure, FailureClass, Finish, Manifest, Outcome, Output};
use super::record::{Epoch, Job, Lease, Settled};
use super::state::{Cause, State, next};
use crate::id::JobId;
use crate::store::{Applied, CancelReply, Change, Move, Transition};
use crate::time::Timestamp;

/// Makes the record of a submission: blocked while it has parents, else pending.
///
/// The store then tells it of every parent that has settled already, by [`parent_settled`].
#[must_use]
pub fn admit(new: NewJob, now: Timestamp) -> (Job, Change) {
    admit_behind(new, None, now)
}

/// As [`admit`], of a job that has its turn behind another one: the last of its sequence, as long as that is kept. It
/// becomes one more parent. The fingerprint is that of the submission, which did not name it.
#[must_use]
pub fn admit_behind(mut new: NewJob, before: Option<JobId>, now: Timestamp) -> (Job, Change) {
    let fingerprint = new.fingerprint();
    if let Some(before) = before {
        let mut parents = new.parents.to_vec();
        match parents.iter_mut().find(|parent| parent.id == before) {
            Some(parent) => parent.requires = parent.requires.in_turn(),
            None => parents.push(Parent { id: before, requires: Requires::Turn }),
        }
        new.parents = parents.into();
    }
    let waits_for = u32::try_from(new.parents.len()).unwrap_or(u32::MAX);
    let state = if waits_for == 0 { State::Pending } else { State::Blocked };
    let job = Job {
        id: new.id,
        tenant: new.tenant,
        spec: new.spec,
        pipeline: new.pipeline,
        parents: new.parents,
        unique: new.unique,
        fingerprint,
        created_at: now,
        deadline: new.deadline,
        state,
        cause: Cause::Submitted,
        cancel_requested: false,
        version: 1,
        attempt: 0,
        waits_for,
        lost_count: 0,
        generation: 0,
        epoch: Epoch::default(),
        eligible_at: new.run_at.map_or(now, |at| at.max(now)),
        moved_at: now,
        started_at: None,
        lease: None,
        settled: None,
    };
    let change = Change::of(&job, None);
    (job, change)
}

/// Tells a blocked job that one of its parents has settled. It stays, becomes pending, or goes the parent's way.
pub fn parent_settled(job: &mut Job, requires: Requires, parent: State, now: Timestamp) -> Option<Change> {
    if job.state != State::Blocked {
        return None;
    }
    if let Some(cause) = requires.refuses(parent) {
        let outcome = if cause == Cause::ParentFailed {
            Outcome::Failed(Failure::new(FailureClass::Parent, "a needed parent failed"))
        } else {
            Outcome::Cancelled
        };
        end(job, outcome, now);
        return shift(job, cause, now);
    }
    job.waits_for = job.waits_for.saturating_sub(1);
    if job.waits_for > 0 {
        return None;
    }
    job.eligible_at = job.eligible_at.max(now);
    shift(job, Cause::ParentsSettled, now)
}

/// The jobs that come before one in its sequence. It has had its turn when it was told of the end of all of them; only
/// then are those told of its own end that come behind it, which may be long after that end: who is cancelled while he
/// waits does not let others by.
pub fn before_in_turn(parents: &[Parent]) -> impl Iterator<Item = JobId> + '_ {
    parents.iter().filter(|parent| parent.requires.is_turn()).map(|parent| parent.id)
}

/// Returns what a job needs of a parent, if that is one of its parents.
#[must_use]
pub fn requirement(job: &Job, parent: JobId) -> Option<Requires> {
    job.parents.iter().find(|Parent { id, .. }| *id == parent).map(|parent| parent.requires)
}

/// Leases a pending job that is due. The epoch rises by one.
pub fn claim(job: &mut Job, lease: Lease, now: Timestamp) -> Option<Change> {
    if job.eligible_at > now || next(job.state, Cause::Claimed).is_none() {
        return None;
    }
    job.epoch = job.epoch.next();
    job.lease = Some(lease);
    shift(job, Cause::Claimed, now)
}

/// Applies what an owner reports of a job it holds.
///
/// Whatever does not come under the job's current epoch changes nothing: it is [`Applied::AlreadyApplied`] when that
/// very transition was made before, else [`Applied::LeaseLost`].
pub fn apply(job: &mut Job, transition: &Transition, now: Timestamp) -> (Applied, Option<Change>) {
    if !job.state.is_leased() || job.epoch != transition.epoch {
        return (refusal(job, transition), None);
    }
    if let (State::Running, Move::Started { .. }) = (job.state, &transition.step) {
        return (Applied::AlreadyApplied, None);
    }
    let change = match &transition.step {
        Move::Started { lease } => start(job, lease.as_ref(), now),
        Move::Finished(finish) => finished(job, finish, now),
        Move::Retried { failure, wait, manifest } => retried(job, failure, *wait, manifest.as_ref(), now),
        Move::Snoozed { wait } => go_back(job, Cause::Snoozed, *wait, now),
        Move::Returned => go_back(job, Cause::Returned, Duration::ZERO, now),
        Move::Preempted => go_back(job, Cause::Preempted, Duration::ZERO, now),
        Move::Lost { lost_max } => lose(job, *lost_max, now),
    };
    match change {
        Some(change) => (Applied::Done, Some(change)),
        None => (Applied::Illegal, None),
    }
}

/// Cancels a job: at once unless it is running, then by request.
pub fn cancel(job: &mut Job, now: Timestamp) -> (CancelReply, Option<Change>) {
    if job.state.is_terminal() {
        return (CancelReply::AlreadyTerminal, None);
    }
    if job.state == State::Running {
        job.cancel_requested = true;
        return (CancelReply::Requested, None);
    }
    // Whoever holds it under the old epoch is fenced off.
    job.epoch = job.epoch.next();
    end(job, Outcome::Cancelled, now);
    (CancelReply::Cancelled, shift(job, Cause::Cancelled, now))
}

/// Takes a leased job back from an owner that died. With `lost_max` losses it fails for good.
pub fn lose(job: &mut Job, lost_max: u16, now: Timestamp) -> Option<Change> {
    if !job.state.is_leased() {
        return None;
    }
    if job.cancel_requested {
        end(job, Outcome::Cancelled, now);
        return shift(job, Cause::Cancelled, now);
    }
    job.lost_count = job.lost_count.saturating_add(1);
    if job.lost_count >= lost_max {
        let message = format!("its owner died {} times under it", job.lost_count);
        end(job, Outcome::Failed(Failure::new(FailureClass::LostTooOften, message)), now);
        return shift(job, Cause::LostTooOften, now);
    }
    go_back(job, Cause::Lost, Duration::ZERO, now)
}

/// Fails a pending job whose deadline has passed.
pub fn expire(job: &mut Job, now: Timestamp) -> Option<Change> {
    if job.state != State::Pending || job.deadline.is_none_or(|deadline| deadline > now) {
        return None;
    }
    end(
        job,
        Outcome::Failed(Failure::new(FailureClass::Deadline, "its deadline passed before it was claimed")),
        now,
    );
    shift(job, Cause::DeadlinePassed, now)
}

/// Sends a failed or cancelled job round again, with all its attempts and without its deadline.
pub fn redrive(job: &mut Job, now: Timestamp) -> Option<Change> {
    next(job.state, Cause::Redriven)?;
    job.generation = job.generation.saturating_add(1);
    job.attempt = 0;
    job.lost_count = 0;
    job.waits_for = 0;
    job.cancel_requested = false;
    job.deadline = None;
    job.eligible_at = now;
    shift(job, Cause::Redriven, now)
}

/// Moves the record along the table; `None`, and nothing changed, where there is no such move.
fn shift(job: &mut Job, cause: Cause, now: Timestamp) -> Option<Change> {
    let from = job.state;
    job.state = next(from, cause)?;
    job.cause = cause;
    job.version += 1;
    job.moved_at = now;
    if !job.state.is_leased() {
        job.lease = None;
    }
    if job.state.is_terminal() {
        job.cancel_requested = false;
        // Else the count would tell in which order several parents ended at once.
        job.waits_for = 0;
    }
    Some(Change::of(job, Some(from)))
}

fn end(job: &mut Job, outcome: Outcome, now: Timestamp) {
    job.settled = Some(Arc::new(Settled { at: now, outcome, output: Output::none(), manifest: None }));
}

fn start(job: &mut Job, lease: Option<&Lease>, now: Timestamp) -> Option<Change> {
    next(job.state, Cause::Started)?;
    begin_run(job, Duration::ZERO, now);
    if let Some(lease) = lease {
        job.lease = Some(lease.clone());
    }
    shift(job, Cause::Started, now)
}

/// Counts the run: also when its start and its end are written at once. It began no earlier than it was claimed.
fn begin_run(job: &mut Job, ran: Duration, now: Timestamp) {
    if job.state == State::Scheduled {
        job.attempt += 1;
        job.started_at = Some(now.saturating_sub(ran).max(job.moved_at));
    }
}

fn finished(job: &mut Job, finish: &Finish, now: Timestamp) -> Option<Change> {
    begin_run(job, finish.ran, now);
    job.settled = Some(Arc::new(Settled {
        at: now,
        outcome: finish.outcome.clone(),
        output: finish.output.clone(),
        manifest: finish.manifest.clone(),
    }));
    let cause = match &finish.outcome {
        Outcome::Succeeded => Cause::Succeeded,
        Outcome::Failed(_) => Cause::Failed,
        Outcome::Cancelled => Cause::Cancelled,
    };
    shift(job, cause, now)
}

fn retried(
    job: &mut Job,
    failure: &Failure,
    wait: Duration,
    manifest: Option<&Arc<Manifest>>,
    now: Timestamp,
) -> Option<Change> {
    begin_run(job, Duration::ZERO, now);
    let cancelled = job.cancel_requested;
    let outcome = if cancelled { Outcome::Cancelled } else { Outcome::Failed(failure.clone()) };
    // What the run left behind is kept either way.
    let manifest = manifest.cloned();
    job.settled = Some(Arc::new(Settled { at: now, outcome, output: Output::none(), manifest }));
    if cancelled { shift(job, Cause::Cancelled, now) } else { go_back(job, Cause::Retried, wait, now) }
}

/// Sends a leased job back to its lane, or ends it there when somebody asked for its end.
fn go_back(job: &mut Job, cause: Cause, wait: Duration, now: Timestamp) -> Option<Change> {
    next(job.state, cause)?;
    // Only a run that failed of itself costs an attempt.
    if job.state == State::Running && cause != Cause::Retried {
        job.attempt = job.attempt.saturating_sub(1);
    }
    if job.cancel_requested {
        end(job, Outcome::Cancelled, now);
        return shift(job, Cause::Cancelled, now);
    }
    // A job that was given back unstarted keeps its place in its lane.
    if cause != Cause::Returned {
        job.eligible_at = now.saturating_add(wait);
    }
    shift(job, cause, now)
}

/// Says why a transition under another epoch, or of a job that nobody holds, is refused.
fn refusal(job: &Job, transition: &Transition) -> Applied {
    let same_epoch = job.epoch == transition.epoch;
    if same_epoch && !job.state.is_leased() && was_made(job.cause, &transition.step) {
        Applied::AlreadyApplied
    } else {
        Applied::LeaseLost { held: transition.epoch, current: job.epoch }
    }
}

/// Whether a job can have come to rest by this step of its last owner: as the cause says, or as it went when somebody
/// had asked for its end. A cancellation at once is told apart by its epoch.
fn was_made(cause: Cause, step: &Move) -> bool {
    let cancelled = cause == Cause::Cancelled;
    match step {
        Move::Started { .. } => {
            use Cause::{Failed, Preempted, Retried, Snoozed, Succeeded};
            cancelled || matches!(cause, Succeeded | Failed | Retried | Snoozed | Preempted)
        }
        Move::Finished(_) | Move::Returned => cause == step.cause(),
        Move::Retried { .. } | Move::Snoozed { .. } | Move::Preempted => cancelled || cause == step.cause(),
        Move::Lost { .. } => cancelled || matches!(cause, Cause::Lost | Cause::LostTooOften),
    }
}

#[cfg(test)]
mod tests;
