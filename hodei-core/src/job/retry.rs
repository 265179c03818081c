//! When a failed job gets another attempt, and after how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::FailureClass;

/// How the wait grows from attempt to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Backoff {
    /// The same wait each time.
    Fixed(Duration),
    /// The n-th wait is n × `step`, up to `max`.
    Linear {
        /// The first wait, and what each one adds.
        step: Duration,
        /// The longest wait.
        max: Duration,
    },
    /// The n-th wait is `base` × 2^(n−1), up to `max`.
    Exponential {
        /// The first wait.
        base: Duration,
        /// The longest wait.
        max: Duration,
    },
}

impl Backoff {
    /// Returns the wait after the n-th attempt, without jitter; attempts count from one.
    #[must_use]
    pub fn wait(&self, attempt: u32) -> Duration {
        match *self {
            Self::Fixed(wait) => wait,
            Self::Linear { step, max } => step.saturating_mul(attempt.max(1)).min(max),
            Self::Exponential { base, max } => {
                let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
                base.saturating_mul(factor).min(max)
            }
        }
    }

    /// Returns the longest wait this can give.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        match *self {
            Self::Fixed(wait) => wait,
            Self::Linear { max, .. } | Self::Exponential { max, .. } => max,
        }
    }
}

/// What to do after failures of one class, where it differs from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RetryRule {
    /// Such a failure is final.
    Never,
    /// Wait like this instead.
    After(Backoff),
}

/// How often a job may start, and how long to wait in between.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How often the job may start, the first time included; at least one.
    pub max_attempts: u32,
    /// How the wait grows.
    pub backoff: Backoff,
    /// Draw the wait evenly from half of it to the whole, so that many failures do not come back at once.
    pub jitter: bool,
    /// The classes of failure that are treated differently.
    pub rules: Box<[(FailureClass, RetryRule)]>,
}

impl Default for RetryPolicy {
    /// One attempt; should more be allowed, 1 s doubling up to 5 min, with jitter.
    fn default() -> Self {
        let backoff = Backoff::Exponential { base: Duration::from_secs(1), max: Duration::from_secs(300) };
        Self { max_attempts: 1, backoff, jitter: true, rules: Box::default() }
    }
}

impl RetryPolicy {
    /// The most attempts a policy may allow.
    pub const MAX_ATTEMPTS: u32 = 1_000;

    /// Allows some attempts, the first one included.
    #[must_use]
    pub fn attempts(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    /// Sets how the wait grows.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Switches the jitter off: waits are exact.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// Treats a class of failures differently.
    #[must_use]
    pub fn on(mut self, class: FailureClass, rule: RetryRule) -> Self {
        let mut rules = std::mem::take(&mut self.rules).into_vec();
        rules.retain(|(c, _)| *c != class);
        rules.push((class, rule));
        self.rules = rules.into_boxed_slice();
        self
    }

    /// Returns the wait before the next attempt, or `None` when there is none.
    ///
    /// `attempt` is the number of the attempt that failed, counted from one. `random` chooses the jitter: the same
    /// bits give the same wait, so that a machine without a source of randomness can decide.
    #[must_use]
    pub fn next_wait(&self, attempt: u32, class: FailureClass, random: u64) -> Option<Duration> {
        if attempt >= self.max_attempts {
            return None;
        }
        let rule = self.rules.iter().find(|(c, _)| *c == class).map(|(_, rule)| *rule);
        let wait = match rule {
            Some(RetryRule::Never) => return None,
            Some(RetryRule::After(backoff)) => backoff.wait(attempt),
            None if !class.is_retryable() => return None,
            None => self.backoff.wait(attempt),
        };
        Some(if self.jitter { jittered(wait, random) } else { wait })
    }
}

/// Draws evenly from half of a wait to the whole.
fn jittered(wait: Duration, random: u64) -> Duration {
    let half = wait / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    // The high half of the product spreads the random bits evenly over the range.
    let extra = (u128::from(random) * u128::from(nanos)) >> 64;
    wait - half + Duration::from_nanos(u64::try_from(extra).unwrap_or(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn waits(backoff: Backoff) -> Vec<u64> {
        (1..=5).map(|attempt| backoff.wait(attempt).as_secs()).collect()
    }

    #[test]
    fn waits_grow_as_their_names_say() {
        assert_eq!(waits(Backoff::Fixed(S(3))), [3, 3, 3, 3, 3]);
        assert_eq!(waits(Backoff::Linear { step: S(2), max: S(7) }), [2, 4, 6, 7, 7]);
        assert_eq!(waits(Backoff::Exponential { base: S(1), max: S(10) }), [1, 2, 4, 8, 10]);
    }

    #[test]
    fn late_attempts_do_not_overflow() {
        let backoff = Backoff::Exponential { base: S(1), max: S(60) };
        assert_eq!(backoff.wait(u32::MAX), S(60));
        assert_eq!(Backoff::Linear { step: Duration::MAX, max: S(60) }.wait(u32::MAX), S(60));
    }

    #[test]
    fn attempts_run_out() {
        let policy = RetryPolicy::attempts(3).exact();
        let left = |attempt| policy.next_wait(attempt, FailureClass::Error, 0).is_some();
        assert_eq!([left(1), left(2), left(3)], [true, true, false]);
    }

    #[test]
    fn classes_can_differ() {
        let policy = RetryPolicy::attempts(9)
            .exact()
            .on(FailureClass::Timeout, RetryRule::Never)
            .on(FailureClass::Exit, RetryRule::After(Backoff::Fixed(S(42))));
        assert_eq!(policy.next_wait(1, FailureClass::Timeout, 0), None);
        assert_eq!(policy.next_wait(1, FailureClass::Exit, 0), Some(S(42)));
        assert_eq!(policy.next_wait(1, FailureClass::Error, 0), Some(S(1)));
        assert_eq!(policy.next_wait(1, FailureClass::BadInput, 0), None);
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let policy = RetryPolicy::attempts(9).backoff(Backoff::Fixed(S(8)));
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let wait = policy.next_wait(1, FailureClass::Error, random).unwrap();
            assert!((S(4)..=S(8)).contains(&wait), "{wait:?}");
        }
    }
}
