//! I12: the order of claims within a lane, and within the levels that were asked for of it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::super::call::{Call, Reply, Step, Want};
use super::super::facts::Facts;
use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::id::JobId;
use crate::job::{Cause, Epoch, Priority, RequestClass, State};
use crate::store::Change;
use crate::time::Timestamp;

/// The place of a job in its lane.
type Place = (Reverse<Priority>, Timestamp, JobId);

/// The jobs of a lane that wait and whose place is known.
#[derive(Default)]
struct Lane {
    due: BTreeSet<(Timestamp, Place)>,
    ready: BTreeSet<Place>,
}

/// The change log as it is gone through.
struct Replay<'b, 'h> {
    book: &'b Book<'h>,
    /// Up to which level was asked for where a job was claimed; nothing where nobody left what is more urgent.
    ceilings: Option<HashMap<(JobId, Epoch), Priority>>,
    /// How long each report asked its job to wait; nothing where two reports differ.
    waits: HashMap<(JobId, Epoch, Cause), Option<std::time::Duration>>,
    lanes: HashMap<(&'h str, &'h str, RequestClass), Lane>,
    /// Since when each job may be claimed, where that is known.
    eligible: HashMap<JobId, Timestamp>,
    redriven: BTreeSet<JobId>,
}

pub(super) fn check(book: &Book<'_>, bound: u64, report: &mut Report) {
    let Some(log) = book.log() else { return };
    let mut replay = Replay {
        book,
        ceilings: ceilings(book),
        waits: waits(book),
        lanes: HashMap::new(),
        eligible: HashMap::new(),
        redriven: BTreeSet::new(),
    };
    for change in log {
        let Some(facts) = book.facts(change.job) else { continue };
        if change.from == Some(State::Pending) {
            replay.leaves(change, facts, bound, report);
        }
        replay.note_eligible(change, facts);
        if change.to == State::Pending {
            replay.waits_again(change, facts);
        }
    }
}

fn ceilings(book: &Book<'_>) -> Option<HashMap<(JobId, Epoch), Priority>> {
    let calls = || {
        book.spans.iter().filter_map(|span| match span.call {
            Call::Exchange { wants, .. } => Some((wants, span.reply())),
            _ => None,
        })
    };
    if calls().all(|(wants, _)| wants.iter().all(|want| want.ceiling == Priority::MAX)) {
        return None;
    }
    let mut ceilings = HashMap::new();
    for (wants, reply) in calls() {
        let Some(Reply::Exchanged { claimed, .. }) = reply else { continue };
        for (seen, facts) in claimed {
            let of_lane =
                |want: &&Want| (want.tenant.as_str(), want.queue.as_str(), want.class) == lane_of(facts);
            let covers = wants.iter().filter(of_lane).filter(|want| want.covers(facts.priority));
            // Whichever of them took it, those of the others have an order of their own.
            if let Some(ceiling) = covers.map(|want| want.ceiling).min() {
                ceilings.insert((seen.job, seen.epoch), ceiling);
            }
        }
    }
    Some(ceilings)
}

fn waits(book: &Book<'_>) -> HashMap<(JobId, Epoch, Cause), Option<std::time::Duration>> {
    let mut waits = HashMap::new();
    let steps = book.spans.iter().filter_map(|span| match span.call {
        Call::Exchange { steps, .. } => Some(steps),
        _ => None,
    });
    for Step { job, epoch, cause, wait, .. } in steps.flatten() {
        let known = waits.entry((*job, *epoch, *cause)).or_insert(*wait);
        if known != wait {
            *known = None;
        }
    }
    waits
}

impl<'h> Replay<'_, 'h> {
    fn lane(&mut self, facts: &'h Facts) -> &mut Lane {
        self.lanes.entry(lane_of(facts)).or_default()
    }

    /// Works out since when a job may be claimed, as the rules do.
    fn note_eligible(&mut self, change: &Change, facts: &Facts) {
        let (job, at) = (change.job, change.at);
        let known = self.eligible.get(&job).copied();
        let eligible = match change.cause {
            Cause::Submitted => Some(facts.run_at.map_or(at, |run_at| run_at.max(at))),
            Cause::ParentsSettled => known.map(|eligible| eligible.max(at)),
            Cause::Retried | Cause::Snoozed => {
                let wait = self.waits.get(&(job, change.epoch, change.cause)).copied().flatten();
                wait.map(|wait| at.saturating_add(wait))
            }
            Cause::Lost | Cause::Preempted | Cause::Redriven => Some(at),
            _ => known,
        };
        match eligible {
            Some(eligible) => self.eligible.insert(job, eligible),
            None => self.eligible.remove(&job),
        };
        if change.cause == Cause::Redriven {
            self.redriven.insert(job);
        }
    }

    fn waits_again(&mut self, change: &Change, facts: &'h Facts) {
        if let Some(eligible) = self.eligible.get(&change.job).copied() {
            let place = (Reverse(facts.priority), eligible, change.job);
            self.lane(facts).due.insert((eligible, place));
        }
    }

    /// Takes a job out of its lane; where it was claimed, nobody before it could have been.
    fn leaves(&mut self, change: &Change, facts: &'h Facts, bound: u64, report: &mut Report) {
        let Some(eligible) = self.eligible.get(&change.job).copied() else { return };
        let place = (Reverse(facts.priority), eligible, change.job);
        let lane = self.lane(facts);
        lane.due.remove(&(eligible, place));
        lane.ready.remove(&place);
        if change.cause != Cause::Claimed {
            return;
        }
        if eligible > change.at {
            let text = format!("version {} claims it at {}, before {eligible}", change.version, change.at);
            report.add(Invariant::QueueOrder, change.job, text);
        }
        while let Some((since, waiting)) = lane.due.first().copied().filter(|(since, _)| *since <= change.at)
        {
            lane.due.remove(&(since, waiting));
            lane.ready.insert(waiting);
        }
        let (overtaken, first) = self.overtaken(change, facts, place, bound);
        report.figures.ordered += 1;
        report.figures.overtaken = report.figures.overtaken.max(overtaken);
        if let Some(first) = first.filter(|_| overtaken > bound) {
            let text = format!("version {} claims it before job {first}, which was ready", change.version);
            report.add(Invariant::QueueOrder, change.job, text);
        }
    }

    /// Counts the jobs that a claim overtook, no further than one beyond the bound, and names the first.
    fn overtaken(
        &mut self,
        claim: &Change,
        facts: &'h Facts,
        place: Place,
        bound: u64,
    ) -> (u64, Option<JobId>) {
        let Some(lane) = self.lanes.get_mut(&lane_of(facts)) else { return (0, None) };
        // A redrive takes the deadline away.
        let kept = |job: &JobId| !self.redriven.contains(job);
        let deadline =
            |job: &JobId| self.book.facts(*job).and_then(|facts| facts.deadline).filter(|_| kept(job));
        // Of a claim whose answer is not known it may have been its own level alone.
        let asked = |all: &HashMap<_, Priority>| {
            all.get(&(claim.job, claim.epoch)).copied().unwrap_or(facts.priority)
        };
        let ceiling = self.ceilings.as_ref().map_or(Priority::MAX, asked);
        let from = (Reverse(ceiling), Timestamp::from_micros(i64::MIN), JobId::from_bytes([0; 16]));
        let mut expired = Vec::new();
        let (mut overtaken, mut first) = (0, None);
        for waiting in lane.ready.range(from.min(place)..place) {
            let (_, since, job) = waiting;
            if deadline(job).is_some_and(|deadline| deadline <= claim.at) {
                expired.push(*waiting);
            } else if *since <= claim.at {
                overtaken += 1;
                first.get_or_insert(*job);
            }
            if overtaken > bound {
                break;
            }
        }
        // Nobody will claim them any more; they wait to be failed.
        expired.iter().for_each(|place| {
            lane.ready.remove(place);
        });
        (overtaken, first)
    }
}

fn lane_of(facts: &Facts) -> (&str, &str, RequestClass) {
    (facts.tenant.as_str(), facts.queue.as_str(), facts.class)
}
