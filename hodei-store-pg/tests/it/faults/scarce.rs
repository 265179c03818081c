//! Connections that are all in use, a server that is slow, and transactions that are in each other's way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_core::ErrorKind;
use hodei_core::OwnerId;
use hodei_core::job::NewJob;
use hodei_core::store::{Coordination, JobStore, Query, Scope, SubmitOptions, Submitted};
use hodei_core::testkit::history::{Recorder, RecordingStore, check};
use hodei_core::testkit::typical_job;
use hodei_store_pg::{PgStore, PgStoreBuilder};
use hodei_test_servers::{Database, Postgres};
use sqlx::{Connection, PgConnection};

use super::fleet::{Fleet, PATIENCE, Store, TTL};

const A_WHILE: Duration = Duration::from_millis(200);

struct World {
    postgres: &'static Postgres,
    database: Database,
    store: Arc<Store>,
}

impl World {
    async fn new(set: impl FnOnce(PgStoreBuilder) -> PgStoreBuilder) -> Self {
        let postgres = Postgres::shared().expect("the server is well");
        let database = postgres.database().expect("the server is well");
        // The store of the test may have too little patience to make its tables.
        PgStore::migrate(&PgStore::builder(database.url())).await.expect("the server is well");
        let store = set(PgStore::builder(database.url())).connect().await.expect("the server is well");
        let store = Arc::new(RecordingStore::new(store, Recorder::new()));
        Self { postgres, database, store }
    }

    /// Somebody else locks the table of jobs, until the connection goes.
    async fn lock(&self) -> PgConnection {
        let mut other = PgConnection::connect(&self.database.url()).await.expect("the server is well");
        let lock = "BEGIN; LOCK TABLE hodei.job IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut other).await.expect("the server is well");
        other
    }

    /// Lets transactions that add jobs fail, so many times.
    fn fail(&self, sqlstate: &str, times: u64) {
        let sql = format!(
            "CREATE SEQUENCE failures;
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'told to' USING ERRCODE = '{sqlstate}'; END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER fail BEFORE INSERT ON hodei.job FOR EACH STATEMENT EXECUTE FUNCTION fail()"
        );
        self.postgres.sql(self.database.name(), &sql).expect("the server is well");
    }

    async fn submit(&self, job: &NewJob) -> Result<Submitted, hodei_core::Error> {
        let done = self.store.submit(vec![job.clone()], SubmitOptions::each()).await?;
        Ok(done.replies[0])
    }

    /// Submits until it is taken: the store has little patience, and the machine may have much else to do.
    async fn submits(&self, job: &NewJob) -> Submitted {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.submit(job).await {
                Ok(reply) => return reply,
                Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error:?}"),
            }
        }
    }

    async fn is_sound(&self) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.store.survey().await {
            assert!(error.is_retryable() && Instant::now() < end, "{error:?}");
        }
        let report = check(&self.store.recorder().history());
        assert!(report.is_clean(), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_connection_are_told_so_and_no_owner_dies_of_it() {
    let world = World::new(|store| store.connections(2).acquire_timeout(A_WHILE)).await;
    let owner = world.store.register(&OwnerId::new("node").unwrap(), TTL).await.unwrap();
    let other = world.lock().await;
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&world.store);
        reads.spawn(async move { store.inner().query(&Scope::All, Query::new()).await.map(drop) });
    }
    let (store, job) = (Arc::clone(&world.store), typical_job());
    let submitted = job.clone();
    let submit = tokio::spawn(async move { store.submit(vec![submitted], SubmitOptions::each()).await });
    for _ in 0..10 {
        let beats = world.store.beat(vec![owner.clone()], TTL).await.expect("it has its own connection");
        assert!(beats[0].alive);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Two wait for the lock; the others are told that no connection is left while they do.
    let mut refused = 0;
    while refused < 6 {
        let read = tokio::time::timeout(PATIENCE, reads.join_next()).await.expect("they do not wait for it");
        let error = read.expect("eight were asked").expect("no panic").expect_err("the table is locked");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.retry_delay().is_some());
        refused += 1;
    }
    drop(other);
    while let Some(read) = reads.join_next().await {
        if let Err(error) = read.expect("no panic") {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        }
    }
    if let Err(error) = submit.await.unwrap() {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    assert_eq!(world.submits(&job).await.stored(), Some(job.id));
    world.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_free_connection_is_unavailable_and_then_not() {
    let postgres = Postgres::builder().setting("max_connections", "12").start().unwrap();
    let database = postgres.database().unwrap();
    let fleet = Fleet::start([PgStore::builder(database.url()).connections(2)]).await;
    fleet.progress(5).await;
    let (mut hogs, end) = (Vec::new(), Instant::now() + PATIENCE);
    let error = loop {
        assert!(Instant::now() < end, "{} more connections fill no server of 12", hogs.len());
        // Whatever is free or was freed since, until the server refuses.
        while let Ok(hog) = PgConnection::connect(&database.url()).await {
            hogs.push(hog);
        }
        match PgStore::builder(database.url()).connect().await {
            Ok(store) => store.close().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    // A call that the fleet gave up takes its connection with it, and the hogs may have taken the place.
    hogs.truncate(hogs.len().saturating_sub(3));
    fleet.progress(5).await;
    drop(hogs);
    // The server learns of each end in its own time.
    loop {
        match PgStore::builder(database.url()).connect().await {
            Ok(store) => break store.close().await,
            Err(error) => {
                assert!(error.kind() == ErrorKind::Unavailable && Instant::now() < end, "{error:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("a full server: {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_given_up_and_can_be_repeated() {
    let world = World::new(|store| store.statement_timeout(A_WHILE)).await;
    for _ in 0..3 {
        let (other, job) = (world.lock().await, typical_job());
        let given_up =
            tokio::time::timeout(PATIENCE, world.submit(&job)).await.expect("it does not wait for the lock");
        let error = given_up.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Indeterminate), "{error:?}");
        drop(other);
        assert_eq!(world.submits(&job).await.stored(), Some(job.id));
    }
    world.is_sound().await;
}

#[tokio::test]
async fn a_deadlock_and_a_failure_to_serialize_are_tried_again() {
    for sqlstate in ["40P01", "40001"] {
        let world = World::new(|store| store).await;
        world.fail(sqlstate, 3);
        let job = typical_job();
        assert_eq!(world.submit(&job).await.unwrap(), Submitted::New(job.id), "{sqlstate}");
        world.is_sound().await;
    }
}

#[tokio::test]
async fn a_deadlock_that_does_not_end_is_told() {
    for sqlstate in ["40P01", "40001"] {
        let world = World::new(|store| store).await;
        world.fail(sqlstate, 1_000_000);
        let (job, began) = (typical_job(), Instant::now());
        let error = world.submit(&job).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Locked && error.is_retryable(), "{error:?}");
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        world.postgres.sql(world.database.name(), "DROP TRIGGER fail ON hodei.job").unwrap();
        assert_eq!(world.submit(&job).await.unwrap(), Submitted::New(job.id));
        world.is_sound().await;
    }
}
