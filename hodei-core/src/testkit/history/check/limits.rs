//! I11: limits, at each point of the change log.

use std::collections::HashMap;

use super::super::call::Call;
use super::super::entry::LimitSeen;
use super::super::facts::Facts;
use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::job::Cause;
use crate::store::{Change, LimitOf};

/// The settings of one limit, by their ends.
#[derive(Default)]
struct Settings {
    /// Begin, end and maximum of each call that set it, or may have; no maximum where it was removed.
    set: Vec<(usize, usize, Option<u32>)>,
    /// The latest beginning among the calls up to each one.
    latest: Vec<usize>,
    /// The earliest beginning among the calls from each one on.
    earliest: Vec<usize>,
}

/// How many leased jobs count against each limit that anybody set or saw.
struct Used(HashMap<LimitOf, u64>);

impl Used {
    fn of(settings: &HashMap<&LimitOf, Settings>, seen: &[LimitSeen]) -> Self {
        let known = settings.keys().copied().chain(seen.iter().map(|limit| &limit.of));
        Self(known.map(|of| (of.clone(), 0)).collect())
    }

    /// Counts a job that came into a lease or lost it, and returns the limits that it counts against.
    fn count(&mut self, change: &Change, facts: &Facts, was: bool) -> Vec<(LimitOf, u64)> {
        let keys = facts.limits.iter().map(|key| LimitOf::Key(facts.tenant.clone(), key.clone()));
        let queue = LimitOf::Queue(facts.tenant.clone(), facts.queue.clone());
        let all = [LimitOf::All, LimitOf::Tenant(change.tenant.clone()), queue].into_iter().chain(keys);
        let count = |of: LimitOf| {
            let used = self.0.get_mut(&of)?;
            *used = if was { used.saturating_sub(1) } else { *used + 1 };
            Some((of, *used))
        };
        all.filter_map(count).collect()
    }
}

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let Some(log) = book.log() else { return };
    let settings = settings(book);
    let seen = book.last().filter(|survey| survey.quiet).map(|survey| survey.limits).unwrap_or_default();
    let mut in_use = Used::of(&settings, seen);
    if in_use.0.is_empty() {
        return;
    }
    for change in log {
        let was = change.from.is_some_and(|from| from.is_leased());
        let Some(facts) = book.facts(change.job).filter(|_| was != change.to.is_leased()) else { continue };
        let counted = in_use.count(change, facts, was);
        for (of, used) in counted.into_iter().filter(|_| change.cause == Cause::Claimed) {
            let max = settings.get(&of).and_then(|settings| settings.most(book, change));
            if max.is_some_and(|max| used > u64::from(max)) {
                let text = format!("version {} is claim {used} of {max:?} on {of}", change.version);
                report.add(Invariant::LimitsKept, change.job, text);
            }
        }
    }
    for limit in seen {
        let used = in_use.0.get(&limit.of).copied().unwrap_or(0);
        if used != u64::from(limit.in_use) {
            let text = format!("{} tells {} in use, {used} are leased", limit.of, limit.in_use);
            report.add(Invariant::LimitsKept, None, text);
        }
    }
}

fn settings<'h>(book: &Book<'h>) -> HashMap<&'h LimitOf, Settings> {
    let mut settings: HashMap<_, Settings> = HashMap::new();
    for span in book.spans.iter().filter(|span| span.reply().is_some() || span.is_unknown()) {
        let (of, max) = match span.call {
            Call::SetLimit { of, max, .. } => (of, Some(*max)),
            Call::RemoveLimit { of } => (of, None),
            _ => continue,
        };
        // One of unknown outcome may have been made at any time later, and may not have been made at all.
        let end = if span.is_unknown() { usize::MAX } else { span.end };
        settings.entry(of).or_default().set.push((span.at, end, max));
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
        let most = near.filter(|(at, ..)| *at < end).map(|(.., max)| *max);
        most.reduce(|most, max| Some(most?.max(max?))).flatten()
    }
}
