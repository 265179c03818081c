//! A part is made of what was proved before, where the rest is too large to be looked through while others wait.

use std::time::Duration;

use hodei_core::ErrorKind;
use hodei_core::job::{NewJob, Parent, Requires};
use hodei_core::store::{Coordination, JobStore, Retention, Scope, SubmitOptions};
use hodei_store_pg::PgStore;
use hodei_test_servers::Database;
use sqlx::Connection;

use crate::env::{TTL, burn, database, job, jobs, lead, minted_at, open, owner, sql, submit, try_sql};
use crate::locks::{run, somebody_waits, stranger};

/// Of the width of an era, in microseconds: 1,000 hours.
const WIDTH: u64 = 3_600_000_000_000;
/// Constraints that stand for bounds.
const BOUNDS: &str = "SELECT count(*) FROM pg_constraint WHERE conname = 'era'";
const ERAS: &str = "SELECT count(*) FROM hodei.era";

fn number(database: &Database, text: &str) -> u64 {
    sql(database, text).parse().expect("a number")
}

/// In so many hours from now, in milliseconds.
fn in_hours(database: &Database, hours: u64) -> u64 {
    number(database, "SELECT hodei.now() / 1000") + hours * 3_600_000
}

fn add_era(database: &Database) -> String {
    sql(database, &format!("SELECT coalesce(hodei.add_era({WIDTH})::text, 'unproved')"))
}

/// As much of the rest is empty as makes it large: a row takes a page.
fn widen(database: &Database, table: &str) {
    sql(database, &format!("ALTER TABLE hodei.{table}_rest SET (fillfactor = 10)"));
}

/// Fills the rest of the jobs beyond 32 MB with jobs that were minted where no era is: behind the last one.
async fn fill_rest(store: &PgStore, database: &Database) -> u64 {
    widen(database, "job");
    let behind = number(database, "SELECT max(ends_at) / 1000 FROM hodei.era") + 5_000;
    let large = std::sync::Arc::new(
        hodei_core::job::JobSpec::command(["/bin/true".to_owned(), "x".repeat(1_500)])
            .build()
            .expect("a valid spec"),
    );
    for from in (0..5_000).step_by(1_000) {
        let job = |n| NewJob::new(std::sync::Arc::clone(&large)).id(minted_at(behind + n, n));
        submit(store, (from..from + 1_000).map(job).collect()).await;
    }
    assert!(number(database, "SELECT pg_relation_size('hodei.job_rest')") > 33_554_432);
    behind
}

/// How often the rest of the jobs was read whole.
fn read_whole(database: &Database) -> u64 {
    number(database, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'job_rest'")
}

#[tokio::test]
async fn nobody_waits_until_a_large_rest_is_looked_through() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    let before = (number(&database, ERAS), read_whole(&database));
    assert_eq!(add_era(&database), "unproved");
    assert_eq!((number(&database, ERAS), read_whole(&database)), before, "a bound is set");
    assert_eq!(sql(&database, "SELECT hodei.prove()"), "t");
    assert_eq!(read_whole(&database), before.1 + 1, "it is proved");
    assert_eq!(add_era(&database), "true");
    assert_eq!(
        (number(&database, ERAS), read_whole(&database)),
        (before.0 + 1, before.1 + 1),
        "the era is made"
    );
    assert_eq!(sql(&database, BOUNDS), "0");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.bound"), "0");
    assert_eq!(add_era(&database), "false", "that is soon enough");
    // What belongs to it comes to lie in it, and what lies before it in the rest.
    let rest = number(&database, "SELECT count(*) FROM hodei.job_rest");
    let lo = number(&database, "SELECT (max(ends_at) - 3600000000000) / 1000 FROM hodei.era");
    submit(&store, vec![job().id(minted_at(lo, 1)), job().id(minted_at(lo - 1, 1))]).await;
    assert_eq!(number(&database, "SELECT count(*) FROM hodei.job_rest"), rest + 1);
    let worker = owner(&store, "worker").await;
    assert_eq!(burn(&store, &worker, 6_000).await, 5_002);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn who_leads_goes_on_with_the_eras_where_the_rest_is_large() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    let term = lead(&store).await;
    let eras = number(&database, ERAS);
    let long = Retention { jobs: Duration::from_secs(90 * 24 * 3_600), ..Retention::default() };
    for _ in 0..1_000 {
        while store.prune(&term, long, 100).await.expect("prune").more {}
        if number(&database, ERAS) > eras {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(number(&database, ERAS) > eras);
    assert_eq!(sql(&database, BOUNDS), "0");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job_rest"), "5000", "no row was moved");
}

#[tokio::test]
async fn a_bound_keeps_clear_of_ids_from_the_future() {
    let database = database();
    let store = open(&database).await;
    let behind = fill_rest(&store, &database).await;
    let hour = 3_600_000;
    // The next era would hold the first of these, and not the second.
    submit(
        &store,
        vec![job().id(minted_at(behind + 20 * hour, 1)), job().id(minted_at(behind + 500 * hour, 1))],
    )
    .await;
    assert_eq!(add_era(&database), "unproved");
    assert_eq!(sql(&database, "SELECT hodei.prove()"), "t");
    assert_eq!(add_era(&database), "true");
    let (lo, hi) = (behind + 20 * hour + 1, behind + 500 * hour);
    assert_eq!(
        sql(
            &database,
            "SELECT lo = hodei.id_at($1) AND hi = hodei.id_at($2) FROM hodei.era ORDER BY no DESC LIMIT 1"
                .replace("$1", &(lo * 1_000).to_string())
                .replace("$2", &(hi * 1_000).to_string())
                .as_str()
        ),
        "t"
    );
}

#[tokio::test]
async fn where_ids_from_the_future_are_everywhere_no_bound_is_set() {
    let database = database();
    let store = open(&database).await;
    let behind = fill_rest(&store, &database).await;
    let everywhere = (0..30).map(|n| job().id(minted_at(behind + n * 100 * 3_600_000, 7))).collect();
    submit(&store, everywhere).await;
    assert_eq!(add_era(&database), "unproved");
    assert_eq!(sql(&database, BOUNDS), "0");
    assert_eq!(add_era(&database), "false", "not within the hour");
    sql(&database, "UPDATE hodei.bound SET again_at = 1");
    assert_eq!(add_era(&database), "unproved");
    assert_eq!(sql(&database, "SELECT again_at > hodei.now() FROM hodei.bound"), "t");
}

#[tokio::test]
async fn a_proof_that_takes_too_long_is_put_off() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    assert_eq!(add_era(&database), "unproved");
    // As an id that lies there, and a rest that takes half a minute.
    for (bound, timeout) in [("false", "0"), ("pg_sleep(0.01) IS NOT NULL", "500ms")] {
        sql(
            &database,
            &format!(
                "ALTER TABLE hodei.job_rest DROP CONSTRAINT era;
                 ALTER TABLE hodei.job_rest ADD CONSTRAINT era CHECK ({bound}) NOT VALID"
            ),
        );
        assert_eq!(
            sql(&database, &format!("SET statement_timeout = '{timeout}'; SELECT hodei.prove()")),
            "f"
        );
        assert_eq!(sql(&database, BOUNDS), "0");
        assert_eq!(add_era(&database), "false", "not within the hour");
        sql(&database, "UPDATE hodei.bound SET again_at = 1");
        assert_eq!(add_era(&database), "unproved");
    }
}

/// Whoever set it has died, and nobody leads.
#[tokio::test]
async fn a_bound_that_was_never_proved_is_lifted_by_who_reaches_it() {
    let database = database();
    let store = open(&database).await;
    let ids = [61, 62, 63].map(|hours| minted_at(in_hours(&database, hours), hours));
    let parent = submit(&store, vec![job()]).await[0];
    let bound = || {
        let lo = in_hours(&database, 60) * 1_000;
        sql(&database, &format!("SELECT hodei.set_bound('era', {lo}, {WIDTH})"));
        assert_eq!(sql(&database, BOUNDS), "2");
    };
    let near = || sql(&database, "UPDATE hodei.bound SET lo = hodei.now()");
    bound();
    let refused = store.submit(vec![job().id(ids[0])], SubmitOptions::each()).await;
    assert_eq!(refused.expect_err("it is being proved").kind(), ErrorKind::Locked);
    assert_eq!(sql(&database, BOUNDS), "2", "that takes moments");
    near();
    assert_eq!(submit(&store, vec![job().id(ids[0])]).await, [ids[0]]);
    assert_eq!(sql(&database, BOUNDS), "0");
    // Behind somebody, which is another way, and within a transaction of somebody else.
    bound();
    near();
    let child = job().id(ids[1]).after([Parent { id: parent, requires: Requires::Success }]);
    assert_eq!(submit(&store, vec![child]).await, [ids[1]]);
    assert_eq!(sql(&database, BOUNDS), "0");
    bound();
    near();
    let mut host = sqlx::PgConnection::connect(&database.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    store.submit_in(&mut tx, vec![job().id(ids[2])], SubmitOptions::each()).await.expect("submit_in");
    tx.commit().await.expect("commit");
    assert_eq!(sql(&database, BOUNDS), "0");
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 4);
}

/// The node that set it has died, and the next one finds it too late to be proved.
#[tokio::test]
async fn a_bound_that_is_soon_reached_is_set_anew() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    assert_eq!(add_era(&database), "unproved");
    let first = sql(&database, "SELECT lo FROM hodei.bound");
    assert_eq!(add_era(&database), "unproved");
    assert_eq!(sql(&database, "SELECT lo FROM hodei.bound"), first, "it has to be proved still");
    sql(&database, "UPDATE hodei.bound SET lo = hodei.now() + 3600000000");
    assert_eq!(add_era(&database), "unproved");
    assert!(number(&database, "SELECT lo FROM hodei.bound") >= first.parse().expect("a number"));
    assert_eq!(sql(&database, BOUNDS), "2");
}

#[tokio::test]
async fn the_log_goes_on_where_its_rest_is_large() {
    let database = database();
    let store = open(&database).await;
    let term = lead(&store).await;
    widen(&database, "change");
    // As after two million transactions.
    sql(&database, "UPDATE hodei.log_base SET base = base + 2000000");
    for _ in 0..5 {
        submit(&store, jobs(1)).await;
    }
    sql(
        &database,
        "INSERT INTO hodei.change_rest (pos, at, node, tenant, n, body)
         SELECT pos, at, node, tenant, n, body || repeat('x', 700)::bytea
         FROM (SELECT * FROM hodei.change_rest LIMIT 1) c, generate_series(1, 5000)",
    );
    assert!(number(&database, "SELECT pg_relation_size('hodei.change_rest')") > 33_554_432);
    let volumes =
        "SELECT count(*) FROM hodei.volume WHERE lo > (SELECT max(pos) FROM hodei.change) + 9000000";
    let retention = Retention { changes: 1_000_000, ..Retention::default() };
    for _ in 0..1_000 {
        while store.prune(&term, retention, 100).await.expect("prune").more {}
        if sql(&database, volumes) != "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(sql(&database, volumes), "0");
    assert_eq!(sql(&database, BOUNDS), "0");
    let ahead = "UPDATE hodei.log_base SET base = base + 10000100";
    sql(&database, ahead);
    let rest = sql(&database, "SELECT count(*) FROM hodei.change_rest");
    submit(&store, jobs(1)).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.change_rest"), rest, "it lies in the volume");
}

/// Who led is gone while the server still looks the rest through for it, which may take long.
#[tokio::test]
async fn a_proof_holds_no_duty_up() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    let term = lead(&store).await;
    assert_eq!(add_era(&database), "unproved");
    let mut vacuums = stranger(&database, "LOCK TABLE hodei.job_rest IN SHARE UPDATE EXCLUSIVE MODE").await;
    let (proving, led) = (store.clone(), term.clone());
    let long = Retention { jobs: Duration::from_secs(90 * 24 * 3_600), ..Retention::default() };
    let proof = tokio::spawn(async move { proving.prune(&led, long, 100).await });
    somebody_waits(&database).await;
    store.retire(&term.holder).await.expect("retire");
    let next = owner(&store, "next").await;
    let taken = store.take_term(&term.duty, &next, TTL).await.expect("take_term");
    assert!(taken.is_some(), "nobody waits for the proof");
    run(&mut vacuums, "COMMIT").await;
    assert!(proof.await.expect("no panic").expect("prune").term_lost);
}

/// As after a restore of the rows alone, or of the tables alone, or where two set one at once.
#[tokio::test]
async fn a_bound_and_what_is_known_of_it_may_be_without_each_other() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    assert_eq!(add_era(&database), "unproved");
    sql(&database, "ALTER TABLE hodei.done_rest DROP CONSTRAINT era");
    assert_eq!(sql(&database, "SELECT hodei.prove()"), "f");
    assert_eq!(sql(&database, BOUNDS), "0");
    sql(
        &database,
        "DELETE FROM hodei.bound; ALTER TABLE hodei.done_rest ADD CONSTRAINT era CHECK (false) NOT VALID",
    );
    assert_eq!(add_era(&database), "unproved");
    assert_eq!(sql(&database, "SELECT hodei.prove()"), "t");
    assert_eq!(add_era(&database), "true");
    assert_eq!(sql(&database, BOUNDS), "0");
}

#[tokio::test]
async fn a_bound_that_is_needed_no_more_is_lifted() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    assert_eq!(add_era(&database), "unproved");
    let lo = number(&database, "SELECT lo / 1000 FROM hodei.bound");
    // Eras are an hour long from now on, of which there are enough.
    sql(&database, "UPDATE hodei.era SET ends_at = hodei.now() + 86400000000 WHERE no = 1");
    assert_eq!(sql(&database, "SELECT hodei.add_era(3600000000)"), "f");
    assert_eq!(sql(&database, BOUNDS), "0");
    submit(&store, vec![job().id(minted_at(lo + 1, 1))]).await;
}

#[tokio::test]
async fn one_bound_is_lifted_at_a_time_and_by_nobody_who_stores_nothing() {
    let database = database();
    let _store = open(&database).await;
    sql(
        &database,
        "SELECT hodei.set_bound('era', hodei.now(), 3600000000); SELECT hodei.set_bound('volume', 0, 65536);
         GRANT USAGE ON SCHEMA hodei TO pg_monitor",
    );
    sql(&database, "SET ROLE pg_monitor; SELECT hodei.make_way()");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.bound"), "2");
    for left in ["1", "0"] {
        sql(&database, "SELECT hodei.make_way()");
        assert_eq!(sql(&database, "SELECT count(*) FROM hodei.bound"), left);
    }
    assert_eq!(sql(&database, BOUNDS), "0");
}

/// It may write all rows, and no table is its own.
#[tokio::test]
async fn a_leader_that_may_make_no_tables_locks_nobody_out() {
    let database = database();
    let store = open(&database).await;
    fill_rest(&store, &database).await;
    sql(
        &database,
        "GRANT USAGE ON SCHEMA hodei TO pg_monitor; GRANT ALL ON ALL TABLES IN SCHEMA hodei TO pg_monitor",
    );
    let _reads = stranger(&database, "LOCK TABLE hodei.job_rest IN ACCESS SHARE MODE").await;
    let add = format!("SET ROLE pg_monitor; SET lock_timeout = '5s'; SELECT hodei.add_era({WIDTH})");
    let refused = try_sql(&database, &add).expect_err("it may not").to_string();
    assert!(refused.contains("must be owner"), "{refused}");
}
