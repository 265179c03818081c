//! Several nodes on one database: each hears what the others commit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use hodei_core::job::Cause;
use hodei_core::store::{Change, ChangeSink, Coordination, JobStore, Retention, Scope};
use hodei_store_pg::PgStore;

use crate::env::{burn, claim, database, job, jobs, open, owner, sql, submit};

/// Longer than anything here takes, unless it never comes.
const SOON: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Ear(Mutex<Vec<Change>>);

impl Ear {
    fn heard(&self) -> Vec<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Submits until it hears of it: from then on it hears everything. Returns how much it has heard by then.
    pub(crate) async fn begun(&self, node: &PgStore) -> usize {
        let begun = async {
            loop {
                let id = submit(node, vec![job()]).await[0];
                for _ in 0..20 {
                    let heard = self.heard();
                    if heard.last().is_some_and(|change| change.job == id) {
                        return heard.len();
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        tokio::time::timeout(SOON, begun).await.expect("it listens")
    }

    pub(crate) async fn hears(&self, n: usize) -> Vec<Change> {
        let heard = async {
            while self.heard().len() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("{:?}", self.heard()));
        self.heard()
    }
}

impl ChangeSink for Ear {
    fn committed(&self, changes: &[Change]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(changes);
    }
}

#[tokio::test]
async fn a_submission_wakes_another_node() {
    let database = database();
    let (here, there) = (open(&database).await, open(&database).await);
    let mut wakeups = there.wakeups();
    // Listening begins beside the opening, and rings when it has begun.
    tokio::time::timeout(SOON, wakeups.next()).await.expect("it listens");
    submit(&here, vec![job()]).await;
    tokio::time::timeout(SOON, wakeups.next()).await.expect("it is told");
    assert_eq!(claim(&there, &owner(&there, "there").await, 1).await.len(), 1);
}

#[tokio::test]
async fn a_sink_is_told_what_other_nodes_commit_each_once() {
    let database = database();
    let (here, there) = (open(&database).await, open(&database).await);
    let ear = Arc::<Ear>::default();
    let _feed = there.feed(Arc::<Ear>::clone(&ear));
    let begun = ear.begun(&here).await;
    let run = owner(&here, "here").await;
    let probes = burn(&here, &run, 1_000).await;
    submit(&here, jobs(40)).await;
    assert_eq!(burn(&here, &run, 7).await, 40);
    let most = begun + 2 * probes + 120;
    let heard = ear.hears(most).await;
    let log = here.changes(&Scope::All, None, 1_000).await.expect("changes").changes;
    assert_eq!(heard, log[log.len() - most..]);
    let mut ids = [submit(&there, vec![job()]).await, submit(&here, vec![job()]).await].concat();
    let last = ear.hears(most + 2).await.split_off(most);
    assert!(last.iter().all(|change| change.cause == Cause::Submitted), "{last:?}");
    let mut heard: Vec<_> = last.iter().map(|change| change.job).collect();
    ids.sort_unstable();
    heard.sort_unstable();
    assert_eq!(heard, ids, "its own once");
}

#[tokio::test]
async fn a_sink_is_told_what_was_committed_while_the_log_could_not_be_read() {
    let database = database();
    let (here, there) = (open(&database).await, open(&database).await);
    let ear = Arc::<Ear>::default();
    let _feed = there.feed(Arc::<Ear>::clone(&ear));
    let begun = ear.begun(&here).await;
    let horizon = sql(&database, "SELECT pg_get_functiondef('hodei.horizon'::regproc)");
    sql(
        &database,
        "CREATE OR REPLACE FUNCTION hodei.horizon() RETURNS int8 LANGUAGE plpgsql STABLE AS
         $$ BEGIN RAISE EXCEPTION 'not now'; END $$",
    );
    submit(&here, jobs(3)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ear.heard().len(), begun, "nobody can read it");
    sql(&database, &horizon);
    ear.hears(begun + 3).await;
}

#[tokio::test]
async fn what_is_not_complete_is_pruned_as_soon_as_it_is() {
    let database = database();
    let store = open(&database).await;
    let leader = owner(&store, "leader").await;
    let maintain = "maintain".parse().expect("name");
    let term = store.take_term(&maintain, &leader, Duration::from_secs(600)).await;
    let term = term.expect("take_term").expect("nobody leads");
    let kept = Retention { changes: 4, ..Retention::default() };
    let horizon = sql(&database, "SELECT pg_get_functiondef('hodei.horizon'::regproc)");
    sql(&database, &horizon.replacen("hodei.horizon", "hodei.horizon_then", 1));
    sql(&database, "CREATE SEQUENCE hodei.looks");
    // Looks before the one with this number find that a transaction is under way which began before all that is there.
    let held_until = async |look: i32| {
        sql(
            &database,
            &format!(
                "CREATE OR REPLACE FUNCTION hodei.horizon() RETURNS int8 LANGUAGE sql STABLE AS
                 $$ SELECT CASE WHEN nextval('hodei.looks') >= {look} THEN hodei.horizon_then() ELSE 0 END $$;
                 ALTER SEQUENCE hodei.looks RESTART"
            ),
        );
        let pruned = store.prune(&term, kept, 100).await.expect("prune");
        (pruned.changes, pruned.more)
    };
    submit(&store, jobs(10)).await;
    assert_eq!(held_until(i32::MAX).await, (0, false), "to come back at once is in vain");
    assert_eq!(held_until(3).await, (6, false), "it looks again");
}

#[tokio::test]
async fn nodes_that_race_for_jobs_get_each_once() {
    let database = database();
    let nodes = [open(&database).await, open(&database).await, open(&database).await];
    submit(&nodes[0], jobs(3_000)).await;
    let mut running = tokio::task::JoinSet::new();
    for (n, node) in nodes.iter().enumerate() {
        let node = node.clone();
        running.spawn(async move {
            let owner = owner(&node, &format!("node-{n}")).await;
            burn(&node, &owner, 50).await
        });
    }
    assert_eq!(running.join_all().await.into_iter().sum::<usize>(), 3_000);
    assert_eq!(nodes[1].verify_indexes().await.expect("verify"), Vec::<String>::new());
    let counts = nodes[2].counts(&Scope::All).await.expect("counts");
    assert_eq!((counts.open(), counts.total()), (0, 3_000));
}

#[tokio::test]
async fn many_callers_share_statements_and_each_gets_its_own_answer() {
    let store = open(&database()).await;
    submit(&store, vec![job()]).await;
    let before = store.round_trips();
    let mut calling = tokio::task::JoinSet::new();
    for _ in 0..256 {
        let store = store.clone();
        calling.spawn(async move {
            let job = job();
            let id = job.id;
            assert_eq!(submit(&store, vec![job]).await, [id]);
        });
    }
    calling.join_all().await;
    let trips = store.round_trips() - before;
    assert!(trips < 128, "{trips} round trips for 256 calls");
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 257);
}

#[tokio::test]
async fn a_node_that_retires_is_dead_everywhere_at_once() {
    let database = database();
    let (here, there) = (open(&database).await, open(&database).await);
    let gone = owner(&here, "gone").await;
    submit(&here, vec![job()]).await;
    assert_eq!(claim(&here, &gone, 1).await.len(), 1);
    there.retire(&gone).await.expect("retire");
    let beats = here.beat(vec![gone], Duration::from_secs(9)).await.expect("beat");
    assert!(!beats[0].alive);
}
