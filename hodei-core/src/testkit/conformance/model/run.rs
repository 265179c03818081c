//! Does each operation twice, and compares.

use std::collections::{BTreeMap, BTreeSet};

use super::super::audit::recounted;
use super::super::env::Env;
use super::super::fixture::Fixture;
use super::super::jobs::acme;
use super::generate::Generator;
use super::op::Op;
use super::random::Random;
use super::reference::Model;
use crate::error::ErrorKind;
use crate::id::{JobId, Tenant};
use crate::job::{Cause, Lease, NewJob};
use crate::store::{
    Change, Consistency, Cursor, Exchange, Fired, LimitOf, Query, Reaped, Retention, Scope, Term,
};

/// How many operations make a history.
const OPERATIONS: usize = 80;
/// How often owners may die under a job here: little, so that it happens.
const LOST_MAX: u16 = 2;
/// After how many operations everything is read; in between only what is cheap.
const READ_ALL: usize = 10;

/// Does random operations to stores and to a model, and compares the replies and everything that can be read.
///
/// Each history has an empty store and a seed of its own. `HODEI_MODEL_CASES` says how many histories (default 40),
/// `HODEI_MODEL_SEED` the first seed (default 1). A failure prints the seed and the operations.
///
/// # Panics
///
/// When a store and the model differ, or when a variable is no number.
///
/// # Cancel safety
///
/// A dropped call compares no further; the stores of the fixture keep what it has done.
pub async fn compare_with_model<F: Fixture + 'static>(fixture: impl Fn() -> F) {
    let (cases, first) = (number("HODEI_MODEL_CASES", 40), number("HODEI_MODEL_SEED", 1));
    for seed in first..first.saturating_add(cases) {
        history(Env::open(Box::new(fixture())).await, Random::new(seed), seed, OPERATIONS).await;
    }
}

/// Does the operations that bytes choose to a store and to a model, at most 80 and none after the bytes are spent, and
/// compares as [`compare_with_model`] does: for fuzzers, which learn what a byte does.
///
/// # Panics
///
/// When the store and the model differ.
///
/// # Cancel safety
///
/// As [`compare_with_model`].
pub async fn compare_with_model_by<F: Fixture + 'static>(fixture: F, bytes: Vec<u8>) {
    let env = Env::open(Box::new(fixture)).await;
    // An operation takes at least a byte.
    let most = bytes.len().min(OPERATIONS);
    history(env, Random::given(bytes, 0), 0, most).await;
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("the variable is a number"))
}

async fn history(env: Env, random: Random, seed: u64, operations: usize) {
    let durable = env.store().capabilities().durable;
    let model = Model { now: env.now(), ..Model::default() };
    let given = !random.is_spent();
    let generator = Generator::new(random, seed, durable);
    let mut pair =
        Pair { env, model, log: Vec::new(), gone: BTreeSet::new(), cursors: Vec::new(), generator };
    let mut story = Story { seed, operations: Vec::new() };
    for n in 1..=operations {
        if given && pair.generator.random.is_spent() {
            pair.compare_all().await;
            break;
        }
        let op = pair.generator.next(&pair.model);
        story.operations.push(format!("{op:?}"));
        pair.step(op).await;
        pair.compare_lanes().await;
        if n % READ_ALL == 0 {
            pair.compare_all().await;
        }
    }
}

/// What was done; it is told when the test fails.
struct Story {
    seed: u64,
    operations: Vec<String>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, after these operations:", self.seed);
            self.operations.iter().enumerate().for_each(|(n, op)| eprintln!("{n:3} {op}"));
            eprintln!("again: HODEI_MODEL_SEED={} HODEI_MODEL_CASES=1", self.seed);
        }
    }
}

/// A store and its model.
struct Pair {
    env: Env,
    model: Model,
    /// All changes that were ever recorded, and which of them are gone, with the numbers that they have here.
    log: Vec<Change>,
    gone: BTreeSet<usize>,
    /// Cursors with the numbers of the changes that follow.
    cursors: Vec<(Cursor, usize)>,
    generator: Generator,
}

impl Pair {
    async fn step(&mut self, op: Op) {
        let store = self.env.shared();
        match op {
            Op::Submit(batch, options) => {
                let batch: Vec<NewJob> = batch.into_iter().map(|brief| brief.0).collect();
                let several = batch.windows(2).any(|pair| pair[0].tenant != pair[1].tenant);
                if options.atomic && several && !self.spans_tenants() {
                    let error = store.submit(batch, options).await.expect_err("they share nothing");
                    assert_eq!(error.kind(), ErrorKind::Invalid);
                    return;
                }
                let done = store.submit(batch.clone(), options).await.expect("submit");
                assert_eq!(done.replies, self.model.submit(&batch, options));
                self.commit(done.changes);
            }
            Op::Exchange(exchange) => self.exchange(exchange).await,
            Op::Cancel(scope, ids) => {
                let done = store.request_cancel(&scope, ids.clone()).await.expect("cancel");
                assert_eq!(done.replies, self.model.cancel(&scope, &ids));
                self.commit(done.changes);
            }
            Op::Redrive(scope, ids) => {
                let done = store.redrive(&scope, ids.clone()).await.expect("redrive");
                assert_eq!(done.replies, self.model.redrive(&scope, &ids));
                self.commit(done.changes);
            }
            Op::Register(owner, ttl) => {
                let lease = store.register(&owner, ttl).await.expect("register");
                assert!(self.model.register(&owner, ttl, &lease), "incarnations rise");
                self.generator.leases.push(lease);
            }
            Op::Beat(owners, ttl) => {
                let beats = store.beat(owners.clone(), ttl).await.expect("beat");
                assert_eq!(beats, self.model.beat(&owners, ttl));
            }
            Op::Retire(lease) => {
                store.retire(&lease).await.expect("retire");
                self.model.retire(&lease);
            }
            Op::Advance(by) => {
                self.env.advance(by).await;
                self.model.now = self.env.now();
            }
            Op::List(scope, query) => self.list(&scope, query).await,
            Op::Reopen => {
                drop(store);
                assert!(self.env.reopen().await, "a durable store can be opened again");
                if self.env.store().capabilities().exclusive {
                    self.model.end_all();
                }
            }
            other => self.maintain(other).await,
        }
    }

    async fn maintain(&mut self, op: Op) {
        let store = self.env.shared();
        match op {
            Op::TakeTerm(duty, holder, ttl) => {
                let term = store.take_term(&duty, &holder, ttl).await.expect("take_term");
                assert!(self.model.take_term(&duty, &holder, ttl, term.as_ref()), "{term:?}");
                self.generator.terms.extend(term);
            }
            Op::KeepTerm(term, ttl) => {
                let kept = store.keep_term(&term, ttl).await.expect("keep_term");
                assert_eq!(kept, self.model.keep_term(&term, ttl));
            }
            Op::Reap(term, limit) => self.reap(&term, limit).await,
            Op::Prune(term, retention, limit) => self.prune(&term, retention, limit).await,
            Op::Fire(term, tenant, name, at) => {
                let fired = store.fire(&term, &tenant, &name, at).await.expect("fire");
                assert_eq!(fired, self.model.fire(&term, &tenant, &name, at, fired));
                // The reply has no changes; those of the model tell what must be in the log.
                let changes = self.model.changes.clone();
                // A job behind one of its sequence that has ended becomes ready at once: that is a second one.
                assert_eq!(changes.is_empty(), !matches!(fired, Fired::New(_)), "{changes:#?}");
                self.commit(changes);
            }
            Op::SetQueue(policy) => {
                store.set_queue(policy.clone()).await.expect("set_queue");
                self.model.queues.insert((policy.tenant.clone(), policy.queue.clone()), policy);
            }
            Op::SetLimit(limit) => {
                let can = store.capabilities();
                let unheld = limit.of == LimitOf::All && !can.limits_all;
                if unheld || (limit.rate.is_some() && !can.rates) {
                    let error = store.set_limit(limit).await.expect_err("nobody could hold it");
                    assert_eq!(error.kind(), ErrorKind::Config);
                    return;
                }
                store.set_limit(limit.clone()).await.expect("set_limit");
                self.model.set_limit(limit);
            }
            Op::RemoveLimit(of) => {
                let removed = store.remove_limit(&of).await.expect("remove_limit");
                assert_eq!(removed, self.model.limits.remove(&of).is_some());
            }
            Op::SetSchedule(mut schedule) => {
                store.set_schedule(schedule.clone()).await.expect("set_schedule");
                let key = (schedule.tenant.clone(), schedule.name.clone());
                schedule.last_fired = self.model.schedules.get(&key).and_then(|old| old.last_fired);
                self.model.schedules.insert(key, schedule);
            }
            Op::RemoveSchedule(tenant, name) => {
                let removed = store.remove_schedule(&tenant, &name).await.expect("remove_schedule");
                assert_eq!(removed, self.model.schedules.remove(&(tenant, name)).is_some());
            }
            other => unreachable!("{other:?} is no maintenance"),
        }
    }

    async fn exchange(&mut self, exchange: Exchange) {
        let mut done = self.env.shared().exchange(exchange.clone()).await.expect("exchange");
        let changes = std::mem::take(&mut done.changes);
        assert_eq!(done, self.model.exchange(&exchange));
        self.commit(changes);
    }

    /// Reaps until nothing is left: which jobs come first, and whether one that this made late goes with it, is the
    /// store's own affair.
    async fn reap(&mut self, term: &Term, limit: usize) {
        let mut changes = Vec::new();
        for round in 0.. {
            let Reaped { changes: some, more, term_lost, .. } =
                self.env.shared().reap(term, LOST_MAX, limit).await.expect("reap");
            assert_eq!(term_lost, !self.model.leads(term));
            let moved = !some.is_empty();
            changes.extend(some);
            if !more && !moved {
                break;
            }
            assert!(round < 1_000, "it comes to an end");
        }
        let root = |change: &&Change| {
            use Cause::{Cancelled, DeadlinePassed, Lost, LostTooOften};
            matches!(change.cause, Lost | LostTooOften | DeadlinePassed | Cancelled)
        };
        let reaped: Vec<JobId> = changes.iter().filter(root).map(|change| change.job).collect();
        assert!(
            self.model.reap(term, LOST_MAX, &reaped),
            "all that is dead or late, and nothing else: {reaped:?}"
        );
        self.commit(changes);
    }

    async fn prune(&mut self, term: &Term, retention: Retention, limit: usize) {
        let (mut jobs, mut changes) = (0, 0);
        for round in 0.. {
            let pruned = self.env.shared().prune(term, retention, limit).await.expect("prune");
            assert_eq!(pruned.term_lost, !self.model.leads(term));
            jobs += pruned.jobs;
            changes += usize::try_from(pruned.changes).expect("few");
            if !pruned.more {
                break;
            }
            assert!(round < 10_000, "it comes to an end");
        }
        assert_eq!(jobs, self.model.prune(term, retention), "jobs pruned");
        let keep = usize::try_from(retention.changes).expect("few");
        let kept: Vec<usize> = (0..self.log.len()).filter(|n| !self.gone.contains(n)).collect();
        if !self.model.leads(term) {
            assert_eq!(changes, 0, "changes pruned");
        } else if self.spans_tenants() {
            assert_eq!(changes, kept.len().saturating_sub(keep), "changes pruned");
            self.gone.extend(&kept[..changes]);
        } else {
            self.prune_each_tenant(&kept, keep, changes).await;
        }
    }

    /// Finds out what is gone where each shard keeps as many changes: the oldest of each tenant, and no more than a
    /// shard for itself would have lost.
    async fn prune_each_tenant(&mut self, kept: &[usize], keep: usize, pruned: usize) {
        let log = self.env.change_log(&Scope::All).await;
        assert_eq!(log.len() + pruned, kept.len(), "changes pruned");
        for tenant in [Tenant::default(), acme()] {
            let before: Vec<usize> = kept.iter().copied().filter(|n| self.log[*n].tenant == tenant).collect();
            let after = log.iter().filter(|change| change.tenant == tenant).count();
            assert!(after <= keep && after <= before.len(), "of {tenant} at most {keep} are kept");
            self.gone.extend(&before[..before.len() - after]);
        }
        assert!(log.len() >= keep.min(kept.len()), "at least {keep} are kept");
    }

    fn spans_tenants(&self) -> bool {
        self.env.store().capabilities().spans_tenants
    }

    /// Compares the changes of an operation, and keeps them in the order of the store. Between jobs that order is its
    /// own; within a job it is that of the versions.
    fn commit(&mut self, changes: Vec<Change>) {
        let by_job = |changes: &[Change]| {
            let mut by_job: BTreeMap<JobId, Vec<Change>> = BTreeMap::new();
            changes.iter().for_each(|change| by_job.entry(change.job).or_default().push(change.clone()));
            by_job
        };
        let expected = std::mem::take(&mut self.model.changes);
        assert_eq!(by_job(&changes), by_job(&expected));
        self.log.extend(changes);
    }

    async fn compare_lanes(&self) {
        let lanes = self.env.lanes().await;
        assert_eq!(lanes, self.model.lanes());
        assert_eq!(self.env.levels().await, self.model.levels());
        let counts = self.env.store().counts(&Scope::All).await.expect("counts");
        assert_eq!(counts, self.model.counts(&Scope::All));
    }

    async fn list(&self, scope: &Scope, query: Query) {
        let expected = self.model.list(scope, &query);
        assert_eq!(self.env.list(scope, query).await, expected);
    }

    async fn compare_all(&mut self) {
        let wrong = self.env.store().verify_indexes().await.expect("verify_indexes");
        assert!(wrong.is_empty(), "{wrong:#?}");
        for scope in [Scope::All, Scope::Tenant(Tenant::default()), Scope::Tenant(acme())] {
            self.compare_jobs(&scope).await;
            self.compare_log(&scope).await;
        }
        self.compare_leases().await;
        self.compare_policies().await;
        let (heard, log) = (self.env.ear.heard(), self.log.clone());
        assert_eq!(self.env.in_order(heard), self.env.in_order(log), "what the sinks are told");
        let end = self.env.store().changes_end().await.expect("changes_end");
        self.cursors.push((end, self.log.len()));
    }

    async fn compare_jobs(&self, scope: &Scope) {
        let ids: Vec<JobId> = self.model.jobs.keys().copied().collect();
        let store = self.env.store();
        let read = store.get_many(scope, ids.clone(), Consistency::Latest).await.expect("get");
        let outputs = store.outputs(scope, ids).await.expect("outputs");
        for ((job, found), output) in self.model.jobs.values().zip(read).zip(outputs) {
            let job = Some(job).filter(|job| scope.covers(&job.tenant));
            assert_eq!(found.as_ref(), job);
            assert_eq!(output.as_ref(), job.and_then(|job| job.output()));
        }
        assert_eq!(store.counts(scope).await.expect("counts"), self.model.counts(scope));
        let of_scope = self.model.jobs.values().filter(|job| scope.covers(&job.tenant));
        assert_eq!(self.env.queues_counted(scope).await, recounted(of_scope));
        self.list(scope, Query::new().limit(Query::LIMIT_MAX)).await;
    }

    async fn compare_leases(&self) {
        for lease in &self.generator.leases {
            let held = |model: &Model, lease: &Lease| {
                let held = model.jobs.values().filter(|job| job.lease.as_ref() == Some(lease));
                held.map(|job| model.with_inputs(job)).collect::<Vec<_>>()
            };
            let told = self.env.store().leases_of(lease).await.expect("leases_of");
            assert_eq!(told, held(&self.model, lease));
        }
    }

    async fn compare_policies(&self) {
        let (store, model) = (self.env.store(), &self.model);
        let queues: Vec<_> = model.queues.values().cloned().collect();
        assert_eq!(store.queues(&Scope::All).await.expect("queues"), queues);
        let schedules: Vec<_> = model.schedules.values().cloned().collect();
        assert_eq!(store.schedules(&Scope::All).await.expect("schedules"), schedules);
        assert_eq!(store.limits(&Scope::All).await.expect("limits"), model.limit_uses());
    }

    /// Reads the log from its beginning and from cursors that were given long ago.
    async fn compare_log(&self, scope: &Scope) {
        let starts = self.cursors.iter().map(|(cursor, at)| (Some(cursor.clone()), *at));
        for (cursor, at) in starts.chain([(None, self.log.len())]) {
            let whole = cursor.is_none();
            let read = self.env.changes_after(scope, cursor).await;
            let mut gone = self.gone.range(at..).peekable();
            if gone.peek().is_some() {
                // Where tenants share no log, what is gone of another need not be missed.
                let own = self.spans_tenants() || gone.any(|n| scope.covers(&self.log[*n].tenant));
                match read {
                    Err(error) => assert_eq!(error.kind(), ErrorKind::CursorExpired),
                    Ok(_) => assert!(!own, "what followed is gone"),
                }
                continue;
            }
            let from = if whole { 0 } else { at };
            let kept = (from..self.log.len()).filter(|n| !self.gone.contains(n)).map(|n| &self.log[n]);
            let expected: Vec<&Change> = kept.filter(|change| scope.covers(&change.tenant)).collect();
            let read = read.expect("changes");
            assert_eq!(self.env.in_order(read.iter().collect()), self.env.in_order(expected));
        }
    }
}
