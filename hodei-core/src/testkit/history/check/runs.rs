//! I7: what workers ran.

use std::collections::{HashMap, HashSet};

use super::super::entry::Entry;
use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::id::JobId;
use crate::job::{Cause, Epoch};

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let mut begun: HashSet<(JobId, Epoch)> = HashSet::new();
    let mut open: HashMap<JobId, Vec<Epoch>> = HashMap::new();
    for (at, entry) in book.entries.iter().enumerate() {
        match entry {
            Entry::RunBegan { job, epoch, owner } => {
                if !begun.insert((*job, *epoch)) {
                    let text = format!("epoch {epoch} was run twice, the second time by {}", owner.owner);
                    report.add(Invariant::ExclusiveExecution, *job, text);
                }
                claimed_before(book, at, (*job, *epoch), report);
                let runs = open.entry(*job).or_default();
                report.figures.overlaps += u64::from(!runs.is_empty());
                runs.push(*epoch);
            }
            Entry::RunEnded { job, epoch } => {
                if let Some(runs) = open.get_mut(job)
                    && let Some(place) = runs.iter().position(|run| run == epoch)
                {
                    runs.swap_remove(place);
                }
            }
            Entry::Restarted => open.clear(),
            _ => {}
        }
    }
}

/// A run has a claim, and the call that made it was begun before.
fn claimed_before(book: &Book<'_>, at: usize, (job, epoch): (JobId, Epoch), report: &mut Report) {
    let path = book.jobs.get(&job).map(|job| job.path.as_slice()).unwrap_or_default();
    let first = path.partition_point(|change| change.epoch < epoch);
    let claim = path[first..].iter().find(|change| change.epoch == epoch && change.cause == Cause::Claimed);
    let late = |claim| book.made_by(claim).is_some_and(|span| span.at > at);
    let text = match claim {
        Some(claim) if late(claim) => format!("was run under epoch {epoch} before that was claimed"),
        None if book.log().is_some() && book.last().is_some_and(|survey| survey.began > at) => {
            format!("was run under epoch {epoch}, which nobody claimed")
        }
        Some(_) | None => return,
    };
    report.add(Invariant::ExclusiveExecution, job, text);
}
