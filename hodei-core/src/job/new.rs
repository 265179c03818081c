//! A submission.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::record::Job;
use super::share::Share;
use super::spec::JobSpec;
use super::state::{Cause, State};
use super::unique::{UNIQUE_KEY_MAX, Unique};
use crate::error::{Error, Fault, Result};
use crate::id::{JobId, PipelineId, Slot, Tenant};
use crate::time::{SystemClock, Timestamp};

/// What a job needs of a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Requires {
    /// It must succeed; when it fails or is cancelled, the child goes the same way.
    Success,
    /// It must end, no matter how.
    Ended,
    /// It must fail; when it succeeds or is cancelled, the child is skipped.
    Failure,
    /// It comes before the child in their sequence: it must end, no matter how, and have had its turn. Stores add it; a
    /// submission cannot ask for it.
    Turn,
    /// As [`Requires::Success`] and [`Requires::Turn`] at once.
    SuccessInTurn,
    /// As [`Requires::Ended`] and [`Requires::Turn`] at once.
    EndedInTurn,
    /// As [`Requires::Failure`] and [`Requires::Turn`] at once.
    FailureInTurn,
}

impl Requires {
    /// Every requirement, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Ended,
        Self::Failure,
        Self::Turn,
        Self::SuccessInTurn,
        Self::EndedInTurn,
        Self::FailureInTurn,
    ];

    /// Returns the number, as stored rows keep it.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the requirement of a number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// Whether the parent comes before the child in their sequence.
    #[must_use]
    pub const fn is_turn(self) -> bool {
        matches!(self, Self::Turn | Self::SuccessInTurn | Self::EndedInTurn | Self::FailureInTurn)
    }

    /// The same, of a parent that comes before the child in their sequence.
    #[must_use]
    pub const fn in_turn(self) -> Self {
        match self {
            Self::Success => Self::SuccessInTurn,
            Self::Ended => Self::EndedInTurn,
            Self::Failure => Self::FailureInTurn,
            turn => turn,
        }
    }

    /// What a submission asked for; nothing where the parent only comes before the child.
    #[must_use]
    pub const fn asked(self) -> Option<Self> {
        match self {
            Self::Turn => None,
            Self::SuccessInTurn => Some(Self::Success),
            Self::EndedInTurn => Some(Self::Ended),
            Self::FailureInTurn => Some(Self::Failure),
            asked => Some(asked),
        }
    }

    /// Whether the child is given what the parent left behind. Who only comes before it leaves it nothing.
    #[must_use]
    pub const fn hands_on(self) -> bool {
        !matches!(self, Self::Turn)
    }

    /// Says how a child ends whose parent ended in a way that it does not go by: `ParentFailed` or `Skipped`.
    #[must_use]
    pub const fn refuses(self, parent: State) -> Option<Cause> {
        match (self, parent) {
            (Self::Ended | Self::EndedInTurn | Self::Turn, _)
            | (Self::Success | Self::SuccessInTurn, State::Succeeded)
            | (Self::Failure | Self::FailureInTurn, State::Failed) => None,
            (Self::Success | Self::SuccessInTurn, State::Failed) => Some(Cause::ParentFailed),
            (Self::Success | Self::SuccessInTurn | Self::Failure | Self::FailureInTurn, _) => {
                Some(Cause::Skipped)
            }
        }
    }
}

/// A job that must settle first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parent {
    /// Which job.
    pub id: JobId,
    /// What is needed of it.
    pub requires: Requires,
}

/// A job to submit: a spec, and what this one submission adds to it.
///
/// The id is minted here, before the first try, so that a submission whose reply was lost can be repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Its id; carries the slot of the tenant.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// What is to be done.
    pub spec: Arc<JobSpec>,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// When it must have been claimed; later it fails.
    pub deadline: Option<Timestamp>,
    /// At most one job of the tenant has this key, for as long as the job is kept, or has not ended: [`Unique`].
    pub unique: Option<Arc<str>>,
    /// The jobs that must settle first; in the store already, or earlier in the same batch.
    pub parents: Arc<[Parent]>,
    /// The pipeline it is a step of.
    pub pipeline: Option<PipelineId>,
}

impl NewJob {
    /// Makes a submission of the default tenant.
    #[must_use]
    pub fn new(spec: impl Into<Arc<JobSpec>>) -> Self {
        Self::of(Tenant::default(), spec)
    }

    /// Makes a submission of a tenant.
    #[must_use]
    pub fn of(tenant: Tenant, spec: impl Into<Arc<JobSpec>>) -> Self {
        let id = JobId::mint(&tenant, &SystemClock);
        Self::with_id(id, tenant, spec.into())
    }

    fn with_id(id: JobId, tenant: Tenant, spec: Arc<JobSpec>) -> Self {
        Self {
            id,
            tenant,
            spec,
            run_at: None,
            deadline: None,
            unique: None,
            parents: no_parents(),
            pipeline: None,
        }
    }

    /// Makes the submission of a pipeline's step.
    pub(crate) fn of_step(
        id: JobId,
        pipeline: PipelineId,
        tenant: Tenant,
        spec: Arc<JobSpec>,
        parents: impl ExactSizeIterator<Item = Parent>,
    ) -> Self {
        let parents = if parents.len() == 0 { no_parents() } else { parents.collect() };
        Self {
            id,
            tenant,
            spec,
            run_at: None,
            deadline: None,
            unique: None,
            parents,
            pipeline: Some(pipeline),
        }
    }

    /// Sets an id that was minted before.
    #[must_use]
    pub fn id(mut self, id: JobId) -> Self {
        self.id = id;
        self
    }

    /// Sets a time before which it does not run.
    #[must_use]
    pub fn run_at(mut self, at: Timestamp) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Sets a time at which it fails unless it was claimed before.
    #[must_use]
    pub fn deadline(mut self, at: Timestamp) -> Self {
        self.deadline = Some(at);
        self
    }

    /// Makes it unique: by a key alone, which may be a text, or by more ([`Unique`]). The key is made of the spec and the id
    /// that it has now.
    #[must_use]
    pub fn unique(mut self, by: impl Into<Unique>) -> Self {
        self.unique = Some(by.into().key_of(&self));
        self
    }

    /// Sets the jobs that must settle first.
    #[must_use]
    pub fn after(mut self, parents: impl IntoIterator<Item = Parent>) -> Self {
        self.parents = parents.into_iter().collect();
        self
    }

    /// Sets the pipeline it is a step of, with whose steps it has its turns from then on ([`Share`]): that is a part of its
    /// spec. Where its spec is that of a step already, the pipeline weighs as much as the step's does.
    #[must_use]
    pub fn in_pipeline(self, pipeline: PipelineId) -> Self {
        let weight = self.spec.resources().turns_with().weight();
        self.in_pipeline_of(pipeline, weight)
    }

    /// Makes it a step of the pipeline that another job is a step of, which weighs as much as that says; of none where that
    /// is of none.
    #[must_use]
    pub fn in_pipeline_with(self, step: &Job) -> Self {
        match step.pipeline {
            Some(pipeline) => self.in_pipeline_of(pipeline, step.spec.resources().turns_with().weight()),
            None => self,
        }
    }

    fn in_pipeline_of(mut self, pipeline: PipelineId, weight: u32) -> Self {
        self.pipeline = Some(pipeline);
        Arc::make_mut(&mut self.spec).set_share(Share::of(pipeline).weighing(weight));
        self
    }

    /// Returns the fingerprint that tells a repetition from another submission under the same id or key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_job(self)
    }

    /// Checks what the spec cannot know: the id's slot and the unique key.
    ///
    /// # Errors
    ///
    /// `Invalid`: `id: wrong_slot`, `unique: empty | nul | too_long`, `parents: self | duplicate | turn`.
    pub fn check(&self) -> Result<()> {
        self.check_in(self.tenant.slot())
    }

    /// As [`NewJob::check`], where the slot of the tenant is known.
    pub(crate) fn check_in(&self, slot: Slot) -> Result<()> {
        let mut faults = Vec::new();
        if self.id.slot() != slot {
            faults.push(Fault::new("id", "wrong_slot"));
        }
        if let Some(key) = &self.unique {
            if Unique::name_of(key).is_empty() {
                faults.push(Fault::new("unique", "empty"));
            } else if key.contains('\0') {
                faults.push(Fault::new("unique", "nul"));
            } else if key.len() > UNIQUE_KEY_MAX {
                faults.push(Fault::new("unique", "too_long").limit(UNIQUE_KEY_MAX as u64));
            }
        }
        if !self.parents.is_empty() {
            if self.parents.iter().any(|parent| parent.id == self.id) {
                faults.push(Fault::new("parents", "self"));
            }
            if self.parents.iter().any(|parent| parent.requires.is_turn()) {
                faults.push(Fault::new("parents", "turn"));
            }
            let mut seen: Vec<JobId> = self.parents.iter().map(|parent| parent.id).collect();
            seen.sort_unstable();
            if seen.windows(2).any(|pair| pair[0] == pair[1]) {
                faults.push(Fault::new("parents", "duplicate"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::invalid("job.check", faults)) }
    }
}

/// The list of most jobs, shared by all of them.
fn no_parents() -> Arc<[Parent]> {
    static NONE: LazyLock<Arc<[Parent]>> = LazyLock::new(|| Arc::from([]));
    Arc::clone(&NONE)
}
