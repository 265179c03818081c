//! Lists of jobs of a state that lie together far away from where the list begins: full pages at once, by when they were born.

use std::time::Duration;

use hodei_core::job::{Failure, FailureClass, Finish, NewJob, Output, Parent, Requires, State};
use hodei_core::store::{JobStore, Move, Order, Query, Scope, SubmitOptions, Transition};
use hodei_core::{JobId, Timestamp};
use hodei_store_pg::PgStore;

use crate::env::{claim, close_counted, database, exchange, job, jobs, open, owner, sql, submit};
use crate::list::{Large, found, jobs_of, listed, tenant};

/// More jobs than a page may look at.
const BETWEEN: usize = 12_000;
/// More jobs of a state than are looked at one by one.
const MANY: usize = 21_000;
/// What a page of a hundred jobs may read.
const READ: u64 = 2_000;

/// Jobs of two tenants: those that are blocked or have failed are older than many that have succeeded, those that wait or are
/// cancelled are younger. A fiftieth of each is of the small tenant.
async fn far_away(between: usize, many: usize) -> Large {
    let large = Large::start().await;
    submit(&large.store, jobs_of("small", 1)).await;
    large.sql(&format!(
        "CREATE TABLE born AS SELECT gen_random_uuid() AS id, g,
                 CASE WHEN (g + 100000) % 100 IN (6, 7) AND (g < 0 OR g > {between}) THEN 2 ELSE 1 END AS of
             FROM generate_series(-2 * {many}, {between} + 2 * {many} - 1) g;
         INSERT INTO hodei.job (id, created_at, tenant, lane, rank, name, body)
             SELECT b.id, b.g, j.tenant, j.lane, j.rank, j.name, j.body FROM born b JOIN hodei.job j ON j.tenant = b.of
             WHERE j.created_at > 1000000;
         INSERT INTO hodei.done (id, moved_at, tenant, state) SELECT id, g, of, 4 FROM born WHERE g BETWEEN 0 AND {between} - 1;
         INSERT INTO hodei.blocked (id, eligible_at, lane, rank, waits_for, created_at)
             SELECT b.id, g, lane, rank, 1, g FROM born b JOIN hodei.job j ON j.id = b.id WHERE g < 0 AND g % 2 = 0;
         INSERT INTO hodei.done (id, moved_at, tenant, state, created_at) SELECT id, 1, of, 5, g FROM born
             WHERE g < 0 AND g % 2 <> 0;
         INSERT INTO hodei.done (id, moved_at, tenant, state, created_at) SELECT id, 1, of, 6, g FROM born
             WHERE g >= {between} AND g % 2 = 0;
         -- Of those that wait some are ready since their birth, some since later, and some are not yet.
         INSERT INTO hodei.ready (id, eligible_at, lane, rank)
             SELECT b.id, g, lane, rank FROM born b JOIN hodei.job j ON j.id = b.id WHERE g >= {between} AND g % 6 IN (1, 3);
         INSERT INTO hodei.ready (id, eligible_at, lane, rank, version, cause, moved_at, created_at)
             SELECT b.id, 2 * g % 99991, lane, rank, 3, 1, g, g FROM born b JOIN hodei.job j ON j.id = b.id
             WHERE g >= {between} AND g % 12 = 5;
         INSERT INTO hodei.delayed (id, eligible_at, lane, rank, created_at)
             SELECT b.id, 4000000000000000 - g, lane, rank, g FROM born b JOIN hodei.job j ON j.id = b.id
             WHERE g >= {between} AND g % 12 = 11;
         INSERT INTO hodei.delta (tenant, lane, blocked, failed, succeeded, cancelled, pending)
             SELECT of, of, count(*) FILTER (WHERE g < 0 AND g % 2 = 0), count(*) FILTER (WHERE g < 0 AND g % 2 <> 0),
                 count(*) FILTER (WHERE g BETWEEN 0 AND {between} - 1), count(*) FILTER (WHERE g >= {between} AND g % 2 = 0),
                 count(*) FILTER (WHERE g >= {between} AND g % 2 <> 0) FROM born GROUP BY of"
    ));
    large
}

/// What the jobs of a state are, for the server.
fn condition(state: State) -> &'static str {
    match state {
        State::Blocked => "j.id IN (SELECT id FROM hodei.blocked)",
        State::Pending => "j.id IN (SELECT id FROM hodei.ready UNION ALL SELECT id FROM hodei.delayed)",
        State::Scheduled => "j.id IN (SELECT id FROM hodei.leased WHERE running IS NULL)",
        State::Running => "j.id IN (SELECT id FROM hodei.leased WHERE running)",
        State::Succeeded => "j.id IN (SELECT id FROM hodei.done WHERE state = 4)",
        State::Failed => "j.id IN (SELECT id FROM hodei.done WHERE state = 5)",
        State::Cancelled => "j.id IN (SELECT id FROM hodei.done WHERE state = 6)",
    }
}

fn ordered(query: Query, order: Order) -> Query {
    if order == Order::OldestFirst { query.oldest_first() } else { query }
}

/// Reads a list to its end, and sees that its pages are full and have each job once.
async fn assert_listed(
    store: &PgStore,
    sql: &(impl Fn(&str) -> String + Sync),
    order: Order,
    state: State,
    limit: usize,
) {
    for (scope, of) in [(Scope::All, "true"), (Scope::Tenant(tenant("small")), "t.name = 'small'")] {
        let (got, pages) =
            listed(store, &scope, ordered(Query::new().state(state).limit(limit), order)).await;
        let wanted = found(sql, &format!("{} AND {of}", condition(state)), order);
        assert!(got == wanted, "{state:?} of {scope:?}: {} of {}", got.len(), wanted.len());
        assert_eq!(pages, wanted.len().div_ceil(limit).max(1), "{state:?} of {scope:?}");
    }
}

const FAR: [(State, Order); 4] = [
    (State::Blocked, Order::NewestFirst),
    (State::Failed, Order::NewestFirst),
    (State::Pending, Order::OldestFirst),
    (State::Cancelled, Order::OldestFirst),
];

#[tokio::test]
async fn many_jobs_of_a_state_that_lie_together_far_away_fill_the_first_page() {
    let large = far_away(BETWEEN, MANY).await;
    let scopes = [Scope::All, Scope::Tenant(tenant("small"))];
    large.store.close().await;
    for analyzed in [false, true] {
        if analyzed {
            large.sql("VACUUM ANALYZE");
        }
        for (state, order) in FAR {
            // The first, and one that is deep.
            let store = open(&large.database).await;
            let first = ordered(Query::new().state(state), order);
            let mut deep = first.clone().limit(1_000);
            for _ in 0..10 {
                let page = store.query(&Scope::All, deep.clone()).await.expect("query");
                deep = deep.after(page.next.expect("there is more"));
            }
            let deep = deep.limit(100);
            close_counted(store, |text| large.sql(text)).await;
            let before = large.counted();
            let store = open(&large.database).await;
            for (scope, query) in [(&scopes[0], &first), (&scopes[1], &first), (&scopes[0], &deep)] {
                let page = store.query(scope, query.clone()).await.expect("query");
                assert_eq!(page.jobs.len(), 100, "{state:?} of {scope:?}");
                assert!(page.jobs.iter().all(|job| job.state == state), "{state:?} of {scope:?}");
            }
            close_counted(store, |text| large.sql(text)).await;
            let read = large.since(&before);
            println!("for three pages of {state:?}: {read}");
            assert!(read.sum() < 3 * READ, "for three pages of {state:?}: {read}");
        }
    }
}

#[tokio::test]
async fn lists_of_a_state_far_away_have_each_job_once_in_full_pages() {
    let large = far_away(BETWEEN, 2_500).await;
    let sql = |text: &str| large.sql(text);
    for order in [Order::NewestFirst, Order::OldestFirst] {
        for (state, _) in FAR {
            assert_listed(&large.store, &sql, order, state, 997).await;
        }
    }
}

/// Where it cannot be known when the jobs of a state were born they are found among all, with pages that are short.
#[tokio::test]
async fn what_can_only_be_looked_for_among_all_jobs_is_found_in_short_pages() {
    let large = far_away(20_000, 6_000).await;
    let sql = |text: &str| large.sql(text);
    let lists = async |state, order| {
        let query = ordered(Query::new().state(state).limit(1_000), order);
        let (got, pages) = listed(&large.store, &Scope::All, query).await;
        assert!(got == found(sql, condition(state), order), "{state:?}: {} jobs", got.len());
        pages
    };
    // What succeeded lies behind more than a page may look at.
    let pages = lists(State::Succeeded, Order::NewestFirst).await;
    assert!((21..30).contains(&pages), "{pages} pages of 20,000 jobs that succeeded");
    for prepare in [
        "UPDATE hodei.born SET known = false",
        "UPDATE hodei.born SET known = true;
         INSERT INTO hodei.lane (tenant, queue, class, request) SELECT 1, 'q' || g, 1, '' FROM generate_series(1, 1000) g",
    ] {
        large.sql(prepare);
        assert!(lists(State::Blocked, Order::NewestFirst).await < 20);
        assert!(lists(State::Pending, Order::OldestFirst).await < 20);
    }
}

/// A page that nothing is found for in the first look is looked for further on.
#[tokio::test]
async fn few_that_succeeded_are_found_behind_many_that_wait() {
    let large = far_away(15_000, 6_000).await;
    large.sql(
        "DELETE FROM hodei.done WHERE state <> 4;
         DELETE FROM hodei.job WHERE created_at < 1000000 AND id NOT IN (SELECT id FROM hodei.done UNION ALL
             SELECT id FROM hodei.ready UNION ALL SELECT id FROM hodei.delayed UNION ALL SELECT id FROM hodei.blocked);
         UPDATE hodei.total SET succeeded = 0, failed = 0, cancelled = 0;
         UPDATE hodei.delta SET succeeded = NULL, failed = NULL, cancelled = NULL;
         INSERT INTO hodei.delta (tenant, lane, succeeded) VALUES (1, 1, 15000)",
    );
    let page = large.store.query(&Scope::All, Query::new().state(State::Succeeded)).await.expect("query");
    assert_eq!(page.jobs.len(), 100);
}

/// Jobs on every way that they can go, which is how it comes to be written when they were born.
async fn of_every_kind(store: &PgStore) {
    let worker = owner(store, "worker").await;
    for new in [jobs(60), jobs_of("small", 60)] {
        submit(store, new).await;
    }
    let later = Timestamp::from_micros(4_000_000_000_000_000);
    let deferred: Vec<NewJob> = jobs(10).into_iter().map(|job| job.run_at(later)).collect();
    let parents = submit(store, deferred.clone()).await;
    submit(store, vec![job().run_at(later)]).await;
    let keyed = (0..5).map(|n| job().unique(format!("k{n}")).run_at(later)).collect();
    submit(store, keyed).await;
    let child = |id: JobId, requires| job().after([Parent { id, requires }]);
    let children: Vec<NewJob> = parents.iter().map(|id| child(*id, Requires::Success)).collect();
    store.submit(children, SubmitOptions::each()).await.expect("submit");
    let held = claim(store, &worker, 50).await;
    assert!(held.len() >= 86, "{}", held.len());
    let waiting = held[..3].iter().map(|held| child(held.job.id, Requires::Success)).collect();
    store.submit(waiting, SubmitOptions::each()).await.expect("submit");
    let failure = || Failure::new(FailureClass::Error, "broken");
    let finish = |finish| Move::Finished(Box::new(finish));
    // Some are held on.
    let steps: Vec<Transition> = held[..80]
        .iter()
        .enumerate()
        .map(|(n, held)| {
            let step = match n % 6 {
                0 => finish(Finish::succeeded(Output::none())),
                1 => finish(Finish::failed(failure())),
                2 => finish(Finish::cancelled()),
                3 => Move::Retried { failure: failure(), wait: Duration::from_secs(3_600), manifest: None },
                4 => Move::Retried { failure: failure(), wait: Duration::ZERO, manifest: None },
                _ => Move::Returned,
            };
            Transition { job: held.job.id, epoch: held.job.epoch, step }
        })
        .collect();
    // The end of a parent has its child go on.
    exchange(store, &worker, steps[..40].to_vec(), Vec::new()).await;
    for step in &steps[40..] {
        exchange(store, &worker, vec![step.clone()], Vec::new()).await;
    }
    store.request_cancel(&Scope::All, vec![parents[0], parents[1]]).await.expect("cancel");
    let failed = steps.iter().skip(1).step_by(6).take(4).map(|step| step.job).collect();
    store.redrive(&Scope::All, failed).await.expect("redrive");
}

#[tokio::test]
async fn it_is_written_when_jobs_were_born_whichever_way_they_go() {
    let database = database();
    let store = open(&database).await;
    of_every_kind(&store).await;
    // The time of some comes.
    sql(
        &database,
        "UPDATE hodei.delayed SET eligible_at = 1 WHERE id IN (SELECT id FROM hodei.delayed ORDER BY id LIMIT 7)",
    );
    sql(&database, "SELECT hodei.promote(hodei.now())");
    // Those were to run later from their birth on.
    sql(
        &database,
        "UPDATE hodei.job j SET eligible_at = 1 FROM hodei.ready r WHERE r.id = j.id AND r.eligible_at = 1",
    );
    for state in State::ALL {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            assert_listed(&store, &|text| sql(&database, text), order, state, 7).await;
        }
        if !matches!(state, State::Running) {
            let page = store.query(&Scope::All, Query::new().state(state)).await.expect("query");
            assert_ne!(page.jobs, [], "{state:?}");
        }
    }
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    store.close().await;
}

#[tokio::test]
async fn a_migration_writes_when_jobs_of_before_were_born() {
    let database = database();
    let store = open(&database).await;
    of_every_kind(&store).await;
    sql(
        &database,
        "UPDATE hodei.ready SET created_at = NULL; UPDATE hodei.delayed SET created_at = NULL;
         UPDATE hodei.blocked SET created_at = NULL; UPDATE hodei.done SET created_at = NULL;
         UPDATE hodei.born SET known = false",
    );
    let at = |place: &str| sql(&database, &format!("SELECT count(created_at) > 0 FROM hodei.{place}"));
    assert_listed(&store, &|text| sql(&database, text), Order::NewestFirst, State::Failed, 7).await;
    PgStore::migrate(&PgStore::builder(database.url())).await.expect("migrate");
    assert_eq!(["ready", "delayed", "blocked", "done"].map(at), ["t"; 4].map(str::to_owned));
    assert_eq!(sql(&database, "SELECT known FROM hodei.born"), "t");
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    store.close().await;
}
