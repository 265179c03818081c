//! What claims read, where much was claimed before, and that nothing is passed over for that.

use std::time::{Duration, Instant};

use hodei_core::JobId;
use hodei_core::job::{Lease, NewJob, Priority};
use hodei_core::store::{Claimed, JobStore as _, Lane, Move, Pick, Served, Transition};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};

use crate::env::{
    World, claim, close_counted, database, exchange, job, jobs, open, owner, spec, sql, submit,
};

/// How many jobs are claimed at once, which is much.
const MUCH: u32 = 100;
/// After how long a node looks at a lane from its beginning again, where it goes on from where a claim ended.
const FRESH: Duration = Duration::from_millis(100);

/// How many entries of the index of what is ready were read: told by those connections that have ended.
async fn entries_read(world: &World, store: PgStore) -> u64 {
    close_counted(store, |text| world.sql(text)).await;
    let read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ready_pkey'";
    world.sql(read).parse().expect("a number")
}

/// Claims after many others, of whose rows the server is not rid yet, read what they take. How much there is the server has
/// to guess; whatever it guesses, it reads no lane to its end.
#[tokio::test]
async fn a_claim_from_a_long_lane_reads_what_it_takes() {
    let world = World::start(&Postgres::builder().setting("autovacuum", "off"));
    let store = open(&world.database).await;
    for _ in 0..30 {
        submit(&store, jobs(1_000)).await;
    }
    let worker = owner(&store, "worker").await;
    for _ in 0..20 {
        assert_eq!(claim(&store, &worker, 500).await.len(), 500);
    }
    let lane = store.lanes(&Served::default()).await.expect("lanes").heads[0].lane.clone();
    let mut before = entries_read(&world, store).await;
    for guess in
        ["", "ANALYZE hodei.ready", "UPDATE pg_class SET reltuples = 0 WHERE oid = 'hodei.ready'::regclass"]
    {
        world.sql(guess);
        let store = open(&world.database).await;
        let began = Instant::now();
        for _ in 0..10 {
            let pick =
                Pick { lane: Lane::clone(&lane), floor: Priority::MIN, ceiling: Priority::MAX, n: MUCH };
            let claimed = exchange(&store, &worker, Vec::new(), vec![pick]).await.claimed;
            assert_eq!(claimed.len(), MUCH as usize);
        }
        // Where there is time for another look it passes what was taken meanwhile, once.
        let looks = u64::from(began.elapsed() >= FRESH);
        let now = entries_read(&world, store).await;
        let read = now - std::mem::replace(&mut before, now);
        let most = 10 * (3 + looks) * u64::from(MUCH);
        assert!(read < most, "{guess}: {read} entries are read for 1,000 claims, and not {most}");
    }
}

/// A node that takes much goes on from where it was.
async fn ahead(database: &Database) -> (PgStore, Lease, Vec<Claimed>) {
    let store = open(database).await;
    let worker = owner(&store, "worker").await;
    for _ in 0..4 {
        submit(&store, jobs(MUCH as usize)).await;
    }
    let taken = claim(&store, &worker, MUCH).await;
    let more = claim(&store, &worker, MUCH).await;
    assert_eq!((taken.len(), more.len()), (MUCH as usize, MUCH as usize));
    (store, worker, taken)
}

fn back(claimed: &Claimed) -> Transition {
    Transition { job: claimed.job.id, epoch: claimed.job.epoch, step: Move::Returned }
}

fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|claimed| claimed.job.id).collect()
}

#[tokio::test]
async fn what_a_node_gives_back_is_claimed_first_again() {
    let (store, worker, taken) = ahead(&database()).await;
    exchange(&store, &worker, vec![back(&taken[0])], Vec::new()).await;
    assert_eq!(ids(&claim(&store, &worker, MUCH).await)[0], taken[0].job.id);
}

#[tokio::test]
async fn what_is_more_urgent_is_claimed_before_what_a_node_goes_on_with() {
    let (store, worker, _) = ahead(&database()).await;
    let urgent = spec().priority(Priority::new(60).expect("a level")).build().expect("a valid spec");
    let urgent = submit(&store, vec![NewJob::new(urgent)]).await;
    assert_eq!(ids(&claim(&store, &worker, MUCH).await)[..1], urgent);
}

/// What another node gives back lies behind where a node goes on: it is found where the lane runs short.
#[tokio::test]
async fn a_lane_that_runs_short_is_looked_at_from_its_beginning() {
    let database = database();
    let (store, worker, taken) = ahead(&database).await;
    let other = open(&database).await;
    exchange(&other, &worker, vec![back(&taken[0])], Vec::new()).await;
    let mut found = ids(&claim(&store, &worker, 2 * MUCH).await);
    let rest = ids(&claim(&store, &worker, MUCH).await);
    found.extend(&rest);
    assert_eq!(found.len(), 2 * MUCH as usize + 1);
    assert!(found.contains(&taken[0].job.id));
}

/// In one call: where too little is ready from a place on, or something more urgent is, a claim begins at the beginning, but
/// not with more urgent ones than it asks for.
#[tokio::test]
async fn a_claim_looks_from_a_place_on_as_far_as_that_is_enough() {
    let database = database();
    let store = open(&database).await;
    submit(&store, vec![job()]).await;
    sql(&database, "DELETE FROM hodei.ready");
    let ready = "INSERT INTO hodei.ready (id, eligible_at, lane, rank)
        SELECT gen_random_uuid(), n, (SELECT no FROM hodei.lane), 31 FROM generate_series(1, 10) n";
    sql(&database, ready);
    // The times of what is found by a claim of so many from a time on, of the ranks that are given.
    let found = |ranks: &str, n: u32, since: u32, alone: bool| {
        let text = format!(
            "SELECT coalesce((SELECT string_agg(r.eligible_at::text, ' ' ORDER BY u.ord)
                FROM unnest(h.tids) WITH ORDINALITY u (tid, ord) JOIN hodei.ready r ON r.ctid = u.tid), '')
             FROM hodei.lane l, hodei.heads({alone}, l.tenant, 0, ARRAY[l.no], ARRAY[{ranks}]::int2[],
                ARRAY[{n}]::int8[], ARRAY[31]::int2[], ARRAY[{since}]::int8[]) h"
        );
        sql(&database, &text)
    };
    for alone in [true, false] {
        assert_eq!(found("63", 3, 5, alone), "5 6 7");
        assert_eq!(found("63", 3, 8, alone), "8 9 10");
        assert_eq!(found("63", 3, 9, alone), "1 2 3", "too few");
    }
    sql(&database, "INSERT INTO hodei.ready SELECT gen_random_uuid(), 99, no, 20 FROM hodei.lane");
    for alone in [true, false] {
        assert_eq!(found("63", 3, 5, alone), "99 1 2", "one is more urgent");
        assert_eq!(found("21 * 64 + 63", 3, 5, alone), "5 6 7", "which is not asked for");
        assert_eq!(found("21 * 64 + 63", 3, 9, alone), "1 2 3", "which is not asked for");
    }
}
