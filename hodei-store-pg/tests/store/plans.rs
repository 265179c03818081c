//! Every statement, and every statement within a function, is planned by the server at size, and none of the plans reads a
//! large table from its beginning to its end, be it by an index or again and again.

use std::time::Duration;

use bytes::Bytes;
use hodei_core::checkpoint::CheckpointStore;
use hodei_core::job::{NewJob, Parent, Requires};
use hodei_core::store::{Coordination, JobStore, Limit, Move, Policies, Round, SubmitOptions, Transition};
use hodei_core::{Name, Tenant};
use hodei_test_servers::{Postgres, PostgresBuilder};

use crate::env::{TTL, World, burn, claim, exchange, job, jobs, open, owner, spec};

/// How many jobs there are in all; `HODEI_PG_PLAN_JOBS` sets another number.
const JOBS: usize = 100_000;
/// What fits into so many pages may be read whole: 0.5 MB.
const FEW_PAGES: usize = 64;
/// So few rows may be read by any statement: steps of 10,000 jobs read the whole of a table that has little more.
const FEW_ROWS: u64 = 40_000;
/// What looks at all edges of an era, which is made to go out here: one with more than 5,000 does not.
const FORCED: [&str; 2] = ["v_stay := ARRAY(", "SELECT sum(pg_column_size(j.body)"];
/// What holds which jobs is asked after a death or a lost reply only, and then of all that is leased.
const READ_WHOLE: &str = "leased";

/// A server that writes down the plan of whatever it does, once it is asked to.
pub(crate) fn telling() -> PostgresBuilder {
    Postgres::builder()
        .setting("session_preload_libraries", "auto_explain")
        .setting("auto_explain.log_nested_statements", "on")
        .setting("auto_explain.log_analyze", "on")
        .setting("auto_explain.log_timing", "off")
        .setting("track_functions", "all")
        .setting("max_wal_size", "4GB")
}

/// The tables that are too large to be read whole.
fn large(world: &World) -> Vec<String> {
    let text = format!(
        "SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'hodei'::regnamespace AND relkind = 'r'
             AND pg_relation_size(oid) > {FEW_PAGES} * 8192 AND relname <> '{READ_WHOLE}'"
    );
    world.sql(&text).split(' ').map(str::to_owned).collect()
}

/// Fills every table with jobs of each kind.
async fn fill(store: &hodei_store_pg::PgStore, n: usize) {
    let worker = owner(store, "filler").await;
    let rounds = n.div_ceil(4_000);
    for _ in 0..rounds {
        store.submit(jobs(1_000), SubmitOptions::each()).await.expect("submit");
        burn(store, &worker, 1_000).await;
    }
    // Nothing of this runs, so that there is much of each kind and not only much room.
    for round in 0..rounds {
        let keyed = (0..1_000).map(|n| job().unique(format!("{round} {n}"))).collect();
        store.submit(keyed, SubmitOptions::each()).await.expect("submit");
        let later = hodei_core::Timestamp::from_micros(4_000_000_000_000_000);
        let deferred = jobs(1_000).into_iter().map(|job| job.run_at(later)).collect();
        store.submit(deferred, SubmitOptions::each()).await.expect("submit");
        let parent = job();
        let child = || job().after([Parent { id: parent.id, requires: Requires::Success }]);
        let family: Vec<NewJob> = std::iter::once(parent.clone()).chain((0..999).map(|_| child())).collect();
        store.submit(family, SubmitOptions::each()).await.expect("submit");
    }
}

/// Calls what nodes ask for now and then, and returns the ids of a few jobs as the server takes them.
async fn rarer_verbs(store: &hodei_store_pg::PgStore) -> String {
    let (first, second) = (owner(store, "first").await, owner(store, "second").await);
    let limited = || NewJob::new(spec().limited_by("key").build().expect("a valid spec"));
    store.submit(vec![limited()], SubmitOptions::each()).await.expect("submit");
    store.set_limit(Limit::tenant(Tenant::default(), 1_000_000)).await.expect("set_limit");
    let held = claim(store, &first, 100).await;
    let handed = Move::Started { lease: Some(second.clone()) };
    let (id, epoch) = (held[0].job.id, held[0].job.epoch);
    exchange(store, &first, vec![Transition { job: id, epoch, step: handed }], Vec::new()).await;
    let (checkpoints, tenant) = (store.checkpoints(), Tenant::default());
    checkpoints.open(&tenant, id, epoch).await.expect("open");
    checkpoints.save(&tenant, id, epoch, Bytes::from_static(b"half")).await.expect("save");
    let duty = Name::literal("upkeep");
    let round = |term| Round { owners: vec![first.clone()], ttl: TTL, duty: duty.clone(), term };
    let term = store.round(round(None)).await.expect("round").term.expect("nobody leads");
    assert!(store.keep_term(&term, TTL).await.expect("keep_term"));
    store.round(round(Some(term))).await.expect("round");
    store.retire(&second).await.expect("retire");
    let ids: Vec<String> = held.iter().take(50).map(|held| held.job.id.to_string()).collect();
    format!("'{{{}}}'::uuid[]", ids.join(","))
}

/// Takes an era out of the history, with a few jobs that outlive it. What else lay in it is lost, and nothing looks for it.
fn take_an_era_out(world: &World, few: &str) {
    let tend = || world.sql("SELECT hodei.tend(hodei.now(), hodei.now(), hodei.now(), 3600000000)");
    world.sql("UPDATE hodei.era SET ends_at = 2 WHERE no = 0");
    // It begins, and looks.
    tend();
    world.sql(&format!("DELETE FROM hodei.job WHERE id = ({few})[1]"));
    tend();
    if world.sql("SELECT stage FROM hodei.era WHERE no = 0") == "0" {
        // Too much outlives it.
        world.sql("UPDATE hodei.era SET again_at = NULL WHERE no = 0");
        tend();
    }
    world.sql(&format!(
        "INSERT INTO hodei.outliving (id) SELECT unnest({few}) ON CONFLICT DO NOTHING;
         UPDATE hodei.era SET stage = 2 WHERE no = 0"
    ));
    tend();
    world.sql("SELECT hodei.sweep(100); UPDATE hodei.era SET stage = 4 WHERE no = 0");
    tend();
}

/// How many rows came out of the nodes of plans, or were thrown away by them, in all their rounds: line by line.
pub(crate) fn rows_through(plans: &[&str]) -> impl Iterator<Item = u64> {
    let number = |text: &str, behind: &str| -> Option<u64> {
        let (_, text) = text.split_once(behind)?;
        text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut rounds = 0;
    plans.iter().map(move |line| {
        if let Some((rows, loops)) = number(line, "(actual rows=").zip(number(line, " loops=")) {
            rounds = loops;
            return rows * loops;
        }
        let removed = line.split_once("Rows Removed by ").and_then(|(_, removed)| number(removed, ": "));
        removed.map_or(0, |removed| removed * rounds)
    })
}

#[tokio::test]
async fn no_statement_at_size_reads_a_large_table_whole() {
    let n = std::env::var("HODEI_PG_PLAN_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(JOBS);
    let world = World::start(&telling());
    let store = open(&world.database).await;
    fill(&store, n).await;
    // Many changes that were recorded one by one.
    store.submit(vec![job()], SubmitOptions::each()).await.expect("submit");
    let rows =
        "INSERT INTO hodei.change (pos, at, node, tenant, n, body) SELECT pos, at, node, tenant, n, body
         FROM (SELECT * FROM hodei.change WHERE n = 1 LIMIT 1) c, generate_series(1, 10000)";
    world.sql(rows);
    world.sql("VACUUM ANALYZE");
    world.sql(&format!("ALTER DATABASE {} SET auto_explain.log_min_duration = 0", world.database.name()));
    // What is planned from here on is planned knowing how much there is.
    store.close().await;
    let before = world.log().len();
    let store = open(&world.database).await;
    crate::plan::every_verb(&store).await;
    let few = rarer_verbs(&store).await;
    // As if one part had many that are waited for.
    world.sql("INSERT INTO hodei.look VALUES (0, -1, -1, -1, -1)");
    world.sql("SELECT hodei.outlived(0, 0, 10); SELECT * FROM hodei.surplus(0, '{}', hodei.now(), 10)");
    world.sql("SELECT hodei.bring_back(hodei.now() - 60000000); SELECT hodei.bring_back_rates(hodei.now() - 60000000)");
    world.sql(&format!("SELECT hodei.forget({few}); SELECT hodei.remove({few}); SELECT hodei.fold()"));
    for place in ["ready", "delayed", "blocked", "done"] {
        let births =
            "SELECT hodei.note_births('{place}', -1, -1::int2, 0, '00000000-0000-0000-0000-000000000000')";
        world.sql(&births.replace("{place}", place));
    }
    world.sql("SELECT hodei.set_bound('era', hodei.now() + 900000000000, 3600000000); SELECT hodei.prove()");
    world.sql("SELECT hodei.make_way(); SELECT hodei.put_bound_off('era')");
    let large = large(&world);
    take_an_era_out(&world, &few);
    store.close().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = world.log();
    for table in ["job_0", "done_0", "ready", "delayed", "blocked", "edge", "unique_key"] {
        assert!(large.iter().any(|large| large == table), "{table} is not among {large:?}");
    }
    let told = &log[before..];
    assert!(told.matches("Query Text").count() > 100, "the plans are written down");
    let lines: Vec<&str> = told.lines().collect();
    // A quarter of them is of each kind.
    let many = u64::try_from(n / 5).unwrap_or(u64::MAX).max(FEW_ROWS);
    for ((n, line), rows) in lines.iter().enumerate().zip(rows_through(&lines)) {
        let scanned = line.split_once("Seq Scan on ").map(|(_, scanned)| scanned);
        let table = scanned.and_then(|scanned| scanned.split([' ', '\n']).next());
        let whole = table.is_some_and(|table| large.iter().any(|large| large == table));
        let begins = lines[..n].iter().rposition(|line| line.contains("Query Text")).unwrap_or(0);
        let too_many = rows >= many && !FORCED.iter().any(|forced| lines[begins].contains(forced));
        assert!(!whole && !too_many, "{rows} rows: {}", lines[begins..=n].join("\n"));
    }
    assert_eq!(world.sql(UNCALLED), "", "functions that nothing here has called");
}

/// The functions that were not called: but for those that are asked for by others than nodes, or once when a database is
/// restored, and one that is called where somebody was in the way.
const UNCALLED: &str = "SELECT string_agg(p.proname, ', ' ORDER BY p.proname) FROM pg_proc p
     WHERE p.pronamespace = 'hodei'::regnamespace AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')
         AND NOT EXISTS (SELECT 1 FROM pg_stat_user_functions f WHERE f.funcid = p.oid)
         AND p.proname NOT IN ('admit', 'claimed_elsewhere', 'enqueue')";
