//! How fast jobs may be claimed: token buckets that a store keeps with its limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::time::Timestamp;

/// A token bucket: it holds up to `burst` tokens, and gains `tokens` in each `per`, evenly. Each claimed job takes one, or as
/// many as it says ([`Resources::tokens`](crate::job::Resources::tokens)).
///
/// In any span of time the claims take at most as many tokens as come in it, and a burst. A job that takes more than a burst is
/// claimed when the bucket is full, and leaves it owing the rest; then the claims take no more than that job beyond what comes.
/// Time is that of the store's clock: where that is set back, a store brings back by as much what is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rate {
    /// How many tokens come in each `per`; at least one.
    pub tokens: u32,
    /// In how long: at most [`Rate::WINDOW_MAX`], and divided by the tokens at most [`Rate::GAP_MAX`]. It is held in whole nanoseconds a token, rounded up.
    pub per: Duration,
    /// How many tokens there may be at once; at least one, and no more than come within [`Rate::WINDOW_MAX`].
    pub burst: u32,
}

impl Rate {
    /// The longest time in which one token may come: 31 days.
    pub const GAP_MAX: Duration = Duration::from_secs(31 * 24 * 3_600);
    /// The longest time in which tokens may come, and in which an empty bucket may become full: 366 days.
    pub const WINDOW_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

    /// So many tokens in each `per`, and a burst of as many.
    #[must_use]
    pub const fn new(tokens: u32, per: Duration) -> Self {
        Self { tokens, per, burst: tokens }
    }

    /// Sets how many tokens there may be at once.
    #[must_use]
    pub const fn burst(mut self, tokens: u32) -> Self {
        self.burst = tokens;
        self
    }

    /// Says what is wrong with it, if anything is.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let seconds = |most: Duration| most.as_secs();
        if self.tokens == 0 {
            Some(Fault::new("rate.tokens", "zero"))
        } else if self.per.is_zero() {
            Some(Fault::new("rate.per", "zero"))
        } else if self.burst == 0 {
            Some(Fault::new("rate.burst", "zero"))
        } else if self.per > Self::WINDOW_MAX {
            Some(Fault::new("rate.per", "too_large").limit(seconds(Self::WINDOW_MAX)))
        } else if self.per / self.tokens > Self::GAP_MAX {
            Some(Fault::new("rate.per", "too_large").limit(seconds(Self::GAP_MAX)))
        } else if self.gap().saturating_mul(i64::from(self.burst)) > nanos(Self::WINDOW_MAX) {
            Some(Fault::new("rate.burst", "too_large").limit(seconds(Self::WINDOW_MAX)))
        } else {
            None
        }
    }

    /// The time in which a token comes, in nanoseconds.
    #[must_use]
    pub fn gap(&self) -> i64 {
        let gap = self.per.as_nanos().div_ceil(u128::from(self.tokens.max(1)));
        i64::try_from(gap).unwrap_or(i64::MAX).max(1)
    }

    /// How many tokens there are.
    #[must_use]
    pub fn left(&self, spent: Spent, now: Timestamp) -> u64 {
        let owed = spent.owed(now).div_ceil(self.gap().unsigned_abs());
        u64::from(self.burst).saturating_sub(owed)
    }

    /// How many jobs that take so many tokens each may be claimed.
    #[must_use]
    pub fn jobs(&self, spent: Spent, each: u32, now: Timestamp) -> u64 {
        self.left(spent, now) / self.needs(each)
    }

    /// What is spent when so many jobs are claimed.
    #[must_use]
    pub fn claim(&self, spent: Spent, jobs: u64, each: u32, now: Timestamp) -> Spent {
        if jobs == 0 {
            return spent;
        }
        let tokens = i64::try_from(jobs.saturating_mul(u64::from(each.max(1)))).unwrap_or(i64::MAX);
        let from = spent.0.max(scaled(now));
        Spent(from.saturating_add(tokens.saturating_mul(self.gap())))
    }

    /// When one more job may be claimed.
    #[must_use]
    pub fn opens_at(&self, spent: Spent, each: u32) -> Timestamp {
        let left = u64::from(self.burst).saturating_sub(self.needs(each));
        let ahead = i64::try_from(left).unwrap_or(i64::MAX).saturating_mul(self.gap());
        let at = spent.0.saturating_sub(ahead);
        Timestamp::from_micros(at.div_euclid(1_000).saturating_add(i64::from(at.rem_euclid(1_000) > 0)))
    }

    /// What is spent of this rate where it comes in the place of another: as many tokens, but no more than there may be.
    #[must_use]
    pub fn instead_of(&self, before: &Self, spent: Spent, now: Timestamp) -> Spent {
        if self == before {
            return spent;
        }
        let (gap, owed) = (u128::from(self.gap().unsigned_abs()), u128::from(spent.owed(now)));
        let same = (owed * gap).div_ceil(u128::from(before.gap().unsigned_abs()));
        let owes = same.min(gap * u128::from(self.burst));
        if owes == 0 {
            return Spent::default();
        }
        Spent(scaled(now).saturating_add(i64::try_from(owes).unwrap_or(i64::MAX)))
    }

    /// How many tokens there must be before a job that takes so many is claimed.
    fn needs(&self, each: u32) -> u64 {
        u64::from(each.clamp(1, self.burst.max(1)))
    }
}

/// What is spent of a bucket, as the time when it is full again: nanoseconds since 1970. The default is a bucket that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spent(i64);

impl Spent {
    /// Takes the time when a bucket is full again, as stored rows keep it.
    #[must_use]
    pub const fn until_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Returns the time when the bucket is full again, in nanoseconds since 1970.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Returns the same of a clock that was set back by so much.
    #[must_use]
    pub fn brought_back(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long it takes until the bucket is full, in nanoseconds.
    fn owed(self, now: Timestamp) -> u64 {
        self.0.saturating_sub(scaled(now)).max(0).unsigned_abs()
    }
}

/// What limits let through of a lane: all of its jobs take as many tokens.
#[derive(Clone, Debug)]
pub struct LaneRoom {
    now: Timestamp,
    each: u32,
    free: u64,
    tokens: u64,
    rates: Vec<(Rate, Spent)>,
}

impl LaneRoom {
    /// As much as there is, of jobs that take so many tokens each.
    #[must_use]
    pub const fn unlimited(each: u32, now: Timestamp) -> Self {
        Self { now, each, free: u64::MAX, tokens: u64::MAX, rates: Vec::new() }
    }

    /// Holds it to how many more may be leased.
    pub fn hold(&mut self, free: u64) {
        self.free = self.free.min(free);
    }

    /// Holds it to a rate.
    pub fn pace(&mut self, rate: Rate, spent: Spent) {
        self.tokens = self.tokens.min(rate.jobs(spent, self.each, self.now));
        self.rates.push((rate, spent));
    }

    /// How many jobs may be claimed.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        self.free.min(self.tokens)
    }

    /// Of so many ready jobs, how many may be claimed, and when the rates let the next one through if those are claimed now:
    /// nothing where it is not the rates that hold the others back.
    #[must_use]
    pub fn shown(&self, ready: u64) -> (u64, Option<Timestamp>) {
        let ready = ready.min(self.free);
        if ready <= self.tokens {
            return (ready, None);
        }
        let next = |(rate, spent): &(Rate, Spent)| {
            rate.opens_at(rate.claim(*spent, self.tokens, self.each, self.now), self.each)
        };
        (self.tokens, self.rates.iter().map(next).max())
    }
}

fn scaled(now: Timestamp) -> i64 {
    now.as_micros().saturating_mul(1_000)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn any_rate() -> impl Strategy<Value = Rate> {
        (1_u32..5_000, 1_u64..5_000_000_000, 1_u32..60)
            .prop_map(|(tokens, nanos, burst)| Rate::new(tokens, Duration::from_nanos(nanos)).burst(burst))
    }

    proptest! {
        #[test]
        fn no_span_takes_more_than_comes_in_it_and_a_burst(
            rate in any_rate(),
            steps in prop::collection::vec((0_u64..2_000_000, 1_u64..40, 1_u32..80), 1..60),
        ) {
            let (mut now, mut spent) = (START, Spent::default());
            // When tokens were taken, and how many.
            let mut taken: Vec<(Timestamp, u64)> = Vec::new();
            for (wait, wanted, each) in steps {
                now = now.saturating_add(Duration::from_micros(wait));
                let may = rate.jobs(spent, each, now);
                let jobs = wanted.min(may);
                spent = rate.claim(spent, jobs, each, now);
                taken.push((now, jobs * u64::from(each)));
                if jobs == may {
                    // It says itself when it goes on, and not too late.
                    let at = rate.opens_at(spent, each);
                    prop_assert!(at > now && rate.jobs(spent, each, at) > 0);
                    let before = Timestamp::from_micros(at.as_micros() - 1);
                    prop_assert_eq!(rate.jobs(spent, each, before), 0);
                }
                let most = u64::from(rate.burst).max(u64::from(each));
                let mut sum = 0;
                for (since, tokens) in taken.iter().rev() {
                    sum += tokens;
                    let came = now.saturating_since(*since).as_nanos() / u128::from(rate.gap().unsigned_abs());
                    let over = taken.iter().map(|(_, tokens)| *tokens).max().unwrap_or(0).max(most);
                    prop_assert!(u128::from(sum) <= came + u128::from(over) + 1, "{sum} of {came} and {over}");
                }
            }
        }

        #[test]
        fn what_is_spent_stays_spent_under_another_rate(
            (before, after) in (any_rate(), any_rate()),
            jobs in 0_u64..60,
        ) {
            let jobs = jobs.min(before.jobs(Spent::default(), 1, START));
            let spent = before.claim(Spent::default(), jobs, 1, START);
            prop_assert_eq!(before.instead_of(&before, spent, START), spent);
            let left = after.left(after.instead_of(&before, spent, START), START);
            prop_assert_eq!(left, u64::from(after.burst).saturating_sub(jobs));
        }
    }

    #[test]
    fn a_job_that_takes_more_than_a_burst_waits_for_a_full_bucket() {
        let rate = Rate::new(2, Duration::from_secs(1)).burst(4);
        let spent = rate.claim(Spent::default(), 1, 1, START);
        assert_eq!((rate.jobs(spent, 10, START), rate.jobs(spent, 3, START)), (0, 1));
        let full = rate.opens_at(spent, 10);
        assert_eq!(full, START.saturating_add(Duration::from_millis(500)));
        assert_eq!(rate.jobs(spent, 10, full), 1);
        // Ten are owed, of which four may be missing: then there is none for five seconds, less the four that were there.
        let spent = rate.claim(spent, 1, 10, full);
        assert_eq!(rate.opens_at(spent, 1), full.saturating_add(Duration::from_millis(3_500)));
    }

    #[test]
    fn a_rate_that_cannot_be_held_is_refused() {
        let second = Duration::from_secs(1);
        let refused = |rate: Rate| rate.fault().map(|fault| (fault.field, fault.code));
        let is = |field: &str, code: &'static str| Some((field.to_owned(), code));
        assert_eq!(refused(Rate::new(0, second)), is("rate.tokens", "zero"));
        assert_eq!(refused(Rate::new(1, Duration::ZERO)), is("rate.per", "zero"));
        assert_eq!(refused(Rate::new(1, second).burst(0)), is("rate.burst", "zero"));
        assert_eq!(refused(Rate::new(1, 2 * Rate::GAP_MAX)), is("rate.per", "too_large"));
        assert_eq!(refused(Rate::new(1, Rate::GAP_MAX).burst(12)), is("rate.burst", "too_large"));
        assert_eq!(refused(Rate::new(1, Rate::GAP_MAX).burst(11)), None);
        assert_eq!(refused(Rate::new(u32::MAX, second)), None);
    }
}
