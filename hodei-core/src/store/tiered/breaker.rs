//! When to leave alone what keeps failing.

use std::time::Duration;

use crate::time::Timestamp;

/// When a [`Breaker`] opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// So many failures in a row open it: 5.
    pub failures: u32,
    /// How long it stays open before one visit tries again: 5 s.
    pub cool_down: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, cool_down: Duration::from_secs(5) }
    }
}

/// Says whether to visit something that may be broken. A value: it is told the time and what came of each visit.
///
/// ```text
/// Closed ── failures in a row ──▶ Open ── cool-down over, one visit is let through ──▶ Trying
///    ▲                             ▲                                                     │
///    │                             └────────── it failed, or nothing was heard of it ────┤
///    └──────────────────────────────────────── it succeeded ─────────────────────────────┘
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        since: Timestamp,
    },
    /// One visit is under way; if it is dropped, another may try after a cool-down.
    Trying {
        since: Timestamp,
    },
}

impl Breaker {
    /// Makes a closed one.
    #[must_use]
    pub const fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Says whether a visit may begin now. Whoever is let through should report what came of it.
    pub fn lets_through(&mut self, now: Timestamp) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { since } | State::Trying { since } => {
                // A clock that went back is no reason to stay away for longer.
                let over = now < since || now.saturating_since(since) >= self.options.cool_down;
                if over {
                    self.state = State::Trying { since: now };
                }
                over
            }
        }
    }

    /// Takes in that a visit succeeded. One that began before it opened does not close it.
    pub fn succeeded(&mut self) {
        if !matches!(self.state, State::Open { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// Takes in that a visit failed.
    pub fn failed(&mut self, now: Timestamp) {
        match self.state {
            State::Closed { failures } if failures + 1 < self.options.failures => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } | State::Trying { .. } => self.state = State::Open { since: now },
            State::Open { .. } => {}
        }
    }

    /// Says whether visits are being refused.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(5);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::new(BreakerOptions { failures: 2, cool_down: COOL_DOWN });
        breaker.failed(at(9));
        breaker.failed(at(10));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_begins_the_row_anew() {
        let mut breaker = Breaker::new(BreakerOptions { failures: 2, cool_down: COOL_DOWN });
        breaker.failed(at(0));
        breaker.succeeded();
        breaker.failed(at(0));
        assert!(breaker.lets_through(at(0)) && !breaker.is_open());
        breaker.failed(at(0));
        assert!(!breaker.lets_through(at(0)) && breaker.is_open());
    }

    #[test]
    fn after_the_cool_down_one_visit_tries() {
        let mut breaker = open();
        assert_eq!([14, 15, 15, 16].map(|now| breaker.lets_through(at(now))), [false, true, false, false]);
        breaker.succeeded();
        assert!(breaker.lets_through(at(16)) && !breaker.is_open());
    }

    #[test]
    fn a_try_that_fails_opens_it_for_another_cool_down() {
        let mut breaker = open();
        assert!(breaker.lets_through(at(15)));
        breaker.failed(at(16));
        assert_eq!([20, 21].map(|now| breaker.lets_through(at(now))), [false, true]);
    }

    #[test]
    fn a_try_of_which_nothing_is_heard_does_not_keep_it_open_for_ever() {
        let mut breaker = open();
        assert_eq!([15, 19, 20].map(|now| breaker.lets_through(at(now))), [true, false, true]);
    }

    #[test]
    fn late_news_change_nothing() {
        let mut breaker = open();
        breaker.succeeded();
        breaker.failed(at(14));
        assert_eq!([14, 15].map(|now| breaker.lets_through(at(now))), [false, true]);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_prolong_it() {
        assert!(open().lets_through(at(1)));
    }
}
