//! What is submitted, and how runs go: what users write to simulate a policy of theirs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Assignment, News};
use hodei_core::job::{Finish, JobSpec, NewJob, Output};
use hodei_core::store::{Change, Limit, LimitOf, QueuePolicy, SubmitOptions};
use hodei_core::{JobId, Tenant, Timestamp};

use super::random::Random;
use crate::cron::CronJob;
use crate::machine::Policy;

/// Mints the ids of a simulation: the same ones each time.
#[derive(Debug)]
pub(super) struct Mint {
    next: u64,
    random: Random,
}

impl Mint {
    pub(super) fn new(random: Random) -> Self {
        Self { next: 1 << 12, random }
    }

    fn id(&mut self, tenant: &Tenant) -> JobId {
        self.next += 1;
        JobId::from_parts(self.next, tenant.slot(), self.random.bits())
    }
}

/// What a workload decides with: the time and the chance of the simulation.
#[derive(Debug)]
pub struct Scene<'s> {
    /// The time, on the store's clock.
    pub now: Timestamp,
    /// The stream of chance that belongs to the workload.
    pub random: &'s mut Random,
    pub(super) mint: &'s mut Mint,
}

impl Scene<'_> {
    /// Makes a job with an id that is the same in every run of the simulation.
    #[must_use]
    pub fn job(&mut self, tenant: &Tenant, spec: &Arc<JobSpec>) -> NewJob {
        NewJob {
            id: self.mint.id(tenant),
            tenant: tenant.clone(),
            spec: Arc::clone(spec),
            run_at: None,
            deadline: None,
            unique: None,
            parents: Arc::from([]),
            pipeline: None,
        }
    }
}

/// What a client does. What fails for a while is tried again until it is answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Act {
    /// Submit jobs.
    Submit(Vec<NewJob>, SubmitOptions),
    /// Ask for the end of jobs.
    Cancel(Vec<JobId>),
    /// Send jobs round again.
    Redrive(Vec<JobId>),
    /// Set how a queue is served.
    Queue(QueuePolicy),
    /// Set a limit.
    Limit(Limit),
    /// Removes a limit.
    NoLimit(LimitOf),
    /// Set where jobs run and how fast they begin, on every node. It is no call of the store: each node has it at once.
    Policy(Policy),
    /// Set a schedule, which the leading node fires. The ids of what it fires are minted by the store and differ from run to
    /// run: for traces that do not, its spec must wait exactly before retries.
    Schedule(CronJob),
}

/// How a run goes, if nobody stops it.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// How long it lasts.
    pub lasts: Duration,
    /// What the agent reports at its end.
    pub news: News,
}

impl RunPlan {
    /// A run that ends well.
    #[must_use]
    pub fn succeeds(lasts: Duration) -> Self {
        Self { lasts, news: News::Ended(Box::new(Finish::succeeded(Output::none()))) }
    }
}

/// What is submitted, and how runs go.
pub trait Workload: fmt::Debug {
    /// Returns what a client does next, and how long after the act before; nothing when there is no more.
    fn next(&mut self, scene: &mut Scene<'_>) -> Option<(Duration, Act)>;

    /// Says how a run goes that begins now.
    fn run(&mut self, assignment: &Assignment, scene: &mut Scene<'_>) -> RunPlan;

    /// Sees a transition that was committed. What a schedule fires is seen from its claim on.
    fn committed(&mut self, change: &Change) {
        let _ = change;
    }

    /// Trouble is over: what the workload has set that could keep work from ending is taken back. Only asked in
    /// liveness mode.
    fn relent(&mut self, scene: &mut Scene<'_>) -> Vec<Act> {
        let _ = scene;
        Vec::new()
    }
}
