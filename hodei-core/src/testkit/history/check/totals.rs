//! I20: what is counted is what is there, and what is there is what the log says.

use std::collections::BTreeMap;

use super::super::report::{Invariant, Report};
use super::book::{Book, SurveyBook};
use crate::id::JobId;
use crate::job::State;
use crate::store::Change;

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    book.surveys.iter().filter(|survey| survey.quiet).for_each(|survey| counted(survey, report));
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
