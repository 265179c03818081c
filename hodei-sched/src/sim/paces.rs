//! How fast nodes claim, beside how fast they may.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_core::testkit::history::Facts;
use hodei_core::{Name, Tenant, Timestamp};

use super::watch::Watch;
use crate::machine::{Policy, Rate, RateOf};

/// For how long nodes are not judged after a policy has changed: what they have asked for under the one before may be as long
/// on its way.
const UNJUDGED: Duration = Duration::from_secs(30);

/// A bucket as the documentation of rates says: no more than that, whatever the node has in mind.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// How much it holds at most, in microseconds of its rate times its tokens.
    most: u128,
    level: u128,
    since: Timestamp,
}

impl Bucket {
    /// The bucket of a node of so many dispatchers, each of which has at least one job's tokens.
    fn full(rate: &Rate, of: u32, since: Timestamp) -> Self {
        let each = rate.burst.div_ceil(of.max(1)).max(rate.cost);
        let most = u128::from(each) * u128::from(of.max(1)) * rate.per.as_micros();
        Self { rate: rate.clone(), most, level: most, since }
    }

    /// Takes a job's tokens out, and says whether they were there.
    fn take(&mut self, now: Timestamp) -> bool {
        let gained = now.saturating_since(self.since).as_micros() * u128::from(self.rate.tokens);
        self.since = now;
        self.level = (self.level + gained).min(self.most);
        let cost = u128::from(self.rate.cost) * self.rate.per.as_micros();
        let there = self.level >= cost;
        self.level = self.level.saturating_sub(cost);
        there
    }
}

/// The buckets of all nodes, by node and which of its lives.
#[derive(Debug, Default)]
pub(super) struct Paces(BTreeMap<(usize, u64), Vec<Bucket>>);

impl Paces {
    /// A node begins a life under a policy.
    pub(super) fn begin(&mut self, node: (usize, u64), policy: &Policy, of: u32, now: Timestamp) {
        let full = policy.rates.iter().map(|rate| Bucket::full(rate, of, now));
        self.0.insert(node, full.collect());
    }

    /// A node is told of another policy: it is judged by that after a while.
    pub(super) fn change(&mut self, node: (usize, u64), policy: &Policy, of: u32, now: Timestamp) {
        self.begin(node, policy, of, now.saturating_add(UNJUDGED));
    }

    /// A node does not hear what it has claimed: what it counts until it knows is less than that.
    pub(super) fn unheard(&mut self, node: (usize, u64)) {
        self.0.entry(node).or_default().iter_mut().for_each(|bucket| bucket.level = bucket.most);
    }

    /// Notes a claim, and says which rate it is too much for.
    fn claims(&mut self, node: (usize, u64), job: &Facts, now: Timestamp) -> Option<&RateOf> {
        let buckets = self.0.get_mut(&node)?.iter_mut();
        let about = |bucket: &&mut Bucket| bucket.since <= now && is_about(&bucket.rate.of, job);
        buckets.filter(about).fold(None, |found, bucket| {
            let there = bucket.take(now);
            found.or_else(|| (!there).then_some(&bucket.rate.of))
        })
    }
}

fn is_about(of: &RateOf, job: &Facts) -> bool {
    let (tenant, named): (&Tenant, bool) = match of {
        RateOf::Queue(tenant, queue) => (tenant, *queue == job.queue),
        RateOf::Key(tenant, key) => (tenant, job.limits.iter().any(|limit: &Name| limit == key)),
    };
    named && *tenant == job.tenant
}

impl Watch {
    /// Notes what a node has claimed.
    pub(super) fn paced(&mut self, job: &Facts, now: Timestamp) {
        let Some(node) = self.caller else { return };
        if let Some(of) = self.paces.claims(node, job, now) {
            let text =
                format!("I11: node-{} claims {} faster than the rate of {of:?} lets it", node.0, job.job);
            self.find(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_burst_through_and_then_what_comes() {
        let rate = Rate::new(RateOf::Queue(Tenant::default(), Name::literal("q")), 2, Duration::from_secs(1));
        let at = |millis: i64| Timestamp::from_micros(millis * 1_000);
        let mut bucket = Bucket::full(&rate.burst(3), 1, at(0));
        let taken: Vec<bool> = [0, 0, 0, 0, 499, 999, 999].map(|millis| bucket.take(at(millis))).into();
        assert_eq!(taken, [true, true, true, false, false, true, false]);
        let cost = Rate::new(RateOf::Queue(Tenant::default(), Name::literal("q")), 1, Duration::from_secs(1));
        let mut two = Bucket::full(&cost.cost(2), 2, at(0));
        assert_eq!([two.take(at(0)), two.take(at(0)), two.take(at(0))], [true, true, false], "one for each");
    }
}
