//! Migrating a large database beside the work: nobody waits for a lock for longer than a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hodei_core::store::{JobStore, Retention};
use hodei_core::{Clock, SystemClock};
use hodei_store_pg::PgStore;
use hodei_test_servers::Postgres;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::env::{World, lead, open};
use crate::eras::FIRST_SCHEMA;

/// How many jobs there are; `HODEI_PG_MIGRATE_ROWS` sets another number.
const ROWS: u64 = 50_000;
/// How many write at the same time.
const WRITERS: usize = 4;
/// What nobody waits longer for; the server tells of whoever does.
const MOMENT: &str = "200ms";

/// What a node of before does to the tables: a job comes, and ends.
const COMES: &str = "BEGIN;
    INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, name, body)
        VALUES ('{id}', '{id}', 1, 1, 1, 1, 31, 'new', '\\x00');
    INSERT INTO hodei.ready (id, eligible_at, lane, rank) VALUES ('{id}', 1, 1, 31);
    INSERT INTO hodei.change (pos, at, node, tenant, n, body)
        VALUES (pg_current_xact_id()::text::int8, 1, 1, 1, 1, '\\x00');
    INSERT INTO hodei.delta (tenant, pending, changes) VALUES (1, 1, 1);
    COMMIT";
const ENDS: &str = "BEGIN;
    DELETE FROM hodei.ready WHERE lane = 1 AND rank = 31 AND eligible_at = 1 AND id = '{id}';
    INSERT INTO hodei.done (id, moved_at, tenant, state) VALUES ('{id}', 1, 1, 4);
    INSERT INTO hodei.delta (tenant, pending, succeeded) VALUES (1, -1, 1);
    COMMIT";

/// Who was told of as waiting for longer than a moment.
fn waiters(world: &World) -> Vec<String> {
    let waits = |line: &&str| line.starts_with("writer ") && line.contains("still waiting for");
    world.log().lines().filter(waits).map(str::to_owned).collect()
}

/// A database of the first schema, with jobs that have ended.
fn world(rows: u64) -> World {
    let telling = Postgres::builder()
        .setting("log_lock_waits", "on")
        .setting("deadlock_timeout", MOMENT)
        .setting("log_line_prefix", "%a ")
        .setting("max_wal_size", "4GB");
    let world = World::start(&telling);
    world.sql(&FIRST_SCHEMA.join(";\n"));
    world.sql(
        "INSERT INTO hodei.tenant (name) VALUES ('default');
         INSERT INTO hodei.lane (tenant, queue, class, request) VALUES (1, 'old', 1, '')",
    );
    world.sql(&format!(
        "INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, name, body)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::int8 - {rows} + g), 12, '0') || '70008000'
             || lpad(to_hex(g), 12, '0'))::uuid, gen_random_uuid(), g, g, 1, 1, 31, 'old', '\\x00'
         FROM generate_series(1, {rows}) g;
         INSERT INTO hodei.done (id, moved_at, tenant, state) SELECT id, 1, 1, 4 FROM hodei.job;
         INSERT INTO hodei.total (tenant, succeeded) VALUES (1, {rows});
         INSERT INTO hodei.change (pos, at, node, tenant, n, body)
         SELECT 1, 1, 1, 1, 1, '\\x00' FROM generate_series(1, {rows} / 10);
         INSERT INTO hodei.unique_key SELECT 1, 'open:' || row_number() OVER (), id FROM hodei.job LIMIT 100"
    ));
    world
}

async fn writer(url: &str) -> PgConnection {
    let name = if url.contains('?') { "&" } else { "?" };
    PgConnection::connect(&format!("{url}{name}application_name=writer")).await.expect("a connection")
}

async fn run(conn: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(conn).await.expect("the server answers");
}

/// Has jobs come and end until it is told to stop; returns how many did, and how long the longest transaction took.
async fn works(url: String, n: usize, over: Arc<AtomicBool>) -> (u64, Duration) {
    let mut conn = writer(&url).await;
    let (mut jobs, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        jobs += 1;
        let minted = SystemClock.now().as_micros() / 1_000;
        let id = format!("{:012x}7{n:03x}8{jobs:015x}", minted);
        for text in [COMES, ENDS] {
            let began = Instant::now();
            run(&mut conn, &text.replace("{id}", &id)).await;
            longest = longest.max(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (jobs, longest)
}

fn rows() -> u64 {
    std::env::var("HODEI_PG_MIGRATE_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROWS)
}

/// Those that write meanwhile.
struct Writers {
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(u64, Duration)>>,
}

impl Writers {
    fn start(world: &World) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let task = |n| tokio::spawn(works(world.database.url(), n, Arc::clone(&over)));
        Self { tasks: (0..WRITERS).map(task).collect(), over }
    }

    /// How many jobs came and ended, and how long the longest transaction took.
    async fn end(self) -> (u64, Duration) {
        self.over.store(true, Ordering::Relaxed);
        let (mut written, mut longest) = (0, Duration::ZERO);
        for task in self.tasks {
            let (jobs, time) = task.await.expect("no panic");
            (written, longest) = (written + jobs, longest.max(time));
        }
        (written, longest)
    }
}

/// An id from the future lets nothing be a part but what is made then, and all there is lies in the rest.
#[tokio::test]
async fn nobody_waits_long_for_a_part_beside_a_rest_of_many_jobs() {
    let rows = rows();
    let world = world(rows);
    let future = COMES.replace("{id}", "f0000000-0000-7000-8000-000000000001");
    world.sql(&future);
    let store = open(&world.database).await;
    assert_eq!(world.sql("SELECT count(*) FROM hodei.job_rest"), (rows + 1).to_string());
    let term = lead(&store).await;
    let writers = Writers::start(&world);
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What ended in 1970 is kept.
    let retention = Retention { jobs: Duration::from_secs(100 * 365 * 24 * 3_600), ..Retention::default() };
    let ahead = "SELECT count(*) FROM hodei.era WHERE ends_at > hodei.now() + 2500000000000";
    let began = Instant::now();
    while world.sql(ahead) == "0" {
        store.prune(&term, retention, 100).await.expect("prune");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (written, longest) = writers.end().await;
    println!(
        "an era beside a rest of {rows} jobs in {took:?}, beside {written} of {WRITERS} writers, of whom one took {longest:?}"
    );
    assert_eq!(waiters(&world), Vec::<String>::new(), "nobody waits for {MOMENT}");
    assert_eq!(world.sql("SELECT count(*) FROM hodei.done"), (rows + written).to_string());
    assert_eq!(world.sql("SELECT count(*) FROM pg_constraint WHERE conname = 'era'"), "0");
}

#[tokio::test]
async fn nobody_waits_long_for_a_migration_of_many_jobs() {
    let rows = rows();
    let world = world(rows);
    let writers = Writers::start(&world);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let done = PgStore::migrate(&PgStore::builder(world.database.url())).await.expect("migrate");
    let took = began.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (written, longest) = writers.end().await;
    println!(
        "{rows} jobs migrated in {took:?} beside {written} of {WRITERS} writers, of whom one took {longest:?}"
    );
    assert_eq!((done.from, done.to), (1, 2));
    assert_eq!(waiters(&world), Vec::<String>::new(), "nobody waits for {MOMENT}");
    let total = (rows + written).to_string();
    assert_eq!(world.sql("SELECT count(*) FROM hodei.done"), total);
    let counted = "SELECT sum(succeeded) FROM hodei.queue_counts(NULL, NULL, NULL, NULL, 10)";
    assert_eq!(world.sql(counted), total);
    assert_eq!(world.sql("SELECT count(*) FROM hodei.unique_key"), "0", "keys of jobs that had ended");
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'hodei.job_listed'::regclass";
    assert_eq!(world.sql(valid), "t");
    // Whoever waits is told of.
    let mut conn = writer(&world.database.url()).await;
    let mut host = crate::locks::stranger(&world.database, "LOCK TABLE hodei.job IN EXCLUSIVE MODE").await;
    let text = COMES.replace("{id}", "00000000-0000-7000-8000-000000000001");
    let waiting = tokio::spawn(async move { run(&mut conn, &text).await });
    while waiters(&world).is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run(&mut host, "COMMIT").await;
    waiting.await.expect("no panic");
}
