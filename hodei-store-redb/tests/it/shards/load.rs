//! Slots move between three files while jobs run in them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hodei_core::job::{NewJob, State};
use hodei_core::store::*;
use hodei_core::{JobId, Result, Tenant};

use super::world::{Files, changes, tenant_in, versions_in_order};
use crate::env::{done, job_of, owner, spec};
use crate::faults::Numbers;

const BATCHES: usize = 60;
const MOVES: u64 = 40;

struct Load {
    store: ShardedStore,
    tenants: Vec<Tenant>,
    acknowledged: Mutex<BTreeSet<JobId>>,
    claimed: Mutex<BTreeSet<JobId>>,
    submitters: AtomicU64,
    moves: AtomicU64,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Ear(Mutex<Vec<Change>>);

impl ChangeSink for Ear {
    fn committed(&self, changes: &[Change]) {
        self.0.lock().expect("nobody panicked").extend_from_slice(changes);
    }
}

impl Load {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Repeats a call until the slot is open again.
    async fn insist<T>(&self, mut call: impl AsyncFnMut() -> Result<T>) -> T {
        loop {
            match call().await {
                Ok(done) => return done,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn submits(&self, seed: u64) {
        let mut numbers = Numbers::new(seed);
        for _ in 0..BATCHES {
            let tenant = &self.tenants[numbers.below(self.tenants.len())];
            let batch: Vec<NewJob> = (0..=numbers.below(6)).map(|_| job_of(tenant, spec())).collect();
            let done =
                self.insist(async || self.store.submit(batch.clone(), SubmitOptions::atomic()).await).await;
            let stored = done.replies.iter().map(|reply| reply.stored().expect("it is stored"));
            self.acknowledged.lock().expect("nobody panicked").extend(stored);
        }
        self.submitters.fetch_sub(1, Ordering::SeqCst);
    }

    async fn works(&self, who: &str) {
        let owner = owner(&self.store, who).await;
        let mut outgoing: Vec<Transition> = Vec::new();
        while !self.is_over() || !outgoing.is_empty() {
            let heads = self.store.lanes(&Served::default()).await.expect("lanes").heads;
            let pick = |head: LaneHead| Pick {
                lane: head.lane,
                floor: head.level,
                ceiling: hodei_core::job::Priority::MAX,
                n: 3,
            };
            let transitions = std::mem::take(&mut outgoing);
            let picks = heads.into_iter().map(pick).collect();
            let exchange = Exchange { owner: owner.clone(), transitions: transitions.clone(), picks };
            let answer = self.store.exchange(exchange).await.expect("exchange");
            assert!(!answer.owner_lost && answer.reclaimed.is_empty());
            for (transition, applied) in transitions.into_iter().zip(answer.applied) {
                match applied {
                    Applied::Done | Applied::AlreadyApplied => {}
                    Applied::Unavailable => outgoing.push(transition),
                    lost => panic!("{transition:?} is {lost:?}"),
                }
            }
            for held in answer.claimed {
                let new = self.claimed.lock().expect("nobody panicked").insert(held.job.id);
                assert!(new && held.job.epoch.number() == 1, "claimed once: {}", held.job.id);
                let step = |step| Transition { job: held.job.id, epoch: held.job.epoch, step };
                outgoing.extend([step(Move::Started { lease: None }), step(done())]);
            }
            let counts = self.insist(async || self.store.counts(&Scope::All).await).await;
            let settled = self.submitters.load(Ordering::SeqCst) == 0 && counts.open() == 0;
            if settled && self.moves.load(Ordering::SeqCst) >= MOVES {
                self.over.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Every job that was acknowledged is there, and never younger than it was.
    async fn reads(&self) {
        let mut versions: BTreeMap<JobId, u32> = BTreeMap::new();
        while !self.is_over() {
            let known: Vec<JobId> =
                self.acknowledged.lock().expect("nobody panicked").iter().copied().collect();
            let counted = self.insist(async || self.store.counts(&Scope::All).await).await.total();
            assert!(counted >= known.len() as u64, "{counted} of {}", known.len());
            let get = async || self.store.get_many(&Scope::All, known.clone(), Consistency::Latest).await;
            for (id, job) in known.iter().zip(self.insist(get).await) {
                let version = job.expect("it was acknowledged").version;
                let before = versions.insert(*id, version).unwrap_or(0);
                assert!(version >= before, "{id} went back from {before} to {version}");
            }
        }
    }

    async fn moves(&self) {
        let mut numbers = Numbers::new(7);
        while !self.is_over() {
            let slot = self.tenants[numbers.below(self.tenants.len())].slot();
            self.store.move_slot(slot, numbers.below(3)).await.expect("it moves");
            self.moves.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Runs one of those who share the store, on a thread of its own.
fn run(of: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(of);
}

#[tokio::test]
async fn under_load_every_acknowledged_job_is_done_once_while_slots_move() {
    let files = Files::new(3);
    let store = files.open_on_real_time().await;
    let ear = Arc::new(Ear::default());
    let feed = store.feed(Arc::<Ear>::clone(&ear));
    let load = Load {
        store: store.clone(),
        tenants: (0..6).map(|n| tenant_in(n % 3, 3, n / 3)).collect(),
        acknowledged: Mutex::default(),
        claimed: Mutex::default(),
        submitters: AtomicU64::new(2),
        moves: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|threads| {
        threads.spawn(|| run(load.submits(1)));
        threads.spawn(|| run(load.submits(2)));
        threads.spawn(|| run(load.works("a")));
        threads.spawn(|| run(load.works("b")));
        threads.spawn(|| run(load.reads()));
        threads.spawn(|| run(load.moves()));
    });
    let all: Vec<JobId> = load.acknowledged.lock().expect("nobody panicked").iter().copied().collect();
    assert!(all.len() >= 2 * BATCHES);
    let jobs = store.get_many(&Scope::All, all.clone(), Consistency::Latest).await.expect("get");
    for job in jobs {
        let job = job.expect("it was acknowledged");
        assert_eq!((job.state, job.version, job.epoch.number()), (State::Succeeded, 4, 1));
    }
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), all.len() as u64);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    drop(feed);
    let heard = std::mem::take(&mut *ear.0.lock().expect("nobody panicked"));
    for log in [heard, changes(&store).await] {
        assert_eq!(log.len(), 4 * all.len());
        versions_in_order(&log);
    }
}
