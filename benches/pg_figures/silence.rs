//! What nodes send while there is nothing to do, as the server counts it.

use std::sync::Arc;
use std::time::Duration;

use hodei_benches::Node;
use hodei_benches::load::Marks;
use hodei_benches::report::{Goal, Report, Unit, say};
use hodei_test_servers::Postgres;

use crate::Sizes;
use crate::world;

/// How often a node beats unless it is told otherwise.
const BEAT: Duration = Duration::from_secs(2);
/// How long nodes have to come to rest: longer than anything that they remember of their start.
const REST: Duration = Duration::from_secs(14);
/// How many kinds of statements are shown of a node.
const SHOWN: usize = 12;

/// What the statement begins with by which a node makes sure that it hears the others, unlike one that only tells.
const PROBES: &str = "SELECT pg_notify($1, $2),%";
/// How often it does so at most.
const PROBE: Duration = Duration::from_secs(30);

/// What a node has sent.
struct Sent {
    /// How many statements, the probes left aside.
    statements: f64,
    probes: f64,
    /// The most frequent ones, and how often each was sent.
    kinds: Vec<String>,
}

/// A node as the server knows it: by a role of its own.
struct Known {
    role: &'static str,
    node: Node,
}

impl Known {
    async fn start(server: &Postgres, role: &'static str, password: &str) -> Result<Self, String> {
        let database = "postgres";
        let sql = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'");
        server.sql(database, &sql).map_err(|error| error.to_string())?;
        let address = hodei_test_servers::Server::address(server);
        let store = world::open(format!("postgres://{role}:{password}@{address}/{database}")).await?;
        let node = world::node(Arc::new(store), &Arc::new(Marks::new(0))).await?;
        Ok(Self { role, node })
    }

    /// What it has sent since that was counted.
    fn sent(&self, server: &Postgres) -> Result<Sent, String> {
        let role = self.role;
        let of = format!("FROM pg_stat_statements WHERE userid = '{role}'::regrole");
        let asked = |sql: String| server.sql("postgres", &sql).map_err(|error| error.to_string());
        let count = |which: &str| {
            let calls =
                asked(format!("SELECT coalesce(sum(calls), 0) {of} AND query {which} LIKE '{PROBES}'"))?;
            calls.parse().map_err(|_| format!("`{calls}` is no count"))
        };
        let kinds = asked(format!(
            "SELECT calls || ' x ' || left(regexp_replace(query, '\\s+', ' ', 'g'), 90) {of} ORDER BY calls DESC LIMIT {SHOWN}"
        ))?;
        let kinds = kinds.lines().map(str::to_owned).collect();
        Ok(Sent { statements: count("NOT")?, probes: count("")?, kinds })
    }
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let preloaded = Postgres::builder().setting("shared_preload_libraries", "pg_stat_statements");
    let server = preloaded.start().map_err(|error| error.to_string())?;
    let sql = |sql: &str| server.sql("postgres", sql).map_err(|error| error.to_string());
    sql("CREATE EXTENSION pg_stat_statements")?;
    // The first one leads.
    let leads = Known::start(&server, "node_leads", server.password()).await?;
    let idles = Known::start(&server, "node_idles", server.password()).await?;
    tokio::time::sleep(REST).await;
    let counted = BEAT * sizes.beats;
    sql("SELECT pg_stat_statements_reset()")?;
    tokio::time::sleep(counted).await;
    let sent = [leads.sent(&server)?, idles.sent(&server)?];
    for known in [leads, idles] {
        known.node.end().await;
    }
    let beats = f64::from(sizes.beats);
    report.group(&format!(
        "statements that nodes without work send beside a probe in 30 s, over {} heartbeats",
        sizes.beats
    ));
    let [leader, other] = &sent;
    report.judge(
        "the node that leads, in a heartbeat",
        leader.statements / beats,
        Unit::Plain,
        Goal::AtMost(1.0),
    );
    report.judge("the other node", other.statements, Unit::Plain, Goal::AtMost(0.0));
    // One more than fit evenly may fall into the time.
    let most = (counted.as_secs_f64() / PROBE.as_secs_f64()).ceil();
    for (sent, whose) in sent.iter().zip(["of the node that leads", "of the other node"]) {
        report.judge(&format!("  probes {whose}"), sent.probes, Unit::Plain, Goal::AtMost(most));
        sent.kinds.iter().for_each(|kind| say(&format!("    {kind}")));
    }
    Ok(())
}
