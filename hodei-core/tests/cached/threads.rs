//! Readers and writers on threads of their own.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use hodei_core::store::{CachedStore, Consistency, JobStore, LatestReads, MemoryStore, Scope};

use crate::world::*;

/// How many jobs are moved to and fro.
const JOBS: usize = 4;
/// How often each of two writers moves each of its jobs.
const MOVES: u32 = 2_000;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// What was acknowledged before a read began is the least that it may tell.
#[test]
fn no_reader_sees_less_than_what_was_acknowledged_before_it_began() {
    let cache = CachedStore::builder(MemoryStore::new()).latest(LatestReads::Acknowledged).build();
    let ids: Vec<_> = (0..JOBS).map(|_| block_on(add(&cache, job()))).collect();
    let acknowledged: Vec<AtomicU32> = ids.iter().map(|_| AtomicU32::new(1)).collect();
    let done = AtomicBool::new(false);
    let seen_cached = thread::scope(|scope| {
        let writer = |own: usize| {
            let (cache, ids, acknowledged) = (&cache, &ids, &acknowledged);
            scope.spawn(move || {
                for moves in 1..=MOVES {
                    for n in (own..JOBS).step_by(2) {
                        let verb = async {
                            if moves % 2 == 1 {
                                cancel(cache, ids[n]).await
                            } else {
                                redrive(cache, ids[n]).await
                            }
                        };
                        block_on(verb);
                        acknowledged[n].store(moves + 1, Ordering::SeqCst);
                    }
                }
            })
        };
        let reader = |consistency: Consistency| {
            let (cache, ids, acknowledged, done) = (&cache, &ids, &acknowledged, &done);
            scope.spawn(move || {
                let mut hits = 0_u64;
                while !done.load(Ordering::SeqCst) {
                    for (id, acknowledged) in ids.iter().zip(acknowledged) {
                        let least = acknowledged.load(Ordering::SeqCst);
                        if let Some(job) = cache.get_cached(&Scope::All, *id) {
                            hits += 1;
                            assert!(job.version >= least, "version {} after {least}", job.version);
                        }
                        let least = acknowledged.load(Ordering::SeqCst);
                        let version = block_on(version(cache, *id, consistency));
                        assert!(version >= least, "version {version} after {least}, {consistency:?}");
                    }
                }
                hits
            })
        };
        let readers = [reader(CACHED), reader(Consistency::Latest)];
        let written = [writer(0), writer(1)].map(|writer| writer.join());
        // The readers end, whatever became of the writers.
        done.store(true, Ordering::SeqCst);
        written.into_iter().for_each(|written| written.unwrap());
        readers.map(|reader| reader.join().unwrap()).iter().sum::<u64>()
    });
    let stats = cache.cache_stats();
    assert!(seen_cached > 0 && stats.invalidated > 0, "the cache was in use: {stats:?}");
    assert_eq!(block_on(cache.verify_indexes()).unwrap(), [""; 0]);
    assert!(ids.iter().all(|id| block_on(version(&cache, *id, CACHED)) == MOVES + 1));
}
