//! I4, I5 and I8 along the path of each job.

use super::super::call::Call;
use super::super::report::{Invariant, Report};
use super::book::{Book, JobBook};
use crate::id::JobId;
use crate::job::{Cause, State, next};
use crate::store::Change;

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let losses = losses_allowed(book);
    let in_doubt = book.is_in_doubt();
    for (id, job) in &book.jobs {
        log_order(*id, job, report);
        begins(book, *id, job, in_doubt, report);
        let logged = job.logged.last().map_or(0, |last| last.version);
        for pair in job.path.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if after.version == before.version + 1 {
                moves(before, after, report);
            } else if after.version <= logged || !in_doubt {
                let missing =
                    format!("versions between {} and {} are missing", before.version, after.version);
                report.add(Invariant::LegalPath, *id, missing);
            }
        }
        counts(*id, job, losses, report);
    }
}

/// The change log has each version once, in order.
fn log_order(id: JobId, job: &JobBook<'_>, report: &mut Report) {
    for pair in job.logged.windows(2) {
        if pair[1].version != pair[0].version + 1 {
            let text = format!("the change log has version {} after {}", pair[1].version, pair[0].version);
            report.add(Invariant::LegalPath, id, text);
        }
    }
}

fn begins(book: &Book<'_>, id: JobId, job: &JobBook<'_>, in_doubt: bool, report: &mut Report) {
    let Some(first) = job.path.first() else { return };
    if first.version == 1 {
        let state = matches!(first.to, State::Blocked | State::Pending);
        let blank = (first.from, first.cause, first.attempt) == (None, Cause::Submitted, 0);
        if !state || !blank || first.epoch.number() != 0 {
            report.add(Invariant::LegalPath, id, format!("begins with {}", told(first)));
        }
    } else if book.log().is_some() && !(job.logged.is_empty() && in_doubt) {
        report.add(Invariant::LegalPath, id, format!("begins with version {}", first.version));
    }
}

fn moves(before: &Change, after: &Change, report: &mut Report) {
    if after.from != Some(before.to) || next(before.to, after.cause) != Some(after.to) {
        let text = format!("{} after {}", told(after), told(before));
        report.add(Invariant::LegalPath, after.job, text);
    }
    if (&after.tenant, after.pipeline) != (&before.tenant, before.pipeline) {
        let text = format!("changed hands with version {}", after.version);
        report.add(Invariant::LegalPath, after.job, text);
    }
    let (was, is) = (before.epoch, after.epoch);
    match after.cause {
        Cause::Claimed if is <= was => {
            let text = format!("version {} claims it under epoch {is} after {was}", after.version);
            report.add(Invariant::EpochMonotone, after.job, text);
        }
        Cause::Cancelled if is < was => {
            let text = format!("version {} cancels it under epoch {is} after {was}", after.version);
            report.add(Invariant::EpochMonotone, after.job, text);
        }
        Cause::Claimed | Cause::Cancelled => {}
        cause if is != was && is_report(cause) => {
            let text = format!("version {}, {cause:?}, came under epoch {is}, not {was}", after.version);
            report.add(Invariant::Fencing, after.job, text);
        }
        cause if is != was => {
            let text = format!("version {}, {cause:?}, moves the epoch from {was} to {is}", after.version);
            report.add(Invariant::EpochMonotone, after.job, text);
        }
        _ => {}
    }
}

/// Whether the owner of a job reports such a transition.
pub(super) const fn is_report(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::Started
            | Cause::Succeeded
            | Cause::Failed
            | Cause::Retried
            | Cause::Snoozed
            | Cause::Returned
            | Cause::Preempted
    )
}

/// The least and the most losses that anybody allows.
fn losses_allowed(book: &Book<'_>) -> Option<(u16, u16)> {
    let mut allowed: Option<(u16, u16)> = None;
    let mut allow = |max: u16| {
        let (least, most) = allowed.unwrap_or((max, max));
        allowed = Some((least.min(max), most.max(max)));
    };
    for span in &book.spans {
        match span.call {
            Call::Reap { lost_max, .. } => allow(*lost_max),
            Call::Exchange { steps, .. } => {
                steps.iter().filter_map(|step| step.lost_max).for_each(&mut allow)
            }
            _ => {}
        }
    }
    allowed
}

/// Counts attempts and losses along a path that is known from its beginning.
fn counts(id: JobId, job: &JobBook<'_>, allowed: Option<(u16, u16)>, report: &mut Report) {
    let mut losses: u16 = 0;
    let max_attempts = job.facts().map_or(u32::MAX, |facts| facts.max_attempts);
    let known = job.path.first().is_some_and(|first| first.version == 1);
    for pair in job.path.windows(2).filter(|_| known) {
        let (before, after) = (pair[0], pair[1]);
        if after.version != before.version + 1 {
            return;
        }
        let expected = attempts(before, after);
        if !expected.contains(&after.attempt) {
            let text = format!("{} tells attempt {}, not {expected:?}", told(after), after.attempt);
            report.add(Invariant::RetryBound, id, text);
        }
        if after.attempt > max_attempts && after.attempt > before.attempt {
            let text = format!("attempt {} of {max_attempts} began", after.attempt);
            report.add(Invariant::RetryBound, id, text);
        }
        match after.cause {
            Cause::Redriven => losses = 0,
            Cause::Lost | Cause::LostTooOften => {
                losses = losses.saturating_add(1);
                let last = after.cause == Cause::LostTooOften;
                let wrong = |(least, most)| if last { losses < least } else { losses >= most };
                if allowed.is_some_and(wrong) {
                    let text = format!("{:?} with loss {losses}, {allowed:?} allowed", after.cause);
                    report.add(Invariant::RetryBound, id, text);
                }
            }
            _ => {}
        }
    }
}

/// The attempts that a job may tell after a move: a run counts from its beginning, and only what ended of itself stays
/// counted.
fn attempts(before: &Change, after: &Change) -> [u32; 2] {
    let was = before.attempt;
    let unstarted = before.to == State::Scheduled;
    match after.cause {
        Cause::Redriven => [0; 2],
        Cause::Started => [was + 1; 2],
        Cause::Succeeded | Cause::Failed | Cause::Retried if unstarted => [was + 1; 2],
        // Its owner ended it before it was told of a start; else somebody else did, who raised the epoch.
        Cause::Cancelled if unstarted && after.epoch == before.epoch => [was + 1; 2],
        // It may be that it gave the job back and the end that was asked for came instead.
        Cause::Cancelled if before.to == State::Running => [was.saturating_sub(1), was],
        Cause::Snoozed | Cause::Returned | Cause::Preempted | Cause::Lost if before.to == State::Running => {
            [was.saturating_sub(1); 2]
        }
        _ => [was; 2],
    }
}

/// Says a transition in words.
pub(super) fn told(change: &Change) -> String {
    let from = change.from.map_or("nothing", State::name);
    format!("version {}, {:?} from {from} to {}", change.version, change.cause, change.to.name())
}
