//! A second tier that is flushed, poisoned, slow, dead or mad changes no answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::error::Result;
use hodei_core::job::{Job, State};
use hodei_core::store::{
    CacheTier, CachedStore, Consistency, Coordination, JobStore, MemoryStore, MemoryTier, Retention, Scope,
    TierOptions, TierRow, Timer,
};
use hodei_core::{Clock, Error, ErrorKind, JobId, ManualClock, Name};

use crate::scripted::Scripted;
use crate::world::*;

pub(crate) const KEY: [u8; 32] = [7; 32];
const EVER: Consistency = Consistency::Cached(Duration::ZERO);

/// A timer that never ends: whoever uses it has all the time in the world.
#[derive(Debug)]
pub(crate) struct Patient;

impl Timer for Patient {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

/// A timer that has ended as soon as somebody has to wait.
#[derive(Debug)]
struct Hasty;

impl Timer for Hasty {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        assert_eq!(time, TierOptions::default().budget);
        Box::pin(std::future::ready(()))
    }
}

/// How a tier is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Never,
    /// It has lost everything.
    Flushed,
    /// It gives other bytes back.
    Poisoned,
    /// It gives another job's row.
    Mixed,
    /// It never answers.
    Slow,
    /// It fails.
    Dead,
    /// It panics.
    Mad,
    /// It gives too few rows.
    Short,
}

#[derive(Debug)]
struct Broken {
    tier: MemoryTier,
    fault: Fault,
    visits: AtomicU64,
}

impl Broken {
    async fn visit(&self) -> Result<()> {
        self.visits.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Slow => std::future::pending().await,
            Fault::Dead => Err(Error::new(ErrorKind::Unavailable, "tier")),
            Fault::Mad => panic!("a bug of the tier"),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl CacheTier for Broken {
    async fn get_many(&self, keys: &[JobId]) -> Result<Vec<Option<Bytes>>> {
        self.visit().await?;
        let mut rows = self.tier.get_many(keys).await?;
        match self.fault {
            Fault::Poisoned => {
                for row in rows.iter_mut().flatten() {
                    let mut bytes = row.to_vec();
                    let last = bytes.len() - 3;
                    bytes[last] ^= 1;
                    *row = bytes.into();
                }
            }
            Fault::Mixed => rows.reverse(),
            Fault::Short => drop(rows.pop()),
            _ => {}
        }
        Ok(rows)
    }

    async fn put_many(&self, rows: Vec<TierRow>) -> Result<()> {
        self.visit().await?;
        if self.fault == Fault::Flushed { Ok(()) } else { self.tier.put_many(rows).await }
    }

    async fn remove_many(&self, keys: &[JobId]) -> Result<()> {
        self.visit().await?;
        self.tier.remove_many(keys).await
    }
}

struct World {
    store: MemoryStore,
    clock: Arc<ManualClock>,
    tier: MemoryTier,
}

impl World {
    fn new() -> Self {
        let (store, clock) = memory();
        let tier = MemoryTier::new().clock(Arc::<ManualClock>::clone(&clock));
        Self { store, clock, tier }
    }

    /// Another node, with nothing in its memory, that shares the store and the tier.
    fn node(&self, fault: Fault) -> (CachedStore<Scripted>, Arc<Broken>) {
        self.node_with(fault, KEY)
    }

    fn node_with(&self, fault: Fault, key: [u8; 32]) -> (CachedStore<Scripted>, Arc<Broken>) {
        let tier = Arc::new(Broken { tier: self.tier.clone(), fault, visits: AtomicU64::new(0) });
        let timer: Arc<dyn Timer> = if fault == Fault::Slow { Arc::new(Hasty) } else { Arc::new(Patient) };
        let cache = CachedStore::builder(Scripted::foreign(self.store.clone()))
            .clock(Arc::<ManualClock>::clone(&self.clock))
            .tier(Arc::<Broken>::clone(&tier), key, timer, TierOptions::default());
        (cache.build(), tier)
    }
}

async fn all(store: &dyn hodei_core::store::Store, ids: &[JobId]) -> Vec<Option<Job>> {
    store.get_many(&Scope::All, ids.to_vec(), EVER).await.expect("the store answers")
}

#[tokio::test]
async fn what_one_node_read_another_finds_in_the_tier() {
    let world = World::new();
    let (done, open) = (succeed(&world.store, job()).await, add(&world.store, job()).await);
    let ids = [done, open];
    let truth = all(&world.store, &ids).await;
    assert_eq!(all(&world.node(Fault::Never).0, &ids).await, truth);
    assert_eq!(world.tier.len(), 1, "only what nothing changes any more is shared");
    let (second, _) = world.node(Fault::Never);
    assert_eq!(all(&second, &[done]).await, truth[..1]);
    let stats = second.cache_stats();
    assert_eq!((second.inner().reads(), stats.tier_hits, stats.entries), (0, 1, 1));
    let stranger = hodei_core::Tenant::new("stranger").unwrap();
    let (third, _) = world.node(Fault::Never);
    assert_eq!(third.get_many(&stranger.into(), vec![done], EVER).await.unwrap(), [None]);
    assert_eq!(third.cache_stats().tier_hits, 1, "it was there, but not for that tenant");
}

#[tokio::test]
async fn latest_does_not_ask_the_tier() {
    let world = World::new();
    let id = succeed(&world.store, job()).await;
    all(&world.node(Fault::Never).0, &[id]).await;
    let (node, _) = world.node(Fault::Never);
    assert!(read(&node, id, Consistency::Latest).await.is_some());
    assert_eq!((node.inner().reads(), node.cache_stats().tier_hits), (1, 0));
}

#[tokio::test]
async fn what_comes_from_the_tier_is_as_old_as_it_is_there() {
    let world = World::new();
    let id = succeed(&world.store, job()).await;
    all(&world.node(Fault::Never).0, &[id]).await;
    world.clock.advance(HOUR - SECOND);
    let (node, tier) = world.node(Fault::Never);
    all(&node, &[id]).await;
    assert_eq!((node.inner().reads(), node.get_cached(&Scope::All, id).is_some()), (0, true));
    world.clock.advance(2 * SECOND);
    assert_eq!(node.get_cached(&Scope::All, id), None, "neither the memory nor the tier prolongs the other");
    all(&node, &[id]).await;
    assert_eq!((node.inner().reads(), tier.visits.load(Ordering::SeqCst)), (1, 3));
}

#[tokio::test]
async fn what_is_pruned_leaves_the_tier() {
    let world = World::new();
    let id = succeed(&world.store, job()).await;
    world.clock.advance(2 * Retention::KEYS_MIN);
    let (node, _) = world.node(Fault::Never);
    all(&node, &[id]).await;
    let lead = owner(&node).await;
    let term = node.take_term(&Name::literal("prune"), &lead, HOUR).await.unwrap().unwrap();
    let keep = Retention { jobs: Retention::KEYS_MIN, changes: 100, ..Retention::default() };
    assert_eq!((world.tier.len(), node.prune(&term, keep, 10).await.unwrap().jobs), (1, 1));
    assert_eq!((world.tier.len(), all(&node, &[id]).await), (0, vec![None]));
}

#[tokio::test]
async fn an_exclusive_store_shares_nothing() {
    let world = World::new();
    let id = succeed(&world.store, job()).await;
    all(&world.node(Fault::Never).0, &[id]).await;
    let tier = Arc::new(Broken { tier: world.tier.clone(), fault: Fault::Never, visits: AtomicU64::new(0) });
    let cache = CachedStore::builder(Scripted::exclusive(world.store.clone()))
        .tier(Arc::<Broken>::clone(&tier), KEY, Arc::new(Patient), TierOptions::default())
        .build();
    assert!(all(&cache, &[id]).await[0].is_some());
    assert_eq!((cache.inner().reads(), tier.visits.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn no_fault_of_the_tier_changes_an_answer() {
    use Fault::*;
    for fault in [Flushed, Poisoned, Mixed, Slow, Dead, Mad, Short] {
        let world = World::new();
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(succeed(&world.store, job()).await);
        }
        ids.push(add(&world.store, job()).await);
        // A node whose tier works fills it; only the flushed one is empty.
        all(&world.node(Never).0, &ids).await;
        if fault == Flushed {
            world.tier.flush();
        }
        let truth = all(&world.store, &ids).await;
        let (node, _) = world.node(fault);
        for _ in 0..3 {
            assert_eq!(all(&node, &ids).await, truth, "{fault:?}");
        }
        cancel(&node, ids[3]).await;
        world.clock.advance(SECOND);
        let open = all(&node, &ids).await.pop().unwrap().unwrap();
        assert_eq!(open.state, State::Cancelled, "{fault:?}");
        let stats = node.cache_stats();
        let noticed = stats.tier_failures + stats.tier_rejected;
        assert!(fault == Flushed || noticed > 0, "{fault:?} was noticed: {stats:?}");
    }
}

#[tokio::test]
async fn a_poisoned_row_is_removed_and_written_anew() {
    let world = World::new();
    let id = succeed(&world.store, job()).await;
    let forged = TierRow { key: id, version: u32::MAX, bytes: Bytes::from_static(b"no row"), ttl: HOUR };
    world.tier.put_many(vec![forged]).await.unwrap();
    let (node, _) = world.node(Fault::Never);
    assert!(all(&node, &[id]).await[0].is_some());
    assert_eq!(node.cache_stats().tier_rejected, 1);
    let (second, _) = world.node(Fault::Never);
    assert!(all(&second, &[id]).await[0].is_some());
    assert_eq!((second.inner().reads(), second.cache_stats().tier_hits), (0, 1));
}

#[tokio::test]
async fn a_row_of_whoever_does_not_know_the_key_is_not_believed() {
    let world = World::new();
    let id = succeed(&world.store, job()).await;
    all(&world.node_with(Fault::Never, [8; 32]).0, &[id]).await;
    let (node, _) = world.node(Fault::Never);
    assert!(all(&node, &[id]).await[0].is_some());
    assert_eq!((node.inner().reads(), node.cache_stats().tier_rejected), (1, 1));
}

#[tokio::test]
async fn a_row_that_the_tier_keeps_for_too_long_is_not_believed() {
    let (store, clock) = memory();
    // A tier whose clock stands still never forgets.
    let stuck = Arc::new(ManualClock::at(clock.now()));
    let world = World { store, clock, tier: MemoryTier::new().clock(stuck) };
    let id = succeed(&world.store, job()).await;
    all(&world.node(Fault::Never).0, &[id]).await;
    world.clock.advance(HOUR);
    let (node, _) = world.node(Fault::Never);
    all(&node, &[id]).await;
    assert_eq!((node.inner().reads(), node.cache_stats().tier_rejected), (1, 1));
}

#[tokio::test]
async fn a_tier_that_keeps_failing_is_left_alone_and_tried_again() {
    for fault in [Fault::Slow, Fault::Dead, Fault::Mad] {
        let world = World::new();
        let id = succeed(&world.store, job()).await;
        let (node, tier) = world.node(fault);
        for _ in 0..10 {
            node.clear();
            assert!(all(&node, &[id]).await[0].is_some());
        }
        let visits = || tier.visits.load(Ordering::SeqCst);
        let stats = node.cache_stats();
        assert_eq!((visits(), stats.tier_failures, stats.tier_skipped), (5, 5, 15), "{fault:?}");
        assert!(stats.tier_shut);
        world.clock.advance(Duration::from_secs(5));
        node.clear();
        all(&node, &[id]).await;
        assert_eq!((visits(), node.cache_stats().tier_shut), (6, true), "{fault:?}: one visit tries");
    }
}

/// A tier of which every visit takes a while, and a timer that notes how long it is asked to wait: it ends before what takes
/// longer.
#[derive(Debug)]
struct Slowly {
    tier: MemoryTier,
    clock: Arc<ManualClock>,
    takes: Duration,
    given: Mutex<Vec<Duration>>,
}

impl Slowly {
    async fn visit(&self) {
        let given = *self.given.lock().expect("nobody panics with it").last().expect("a timer is set");
        if given < self.takes {
            std::future::pending().await
        }
        self.clock.advance(self.takes);
    }

    /// A node that has nothing in its memory, and this tier.
    fn node(self: &Arc<Self>, world: &World) -> CachedStore<Scripted> {
        let timer = Arc::<Self>::clone(self);
        CachedStore::builder(Scripted::foreign(world.store.clone()))
            .clock(Arc::<ManualClock>::clone(&world.clock))
            .tier(Arc::<Self>::clone(self), KEY, timer, TierOptions::default().rows_max(2))
            .build()
    }

    fn of(world: &World, takes: u64) -> Arc<Self> {
        let (tier, clock) = (world.tier.clone(), Arc::clone(&world.clock));
        Arc::new(Self { tier, clock, takes: Duration::from_millis(takes), given: Mutex::default() })
    }

    /// How long the visits since the last look could take, in milliseconds.
    fn given(&self) -> Vec<u128> {
        let mut given = self.given.lock().expect("nobody panics with it");
        given.drain(..).map(|time| time.as_millis()).collect()
    }
}

impl Timer for Slowly {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.given.lock().expect("nobody panics with it").push(time);
        if time < self.takes { Box::pin(std::future::ready(())) } else { Box::pin(std::future::pending()) }
    }
}

#[async_trait]
impl CacheTier for Slowly {
    async fn get_many(&self, keys: &[JobId]) -> Result<Vec<Option<Bytes>>> {
        self.visit().await;
        self.tier.get_many(keys).await
    }

    async fn put_many(&self, rows: Vec<TierRow>) -> Result<()> {
        self.visit().await;
        self.tier.put_many(rows).await
    }

    async fn remove_many(&self, keys: &[JobId]) -> Result<()> {
        self.visit().await;
        self.tier.remove_many(keys).await
    }
}

#[tokio::test]
async fn the_visits_of_a_read_share_one_budget() {
    for (takes, given) in [(0, vec![50, 50, 50]), (15, vec![50, 35, 20]), (20, vec![50, 30]), (50, vec![50])]
    {
        let world = World::new();
        let id = succeed(&world.store, job()).await;
        // A row that is not believed: the read asks, removes it, and writes another.
        all(&world.node_with(Fault::Never, [8; 32]).0, &[id]).await;
        let slowly = Slowly::of(&world, takes);
        let node = slowly.node(&world);
        assert!(all(&node, &[id]).await[0].is_some());
        let left_out = 3 - given.len() as u64;
        assert_eq!(slowly.given(), given, "of {takes} ms each");
        assert_eq!(node.cache_stats().tier_skipped, left_out, "what is left out is counted");
    }
}

/// Asking takes more than half of the budget, and so does writing: without a turn of its own it would never come to that.
#[tokio::test]
async fn what_there_was_no_time_to_write_is_written_by_the_next_read() {
    for (takes, cut) in [(30, vec![50, 20]), (45, vec![50])] {
        let world = World::new();
        let id = succeed(&world.store, job()).await;
        let slowly = Slowly::of(&world, takes);
        let node = slowly.node(&world);
        all(&node, &[id]).await;
        assert_eq!((slowly.given(), world.tier.len()), (cut, 0));
        node.clear();
        all(&node, &[id]).await;
        assert_eq!((slowly.given(), world.tier.len()), (vec![50], 1), "it does not ask, and writes");
        node.clear();
        assert!(all(&node, &[id]).await[0].is_some());
        let stats = node.cache_stats();
        assert_eq!((slowly.given(), stats.tier_hits), (vec![50], 1));
        assert_eq!((stats.tier_failures, stats.tier_skipped), (0, 2), "no fault of the tier");
    }
}

#[tokio::test]
async fn each_batch_of_a_prune_has_a_budget() {
    let world = World::new();
    for _ in 0..6 {
        succeed(&world.store, job()).await;
    }
    world.clock.advance(2 * Retention::KEYS_MIN);
    let slowly = Slowly::of(&world, 40);
    let node = slowly.node(&world);
    let lead = owner(&node).await;
    let term = node.take_term(&Name::literal("prune"), &lead, HOUR).await.unwrap().unwrap();
    let keep = Retention { jobs: Retention::KEYS_MIN, changes: 100, ..Retention::default() };
    assert_eq!(node.prune(&term, keep, 10).await.unwrap().jobs, 6);
    assert_eq!(slowly.given(), [50, 50, 50], "two at a time");
}
