//! How long runs take, as this node has seen it: a table that a restart may forget.

use std::sync::OnceLock;
use std::time::Duration;

use hodei_core::job::JobSpec;

use super::kinds::Kinds;

/// So many runs of a kind are remembered, the last ones.
const RUNS: usize = 64;
/// So many must have been seen before anything is said of a kind.
const RUNS_MIN: usize = 8;
/// Of runs that are shorter one in so many is noted: there may be very many.
const SHORT: Duration = Duration::from_millis(10);
const NOTED: u32 = 16;

/// The last runs of a kind, in microseconds.
#[derive(Debug, Default)]
struct Kind {
    runs: Vec<u64>,
    next: usize,
    /// What was found of them; nothing where another one was noted since. While the head of the queue waits it is asked
    /// for of every job that runs.
    usual: OnceLock<Option<Duration>>,
}

impl Kind {
    fn note(&mut self, micros: u64) {
        if self.runs.len() < RUNS {
            self.runs.push(micros);
        } else {
            self.runs[self.next] = micros;
            self.next = (self.next + 1) % RUNS;
        }
        self.usual.take();
    }

    /// The time that nineteen in twenty of the runs have kept.
    fn usual(&self) -> Option<Duration> {
        *self.usual.get_or_init(|| {
            if self.runs.len() < RUNS_MIN {
                return None;
            }
            let mut runs = self.runs.clone();
            let at = (runs.len() * 19).div_ceil(20) - 1;
            let (_, usual, _) = runs.select_nth_unstable(at);
            Some(Duration::from_micros(*usual))
        })
    }
}

/// How long the runs of each kind took.
#[derive(Debug, Default)]
pub(super) struct Learned {
    kinds: Kinds<Kind>,
    ended: u32,
}

impl Learned {
    /// Notes how long a run took that ended well.
    pub(super) fn ended(&mut self, spec: &JobSpec, lasted: Duration) {
        self.ended = self.ended.wrapping_add(1);
        if lasted < SHORT && !self.ended.is_multiple_of(NOTED) {
            return;
        }
        let micros = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        self.kinds.note(spec, |kind| kind.note(micros));
    }

    /// How long a run of a job takes at most, as far as that is known: its limit, else what was said of it, else what such
    /// runs have taken.
    pub(super) fn lasts(&self, spec: &JobSpec) -> Option<Duration> {
        let seen = || self.kinds.get(spec)?.usual();
        spec.timeout().or_else(|| spec.lasts()).or_else(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> JobSpec {
        JobSpec::command(["true"]).name(name).build().expect("a valid spec")
    }

    #[test]
    fn what_is_usual_is_what_nineteen_in_twenty_have_kept() {
        let mut learned = Learned::default();
        let of = spec("a");
        for second in 1..8 {
            learned.ended(&of, Duration::from_secs(second));
            assert_eq!(learned.lasts(&of), None, "{second} runs tell nothing");
        }
        for second in 8..=100 {
            learned.ended(&of, Duration::from_secs(second));
        }
        // The last 64 are those of 37 to 100 seconds.
        assert_eq!(learned.lasts(&of), Some(Duration::from_secs(97)));
        let said = JobSpec::command(["true"]).name("a").lasts(Duration::from_secs(5));
        assert_eq!(learned.lasts(&said.clone().build().expect("valid")), Some(Duration::from_secs(5)));
        let limited = said.timeout(Duration::from_secs(9)).build().expect("valid");
        assert_eq!(learned.lasts(&limited), Some(Duration::from_secs(9)));
        assert_eq!(learned.lasts(&spec("b")), None);
    }

    #[test]
    fn of_very_short_runs_few_are_noted() {
        let mut learned = Learned::default();
        let of = spec("a");
        (0..160).for_each(|_| learned.ended(&of, Duration::from_micros(50)));
        assert_eq!(learned.kinds.get(&of).map(|kind| kind.runs.len()), Some(10));
        assert_eq!(learned.lasts(&of), Some(Duration::from_micros(50)));
    }
}
