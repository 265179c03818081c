//! A slot moves with everything that is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use hodei_core::job::{
    Failure, FailureClass, Finish, Job, JobSummary, Lease, NewJob, Output, Parent, Requires, State,
};
use hodei_core::store::*;
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_core::{Clock, ErrorKind, JobId, Result, Slot, Tenant, Timestamp};

use crate::world::{
    LIFE, Shards, add, changes, claiming, ended, ids, job, limited, listed, name, owner, pick, telling,
    tenant_in, versions_in_order,
};

const LONG: Duration = Duration::from_secs(1_000_000);

/// A tenant in shard 0 of two, with jobs in every state and everything else that a tenant can have.
pub(crate) struct Story {
    pub(crate) tenant: Tenant,
    owner: Lease,
    term: Term,
    jobs: Vec<JobId>,
    parent: Claimed,
    children: [JobId; 2],
    unique: NewJob,
    limited: NewJob,
    fired: Timestamp,
}

/// Everything that can be read of a story.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    jobs: Vec<Option<Job>>,
    listed: Vec<JobSummary>,
    leases: Vec<Claimed>,
    queues: Vec<QueuePolicy>,
    limits: Vec<LimitUse>,
    schedules: Vec<Schedule>,
    counts: Counts,
    all: u64,
}

impl Seen {
    pub(crate) fn total(&self) -> u64 {
        self.all
    }
}

fn after(parents: &[JobId]) -> Vec<Parent> {
    parents.iter().map(|id| Parent { id: *id, requires: Requires::Ended }).collect()
}

fn step(claimed: &Claimed, step: Move) -> Transition {
    Transition { job: claimed.job.id, epoch: claimed.job.epoch, step }
}

async fn policies(store: &ShardedStore, tenant: &Tenant) {
    let policy = QueuePolicy { tenant: tenant.clone(), queue: name("default"), paused: false, weight: 7 };
    store.set_queue(policy).await.expect("set_queue");
    let limits = [
        Limit::tenant(tenant.clone(), 40),
        Limit::queue(tenant.clone(), name("default"), 30),
        Limit::key(tenant.clone(), name("k"), 1),
    ];
    for limit in limits {
        store.set_limit(limit).await.expect("set_limit");
    }
    let spec = job(tenant).spec;
    let schedule =
        Schedule { tenant: tenant.clone(), name: name("s"), rule: "@daily".into(), spec, last_fired: None };
    store.set_schedule(schedule).await.expect("set_schedule");
}

impl Story {
    pub(crate) async fn begin(store: &ShardedStore) -> Self {
        let tenant = tenant_in(0, 2, 0);
        let owner = store.register(&owner("a"), LONG).await.expect("register");
        let term = store.take_term(&name("d"), &owner, LONG).await.expect("take").expect("nobody leads");
        policies(store, &tenant).await;
        let fired = Timestamp::from_micros(42);
        store.fire(&term, &tenant, &name("s"), fired).await.expect("fire");
        let new = || job(&tenant);
        let mut jobs = add(store, (0..6).map(|_| new()).collect()).await;
        // The one that fired is the oldest of the lane.
        let picks = vec![pick(&new(), 6)];
        let held = store.exchange(claiming(&owner, picks)).await.expect("exchange").claimed;
        jobs.extend(ids(&held));
        let started = || Move::Started { lease: None };
        let failed = Move::Finished(Box::new(Finish::failed(Failure::new(FailureClass::Error, "it broke"))));
        let good = Move::Finished(Box::new(Finish::succeeded(Output::Inline("42".into()))));
        let parent = held[0].clone();
        let again = held[1].job.id;
        let both = add(
            store,
            vec![new().after(after(&[parent.job.id, again])), new().after(after(&[parent.job.id]))],
        )
        .await;
        let steps = vec![
            step(&parent, started()),
            step(&held[1], failed.clone()),
            step(&held[2], failed),
            step(&held[3], good),
            step(&held[4], Move::Snoozed { wait: LIFE }),
        ];
        store.exchange(telling(&owner, steps)).await.expect("exchange");
        // The child was told of this parent once, and must not be told again.
        store.redrive(&Scope::All, vec![again]).await.expect("redrive");
        let unique = new().unique("key").run_at(Timestamp::from_micros(i64::MAX / 2));
        let (first, second) = (limited(&tenant, "k"), limited(&tenant, "k"));
        jobs.extend(add(store, vec![unique.clone(), first, second.clone(), new()]).await);
        store.exchange(claiming(&owner, vec![pick(&second, 2)])).await.expect("exchange");
        store.request_cancel(&Scope::All, vec![jobs[5]]).await.expect("cancel");
        // Neighbours, who stay.
        add(store, vec![job(&tenant_in(0, 2, 1)), job(&tenant_in(1, 2, 0))]).await;
        jobs.extend(&both);
        jobs.sort_unstable();
        jobs.dedup();
        Self {
            tenant,
            owner,
            term,
            jobs,
            parent,
            children: [both[0], both[1]],
            unique,
            limited: second,
            fired,
        }
    }

    pub(crate) async fn seen(&self, store: &ShardedStore) -> Result<Seen> {
        let scope = Scope::Tenant(self.tenant.clone());
        Ok(Seen {
            jobs: store.get_many(&scope, self.jobs.clone(), Consistency::Latest).await?,
            listed: store.query(&Scope::All, Query::new().limit(Query::LIMIT_MAX)).await?.jobs,
            leases: store.leases_of(&self.owner).await?,
            queues: store.queues(&scope).await?,
            limits: store.limits(&Scope::All).await?,
            schedules: store.schedules(&Scope::All).await?,
            counts: store.counts(&scope).await?,
            all: store.counts(&Scope::All).await?.total(),
        })
    }

    /// Goes on with the story where the slot has come to.
    pub(crate) async fn end(&self, store: &ShardedStore, shards: &Shards) {
        assert_eq!(store.shard_of(&self.tenant), 1);
        let scope = Scope::Tenant(self.tenant.clone());
        let left = shards.stores[0].counts(&scope).await.expect_err("the slot is closed there");
        assert!(is_slot_closed(&left));
        let batch = vec![self.unique.clone()];
        let again = store.submit(batch, SubmitOptions::each()).await.expect("submit");
        assert_eq!(again.replies, [Submitted::Existing(self.unique.id)]);
        let fired = store.fire(&self.term, &self.tenant, &name("s"), self.fired).await.expect("fire");
        assert_eq!(fired, Fired::Already);
        let full =
            store.exchange(claiming(&self.owner, vec![pick(&self.limited, 9)])).await.expect("exchange");
        assert_eq!(ids(&full.claimed), [], "the limit is used up");
        let done = store.exchange(telling(&self.owner, vec![ended(&self.parent)])).await.expect("exchange");
        assert_eq!(done.applied, [Applied::Done]);
        let children =
            store.get_many(&scope, self.children.to_vec(), Consistency::Latest).await.expect("get");
        let states: Vec<_> = children.into_iter().flatten().map(|job| job.state).collect();
        assert_eq!(states, [State::Pending, State::Pending], "both parents were told, one of them before");
        let heads = store.lanes(&Served::default()).await.expect("lanes").heads;
        assert!(heads.iter().any(|head| head.lane.tenant == self.tenant && head.weight == 7));
        assert_eq!(store.verify_indexes().await.expect("verify"), [""; 0]);
        versions_in_order(&changes(store, &scope, None, 7).await.expect("changes").0);
        versions_in_order(&changes(store, &Scope::All, None, 7).await.expect("changes").0);
    }
}

#[tokio::test]
async fn a_slot_moves_with_everything_and_may_come_back() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let story = Story::begin(&store).await;
    let before = story.seen(&store).await.expect("nothing moves");
    for to in [1, 1, 0, 1, 0, 1] {
        shards.tick();
        store.move_slot(story.tenant.slot(), to).await.expect("it moves");
        assert_eq!(store.shard_of(&story.tenant), to);
        assert_eq!(story.seen(&store).await.expect("it has arrived"), before);
        assert_eq!(store.verify_indexes().await.expect("verify"), [""; 0]);
    }
    story.end(&store, &shards).await;
}

#[tokio::test]
async fn a_move_of_many_rows_copies_each_once() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let tenant = tenant_in(0, 2, 0);
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.extend(add(&store, (0..401).map(|_| job(&tenant)).collect()).await);
        shards.tick();
    }
    store.move_slot(tenant.slot(), 1).await.expect("it moves");
    let mut found = listed(&store, &Scope::All, Query::new().limit(1_000)).await.expect("query");
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_cannot_move_says_so() {
    let mut shards = Shards::new(2);
    let fixed = Faulty::new(MemoryStore::new(), Faults::new()).fixed();
    shards.stores.push(fixed.into());
    let store = shards.open().await;
    let slot = tenant_in(0, 3, 0).slot();
    let error = store.move_slot(slot, 3).await.expect_err("there is no such shard");
    let fault = &error.faults()[0];
    assert_eq!((fault.field.as_str(), fault.code, fault.limit), ("to", "no_such_shard", Some(3)));
    let error = store.move_slot(slot, 2).await.expect_err("it does not offer it");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Config, Some("2")));
    assert_eq!(store.resume_moves().await.expect("nothing has begun"), 0);
    let error = store.give_up_move(slot).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    store.move_slot(slot, 0).await.expect("it is there already");
}

/// Every write that names the slot is refused, and changes nothing; nobody else is held up.
#[tokio::test]
async fn while_a_slot_leaves_its_writes_are_refused_and_its_reads_go_on() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let story = Story::begin(&store).await;
    let before = story.seen(&store).await.expect("nothing moves");
    let source = shards.stores[0].inner();
    source.seal_slot(story.tenant.slot(), 1).await.expect("seal");
    refuses_writes(&store, &story).await;
    assert_eq!(story.seen(&store).await.expect("reads go on"), before);
    add(&store, vec![job(&tenant_in(0, 2, 1))]).await;
    shards.clock.advance(2 * LONG);
    let leader = store.register(&owner("b"), LONG).await.expect("register");
    let term = store.take_term(&name("e"), &leader, LONG).await.expect("take").expect("nobody leads");
    let reaped = store.reap(&term, 3, 99).await.expect("reap");
    assert_eq!((reaped.changes, reaped.more), (vec![], false), "what it would lose stays");
    let pruned = store
        .prune(&term, Retention { jobs: LIFE, changes: 1_000, ..Retention::default() }, 99)
        .await
        .expect("prune");
    assert_eq!((pruned.jobs, pruned.more), (0, false));
    source.open_slot(story.tenant.slot(), 1).await.expect("it stays");
    assert!(!store.reap(&term, 3, 99).await.expect("reap").changes.is_empty());
}

async fn refuses_writes(store: &ShardedStore, story: &Story) {
    let tenant = story.tenant.clone();
    let refused = |result: Result<()>| {
        let error = result.expect_err("the slot is not open");
        assert!(is_slot_closed(&error) && error.is_retryable(), "{error}");
        assert_eq!(error.retry_delay(), Some(SLOT_RETRY));
    };
    let id = vec![story.jobs[0]];
    refused(store.submit(vec![job(&tenant)], SubmitOptions::each()).await.map(drop));
    refused(store.request_cancel(&Scope::All, id.clone()).await.map(drop));
    refused(store.redrive(&Scope::All, id).await.map(drop));
    refused(store.fire(&story.term, &tenant, &name("s"), Timestamp::MAX).await.map(drop));
    let policy = QueuePolicy { tenant: tenant.clone(), queue: name("q"), paused: true, weight: 1 };
    refused(store.set_queue(policy).await);
    refused(store.set_limit(Limit::key(tenant.clone(), name("k"), 9)).await);
    refused(store.remove_schedule(&tenant, &name("s")).await.map(drop));
    let spec = job(&tenant).spec;
    let schedule =
        Schedule { tenant: tenant.clone(), name: name("t"), rule: "".into(), spec, last_fired: None };
    refused(store.set_schedule(schedule).await);
    let picks = vec![pick(&job(&tenant), 9)];
    let exchange = Exchange { owner: story.owner.clone(), transitions: vec![ended(&story.parent)], picks };
    let done = store.exchange(exchange).await.expect("refused by item");
    assert_eq!((done.applied, done.claimed, done.owner_lost), (vec![Applied::Unavailable], vec![], false));
    let heads = store.lanes(&Served::default()).await.expect("lanes").heads;
    assert!(heads.iter().all(|head| head.lane.tenant != tenant));
}

#[tokio::test]
async fn through_an_old_map_reads_find_the_slot_and_writes_are_refused_once() {
    let shards = Shards::new(2);
    let (mover, stale) = (shards.open().await, shards.open().await);
    let story = Story::begin(&stale).await;
    let before = story.seen(&stale).await.expect("nothing moves");
    mover.move_slot(story.tenant.slot(), 1).await.expect("it moves");
    assert_eq!(stale.shard_of(&story.tenant), 0, "it has not heard");
    let told = || stale.exchange(telling(&story.owner, vec![ended(&story.parent)]));
    assert_eq!(told().await.expect("exchange").applied, [Applied::Unavailable]);
    assert_eq!(stale.shard_of(&story.tenant), 1, "it has");
    let others = shards.open().await;
    mover.move_slot(story.tenant.slot(), 0).await.expect("it moves");
    let new = job(&story.tenant);
    let submit = || others.submit(vec![new.clone()], SubmitOptions::each());
    assert!(is_slot_closed(&submit().await.expect_err("once")));
    assert_eq!(story.seen(&stale).await.expect("reads look again").jobs, before.jobs);
    assert_eq!(submit().await.expect("submit").replies, [Submitted::New(new.id)]);
    mover.move_slot(story.tenant.slot(), 1).await.expect("it moves");
    assert_eq!(
        stale.request_cancel(&Scope::All, vec![new.id]).await.expect_err("once").kind(),
        ErrorKind::Unavailable
    );
    stale.request_cancel(&Scope::All, vec![new.id]).await.expect("cancel");
    story.end(&mover, &shards).await;
}

#[tokio::test]
async fn through_an_old_map_work_is_claimed_where_it_is() {
    let shards = Shards::new(2);
    let (mover, stale) = (shards.open().await, shards.open().await);
    let new = job(&tenant_in(0, 2, 0));
    add(&stale, vec![new.clone()]).await;
    let owner = stale.register(&owner("a"), LIFE).await.expect("register");
    mover.move_slot(new.tenant.slot(), 1).await.expect("it moves");
    let heads = stale.lanes(&Served::default()).await.expect("lanes").heads;
    assert_eq!(heads.len(), 1);
    let claimed = stale.exchange(claiming(&owner, vec![pick(&new, 1)])).await.expect("exchange").claimed;
    assert_eq!(ids(&claimed), [new.id]);
}

/// One log was read before a change that came ahead of the move, the other after one that came behind it.
#[tokio::test]
async fn a_log_that_is_read_while_a_slot_moves_stays_in_order() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let tenant = tenant_in(0, 2, 0);
    let job = add(&store, vec![job(&tenant)]).await;
    let end = store.changes_end().await.expect("changes_end");
    shards.faults[1].hold(0);
    let mut page = Box::pin(store.changes(&Scope::All, Some(end), 9));
    assert!(poll_fn(|cx| Poll::Ready(page.as_mut().poll(cx).is_pending())).await);
    shards.tick();
    store.request_cancel(&Scope::All, job.clone()).await.expect("cancel");
    shards.tick();
    store.move_slot(tenant.slot(), 1).await.expect("it moves");
    shards.tick();
    store.redrive(&Scope::All, job).await.expect("redrive");
    shards.faults[1].heal();
    let page = page.await.expect("changes");
    let rest = changes(&store, &Scope::All, Some(page.next), 9).await.expect("changes").0;
    let versions: Vec<u32> = page.changes.iter().chain(&rest).map(|change| change.version).collect();
    assert_eq!(versions, [2, 3]);
}

#[tokio::test]
async fn a_count_that_is_read_while_a_slot_moves_has_each_job_once() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let tenant = tenant_in(0, 2, 0);
    add(&store, vec![job(&tenant)]).await;
    // The first shard has counted the job before it leaves, the second counts after it has come.
    shards.faults[1].hold(0);
    let mut counts = Box::pin(store.counts(&Scope::All));
    assert!(poll_fn(|cx| Poll::Ready(counts.as_mut().poll(cx).is_pending())).await);
    store.move_slot(tenant.slot(), 1).await.expect("it moves");
    shards.faults[1].heal();
    assert_eq!(counts.await.expect("counts").total(), 1);
}

#[tokio::test]
async fn a_log_is_in_order_where_the_clocks_do_not_tell() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let tenant = tenant_in(1, 2, 0);
    let id = add(&store, vec![job(&tenant)]).await;
    store.move_slot(tenant.slot(), 0).await.expect("it moves");
    store.request_cancel(&Scope::All, id).await.expect("cancel");
    let log = changes(&store, &Scope::All, None, 9).await.expect("changes").0;
    assert_eq!(log.len(), 2);
    versions_in_order(&log);
}

#[tokio::test]
async fn a_reader_waits_for_the_mover_of_its_process() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let story = Story::begin(&store).await;
    let before = story.seen(&store).await.expect("nothing moves");
    let slot = story.tenant.slot();
    // Of shard 1 the move asks to expect the slot, to know the owner, to keep the rows, where its log
    // ends, and to open it.
    shards.faults[1].hold(4);
    let mut moving = Box::pin(store.move_slot(slot, 1));
    assert!(poll_fn(|cx| Poll::Ready(moving.as_mut().poll(cx).is_pending())).await);
    let mut reading = Box::pin(story.seen(&store));
    for _ in 0..9 {
        assert!(poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending())).await, "in neither shard");
    }
    shards.faults[1].heal();
    let (moved, seen) = tokio::join!(moving, reading);
    moved.expect("it moves");
    assert_eq!(seen.expect("it has waited"), before);
}

#[tokio::test]
async fn sinks_hear_every_shard_and_a_tenant_in_its_order() {
    #[derive(Debug, Default)]
    struct Ear(Mutex<Vec<Change>>);
    impl ChangeSink for Ear {
        fn committed(&self, changes: &[Change]) {
            self.0.lock().expect("nobody panicked").extend_from_slice(changes);
        }
    }
    let shards = Shards::new(2);
    let store = shards.open().await;
    let ear = Arc::new(Ear::default());
    let feed = store.feed(Arc::<Ear>::clone(&ear));
    let both = [tenant_in(0, 2, 0), tenant_in(1, 2, 0)];
    let all = add(&store, both.iter().map(job).collect()).await;
    store.move_slot(both[0].slot(), 1).await.expect("it moves");
    store.request_cancel(&Scope::All, all.clone()).await.expect("cancel");
    drop(feed);
    store.redrive(&Scope::All, all).await.expect("redrive");
    let heard = ear.0.lock().expect("nobody panicked").clone();
    assert_eq!(heard.len(), 4, "a move changes nothing");
    versions_in_order(&heard);
}

#[tokio::test]
async fn a_shard_refuses_the_verbs_of_a_late_mover() {
    let store = MemoryStore::new();
    let tenant = tenant_in(0, 1, 0);
    let slot = tenant.slot();
    store.submit(vec![job(&tenant)], SubmitOptions::each()).await.expect("submit");
    let conflict = |result: Result<()>| {
        assert_eq!(result.expect_err("it is late, or out of order").kind(), ErrorKind::Conflict);
    };
    conflict(store.close_slot(slot, 1, 9).await.map(drop));
    conflict(store.export_slot(slot, 1, None, 9).await.map(drop));
    conflict(store.import_slot(slot, 1, Vec::new()).await);
    store.seal_slot(slot, 5).await.expect("seal");
    store.seal_slot(slot, 5).await.expect("again");
    conflict(store.seal_slot(slot, 6).await.map(drop));
    conflict(store.export_slot(slot, 4, None, 9).await.map(drop));
    assert_eq!(store.export_slot(slot, 5, None, 0).await.expect_err("no limit").kind(), ErrorKind::Invalid);
    let rows = store.export_slot(slot, 5, None, 9).await.expect("export").rows;
    conflict(store.open_slot(slot, 4).await);
    assert!(!store.close_slot(slot, 5, 9).await.expect("close"));
    conflict(store.open_slot(slot, 5).await);
    conflict(store.import_slot(slot, 4, rows.clone()).await);
    store.import_slot(slot, 7, rows.clone()).await.expect("it comes back");
    let other = Slot::new(slot.number() ^ 1).expect("a slot");
    let error = store.import_slot(other, 7, rows.clone()).await.expect_err("rows of another slot");
    assert_eq!(error.faults()[0].code, "wrong_slot");
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 0, "out of sight");
    assert!(is_slot_closed(&store.counts(&Scope::Tenant(tenant.clone())).await.expect_err("refused")));
    store.open_slot(slot, 7).await.expect("open");
    store.open_slot(slot, 7).await.expect("again");
    conflict(store.import_slot(slot, 7, rows).await);
    assert_eq!(store.counts(&Scope::Tenant(tenant)).await.expect("counts").total(), 1);
    assert_eq!(store.verify_indexes().await.expect("verify"), [""; 0]);
}

#[tokio::test]
async fn a_target_without_room_keeps_the_slot_where_it_was() {
    let shards = Shards::new(1);
    let small = MemoryStore::builder().max_jobs(2).build();
    let all: Vec<Arc<dyn Shard>> =
        vec![Arc::<Faulty<MemoryStore>>::clone(&shards.stores[0]), Arc::new(small)];
    let store = ShardedStore::open(all).await.expect("it opens");
    let tenant = tenant_in(0, 2, 0);
    let all = add(&store, (0..3).map(|_| job(&tenant)).collect()).await;
    let error = store.move_slot(tenant.slot(), 1).await.expect_err("there is no room");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Full, Some("1")));
    store.give_up_move(tenant.slot()).await.expect("it stays");
    store.request_cancel(&Scope::All, all).await.expect("and is open");
    assert_eq!(store.shard_of(&tenant), 0);
}

/// What all tasks of a run under load share.
struct Load {
    shards: Shards,
    store: ShardedStore,
    tenants: Vec<Tenant>,
    random: Mutex<u64>,
    attempted: AtomicU64,
    acknowledged: Mutex<BTreeSet<JobId>>,
    claimed: Mutex<BTreeMap<JobId, Lease>>,
    submitters: AtomicU64,
    over: AtomicBool,
    moves: AtomicU64,
}

impl Load {
    async fn new(seed: u64) -> Self {
        let shards = Shards::new(3);
        let store = shards.open().await;
        for (n, faults) in shards.faults.iter().enumerate() {
            faults.wait(seed * 3 + n as u64);
        }
        Self {
            store,
            tenants: (0..6).map(|n| tenant_in(n % 3, 3, n / 3)).collect(),
            shards,
            random: Mutex::new(seed),
            attempted: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            claimed: Mutex::default(),
            submitters: AtomicU64::new(2),
            over: AtomicBool::new(false),
            moves: AtomicU64::new(0),
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn below(&self, n: usize) -> usize {
        let mut state = self.random.lock().expect("nobody panicked");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).expect("it is below n")
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Repeats a call until the slot is open again.
    async fn insist<T>(&self, mut call: impl AsyncFnMut() -> Result<T>) -> T {
        loop {
            self.shards.tick();
            match call().await {
                Ok(done) => return done,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn submits(&self) {
        for _ in 0..25 {
            let tenant = &self.tenants[self.below(self.tenants.len())];
            let batch: Vec<NewJob> = (0..=self.below(3)).map(|_| job(tenant)).collect();
            self.attempted.fetch_add(batch.len() as u64, Ordering::SeqCst);
            let done =
                self.insist(async || self.store.submit(batch.clone(), SubmitOptions::atomic()).await).await;
            let stored = done.replies.iter().map(|reply| reply.stored().expect("it is stored"));
            self.acknowledged.lock().expect("nobody panicked").extend(stored);
        }
        self.submitters.fetch_sub(1, Ordering::SeqCst);
    }

    async fn works(&self, who: &'static str) {
        let owner = self.store.register(&owner(who), LONG).await.expect("register");
        let mut outgoing: Vec<Transition> = Vec::new();
        while !self.is_over() || !outgoing.is_empty() {
            self.shards.tick();
            let heads = self.store.lanes(&Served::default()).await.expect("lanes").heads;
            let pick = |head: LaneHead| Pick {
                lane: head.lane,
                floor: head.level,
                ceiling: hodei_core::job::Priority::MAX,
                n: 2,
            };
            let transitions = std::mem::take(&mut outgoing);
            let exchange = Exchange {
                owner: owner.clone(),
                transitions: transitions.clone(),
                picks: heads.into_iter().map(pick).collect(),
            };
            let done = self.store.exchange(exchange).await.expect("exchange");
            assert!(!done.owner_lost && done.reclaimed.is_empty());
            for (transition, applied) in transitions.into_iter().zip(done.applied) {
                match applied {
                    Applied::Done | Applied::AlreadyApplied => {}
                    Applied::Unavailable => outgoing.push(transition),
                    lost => panic!("{transition:?} is {lost:?}"),
                }
            }
            for held in done.claimed {
                let before = self.claimed.lock().expect("nobody panicked").insert(held.job.id, owner.clone());
                assert_eq!((before, held.job.epoch.number()), (None, 1), "nobody returns or loses it");
                outgoing.push(step(&held, Move::Started { lease: None }));
                outgoing.push(ended(&held));
            }
            let counts = self.insist(async || self.store.counts(&Scope::All).await).await;
            let settled = self.submitters.load(Ordering::SeqCst) == 0 && counts.open() == 0;
            if settled && self.moves.load(Ordering::SeqCst) >= 30 {
                self.over.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Every job that was acknowledged is there, once, and never younger than it was.
    async fn reads(&self) {
        let mut versions: BTreeMap<JobId, u32> = BTreeMap::new();
        while !self.is_over() {
            let floor: Vec<JobId> =
                self.acknowledged.lock().expect("nobody panicked").iter().copied().collect();
            let counted = self.insist(async || self.store.counts(&Scope::All).await).await.total();
            let ceiling = self.attempted.load(Ordering::SeqCst);
            assert!(
                (floor.len() as u64..=ceiling).contains(&counted),
                "{counted} of {} to {ceiling}",
                floor.len()
            );
            let query = Query::new().limit([3, 20, 1_000][self.below(3)]);
            let found = self.insist(async || listed(&self.store, &Scope::All, query.clone()).await).await;
            let once: BTreeSet<JobId> = found.iter().copied().collect();
            assert_eq!(once.len(), found.len(), "each once");
            assert!(floor.iter().all(|id| once.contains(id)), "all that were acknowledged");
            let get = async || self.store.get_many(&Scope::All, floor.clone(), Consistency::Latest).await;
            for (id, job) in floor.iter().zip(self.insist(get).await) {
                let version = job.expect("it was acknowledged").version;
                let before = versions.insert(*id, version).unwrap_or(0);
                assert!(version >= before, "{id} went back from {before} to {version}");
            }
        }
    }

    /// Follows the log from the beginning to the end.
    async fn tails(&self) -> Vec<Change> {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let last = self.is_over();
            let page = self.store.changes(&Scope::All, cursor.clone(), 5).await.expect("changes");
            let end = page.changes.is_empty() && cursor.as_ref() == Some(&page.next);
            seen.extend(page.changes);
            cursor = Some(page.next);
            if last && end {
                return seen;
            }
        }
    }

    async fn moves(&self) {
        while !self.is_over() {
            let slot = self.tenants[self.below(self.tenants.len())].slot();
            self.shards.tick();
            self.store.move_slot(slot, self.below(3)).await.expect("it moves");
            self.shards.tick();
            self.moves.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn under_load_every_acknowledged_job_is_there_once_while_slots_move() {
    let seeds = std::env::var("HODEI_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    for seed in 1..=seeds {
        let load = Load::new(seed).await;
        let (.., seen) = tokio::join!(
            load.submits(),
            load.submits(),
            load.works("a"),
            load.works("b"),
            load.reads(),
            load.moves(),
            load.tails(),
        );
        let all: Vec<JobId> = load.acknowledged.lock().expect("nobody panicked").iter().copied().collect();
        assert_eq!(all.len() as u64, load.attempted.load(Ordering::SeqCst));
        let jobs = load.store.get_many(&Scope::All, all.clone(), Consistency::Latest).await.expect("get");
        for job in jobs.into_iter().flatten() {
            assert_eq!((job.state, job.version, job.epoch.number()), (State::Succeeded, 4, 1), "seed {seed}");
        }
        assert_eq!(load.claimed.lock().expect("nobody panicked").len(), all.len());
        assert_eq!(load.store.verify_indexes().await.expect("verify"), [""; 0], "seed {seed}");
        let whole = changes(&load.store, &Scope::All, None, 100).await.expect("changes").0;
        for log in [&seen, &whole] {
            assert_eq!(log.len(), 4 * all.len(), "seed {seed}");
            versions_in_order(log);
        }
        assert!(load.shards.clock.now() > Timestamp::EPOCH);
    }
}
