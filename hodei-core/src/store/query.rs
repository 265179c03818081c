//! Questions to a store.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

use crate::error::Result;
use crate::id::{Name, PipelineId, Tenant};
use crate::job::{JobSummary, State};

/// Whose jobs a call may see and touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One tenant's. Another tenant's job does not exist for the call.
    Tenant(Tenant),
    /// Everybody's; for the engine itself and for operators.
    All,
}

impl Scope {
    /// Says whether a tenant's jobs are in scope.
    #[must_use]
    pub fn covers(&self, tenant: &Tenant) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(own) => own == tenant,
        }
    }
}

impl From<Tenant> for Scope {
    fn from(tenant: Tenant) -> Self {
        Self::Tenant(tenant)
    }
}

/// A place in a list, opaque to the caller and only good for the call that gave it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Bytes);

impl Cursor {
    /// Wraps what a store wants back.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// Returns what the store wrapped.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cursor(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// By what a list is sorted. Ties are broken by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Newest first.
    #[default]
    NewestFirst,
    /// Oldest first.
    OldestFirst,
}

/// Which jobs to list. Fields that are not set let everything through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Jobs in this state.
    pub state: Option<State>,
    /// Steps of this pipeline.
    pub pipeline: Option<PipelineId>,
    /// Jobs of this queue.
    pub queue: Option<Name>,
    /// Jobs of this name.
    pub name: Option<Name>,
    /// By what the list is sorted.
    pub order: Order,
    /// How many to return at most, 1 to [`Query::LIMIT_MAX`]; 100 unless set.
    pub limit: usize,
    /// Where to go on: the cursor of the page before.
    pub after: Option<Cursor>,
}

impl Query {
    /// The most jobs on a page.
    pub const LIMIT_MAX: usize = 1_000;

    /// Everything, newest first, 100 a page.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: None,
            pipeline: None,
            queue: None,
            name: None,
            order: Order::NewestFirst,
            limit: 100,
            after: None,
        }
    }

    /// Lets through jobs in a state.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Lets through the steps of a pipeline.
    #[must_use]
    pub fn pipeline(mut self, pipeline: PipelineId) -> Self {
        self.pipeline = Some(pipeline);
        self
    }

    /// Lets through jobs of a queue.
    #[must_use]
    pub fn queue(mut self, queue: Name) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Lets through jobs of a name.
    #[must_use]
    pub fn name(mut self, name: Name) -> Self {
        self.name = Some(name);
        self
    }

    /// Sorts the oldest first.
    #[must_use]
    pub fn oldest_first(mut self) -> Self {
        self.order = Order::OldestFirst;
        self
    }

    /// Sets how many to return at most.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on after a page.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Says whether a job passes every filter that is set; scope, order and cursor apart.
    #[must_use]
    pub fn matches(&self, job: &JobSummary) -> bool {
        self.state.is_none_or(|state| state == job.state)
            && self.pipeline.is_none_or(|pipeline| Some(pipeline) == job.pipeline)
            && self.queue.as_ref().is_none_or(|queue| *queue == job.queue)
            && self.name.as_ref().is_none_or(|name| *name == job.name)
    }
}

impl Default for Query {
    fn default() -> Self {
        Self::new()
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The jobs, in the order asked for.
    pub jobs: Vec<JobSummary>,
    /// Where to go on; nothing at the end. A page may be short, even empty, and yet have a cursor.
    pub next: Option<Cursor>,
}

/// How many jobs are in each state. Kept exact; reading it touches no job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; State::ALL.len()]);

impl Counts {
    /// Takes the number of each state, in the order of [`State::ALL`].
    #[must_use]
    pub const fn from_numbers(numbers: [u64; State::ALL.len()]) -> Self {
        Self(numbers)
    }

    /// Returns how many are in a state.
    #[must_use]
    pub const fn of(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    /// Returns how many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns how many have not settled.
    #[must_use]
    pub fn open(&self) -> u64 {
        State::ALL.into_iter().filter(|state| !state.is_terminal()).map(|state| self.of(state)).sum()
    }

    /// Adds up what two counted.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(State::ALL.map(|state| self.of(state).saturating_add(other.of(state))))
    }

    /// Counts a job that moved; nothing before its submission, nothing after its pruning.
    pub fn moved(&mut self, from: Option<State>, to: Option<State>) {
        if let Some(from) = from {
            self.0[from as usize] = self.0[from as usize].saturating_sub(1);
        }
        if let Some(to) = to {
            self.0[to as usize] += 1;
        }
    }
}

/// Jobs in batches, read as the consumer asks for them.
pub type SummaryStream = Pin<Box<dyn Stream<Item = Result<Vec<JobSummary>>> + Send>>;
