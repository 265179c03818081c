//! I9: children wait for their parents, and all of a sequence for those before them, and no longer.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::id::{JobId, Tenant};
use crate::job::{Cause, Parent, State};
use crate::store::Change;

/// What a blocked job waits for.
struct Waiting<'h> {
    parents: &'h [Parent],
    /// How each parent has settled since the job was stored, or had settled then.
    settled: Vec<Option<State>>,
}

/// A sequence of a tenant.
type Sequence<'h> = (&'h Tenant, &'h str);

/// The change log as it is gone through.
#[derive(Default)]
struct Replay<'h> {
    /// The sequence of each job that is in one.
    sequences: HashMap<JobId, Sequence<'h>>,
    /// Those of each sequence that have not ended, in the order in which they came.
    lines: HashMap<Sequence<'h>, VecDeque<JobId>>,
    states: HashMap<JobId, State>,
    waiting: BTreeMap<JobId, Waiting<'h>>,
    /// The children that wait for a job, and which of their parents it is.
    children: HashMap<JobId, Vec<(JobId, usize)>>,
}

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let Some(log) = book.log() else { return };
    let mut replay = Replay::default();
    for change in log {
        if change.from.is_none() {
            let facts = book.facts(change.job);
            let sequence = facts.and_then(|facts| Some((&facts.tenant, facts.sequence.as_deref()?)));
            replay.lines_up(change.job, sequence);
            replay.stored(change, facts.map(|facts| &*facts.parents), book.pruned_jobs == Some(0), report);
        } else {
            replay.moved(change, report);
            replay.has_turn(change, report);
        }
        replay.states.insert(change.job, change.to);
        if change.to.is_terminal() {
            replay.settled(change.job, change.to);
            replay.leaves_line(change.job);
        }
    }
    if book.last().is_some_and(|survey| survey.quiet) {
        replay.rest(report);
    }
}

impl<'h> Replay<'h> {
    fn stored(&mut self, change: &Change, parents: Option<&'h [Parent]>, kept: bool, report: &mut Report) {
        let Some(parents) = parents else { return };
        // Who is behind somebody in a sequence begins blocked too; and so does who has a former one as a parent.
        let alone = parents.is_empty() && self.is_first(change.job);
        let free = change.to == State::Pending;
        if alone != free && (free || !self.sequences.contains_key(&change.job)) {
            let text = format!("has {} parents and began {}", parents.len(), change.to.name());
            report.add(Invariant::ParentsFirst, change.job, text);
        }
        if free {
            return;
        }
        let mut settled = vec![None; parents.len()];
        for (n, parent) in parents.iter().enumerate() {
            match self.states.get(&parent.id) {
                Some(state) if state.is_terminal() => settled[n] = Some(*state),
                Some(_) => self.children.entry(parent.id).or_default().push((change.job, n)),
                None if kept => {
                    let text = format!("was stored before its parent {}", parent.id);
                    report.add(Invariant::ParentsFirst, change.job, text);
                }
                None => {}
            }
        }
        self.waiting.insert(change.job, Waiting { parents, settled });
    }

    /// A blocked job moves for a reason.
    fn moved(&mut self, change: &Change, report: &mut Report) {
        let Some(waiting) = self.waiting.remove(&change.job) else { return };
        let reason = match change.cause {
            Cause::ParentsSettled => waiting.is_met() && self.is_first(change.job),
            Cause::ParentFailed => waiting.is_refused(Cause::ParentFailed),
            Cause::Skipped => waiting.is_refused(Cause::Skipped),
            _ => true,
        };
        if !reason {
            let text =
                format!("version {}, {:?}, with parents {}", change.version, change.cause, waiting.told());
            report.add(Invariant::ParentsFirst, change.job, text);
        }
    }

    fn lines_up(&mut self, job: JobId, sequence: Option<Sequence<'h>>) {
        if let Some(sequence) = sequence {
            self.sequences.insert(job, sequence);
            self.lines.entry(sequence).or_default().push_back(job);
        }
    }

    fn leaves_line(&mut self, job: JobId) {
        if let Some(line) = self.sequences.get(&job).and_then(|sequence| self.lines.get_mut(sequence)) {
            line.retain(|other| *other != job);
        }
    }

    /// Whether nobody of its sequence that has not ended is before a job.
    fn is_first(&self, job: JobId) -> bool {
        let line = self.sequences.get(&job).and_then(|sequence| self.lines.get(sequence));
        line.and_then(|line| line.front()).is_none_or(|first| *first == job)
    }

    /// Only the first of a sequence is claimed, and only a whole one goes round again.
    fn has_turn(&mut self, change: &Change, report: &mut Report) {
        if change.cause == Cause::Redriven {
            let sequence = self.sequences.get(&change.job).copied();
            self.lines_up(change.job, sequence);
        }
        if matches!(change.cause, Cause::Redriven | Cause::Claimed) && !self.is_first(change.job) {
            let text =
                format!("version {}, {:?}, is not the first of its sequence", change.version, change.cause);
            report.add(Invariant::ParentsFirst, change.job, text);
        }
    }

    fn settled(&mut self, parent: JobId, state: State) {
        for (child, n) in self.children.remove(&parent).unwrap_or_default() {
            if let Some(waiting) = self.waiting.get_mut(&child) {
                waiting.settled[n] = Some(state);
            }
        }
    }

    /// At the end nobody waits who could go.
    fn rest(&self, report: &mut Report) {
        for (job, waiting) in &self.waiting {
            let goes = waiting.is_met()
                || waiting.is_refused(Cause::ParentFailed)
                || waiting.is_refused(Cause::Skipped);
            if goes && self.is_first(*job) {
                let text = format!("is still blocked with parents {}", waiting.told());
                report.add(Invariant::ParentsFirst, *job, text);
            }
        }
    }
}

impl Waiting<'_> {
    fn edges(&self) -> impl Iterator<Item = (&Parent, Option<State>)> {
        self.parents.iter().zip(self.settled.iter().copied())
    }

    fn is_met(&self) -> bool {
        self.edges()
            .all(|(parent, settled)| settled.is_some_and(|ended| parent.requires.refuses(ended).is_none()))
    }

    fn is_refused(&self, cause: Cause) -> bool {
        self.edges()
            .any(|(parent, settled)| settled.and_then(|ended| parent.requires.refuses(ended)) == Some(cause))
    }

    fn told(&self) -> String {
        let edges = self.edges().map(|(parent, settled)| {
            format!("{} ({:?}: {})", parent.id, parent.requires, settled.map_or("open", State::name))
        });
        edges.collect::<Vec<_>>().join(", ")
    }
}
