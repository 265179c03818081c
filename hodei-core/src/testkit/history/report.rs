//! What a check found.

use std::fmt;

use crate::id::JobId;

/// A guarantee that a recorded history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Invariant {
    /// I1: an acknowledged submission is in every later read.
    NoLostAck,
    /// I2: one id or key names one job; only the same submission is taken for it.
    IdempotentSubmit,
    /// I3: every job was submitted, and not refused.
    NoPhantom,
    /// I4: versions rise by one along the table of moves, and an answer says what was committed.
    LegalPath,
    /// I5: every claim has a higher epoch, every life of an owner and every term a higher number.
    EpochMonotone,
    /// I6: only the current epoch, life or term changes anything.
    Fencing,
    /// I7: an epoch is executed once, and only after its claim.
    ExclusiveExecution,
    /// I8: attempts and losses are counted right and bounded.
    RetryBound,
    /// I9: a job waits for its parents, and no longer.
    ParentsFirst,
    /// I10: after a cancellation was answered there is no new claim.
    CleanCancel,
    /// I11: limits are never exceeded.
    LimitsKept,
    /// I12: within a lane the first one goes first.
    QueueOrder,
    /// I13: announced, observed and recorded transitions are the same, without a gap.
    EventStream,
    /// I14: what is read of a log is what was written, and every byte that is missing is counted.
    WholeLogs,
    /// I15: a fire time of a schedule gives one job.
    OneJobPerFire,
    /// I16: a call for one tenant neither shows nor touches another's.
    TenantIsolation,
    /// I17: no secret is shown, in whatever encoding. Judged where the history names secrets
    /// ([`Recorder::secret`](super::Recorder::secret)).
    NoSecretShown,
    /// I19: opening a store again changes nothing.
    RecoveryIdempotent,
    /// I20: what is counted is what is there.
    Conservation,
}

impl Invariant {
    /// Every invariant, in the order of their ids.
    pub const ALL: [Self; 19] = [
        Self::NoLostAck,
        Self::IdempotentSubmit,
        Self::NoPhantom,
        Self::LegalPath,
        Self::EpochMonotone,
        Self::Fencing,
        Self::ExclusiveExecution,
        Self::RetryBound,
        Self::ParentsFirst,
        Self::CleanCancel,
        Self::LimitsKept,
        Self::QueueOrder,
        Self::EventStream,
        Self::WholeLogs,
        Self::OneJobPerFire,
        Self::TenantIsolation,
        Self::NoSecretShown,
        Self::RecoveryIdempotent,
        Self::Conservation,
    ];

    /// Returns the id under which the guarantees list it: `I4`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.names().0
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::NoLostAck => ("I1", "no lost acknowledgement"),
            Self::IdempotentSubmit => ("I2", "idempotent submission"),
            Self::NoPhantom => ("I3", "no phantom"),
            Self::LegalPath => ("I4", "legal path"),
            Self::EpochMonotone => ("I5", "epochs rise"),
            Self::Fencing => ("I6", "fencing"),
            Self::ExclusiveExecution => ("I7", "exclusive execution"),
            Self::RetryBound => ("I8", "bounded attempts"),
            Self::ParentsFirst => ("I9", "parents first"),
            Self::CleanCancel => ("I10", "clean cancellation"),
            Self::LimitsKept => ("I11", "limits kept"),
            Self::QueueOrder => ("I12", "queue order"),
            Self::EventStream => ("I13", "event stream"),
            Self::WholeLogs => ("I14", "whole logs"),
            Self::OneJobPerFire => ("I15", "one job per fire time"),
            Self::TenantIsolation => ("I16", "tenant isolation"),
            Self::NoSecretShown => ("I17", "no secret shown"),
            Self::RecoveryIdempotent => ("I19", "idempotent recovery"),
            Self::Conservation => ("I20", "conservation"),
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, name) = self.names();
        write!(f, "{id} {name}")
    }
}

/// One way in which a history breaks a guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which guarantee.
    pub invariant: Invariant,
    /// Of which job, where it is about one.
    pub job: Option<JobId>,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.invariant)?;
        if let Some(job) = self.job {
            write!(f, "job {job}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// What a history amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Entries read.
    pub entries: u64,
    /// Calls begun.
    pub calls: u64,
    /// Calls whose outcome is not known.
    pub unknown: u64,
    /// Jobs that made a transition.
    pub jobs: u64,
    /// Submissions acknowledged.
    pub acknowledged: u64,
    /// Transitions known.
    pub transitions: u64,
    /// Runs begun.
    pub runs: u64,
    /// Runs of a job that began while an earlier one had not ended. Where owners do not stop their runs in time this
    /// is no violation: the earlier run is fenced off.
    pub overlaps: u64,
    /// Claims whose order was judged.
    pub ordered: u64,
    /// The most jobs that one claim overtook in its lane; counted no further than one beyond what is allowed.
    pub overtaken: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a report may name violations"]
pub struct Report {
    /// Every violation, by invariant; of those of one invariant at most [`Report::LISTED_MAX`].
    pub violations: Vec<Violation>,
    /// Violations that are not listed.
    pub unlisted: u64,
    /// What was checked.
    pub figures: Figures,
}

impl Report {
    /// How many violations of one invariant are listed at most; the rest are counted.
    pub const LISTED_MAX: usize = 100;

    /// Says whether every guarantee was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Says whether a guarantee was broken.
    #[must_use]
    pub fn breaks(&self, invariant: Invariant) -> bool {
        self.violations.iter().any(|violation| violation.invariant == invariant)
    }

    /// Adds a violation, or counts it when there are many like it.
    pub(super) fn add(&mut self, invariant: Invariant, job: impl Into<Option<JobId>>, text: String) {
        let alike = self.violations.iter().filter(|violation| violation.invariant == invariant).count();
        if alike < Self::LISTED_MAX {
            self.violations.push(Violation { invariant, job: job.into(), text });
        } else {
            self.unlisted += 1;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { jobs, acknowledged, transitions, calls, unknown, runs, .. } = self.figures;
        let found = self.violations.len() as u64 + self.unlisted;
        writeln!(
            f,
            "{found} violations in {transitions} transitions of {jobs} jobs, {acknowledged} acknowledged; {calls} \
             calls, {unknown} of unknown outcome; {runs} runs"
        )?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))?;
        if self.unlisted > 0 { writeln!(f, "and {} more of these kinds", self.unlisted) } else { Ok(()) }
    }
}
