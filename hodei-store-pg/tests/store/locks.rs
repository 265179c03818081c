//! What holds a row for long holds up nobody who has no need of it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hodei_core::job::{NewJob, Parent, Priority, Requires};
use hodei_core::store::{
    Applied, Claimed, Coordination, Exchange, JobStore, Limit, Pick, Policies, Retention, Scope, Served,
    SubmitOptions,
};
use hodei_core::{ErrorKind, Name, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::Database;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::env::{
    TTL, burn, claim, close_counted, database, done, exchange, job, jobs, open, owner, spec, sql, submit,
};

/// What waits for nobody takes no longer, on a machine that does other things too. Whoever is waited for here stays for ever.
const AT_ONCE: Duration = Duration::from_secs(60);

async fn at_once<R>(what: &str, call: impl Future<Output = R>) -> R {
    tokio::time::timeout(AT_ONCE, call).await.unwrap_or_else(|_| panic!("{what} waits"))
}

/// A transaction of somebody else, which stays open.
pub(crate) async fn stranger(database: &Database, held: &str) -> PgConnection {
    let mut conn = PgConnection::connect(&database.url()).await.expect("a connection");
    run(&mut conn, &format!("BEGIN; {held}")).await;
    conn
}

pub(crate) async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.expect("the server answers");
}

/// Waits until somebody waits for a lock.
pub(crate) async fn somebody_waits(database: &Database) {
    until(database, true).await;
}

/// Waits until somebody waits for a lock in this database, or until nobody does.
async fn until(database: &Database, somebody: bool) {
    let waiting = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE NOT l.granted AND a.datname = current_database()";
    let mut conn = PgConnection::connect(&database.url()).await.expect("a connection");
    let waits = async {
        while sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut conn).await.expect("the server answers")
            != somebody
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    at_once("the number of those who wait", waits).await;
}

#[tokio::test]
async fn nobody_waits_for_a_leader_that_hangs() {
    let database = database();
    let store = open(&database).await;
    let (leader, standby) = (owner(&store, "leader").await, owner(&store, "standby").await);
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &leader, TTL).await.expect("take_term").expect("nobody leads");
    // As a reap and a prune hold it, to their commit.
    let mut hung = stranger(&database, "SELECT 1 FROM hodei.term FOR KEY SHARE").await;
    let taken = at_once("a standby", store.take_term(&duty, &standby, TTL)).await.expect("take_term");
    assert_eq!(taken, None);
    assert!(at_once("the leader", store.keep_term(&term, TTL)).await.expect("keep_term"));
    sql(&database, "UPDATE hodei.term SET expires_at = 1");
    let taken = at_once("a standby", store.take_term(&duty, &standby, TTL)).await.expect("take_term");
    assert_eq!(taken, None, "what is done under the old term is not over");
    run(&mut hung, "COMMIT").await;
    let taken = store.take_term(&duty, &standby, TTL).await.expect("take_term").expect("it is over");
    assert_eq!(taken.number, term.number + 1);
    assert!(!store.keep_term(&term, TTL).await.expect("keep_term"));
}

#[tokio::test]
async fn the_server_ends_a_transaction_whose_node_fell_silent() {
    let database = database();
    let patient = open(&database).await;
    let leader = owner(&patient, "leader").await;
    let duty = Name::literal("upkeep");
    let term = patient.take_term(&duty, &leader, TTL).await.expect("take_term").expect("nobody leads");
    let store = PgStore::builder(database.url()).statement_timeout(Duration::from_millis(700));
    let store = store.connect().await.expect("the store opens");
    let mut held = stranger(&database, "SELECT 1 FROM hodei.change_floor FOR UPDATE").await;
    let error = store.prune(&term, Retention::default(), 10).await.expect_err("it is held up");
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    until(&database, false).await;
    run(&mut held, "COMMIT").await;
}

#[tokio::test]
async fn a_parent_that_somebody_begins_to_wait_for_is_not_pruned() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let parent = submit(&store, vec![job()]).await[0];
    assert_eq!(burn(&store, &worker, 1).await, 1);
    sql(&database, "UPDATE hodei.done SET moved_at = 1");
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &worker, TTL).await.expect("take_term").expect("nobody leads");
    let mut host = stranger(&database, "").await;
    let child = job().after([Parent { id: parent, requires: Requires::Success }]);
    store.submit_in(&mut host, vec![child], SubmitOptions::each()).await.expect("submit_in");
    let century = Duration::from_secs(100 * 365 * 24 * 3_600);
    for retention in [
        Retention { jobs: century, failed: None, most: 0, changes: u64::MAX },
        Retention { jobs: Duration::ZERO, failed: None, most: u64::MAX, changes: u64::MAX },
    ] {
        let pruned = at_once("a prune", store.prune(&term, retention, 10)).await.expect("prune");
        assert_eq!(pruned.gone, []);
    }
    run(&mut host, "COMMIT").await;
    assert_eq!(claim(&store, &worker, 1).await[0].inputs.len(), 1);
}

#[tokio::test]
async fn a_flood_of_what_is_due_is_moved_part_by_part() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let later = hodei_core::Timestamp::from_micros(4_000_000_000_000_000);
    for _ in 0..3 {
        submit(&store, jobs(900).into_iter().map(|job| job.run_at(later)).collect()).await;
    }
    sql(&database, "UPDATE hodei.delayed SET eligible_at = 1");
    let lanes = store.lanes(&Served::default()).await.expect("lanes");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.ready"), "1000");
    assert_eq!(lanes.next_due.map(|due| due.as_micros()), Some(1), "there is more");
    assert_eq!(burn(&store, &worker, 700).await, 2_700);
}

#[tokio::test]
async fn what_somebody_holds_is_passed_over_and_has_its_turn_when_he_lets_go() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let mut ids = submit(&store, jobs(6)).await;
    ids.sort_unstable();
    let held = format!("SELECT 1 FROM hodei.ready WHERE id = '{}' FOR UPDATE", ids[1]);
    let mut host = stranger(&database, &held).await;
    let claims = async || {
        let claimed = at_once("a claim", claim(&store, &worker, 2)).await;
        claimed.iter().map(|claimed| claimed.job.id).collect::<Vec<_>>()
    };
    assert_eq!(claims().await, [ids[0], ids[2]]);
    run(&mut host, "ROLLBACK").await;
    assert_eq!(claims().await, [ids[1], ids[3]]);
    assert_eq!(claims().await, ids[4..]);
}

#[tokio::test]
async fn a_heartbeat_does_not_wait_for_who_hands_its_owner_a_job() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let held = format!("SELECT hodei.owner_no('worker', {})", worker.incarnation);
    let mut host = stranger(&database, &held).await;
    let beats = at_once("a heartbeat", store.beat(vec![worker], TTL)).await.expect("beat");
    assert!(beats[0].alive);
    run(&mut host, "COMMIT").await;
}

#[tokio::test]
async fn a_heartbeat_is_given_up_in_time_for_the_next_one() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let mut host = stranger(&database, "SELECT 1 FROM hodei.owner FOR UPDATE").await;
    let began = Instant::now();
    let error = at_once("a heartbeat", store.beat(vec![worker.clone()], Duration::from_secs(3))).await;
    assert_eq!(error.expect_err("it is held up").kind(), ErrorKind::Indeterminate);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    run(&mut host, "COMMIT").await;
    assert!(at_once("a heartbeat", store.beat(vec![worker], TTL)).await.expect("beat")[0].alive);
}

#[tokio::test]
async fn a_claim_that_waited_past_the_end_of_its_owner_leases_nothing() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let limit = Limit::key(Tenant::default(), Name::literal("scarce"), 3);
    store.set_limit(limit).await.expect("set_limit");
    let limited = spec().limited_by("scarce").build().expect("a valid spec");
    submit(&store, vec![NewJob::new(limited)]).await;
    let lanes = store.lanes(&Served::default()).await.expect("lanes");
    let picks =
        vec![Pick { lane: lanes.heads[0].lane.clone(), floor: Priority::MIN, ceiling: Priority::MAX, n: 1 }];
    let mut host = stranger(&database, "SELECT 1 FROM hodei.usage FOR UPDATE").await;
    let claiming = {
        let (store, owner) = (store.clone(), worker.clone());
        tokio::spawn(async move { store.exchange(Exchange { owner, transitions: Vec::new(), picks }).await })
    };
    somebody_waits(&database).await;
    sql(&database, "UPDATE hodei.owner SET expires_at = 1, cleared = true");
    run(&mut host, "COMMIT").await;
    let done = claiming.await.expect("no panic").expect("exchange");
    assert!(done.owner_lost && done.claimed.is_empty(), "{done:?}");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.leased"), "0");
}

/// Whoever is alone at a lane takes its jobs without locking them. Somebody else may take one meanwhile all the same.
#[tokio::test]
async fn who_claims_without_locks_gets_all_that_it_asked_for() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    submit(&store, jobs(10)).await;
    // The first job that is deleted is not there any more, once.
    sql(
        &database,
        "CREATE SEQUENCE deletions;
         CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RETURN CASE WHEN nextval('deletions') > 1 THEN OLD END;
         END $$;
         CREATE TRIGGER gone BEFORE DELETE ON hodei.ready FOR EACH ROW EXECUTE FUNCTION gone()",
    );
    assert_eq!(claim(&store, &worker, 4).await.len(), 4);
    assert_eq!(sql(&database, "SELECT last_value FROM deletions"), "8", "the call was made again");
    assert_eq!(
        sql(&database, "SELECT (SELECT count(*) FROM hodei.ready), (SELECT count(*) FROM hodei.leased)"),
        "6|4"
    );
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

/// A table that somebody has locked is waited for as long as any other: only whoever claims without locks gives up soon.
#[tokio::test]
async fn a_claim_outlives_who_locks_a_table_for_long() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    submit(&store, jobs(5)).await;
    let mut host = stranger(&database, "LOCK TABLE hodei.leased IN SHARE MODE").await;
    let claiming = {
        let (store, worker) = (store.clone(), worker.clone());
        tokio::spawn(async move { claim(&store, &worker, 5).await.len() })
    };
    somebody_waits(&database).await;
    // Longer than a dozen tries of what gives up after a moment.
    tokio::time::sleep(Duration::from_secs(4)).await;
    run(&mut host, "COMMIT").await;
    assert_eq!(at_once("a claim", claiming).await.expect("no panic"), 5);
}

/// Has whoever claims without locks look, and wait for half a second before it takes what it saw.
const SLOW_LOOK: &str = "ALTER FUNCTION hodei.heads(bool, int4, int8, int4[], int2[], int8[], int2[], int8[])
        RENAME TO heads_at_once;
    CREATE FUNCTION hodei.heads(p_alone bool, p_tenant int4, p_now int8, p_lane int4[], p_rank int2[], p_n int8[],
        p_level int2[], p_since int8[], OUT tids tid[], OUT ids bytea, OUT plain bool, OUT lost int2[], OUT lanes int4[]) LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        SELECT h.tids, h.ids, h.plain, h.lost, h.lanes INTO tids, ids, plain, lost, lanes
            FROM hodei.heads_at_once(p_alone, p_tenant, p_now, p_lane, p_rank, p_n, p_level, p_since) h;
        IF p_alone THEN PERFORM pg_sleep(0.5); END IF;
    END $$";

/// Between the look and the taking somebody else takes a job, or holds one for long: the claim is made again, as by one among
/// many, and what ends in the same exchange ends once.
#[tokio::test]
async fn who_was_there_before_after_all_costs_a_claim_one_more_try() {
    for held_for_long in [false, true] {
        let database = database();
        let store = open(&database).await;
        let worker = owner(&store, "worker").await;
        submit(&store, vec![job()]).await;
        let first = claim(&store, &worker, 1).await.remove(0).job;
        let mut ids = submit(&store, jobs(4)).await;
        ids.sort_unstable();
        sql(&database, SLOW_LOOK);
        let lane = store.lanes(&Served::default()).await.expect("lanes").heads[0].lane.clone();
        let exchanging = {
            let (store, worker) = (store.clone(), worker.clone());
            let picks = vec![Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: 3 }];
            let end = done(first.id, first.epoch);
            tokio::spawn(async move { exchange(&store, &worker, vec![end], picks).await })
        };
        let looked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'
            AND datname = current_database()";
        while sql(&database, looked) == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let held = format!("SELECT 1 FROM hodei.ready WHERE id = '{}' FOR UPDATE", ids[1]);
        let mut host = stranger(&database, &held).await;
        if !held_for_long {
            run(&mut host, "ROLLBACK").await;
            store.request_cancel(&Scope::All, vec![ids[1]]).await.expect("request_cancel");
        }
        let done = at_once("an exchange", exchanging).await.expect("no panic");
        let claimed: Vec<_> = done.claimed.iter().map(|claimed| claimed.job.id).collect();
        assert_eq!(claimed, [ids[0], ids[2], ids[3]]);
        assert_eq!(done.applied, [Applied::Done]);
        let ended = format!("SELECT count(*) FROM hodei.done WHERE id = '{}'", first.id);
        assert_eq!(sql(&database, &ended), "1");
        run(&mut host, "ROLLBACK").await;
        assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    }
}

/// A row of which there is no job is damage: it takes nobody else's turn.
#[tokio::test]
async fn a_ready_row_without_its_job_stops_no_lane() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let mut ids = submit(&store, jobs(5)).await;
    ids.sort_unstable();
    sql(&database, &format!("DELETE FROM hodei.job WHERE id = '{}'", ids[0]));
    let claimed: Vec<_> = claim(&store, &worker, 3).await.iter().map(|claimed| claimed.job.id).collect();
    assert_eq!(claimed, ids[1..3]);
    assert_eq!(claim(&store, &worker, 3).await.len(), 2);
    assert_eq!(burn(&store, &worker, 3).await, 0);
}

#[tokio::test]
async fn a_node_hears_of_work_while_the_end_of_the_log_is_held_up() {
    let database = database();
    let (here, there) = (open(&database).await, open(&database).await);
    let ear = Arc::<crate::nodes::Ear>::default();
    let _feed = there.feed(Arc::<crate::nodes::Ear>::clone(&ear));
    let begun = ear.begun(&here).await;
    let mut host = stranger(&database, "CREATE TABLE theirs (id int)").await;
    submit(&here, vec![job()]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut wakeups = there.wakeups();
    submit(&here, vec![job()]).await;
    at_once("a node", wakeups.next()).await.expect("it is told");
    run(&mut host, "COMMIT").await;
    let heard = at_once("the rest of the log", ear.hears(begun + 2)).await;
    let log = here.changes(&Scope::All, None, 1_000).await.expect("changes").changes;
    assert_eq!(heard[begun..], log[log.len() - 2..]);
}

#[tokio::test]
async fn the_log_waits_for_nobody_who_has_nothing_to_do_with_it() {
    let database = database();
    let store = open(&database).await;
    let mut other = stranger(&database, "CREATE TABLE theirs (id int); SELECT count(*) FROM hodei.job").await;
    let ids = submit(&store, jobs(3)).await;
    let told = async |scope: &Scope| {
        let changes = store.changes(scope, None, 10).await.expect("changes").changes;
        changes.iter().map(|change| change.job).collect::<Vec<_>>()
    };
    assert_eq!(told(&Scope::All).await, ids, "a transaction of somebody else is open");
    // It comes late, and behind what was told. What follows it is not complete until it ends.
    let end = store.changes_end().await.expect("changes_end");
    let late = job();
    store.submit_in(&mut other, vec![late.clone()], SubmitOptions::each()).await.expect("submit_in");
    let behind = submit(&store, vec![job()]).await;
    assert!(!told(&Scope::All).await.contains(&behind[0]));
    run(&mut other, "COMMIT").await;
    assert_eq!(told(&Scope::All).await, [&ids[..], &[late.id], &behind[..]].concat());
    let after = store.changes(&Scope::All, Some(end), 10).await.expect("changes").changes;
    assert_eq!(after.iter().map(|change| change.job).collect::<Vec<_>>(), [late.id, behind[0]]);
}

#[tokio::test]
async fn a_transaction_that_does_not_see_what_is_finished_submits_nothing() {
    let database = database();
    let store = open(&database).await;
    let mut host = PgConnection::connect(&database.url()).await.expect("a connection");
    run(&mut host, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    let error =
        store.submit_in(&mut host, vec![job()], SubmitOptions::each()).await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    run(&mut host, "ROLLBACK").await;
}

#[tokio::test]
async fn a_prune_reads_no_more_of_a_backlog_than_it_removes() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    for _ in 0..5 {
        submit(&store, jobs(1_000)).await;
    }
    assert_eq!(burn(&store, &worker, 1_000).await, 5_000);
    sql(&database, "UPDATE hodei.done SET moved_at = 1");
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &worker, TTL).await.expect("take_term").expect("nobody leads");
    let fetched = "SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables
         WHERE relid = 'hodei.done_0'::regclass";
    let read = async |store| {
        close_counted(store, |text| sql(&database, text)).await;
        sql(&database, fetched).parse::<u64>().expect("a number")
    };
    let before = read(store).await;
    let store = open(&database).await;
    let pruned = store.prune(&term, Retention::default(), 20).await.expect("prune");
    assert_eq!((pruned.gone.len(), pruned.more), (20, true));
    let spent = read(store).await - before;
    assert!(spent < 1_000, "{spent} rows read to remove 20 of 5000");
}

/// Jobs that count against the limit of a key.
fn limited(n: usize) -> Vec<NewJob> {
    let spec = Arc::new(spec().limited_by("key").build().expect("a valid spec"));
    (0..n).map(|_| NewJob::new(Arc::clone(&spec))).collect()
}

/// What ends under a limit, and is much, is written down as free, and waits for nobody who claims under it. Whoever claims next
/// takes it off.
#[tokio::test]
async fn much_that_ends_under_a_limit_waits_for_no_claim() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    store.set_limit(Limit::key(Tenant::default(), Name::literal("key"), 100)).await.expect("set_limit");
    submit(&store, limited(300)).await;
    let held = claim(&store, &worker, 300).await;
    assert_eq!(held.len(), 100);
    let mut claiming = stranger(&database, "SELECT 1 FROM hodei.usage FOR NO KEY UPDATE").await;
    let ends = held.iter().map(|held| done(held.job.id, held.job.epoch)).collect();
    let ended = at_once("an end", exchange(&store, &worker, ends, Vec::new())).await;
    assert_eq!(ended.applied.len(), 100);
    let in_use = async || store.limits(&Scope::All).await.expect("limits")[0].in_use;
    assert_eq!(sql(&database, "SELECT in_use, (SELECT n FROM hodei.freed) FROM hodei.usage"), "100|100");
    assert_eq!(in_use().await, 0);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    run(&mut claiming, "COMMIT").await;
    assert_eq!(claim(&store, &worker, 300).await.len(), 100, "there is room again, and no more");
    assert_eq!(in_use().await, 100);
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.freed"), "0");
    assert_eq!(claim(&store, &worker, 300).await.len(), 0);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

/// Where jobs wait for the room that ends make, the ends come first: each exchange leases as many as the one before has.
#[tokio::test]
async fn what_waits_for_the_room_of_ends_comes_behind_them() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    store.set_limit(Limit::key(Tenant::default(), Name::literal("key"), 100)).await.expect("set_limit");
    submit(&store, limited(500)).await;
    let lane = store.lanes(&Served::default()).await.expect("lanes").heads[0].lane.clone();
    let mut held = Vec::new();
    for _ in 0..5 {
        let ends = held.iter().map(|held: &Claimed| done(held.job.id, held.job.epoch));
        let pick = Pick { lane: lane.clone(), floor: Priority::MIN, ceiling: Priority::MAX, n: 100 };
        let exchanged = exchange(&store, &worker, ends.collect(), vec![pick]).await;
        assert!(exchanged.applied.iter().all(|applied| *applied == Applied::Done));
        held = exchanged.claimed;
        assert_eq!(held.len(), 100);
    }
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

/// What came free of a limit under which nobody claims any more is taken off when the counts are added up.
#[tokio::test]
async fn what_came_free_is_taken_off_in_the_end() {
    let database = database();
    let store = open(&database).await;
    store.set_limit(Limit::key(Tenant::default(), Name::literal("key"), 100)).await.expect("set_limit");
    sql(
        &database,
        "UPDATE hodei.usage SET in_use = 7; INSERT INTO hodei.freed SELECT no, 7 FROM hodei.usage",
    );
    sql(&database, "SELECT hodei.fold()");
    assert_eq!(sql(&database, "SELECT in_use, (SELECT count(*) FROM hodei.freed) FROM hodei.usage"), "0|0");
}
