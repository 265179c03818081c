//! A process that is killed loses nothing that it acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

use hodei_core::JobId;
use hodei_core::job::State;
use hodei_core::store::{Consistency, JobStore, Scope};
use hodei_store_redb::RedbStore;

use crate::child::{Order, say, spawn};
use crate::env::{Env, claim, done, job, owner, report, submit};

/// How many submit at once in the process that will be killed.
const SUBMITTERS: usize = 8;

/// Submits and settles until somebody kills the process.
pub(crate) fn work(store: RedbStore) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async move {
        for _ in 0..SUBMITTERS {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    for id in submit(&store, vec![job()]).await {
                        say(format_args!("stored {id}"));
                    }
                }
            });
        }
        let node = owner(&store, "node").await;
        loop {
            for of in claim(&store, &node, 4).await {
                report(&store, &node, (of.job.id, of.job.epoch), done()).await;
                say(format_args!("done {}", of.job.id));
            }
            tokio::task::yield_now().await;
        }
    });
}

/// Reads what a child says until it is killed after so many lines: (stored, done).
fn acknowledged_before(env: &Env, lines: usize) -> (Vec<String>, Vec<String>) {
    let mut child = spawn(Order::Work, &env.path());
    let said = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut stored, mut finished, mut heard) = (Vec::new(), Vec::new(), 0);
    for line in said.lines() {
        let line = line.expect("text");
        if let Some(id) = line.strip_prefix("stored ") {
            stored.push(id.to_owned());
        } else if let Some(id) = line.strip_prefix("done ") {
            finished.push(id.to_owned());
        } else {
            continue;
        }
        heard += 1;
        if heard == lines {
            child.kill().expect("it lives");
        }
    }
    child.wait().expect("it was killed");
    assert!(heard >= lines, "it was killed while it worked");
    (stored, finished)
}

async fn states(store: &RedbStore, ids: &[String]) -> Vec<Option<State>> {
    let ids: Vec<JobId> = ids.iter().map(|id| id.parse().expect("an id")).collect();
    let jobs = store.get_many(&Scope::All, ids, Consistency::Latest).await.expect("the store is sound");
    jobs.into_iter().map(|job| job.map(|job| job.state)).collect()
}

#[tokio::test]
async fn every_acknowledged_job_is_there_after_each_of_several_kills() {
    let env = Env::new();
    let (mut stored, mut finished) = (BTreeSet::new(), BTreeSet::new());
    for lines in [1, 40, 7, 150, 300] {
        let (more, ended) = acknowledged_before(&env, lines);
        stored.extend(more);
        finished.extend(ended);
        let store = env.open();
        let (stored, finished): (Vec<_>, Vec<_>) =
            (stored.iter().cloned().collect(), finished.iter().cloned().collect());
        assert!(states(&store, &stored).await.iter().all(Option::is_some));
        assert!(states(&store, &finished).await.iter().all(|state| *state == Some(State::Succeeded)));
        let total = store.counts(&Scope::All).await.unwrap().total();
        assert!(total >= stored.len() as u64);
        assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    }
}
