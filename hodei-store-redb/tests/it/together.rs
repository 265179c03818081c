//! Verbs that touch the same jobs in one commit leave what they would have left one after the other.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::future::{BoxFuture, join_all};
use hodei_core::job::{Finish, Lease, NewJob, Output, Parent, Priority, Requires, State};
use hodei_core::store::{
    Applied, ChangeLog, Claimed, Exchange, JobStore, Lane, Limit, LimitOf, LimitUse, Move, Pick, Policies,
    Retention, Scope, Served, Spent, SubmitOptions, Transition,
};
use hodei_core::{JobId, Name, Tenant};
use hodei_store_redb::RedbStore;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::env::{Env, claim, done, job, job_of, owner, spec, submit, term};
use crate::gate::GateClock;

/// Lets a future run until it waits for the writer.
fn asked<'f, T>(future: impl Future<Output = T> + Send + 'f) -> BoxFuture<'f, T> {
    let mut future: BoxFuture<'f, T> = Box::pin(tokio::task::unconstrained(future));
    let first = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(first, Poll::Pending), "the writer is busy");
    future
}

fn open(env: &Env, clock: &Arc<GateClock>, changes: ChangeLog) -> RedbStore {
    let clock: Arc<GateClock> = Arc::clone(clock);
    env.builder().clock(clock).changes(changes).open().expect("the file is sound")
}

async fn sound(store: &RedbStore) {
    assert_eq!(store.verify_indexes().await.expect("the file is sound"), Vec::<String>::new());
}

/// Asks for something while the writer stands at the gate.
macro_rules! at_the_gate {
    ($clock:expr, $first:expr, $($other:expr),+ $(,)?) => {{
        $clock.close();
        let first = asked($first);
        $clock.somebody_waits();
        let others = ($(asked($other),)+);
        $clock.open();
        (first.await, others)
    }};
}

#[tokio::test]
async fn a_limit_that_is_set_between_claims_of_one_commit_counts_them() {
    let (env, clock) = (Env::new(), GateClock::new());
    let store = open(&env, &clock, ChangeLog::All);
    let all: Vec<NewJob> = (0..6).map(|_| job_of(&Tenant::default(), spec())).collect();
    let NewJob { tenant, spec, .. } = &all[0];
    let lane = Lane { tenant: tenant.clone(), queue: spec.queue().clone(), class: spec.class() };
    store.submit(all, SubmitOptions::each()).await.unwrap();
    let node = owner(&store, "node").await;
    let pick = |n| Pick { lane: lane.clone(), floor: Priority::MIN, ceiling: Priority::MAX, n };
    let claims = |n| Exchange { owner: node.clone(), transitions: Vec::new(), picks: vec![pick(n)] };
    let queue = LimitOf::Queue(Tenant::default(), lane.queue.clone());
    let limit = |max| Limit::new(queue.clone(), max);
    let (first, (set, second, removed, again, third)) = at_the_gate!(
        clock,
        store.exchange(claims(2)),
        store.set_limit(limit(3)),
        store.exchange(claims(9)),
        store.remove_limit(&queue),
        store.set_limit(limit(4)),
        store.exchange(claims(9)),
    );
    set.await.unwrap();
    again.await.unwrap();
    assert!(removed.await.unwrap());
    let claimed =
        [first.unwrap(), second.await.unwrap(), third.await.unwrap()].map(|done| done.claimed.len());
    assert_eq!(claimed, [2, 1, 1]);
    let used = LimitUse { limit: limit(4), in_use: 4, spent: Spent::default() };
    assert_eq!(store.limits(&Scope::All).await.unwrap(), [used]);
    sound(&store).await;
}

#[tokio::test]
async fn a_job_that_is_opened_twice_in_one_commit_counts_once() {
    let (env, clock) = (Env::new(), GateClock::new());
    let store = open(&env, &clock, ChangeLog::All);
    let new = job_of(&Tenant::default(), spec().limited_by("db"));
    let id = new.id;
    let limit = Limit::key(Tenant::default(), Name::literal("db"), 1);
    store.set_limit(limit).await.unwrap();
    let all = Scope::All;
    let (_, (cancelled, redriven)) = at_the_gate!(
        clock,
        store.submit(vec![new], SubmitOptions::each()),
        store.request_cancel(&all, vec![id]),
        store.redrive(&all, vec![id]),
    );
    cancelled.await.unwrap();
    redriven.await.unwrap();
    let node = owner(&store, "node").await;
    assert_eq!(claim(&store, &node, 1).await.len(), 1);
    drop(store);
    let store = open(&env, &clock, ChangeLog::All);
    sound(&store).await;
    let in_use = |limits: Vec<LimitUse>| limits[0].in_use;
    assert_eq!(in_use(store.limits(&Scope::All).await.unwrap()), 1);
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    store.reap(&duty, 9, 10).await.unwrap();
    assert_eq!(in_use(store.limits(&Scope::All).await.unwrap()), 0);
    store.request_cancel(&Scope::All, vec![id]).await.unwrap();
    sound(&store).await;
}

#[tokio::test]
async fn an_end_that_is_refused_leaves_nothing_of_itself_behind() {
    for changes in [ChangeLog::All, ChangeLog::Off] {
        let (env, clock) = (Env::new(), GateClock::new());
        let store = open(&env, &clock, changes);
        submit(&store, vec![job(), job(), job()]).await;
        let node = owner(&store, "node").await;
        let held = claim(&store, &node, 2).await;
        let finish = Finish::succeeded(Output::Inline(vec![7; 17 << 20].into()));
        let step = Move::Finished(Box::new(finish));
        let too_large = Transition { job: held[0].job.id, epoch: held[0].job.epoch, step };
        let ends = Transition { job: held[1].job.id, epoch: held[1].job.epoch, step: done() };
        let exchange = Exchange { owner: node, transitions: vec![too_large, ends], picks: Vec::new() };
        let (refused, (other,)) =
            at_the_gate!(clock, store.exchange(exchange), store.submit(vec![job()], SubmitOptions::each()),);
        assert_eq!(refused.unwrap().applied, [Applied::Illegal, Applied::Done], "nobody else is held up");
        other.await.unwrap();
        sound(&store).await;
        drop(store);
        let counts = open(&env, &clock, changes).counts(&Scope::All).await.unwrap();
        assert_eq!((counts.of(State::Scheduled), counts.of(State::Pending)), (1, 2));
        assert_eq!(counts.of(State::Succeeded), 1);
    }
}

#[tokio::test]
async fn a_pruning_that_removes_nothing_goes_on_where_it_stopped() {
    let env = Env::new();
    let store = env.open();
    let open = job();
    let ended: Vec<NewJob> = (0..5_000).map(|_| job()).collect();
    let ids: Vec<JobId> = ended.iter().map(|job| job.id).collect();
    let needs = |id| Parent { id, requires: Requires::Ended };
    let child = job().after(ids.iter().copied().chain([open.id]).map(needs));
    submit(&store, [vec![open], ended, vec![child]].concat()).await;
    store.request_cancel(&Scope::All, ids).await.unwrap();
    env.clock.advance(std::time::Duration::from_secs(60));
    let last = submit(&store, vec![job()]).await;
    store.request_cancel(&Scope::All, last).await.unwrap();
    env.clock.advance(2 * Retention::KEYS_MIN);
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    let keep = Retention { jobs: Retention::KEYS_MIN, ..Retention::default() };
    let first = store.prune(&duty, keep, 100).await.unwrap();
    assert_eq!((first.jobs, first.more), (0, true));
    let second = store.prune(&duty, keep, 100).await.unwrap();
    assert_eq!((second.jobs, second.more), (1, false));
}

/// What is asked of one of a few jobs.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Submit,
    Cancel,
    Redrive,
    Claim(u32),
    Report(u8),
}

fn ask() -> impl Strategy<Value = (Index, Ask)> {
    let ask = prop_oneof![
        2 => Just(Ask::Submit),
        1 => Just(Ask::Cancel),
        1 => Just(Ask::Redrive),
        2 => (1..4_u32).prop_map(Ask::Claim),
        3 => (0..5_u8).prop_map(Ask::Report),
    ];
    (any::<Index>(), ask)
}

/// A few jobs, of which those that are held are known with their epochs.
struct Few {
    jobs: Vec<NewJob>,
    node: Lease,
    held: Vec<Claimed>,
}

impl Few {
    fn new(node: Lease) -> Self {
        let jobs = (0..6_u8).map(|n| {
            let spec = spec().limited_by("db");
            job_of(&Tenant::default(), if n % 2 == 0 { spec } else { spec.queue("night") })
        });
        Self { jobs: jobs.collect(), node, held: Vec::new() }
    }

    /// Asks for everything at once, and takes in what was claimed.
    async fn ask(&mut self, store: &RedbStore, clock: &GateClock, asks: &[(Index, Ask)]) {
        let lanes = store.lanes(&Served::default()).await.expect("the store is sound").heads;
        clock.close();
        let first =
            asked(async { store.submit(vec![job()], SubmitOptions::each()).await.map(|_| Vec::new()) });
        clock.somebody_waits();
        let mut answers = vec![first];
        for (of, ask) in asks {
            let new = of.get(&self.jobs).clone();
            let id = new.id;
            let (mut transitions, mut picks) = (Vec::new(), Vec::new());
            answers.push(match *ask {
                Ask::Submit => asked(async move {
                    store.submit(vec![new], SubmitOptions::each()).await.map(|_| Vec::new())
                }),
                Ask::Cancel => asked(async move {
                    store.request_cancel(&Scope::All, vec![id]).await.map(|_| Vec::new())
                }),
                Ask::Redrive => {
                    asked(async move { store.redrive(&Scope::All, vec![id]).await.map(|_| Vec::new()) })
                }
                Ask::Claim(n) => {
                    let pick = |lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n };
                    picks.extend(lanes.iter().map(|head| pick(head.lane.clone())));
                    self.exchange(store, transitions, picks)
                }
                Ask::Report(how) => {
                    if !self.held.is_empty() {
                        let held = of.get(&self.held);
                        let step = match how {
                            0 => Move::Started { lease: None },
                            1 => Move::Returned,
                            2 => Move::Lost { lost_max: 3 },
                            3 => Move::Snoozed { wait: std::time::Duration::ZERO },
                            _ => Move::Finished(Box::new(Finish::succeeded(Output::none()))),
                        };
                        transitions.push(Transition { job: held.job.id, epoch: held.job.epoch, step });
                    }
                    self.exchange(store, transitions, picks)
                }
            });
        }
        clock.open();
        for answer in join_all(answers).await {
            self.held.extend(answer.expect("the store is sound"));
        }
    }

    fn exchange<'s>(
        &self,
        store: &'s RedbStore,
        transitions: Vec<Transition>,
        picks: Vec<Pick>,
    ) -> BoxFuture<'s, hodei_core::Result<Vec<Claimed>>> {
        let exchange = Exchange { owner: self.node.clone(), transitions, picks };
        asked(async move { store.exchange(exchange).await.map(|done| done.claimed) })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_shares_a_commit_the_index_is_what_the_rows_say(
        groups in prop::collection::vec(prop::collection::vec(ask(), 1..8), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (env, clock) = (Env::new(), GateClock::new());
            let mut store = open(&env, &clock, ChangeLog::All);
            let mut few = Few::new(owner(&store, "node").await);
            for (n, asks) in groups.iter().enumerate() {
                few.ask(&store, &clock, asks).await;
                let wrong = store.verify_indexes().await.unwrap();
                prop_assert_eq!(wrong, Vec::<String>::new(), "after {:?}", asks);
                if n % 4 == 3 {
                    drop(store);
                    store = open(&env, &clock, ChangeLog::All);
                    let wrong = store.verify_indexes().await.unwrap();
                    prop_assert_eq!(wrong, Vec::<String>::new(), "opened again after {:?}", asks);
                    few = Few { node: owner(&store, "node").await, ..few };
                }
            }
            Ok(())
        })?;
    }
}
