//! The wrapper that plants bugs. Without one it forwards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::{Epoch, Finish, Job, Lease, NewJob, Output, Priority, Request, State, rules};
use hodei_core::store::*;
use hodei_core::text::Texts;
use hodei_core::{Clock, JobId, ManualClock, Name, OwnerId, Result, Tenant, Timestamp};

use super::super::bug::Bug;
use super::super::door::at_once;
use super::harm::{Harm, Unwritten};

/// How long what was acknowledged stays unwritten, where that is the bug.
const UNWRITTEN_FOR: Duration = Duration::from_millis(400);
/// How long after the end of a run its spawned jobs are written, where that is the bug.
const SPAWNED_AFTER: Duration = Duration::from_millis(50);

/// A request without what it says of where its jobs run.
fn anywhere(request: &Request) -> Arc<Request> {
    let said = request.resources.customs().map(|(name, _)| name);
    let said: Vec<Name> = said.filter(|name| name.as_str().starts_with("hodei.place.")).cloned().collect();
    let mut request = request.clone();
    request.resources = said.into_iter().fold(request.resources, |all, name| all.custom(name, 0));
    Arc::new(request)
}

/// A store in memory, and the bug planted on it.
#[derive(Debug)]
pub(in crate::sim) struct Planted {
    inner: MemoryStore,
    clock: Arc<ManualClock>,
    harm: Option<Mutex<Harm>>,
}

impl Planted {
    pub(in crate::sim) fn new(inner: MemoryStore, clock: Arc<ManualClock>, bug: Option<Bug>) -> Self {
        Self { inner, clock, harm: bug.map(|bug| Mutex::new(Harm::of(bug))) }
    }

    /// The store itself.
    pub(in crate::sim) fn inner(&self) -> &MemoryStore {
        &self.inner
    }

    /// The process of the store dies and comes back: what was not written is lost.
    pub(in crate::sim) fn restart(&self) {
        if let Some(mut harm) = self.harm() {
            harm.unwritten.clear();
        }
    }

    fn harm(&self) -> Option<MutexGuard<'_, Harm>> {
        self.harm.as_ref().map(|harm| harm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The state of one bug, where that is the planted one.
    fn bug(&self, bug: Bug) -> Option<MutexGuard<'_, Harm>> {
        self.harm().filter(|harm| harm.bug == bug)
    }

    fn job(&self, id: JobId) -> Option<Job> {
        let found = at_once(self.inner.get_many(&Scope::All, vec![id], Consistency::Latest));
        found.ok().and_then(|jobs| jobs.into_iter().next().flatten())
    }

    /// Writes what was to be written before a time.
    fn write_overdue(&self, before: Timestamp) -> Vec<Change> {
        let Some(overdue) = self.harm().map(|mut harm| harm.overdue(before)) else { return Vec::new() };
        let now = self.clock.now();
        let mut changes = Vec::new();
        for Unwritten { since, jobs, options } in overdue {
            if self.bug(Bug::AckBeforeDurable).is_some() {
                // It was acknowledged as of then.
                self.clock.set(since);
            }
            let done = at_once(self.inner.submit(jobs, options));
            changes.extend(done.map(|done| done.changes).unwrap_or_default());
            self.clock.set(now);
        }
        changes
    }

    fn write_what_was_acknowledged(&self) {
        if self.bug(Bug::AckBeforeDurable).is_some() {
            self.write_overdue(self.clock.now().saturating_sub(UNWRITTEN_FOR));
        }
    }

    /// Acknowledges a submission without writing it; nothing where its answer needs a look at what is stored.
    fn acknowledge(&self, jobs: &[NewJob], options: SubmitOptions) -> Option<Committed<Submitted>> {
        let mut harm = self.bug(Bug::AckBeforeDurable)?;
        let plain =
            |job: &NewJob| job.parents.is_empty() && job.unique.is_none() && self.job(job.id).is_none();
        let pending = harm.unwritten.iter().flat_map(|unwritten| &unwritten.jobs);
        let known = pending.map(|job| job.id).any(|id| jobs.iter().any(|job| job.id == id));
        if known || !jobs.iter().all(plain) {
            return None;
        }
        let since = self.clock.now();
        harm.unwritten.push(Unwritten { since, jobs: jobs.to_vec(), options });
        let changes = jobs.iter().map(|job| rules::admit(job.clone(), since).1).collect();
        Some(Committed { replies: jobs.iter().map(|job| Submitted::New(job.id)).collect(), changes })
    }

    /// Rewrites a transition as the bug takes it.
    fn taken(&self, harm: &mut Harm, transition: &mut Transition) {
        let current = |state: fn(State) -> bool| {
            self.job(transition.job).filter(|job| state(job.state)).map(|job| job.epoch)
        };
        let finishes = matches!(transition.step, Move::Finished(_));
        let epoch: Option<Epoch> = match harm.bug {
            Bug::NoFence => current(State::is_leased),
            Bug::StateOnlySettle if finishes => current(|state| state == State::Running),
            Bug::NoEpochBump => current(|_| true),
            _ => Some(harm.disguise.under(transition.job, transition.epoch)),
        };
        transition.epoch = epoch.unwrap_or(transition.epoch);
        if harm.bug == Bug::PreemptionEnds && transition.step == Move::Preempted {
            transition.step = Move::Finished(Box::new(Finish::cancelled()));
        }
        if harm.bug == Bug::ManifestLost
            && let Move::Finished(finish) = &mut transition.step
        {
            finish.manifest = None;
        }
        if harm.bug == Bug::SpawnOutsideSettle
            && let Move::Finished(finish) = &mut transition.step
        {
            let jobs = std::mem::take(&mut finish.spawn);
            if !jobs.is_empty() {
                let since = self.clock.now();
                harm.unwritten.push(Unwritten { since, jobs, options: SubmitOptions::each() });
            }
        }
    }

    /// Limits as whoever asks is told of them.
    fn seen(&self, mut limits: Vec<LimitUse>) -> Vec<LimitUse> {
        if let Some(harm) = self.harm() {
            for used in &mut limits {
                let of = &used.limit.of;
                used.in_use += harm.leaked.get(of).copied().unwrap_or(0);
                used.limit.max = harm.limits.get(of).copied().unwrap_or(used.limit.max);
            }
        }
        limits
    }

    fn exchanged(&self, mut exchange: Exchange) -> Result<Exchanged> {
        let told: Vec<Epoch> = exchange.transitions.iter().map(|transition| transition.epoch).collect();
        if let Some(mut harm) = self.harm() {
            exchange.transitions.iter_mut().for_each(|transition| self.taken(&mut harm, transition));
        }
        if self.bug(Bug::CeilingIgnored).is_some() {
            exchange.picks.iter_mut().for_each(|pick| pick.ceiling = Priority::MAX);
        }
        let jobs: Vec<JobId> = exchange.transitions.iter().map(|transition| transition.job).collect();
        let mut late = Vec::new();
        if self.bug(Bug::SpawnOutsideSettle).is_some() {
            late = self.write_overdue(self.clock.now().saturating_sub(SPAWNED_AFTER));
        }
        let mut done = at_once(self.inner.exchange(exchange))?;
        late.append(&mut done.changes);
        done.changes = late;
        self.release(&mut done.changes);
        let Some(mut harm) = self.harm() else { return Ok(done) };
        done.changes = harm.disguise.committed(&done.changes);
        for claimed in &mut done.claimed {
            harm.disguise.job(Arc::make_mut(&mut claimed.job));
        }
        for ((applied, held), job) in done.applied.iter_mut().zip(told).zip(jobs) {
            if let Applied::LeaseLost { current, .. } = *applied {
                let current = harm.disguise.epoch(job, current);
                let lie = harm.bug == Bug::StaleIsDone;
                *applied = if lie { Applied::Done } else { Applied::LeaseLost { held, current } };
            }
        }
        Ok(done)
    }

    /// Lets children go that have seen one parent of two.
    fn release(&self, changes: &mut Vec<Change>) {
        let Some(mut harm) = self.bug(Bug::DoubleUnblock) else { return };
        let ended: Vec<JobId> =
            changes.iter().filter(|change| change.to == State::Succeeded).map(|change| change.job).collect();
        for parent in ended {
            for (child, parents) in harm.children.get(&parent).cloned().unwrap_or_default() {
                let waits = self.job(child).is_some_and(|job| job.state == State::Blocked);
                if parents != 2 || !waits || harm.children.contains_key(&child) {
                    continue;
                }
                harm.disguise.release(child);
                let cancelled = at_once(self.inner.request_cancel(&Scope::All, vec![child]));
                changes.extend(cancelled.map(|done| done.changes).unwrap_or_default());
                let redriven = at_once(self.inner.redrive(&Scope::All, vec![child]));
                changes.extend(redriven.map(|done| done.changes).unwrap_or_default());
            }
        }
    }

    /// Leaves what was taken back counted against its limits.
    fn leak(&self, changes: &[Change]) {
        let Some(mut harm) = self.bug(Bug::LimitLeakOnReap) else { return };
        for change in changes.iter().filter(|change| change.from.is_some_and(State::is_leased)) {
            let Some(job) = self.job(change.job) else { continue };
            for of in LimitOf::of_jobs(&job.tenant, job.spec.queue(), job.spec.limit_keys()) {
                let Some(told) = harm.limits.get(&of).copied() else { continue };
                let leaked = harm.leaked.entry(of.clone()).or_default();
                *leaked += 1;
                let limit = Limit::new(of, told.saturating_sub(*leaked));
                // The store in memory refuses no limit.
                let _ = at_once(self.inner.set_limit(limit));
            }
        }
    }

    /// Has the buckets full again of whoever had something taken back.
    fn refill(&self, changes: &[Change]) {
        if self.bug(Bug::RateRefilled).is_none() || changes.is_empty() {
            return;
        }
        let limits = at_once(self.inner.limits(&Scope::All)).unwrap_or_default();
        for limit in limits.into_iter().map(|row| row.limit).filter(|limit| limit.rate.is_some()) {
            // The store in memory refuses neither.
            let _ = at_once(self.inner.remove_limit(&limit.of));
            let _ = at_once(self.inner.set_limit(limit));
        }
    }

    /// Forgets the requests of jobs that run, and says that it had noted them.
    async fn forgets(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        let runs = |id: &JobId| {
            self.job(*id).is_some_and(|job| job.state == State::Running && scope.covers(&job.tenant))
        };
        let mut done = Committed::default();
        for job in jobs {
            if runs(&job) {
                done.replies.push(CancelReply::Requested);
                continue;
            }
            let one = self.inner.request_cancel(scope, vec![job]).await?;
            done.replies.extend(one.replies);
            done.changes.extend(one.changes);
        }
        Ok(done)
    }

    fn changed<R>(&self, done: Result<Committed<R>>) -> Result<Committed<R>> {
        let mut done = done?;
        if let Some(mut harm) = self.harm() {
            done.changes = harm.disguise.committed(&done.changes);
        }
        Ok(done)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl JobStore for Planted {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.write_what_was_acknowledged();
        if let Some(done) = self.acknowledge(&jobs, options) {
            return Ok(done);
        }
        if let Some(mut harm) = self.bug(Bug::DoubleUnblock) {
            for job in &jobs {
                for parent in job.parents.iter() {
                    harm.children.entry(parent.id).or_default().push((job.id, job.parents.len()));
                }
            }
        }
        if self.bug(Bug::AckBeforeDurable).is_some() {
            self.write_overdue(Timestamp::MAX);
        }
        self.changed(self.inner.submit(jobs, options).await)
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.write_what_was_acknowledged();
        let mut lanes = self.inner.lanes(served).await?;
        if self.bug(Bug::PlaceUnread).is_some() {
            lanes.heads.iter_mut().for_each(|head| head.request = anywhere(&head.request));
        }
        Ok(lanes)
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        self.write_what_was_acknowledged();
        if self.harm.is_none() { self.inner.exchange(exchange).await } else { self.exchanged(exchange) }
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        if self.bug(Bug::AckBeforeDurable).is_some() {
            self.write_overdue(Timestamp::MAX);
        }
        let forgets = self.bug(Bug::LostCancel).is_some();
        if forgets {
            return self.forgets(scope, jobs).await;
        }
        self.changed(self.inner.request_cancel(scope, jobs).await)
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        let mut held = self.inner.leases_of(owner).await?;
        if let Some(harm) = self.harm() {
            held.iter_mut().for_each(|claimed| harm.disguise.job(Arc::make_mut(&mut claimed.job)));
        }
        Ok(held)
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.changed(self.inner.redrive(scope, jobs).await)
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let current = self.bug(Bug::ReapWithoutTerm).and_then(|harm| harm.terms.get(&term.duty).cloned());
        let mut reaped = self.inner.reap(current.as_ref().unwrap_or(term), lost_max, limit).await?;
        self.leak(&reaped.changes);
        self.refill(&reaped.changes);
        if let Some(mut harm) = self.harm() {
            reaped.changes = harm.disguise.committed(&reaped.changes);
        }
        Ok(reaped)
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        let fired = self.inner.fire(term, tenant, schedule, at).await?;
        if let Some(mut harm) = self.bug(Bug::FiredByClock) {
            harm.fired_at.insert((tenant.clone(), schedule.clone()), self.clock.now());
        }
        let again = self.bug(Bug::FireTwice).filter(|_| fired == Fired::Already);
        let known = again.and_then(|harm| harm.schedules.get(&(tenant.clone(), schedule.clone())).cloned());
        let Some(known) = known else { return Ok(fired) };
        let again = NewJob::of(tenant.clone(), known.spec);
        let id = again.id;
        self.inner.submit(vec![again], SubmitOptions::each()).await?;
        Ok(Fired::New(id))
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        self.inner.prune(term, retention, limit).await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        let mut found = self.inner.get_many(scope, jobs, consistency).await?;
        if let Some(harm) = self.harm() {
            found.iter_mut().flatten().for_each(|job| harm.disguise.job(job));
        }
        Ok(found)
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.inner.query(scope, query).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.inner.stream(scope, query)
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.inner.outputs(scope, jobs).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.inner.counts(scope).await
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.inner.queue_counts(scope, query).await
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        let mut page = self.inner.changes(scope, after, limit).await?;
        if let Some(harm) = self.harm() {
            page.changes = harm.disguise.read(page.changes);
        }
        Ok(page)
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        self.write_what_was_acknowledged();
        self.inner.before(job, most).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.inner.changes_end().await
    }

    fn wakeups(&self) -> Wakeups {
        self.inner.wakeups()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.inner.feed(sink)
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.inner.verify_indexes().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Coordination for Planted {
    async fn round(&self, round: Round) -> Result<Rounded> {
        round_by_verbs(self, round).await
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.inner.owners().await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }

    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        self.inner.register(owner, ttl).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        if self.bug(Bug::RenewalNotDurable).is_some() {
            // What is said of the owners is true; that they live longer is not.
            let mut beats = Vec::with_capacity(owners.len());
            for owner in &owners {
                let alive = self.inner.owner_life(owner).await?.is_some();
                beats.push(Beat { alive, cancel: Vec::new() });
            }
            return Ok(beats);
        }
        let mut beats = self.inner.beat(owners, ttl).await?;
        if let Some(harm) = self.harm() {
            for (job, epoch) in beats.iter_mut().flat_map(|beat| &mut beat.cancel) {
                *epoch = harm.disguise.epoch(*job, *epoch);
            }
        }
        Ok(beats)
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.inner.retire(owner).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        let term = self.inner.take_term(duty, holder, ttl).await?;
        if let (Some(term), Some(mut harm)) = (&term, self.harm()) {
            harm.terms.insert(duty.clone(), term.clone());
        }
        Ok(term)
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        self.inner.keep_term(term, ttl).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Policies for Planted {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        self.inner.set_queue(policy).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        self.inner.queues(scope).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        self.inner.queue(tenant, queue).await
    }

    async fn set_limit(&self, mut limit: Limit) -> Result<()> {
        if let Some(mut harm) = self.harm() {
            harm.limits.insert(limit.of.clone(), limit.max);
            let leaked = harm.leaked.get(&limit.of).copied().unwrap_or(0);
            let ignored = harm.bug == Bug::LimitIgnored;
            limit.max = if ignored { u32::MAX } else { limit.max.saturating_sub(leaked) };
        }
        self.inner.set_limit(limit).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        if let Some(mut harm) = self.harm() {
            harm.limits.remove(of);
        }
        self.inner.remove_limit(of).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.inner.limits(scope).await.map(|limits| self.seen(limits))
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        self.inner.limits_on(tenant, queue, keys).await.map(|limits| self.seen(limits))
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        if let Some(mut harm) = self.harm() {
            harm.schedules.insert((schedule.tenant.clone(), schedule.name.clone()), schedule.clone());
        }
        self.inner.set_schedule(schedule).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.inner.remove_schedule(tenant, name).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        let mut schedules = self.inner.schedules(scope).await?;
        if let Some(harm) = self.bug(Bug::FiredByClock) {
            for schedule in &mut schedules {
                let name = (schedule.tenant.clone(), schedule.name.clone());
                schedule.last_fired = harm.fired_at.get(&name).copied().or(schedule.last_fired);
            }
        }
        if self.bug(Bug::FireTwice).is_some() {
            // Nor is it told that it has fired.
            schedules.iter_mut().for_each(|schedule| schedule.last_fired = None);
        }
        Ok(schedules)
    }
}
