//! I11: rates, at each claim of the change log.

use std::collections::HashMap;
use std::time::Duration;

use super::super::call::Call;
use super::super::facts::Facts;
use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::job::Cause;
use crate::store::{Change, LimitOf, Rate, Spent};
use crate::time::Timestamp;

/// A call that set a limit or removed it, or may have: its begin, its end, and the rate.
type Setting = (usize, usize, Option<Rate>);

/// A bucket as the documentation of rates says: no more than that, whatever the store has in mind.
struct Bucket {
    rate: Rate,
    spent: Spent,
    /// Where the call began that made the last claim.
    since: usize,
    /// When that was, on the store's clock.
    at: Timestamp,
}

/// How far a clock goes back that was set back; calls that run side by side have times that differ by less.
const SET_BACK: Duration = Duration::from_secs(10);

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let Some(log) = book.log() else { return };
    let settings = settings(book);
    let mut buckets: HashMap<&LimitOf, Bucket> = HashMap::new();
    if settings.is_empty() {
        return;
    }
    for change in log.iter().filter(|change| change.cause == Cause::Claimed) {
        let Some(facts) = book.facts(change.job) else { continue };
        let (begin, end) = book.made_by(change).map_or((0, usize::MAX), |span| (span.at, span.end));
        for (of, set) in settings.iter().filter(|(of, _)| is_about(of, facts)) {
            let Some(rate) = in_force(set, begin, end) else {
                buckets.remove(*of);
                continue;
            };
            let full = || Bucket { rate, spent: Spent::default(), since: begin, at: change.at };
            let bucket = buckets.entry(of).or_insert_with(full);
            // Where the clock was set back nobody knows how long a bucket had to fill.
            let set_back = change.at.saturating_add(SET_BACK) < bucket.at;
            if set_back || bucket.rate != rate || was_another(set, rate, bucket.since.min(begin), end) {
                *bucket = full();
            }
            (bucket.since, bucket.at) = (begin, change.at);
            claim(of, bucket, facts, change, report);
        }
    }
}

fn claim(of: &LimitOf, bucket: &mut Bucket, facts: &Facts, change: &Change, report: &mut Report) {
    let Bucket { rate, spent, .. } = bucket;
    if rate.jobs(*spent, facts.tokens, change.at) == 0 {
        let text = format!("version {} is a claim at {} without tokens of {of}", change.version, change.at);
        report.add(Invariant::LimitsKept, change.job, text);
    }
    *spent = rate.claim(*spent, 1, facts.tokens, change.at);
}

fn is_about(of: &LimitOf, facts: &Facts) -> bool {
    match of {
        LimitOf::All => true,
        LimitOf::Tenant(tenant) => *tenant == facts.tenant,
        LimitOf::Queue(tenant, queue) => *tenant == facts.tenant && *queue == facts.queue,
        LimitOf::Key(tenant, key) => *tenant == facts.tenant && facts.limits.contains(key),
    }
}

/// All settings of the limits that ever had a rate.
fn settings<'h>(book: &Book<'h>) -> HashMap<&'h LimitOf, Vec<Setting>> {
    let mut settings: HashMap<_, Vec<Setting>> = HashMap::new();
    for span in book.spans.iter().filter(|span| span.reply().is_some() || span.is_unknown()) {
        let (of, rate) = match span.call {
            Call::SetLimit { of, rate, .. } => (of, *rate),
            Call::RemoveLimit { of } => (of, None),
            _ => continue,
        };
        // One of unknown outcome may have been made at any time later.
        let end = if span.is_unknown() { usize::MAX } else { span.end };
        settings.entry(of).or_default().push((span.at, end, rate));
    }
    settings.retain(|_, set| set.iter().any(|(.., rate)| rate.is_some()));
    settings
}

/// The rate that was in force at a claim beyond doubt: that of all calls that were not surely replaced before it began, and of
/// none that may have come to nothing.
fn in_force(set: &[Setting], begin: usize, end: usize) -> Option<Rate> {
    let sure = || set.iter().filter(|(_, ended, _)| *ended < begin);
    let cut = sure().map(|(at, ..)| *at).max()?;
    let mut perhaps = set.iter().filter(|(at, ended, _)| *ended >= cut && *at < end).map(|(.., rate)| *rate);
    let first = perhaps.next()??;
    perhaps.all(|rate| rate == Some(first)).then_some(first)
}

/// Whether another rate, or none, may have been in force between two claims: then the bucket may be full again.
fn was_another(set: &[Setting], rate: Rate, since: usize, end: usize) -> bool {
    set.iter().any(|(at, ended, other)| *other != Some(rate) && *ended >= since && *at < end)
}
