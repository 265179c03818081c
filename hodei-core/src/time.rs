//! Points in time, and the clocks that tell them.
//!
//! Time is microseconds since the Unix epoch in an `i64`: eight bytes, cheap to compare, and the resolution that
//! every store can keep. Nothing in this crate reads the clock of the operating system but [`SystemClock`].

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Fault, Result};

/// A point in time: microseconds since the Unix epoch, negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The last point in time that can be told.
    pub const MAX: Self = Self(i64::MAX);

    /// Makes a timestamp of microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Adds a duration; beyond the last point in time it stays there.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Returns the time a duration earlier, or the earliest time there is.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// Returns the time from `earlier` to `self`, or zero when `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns by how much a clock was set back that says this after it said `before`. Less than ten seconds are no more than what
    /// keeps clocks right, and nothing.
    #[must_use]
    pub fn set_back_from(self, before: Self) -> Option<Duration> {
        Some(before.saturating_since(self)).filter(|by| *by >= SET_BACK_MIN)
    }
}

/// From how far on a clock that goes back was set back.
const SET_BACK_MIN: Duration = Duration::from_secs(10);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000))
    }
}

/// Returns a duration in microseconds; longer than `i64` can tell is `i64::MAX`.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Takes a duration that came as a number of seconds, for the field that it came in; what is finer than a microsecond
/// is cut off.
///
/// # Errors
///
/// `Invalid` with the code `not_finite`, `negative`, `zero` (less than a microsecond) or `too_large` (longer than `max`;
/// the limit is in seconds).
pub fn seconds(field: &str, value: f64, max: Duration) -> Result<Duration> {
    let fault = if !value.is_finite() {
        Fault::new(field, "not_finite")
    } else if value < 0.0 {
        Fault::new(field, "negative")
    } else {
        match Duration::try_from_secs_f64(value) {
            Ok(exact) if exact < Duration::from_micros(1) => Fault::new(field, "zero"),
            Ok(exact) if exact <= max => {
                return Ok(exact - Duration::from_nanos(u64::from(exact.subsec_nanos() % 1_000)));
            }
            Ok(_) | Err(_) => Fault::new(field, "too_large").limit(max.as_secs()),
        }
    };
    Err(Error::invalid("time.seconds", vec![fault.detail(format!("got {value}"))]))
}

/// Tells the time. Stores rule leases and eligibility by theirs; drivers hand it to the machines.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the time now.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock of the operating system"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        Timestamp(since.map_or(0, micros))
    }
}

/// A clock that stands still until it is told to move; for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Makes a clock that shows `start`.
    #[must_use]
    pub const fn at(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        // A counter that nothing else is ordered by: relaxed is enough.
        self.0.fetch_add(micros(by), Ordering::Relaxed);
    }

    /// Sets the clock, also backwards.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.saturating_since(Timestamp::MAX), Duration::ZERO);
        assert_eq!(
            Timestamp::from_micros(5).saturating_since(Timestamp::from_micros(2)),
            Duration::from_micros(3)
        );
    }

    #[test]
    fn seconds_are_taken_or_refused_exactly() {
        let max = Duration::from_secs(60);
        for (value, expected) in [
            (60.0, max),
            (0.1, Duration::from_millis(100)),
            (1.5, Duration::from_millis(1_500)),
            (1e-6, Duration::from_micros(1)),
            (1.000_000_9, Duration::from_secs(1)),
        ] {
            assert_eq!(seconds("timeout", value, max).unwrap(), expected, "{value}");
        }
        for (value, code, limit) in [
            (f64::NAN, "not_finite", None),
            (f64::INFINITY, "not_finite", None),
            (f64::NEG_INFINITY, "not_finite", None),
            (-1.0, "negative", None),
            (-f64::MIN_POSITIVE, "negative", None),
            (0.0, "zero", None),
            (-0.0, "zero", None),
            (1e-9, "zero", None),
            (f64::MIN_POSITIVE, "zero", None),
            (60.000_001, "too_large", Some(60)),
            (18_446_744_073_709_551_615.0, "too_large", Some(60)),
            (1e300, "too_large", Some(60)),
        ] {
            let error = seconds("timeout", value, max).unwrap_err();
            let fault = &error.faults()[0];
            assert_eq!((fault.field.as_str(), fault.code, fault.limit), ("timeout", code, limit), "{value}");
        }
        assert_eq!(seconds("t", 1e300, Duration::MAX).unwrap_err().faults()[0].code, "too_large");
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Timestamp::from_micros(7));
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_micros(3));
        assert_eq!(clock.now(), Timestamp::from_micros(10));
        clock.set(Timestamp::EPOCH);
        assert_eq!(clock.now(), Timestamp::EPOCH);
    }
}
