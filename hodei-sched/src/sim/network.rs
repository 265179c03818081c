//! What lies between nodes, agents and the store.

use std::time::Duration;

use hodei_core::Timestamp;

use super::options::Faults;
use super::random::Random;

/// Somebody who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Node(usize),
    Agent(usize),
    Store,
    Client,
}

/// When a message arrives: never, once or twice.
pub(super) type Arrivals = [Option<Timestamp>; 2];

/// Directions in which nothing passes for a while, and how well the others work.
#[derive(Debug)]
pub(super) struct Network {
    cuts: Vec<(Place, Place, Timestamp)>,
    /// Until when the store answers nobody.
    outage: Timestamp,
}

/// How a call of the store goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It is refused then.
    Refused(Timestamp),
    /// It reaches the store then.
    Arrives(Timestamp),
}

impl Network {
    pub(super) fn new() -> Self {
        Self { cuts: Vec::new(), outage: Timestamp::EPOCH }
    }

    /// Lets nothing pass from one to the other until a time.
    pub(super) fn cut(&mut self, from: Place, to: Place, until: Timestamp) {
        self.cuts.push((from, to, until));
    }

    /// Lets the store answer nobody until a time.
    pub(super) fn outage(&mut self, until: Timestamp) {
        self.outage = until;
    }

    /// Lets everything pass.
    pub(super) fn heal(&mut self) {
        *self = Self::new();
    }

    fn is_cut(&mut self, from: Place, to: Place, now: Timestamp) -> bool {
        self.cuts.retain(|(.., until)| *until > now);
        self.cuts.iter().any(|(a, b, _)| (*a, *b) == (from, to))
    }

    /// Sends a message.
    pub(super) fn send(
        &mut self,
        (from, to): (Place, Place),
        now: Timestamp,
        faults: &Faults,
        random: &mut Random,
    ) -> Arrivals {
        if self.is_cut(from, to, now) || random.chance(faults.drop) {
            return [None, None];
        }
        let first = now.saturating_add(latency(faults.delay, Duration::from_secs(3), random));
        let again = random.chance(faults.duplicate);
        [Some(first), again.then(|| first.saturating_add(random.millis(0, 2_000)))]
    }

    /// Sends a call to the store.
    pub(super) fn call(&mut self, from: Place, now: Timestamp, faults: &Faults, random: &mut Random) -> Fate {
        let refused =
            now < self.outage || self.is_cut(from, Place::Store, now) || random.chance(faults.refuse);
        if refused {
            return Fate::Refused(now.saturating_add(random.millis(1, 200)));
        }
        Fate::Arrives(now.saturating_add(latency(faults.slow_call, Duration::from_secs(10), random)))
    }

    /// Sends an answer of the store back: when, and whether it comes.
    pub(super) fn answer(
        &mut self,
        to: Place,
        now: Timestamp,
        faults: &Faults,
        random: &mut Random,
    ) -> (Timestamp, bool) {
        let lost =
            now < self.outage || self.is_cut(Place::Store, to, now) || random.chance(faults.lose_reply);
        if lost {
            return (now.saturating_add(random.millis(200, 2_000)), false);
        }
        (now.saturating_add(latency(faults.slow_call, Duration::from_secs(3), random)), true)
    }
}

/// How long a message is on its way: some hundred microseconds, and now and then very long.
fn latency(delay: u32, most: Duration, random: &mut Random) -> Duration {
    if random.chance(delay) {
        return random.between(Duration::from_millis(10), most);
    }
    random.between(Duration::from_micros(30), Duration::from_micros(900))
}
