//! I20: what is counted is what is there, and what is there is what the log says.

use std::collections::{BTreeMap, BTreeSet};

use super::super::report::{Invariant, Report};
use super::book::{Book, SurveyBook};
use crate::id::{JobId, Name, Tenant};
use crate::job::State;
use crate::store::Change;

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    for survey in book.surveys.iter().filter(|survey| survey.quiet) {
        counted(survey, report);
        queues_counted(book, survey, report);
    }
    if let (Some(log), Some(last)) = (book.log(), book.last().filter(|last| last.quiet)) {
        held_as_logged(book, log, last, report);
    }
}

fn counted(survey: &SurveyBook<'_>, report: &mut Report) {
    let (Some(held), Some(counts)) = (&survey.held, survey.counts) else { return };
    let mut numbers = [0; State::ALL.len()];
    held.iter().for_each(|seen| numbers[seen.state as usize] += 1);
    for state in State::ALL {
        let (counted, there) = (counts.get(state as usize), numbers[state as usize]);
        if counted != Some(&there) {
            let text = format!("{counted:?} jobs are counted as {}, {there} are there", state.name());
            report.add(Invariant::Conservation, None, text);
        }
    }
}

/// The counts of the queues of a tenant are those of its jobs, where the queues of all of them are known.
fn queues_counted(book: &Book<'_>, survey: &SurveyBook<'_>, report: &mut Report) {
    let (Some(held), Some(queues)) = (&survey.held, survey.queues) else { return };
    let mut expected: BTreeMap<(&Tenant, &Name), [u64; State::ALL.len()]> = BTreeMap::new();
    let mut unknown: BTreeSet<&Tenant> = BTreeSet::new();
    for seen in held {
        match book.facts(seen.job) {
            Some(facts) => {
                expected.entry((&seen.tenant, &facts.queue)).or_default()[seen.state as usize] += 1;
            }
            None => drop(unknown.insert(&seen.tenant)),
        }
    }
    let mut wrong = |tenant: &Tenant, queue: &Name, counted: &[u64], there: &[u64]| {
        let text = format!("queue {queue} of {tenant} is counted as {counted:?}, there are {there:?}");
        report.add(Invariant::Conservation, None, text);
    };
    for of in queues.iter().filter(|of| !unknown.contains(&of.tenant)) {
        let there = expected.remove(&(&of.tenant, &of.queue)).unwrap_or_default();
        // A queue without jobs has no row.
        if of.counts != there || there.iter().all(|n| *n == 0) {
            wrong(&of.tenant, &of.queue, &of.counts, &there);
        }
    }
    for ((tenant, queue), there) in expected.iter().filter(|((tenant, _), _)| !unknown.contains(tenant)) {
        wrong(tenant, queue, &[], there);
    }
}

fn held_as_logged(book: &Book<'_>, log: &[&Change], last: &SurveyBook<'_>, report: &mut Report) {
    let Some(held) = &last.held else { return };
    let mut logged: BTreeMap<JobId, &Change> = log.iter().map(|change| (change.job, *change)).collect();
    for seen in held {
        match logged.remove(&seen.job) {
            Some(change) if seen.is_after(change) => {}
            Some(change) => {
                let text = format!(
                    "is held as {} with version {}, the log ends as {} with {}",
                    seen.state.name(),
                    seen.version,
                    change.to.name(),
                    change.version
                );
                report.add(Invariant::Conservation, seen.job, text);
            }
            None => report.add(Invariant::Conservation, seen.job, "is held and not in the log".to_owned()),
        }
    }
    let missing = logged.len() as u64;
    if book.pruned_jobs.is_some_and(|pruned| pruned != missing) {
        let text = format!("{missing} jobs of the log are not held, {:?} were pruned", book.pruned_jobs);
        report.add(Invariant::Conservation, logged.keys().next().copied(), text);
    }
}
