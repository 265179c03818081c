//! What a simulation came to.

use std::fmt;
use std::time::Duration;

use hodei_core::testkit::history::{History, Report, check};

use super::options::Options;
use super::trace::Trace;
use super::watch::Watch;

/// How much a simulation was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Jobs submitted by clients and fired by schedules.
    pub submitted: u64,
    /// Ends of jobs; one that is redriven ends again.
    pub ended: u64,
    /// Transitions committed.
    pub transitions: u64,
    /// Runs begun.
    pub runs: u64,
    /// Runs that were told to stop.
    pub stops: u64,
    /// Jobs that a dispatcher was lent by another one.
    pub lent: u64,
    /// Runs that were stopped to make room for more urgent work.
    pub preempted: u64,
    /// How often a dispatcher let its life end because nobody needed it.
    pub rests: u64,
    /// Jobs that were claimed with their submission, as far as the claim came behind it.
    pub along: u64,
    /// Calls that reached the store.
    pub calls: u64,
    /// Calls that failed, or whose answer was lost.
    pub failed_calls: u64,
    /// Greater faults.
    pub faults: u64,
    /// Steps of nodes.
    pub steps: u64,
    /// Events.
    pub events: u64,
    /// How long it was, in virtual time.
    pub virtual_time: Duration,
    /// How long after the faults everything had ended, at most; only where that was asked for.
    pub recovery: Duration,
}

impl Figures {
    /// Adds another simulation's.
    pub fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.ended += other.ended;
        self.transitions += other.transitions;
        self.runs += other.runs;
        self.stops += other.stops;
        self.lent += other.lent;
        self.preempted += other.preempted;
        self.rests += other.rests;
        self.along += other.along;
        self.calls += other.calls;
        self.failed_calls += other.failed_calls;
        self.faults += other.faults;
        self.steps += other.steps;
        self.events += other.events;
        self.virtual_time += other.virtual_time;
        self.recovery = self.recovery.max(other.recovery);
    }
}

/// What a simulation came to.
#[derive(Debug)]
#[must_use = "it may name violations"]
pub struct Outcome {
    /// What it was of.
    pub options: Options,
    /// What happened, as the checker reads it.
    pub history: History,
    /// What the checker found in the history.
    pub report: Report,
    /// What the simulator itself found: capacity exceeded, work that did not end, promises broken.
    pub findings: Vec<String>,
    /// How much it was.
    pub figures: Figures,
    /// A hash over every line of the trace.
    pub trace_hash: u64,
    /// How many lines the trace has.
    pub trace_lines: u64,
    /// The last lines of the trace, as many as were asked for.
    pub tail: Vec<String>,
}

impl Outcome {
    pub(super) fn of(
        options: Options,
        history: History,
        watch: Watch,
        figures: Figures,
        trace: Trace,
    ) -> Self {
        Self {
            report: check(&history),
            options,
            history,
            findings: watch.findings,
            figures,
            trace_hash: trace.hash(),
            trace_lines: trace.lines(),
            tail: trace.into_tail(),
        }
    }

    /// Says whether every guarantee was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.report.is_clean()
    }

    /// Returns what was found first, in one line.
    #[must_use]
    pub fn first(&self) -> Option<String> {
        let violation = || self.report.violations.first().map(ToString::to_string);
        violation().or_else(|| self.findings.first().cloned())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tail.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let Options { seed, nodes, dispatchers, agents, mode, looks, faults, scheduler, .. } = &self.options;
        let (preempt, balancer) = (scheduler.preempt, &scheduler.balancer);
        writeln!(
            f,
            "seed {seed}: {nodes} nodes of {dispatchers} dispatchers, {agents} agents, {mode:?}, looks {looks}, preempts {preempt:?}, \
             {balancer:?}, {faults:?}"
        )?;
        let Figures { submitted, ended, events, virtual_time, .. } = self.figures;
        writeln!(f, "{submitted} jobs, {ended} ends, {events} events in {virtual_time:?} of virtual time")?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        write!(f, "{}", self.report)
    }
}
