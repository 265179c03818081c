//! The handle that an application holds.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hodei_core::blob::BlobStore;
use hodei_core::bus::{EventFilter, NullBus, SubscribeOptions, Subscription};
use hodei_core::checkpoint::CheckpointStore;
use hodei_core::codec::Codecs;
use hodei_core::gateway::{Offer, WorkerGateway};
use hodei_core::job::{Epoch, Job, NewJob, Payload, State, rules};
use hodei_core::log::LogStore;
use hodei_core::map::JobMap;
use hodei_core::pipeline::{Pipeline, PipelineProgress};
use hodei_core::store::{
    CancelReply, Consistency, Page, Query, Redriven, Scope, Served, Store, SubmitOptions, Submitted,
};
use hodei_core::{Error, ErrorKind, Fault, JobId, Name, PipelineId, Result};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::audit::{self, Auditor};
use super::builder::OrchestratorBuilder;
use super::explain::{Explanation, explain, explain_limits};
use super::gateway::Gateway;
use super::tasks::Tasks;
use crate::driver::{Message, Shared, Worker};
use crate::machine::Why;
use crate::maintain::Ends;
use crate::standby::{Claim, begun_with};

/// So many jobs are counted at most that come before one that is explained.
const BEFORE_MAX: u64 = 10_000;
/// So many jobs of a sequence are looked at that ended before their turn, to find who is waited for.
const LINE_MAX: usize = 64;

/// How often a wait looks at the store although it was not told: for jobs that end on another node.
const WAIT_POLL: Duration = Duration::from_secs(1);

/// A running node: submit, cancel, wait and ask through it.
///
/// Cloning shares the node. It stops when the last handle is dropped, without waiting for anything; call
/// [`Orchestrator::shutdown`] to let work end first.
#[derive(Clone, Debug)]
pub struct Orchestrator {
    inner: Arc<Inner>,
    /// Who asks through this handle, where that is written down.
    auditor: Option<Auditor>,
}

#[derive(Debug)]
struct Inner {
    /// The first dispatcher's part: what the node has only once is there.
    shared: Arc<Shared>,
    dispatchers: Vec<Arc<Shared>>,
    drivers: Vec<mpsc::Sender<Message>>,
    tasks: Mutex<Option<Tasks>>,
    #[cfg(feature = "cron")]
    bell: crate::cron::Bell,
}

impl Orchestrator {
    /// Begins to put an orchestrator together.
    pub fn builder() -> OrchestratorBuilder {
        OrchestratorBuilder::default()
    }

    /// Takes the dispatchers of a node, at least one, with their drivers in the same order.
    pub(super) fn new(
        dispatchers: Vec<Arc<Shared>>,
        senders: Vec<mpsc::Sender<Message>>,
        drivers: Vec<JoinHandle<()>>,
        (upkeep, ends): (JoinHandle<()>, Ends),
    ) -> Self {
        let tasks = Tasks {
            drivers,
            upkeep,
            ends,
            auditing: None,
            #[cfg(feature = "cron")]
            cron: None,
        };
        let inner = Inner {
            shared: Arc::clone(&dispatchers[0]),
            dispatchers,
            drivers: senders,
            tasks: Mutex::new(Some(tasks)),
            #[cfg(feature = "cron")]
            bell: crate::cron::Bell::default(),
        };
        Self { inner: Arc::new(inner), auditor: None }
    }

    /// Has this handle, and those that are made from it, write down what is asked for.
    pub(super) async fn audited(mut self, auditor: Auditor, writer: Option<JoinHandle<()>>) -> Self {
        if let Some(tasks) = &mut *self.inner.tasks.lock().await {
            tasks.auditing = writer;
        }
        self.auditor = Some(auditor);
        self
    }

    pub(super) fn auditor(&self) -> Option<&Auditor> {
        self.auditor.as_ref()
    }

    pub(super) fn with_auditor(&self, change: impl FnOnce(Auditor) -> Auditor) -> Self {
        Self { inner: Arc::clone(&self.inner), auditor: self.auditor.clone().map(change) }
    }

    /// Tells every driver; how many are still there.
    pub(super) async fn tell(&self, message: impl Fn() -> Message) -> usize {
        let mut told = 0;
        for driver in &self.inner.drivers {
            told += usize::from(driver.send(message()).await.is_ok());
        }
        told
    }

    /// The ways to the drivers of the dispatchers.
    pub(super) fn drivers(&self) -> &[mpsc::Sender<Message>] {
        &self.inner.drivers
    }

    /// Which queues the node serves.
    pub(super) fn served(&self) -> &Served {
        &self.inner.shared.served
    }

    /// The workers that are connected now, of all dispatchers.
    fn connected(&self) -> Vec<Worker> {
        let of = |shared: &Arc<Shared>| -> Vec<Worker> {
            shared.workers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
        };
        let mut workers: Vec<Worker> = self.inner.dispatchers.iter().flat_map(of).collect();
        workers.sort_by(|a, b| a.name.cmp(&b.name));
        workers
    }

    /// Sets schedules, and takes part in firing what the store keeps.
    #[cfg(feature = "cron")]
    pub(super) async fn serve_schedules(
        &self,
        jobs: Vec<crate::cron::CronJob>,
        beats: tokio::sync::watch::Receiver<crate::maintain::Lead>,
    ) -> Result<()> {
        for job in jobs {
            self.schedules().set(job).await?;
        }
        if let Some(tasks) = &mut *self.inner.tasks.lock().await {
            let (dispatchers, bell) = (self.inner.dispatchers.clone(), Arc::clone(&self.inner.bell));
            let duty = crate::cron::run(dispatchers, beats, bell, tasks.ends.subscribe());
            tasks.cron = Some(tokio::spawn(duty));
        }
        Ok(())
    }

    /// Returns the schedules of the store, to change them and to look at them.
    #[cfg(feature = "cron")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cron")))]
    #[must_use]
    pub fn schedules(&self) -> crate::cron::Schedules {
        let shared = &self.inner.shared;
        crate::cron::Schedules::new(
            Arc::clone(&shared.store),
            shared.codecs.clone(),
            Arc::clone(&self.inner.bell),
            self.auditor.clone(),
        )
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.inner.shared.store
    }

    /// Returns the node's end of the link, for agents in this process.
    #[must_use]
    pub fn gateway(&self) -> Arc<dyn WorkerGateway> {
        Arc::new(Gateway { drivers: self.inner.drivers.clone() })
    }

    /// Submits a job. Once this returns `Ok`, a durable store never loses it.
    ///
    /// # Errors
    ///
    /// `Conflict` when another job has its id or its unique key, `Invalid` when it is refused; else what the store
    /// says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have submitted the job; submit it again under the same id.
    pub async fn submit(&self, job: NewJob) -> Result<JobId> {
        let replies = self.submit_many(vec![job], SubmitOptions::each()).await?;
        match replies.first() {
            Some(Submitted::New(id) | Submitted::Existing(id)) => Ok(*id),
            Some(Submitted::Conflict(id)) => {
                Err(Error::new(ErrorKind::Conflict, "orchestrator.submit").with("existing", id))
            }
            Some(Submitted::Refused(refusal)) => {
                Err(Error::new(ErrorKind::Invalid, "orchestrator.submit").with("why", format!("{refusal:?}")))
            }
            None => Err(Error::new(ErrorKind::Bug, "orchestrator.submit").with("why", "no reply")),
        }
    }

    /// Submits jobs in one transaction, with one reply per job.
    ///
    /// # Errors
    ///
    /// `Invalid`: `args: looks_encoded` where the arguments of a handler begin as encoded ones do: they would be taken for
    /// such, and for what they then say. Else what the codecs and the store say; then nothing is known to be stored.
    ///
    /// # Cancel safety
    ///
    /// As [`Orchestrator::submit`].
    pub async fn submit_many(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Vec<Submitted>> {
        let looks_encoded = |job: &NewJob| matches!(job.spec.payload(), Payload::Handler { args, .. } if Codecs::is_encoded(args));
        if jobs.iter().any(looks_encoded) {
            let fault = Fault::new("args", "looks_encoded");
            return Err(Error::invalid("orchestrator.submit", vec![fault]));
        }
        self.submit_again(jobs, options).await
    }

    /// As [`Orchestrator::submit_many`], for jobs whose specs may come from the store.
    pub(super) async fn submit_again(
        &self,
        jobs: Vec<NewJob>,
        options: SubmitOptions,
    ) -> Result<Vec<Submitted>> {
        self.note(|| audit::submitted(&jobs)).await?;
        let jobs = self.inner.shared.codecs.encode_jobs(jobs).await?;
        let claim = Claim::of(&self.inner.dispatchers, &self.inner.drivers, &jobs);
        let committed = begun_with(claim, self.store().submit(jobs, options)).await?;
        Ok(committed.replies)
    }

    /// Submits the steps of a pipeline: all of them or none.
    ///
    /// # Errors
    ///
    /// `Conflict` when a step's id or key is taken by another job; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have submitted the pipeline; submit the same one again.
    pub async fn submit_pipeline(&self, pipeline: &Pipeline) -> Result<PipelineId> {
        let replies = self.submit_many(pipeline.jobs().to_vec(), SubmitOptions::atomic()).await?;
        match replies.iter().find(|reply| reply.stored().is_none()) {
            None => Ok(pipeline.id()),
            Some(reply) => Err(Error::new(ErrorKind::Conflict, "orchestrator.submit_pipeline")
                .with("why", format!("{reply:?}"))),
        }
    }

    /// Asks for the end of a job.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have asked; asking again does no harm.
    pub async fn cancel(&self, job: JobId) -> Result<CancelReply> {
        let replies = self.cancel_many(&Scope::All, vec![job]).await?;
        replies.first().copied().ok_or_else(|| Error::new(ErrorKind::Bug, "orchestrator.cancel"))
    }

    /// Asks for the end of jobs in a scope, with one reply per job.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// As [`Orchestrator::cancel`].
    pub async fn cancel_many(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<CancelReply>> {
        self.note(|| audit::about("job.cancel", scope, &jobs)).await?;
        let committed = self.store().request_cancel(scope, jobs.clone()).await?;
        let told = jobs.into_iter().zip(&committed.replies);
        let ours = told.filter(|(_, reply)| matches!(reply, CancelReply::Cancelled | CancelReply::Requested));
        // One that runs is told by its epoch with the next heartbeat; here it is whichever run there is.
        let epochs: JobMap<Epoch> =
            committed.changes.iter().map(|change| (change.job, change.epoch)).collect();
        let whichever = Epoch::from_number(u64::MAX);
        let ours: Vec<(JobId, Epoch)> =
            ours.map(|(job, _)| (job, epochs.get(&job).copied().unwrap_or(whichever))).collect();
        if !ours.is_empty() {
            // Only hastens it: the owner learns it from its heartbeat too.
            self.tell(|| Message::Cancelled(ours.clone())).await;
        }
        Ok(committed.replies)
    }

    /// Sends failed and cancelled jobs of a scope round again, with one reply per job.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have sent them all, or none. Another leaves alone what was sent, unless
    /// that has failed again.
    pub async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Redriven>> {
        self.note(|| audit::about("job.redrive", scope, &jobs)).await?;
        let committed = self.store().redrive(scope, jobs).await?;
        Ok(committed.replies)
    }

    /// Reads a job.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such job; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn get(&self, job: JobId) -> Result<Job> {
        let found = self.store().get_many(&Scope::All, vec![job], Consistency::Latest).await?;
        let missing = || Error::new(ErrorKind::NotFound, "orchestrator.get").with("job", job);
        found.into_iter().next().flatten().ok_or_else(missing)
    }

    /// Waits until a job has ended, and returns it.
    ///
    /// # Errors
    ///
    /// As [`Orchestrator::get`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn wait(&self, job: JobId) -> Result<Job> {
        loop {
            let mut waiting = self.inner.shared.herald.waiters.wait(job);
            let found = self.get(job).await?;
            if found.state.is_terminal() {
                return Ok(found);
            }
            let _ = tokio::time::timeout(WAIT_POLL, waiting.told()).await;
        }
    }

    /// Waits until the store refuses for good, with an error that repeating the call does not mend, or a dispatcher has died of
    /// a panic (`Bug`), and returns it. The node goes on trying, with the dispatchers that it has left: whether to go on is for
    /// the application to say.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only listens.
    pub async fn store_failed(&self) -> Error {
        let mut failure = self.inner.shared.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        match failed {
            Some((kind, cause)) => Error::new(kind, "orchestrator.store").with("cause", cause),
            // The sender lives as long as this handle.
            None => std::future::pending().await,
        }
    }

    /// Waits until every step of a pipeline has ended, and returns how they ended.
    ///
    /// # Errors
    ///
    /// `NotFound` when no step is known; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn wait_pipeline(&self, pipeline: PipelineId) -> Result<PipelineProgress> {
        let mut steps = Vec::new();
        let mut query = Query::new().pipeline(pipeline).oldest_first().limit(Query::LIMIT_MAX);
        loop {
            let page = self.query(&Scope::All, query.clone()).await?;
            steps.extend(page.jobs.into_iter().map(|job| job.id));
            let Some(next) = page.next else { break };
            query = query.after(next);
        }
        if steps.is_empty() {
            return Err(
                Error::new(ErrorKind::NotFound, "orchestrator.wait_pipeline").with("pipeline", pipeline)
            );
        }
        let mut ended = Vec::with_capacity(steps.len());
        for step in steps {
            ended.push(self.wait(step).await?.summary());
        }
        Ok(PipelineProgress::of(&ended))
    }

    /// Lists jobs.
    ///
    /// # Errors
    ///
    /// As [`JobStore::query`](hodei_core::store::JobStore::query).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.store().query(scope, query).await
    }

    /// Subscribes to what happens in the store, by whomever, and to the workers of this node; without a bus nothing
    /// comes. The events of a job come in the order of its versions, as far as this node commits them: what other nodes commit
    /// to a store that is shared comes when it is read in the change log. A bus that tails the log has one order for all.
    ///
    /// No subscriber holds up the engine: what one that blocks ([`Overflow::Block`](hodei_core::bus::Overflow::Block)) has
    /// no room for is a gap to it, and is told as one.
    #[must_use]
    pub fn subscribe(&self, filter: EventFilter, options: SubscribeOptions) -> Box<dyn Subscription> {
        use hodei_core::bus::EventBus as _;
        match &self.inner.shared.herald.bus {
            Some(bus) => bus.subscribe(filter, options),
            None => NullBus.subscribe(filter, options),
        }
    }

    /// Says why a job is where it is.
    ///
    /// # Errors
    ///
    /// As [`Orchestrator::get`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn explain(&self, job: JobId) -> Result<Explanation> {
        let (job, now) = futures_util::future::try_join(self.get(job), self.store().now()).await?;
        if let Some(explanation) = self.explain_line(&job).await? {
            return Ok(explanation);
        }
        if job.state == State::Pending && job.eligible_at <= now {
            if !self.inner.shared.served.covers(job.spec.queue()) {
                return Ok(Explanation::NotServed);
            }
            let (tenant, queue, keys) = (&job.tenant, job.spec.queue(), job.spec.limit_keys());
            let asked = (self.store().queue(tenant, queue), self.store().limits_on(tenant, queue, keys));
            let (policy, limits) = futures_util::future::try_join(asked.0, asked.1).await?;
            if policy.is_some_and(|policy| policy.paused) {
                return Ok(Explanation::Paused);
            }
            if let Some(explanation) = explain_limits(&job, &limits, now) {
                return Ok(explanation);
            }
        }
        let workers = self.connected();
        let offers: Vec<&Offer> = workers.iter().map(|worker| &*worker.offer).collect();
        match explain(&job, &offers, now) {
            Explanation::Waiting => self.explain_waiting(job).await,
            Explanation::Leased(State::Scheduled) => {
                // It may have been claimed and wait here.
                let leased = Explanation::Leased(job.state);
                let waiting = self.explain_waiting(job).await?;
                Ok(if waiting == Explanation::Waiting { leased } else { waiting })
            }
            other => Ok(other),
        }
    }

    /// Says whom a job waits for in its sequence, if that is what it waits for.
    async fn explain_line(&self, job: &Job) -> Result<Option<Explanation>> {
        let Some(sequence) = job.spec.sequence().filter(|_| job.state == State::Blocked) else {
            return Ok(None);
        };
        // Who ended before its turn waits for whoever was before it.
        let mut before: Vec<JobId> = rules::before_in_turn(&job.parents).collect();
        let scope = Scope::Tenant(job.tenant.clone());
        for _ in 0..LINE_MAX {
            let parents =
                self.store().get_many(&scope, std::mem::take(&mut before), Consistency::Latest).await?;
            for parent in parents.into_iter().flatten() {
                if !parent.state.is_terminal() {
                    return Ok(Some(Explanation::WaitsForTurn(Name::new(sequence)?, parent.id)));
                }
                before.extend(rules::before_in_turn(&parent.parents));
            }
            if before.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    /// Asks the driver why a job waits, and the store how many come before it.
    async fn explain_waiting(&self, job: Job) -> Result<Explanation> {
        let mut nearest: Option<Why> = None;
        for driver in &self.inner.drivers {
            let (reply, why) = oneshot::channel();
            if driver.send(Message::Why(Box::new(job.clone()), reply)).await.is_ok()
                && let Ok(Some(why)) = why.await
                && nearest.as_ref().is_none_or(|nearest| why.nearness() < nearest.nearness())
            {
                nearest = Some(why);
            }
        }
        // A node that has stopped knows no more than that.
        let Some(why) = nearest else { return Ok(Explanation::Waiting) };
        let before = self.store().before(&job, BEFORE_MAX).await?;
        Ok(Explanation::of(why, before))
    }

    /// Returns the names of the workers connected now.
    #[must_use]
    pub fn workers(&self) -> Vec<Name> {
        self.connected().into_iter().map(|worker| worker.name).collect()
    }

    /// Has logs go with their jobs: when retention removes a job, its logs are removed here too, for as long as
    /// somebody else has these logs. Give it the logs of each agent in this process.
    ///
    /// A node that dies between the two leaves the logs behind.
    pub fn prune_logs(&self, logs: &Arc<dyn LogStore>) {
        let mut known = self.inner.shared.logs.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|logs| logs.strong_count() > 0);
        known.push(Arc::downgrade(logs));
    }

    /// Has checkpoints go with their jobs, as [`Orchestrator::prune_logs`] has logs.
    pub fn prune_checkpoints(&self, checkpoints: &Arc<dyn CheckpointStore>) {
        let mut known = self.inner.shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|checkpoints| checkpoints.strong_count() > 0);
        known.push(Arc::downgrade(checkpoints));
    }

    /// Removes blobs that no job and no schedule of the store names any more, a day after they were put or kept last, for as
    /// long as somebody else has these blobs. Give it the blob store of [`Offload`](hodei_core::codec::Offload) when nothing
    /// but this store's jobs keeps anything in it, and give the node every codec that its agents and clients encode with: while
    /// it cannot read what a job names, nothing is removed.
    ///
    /// The node that leads looks through all jobs once an hour where old blobs are there, with the pauses of a pruning.
    pub fn prune_blobs(&self, blobs: &Arc<dyn BlobStore>) {
        let mut known = self.inner.shared.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|blobs| blobs.strong_count() > 0);
        known.push(Arc::downgrade(blobs));
    }

    /// Returns the store.
    #[must_use]
    pub fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner.shared.store)
    }

    /// Takes no more work, gives back what has not started, waits for what runs to end, and retires the node.
    ///
    /// Idempotent. Wrap it in a timeout to give up on work that does not end; what is left is taken back from the
    /// dead node later.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: when dropped, the node is gone and what it held is taken back after its time.
    pub async fn shutdown(&self) {
        self.end(|| Message::Drain).await;
    }

    /// Takes no more work and gives back everything, what runs included, at no cost to the jobs. Call it when the
    /// agents have been stopped already. Idempotent.
    ///
    /// # Cancel safety
    ///
    /// As [`Orchestrator::shutdown`].
    pub async fn stop(&self) {
        self.end(|| Message::Abandon).await;
    }

    async fn end(&self, how: fn() -> Message) {
        let Some(mut tasks) = self.inner.tasks.lock().await.take() else { return };
        self.tell(how).await;
        for driver in &mut tasks.drivers {
            // A driver that panicked has nothing left to drain.
            let _ = driver.await;
        }
        tasks.end_duties(self.inner.shared.ttl).await;
        for shared in &self.inner.dispatchers {
            let lease = shared.lease.borrow().clone();
            // A node that cannot say goodbye expires.
            let _ = shared.store.retire(&lease).await;
        }
        if let Some(auditor) = &self.auditor {
            auditor.end().await;
        }
    }
}

pub(super) fn stopped(op: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, op).with("why", "the node has stopped")
}
