//! What is cheap for a few is not dear for many: tenants, children, and bytes that outlive their era.

use std::time::Duration;

use hodei_core::job::{JobSpec, NewJob, Parent, Requires, State};
use hodei_core::store::{CancelReply, JobStore, Retention, Scope, SubmitOptions, Term};
use hodei_core::{JobId, Tenant};
use hodei_store_pg::PgStore;
use sqlx::Connection;

use crate::env::{
    World, burn, claim, database, done, exchange, job, jobs, lead, open, owner, spec, sql, submit,
};
use crate::locks::{run, somebody_waits, stranger};
use crate::plans::{rows_through, telling};

/// How many jobs are many: the square of it is a great deal more.
const MANY: usize = 2_000;

fn child_of(id: JobId) -> NewJob {
    job().after([Parent { id, requires: Requires::Success }])
}

#[tokio::test]
async fn an_end_takes_a_round_trip_for_each_level_of_those_that_wait_for_it() {
    let database = database();
    let store = open(&database).await;
    let parent = job();
    let children: Vec<NewJob> = (0..500).map(|_| child_of(parent.id)).collect();
    let theirs: Vec<NewJob> = children.iter().map(|child| child_of(child.id)).collect();
    let (id, last) = (parent.id, theirs[499].id);
    let family: Vec<NewJob> = std::iter::once(parent).chain(children).chain(theirs).collect();
    store.submit(family, SubmitOptions::atomic()).await.expect("submit");
    let before = store.round_trips();
    let replies = store.request_cancel(&Scope::All, vec![id]).await.expect("cancel");
    let trips = store.round_trips() - before;
    assert_eq!(replies.replies, [CancelReply::Cancelled]);
    assert!(trips <= 50, "{trips} round trips for three levels");
    let last =
        store.get_many(&Scope::All, vec![last], hodei_core::store::Consistency::Latest).await.expect("get");
    assert_eq!(last[0].as_ref().map(|job| job.state), Some(State::Cancelled));
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn the_planner_is_told_of_parts_that_it_holds_for_empty() {
    let database = database();
    let store = open(&database).await;
    let term = lead(&store).await;
    sql(&database, "ANALYZE hodei.job, hodei.done, hodei.change");
    let rows = || {
        let text = "SELECT relname || ' ' || (reltuples > 0) FROM pg_class
             WHERE relname IN ('job_0', 'done_0', 'done_1') ORDER BY 1";
        sql(&database, text).replace('\n', ", ")
    };
    assert_eq!(rows(), "done_0 false, done_1 false, job_0 false");
    let worker = owner(&store, "worker").await;
    submit(&store, jobs(100)).await;
    assert_eq!(burn(&store, &worker, 100).await, 100);
    for _ in 0..100 {
        store.prune(&term, Retention::default(), 10).await.expect("prune");
        if rows() == "done_0 true, done_1 false, job_0 true" {
            return;
        }
        // The machine was too busy, or the server has begun to look by itself.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", rows());
}

#[tokio::test]
async fn a_job_of_a_part_that_is_held_for_empty_is_looked_up_by_its_id() {
    let database = database();
    let store = open(&database).await;
    assert_looked_up_by_id(&database, &["job_0", "job_1", "job_rest"]);
    store.close().await;
}

/// What there was before is the first part as it stands: it is not held for empty.
#[tokio::test]
async fn a_job_of_the_rest_of_a_migrated_database_is_looked_up_by_its_id() {
    let database = database();
    sql(&database, &crate::eras::FIRST_SCHEMA.join(";\n"));
    sql(
        &database,
        "INSERT INTO hodei.tenant (name) VALUES ('default');
         INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, name, body)
             VALUES ('01000000-0000-7000-8000-000000000001', gen_random_uuid(), 1, 1, 1, 1, 31, 'old', '\\x00')",
    );
    let store = open(&database).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job_0"), "1");
    assert_looked_up_by_id(&database, &["job_1", "job_rest"]);
    store.close().await;
}

/// Has parts analyzed that are empty, and sees by which index the planner looks for a job in each then.
fn assert_looked_up_by_id(database: &hodei_test_servers::Database, parts: &[&str]) {
    sql(database, "ANALYZE hodei.job");
    let told = sql(
        database,
        "SET enable_seqscan = off; SET enable_bitmapscan = off;
         EXPLAIN (COSTS OFF) SELECT j.body FROM hodei.job j WHERE j.id = (SELECT lo FROM hodei.era WHERE no = 1)",
    );
    for part in parts {
        assert!(told.contains(&format!("using {part}_pkey")), "{told}");
        let indexes = format!("SELECT count(*) FROM pg_index WHERE indrelid = 'hodei.{part}'::regclass");
        assert_eq!(sql(database, &indexes), "3");
    }
}

#[tokio::test]
async fn an_era_that_many_bytes_outlive_is_pruned_one_by_one() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let mut old = submit(&store, jobs(30)).await;
    assert_eq!(burn(&store, &worker, 1_000).await, 30);
    let large = |n: u64| {
        // What does not compress.
        let mut state = n + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{state:016x}{:016x}", state.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        };
        let text: String = (0..3_000).map(|_| next()).collect();
        NewJob::new(JobSpec::command(["/bin/true", text.as_str()]).build().expect("a valid spec"))
    };
    for round in 0..4 {
        submit(&store, (0..100).map(|n| large(round * 100 + n)).collect()).await;
    }
    sql(
        &database,
        "UPDATE hodei.done SET moved_at = 1; UPDATE hodei.era SET whole = true, ends_at = 2 WHERE no = 0",
    );
    let term = lead(&store).await;
    let mut gone = Vec::new();
    for _ in 0..200 {
        let pruned = store.prune(&term, Retention::default(), 100).await.expect("prune");
        gone.extend(pruned.gone.into_iter().map(|(_, id)| id));
        if gone.len() >= 30 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gone.sort_unstable();
    old.sort_unstable();
    assert_eq!(gone, old);
    let era = "SELECT stage || ' ' || whole || ' ' || (again_at IS NULL) FROM hodei.era WHERE no = 0";
    assert_eq!(sql(&database, era), "0 false false");
    assert_eq!(sql(&database, "SELECT count(*) FROM pg_trigger WHERE tgname = 'outlives'"), "0");
}

#[tokio::test]
async fn what_is_found_already_is_not_looked_up_for_each_tenant() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    submit(&store, jobs(500)).await;
    assert_eq!(burn(&store, &worker, 500).await, 500);
    sql(
        &database,
        "INSERT INTO hodei.total (tenant, queue, failed) SELECT n, 'q', 9 FROM generate_series(1001, 3000) n;
         ANALYZE hodei.done; ANALYZE hodei.total",
    );
    let told = sql(
        &database,
        "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF)
         SELECT hodei.surplus(1, ARRAY(SELECT id FROM hodei.done), hodei.now(), 10)",
    );
    assert!(pages_of(&told) < 100_000, "{told}");
}

/// How many pages a statement has looked at, in what the server tells of it.
fn pages_of(told: &str) -> u64 {
    let hit = told.split_once("shared hit=").and_then(|(_, hit)| hit.split([' ', '\n']).next()?.parse().ok());
    hit.expect("it is told")
}

#[tokio::test]
async fn a_heartbeat_reads_no_keys_and_who_finds_a_lane_closed_those_of_lanes_with_work() {
    let database = database();
    let store = open(&database).await;
    submit(&store, vec![NewJob::new(spec().limited_by("paced").build().expect("a valid spec"))]).await;
    let (ahead, behind) = ("hodei.now() + 3600000000", "hodei.now() - 1");
    let set = |at: &str, of: &str| {
        let paced = "most = 9, tokens = 1, per = 1000000000, burst = 1, gap = 1000000000";
        let text =
            format!("UPDATE hodei.usage SET {paced}, full_at = ({at}) * 1000, spent_at = {at} WHERE {of}");
        sql(&database, &text);
    };
    sql(
        &database,
        "INSERT INTO hodei.usage (tenant, key) SELECT 1, 'key ' || n FROM generate_series(1, 50000) n",
    );
    set(behind, "true");
    sql(&database, "VACUUM ANALYZE hodei.usage");
    let told = |call: &str| {
        // What a session looks up of functions and tables it looks up once.
        let text =
            format!("SELECT {call}; EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) SELECT {call}");
        sql(&database, &text)
    };
    for call in ["hodei.bring_back(hodei.now())", "hodei.bring_back_rates(hodei.now())"] {
        let told = told(call);
        assert!(pages_of(&told) < 300, "{call}: {told}");
    }
    set(ahead, "key IN ('paced', 'key 7')");
    told("hodei.bring_back_rates(hodei.now())");
    let late = "SELECT string_agg(key, ',') FROM hodei.usage WHERE spent_at > hodei.now()";
    assert_eq!(sql(&database, late), "key 7", "it closes nothing that is ready");
}

/// A job that is claimed by somebody who has not committed, while it is taken with very many others.
#[tokio::test]
async fn who_moves_while_many_are_taken_is_looked_for_again_in_no_square_of_time() {
    let world = World::start(&telling());
    let store = open(&world.database).await;
    let ids = submit(&store, jobs(MANY)).await;
    store.close().await;
    let claims = format!(
        "WITH d AS (DELETE FROM hodei.ready WHERE id = '{}' RETURNING id, lane)
         INSERT INTO hodei.leased (id, moved_at, holder, lane) SELECT id, 1, 1, lane FROM d",
        ids[MANY / 2]
    );
    let mut claiming = stranger(&world.database, &claims).await;
    let name = world.database.name();
    world.sql(&format!("ALTER DATABASE {name} SET auto_explain.log_min_duration = 0"));
    let mut conn = sqlx::PgConnection::connect(&world.database.url()).await.expect("a connection");
    let taking = tokio::spawn(async move {
        let text =
            "SELECT array_agg(state ORDER BY state DESC) FROM hodei.take(ARRAY(SELECT id FROM hodei.job))";
        sqlx::query_scalar::<_, Vec<i16>>(text).fetch_one(&mut conn).await.expect("they are taken")
    });
    somebody_waits(&world.database).await;
    run(&mut claiming, "COMMIT").await;
    let states = taking.await.expect("no panic");
    assert_eq!((states.len(), &states[..2]), (MANY, &[2, 1][..]), "one is leased, and the others are ready");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = world.log();
    let lines: Vec<&str> = log.lines().collect();
    let looked_at: u64 = rows_through(&lines).sum();
    assert!((1..100 * MANY as u64).contains(&looked_at), "{looked_at} rows for {MANY} jobs");
}

#[tokio::test]
async fn a_surplus_of_which_nothing_may_go_is_not_looked_for_from_the_beginning_each_time() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    submit(&store, jobs(10)).await;
    assert_eq!(burn(&store, &worker, 10).await, 10);
    let surplus =
        |until: &str| sql(&database, &format!("SELECT count(*) FROM hodei.surplus(5, '{{}}', {until}, 10)"));
    sql(&database, "SELECT hodei.fold(); INSERT INTO hodei.walk VALUES (1, hodei.now() - 60000000, true)");
    sql(&database, "UPDATE hodei.done SET moved_at = hodei.now() - 120000000");
    let in_vain = "UPDATE hodei.walk SET succeeded_from = hodei.now() - 60000000, in_vain = true";
    // One in a hundred begins there all the same, and those after it go on behind what it found.
    let looks = (0..10).map(|_| {
        sql(&database, in_vain);
        (surplus("hodei.now() - 30000000"), sql(&database, "SELECT in_vain FROM hodei.walk"))
    });
    let short = looks.filter(|(found, in_vain)| found == "0" && in_vain == "t").count();
    assert!(short >= 7, "{short}");
    sql(&database, "UPDATE hodei.done SET moved_at = hodei.now() - 45000000");
    sql(&database, in_vain);
    assert_eq!(surplus("hodei.now() - 30000000"), "5");
}

/// How many rows came out of the nodes of a kind, in what the server has written down of what it did.
fn rows_of(log: &str, node: &str) -> u64 {
    let number = |line: &str, behind: &str| -> Option<u64> {
        line.split_once(behind)?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let rows = |line: &str| Some(number(line, "(actual rows=")? * number(line, " loops=")?);
    log.lines().filter(|line| line.contains(node)).filter_map(rows).sum()
}

#[tokio::test]
async fn a_claim_and_a_submission_look_at_what_their_tenants_have_alone() {
    let world = World::start(&telling());
    let store = open(&world.database).await;
    let worker = owner(&store, "worker").await;
    let tenant = |n: usize| Tenant::new(format!("t{n}")).expect("a name");
    let spec = std::sync::Arc::new(JobSpec::command(["/bin/true"]).build().expect("a valid spec"));
    let of = |n: usize| NewJob::of(tenant(n), std::sync::Arc::clone(&spec));
    submit(&store, (0..200).map(of).collect()).await;
    store.close().await;
    world.sql(
        "SELECT hodei.fold(); INSERT INTO hodei.total (tenant, queue, failed)
             SELECT n, 'q', 1 FROM generate_series(1001, 6000) n; ANALYZE hodei.total",
    );
    let name = world.database.name();
    world.sql(&format!("ALTER DATABASE {name} SET auto_explain.log_min_duration = 0"));
    let bounded = PgStore::builder(world.database.url()).connections(4).tenant_max_open(10);
    let store = bounded.connect().await.expect("the store opens");
    assert_eq!(claim(&store, &worker, 5).await.len(), 200);
    submit(&store, vec![of(7)]).await;
    store.close().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = world.log();
    let picks = rows_of(&log, "Function Scan on u ");
    assert!((200..10_000).contains(&picks), "{picks} picks were gone through for 200");
    let counted = rows_of(&log, " on total");
    assert!(counted < 1_000, "{counted} counts were read for one tenant");
}

/// Each a second after the one before.
const ONE_BY_ONE: &str = "1000000 * row_number() OVER (ORDER BY id)";

/// Jobs that ended long ago, at a time, and are waited for by a child each.
async fn parents_that_are_waited_for(
    store: &PgStore,
    run: impl Fn(&str) -> String,
    n: usize,
    at: &str,
) -> Vec<JobId> {
    let mut parents = Vec::new();
    while parents.len() < n {
        let family: Vec<(NewJob, NewJob)> =
            (0..500).map(|_| job()).map(|parent| (parent.clone(), child_of(parent.id))).collect();
        parents.extend(family.iter().map(|(parent, _)| parent.id));
        let family = family.into_iter().flat_map(|(parent, child)| [parent, child]).collect();
        store.submit(family, SubmitOptions::atomic()).await.expect("submit");
    }
    // As if they had ended, and their children were held up by something else.
    let ended = format!(
        "WITH gone AS (DELETE FROM hodei.ready r USING hodei.job j WHERE j.id = r.id RETURNING r.id, j.tenant)
         INSERT INTO hodei.done (id, moved_at, tenant, state) SELECT id, {at}, tenant, 4 FROM gone ORDER BY id"
    );
    run(&ended);
    parents.sort_unstable();
    parents
}

/// Has jobs end at the time of another.
fn end_long_ago(run: impl Fn(&str) -> String, ids: &[JobId], beside: JobId) {
    let ids: Vec<String> = ids.iter().map(JobId::to_string).collect();
    let ended = format!(
        "WITH gone AS (DELETE FROM hodei.ready r USING hodei.job j WHERE j.id = r.id AND r.id = ANY ('{{{}}}')
             RETURNING r.id, j.tenant)
         INSERT INTO hodei.done (id, moved_at, tenant, state)
             SELECT id, (SELECT moved_at FROM hodei.done WHERE id = '{beside}'), tenant, 4 FROM gone",
        ids.join(",")
    );
    run(&ended);
}

/// What prunes remove that follow one another as whoever leads has them do.
async fn pruned(store: &PgStore, term: &Term) -> Vec<JobId> {
    let mut gone = Vec::new();
    loop {
        let pruned = store.prune(term, Retention::default(), 1_000).await.expect("prune");
        assert!(!pruned.term_lost);
        gone.extend(pruned.gone.into_iter().map(|(_, id)| id));
        if !pruned.more {
            return gone;
        }
    }
}

#[tokio::test]
async fn what_failed_goes_where_all_else_is_kept_for_ever() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    let ids = submit(&store, jobs(3)).await;
    assert_eq!(burn(&store, &worker, 3).await, 3);
    let days = |n| format!("hodei.now() - {n} * 24 * 3600000000");
    for (id, ago, state) in [(ids[0], days(8), 5), (ids[1], days(8), 4), (ids[2], days(6), 5)] {
        sql(&database, &format!("UPDATE hodei.done SET moved_at = {ago}, state = {state} WHERE id = '{id}'"));
    }
    let term = lead(&store).await;
    let (week, century) = (Duration::from_secs(7 * 24 * 3_600), Duration::from_secs(100 * 365 * 24 * 3_600));
    let kept = |jobs, failed| Retention { jobs, failed: Some(failed), most: u64::MAX, changes: u64::MAX };
    let gone = async |retention| {
        let pruned = store.prune(&term, retention, 10).await.expect("prune");
        pruned.gone.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
    };
    assert_eq!(gone(kept(century, week)).await, [ids[0]]);
    assert_eq!(gone(kept(week, century)).await, [ids[1]]);
    assert_eq!(gone(kept(century, Duration::MAX)).await, []);
    assert_eq!(gone(kept(Duration::MAX, Duration::ZERO)).await, [ids[2]]);
}

/// What ends of a few parents cost of a child that waits for so many of them: rows looked at, and round trips.
async fn ends_among(parents: usize) -> (u64, u64) {
    const FEW: usize = 10;
    let world = World::start(&telling());
    let store = open(&world.database).await;
    let worker = owner(&store, "worker").await;
    let mut ids = Vec::new();
    while ids.len() < parents {
        ids.extend(submit(&store, jobs(1_000)).await);
    }
    let waits_for = ids.iter().map(|id| Parent { id: *id, requires: Requires::Success });
    let child = submit(&store, vec![job().after(waits_for)]).await[0];
    let held = claim(&store, &worker, u32::try_from(FEW).expect("few")).await;
    assert_eq!(held.len(), FEW);
    store.close().await;
    world.sql("VACUUM ANALYZE");
    let name = world.database.name();
    world.sql(&format!("ALTER DATABASE {name} SET auto_explain.log_min_duration = 0"));
    let store = open(&world.database).await;
    let (before, trips) = (world.log().len(), store.round_trips());
    for held in held {
        exchange(&store, &worker, vec![done(held.job.id, held.job.epoch)], Vec::new()).await;
    }
    let trips = store.round_trips() - trips;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = world.log();
    let lines: Vec<&str> = log[before..].lines().collect();
    assert!(lines.iter().filter(|line| line.contains("Query Text")).count() >= FEW, "they are written down");
    let rows = rows_through(&lines).sum();
    world.sql(&format!("ALTER DATABASE {name} RESET auto_explain.log_min_duration"));
    store.close().await;
    // The last of them lets the child run: every other parent has ended before it is claimed, in as many claims as that takes.
    let store = open(&world.database).await;
    let (mut others, mut ran) = (parents - FEW, false);
    loop {
        let held = claim(&store, &worker, 1_000).await;
        if held.is_empty() {
            break;
        }
        let children = held.iter().filter(|held| held.job.id == child).count();
        assert!(children == 0 || (others == 0 && !ran && held.len() == 1), "{others} parents have not ended");
        ran |= children == 1;
        others -= held.len() - children;
        exchange(
            &store,
            &worker,
            held.iter().map(|held| done(held.job.id, held.job.epoch)).collect(),
            Vec::new(),
        )
        .await;
    }
    assert!(others == 0 && ran, "{others} parents were never claimed, and the child ran: {ran}");
    let read = store.get_many(&Scope::All, vec![child], hodei_core::store::Consistency::Latest).await;
    assert_eq!(read.expect("get")[0].as_ref().map(|job| job.state), Some(State::Succeeded));
    store.close().await;
    (rows, trips)
}

/// Ended jobs that are kept no longer, each with a child that has not ended, and what one prune that finds nothing goes
/// through, when those before it have gone through all.
async fn empty_prune_among(parents: usize) -> u64 {
    let world = World::start(&telling());
    let store = open(&world.database).await;
    let run = |text: &str| world.sql(text);
    let waiting = parents_that_are_waited_for(&store, run, parents, ONE_BY_ONE).await;
    let term = lead(&store).await;
    let places = [waiting[0], waiting[parents / 2], waiting[parents - 1]];
    for place in places {
        let bare = submit(&store, jobs(3)).await;
        end_long_ago(run, &bare, place);
    }
    assert_eq!(pruned(&store, &term).await.len(), 9, "what lies between and behind them goes");
    let late = submit(&store, jobs(1)).await;
    end_long_ago(run, &late, places[2]);
    let just_now = "UPDATE hodei.done SET moved_at = hodei.now() - 7 * 24 * 3600000000 WHERE id =";
    world.sql(&format!("{just_now} '{}'", late[0]));
    assert_eq!(pruned(&store, &term).await, late, "and at once what is kept no longer since then");
    world.sql("VACUUM ANALYZE");
    let name = world.database.name();
    world.sql(&format!("ALTER DATABASE {name} SET auto_explain.log_min_duration = 0"));
    store.close().await;
    let store = open(&world.database).await;
    let before = world.log().len();
    assert_eq!(pruned(&store, &term).await, []);
    store.close().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = world.log();
    let lines: Vec<&str> = log[before..].lines().collect();
    assert!(lines.iter().any(|line| line.contains("hodei.outlived")), "they are written down");
    let rows = rows_through(&lines).sum();
    world.sql(&format!("ALTER DATABASE {name} RESET auto_explain.log_min_duration"));
    // A child that goes lets its parent go within a round, wherever that lies.
    let store = open(&world.database).await;
    for parent in places {
        world.sql(&format!("DELETE FROM hodei.edge WHERE parent = '{parent}'"));
        let mut gone = Vec::new();
        for _ in 0..=parents / 100 {
            gone = pruned(&store, &term).await;
            if !gone.is_empty() {
                break;
            }
        }
        assert_eq!(gone, [parent], "it is found in its turn");
    }
    world.sql("DELETE FROM hodei.edge");
    let mut gone = 0;
    for _ in 0..=parents / 100 {
        gone += pruned(&store, &term).await.len();
    }
    assert_eq!(gone, parents - 3, "all of them, now that nobody waits");
    assert_eq!(pruned(&store, &term).await, []);
    assert_eq!(world.sql("SELECT count(*) FROM hodei.look"), "0", "there is nothing to remember");
    store.close().await;
    rows
}

#[tokio::test]
async fn an_empty_prune_costs_the_same_however_many_ended_jobs_are_waited_for() {
    let (few, many) = (empty_prune_among(2_500).await, empty_prune_among(10_000).await);
    println!("rows of an empty prune: {few} beside 2,500 that are waited for, {many} beside 10,000");
    assert!(few > 500, "{few}: it looks at some of them");
    assert!(many < few * 2, "{many} rows, {few} beside a quarter of the jobs");
}

#[tokio::test]
async fn nothing_starves_behind_jobs_that_are_waited_for_whenever_they_ended() {
    for at in
        ["1000000", "1000000 + (random() * 1000000000)::int8", "4000000000 - row_number() OVER (ORDER BY id)"]
    {
        let database = database();
        let store = open(&database).await;
        let run = |text: &str| sql(&database, text);
        let waiting = parents_that_are_waited_for(&store, run, 3_000, at).await;
        let term = lead(&store).await;
        for place in waiting.iter().step_by(100) {
            let bare = submit(&store, jobs(1)).await;
            end_long_ago(run, &bare, *place);
        }
        assert_eq!(pruned(&store, &term).await.len(), 30, "{at}");
        let mut freed: Vec<JobId> = waiting.iter().copied().step_by(300).collect();
        for id in &freed {
            sql(&database, &format!("DELETE FROM hodei.edge WHERE parent = '{id}'"));
        }
        let mut gone = Vec::new();
        for _ in 0..60 {
            gone.extend(pruned(&store, &term).await);
        }
        gone.sort_unstable();
        freed.sort_unstable();
        assert_eq!(gone, freed, "{at}");
        // What is waited for is there, whatever happened around it.
        assert_eq!(sql(&database, "SELECT count(*) FROM hodei.done"), "2990", "{at}");
        store.close().await;
    }
}

#[tokio::test]
async fn the_end_of_a_parent_costs_the_same_however_many_others_its_child_waits_for() {
    let (few, many) = (ends_among(1_000).await, ends_among(10_000).await);
    println!("rows and round trips of ten ends: {few:?} of 1,000 parents, {many:?} of 10,000");
    assert!(few.0 > 10 && few.0 < 1_000, "{few:?}");
    // What the upkeep of a node looks at comes in between.
    assert!(many.0 < few.0 + 300, "{many:?} rows and round trips, {few:?} with a tenth of the parents");
    assert!(few.1.max(many.1) <= 30, "{few:?} and {many:?}: an end each, and what is announced");
}
