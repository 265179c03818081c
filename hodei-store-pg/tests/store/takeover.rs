//! A standby takes over that had not all that the primary acknowledged: what is missing is not there, and nothing that anybody
//! was told of it does any harm.

use std::time::Duration;

use bytes::Bytes;
use hodei_core::ErrorKind;
use hodei_core::checkpoint::CheckpointStore;
use hodei_core::job::{Epoch, Lease, NewJob, State};
use hodei_core::store::{
    Applied, Consistency, Coordination, Cursor, JobStore, Move, Scope, SubmitOptions, Transition,
};
use hodei_core::{JobId, Name, OwnerId, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres, Proxy, Server};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::env::{TTL, claim, done, exchange, job, jobs, owner, spec, submit};

/// A primary, and a standby that no commit waits for.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    database: Database,
    /// Leads to whichever writes.
    proxy: Proxy,
}

impl Pair {
    fn start() -> Self {
        let primary = Postgres::start().expect("PostgreSQL");
        let database = primary.database().expect("a database");
        let proxy = Proxy::start(primary.address()).expect("a proxy");
        let standby = primary.standby().expect("a standby");
        Self { primary, standby, database, proxy }
    }

    fn url(&self) -> String {
        self.database.url_at(self.proxy.address())
    }

    async fn open(&self) -> PgStore {
        PgStore::builder(self.url()).connections(4).connect().await.expect("the store opens")
    }

    /// Lets the standby have what was committed so far, and nothing that comes.
    async fn part(&self) {
        let end = self.primary.sql("postgres", "SELECT pg_current_wal_lsn()").expect("a place");
        let has = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        while self.standby.sql("postgres", &has).expect("the standby answers") != "t" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.standby.set("primary_conninfo", "").expect("a setting");
        let streams = "SELECT count(*) FROM pg_stat_replication";
        while self.primary.sql("postgres", streams).expect("the primary answers") != "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn take_over(&self) {
        self.primary.kill9();
        self.standby.promote().expect("it takes over");
        self.proxy.redirect(self.standby.address());
    }

    /// Runs SQL where it can be written to by now.
    fn sql(&self, text: &str) -> String {
        self.standby.sql(self.database.name(), text).expect("the server answers")
    }
}

/// Waits until a store has connections to whoever took over.
async fn arrived(store: &PgStore) {
    while store.now().await.is_err() || store.counts(&Scope::All).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn alive(store: &PgStore, lease: &Lease) -> bool {
    store.beat(vec![lease.clone()], TTL).await.expect("beat")[0].alive
}

/// Whatever one of these runs tells by a lease of before the server refuses: in one call with it, with the rules of core, in a
/// transaction of the host, and for its checkpoint.
async fn refuses(pair: &Pair, store: &PgStore, before: &Lease, runs: &[(JobId, Epoch)]) {
    let idle = exchange(store, before, Vec::new(), Vec::new()).await;
    assert!(idle.owner_lost);
    let lost = |applied: &Applied, n: usize| {
        assert_eq!(*applied, Applied::LeaseLost { held: runs[n].1, current: runs[n].1 });
    };
    let told = exchange(store, before, vec![done(runs[0].0, runs[0].1)], Vec::new()).await;
    lost(&told.applied[0], 0);
    assert!(told.owner_lost);
    let returned = Transition { job: runs[1].0, epoch: runs[1].1, step: Move::Returned };
    let told = exchange(store, before, vec![returned], Vec::new()).await;
    lost(&told.applied[0], 1);
    let mut host = PgConnection::connect(&pair.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    let applied = store.settle_in(&mut tx, vec![done(runs[2].0, runs[2].1)]).await.expect("settle_in");
    lost(&applied[0], 2);
    tx.commit().await.expect("commit");
    let (tenant, bytes) = (Tenant::default(), Bytes::from_static(b"of then"));
    let saved = store.checkpoints().save(&tenant, runs[3].0, runs[3].1, bytes).await;
    assert_eq!(saved.expect_err("it is refused").kind(), ErrorKind::LeaseLost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_settles_by_a_lease_that_is_missing_what_another_node_runs() {
    let pair = Pair::start();
    let (one, other) = (pair.open().await, pair.open().await);
    let (before, silent) = (owner(&one, "one").await, owner(&one, "silent").await);
    let kept = submit(&one, vec![job()]).await[0];
    assert_eq!(claim(&one, &before, 1).await[0].job.id, kept);
    let missing = submit(&one, jobs(5)).await;
    pair.part().await;
    let held = claim(&one, &before, 5).await;
    assert_eq!(held.len(), 5);
    tokio::task::block_in_place(|| pair.take_over());
    arrived(&one).await;
    arrived(&other).await;

    let lease = owner(&other, "other").await;
    let again = claim(&other, &lease, 5).await;
    let named = |held: &[hodei_core::store::Claimed]| {
        let mut named: Vec<_> = held.iter().map(|held| (held.job.id, held.job.epoch)).collect();
        named.sort_unstable();
        named
    };
    assert_eq!(named(&again), named(&held), "the same epochs are given out again");
    let runs = named(&again);

    refuses(&pair, &one, &before, &runs).await;
    // What it held before and still is written down it holds no more either: nobody knows whether it was so at the end.
    let told = exchange(&one, &before, vec![done(kept, held[0].job.epoch)], Vec::new()).await;
    assert!(matches!(told.applied[0], Applied::LeaseLost { .. }), "{:?}", told.applied);

    // Whoever runs them now settles them.
    let ends = runs.iter().map(|(id, epoch)| done(*id, *epoch)).collect();
    let told = exchange(&other, &lease, ends, Vec::new()).await;
    assert_eq!(told.applied, vec![Applied::Done; 5]);
    let states = other.get_many(&Scope::All, missing, Consistency::Latest).await.expect("get");
    assert!(states.iter().flatten().all(|job| job.state == State::Succeeded));

    // The life of then is over, and what it held comes back at once, to its own next life too.
    let duty = Name::literal("upkeep");
    let term = other.take_term(&duty, &lease, TTL).await.expect("take_term").expect("nobody leads");
    assert!(!alive(&one, &before).await);
    assert!(alive(&other, &lease).await);
    let living = other.owners().await.expect("owners");
    let living: Vec<&Lease> = living.iter().map(|living| &living.lease).collect();
    assert_eq!(living, [&lease], "{silent:?} lived before");
    other.reap(&term, 3, 100).await.expect("reap");
    let after = owner(&one, "one").await;
    assert!(after.incarnation > before.incarnation && alive(&one, &after).await);
    let claimed = claim(&one, &after, 5).await;
    assert_eq!(claimed.iter().map(|held| held.job.id).collect::<Vec<_>>(), [kept]);
    let mut host = PgConnection::connect(&pair.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    let applied = one.settle_in(&mut tx, vec![done(kept, claimed[0].job.epoch)]).await.expect("settle_in");
    assert_eq!(applied, [Applied::Done]);
    tx.commit().await.expect("commit");
    assert_eq!(one.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_is_missing_is_none() {
    let pair = Pair::start();
    let store = pair.open().await;
    let id = submit(&store, vec![job()]).await[0];
    pair.part().await;
    let missing = owner(&store, "one").await;
    let held = claim(&store, &missing, 1).await;
    tokio::task::block_in_place(|| pair.take_over());
    arrived(&store).await;
    assert!(!alive(&store, &missing).await);
    let told = exchange(&store, &missing, vec![done(id, held[0].job.epoch)], Vec::new()).await;
    assert!(matches!(told.applied[0], Applied::LeaseLost { .. }) && told.owner_lost);
    let owner = OwnerId::new("one").expect("a name");
    let next = store.register(&owner, TTL).await.expect("register");
    assert!(next.incarnation > missing.incarnation, "{next:?} was given out before");
    assert!(claim(&store, &missing, 1).await.is_empty());
    assert_eq!(claim(&store, &next, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_stands_for_another_name_now_is_not_remembered() {
    let pair = Pair::start();
    let (one, other) = (pair.open().await, pair.open().await);
    submit(&one, vec![job()]).await;
    pair.part().await;
    let of = |tenant: &str, queue: &str| {
        let spec = spec().queue(Name::new(queue).expect("a name")).build().expect("a valid spec");
        NewJob::of(Tenant::new(tenant).expect("a name"), std::sync::Arc::new(spec))
    };
    submit(&one, vec![of("lost", "missing")]).await;
    let number = "SELECT l.no || ' ' || t.no FROM hodei.lane l JOIN hodei.tenant t ON t.no = l.tenant WHERE l.queue = ";
    let missing = pair.primary.sql(pair.database.name(), &format!("{number}'missing'")).expect("a number");
    let (lane, tenant) = missing.split_once(' ').expect("two numbers");
    tokio::task::block_in_place(|| pair.take_over());
    arrived(&one).await;
    arrived(&other).await;
    // The server skips some numbers by itself, as long as no more than those were given out.
    pair.sql(&format!(
        "ALTER TABLE hodei.lane ALTER no RESTART WITH {lane}; ALTER TABLE hodei.tenant ALTER no RESTART WITH {tenant}"
    ));
    submit(&other, vec![of("found", "new")]).await;
    assert_eq!(pair.sql(&format!("{number}'new'")), missing);
    let ids = submit(&one, vec![of("lost", "missing")]).await;
    let read = other.get_many(&Scope::All, ids, Consistency::Latest).await.expect("get");
    let job = read[0].as_ref().expect("it is there");
    assert_eq!((job.tenant.as_str(), job.spec.queue().as_str()), ("lost", "missing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_transaction_of_a_host_that_is_the_first_after_it() {
    let pair = Pair::start();
    let (one, other) = (pair.open().await, pair.open().await);
    submit(&one, vec![job()]).await;
    pair.part().await;
    let behind = pair.database.url_at(pair.standby.address());
    let mut elsewhere = PgConnection::connect(&behind).await.expect("a connection");
    let mut tx = elsewhere.begin().await.expect("begin");
    let refused = one.submit_in(&mut tx, vec![job()], SubmitOptions::each()).await;
    assert_eq!(refused.expect_err("it is not where the store is").kind(), ErrorKind::Unavailable);
    tx.rollback().await.expect("rollback");
    tokio::task::block_in_place(|| pair.take_over());
    arrived(&one).await;
    arrived(&other).await;
    let mut host = PgConnection::connect(&pair.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    one.submit_in(&mut tx, vec![job()], SubmitOptions::each()).await.expect("submit_in");
    let submitted = tokio::time::timeout(Duration::from_secs(5), submit(&other, vec![job()])).await;
    assert_eq!(submitted.expect("it waits for the host").len(), 1);
    tx.commit().await.expect("commit");
}

/// Reads all changes that follow.
async fn changed(store: &PgStore, after: &mut Option<Cursor>) -> Vec<JobId> {
    let mut changed = Vec::new();
    loop {
        let page = store.changes(&Scope::All, after.clone(), 100).await.expect("changes");
        let more = !page.changes.is_empty();
        changed.extend(page.changes.iter().map(|change| change.job));
        *after = Some(page.next);
        if !more {
            return changed;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_read_changes_that_are_missing_reads_all_that_come() {
    let pair = Pair::start();
    let store = pair.open().await;
    let first = submit(&store, vec![job()]).await;
    let mut place = None;
    assert_eq!(changed(&store, &mut place).await, first);
    pair.part().await;
    for _ in 0..50 {
        submit(&store, vec![job()]).await;
    }
    assert_eq!(changed(&store, &mut place).await.len(), 50);
    tokio::task::block_in_place(|| pair.take_over());
    arrived(&store).await;
    let next = submit(&store, jobs(3)).await;
    assert_eq!(changed(&store, &mut place).await, next);
    let lease = owner(&store, "one").await;
    let held = claim(&store, &lease, 100).await;
    assert_eq!(held.len(), 4, "what is missing is missing");
    let failed = held.into_iter().map(|held| done(held.job.id, held.job.epoch)).collect();
    exchange(&store, &lease, failed, Vec::new()).await;
    assert_eq!(changed(&store, &mut place).await.len(), 8);
}
