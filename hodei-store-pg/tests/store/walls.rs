//! The second wall between tenants, and what comes in by SQL.

use std::time::Duration;

use hodei_core::checkpoint::CheckpointStore;
use hodei_core::job::{Epoch, NewJob, Payload, State};
use hodei_core::store::{Consistency, JobStore, Limit, Policies, Query, QueuePolicy, Schedule, Scope};
use hodei_core::{Name, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::Database;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::env::{World, burn, claim, database, done, exchange, job, open, owner, spec, sql, submit};

/// The tables behind the wall for which something holds besides, by name; a part of a table is nobody's door.
fn walled(database: &Database, holds: &str) -> Vec<String> {
    let text = format!(
        "SELECT string_agg(c.relname, ' ' ORDER BY 1) FROM pg_class c
         WHERE c.relnamespace = 'hodei'::regnamespace AND c.relrowsecurity AND NOT c.relispartition AND ({holds})"
    );
    sql(database, &text).split_whitespace().map(str::to_owned).collect()
}

fn acme() -> Tenant {
    Tenant::new("acme").expect("a name")
}

/// Rows of two tenants in every table that has such, as many of each.
async fn populate(database: &Database, store: &PgStore) {
    let worker = owner(store, "worker").await;
    for tenant in [Tenant::default(), acme()] {
        let job = || NewJob::of(tenant.clone(), spec().limited_by("key").build().expect("a valid spec"));
        let ids = submit(store, vec![job(), job(), job().unique("k")]).await;
        let one_by_one = spec().limited_by("key").sequence("one-by-one").build().expect("a valid spec");
        let later = hodei_core::Timestamp::from_micros(4_000_000_000_000_000);
        submit(store, vec![NewJob::of(tenant.clone(), one_by_one).run_at(later)]).await;
        store.set_limit(Limit::tenant(tenant.clone(), 100)).await.expect("set_limit");
        let queue = Name::literal("paused");
        store
            .set_queue(QueuePolicy { tenant: tenant.clone(), queue, paused: true, weight: 1 })
            .await
            .expect("set_queue");
        let schedule = Schedule {
            tenant: tenant.clone(),
            name: Name::literal("daily"),
            rule: "".into(),
            spec: std::sync::Arc::new(spec().build().expect("a valid spec")),
            last_fired: None,
        };
        store.set_schedule(schedule).await.expect("set_schedule");
        let (checkpoints, epoch) = (store.checkpoints(), Epoch::from_number(1));
        checkpoints.save(&tenant, ids[0], epoch, bytes::Bytes::from_static(b"half")).await.expect("save");
        let later = hodei_core::Timestamp::from_micros(4_000_000_000_000_000);
        submit(store, vec![job().run_at(later)]).await;
        let parent = hodei_core::job::Parent { id: ids[2], requires: hodei_core::job::Requires::Success };
        submit(store, vec![job().after([parent])]).await;
    }
    let held = claim(store, &worker, 2).await;
    let ends = [0, 2].map(|n| done(held[n].job.id, held[n].job.epoch)).to_vec();
    exchange(store, &worker, ends, Vec::new()).await;
    // What no verb leaves there for long, or where it says nothing.
    sql(
        database,
        "SELECT hodei.fold();
         INSERT INTO hodei.delta (tenant, lane, changes) SELECT tenant, no, 0 FROM hodei.lane;
         UPDATE hodei.usage SET in_use = in_use + 1;
         INSERT INTO hodei.freed (no, n) SELECT no, 1 FROM hodei.usage;
         INSERT INTO hodei.price (lane, tokens) SELECT no, 1 FROM hodei.lane;
         INSERT INTO hodei.inbox (tenant, queue, kind, args, priority, refused, refused_at)
             SELECT name, 'default', 'kind', 'null', 32, 'not wanted', hodei.now() FROM hodei.tenant",
    );
    for table in walled(database, "true") {
        assert_ne!(sql(database, &format!("SELECT count(*) FROM hodei.{table}")), "0", "{table} is empty");
    }
}

async fn count(conn: &mut PgConnection, table: &str) -> Result<i64, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM hodei.{table}"));
    sqlx::query(sql).fetch_one(conn).await.and_then(|row| row.try_get(0))
}

fn role(database: &Database, name: &str) -> String {
    sql(database, &format!("DROP ROLE IF EXISTS {name}"));
    sql(database, &format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'"));
    database.url_as(name, "secret")
}

#[tokio::test]
async fn a_hostile_tenant_sees_and_changes_nothing_of_others() {
    let database = database();
    let store = open(&database).await;
    populate(&database, &store).await;
    let url = role(&database, "hostile");
    sql(&database, "SELECT hodei.admit('hostile', 'acme')");
    let mut hostile = PgConnection::connect(&url).await.expect("a connection");
    let open_to_it =
        |may: &str| walled(&database, &format!("{may} has_table_privilege('hostile', c.oid, 'SELECT')"));
    let (granted, kept) = (open_to_it(""), open_to_it("NOT"));
    for table in &kept {
        assert!(count(&mut hostile, table).await.is_err(), "{table} is none of its business");
    }
    assert!(granted.len() >= 18, "{granted:?}");
    for pretended in ["", "default", "acme", "nobody"] {
        sqlx::query("SELECT set_config('hodei.tenant', $1, false)")
            .bind(pretended)
            .execute(&mut hostile)
            .await
            .expect("set");
        for table in &granted {
            let all: i64 =
                sql(&database, &format!("SELECT count(*) FROM hodei.{table}")).parse().expect("a number");
            let seen = count(&mut hostile, table).await.expect("it may look");
            assert!(seen <= all / 2, "{table} as {pretended:?}: {seen} of {all}");
            assert!(seen > 0, "{table}: its own are there");
        }
    }
    for attack in [
        "UPDATE hodei.job SET tenant = tenant",
        "DELETE FROM hodei.ready",
        "INSERT INTO hodei.role_tenant VALUES ('hostile', 1)",
        "SELECT hodei.promote(9000000000000000000)",
        "SELECT * FROM hodei.claim(1, 9000000000000000000, 0, true, '{1,2}', '{63,63}', '{9,9}', NULL, NULL, true)",
        "SELECT hodei.admit('hostile', 'default')",
        "SELECT hodei.enqueue('kind', tenant => 'default')",
        "SELECT hodei.enqueue('kind', to_jsonb(repeat('x', 2000000)), tenant => 'acme')",
        "INSERT INTO hodei.inbox (no, tenant, queue, kind, args, priority) OVERRIDING SYSTEM VALUE
             VALUES (2, 'acme', 'default', 'kind', 'null', 32)",
        "INSERT INTO hodei.inbox (tenant, queue, kind, args, priority, refused)
             VALUES ('acme', 'default', 'kind', 'null', 32, 'by me')",
        "ALTER TABLE hodei.job DISABLE ROW LEVEL SECURITY",
        "SELECT count(*) FROM hodei.role_tenant",
        "SELECT count(*) FROM hodei.owner",
    ] {
        let refused = sqlx::query(attack).execute(&mut hostile).await;
        assert!(refused.is_err(), "{attack}");
    }
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    hostile.close().await.expect("close");
    sql(&database, "DROP OWNED BY hostile; DROP ROLE hostile");
}

#[tokio::test]
async fn the_wall_stands_for_the_owner_of_the_tables_too() {
    let database = database();
    let url = role(&database, "engine");
    sql(&database, &format!("ALTER DATABASE {} OWNER TO engine", database.name()));
    let store = PgStore::builder(url.clone()).connect().await.expect("the store opens");
    populate(&database, &store).await;
    let own = store.query(&Scope::Tenant(acme()), Query::new()).await.expect("query").jobs;
    assert!(!own.is_empty() && own.iter().all(|job| job.tenant == acme()));
    let mut forgetful = PgConnection::connect(&url).await.expect("a connection");
    // The names of tenants are where the wall looks them up.
    assert_eq!(walled(&database, "NOT c.relforcerowsecurity"), ["tenant"]);
    for table in &walled(&database, "c.relforcerowsecurity") {
        for tenant in ["acme", "default"] {
            let mut tx = forgetful.begin().await.expect("begin");
            let all = count(&mut tx, table).await.expect("count");
            let set = sqlx::query("SELECT set_config('hodei.tenant', $1, true)").bind(tenant);
            set.execute(&mut *tx).await.expect("set");
            let seen = count(&mut tx, table).await.expect("count");
            assert!(seen > 0 && seen <= all / 2, "{table} of {tenant}: {seen} of {all}");
            // Also of the one whose leases do not name it.
            assert!(table != "leased" || (seen, all) == (1, 2), "{tenant}: {seen} of {all}");
        }
    }
    forgetful.close().await.expect("close");
    let worker = owner(&store, "last").await;
    assert_eq!(burn(&store, &worker, 9).await, 4, "no wall stands before the engine itself");
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    store.close().await;
}

#[tokio::test]
async fn what_is_asked_for_by_sql_becomes_a_job_once() {
    let database = database();
    let stores = [open(&database).await, open(&database).await];
    let ask = "SELECT hodei.enqueue('resize', '{\"width\": 7}', queue => 'images', tenant => 'acme', priority => 40)";
    sql(&database, &format!("BEGIN; {ask}; ROLLBACK"));
    for _ in 0..3 {
        sql(&database, ask);
    }
    for _ in 0..2 {
        sql(&database, "SELECT hodei.enqueue('once', unique_key => 'k', delay => '1 hour')");
    }
    let made = async {
        while stores[0].counts(&Scope::All).await.expect("counts").total() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made).await.expect("a node makes jobs of it");
    let listed = stores[1].query(&Scope::Tenant(acme()), Query::new()).await.expect("query").jobs;
    assert_eq!(listed.len(), 3);
    let read = stores[1].get_many(&Scope::All, vec![listed[0].id], Consistency::Latest).await.expect("get");
    let read = read[0].as_ref().expect("it is there");
    assert_eq!(
        (read.state, read.spec.queue().as_str(), read.spec.priority().level()),
        (State::Pending, "images", 40)
    );
    let Payload::Handler { kind, args, .. } = read.spec.payload() else { panic!("a handler") };
    assert_eq!((kind, &args[..]), (&Name::literal("resize"), &br#"{"width": 7}"#[..]));
    assert_eq!(stores[0].counts(&Scope::All).await.expect("counts").total(), 4, "a key is taken once");
    let refused = crate::env::try_sql(&database, "SELECT hodei.enqueue('no name', tenant => '../x')");
    assert!(refused.is_err(), "a bad name is refused at once");
    submit(&stores[0], vec![job()]).await;
}

#[tokio::test]
async fn what_comes_in_by_sql_is_held_to_the_bounds_and_stands_in_nobodys_way() {
    let database = database();
    let closed = open(&database).await;
    closed.close().await;
    for (tenant, queue) in [("acme", "a"), ("acme", "b"), ("acme", "a"), ("acme", "a"), ("other", "a")] {
        sql(&database, &format!("SELECT hodei.enqueue('kind', queue => '{queue}', tenant => '{tenant}')"));
    }
    sql(
        &database,
        "INSERT INTO hodei.inbox (tenant, queue, kind, args, priority, refused, refused_at)
             VALUES ('acme', 'a', 'kind', 'null', 32, 'long ago', 0)",
    );
    let bounded = PgStore::builder(database.url()).tenant_max_open(2).tenant_max_lanes(1);
    let store = bounded.connect().await.expect("the store opens");
    let made = async {
        while sql(&database, "SELECT count(*) FROM hodei.inbox WHERE refused IS NULL") != "0" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made).await.expect("a node looks at all of it");
    assert_eq!(store.counts(&Scope::Tenant(acme())).await.expect("counts").total(), 2);
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 3);
    let refused = "SELECT string_agg(no || ' ' || refused, ', ' ORDER BY no) FROM hodei.inbox";
    assert_eq!(sql(&database, refused), "2 too many queues, 4 too many unsettled jobs");
    let job = NewJob::of(acme(), spec().queue("c").build().expect("a valid spec"));
    let full = store.submit(vec![job], hodei_core::store::SubmitOptions::each()).await;
    assert_eq!(full.expect_err("a second queue").kind(), hodei_core::ErrorKind::Full);
}

#[tokio::test]
async fn a_role_that_was_dropped_takes_nobodys_sight() {
    let database = database();
    let store = open(&database).await;
    populate(&database, &store).await;
    let url = role(&database, "reader");
    role(&database, "leaver");
    sql(&database, "SELECT hodei.admit('reader', 'acme'); SELECT hodei.admit('leaver', 'acme')");
    sql(&database, "DROP OWNED BY leaver; DROP ROLE leaver");
    let mut reader = PgConnection::connect(&url).await.expect("a connection");
    assert!(count(&mut reader, "job").await.expect("it may look") > 0);
    reader.close().await.expect("close");
    sql(&database, "DROP OWNED BY reader; DROP ROLE reader");
}

#[tokio::test]
async fn whoever_asks_for_work_and_does_not_commit_holds_up_no_log() {
    // A server of its own: the log ends where the oldest transaction on it began.
    let world = World::start(&hodei_test_servers::Postgres::builder());
    let store = open(&world.database).await;
    let mut host = PgConnection::connect(&world.database.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    sqlx::query("SELECT hodei.enqueue('kind')").execute(&mut *tx).await.expect("enqueue");
    let id = submit(&store, vec![job()]).await[0];
    let told = async {
        loop {
            let page = store.changes(&Scope::All, None, 10).await.expect("changes");
            if page.changes.iter().any(|change| change.job == id) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("it is told of while the other is open");
    tx.rollback().await.expect("rollback");
    store.close().await;
}

#[tokio::test]
async fn hostile_requests_stand_in_nobodys_way() {
    let database = database();
    let store = open(&database).await;
    let hostile = [
        "'\\xff', -9223372036854775808, NULL",
        "'nope', 9223372036854775807, NULL",
        "'', 1, E'a\nb'",
        "'1', NULL, 'open:x'",
        "'1', NULL, 'unfailed:'",
        "'1', NULL, repeat('\u{e9}', 128)",
    ];
    for (n, values) in hostile.iter().enumerate() {
        let text = format!(
            "INSERT INTO hodei.inbox (tenant, queue, kind, args, run_at, unique_key, priority)
             VALUES ('acme', 'q', 'kind{n}', {values}, 63)"
        );
        sql(&database, &text);
    }
    sql(&database, "SELECT hodei.enqueue('kind', delay => '200000 years')");
    sql(&database, "SELECT hodei.enqueue('last', tenant => 'other')");
    let made = async {
        while sql(&database, "SELECT count(*) FROM hodei.inbox WHERE refused IS NULL") != "0" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), made).await.expect("a node looks at all of it");
    println!("{}", sql(&database, "SELECT kind, refused FROM hodei.inbox ORDER BY no"));
    assert_eq!(
        store.counts(&Scope::Tenant(Tenant::new("other").expect("a name"))).await.expect("counts").total(),
        1
    );
    let worker = owner(&store, "worker").await;
    claim(&store, &worker, 10).await;
    store.query(&Scope::All, Query::new()).await.expect("query");
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}
