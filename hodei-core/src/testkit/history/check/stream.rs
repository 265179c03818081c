//! I13: what was announced, what was observed and what was recorded are the same transitions.

use std::collections::{HashMap, HashSet};

use super::super::call::{Call, Reply};
use super::super::entry::Entry;
use super::super::report::{Invariant, Report};
use super::book::{Book, JobBook};
use crate::id::JobId;
use crate::job::Cause;
use crate::store::{Change, Fired};

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    announced(book, report);
    recorded(book, report);
    observed(book, report);
    pages(book, report);
}

/// What a reply announced is in the log that was read after it, as it was announced, and was announced once.
fn announced(book: &Book<'_>, report: &mut Report) {
    let began = book.log().and_then(|_| book.last()).map_or(0, |survey| survey.began);
    for (id, job) in &book.jobs {
        let mut seen = HashSet::new();
        let logged: HashMap<u32, &Change> =
            job.logged.iter().map(|change| (change.version, *change)).collect();
        for (change, span) in &job.announced {
            let version = change.version;
            if !seen.insert(version) {
                report.add(Invariant::EventStream, *id, format!("version {version} was announced twice"));
            }
            match logged.get(&version) {
                Some(logged) if logged != change => {
                    let text = format!("version {version} was announced otherwise than it was recorded");
                    report.add(Invariant::EventStream, *id, text);
                }
                None if book.spans[*span].end < began => {
                    let text = format!("version {version} was announced and is not recorded");
                    report.add(Invariant::EventStream, *id, text);
                }
                Some(_) | None => {}
            }
        }
    }
}

/// What is recorded was announced, unless a reply that would have told was lost.
fn recorded(book: &Book<'_>, report: &mut Report) {
    if book.log().is_none() || !book.spans.iter().any(|span| span.call.moves_jobs()) {
        return;
    }
    let doubts: Vec<&Call> =
        book.spans.iter().filter(|span| span.is_unknown()).map(|span| span.call).collect();
    let excused = |cause: Cause| doubts.iter().any(|call| may_cause(call, cause));
    let excused: Vec<bool> = Cause::ALL.into_iter().map(excused).collect();
    let fired = book.spans.iter().filter_map(|span| match span.reply() {
        Some(Reply::Fired { fired: Fired::New(job) }) => Some(*job),
        _ => None,
    });
    let fired: HashSet<JobId> = fired.collect();
    for (id, job) in &book.jobs {
        // A firing tells the id of its job, and that is all.
        let told = |change: &Change| fired.contains(id) && change.version == 1;
        let announced: HashSet<u32> = job.announced.iter().map(|(change, _)| change.version).collect();
        for change in &job.logged {
            if !announced.contains(&change.version) && !excused[change.cause as usize] && !told(change) {
                let text = format!("version {} is recorded and was never announced", change.version);
                report.add(Invariant::EventStream, *id, text);
            }
        }
    }
}

/// Whether a call may make a transition of a cause.
const fn may_cause(call: &Call, cause: Cause) -> bool {
    let parent = matches!(cause, Cause::ParentsSettled | Cause::ParentFailed | Cause::Skipped);
    match call {
        Call::Submit { .. } => parent || matches!(cause, Cause::Submitted),
        Call::Fire { .. } => matches!(cause, Cause::Submitted),
        Call::Exchange { .. } => !matches!(cause, Cause::Redriven | Cause::DeadlinePassed),
        Call::RequestCancel { .. } => parent || matches!(cause, Cause::Cancelled),
        Call::Redrive { .. } => matches!(cause, Cause::Redriven),
        Call::Reap { .. } => {
            parent
                || matches!(
                    cause,
                    Cause::Lost | Cause::LostTooOften | Cause::DeadlinePassed | Cause::Cancelled
                )
        }
        _ => false,
    }
}

/// A subscriber sees each job's versions one after the other, or is told that it missed some.
fn observed(book: &Book<'_>, report: &mut Report) {
    let mut lags = HashMap::new();
    let mut last = HashMap::new();
    for (at, entry) in book.entries.iter().enumerate() {
        match entry {
            Entry::Lagged { subscriber } => *lags.entry(subscriber).or_insert(0_u64) += 1,
            Entry::Observed { subscriber, seen } => {
                let lag = lags.get(subscriber).copied().unwrap_or(0);
                let before = last.insert((subscriber, seen.job), (seen.version, lag));
                let fits = before.is_none_or(|(version, lagged)| {
                    seen.version == version + 1 || (seen.version > version && lagged < lag)
                });
                if !fits {
                    let text = format!("{subscriber} was told of version {} after {before:?}", seen.version);
                    report.add(Invariant::EventStream, seen.job, text);
                }
                let made = book.jobs.get(&seen.job).and_then(|job| job.change(seen.version));
                let later = book.log().is_some() && book.last().is_some_and(|survey| survey.began > at);
                if made.map_or(later, |change| !seen.is_after(change)) {
                    let text =
                        format!("{subscriber} was told of a version {} that was not made", seen.version);
                    report.add(Invariant::EventStream, seen.job, text);
                }
            }
            _ => {}
        }
    }
}

/// A page of the log has each job's versions one after the other, as they were made.
fn pages(book: &Book<'_>, report: &mut Report) {
    for span in &book.spans {
        let Some(Reply::Changes { changes }) = span.reply() else { continue };
        let mut last: HashMap<JobId, u32> = HashMap::new();
        for change in changes {
            let version = change.version;
            if last.insert(change.job, version).is_some_and(|last| version != last + 1) {
                let text = format!("a page of changes has version {version} out of its order");
                report.add(Invariant::EventStream, change.job, text);
            }
            let made = book.jobs.get(&change.job).and_then(|job: &JobBook<'_>| job.change(version));
            if made.is_some_and(|made| made != change) {
                let text = format!("a page of changes has another version {version}");
                report.add(Invariant::EventStream, change.job, text);
            }
        }
    }
}
