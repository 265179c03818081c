//! I11: limits, at each point of the change log.

use std::collections::HashMap;

use super::super::call::Call;
use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::id::{Name, Tenant};
use crate::job::Cause;
use crate::store::Change;

/// The settings of one limit, by their ends.
#[derive(Default)]
struct Settings {
    /// Begin, end and maximum of each call that set it, or may have.
    set: Vec<(usize, usize, u32)>,
    /// The latest beginning among the calls up to each one.
    latest: Vec<usize>,
    /// The earliest beginning among the calls from each one on.
    earliest: Vec<usize>,
}

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let Some(log) = book.log() else { return };
    let settings = settings(book);
    let mut in_use: HashMap<(&Tenant, &Name), u64> = HashMap::new();
    for change in log {
        let was = change.from.is_some_and(|from| from.is_leased());
        let keys = book.facts(change.job).map(|facts| facts.limits.as_slice()).unwrap_or_default();
        for key in keys.iter().filter(|_| was != change.to.is_leased()) {
            let used = in_use.entry((&change.tenant, key)).or_default();
            *used = if was { used.saturating_sub(1) } else { *used + 1 };
            if change.cause != Cause::Claimed {
                continue;
            }
            let max = settings.get(&(&change.tenant, key)).and_then(|settings| settings.most(book, change));
            if max.is_some_and(|max| *used > u64::from(max)) {
                let text = format!("version {} is claim {used} of {max:?} on {key}", change.version);
                report.add(Invariant::LimitsKept, change.job, text);
            }
        }
    }
    for limit in book.last().filter(|survey| survey.quiet).map(|survey| survey.limits).unwrap_or_default() {
        let used = in_use.get(&(&limit.tenant, &limit.key)).copied().unwrap_or(0);
        if used != u64::from(limit.in_use) {
            let text =
                format!("{} of {} tells {} in use, {used} are leased", limit.key, limit.tenant, limit.in_use);
            report.add(Invariant::LimitsKept, None, text);
        }
    }
}

fn settings<'h>(book: &Book<'h>) -> HashMap<(&'h Tenant, &'h Name), Settings> {
    let mut settings: HashMap<_, Settings> = HashMap::new();
    for span in book.spans.iter().filter(|span| span.reply().is_some() || span.is_unknown()) {
        if let Call::SetLimit { tenant, key, max } = span.call {
            // One of unknown outcome may have been made at any time later, and may not have been made at all.
            let end = if span.is_unknown() { usize::MAX } else { span.end };
            settings.entry((tenant, key)).or_default().set.push((span.at, end, *max));
        }
    }
    settings.values_mut().for_each(Settings::arrange);
    settings
}

impl Settings {
    fn arrange(&mut self) {
        self.set.sort_unstable_by_key(|(_, end, _)| *end);
        let latest = self.set.iter().scan(0, |latest, (at, ..)| {
            *latest = (*at).max(*latest);
            Some(*latest)
        });
        self.latest = latest.collect();
        let earliest = self.set.iter().rev().scan(usize::MAX, |earliest, (at, ..)| {
            *earliest = (*at).min(*earliest);
            Some(*earliest)
        });
        self.earliest = earliest.collect();
        self.earliest.reverse();
    }

    /// Returns the largest maximum that may have been in force at a claim; nothing where there may have been none.
    ///
    /// In force may be whatever was set before the claim's end and was not surely replaced before its beginning: the
    /// calls that ended after the last beginning among those that ended before the claim.
    fn most(&self, book: &Book<'_>, claim: &Change) -> Option<u32> {
        let (begin, end) = book.made_by(claim).map_or((0, usize::MAX), |span| (span.at, span.end));
        let over = self.set.partition_point(|(_, set, _)| *set < begin);
        let cut = *self.latest.get(over.checked_sub(1)?)?;
        let first = self.set.partition_point(|(_, set, _)| *set < cut);
        let rest = self.set.iter().zip(&self.earliest).skip(first);
        let near = rest.take_while(|(_, earliest)| **earliest < end).map(|(set, _)| set);
        near.filter(|(at, ..)| *at < end).map(|(.., max)| *max).max()
    }
}
