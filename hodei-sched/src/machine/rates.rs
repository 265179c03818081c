//! How fast the jobs of a queue, or those that name a key, may begin.

use super::explain::Why;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hodei_core::store::{Lane, LaneHead, Pick};
use hodei_core::{Name, Tenant, Timestamp};

/// Whose jobs a rate is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RateOf {
    /// Those of a tenant's queue.
    Queue(Tenant, Name),
    /// Those of a tenant that name this key among their limits.
    Key(Tenant, Name),
}

/// A token bucket: it holds up to `burst` tokens, gains `tokens` in each `per`, and each claimed job takes `cost`.
///
/// Exact for the node; each node on a store has a bucket of its own. Where a node has several dispatchers, each of them has
/// an equal part of the tokens and of the burst, at least one job's. What is claimed counts, so a retry counts again; what was claimed
/// by a call whose answer was lost counts when the node learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// Whose jobs.
    pub of: RateOf,
    /// How many tokens come in each `per`; none hold everything back.
    pub tokens: u32,
    /// In how long.
    pub per: Duration,
    /// How many tokens there may be at once; at least as many as a job costs.
    pub burst: u32,
    /// How many tokens a job takes; at least one.
    pub cost: u32,
}

impl Rate {
    /// So many jobs in each `per`, evenly and with a burst of as many.
    #[must_use]
    pub fn new(of: RateOf, jobs: u32, per: Duration) -> Self {
        Self { of, tokens: jobs, per: per.max(Duration::from_micros(1)), burst: jobs.max(1), cost: 1 }
    }

    /// Sets how many tokens there may be at once.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst.max(1);
        self
    }

    /// Sets how many tokens a job takes.
    #[must_use]
    pub fn cost(mut self, cost: u32) -> Self {
        self.cost = cost.max(1);
        self
    }

    /// An equal part of it: as many tokens in a longer time.
    pub(super) fn part(&self, of: u32) -> Self {
        let burst = self.burst.div_ceil(of).max(self.cost);
        Self { of: self.of.clone(), per: self.per.saturating_mul(of), burst, ..*self }
    }

    /// The time in which a bucket gains a token, in millionths of a microsecond; nothing where it gains none.
    fn gap(&self) -> Option<u128> {
        (self.tokens > 0).then(|| (self.per.as_micros() * 1_000_000 / u128::from(self.tokens)).max(1))
    }
}

/// A bucket by when it was empty: the tokens it has are those that came since (a virtual scheduling clock, GCRA).
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// In millionths of a microsecond.
    empty_at: i128,
}

impl Bucket {
    fn tokens(&self, now: Timestamp) -> u128 {
        let Some(gap) = self.rate.gap() else { return 0 };
        let since = scaled(now).saturating_sub(self.empty_at).max(0).unsigned_abs();
        (since / gap).min(u128::from(self.rate.burst.max(self.rate.cost)))
    }

    fn take(&mut self, tokens: u64, now: Timestamp) {
        let Some(gap) = self.rate.gap() else { return };
        let full = gap.saturating_mul(u128::from(self.rate.burst.max(self.rate.cost)));
        let full = i128::try_from(full).unwrap_or(i128::MAX);
        // What is full gains nothing.
        let from = self.empty_at.max(scaled(now).saturating_sub(full));
        let spent = i128::try_from(gap.saturating_mul(u128::from(tokens))).unwrap_or(i128::MAX);
        self.empty_at = from.saturating_add(spent);
    }

    /// When there are tokens for a job.
    fn ready_at(&self) -> Option<Timestamp> {
        let wait = i128::try_from(self.rate.gap()?.saturating_mul(u128::from(self.rate.cost))).ok()?;
        let at = (self.empty_at.saturating_add(wait) + 999_999) / 1_000_000;
        i64::try_from(at).ok().map(Timestamp::from_micros)
    }
}

fn scaled(now: Timestamp) -> i128 {
    i128::from(now.as_micros()) * 1_000_000
}

/// All rates of a node.
#[derive(Debug, Default)]
pub(super) struct Rates(BTreeMap<RateOf, Bucket>);

impl Rates {
    /// Sets the rates; a bucket that stays keeps its tokens.
    pub(super) fn set(&mut self, rates: Vec<Rate>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.0);
        for rate in rates {
            let full = rate.gap().unwrap_or(0).saturating_mul(u128::from(rate.burst));
            let fresh = scaled(now).saturating_sub(i128::try_from(full).unwrap_or(i128::MAX));
            let empty_at = before.remove(&rate.of).map_or(fresh, |bucket| bucket.empty_at);
            self.0.insert(rate.of.clone(), Bucket { rate, empty_at });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many jobs of a lane may be claimed now.
    pub(super) fn allowed(&self, head: &LaneHead, now: Timestamp) -> u32 {
        let jobs = |of: &RateOf| {
            self.0.get(of).map(|bucket| bucket.tokens(now) / u128::from(bucket.rate.cost.max(1)))
        };
        let least = names(head).filter_map(|of| jobs(&of)).min();
        least.map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// Cuts what is asked for to what the rates let through in all, however many lanes share one.
    pub(super) fn clip<'h>(
        &self,
        picks: &mut Vec<Pick>,
        heads: impl Iterator<Item = &'h LaneHead>,
        now: Timestamp,
    ) {
        let heads: HashMap<&Lane, &LaneHead> = heads.map(|head| (&head.lane, head)).collect();
        let mut left: HashMap<RateOf, u128> = HashMap::new();
        picks.retain_mut(|pick| {
            let Some(head) = heads.get(&pick.lane) else { return true };
            let under: Vec<(RateOf, u128)> = names(head)
                .filter_map(|of| self.0.get_key_value(&of))
                .map(|(of, bucket)| {
                    left.entry(of.clone()).or_insert_with(|| bucket.tokens(now));
                    (of.clone(), u128::from(bucket.rate.cost.max(1)))
                })
                .collect();
            let most = under.iter().map(|(of, cost)| left.get(of).copied().unwrap_or(0) / cost).min();
            pick.n = most.map_or(pick.n, |most| pick.n.min(u32::try_from(most).unwrap_or(u32::MAX)));
            for (of, cost) in under {
                if let Some(left) = left.get_mut(&of) {
                    *left = left.saturating_sub(u128::from(pick.n) * cost);
                }
            }
            pick.n > 0
        });
    }

    /// When a lane that is held back now may go on; nothing where it is not, or for ever.
    pub(super) fn ready_at(&self, head: &LaneHead) -> Option<Timestamp> {
        names(head).filter_map(|of| self.0.get(&of)?.ready_at()).max()
    }

    /// Says why a job is held back now, where it is: by its rates, until then or for ever.
    pub(super) fn holds(&self, of: impl Iterator<Item = RateOf>, now: Timestamp) -> Option<Why> {
        let buckets = of.filter_map(|of| self.0.get(&of));
        let dry = buckets.filter(|bucket| bucket.tokens(now) < u128::from(bucket.rate.cost));
        dry.map(Bucket::ready_at).reduce(|a, b| Some(a?.max(b?))).map(Why::Rate)
    }

    /// Notes that so many jobs of a lane were claimed.
    pub(super) fn charge(&mut self, of: impl Iterator<Item = RateOf>, jobs: u32, now: Timestamp) {
        for of in of {
            if let Some(bucket) = self.0.get_mut(&of) {
                bucket.take(u64::from(jobs) * u64::from(bucket.rate.cost), now);
            }
        }
    }
}

/// Which rates the jobs of a lane may be under.
fn names(head: &LaneHead) -> impl Iterator<Item = RateOf> + '_ {
    of_job(&head.lane.tenant, &head.lane.queue, head.request.limit_keys.iter())
}

/// Which rates a job may be under.
pub(super) fn of_job<'a>(
    tenant: &'a Tenant,
    queue: &Name,
    keys: impl Iterator<Item = &'a str> + 'a,
) -> impl Iterator<Item = RateOf> + 'a {
    let queue = RateOf::Queue(tenant.clone(), queue.clone());
    let keys = keys.filter_map(|key| Name::new(key).ok()).map(|key| RateOf::Key(tenant.clone(), key));
    std::iter::once(queue).chain(keys)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue() -> RateOf {
        RateOf::Queue(Tenant::default(), Name::literal("q"))
    }

    proptest! {
        #[test]
        fn no_window_lets_more_through_than_its_tokens_and_a_burst(
            (tokens, per, burst, cost) in (1_u32..50, 1_u64..5_000_000, 1_u32..60, 1_u32..5),
            steps in prop::collection::vec((0_i64..2_000_000, 1_u32..40), 1..60),
        ) {
            let rate = Rate::new(queue(), tokens, Duration::from_micros(per)).burst(burst).cost(cost);
            let mut rates = Rates::default();
            let mut now = Timestamp::from_micros(1_000_000);
            rates.set(vec![rate], now);
            let start = now;
            let mut taken = 0_u128;
            for (wait, wanted) in steps {
                now = now.saturating_add(Duration::from_micros(wait.unsigned_abs()));
                let bucket = &rates.0[&queue()];
                let may = u32::try_from(bucket.tokens(now) / u128::from(cost)).unwrap();
                let n = wanted.min(may);
                rates.charge(std::iter::once(queue()), n, now);
                taken += u128::from(n) * u128::from(cost);
                let passed = now.saturating_since(start).as_micros();
                let most = passed * u128::from(tokens) / u128::from(per) + u128::from(burst.max(cost)) + 1;
                prop_assert!(taken <= most, "{taken} of {most}");
                if n == may {
                    // It says itself when it goes on.
                    let at = rates.0[&queue()].ready_at().unwrap();
                    prop_assert!(rates.0[&queue()].tokens(at) >= u128::from(cost));
                }
            }
        }
    }

    #[test]
    fn no_tokens_hold_everything_back() {
        let mut rates = Rates::default();
        rates.set(vec![Rate::new(queue(), 0, Duration::from_secs(1))], Timestamp::EPOCH);
        assert_eq!(rates.0[&queue()].tokens(Timestamp::MAX), 0);
        assert_eq!(rates.0[&queue()].ready_at(), None);
    }
}
