//! I9: children wait for their parents, and no longer.

use std::collections::{BTreeMap, HashMap};

use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::id::JobId;
use crate::job::{Cause, Parent, State};
use crate::store::Change;

/// What a blocked job waits for.
struct Waiting<'h> {
    parents: &'h [Parent],
    /// How each parent has settled since the job was stored, or had settled then.
    settled: Vec<Option<State>>,
}

/// The change log as it is gone through.
#[derive(Default)]
struct Replay<'h> {
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
            let parents = book.facts(change.job).map(|facts| &*facts.parents);
            replay.stored(change, parents, book.pruned_jobs == Some(0), report);
        } else {
            replay.moved(change, report);
        }
        replay.states.insert(change.job, change.to);
        if change.to.is_terminal() {
            replay.settled(change.job, change.to);
        }
    }
    if book.last().is_some_and(|survey| survey.quiet) {
        replay.rest(report);
    }
}

impl<'h> Replay<'h> {
    fn stored(&mut self, change: &Change, parents: Option<&'h [Parent]>, kept: bool, report: &mut Report) {
        let Some(parents) = parents else { return };
        if parents.is_empty() != (change.to == State::Pending) {
            let text = format!("has {} parents and began {}", parents.len(), change.to.name());
            report.add(Invariant::ParentsFirst, change.job, text);
        }
        if parents.is_empty() {
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
            Cause::ParentsSettled => waiting.is_met(),
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
            if goes {
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
