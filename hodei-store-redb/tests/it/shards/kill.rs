//! A process that is killed while it moves slots loses nothing, and whoever comes next finishes the moves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::Tenant;
use hodei_core::store::{Shard, ShardedStore};
use hodei_store_redb::RedbStore;

use super::world::tenant_in;
use crate::child::{Order, say};
use crate::env::{Env, claim, done, job_of, owner, report, spec};
use crate::faults::{Numbers, variable};
use crate::kill::{Acknowledged, kill_after};

/// How often a process is killed; the environment variable `HODEI_STORE_KILLS` sets another number.
const KILLS: usize = 16;
/// How many processes are killed on the same files.
const KILLS_PER_FILE: usize = 8;
const TENANTS: usize = 4;

fn tenants() -> Vec<Tenant> {
    (0..TENANTS).map(|n| tenant_in(n % 2, 2, n / 2)).collect()
}

/// Opens the file and the one beside it as one store.
async fn open(file: &Path) -> ShardedStore {
    let open =
        |path: &Path| RedbStore::builder(path).cache_bytes(16 << 20).open().expect("the file is sound");
    let second = file.with_extension("second");
    let shards: Vec<Arc<dyn Shard>> = vec![Arc::new(open(file)), Arc::new(open(&second))];
    ShardedStore::open(shards).await.expect("they are shards of one store")
}

/// Submits, settles and moves until somebody kills the process.
pub(crate) fn work(file: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async move {
        let store = open(file).await;
        store.resume_moves().await.expect("what was left half done is finished");
        say("open");
        for tenant in tenants() {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    // A slot on the move refuses: another job is tried a moment later.
                    let job = job_of(&tenant, spec());
                    let id = job.id;
                    let options = hodei_core::store::SubmitOptions::each();
                    match hodei_core::store::JobStore::submit(&store, vec![job], options).await {
                        Ok(_) => say(format_args!("stored {id}")),
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
            });
        }
        let moving = store.clone();
        tokio::spawn(async move {
            let (mut numbers, tenants) = (Numbers::new(3), tenants());
            loop {
                let slot = tenants[numbers.below(TENANTS)].slot();
                moving.move_slot(slot, numbers.below(2)).await.expect("it moves");
            }
        });
        let node = owner(&store, "node").await;
        loop {
            for of in claim(&store, &node, 4).await {
                let ended = report(&store, &node, (of.job.id, of.job.epoch), done()).await;
                if ended == hodei_core::store::Applied::Done {
                    say(format_args!("done {}", of.job.id));
                }
            }
            tokio::task::yield_now().await;
        }
    });
}

#[tokio::test]
async fn every_acknowledged_job_is_there_once_after_each_kill_amid_moves() {
    let kills = variable("HODEI_STORE_KILLS", KILLS);
    let seed = variable("HODEI_STORE_KILLS_SEED", u64::from(std::process::id()));
    println!("seed {seed}, {kills} kills");
    let (mut numbers, mut killed, mut resumed, mut acknowledged) = (Numbers::new(seed), 0, 0, 0);
    while killed < kills {
        let (env, mut known) = (Env::new(), Acknowledged::default());
        // The process makes them else, and may be killed before it has both.
        drop(open(&env.path()).await);
        for _ in 0..KILLS_PER_FILE.min(kills - killed) {
            let wait = Duration::from_micros(2_000 + numbers.next() % 80_000);
            known.add(kill_after(Order::Move, wait, true, &env.path()));
            let store = open(&env.path()).await;
            resumed += store.resume_moves().await.expect("what was left half done is finished");
            assert_eq!(store.resume_moves().await.expect("nothing is left"), 0);
            known.hold_store(store).await;
            killed += 1;
        }
        acknowledged += known.len();
    }
    println!("{kills} kills, {resumed} moves taken up, {acknowledged} acknowledgements, 0 lost");
    assert!(acknowledged > 0 && resumed > 0, "some were killed at work, and amid a move");
}
