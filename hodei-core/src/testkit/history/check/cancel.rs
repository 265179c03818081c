//! I10: what follows a cancellation.

use std::collections::HashMap;

use super::super::call::{Call, Reply};
use super::super::report::{Invariant, Report};
use super::book::{Book, Moment, Span};
use crate::id::JobId;
use crate::job::Cause;
use crate::store::{CancelReply, Change};

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    // The last request that was answered with yes: its call.
    let mut asked: HashMap<JobId, usize> = HashMap::new();
    for (_, moment) in book.moments() {
        let Moment::Ended(n) = moment else { continue };
        let span = &book.spans[n];
        match (span.call, span.reply()) {
            (Call::RequestCancel { jobs, .. }, Some(Reply::Cancelled { replies, changes })) => {
                answers(book, jobs, replies, changes, report);
                let yes =
                    |reply: &CancelReply| matches!(reply, CancelReply::Cancelled | CancelReply::Requested);
                let heard = jobs.iter().zip(replies).filter(|(_, reply)| yes(reply));
                asked.extend(heard.map(|(job, _)| (*job, n)));
            }
            (Call::Exchange { .. }, Some(reply)) => {
                for change in reply.committed().iter().filter(|change| change.cause == Cause::Claimed) {
                    if let Some(request) = asked.get(&change.job) {
                        claimed(book, change, span, &book.spans[*request], report);
                    }
                }
            }
            _ => {}
        }
    }
}

/// No claim that was begun after the answer, unless somebody sent the job round again.
fn claimed(book: &Book<'_>, claim: &Change, span: &Span<'_>, request: &Span<'_>, report: &mut Report) {
    if span.at < request.end {
        return;
    }
    let path = book.jobs.get(&claim.job).map(|job| job.path.as_slice()).unwrap_or_default();
    let before = &path[..path.partition_point(|change| change.version < claim.version)];
    let redriven = before.iter().rev().find(|change| change.cause == Cause::Redriven);
    // A redrive that was over before the request had begun does not excuse.
    let excused =
        redriven.is_some_and(|change| book.made_by(change).is_none_or(|redrive| redrive.end > request.at));
    if !excused {
        let text = format!("version {} claims it after a cancellation was answered", claim.version);
        report.add(Invariant::CleanCancel, claim.job, text);
    }
}

/// Each answer says what was committed: `Cancelled` has its change, under a higher epoch; the others have none.
fn answers(
    book: &Book<'_>,
    jobs: &[JobId],
    replies: &[CancelReply],
    changes: &[Change],
    report: &mut Report,
) {
    if jobs.len() != replies.len() {
        let text = format!("{} requests to cancel got {} answers", jobs.len(), replies.len());
        report.add(Invariant::CleanCancel, None, text);
    }
    let is_cancel = |change: &&Change| change.cause == Cause::Cancelled;
    let mut made: HashMap<JobId, &Change> =
        changes.iter().filter(is_cancel).map(|change| (change.job, change)).collect();
    for (job, reply) in jobs.iter().zip(replies).filter(|(_, reply)| **reply == CancelReply::Cancelled) {
        let Some(change) = made.remove(job) else {
            let text = format!("was answered {reply:?} and nothing changed");
            report.add(Invariant::CleanCancel, *job, text);
            continue;
        };
        let before = change.version.checked_sub(1).and_then(|version| book.jobs.get(job)?.change(version));
        if before.is_some_and(|before| before.epoch >= change.epoch) {
            let text = format!("version {} cancels it and its epoch stays {}", change.version, change.epoch);
            report.add(Invariant::CleanCancel, *job, text);
        }
    }
    for change in changes.iter().filter(|change| made.contains_key(&change.job) && is_cancel(change)) {
        let text = format!("version {} cancels it and was not answered so", change.version);
        report.add(Invariant::CleanCancel, change.job, text);
    }
}
