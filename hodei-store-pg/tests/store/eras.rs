//! The history goes in parts, and what must stay stays.

use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{Failure, FailureClass, Finish, NewJob, Output, Parent, Priority, Requires, State};
use hodei_core::store::{
    Consistency, JobStore, Move, QueueQuery, Redriven, Retention, Scope, SubmitOptions, Submitted, Term,
    Transition,
};
use hodei_core::{JobId, Name, Timestamp};
use hodei_store_pg::PgStore;
use hodei_test_servers::Database;
use sqlx::{AssertSqlSafe, Connection};

use crate::env::{
    burn, claim, database, done, exchange, job, jobs, lead, minted_at, open, owner, spec, sql, submit,
};

/// Longer than what is old in these tests: everything ended in 1970.
const LONG: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Makes the first era old and what has ended in it, and has it go whole.
fn make_old(database: &Database) {
    sql(
        database,
        "UPDATE hodei.done SET moved_at = 1; UPDATE hodei.era SET whole = true, ends_at = 2 WHERE no = 0",
    );
}

/// One step of the upkeep, with all that has ended before now being old.
fn tend(database: &Database) -> String {
    sql(database, "SELECT hodei.tend(hodei.now(), hodei.now() - 1000000, hodei.now() - 1000000, 3600000000)")
}

fn stage(database: &Database) -> String {
    sql(database, "SELECT coalesce((SELECT stage::text FROM hodei.era WHERE no = 0), 'gone')")
}

fn tend_to(database: &Database, wanted: &str) {
    for _ in 0..50 {
        if stage(database) == wanted {
            return;
        }
        tend(database);
    }
    panic!("the era is at {}, and never at {wanted}", stage(database));
}

/// Prunes until nothing is left to do and `n` jobs or more are gone, and returns them.
async fn prune_all(store: &PgStore, term: &Term, retention: Retention, n: usize) -> Vec<JobId> {
    let mut gone = Vec::new();
    for _ in 0..1_000 {
        let pruned = store.prune(term, retention, 100).await.expect("prune");
        assert!(!pruned.term_lost && pruned.gone.len() <= 100);
        gone.extend(pruned.gone.iter().map(|(_, job)| *job));
        if !pruned.more {
            if gone.len() >= n {
                gone.sort_unstable();
                return gone;
            }
            // A step that somebody was in the way of, or for which the machine was too busy, is made by a later call.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    panic!("{} are gone, and there is always more", gone.len());
}

/// Prunes until a query answers so.
async fn prune_until(
    store: &PgStore,
    term: &Term,
    retention: Retention,
    (database, text, wanted): (&Database, &str, &str),
) {
    for _ in 0..1_000 {
        prune_all(store, term, retention, 0).await;
        if sql(database, text) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{text} is not {wanted}");
}

async fn states(store: &PgStore, ids: &[JobId]) -> Vec<Option<State>> {
    let jobs = store.get_many(&Scope::All, ids.to_vec(), Consistency::Latest).await.expect("get_many");
    jobs.into_iter().map(|job| job.map(|job| job.state)).collect()
}

#[tokio::test]
async fn an_era_goes_whole_and_what_outlives_it_stays() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let mut old = submit(&store, jobs(350)).await;
    let keyed = job().unique("k");
    old.extend(submit(&store, vec![keyed.clone()]).await);
    let parent = submit(&store, vec![job()]).await[0];
    assert_eq!(burn(&store, &worker, 1_000).await, 352);
    let child = job().after([Parent { id: parent, requires: Requires::Success }]);
    let open_jobs = [submit(&store, jobs(20)).await, vec![child.id]].concat();
    store.submit(vec![child.clone()], SubmitOptions::each()).await.expect("submit");
    let later = Timestamp::from_micros(4_000_000_000_000_000);
    let deferred = submit(&store, vec![job().run_at(later)]).await;
    make_old(&database);
    let urgent = spec().priority(Priority::MAX).build().expect("a valid spec");
    let recent = submit(&store, vec![NewJob::new(urgent)]).await;
    let held = claim(&store, &worker, 1).await;
    exchange(&store, &worker, vec![done(recent[0], held[0].job.epoch)], Vec::new()).await;
    let term = lead(&store).await;
    old.sort_unstable();
    assert_eq!(prune_all(&store, &term, Retention::default(), old.len()).await, old, "each once");
    assert_eq!(
        sql(&database, "SELECT to_regclass('hodei.job_0') IS NULL AND to_regclass('hodei.done_0') IS NULL"),
        "t"
    );
    assert_eq!(stage(&database), "gone");
    let stays = [open_jobs, deferred, recent, vec![parent]].concat();
    assert!(states(&store, &stays).await.iter().all(Option::is_some));
    assert!(states(&store, &old).await.iter().all(Option::is_none));
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), stays.len() as u64);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    let again = store.submit(vec![keyed], SubmitOptions::each()).await.expect("submit").replies;
    assert!(matches!(again[0], Submitted::New(_)), "its key and its id are free");
    let last = claim(&store, &worker, 100).await;
    let child = last.iter().find(|held| held.job.id == child.id).expect("it is ready");
    assert_eq!(child.inputs.len(), 1, "its parent is there");
    assert_eq!(last.len(), 22);
}

/// An id is free once its era is out of the history, before the jobs of the era are taken leave of.
#[tokio::test]
async fn what_was_submitted_again_keeps_what_leads_to_it() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let ended = submit(&store, jobs(3)).await;
    assert_eq!(burn(&store, &worker, 10).await, 3);
    make_old(&database);
    tend_to(&database, "3");
    let parent = submit(&store, vec![job()]).await[0];
    let again = job().id(ended[1]).after([Parent { id: parent, requires: Requires::Success }]);
    submit(&store, vec![again]).await;
    let term = lead(&store).await;
    assert_eq!(prune_all(&store, &term, Retention::default(), 3).await.len(), 3);
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.edge"), "1");
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 2);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    assert_eq!(burn(&store, &worker, 10).await, 2, "the child runs after its parent");
}

#[tokio::test]
async fn what_moves_while_an_era_is_looked_through_stays() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let ids = submit(&store, jobs(12)).await;
    let held = claim(&store, &worker, 10).await;
    let fail = |job: &hodei_core::store::Claimed| Transition {
        job: job.job.id,
        epoch: job.job.epoch,
        step: Move::Finished(Box::new(Finish::failed(Failure::new(FailureClass::Error, "broken")))),
    };
    exchange(&store, &worker, held[..9].iter().map(fail).collect(), Vec::new()).await;
    make_old(&database);
    tend_to(&database, "2");
    // It was looked through: now a run ends, a job is sent round again, another is claimed, and one comes that is as old.
    exchange(&store, &worker, vec![done(held[9].job.id, held[9].job.epoch)], Vec::new()).await;
    let redriven = store.redrive(&Scope::All, vec![ids[3]]).await.expect("redrive").replies;
    assert_eq!(redriven, [Redriven::Done]);
    let late = submit(&store, vec![job().id(minted_at(1_000, 1_000))]).await[0];
    let claimed = claim(&store, &worker, 1).await;
    sql(
        &database,
        "UPDATE hodei.done SET moved_at = 1 WHERE id IN (SELECT id FROM hodei.done_0) AND state = 5",
    );
    tend_to(&database, "3");
    let stays = [ids[9], ids[3], late, ids[10], ids[11]];
    assert_eq!(
        states(&store, &stays).await,
        [
            Some(State::Succeeded),
            Some(State::Pending),
            Some(State::Pending),
            Some(if claimed[0].job.id == ids[10] { State::Scheduled } else { State::Pending }),
            Some(State::Pending)
        ]
    );
    assert_eq!(states(&store, &ids[..3]).await, [None; 3]);
    let term = lead(&store).await;
    let gone = prune_all(&store, &term, Retention::default(), 8).await;
    assert_eq!(gone.len(), 8);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 5);
}

#[tokio::test]
async fn an_era_that_too_much_outlives_is_pruned_one_by_one() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let old = submit(&store, jobs(30)).await;
    assert_eq!(burn(&store, &worker, 1_000).await, 30);
    for _ in 0..3 {
        submit(&store, jobs(700)).await;
    }
    make_old(&database);
    let term = lead(&store).await;
    let mut sorted = old.clone();
    sorted.sort_unstable();
    assert_eq!(prune_all(&store, &term, Retention::default(), 30).await, sorted);
    assert_eq!(
        sql(
            &database,
            "SELECT stage || ' ' || whole || ' ' || (again_at IS NULL) FROM hodei.era WHERE no = 0"
        ),
        "0 false false"
    );
    assert_eq!(sql(&database, "SELECT count(*) FROM pg_trigger WHERE tgname = 'outlives'"), "0");
    assert_eq!(burn(&store, &worker, 700).await, 2_100);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

/// As where the disk is slow: what outlives the era cannot be copied while others wait.
#[tokio::test]
async fn an_era_that_takes_too_long_at_every_try_is_pruned_one_by_one_and_the_next_one_goes() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let mut old = submit(&store, jobs(30)).await;
    assert_eq!(burn(&store, &worker, 1_000).await, 30);
    let outlives = submit(&store, jobs(3)).await;
    make_old(&database);
    // The next one is over as well, and there is one for what comes.
    sql(
        &database,
        "SELECT hodei.add_era(360000000000);
         UPDATE hodei.era SET ends_at = 3 WHERE no = 1;
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON hodei.job_rest FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let term = lead(&store).await;
    old.sort_unstable();
    assert_eq!(prune_all(&store, &term, Retention::default(), 30).await, old);
    let era =
        "SELECT concat_ws(' ', stage, whole, tries, again_at > hodei.now()) FROM hodei.era WHERE no = 0";
    assert_eq!(sql(&database, era), "0 f 0 t");
    assert_eq!(sql(&database, "SELECT count(*) FROM pg_trigger WHERE tgname = 'outlives'"), "0");
    let gone = (&database, "SELECT to_regclass('hodei.job_1') IS NULL", "t");
    prune_until(&store, &term, Retention::default(), gone).await;
    assert_eq!(states(&store, &outlives).await, [Some(State::Pending); 3]);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_waits_for_a_change_of_the_parts() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    submit(&store, jobs(5)).await;
    assert_eq!(burn(&store, &worker, 10).await, 5);
    make_old(&database);
    tend_to(&database, "2");
    let mut reader = sqlx::PgConnection::connect(&database.url()).await.expect("a connection");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM hodei.job").execute(&mut reader).await.expect("it reads");
    let term = lead(&store).await;
    let pruned = tokio::time::timeout(Duration::from_secs(60), store.prune(&term, Retention::default(), 10));
    assert_eq!(pruned.await.expect("it does not wait").expect("prune").jobs, 0);
    assert_eq!(stage(&database), "2", "it is in use");
    let submitted = tokio::time::timeout(Duration::from_secs(60), submit(&store, jobs(3)));
    assert_eq!(submitted.await.expect("nobody waits").len(), 3);
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.expect("commit");
    reader.close().await.expect("close");
    assert_eq!(prune_all(&store, &term, Retention::default(), 5).await.len(), 5);
    assert_eq!(stage(&database), "gone");
}

#[tokio::test]
async fn every_id_has_a_place_whatever_time_it_names() {
    let database = database();
    let store = open(&database).await;
    let soon = sql(&database, "SELECT max(ends_at) / 1000 + 5000 FROM hodei.era").parse().expect("a number");
    let ids = [0, 1_000, soon, 4_000_000_000_000].map(|millis| minted_at(millis, millis));
    submit(&store, ids.iter().map(|id| job().id(*id)).collect()).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job_rest"), "2");
    // The era that is made next takes in what is there already.
    assert_eq!(sql(&database, "SELECT hodei.add_era(360000000000)"), "t");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job_rest"), "1");
    assert_eq!(sql(&database, "SELECT hodei.add_era(3600000000)"), "f");
    let worker = owner(&store, "worker").await;
    assert_eq!(burn(&store, &worker, 10).await, 4);
    let listed = store.query(&Scope::All, hodei_core::store::Query::new()).await.expect("query");
    assert_eq!(listed.jobs.len(), 4);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    sql(&database, "UPDATE hodei.done SET moved_at = 1");
    let term = lead(&store).await;
    assert_eq!(prune_all(&store, &term, Retention::default(), 4).await.len(), 4);
}

#[tokio::test]
async fn the_log_goes_on_from_volume_to_volume() {
    let database = database();
    let store = open(&database).await;
    let term = lead(&store).await;
    let first = submit(&store, jobs(3)).await;
    let start = store.changes(&Scope::All, None, 2).await.expect("changes").next;
    // As after two million transactions: what comes now lies in no volume.
    sql(&database, "UPDATE hodei.log_base SET base = base + 2000000");
    let second = submit(&store, jobs(2)).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.change_rest"), "1");
    let all = Retention { changes: 1_000, ..Retention::default() };
    prune_all(&store, &term, all, 0).await;
    sql(&database, "UPDATE hodei.log_base SET base = base + 20000");
    let third = submit(&store, jobs(1)).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.change_rest"), "1", "it lies in a volume");
    let changes = store.changes(&Scope::All, Some(start.clone()), 100).await.expect("changes").changes;
    let told: Vec<JobId> = changes.iter().map(|change| change.job).collect();
    assert_eq!(told, [&first[2..], &second[..], &third[..]].concat());
    let few = Retention { changes: 2, ..Retention::default() };
    // Nothing of the first volume is kept.
    let dropped = (&database, "SELECT to_regclass('hodei.change_0') IS NULL", "t");
    prune_until(&store, &term, few, dropped).await;
    let kept = store.changes(&Scope::All, None, 100).await.expect("changes").changes;
    assert_eq!(kept.iter().map(|change| change.job).collect::<Vec<_>>(), [second[1], third[0]]);
    let expired = store.changes(&Scope::All, Some(start), 100).await.expect_err("what followed is gone");
    assert_eq!(expired.kind(), hodei_core::ErrorKind::CursorExpired);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

/// The first volume of a migrated database may last for days.
#[tokio::test]
async fn a_volume_that_ends_far_ahead_is_pruned_row_by_row() {
    let database = database();
    let store = open(&database).await;
    let term = lead(&store).await;
    for _ in 0..4 {
        submit(&store, jobs(1)).await;
    }
    let one = Retention { changes: 1, ..Retention::default() };
    prune_all(&store, &term, one, 0).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.change_0"), "4", "they go with it");
    sql(&database, "UPDATE hodei.volume SET hi = hi + 100000000 WHERE lo IS NULL");
    submit(&store, jobs(2)).await;
    prune_until(&store, &term, one, (&database, "SELECT count(*) FROM hodei.change_0", "1")).await;
}

#[tokio::test]
async fn a_surplus_goes_from_the_oldest_on() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let ids = submit(&store, jobs(60)).await;
    assert_eq!(burn(&store, &worker, 60).await, 60);
    // One ended each ten minutes, the last of them more than a day ago.
    for (n, id) in ids.iter().enumerate() {
        let back = 200_000 + (60 - n) * 600;
        let text = format!(
            "UPDATE hodei.done SET moved_at = hodei.now() - {back}000000 WHERE id = '{id}';
             UPDATE hodei.job SET eligible_at = coalesce(eligible_at, created_at), created_at = hodei.now() - {}000000 WHERE id = '{id}'",
            back + 5
        );
        sql(&database, &text);
    }
    let term = lead(&store).await;
    let mut left = ids;
    for most in [50_usize, 33, 33, 7] {
        let retention = Retention { jobs: LONG, most: most as u64, ..Retention::default() };
        let mut expected: Vec<JobId> = left.drain(..left.len() - most).collect();
        expected.sort_unstable();
        assert_eq!(prune_all(&store, &term, retention, expected.len()).await, expected);
    }
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn pruning_by_eras_writes_next_to_nothing() {
    let quiet = hodei_test_servers::Postgres::builder().setting("autovacuum", "off");
    let server = quiet.setting("checkpoint_timeout", "1h").setting("full_page_writes", "off").start();
    let server = server.expect("PostgreSQL");
    let database = server.database().expect("a database");
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    for _ in 0..10 {
        submit(&store, jobs(1_000)).await;
    }
    assert_eq!(burn(&store, &worker, 500).await, 10_000);
    let run = |text: &str| server.sql(database.name(), text).expect("the server answers");
    run("UPDATE hodei.done SET moved_at = 1; UPDATE hodei.era SET whole = true, ends_at = 2 WHERE no = 0");
    let wal = || {
        let text = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        server.sql("postgres", text).expect("the server answers").parse::<u64>().expect("a number")
    };
    let (term, before) = (lead(&store).await, wal());
    let (mut gone, mut more) = (0, true);
    while more {
        let pruned = store.prune(&term, Retention::default(), 500).await.expect("prune");
        (gone, more) = (gone + pruned.gone.len(), pruned.more);
    }
    let spent = (wal() - before) / 10_000;
    assert_eq!(gone, 10_000);
    assert!(spent <= 20, "{spent} B of WAL a job that went");
    store.close().await;
}

/// The schema of before.
pub(crate) const FIRST_SCHEMA: [&str; 3] = [
    "CREATE SCHEMA hodei; CREATE TABLE hodei.schema_step (version int4 PRIMARY KEY, name text NOT NULL,
         taken_at timestamptz NOT NULL DEFAULT now()); INSERT INTO hodei.schema_step VALUES (1, 'tables')",
    include_str!("../../src/schema/tables.sql"),
    include_str!("../../src/schema/walls.sql"),
];

/// Makes the schema of before, with a tenant.
fn make_first_schema(database: &Database) {
    sql(database, &FIRST_SCHEMA.join(";\n"));
    sql(database, "INSERT INTO hodei.tenant (name) VALUES ('default')");
}

#[tokio::test]
async fn the_schema_of_before_becomes_the_first_part_while_work_goes_on() {
    let database = database();
    make_first_schema(&database);
    let store_of_jobs = |n: usize, tail: &str| {
        format!(
            "INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, name, body)
             SELECT gen_random_uuid(), gen_random_uuid(), g, g, 1, 1, 31, 'old', '\\x00'
             FROM generate_series(1, {n}) g {tail}"
        )
    };
    // Ids of all times lie before the bound but for those that are ahead of it.
    sql(&database, &store_of_jobs(20_000, ""));
    sql(
        &database,
        "UPDATE hodei.job SET id = ('0' || substr(id::text, 2))::uuid;
         DELETE FROM hodei.job WHERE id > '01a00000-0000-0000-0000-000000000000';
         INSERT INTO hodei.done (id, moved_at, tenant, state) SELECT id, 1, 1, 4 FROM hodei.job;
         INSERT INTO hodei.total (tenant, succeeded) SELECT 1, count(*) FROM hodei.job;
         INSERT INTO hodei.lane (tenant, queue, class, request) VALUES (1, 'old', 1, '');
         INSERT INTO hodei.change (pos, at, node, tenant, n, body) VALUES (1, 1, 1, 1, 1, '\\x00')",
    );
    let kept = sql(&database, "SELECT count(*) FROM hodei.job");
    let mut host = sqlx::PgConnection::connect(&database.url()).await.expect("a connection");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM hodei.job, hodei.term")
        .execute(&mut host)
        .await
        .expect("it reads");
    let config = PgStore::builder(database.url());
    let migrating = tokio::spawn(async move { PgStore::migrate(&config).await });
    let mut writer = sqlx::PgConnection::connect(&database.url()).await.expect("a connection");
    let mut longest = Duration::ZERO;
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        let began = std::time::Instant::now();
        let text = "UPDATE hodei.job SET rank = 30 WHERE id = (SELECT id FROM hodei.job LIMIT 1)";
        sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut writer).await.expect("it is written");
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(20), "somebody waited for {longest:?}");
    assert!(!migrating.is_finished(), "a host reads the tables");
    sqlx::raw_sql("COMMIT").execute(&mut host).await.expect("commit");
    let done = migrating.await.expect("no panic").expect("migrate");
    assert_eq!((done.from, done.to), (1, 2));
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job_0"), kept, "no row was moved");
    assert_eq!(sql(&database, "SELECT count(*) FROM pg_constraint WHERE conname = 'era'"), "0");
    let store = open(&database).await;
    assert_eq!(submit(&store, vec![job()]).await.len(), 1);
    assert_eq!(store.counts(&Scope::All).await.expect("counts").of(State::Succeeded).to_string(), kept);
    let of_old = QueueQuery::new().queue(Name::literal("old"));
    let counted = store.queue_counts(&Scope::All, of_old).await.expect("queue_counts");
    assert_eq!(counted[0].counts.of(State::Succeeded).to_string(), kept, "what has no queue was given one");
    writer.close().await.expect("close");
}

const BOUNDS: &str = "SELECT count(*) FROM pg_constraint WHERE conname = 'era'";

/// A node that dies half-way leaves bounds that new rows have to keep, and the next one finds them passed.
#[tokio::test]
async fn a_migration_that_was_broken_off_is_finished_by_the_next() {
    let database = database();
    make_first_schema(&database);
    sql(
        &database,
        "ALTER TABLE hodei.job ADD CONSTRAINT era CHECK (id < '01000000000000000000000000000000') NOT VALID;
         ALTER TABLE hodei.change ADD CONSTRAINT era CHECK (pos < 1) NOT VALID",
    );
    let store = open(&database).await;
    assert_eq!(sql(&database, BOUNDS), "0");
    let ahead = "SELECT count(*) FROM hodei.era WHERE no = 0 AND ends_at > hodei.now() + 18000000000";
    assert_eq!(sql(&database, ahead), "1");
    assert_eq!(submit(&store, vec![job()]).await.len(), 1);
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job_0"), "1");
}

#[tokio::test]
async fn a_migration_goes_by_the_clock_of_the_database() {
    let database = database();
    make_first_schema(&database);
    sql(
        &database,
        "CREATE FUNCTION hodei.now() RETURNS int8 LANGUAGE sql VOLATILE PARALLEL UNSAFE AS
             $$ SELECT ((extract(epoch FROM clock_timestamp()) + 10 * 86400) * 1000000)::int8 $$",
    );
    PgStore::migrate(&PgStore::builder(database.url())).await.expect("migrate");
    let ends = "SELECT (ends_at - hodei.now()) / 3600000000 FROM hodei.era WHERE no = 0";
    let hours: i64 = sql(&database, ends).parse().expect("a number");
    assert!((244..=246).contains(&hours), "ten days and six hours ahead: {hours}");
}

#[tokio::test]
async fn a_migration_that_is_given_up_leaves_no_bounds() {
    let database = database();
    make_first_schema(&database);
    sql(&database, "CREATE TABLE hodei.era (of_somebody_else int)");
    let config = PgStore::builder(database.url());
    PgStore::migrate(&config).await.expect_err("the table is there");
    assert_eq!(sql(&database, BOUNDS), "0");
    sql(&database, "DROP TABLE hodei.era");
    let done = PgStore::migrate(&config).await.expect("migrate");
    assert_eq!((done.from, done.to), (1, 2));
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.era WHERE no = 0"), "1");
}

#[tokio::test]
async fn a_run_that_ended_is_told_by_its_output_after_it_moved_to_the_rest() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let parent = submit(&store, vec![job()]).await[0];
    let held = claim(&store, &worker, 1).await;
    let finish = Finish::succeeded(Output::Inline(Bytes::from_static(b"{}")));
    let end = Transition { job: parent, epoch: held[0].job.epoch, step: Move::Finished(Box::new(finish)) };
    exchange(&store, &worker, vec![end], Vec::new()).await;
    let child = job().after([Parent { id: parent, requires: Requires::Success }]);
    store.submit(vec![child], SubmitOptions::each()).await.expect("submit");
    let before = store.outputs(&Scope::All, vec![parent]).await.expect("outputs");
    make_old(&database);
    let term = lead(&store).await;
    assert_eq!(prune_all(&store, &term, Retention::default(), 0).await, []);
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.done_rest"), "1");
    assert_eq!(store.outputs(&Scope::All, vec![parent]).await.expect("outputs"), before);
}
