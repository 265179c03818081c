//! Work for a store that will be cut off: every verb, chosen by a seed, and what was acknowledged of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hodei_core::job::{
    Epoch, Failure, FailureClass, Finish, JobSpec, Lease, NewJob, Output, Parent, Priority, Requires,
};
use hodei_core::store::{
    Change, Committed, Exchange, Lane, Limit, Move, Pick, QueuePolicy, Rate, Retention, Schedule, Scope,
    Served, Store, SubmitOptions, Submitted, Term, Transition,
};
use hodei_core::{JobId, ManualClock, Name, OwnerId, Result, Tenant, Timestamp};

use super::numbers::Numbers;
use crate::env::{TTL, spec, tenant};

/// What a call made of a store.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    /// One call: the changes that it told of, where it tells any.
    One(Option<Vec<Change>>),
    /// Nothing but that time passed.
    Waited,
    /// Submissions by several callers at once.
    Together(Vec<Batch>),
}

/// What one of several callers submitted.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) ids: Vec<JobId>,
    /// How far the disk had come when the caller had the reply.
    pub(crate) acknowledged: usize,
}

/// Somebody who uses a store.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) numbers: Numbers,
    clock: Arc<ManualClock>,
    minted: u64,
    node: Option<Lease>,
    term: Option<Term>,
    held: Vec<(JobId, Epoch)>,
    sent: Vec<NewJob>,
    /// What was refused, and so may be nowhere.
    pub(crate) refused: BTreeSet<JobId>,
    /// Whether it does what the seed says and nothing that another run would do otherwise: no calls that race, no ids
    /// that the store mints.
    repeatable: bool,
}

impl Worker {
    pub(crate) fn new(seed: u64, clock: Arc<ManualClock>) -> Self {
        let numbers = Numbers::new(seed);
        let (held, sent, refused) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (node, term) = (None, None);
        Self { numbers, clock, minted: seed << 24, node, term, held, sent, refused, repeatable: false }
    }

    /// Does the same in every run.
    pub(crate) fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// Begins another life, at a time of its own.
    pub(crate) fn live_again(&mut self, clock: Arc<ManualClock>) {
        self.die();
        self.clock = clock;
    }

    /// Forgets what it holds.
    fn die(&mut self) {
        (self.node, self.term) = (None, None);
        self.held.clear();
    }

    /// Does something. `asked` tells how far the disk has come.
    pub(crate) async fn step(
        &mut self,
        store: &dyn Store,
        asked: &(dyn Fn() -> usize + Sync),
    ) -> Result<Done> {
        let Some(node) = self.node.clone() else {
            self.node = Some(store.register(&OwnerId::new("node")?, TTL).await?);
            return Ok(Done::One(None));
        };
        if self.term.is_none() && self.numbers.chance(60) {
            self.term = store.take_term(&Name::literal("maintain"), &node, 50 * TTL).await?;
            return Ok(Done::One(None));
        }
        match self.numbers.below(100) {
            0..20 => {
                let batch = self.batch(3);
                self.submit(store, batch, SubmitOptions::each()).await
            }
            20..28 => {
                let batch = self.pipeline();
                self.submit(store, batch, SubmitOptions::atomic()).await
            }
            28..33 => self.submit_in_vain(store).await,
            33..61 => self.exchange(store, &node).await,
            61..65 => {
                let done = store.request_cancel(&Scope::All, self.some(3)).await?;
                Ok(Done::One(Some(done.changes)))
            }
            65..70 => Ok(Done::One(Some(store.redrive(&Scope::All, self.some(3)).await?.changes))),
            70..74 => Ok(self.wait()),
            74..93 => match self.term.clone() {
                Some(term) => self.maintain(store, &node, &term).await,
                None => Ok(self.wait()),
            },
            _ if self.repeatable => Ok(self.wait()),
            _ => self.submit_together(store, asked).await,
        }
    }

    /// Lets time pass.
    fn wait(&mut self) -> Done {
        let waits = [1, 1_000, 1_000_000, 60_000_000, 7_200_000_000, 90_000_000_000];
        self.clock.advance(Duration::from_micros(waits[self.numbers.below(waits.len())]));
        Done::Waited
    }

    async fn maintain(&mut self, store: &dyn Store, node: &Lease, term: &Term) -> Result<Done> {
        let other = tenant("b");
        match self.numbers.below(19) {
            0..4 => {
                let reaped = store.reap(term, 2, 4).await?;
                if reaped.term_lost {
                    self.term = None;
                }
                return Ok(Done::One(Some(reaped.changes)));
            }
            4..7 if !self.repeatable => {
                let at = hodei_core::Clock::now(&*self.clock);
                store.fire(term, &other, &Name::literal("daily"), at).await?;
            }
            4..11 => {
                let changes = [0, 20, 1_000][self.numbers.below(3)];
                store
                    .prune(term, Retention { jobs: Duration::ZERO, changes, ..Retention::default() }, 5)
                    .await?;
            }
            11 => {
                let paused = self.numbers.chance(30);
                let weight = 1 + u32::try_from(self.numbers.below(4)).expect("few");
                let queue = Name::literal("night");
                store.set_queue(QueuePolicy { tenant: other, queue, paused, weight }).await?;
            }
            12 | 13 => {
                let max = 1 + u32::try_from(self.numbers.below(4)).expect("few");
                let key = Name::literal("db");
                let rate = Rate::new(1_000, Duration::from_secs(1)).burst(100 * max);
                store.set_limit(Limit::key(Tenant::default(), key, max).rate(rate)).await?;
            }
            14 | 15 => {
                let spec = Arc::new(spec().queue("night").build()?);
                let name = Name::literal("daily");
                let rule = Arc::from("@daily");
                store.set_schedule(Schedule { tenant: other, name, rule, spec, last_fired: None }).await?;
            }
            16 => {
                store.remove_schedule(&other, &Name::literal("daily")).await?;
            }
            17 => {
                let beats = store.beat(vec![node.clone()], TTL).await?;
                if !beats[0].alive {
                    self.die();
                }
            }
            _ => {
                store.retire(node).await?;
                self.die();
            }
        }
        Ok(Done::One(None))
    }

    /// Chooses ids that were sent once.
    fn some(&mut self, most: usize) -> Vec<JobId> {
        let n = 1 + self.numbers.below(most);
        (0..n).filter_map(|_| self.numbers.pick(&self.sent)).map(|job| job.id).collect()
    }

    fn job(&mut self) -> NewJob {
        let of = if self.numbers.chance(75) { Tenant::default() } else { tenant("b") };
        let priority = Priority::new([10, 32, 50][self.numbers.below(3)]).expect("a level");
        let mut spec = spec().priority(priority).name(["x", "y"][self.numbers.below(2)]);
        if self.numbers.chance(20) {
            spec = spec.queue("night");
        }
        if self.numbers.chance(20) {
            spec = spec.limited_by("db");
        }
        if self.numbers.chance(20) {
            spec = spec.env("PADDING", "x".repeat(self.numbers.below(3_000)));
        }
        self.minted += 1;
        let id = JobId::from_parts(self.minted, of.slot(), self.numbers.next());
        let spec: JobSpec = spec.build().expect("a valid spec");
        let mut job = NewJob::of(of, spec).id(id);
        let later = |by: u64| {
            let now: Timestamp = hodei_core::Clock::now(&*self.clock);
            now.saturating_add(Duration::from_secs(by))
        };
        match self.numbers.below(8) {
            0 => job = job.run_at(later(1)),
            1 => job = job.deadline(later(30)),
            2 => job = job.unique(["u1", "u2", "u3"][self.numbers.below(3)]),
            _ => {}
        }
        job
    }

    fn batch(&mut self, most: usize) -> Vec<NewJob> {
        let n = 1 + self.numbers.below(most);
        let batch: Vec<NewJob> = (0..n).map(|_| self.job()).collect();
        batch
    }

    fn pipeline(&mut self) -> Vec<NewJob> {
        let mut batch = self.batch(4);
        let of = batch[0].tenant.clone();
        for at in 0..batch.len() {
            let spec = Arc::clone(&batch[at].spec);
            let id = JobId::from_parts(self.minted + 1, of.slot(), self.numbers.next());
            self.minted += 1;
            let mut step = NewJob::of(of.clone(), spec).id(id);
            if at > 0 {
                let requires = if self.numbers.chance(60) { Requires::Success } else { Requires::Ended };
                step = step.after([Parent { id: batch[self.numbers.below(at)].id, requires }]);
            }
            batch[at] = step;
        }
        batch
    }

    fn note(&mut self, batch: Vec<NewJob>, done: &Committed<Submitted>) {
        for (job, reply) in batch.into_iter().zip(&done.replies) {
            if *reply == Submitted::New(job.id) {
                self.sent.push(job);
            } else if !self.sent.iter().any(|sent| sent.id == job.id) {
                self.refused.insert(job.id);
            }
        }
    }

    async fn submit(&mut self, store: &dyn Store, batch: Vec<NewJob>, how: SubmitOptions) -> Result<Done> {
        let done = store.submit(batch.clone(), how).await?;
        self.note(batch, &done);
        Ok(Done::One(Some(done.changes)))
    }

    /// Submits what was stored already, or what is refused.
    async fn submit_in_vain(&mut self, store: &dyn Store) -> Result<Done> {
        let mut batch = self.batch(2);
        if let Some(again) = self.numbers.pick(&self.sent).filter(|_| self.numbers.chance(60)) {
            return self.submit(store, vec![again], SubmitOptions::each()).await;
        }
        let orphan = self.job();
        let nobody = JobId::from_parts(1, orphan.tenant.slot(), 1);
        batch.push(orphan.after([Parent { id: nobody, requires: Requires::Ended }]));
        self.submit(store, batch, SubmitOptions::atomic()).await
    }

    async fn submit_together(
        &mut self,
        store: &dyn Store,
        asked: &(dyn Fn() -> usize + Sync),
    ) -> Result<Done> {
        let n = 2 + self.numbers.below(3);
        let batches: Vec<Vec<NewJob>> =
            (0..n).map(|_| self.batch(3).into_iter().filter(|job| job.unique.is_none()).collect()).collect();
        let calls = batches.iter().map(|batch| async {
            let done = store.submit(batch.clone(), SubmitOptions::each()).await?;
            Ok((done, asked()))
        });
        let replies: Vec<Result<(Committed<Submitted>, usize)>> = join_all(calls).await;
        let mut done = Vec::new();
        for (batch, reply) in batches.into_iter().zip(replies) {
            let (reply, acknowledged) = reply?;
            let ids = batch.iter().map(|job| job.id).collect();
            self.note(batch, &reply);
            done.push(Batch { ids, acknowledged });
        }
        Ok(Done::Together(done))
    }

    async fn exchange(&mut self, store: &dyn Store, node: &Lease) -> Result<Done> {
        let mut transitions = Vec::new();
        for _ in 0..self.numbers.below(4).min(self.held.len()) {
            let at = self.numbers.below(self.held.len());
            let (job, epoch) = self.held[at];
            let step = self.move_of_a_run();
            if !matches!(step, Move::Started { .. }) {
                self.held.swap_remove(at);
            }
            transitions.push(Transition { job, epoch, step });
            if self.held.is_empty() {
                break;
            }
        }
        let lanes = store.lanes(&Served::default()).await?;
        let mut lanes: Vec<Lane> = lanes.heads.into_iter().map(|head| head.lane).collect();
        lanes.sort();
        let n = u32::try_from(self.numbers.below(3)).expect("few");
        let picks = lanes
            .into_iter()
            .map(|lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n })
            .collect();
        let done = store.exchange(Exchange { owner: node.clone(), transitions, picks }).await?;
        if done.owner_lost {
            self.die();
        }
        self.held.extend(done.claimed.iter().map(|of| (of.job.id, of.job.epoch)));
        Ok(Done::One(Some(done.changes)))
    }

    fn move_of_a_run(&mut self) -> Move {
        let failure = Failure::new(FailureClass::Error, "out of luck");
        let wait = Duration::from_secs(self.numbers.below(3) as u64);
        match self.numbers.below(12) {
            0..4 => Move::Started { lease: None },
            4..6 => {
                let text = bytes::Bytes::from("y".repeat(self.numbers.below(2_000)));
                let mut finish = Finish::succeeded(Output::Inline(text));
                if self.numbers.chance(25) {
                    finish.spawn = self.batch(2);
                }
                Move::Finished(Box::new(finish))
            }
            6..8 => Move::Finished(Box::new(Finish::failed(failure))),
            8 => Move::Retried { failure, wait, manifest: None },
            9 => Move::Snoozed { wait },
            10 => Move::Returned,
            _ => Move::Lost { lost_max: 2 },
        }
    }
}
