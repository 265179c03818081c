//! How long runs take, as this node has seen it: a table that a restart may forget.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use hodei_core::Name;
use hodei_core::job::JobSpec;

/// So many runs of a kind are remembered, the last ones.
const RUNS: usize = 64;
/// So many must have been seen before anything is said of a kind.
const RUNS_MIN: usize = 8;
/// So many kinds are remembered; of more, the half that was seen longest ago is forgotten.
const KINDS_MAX: usize = 1_024;
/// Of runs that are shorter one in so many is noted: there may be very many.
const SHORT: Duration = Duration::from_millis(10);
const NOTED: u32 = 16;

/// The last runs of a kind, in microseconds.
#[derive(Debug, Default)]
struct Kind {
    runs: Vec<u64>,
    next: usize,
    seen: u64,
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

/// The kinds of runs: by queue, and by what people call the job, which is its step or its handler.
#[derive(Debug, Default)]
pub(super) struct Learned {
    queues: HashMap<Name, HashMap<Name, Kind>>,
    kinds: usize,
    ended: u32,
    seen: u64,
}

impl Learned {
    /// Notes how long a run took that ended well.
    pub(super) fn ended(&mut self, spec: &JobSpec, lasted: Duration) {
        self.ended = self.ended.wrapping_add(1);
        if lasted < SHORT && !self.ended.is_multiple_of(NOTED) {
            return;
        }
        self.seen += 1;
        let micros = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        let known = self.queues.get_mut(spec.queue()).and_then(|names| names.get_mut(spec.name()));
        if let Some(kind) = known {
            kind.seen = self.seen;
            kind.note(micros);
            return;
        }
        if self.kinds >= KINDS_MAX {
            self.forget();
        }
        let mut kind = Kind { seen: self.seen, ..Kind::default() };
        kind.note(micros);
        self.queues.entry(spec.queue().clone()).or_default().insert(spec.name().clone(), kind);
        self.kinds += 1;
    }

    /// How long a run of a job takes at most, as far as that is known: its limit, else what was said of it, else what such
    /// runs have taken.
    pub(super) fn lasts(&self, spec: &JobSpec) -> Option<Duration> {
        let seen = || self.queues.get(spec.queue())?.get(spec.name())?.usual();
        spec.timeout().or_else(|| spec.lasts()).or_else(seen)
    }

    /// Forgets the half of the kinds that was seen longest ago.
    fn forget(&mut self) {
        let mut seen: Vec<u64> =
            self.queues.values().flat_map(HashMap::values).map(|kind| kind.seen).collect();
        let middle = seen.len() / 2;
        let (_, limit, _) = seen.select_nth_unstable(middle);
        let limit = *limit;
        self.queues.retain(|_, names| {
            names.retain(|_, kind| kind.seen > limit);
            !names.is_empty()
        });
        self.kinds = self.queues.values().map(HashMap::len).sum();
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
    fn the_kinds_that_are_remembered_are_bounded() {
        let mut learned = Learned::default();
        for n in 0..10_000 {
            learned.ended(&spec(&format!("kind-{n}")), Duration::from_secs(1));
            assert!(learned.kinds <= KINDS_MAX);
        }
        assert_eq!(learned.kinds, learned.queues.values().map(HashMap::len).sum::<usize>());
        for _ in 0..RUNS_MIN {
            learned.ended(&spec("kind-9999"), Duration::from_secs(1));
        }
        assert_eq!(learned.lasts(&spec("kind-9999")), Some(Duration::from_secs(1)));
    }

    #[test]
    fn of_very_short_runs_few_are_noted() {
        let mut learned = Learned::default();
        (0..160).for_each(|_| learned.ended(&spec("a"), Duration::from_micros(50)));
        assert_eq!(learned.seen, 10);
        assert_eq!(learned.lasts(&spec("a")), Some(Duration::from_micros(50)));
    }
}
