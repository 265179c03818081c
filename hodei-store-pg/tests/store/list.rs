//! Pages of lists: complete, in order, and without reading what is not in them.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_core::job::{NewJob, State};
use hodei_core::store::{CancelReply, Consistency, JobStore, Order, Query, Redriven, Scope};
use hodei_core::{JobId, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};

use crate::env::{claim, database, job, open, owner, spec, sql, submit};

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a name")
}

pub(crate) fn jobs_of(name: &str, n: usize) -> Vec<NewJob> {
    (0..n).map(|_| NewJob::of(tenant(name), spec().build().expect("a valid spec"))).collect()
}

/// Reads a list to its end, a page after the other, and returns its jobs and how many pages there were.
pub(crate) async fn listed(store: &PgStore, scope: &Scope, query: Query) -> (Vec<JobId>, usize) {
    let (mut all, mut pages, mut next) = (Vec::new(), 0, query);
    loop {
        let page = store.query(scope, next.clone()).await.expect("query");
        assert!(page.jobs.len() <= next.limit);
        all.extend(page.jobs.iter().map(|job| job.id));
        pages += 1;
        match page.next {
            Some(cursor) => next = next.after(cursor),
            None => return (all, pages),
        }
    }
}

/// What the server finds with a condition, in the order of a list.
fn expected(database: &Database, condition: &str, order: Order) -> Vec<JobId> {
    found(|text| sql(database, text), condition, order)
}

/// What a server finds with a condition, in the order of a list.
pub(crate) fn found(sql: impl Fn(&str) -> String, condition: &str, order: Order) -> Vec<JobId> {
    let way = if order == Order::NewestFirst { "DESC" } else { "ASC" };
    let ids = sql(&format!(
        "SELECT string_agg(j.id::text, ' ' ORDER BY j.created_at {way}, j.id {way}) FROM hodei.job j
         JOIN hodei.tenant t ON t.no = j.tenant WHERE {condition}"
    ));
    ids.split_whitespace().map(|id| id.parse().expect("an id")).collect()
}

/// Tenants of every size, whose jobs were submitted in any order.
async fn populated(database: &Database) -> PgStore {
    let store = open(database).await;
    for (n, size) in [400, 90, 60, 1, 1, 30].into_iter().chain([5; 20]).enumerate() {
        let new = jobs_of(&format!("t{n:02}"), size);
        submit(&store, new).await;
    }
    sql(
        database,
        "SELECT setseed(0.5);
         UPDATE hodei.job SET eligible_at = coalesce(eligible_at, created_at), created_at = (random() * 200)::int8;
         UPDATE hodei.job j SET created_at = 150 + created_at % 5 FROM hodei.tenant t
             WHERE t.no = j.tenant AND t.name = 't01';
         UPDATE hodei.ready r SET created_at = j.created_at FROM hodei.job j WHERE j.id = r.id",
    );
    store
}

#[tokio::test]
async fn pages_over_tenants_of_every_size_are_complete_and_in_order() {
    let database = database();
    let store = populated(&database).await;
    for (order, limit) in [(Order::OldestFirst, 7), (Order::NewestFirst, 7), (Order::NewestFirst, 150)] {
        let of = || {
            let query = Query::new().limit(limit);
            if order == Order::OldestFirst { query.oldest_first() } else { query }
        };
        assert_eq!(listed(&store, &Scope::All, of()).await.0, expected(&database, "true", order));
        for name in ["t00", "t01", "t03", "t25"] {
            let listed = listed(&store, &Scope::Tenant(tenant(name)), of()).await;
            let of_tenant = expected(&database, &format!("t.name = '{name}'"), order);
            assert_eq!(listed, (of_tenant.clone(), of_tenant.len().div_ceil(limit).max(1)), "{name}");
        }
    }
}

#[tokio::test]
async fn pages_of_a_state_are_complete_whichever_way_they_are_looked_for() {
    let database = database();
    let store = populated(&database).await;
    let worker = owner(&store, "worker").await;
    let held = claim(&store, &worker, 11).await;
    assert!(held.len() > 100, "{}", held.len());
    let pending = "EXISTS (SELECT 1 FROM hodei.ready r WHERE r.id = j.id)";
    for (state, condition) in [
        (State::Pending, pending),
        (
            State::Scheduled,
            "EXISTS (SELECT 1 FROM hodei.leased r
            WHERE r.id = j.id)",
        ),
    ] {
        for (scope, of) in [
            (Scope::All, "true"),
            (Scope::Tenant(tenant("t00")), "t.name = 't00'"),
            (Scope::Tenant(tenant("t09")), "t.name = 't09'"),
        ] {
            let found = listed(&store, &scope, Query::new().state(state).limit(9)).await.0;
            let condition = format!("{condition} AND {of}");
            assert_eq!(found, expected(&database, &condition, Order::NewestFirst), "{state:?} of {scope:?}");
        }
    }
    let none = Query::new().state(State::Failed);
    assert_eq!(store.query(&Scope::All, none).await.expect("query").jobs, []);
}

/// How many rows and index entries were read, of each table and index.
pub(crate) struct Read(BTreeMap<String, u64>);

impl Read {
    pub(crate) fn sum(&self) -> u64 {
        self.0.values().sum()
    }
}

impl std::fmt::Display for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows read, {:?}", self.sum(), self.0)
    }
}

/// Jobs of the kind of the one that there is: most have succeeded, and the others wait.
const MANY: &str = "INSERT INTO hodei.job SELECT gen_random_uuid(), j.fingerprint, g, g, j.tenant, j.lane, j.rank, NULL, NULL, j.name,
         j.body FROM hodei.job j, generate_series(1, 130000) g;
     INSERT INTO hodei.done (id, moved_at, tenant, state) SELECT id, created_at, tenant, 4 FROM hodei.job
         WHERE created_at <= 130000 AND created_at % 13 > 2;
     INSERT INTO hodei.ready (id, eligible_at, lane, rank) SELECT id, eligible_at, lane, rank FROM hodei.job
         WHERE created_at <= 130000 AND created_at % 13 <= 2;
     INSERT INTO hodei.delta (tenant, lane, succeeded, pending)
         SELECT 1, 1, (SELECT count(*) FROM hodei.done), (SELECT count(*) - 1 FROM hodei.ready)";

/// A server that reads nothing by itself, with many jobs that have succeeded and some that wait.
pub(crate) struct Large {
    server: Postgres,
    pub(crate) database: Database,
    pub(crate) store: PgStore,
}

impl Large {
    pub(crate) async fn new() -> Self {
        let large = Self::start().await;
        large.sql(MANY);
        large
    }

    /// The server with one job.
    pub(crate) async fn start() -> Self {
        let server = Postgres::builder().setting("autovacuum", "off").start().expect("PostgreSQL");
        let database = server.database().expect("a database");
        let store = open(&database).await;
        submit(&store, vec![job()]).await;
        Self { server, database, store }
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        self.server.sql(self.database.name(), text).expect("the server answers")
    }

    /// How many rows and index entries the server has read of each table and index.
    async fn read(&self) -> BTreeMap<String, u64> {
        // What a session counted is told when it is idle for a second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        self.counted()
    }

    /// How many of them the sessions have told of.
    pub(crate) fn counted(&self) -> BTreeMap<String, u64> {
        let read = "SELECT indexrelname || ' ' || idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = 'hodei'
            UNION ALL SELECT relname || ' ' || seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'hodei'";
        let row = |line: &str| {
            let (name, rows) = line.split_once(' ').expect("a name and a number");
            (name.to_owned(), rows.parse().expect("a number"))
        };
        self.sql(read).lines().map(row).collect()
    }

    /// What a call reads.
    async fn spent(&self, call: impl Future<Output = ()>) -> Read {
        let before = self.read().await;
        call.await;
        let read = self.read().await;
        Self::difference(&before, read)
    }

    /// What was read since.
    pub(crate) fn since(&self, before: &BTreeMap<String, u64>) -> Read {
        Self::difference(before, self.counted())
    }

    fn difference(before: &BTreeMap<String, u64>, mut read: BTreeMap<String, u64>) -> Read {
        read.iter_mut().for_each(|(name, rows)| *rows -= before.get(name).copied().unwrap_or_default());
        read.retain(|_, rows| *rows > 0);
        Read(read)
    }

    /// What a page reads.
    async fn page(&self, scope: &Scope, query: Query, jobs: usize) -> Read {
        let page = async || self.store.query(scope, query.clone()).await.expect("query").jobs.len();
        // What is read once is read before.
        page().await;
        self.spent(async { assert_eq!(page().await, jobs) }).await
    }
}

#[tokio::test]
async fn a_page_reads_little_more_than_what_is_in_it() {
    let large = Large::new().await;
    submit(&large.store, jobs_of("small", 5)).await;
    let small = Scope::Tenant(tenant("small"));
    for analyzed in [false, true] {
        if analyzed {
            large.sql("VACUUM ANALYZE");
        }
        for query in [Query::new(), Query::new().oldest_first(), Query::new().state(State::Pending)] {
            let rows = large.page(&small, query, 5).await;
            println!("for a page of five jobs: {rows}");
            assert!(rows.sum() < 200, "for a page of five jobs: {rows}");
        }
        let rows = large.page(&Scope::All, Query::new(), 100).await;
        println!("for a page of a hundred jobs: {rows}");
        assert!(rows.sum() < 2_000, "for a page of a hundred jobs: {rows}");
        // Of more than are looked for by their state.
        let rows = large.page(&Scope::All, Query::new().state(State::Pending), 100).await;
        println!("for a page of a hundred jobs that wait: {rows}");
        assert!(rows.sum() < 10_000, "for a page of a hundred jobs that wait: {rows}");
    }
}

/// The wall before the rows of others is no reason to look at them.
#[tokio::test]
async fn a_tenant_reads_and_stops_its_jobs_without_a_look_at_those_of_others() {
    let large = Large::new().await;
    let ids = submit(&large.store, jobs_of("small", 5)).await;
    let (small, store) = (Scope::Tenant(tenant("small")), &large.store);
    for analyzed in [false, true] {
        if analyzed {
            large.sql("VACUUM ANALYZE");
        }
        let get = async {
            let jobs = store.get_many(&small, ids.clone(), Consistency::Latest).await.expect("get_many");
            assert!(jobs.iter().all(Option::is_some));
        };
        let rows = large.spent(get).await;
        println!("to get five jobs: {rows}");
        assert!(rows.sum() < 200, "to get five jobs: {rows}");
        let cancel = async {
            let replies = store.request_cancel(&small, ids.clone()).await.expect("request_cancel").replies;
            assert_eq!(replies, vec![CancelReply::Cancelled; 5]);
        };
        let rows = large.spent(cancel).await;
        println!("to cancel five jobs: {rows}");
        assert!(rows.sum() < 500, "to cancel five jobs: {rows}");
        let redrive = async {
            let replies = store.redrive(&small, ids.clone()).await.expect("redrive").replies;
            assert_eq!(replies, vec![Redriven::Done; 5]);
        };
        let rows = large.spent(redrive).await;
        println!("to redrive five jobs: {rows}");
        assert!(rows.sum() < 500, "to redrive five jobs: {rows}");
    }
}
