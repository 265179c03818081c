//! How a job is stopped, decided in values: politely, then not.

use std::time::Duration;

use tokio::time::Instant;

/// What whoever controls a run wants of it. Wishes only grow: `Run < Terminate < Kill`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Let it run.
    #[default]
    Run,
    /// Ask it to end, and kill it after the grace.
    Terminate,
    /// Kill it at once.
    Kill,
}

impl Stop {
    /// The next step: a first request terminates, a second one kills.
    #[must_use]
    pub(crate) const fn escalated(self) -> Self {
        match self {
            Self::Run => Self::Terminate,
            Self::Terminate | Self::Kill => Self::Kill,
        }
    }
}

/// What a run ended by. The first cause stays: a job stopped while its time was already over timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// It ended on its own.
    Itself,
    /// Its time was over.
    Timeout,
    /// It was stopped.
    Stop,
    /// It had more memory than was set aside for it.
    Memory,
}

/// What to send to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// SIGTERM, and SIGCONT so that a stopped process takes notice.
    Terminate,
    /// SIGKILL.
    Kill,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Running { until: Option<Instant> },
    Terminating { until: Instant },
    Killed,
}

/// Running, terminating, killed: never backwards.
#[derive(Debug)]
pub(super) struct Ladder {
    phase: Phase,
    grace: Duration,
    ended_by: EndedBy,
}

impl Ladder {
    /// A run that started now. A time too long to be represented is no limit.
    pub(super) fn new(now: Instant, timeout: Option<Duration>, grace: Duration) -> Self {
        let until = timeout.and_then(|timeout| now.checked_add(timeout));
        Self { phase: Phase::Running { until }, grace, ended_by: EndedBy::Itself }
    }

    /// When to call [`on_timer`](Self::on_timer) next.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { until } => until,
            Phase::Terminating { until } => Some(until),
            Phase::Killed => None,
        }
    }

    /// Call when a timer fires. Called too early it does nothing.
    pub(super) fn on_timer(&mut self, now: Instant) -> Option<Blow> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return None;
        }
        match self.phase {
            Phase::Running { .. } => self.terminate(now, EndedBy::Timeout),
            Phase::Terminating { .. } => self.kill(EndedBy::Timeout),
            Phase::Killed => None,
        }
    }

    /// Call when the wish has changed. A wish for less than what already happens does nothing.
    pub(super) fn on_stop(&mut self, stop: Stop, now: Instant) -> Option<Blow> {
        match (stop, self.phase) {
            (Stop::Terminate, Phase::Running { .. }) => self.terminate(now, EndedBy::Stop),
            (Stop::Kill, Phase::Running { .. } | Phase::Terminating { .. }) => self.kill(EndedBy::Stop),
            (Stop::Run | Stop::Terminate | Stop::Kill, _) => None,
        }
    }

    /// What the run ended by, if it ends now.
    pub(super) const fn ended_by(&self) -> EndedBy {
        self.ended_by
    }

    fn terminate(&mut self, now: Instant, cause: EndedBy) -> Option<Blow> {
        let Some(until) = now.checked_add(self.grace).filter(|_| !self.grace.is_zero()) else {
            return self.kill(cause);
        };
        self.ended_by = cause;
        self.phase = Phase::Terminating { until };
        Some(Blow::Terminate)
    }

    fn kill(&mut self, cause: EndedBy) -> Option<Blow> {
        if self.ended_by == EndedBy::Itself {
            self.ended_by = cause;
        }
        self.phase = Phase::Killed;
        Some(Blow::Kill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn timeout_terminates_and_kills_after_the_grace() {
        let start = Instant::now();
        let mut ladder = Ladder::new(start, Some(TIMEOUT), GRACE);
        assert_eq!(ladder.on_timer(start), None);
        assert_eq!(ladder.ended_by(), EndedBy::Itself);
        assert_eq!(ladder.on_timer(start + TIMEOUT), Some(Blow::Terminate));
        assert_eq!(ladder.on_stop(Stop::Terminate, start + TIMEOUT), None);
        assert_eq!(ladder.on_timer(start + TIMEOUT), None);
        assert_eq!(ladder.on_timer(start + TIMEOUT + GRACE), Some(Blow::Kill));
        assert_eq!(ladder.poll_timeout(), None);
        assert_eq!(ladder.on_stop(Stop::Kill, start + TIMEOUT + GRACE), None);
        assert_eq!(ladder.ended_by(), EndedBy::Timeout);
    }

    #[test]
    fn a_second_stop_kills_at_once() {
        let start = Instant::now();
        let mut ladder = Ladder::new(start, None, GRACE);
        let first = Stop::Run.escalated();
        assert_eq!(ladder.on_stop(first, start), Some(Blow::Terminate));
        assert_eq!(ladder.on_stop(first.escalated(), start), Some(Blow::Kill));
        assert_eq!(ladder.ended_by(), EndedBy::Stop);
    }

    #[test]
    fn without_grace_nobody_is_asked() {
        let start = Instant::now();
        let mut ladder = Ladder::new(start, Some(Duration::ZERO), Duration::ZERO);
        assert_eq!(ladder.on_timer(start), Some(Blow::Kill));
        assert_eq!(ladder.ended_by(), EndedBy::Timeout);
    }

    #[test]
    fn a_timeout_beyond_the_clock_is_none() {
        assert_eq!(Ladder::new(Instant::now(), Some(Duration::MAX), GRACE).poll_timeout(), None);
    }
}
