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
        let store = set(PgStore::builder(database.url())).connect().await.expect("the server is well");
        let store = Arc::new(RecordingStore::new(store, Recorder::new()));
        Self { postgres, database, store }
    }

    /// Somebody else locks the table of jobs for a time. Returns when it is locked.
    async fn lock(&self, time: Duration) -> tokio::task::JoinHandle<()> {
        let sql = format!(
            "BEGIN; LOCK TABLE hodei.job IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({}); COMMIT",
            time.as_secs_f64()
        );
        let (postgres, name) = (self.postgres, self.database.name().to_owned());
        let locking = tokio::task::spawn_blocking(move || drop(postgres.sql(&name, &sql).expect("a lock")));
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
             AND relation = 'hodei.job'::regclass";
        while self.postgres.sql(self.database.name(), held).expect("the server is well") == "0" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        locking
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

    async fn is_sound(&self) {
        self.store.survey().await.expect("the server is well");
        let report = check(&self.store.recorder().history());
        assert!(report.is_clean(), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_connection_are_told_so_and_no_owner_dies_of_it() {
    let world = World::new(|store| store.connections(2).acquire_timeout(A_WHILE)).await;
    let owner = world.store.register(&OwnerId::new("node").unwrap(), TTL).await.unwrap();
    let locking = world.lock(Duration::from_millis(1_500)).await;
    let reads = (0..8).map(|_| {
        let store = Arc::clone(&world.store);
        tokio::spawn(async move {
            let began = Instant::now();
            let read = store.inner().query(&Scope::All, Query::new()).await;
            (read.map(drop), began.elapsed())
        })
    });
    let reads: Vec<_> = reads.collect();
    let (store, job) = (Arc::clone(&world.store), typical_job());
    let submitted = job.clone();
    let submit = tokio::spawn(async move { store.submit(vec![submitted], SubmitOptions::each()).await });
    while !locking.is_finished() {
        let began = Instant::now();
        let beats = world.store.beat(vec![owner.clone()], TTL).await.expect("it has its own connection");
        assert!(beats[0].alive && began.elapsed() < A_WHILE, "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut refused = 0;
    for read in reads {
        let (Err(error), took) = read.await.unwrap() else { continue };
        refused += 1;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.retry_delay().is_some() && took < A_WHILE * 5, "{took:?}");
    }
    println!("{refused} of 8 reads were refused");
    assert!((1..8).contains(&refused));
    if let Err(error) = submit.await.unwrap() {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    assert_eq!(world.submit(&job).await.unwrap().stored(), Some(job.id));
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
        let locking = world.lock(A_WHILE * 6).await;
        let (job, began) = (typical_job(), Instant::now());
        let error = world.submit(&job).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Indeterminate), "{error:?}");
        assert!(began.elapsed() < A_WHILE * 6, "{:?}", began.elapsed());
        locking.await.unwrap();
        let stored = world.submit(&job).await.unwrap();
        assert_eq!(stored.stored(), Some(job.id));
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
