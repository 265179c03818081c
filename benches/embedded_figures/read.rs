//! How fast jobs are found.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use hodei_benches::hodei::{fill, holds};
use hodei_benches::load::per_second;
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::{NewJob, State};
use hodei_core::store::{CachedStore, Consistency, JobStore, Query, QueueQuery, Scope};
use hodei_core::{JobId, Tenant};
use hodei_store_redb::RedbStore;

use crate::{Sizes, sys, typical};

/// The memory that the file's pages may take while memory is counted; a fraction of what a stream reads.
const CACHE: usize = 1 << 20;
/// How many jobs are made at a time.
const CHUNK: usize = 50_000;
/// How many jobs are read at once.
const MANY: usize = 1_000;

/// A file, and jobs that are in it.
#[derive(Debug)]
pub(crate) struct Filled {
    file: PathBuf,
    jobs: usize,
    store: RedbStore,
    /// Some of its jobs, all over it.
    some: Vec<JobId>,
    /// Others, of which none has been read yet.
    unread: Vec<JobId>,
    /// As many that were submitted one behind the other.
    together: Vec<JobId>,
}

/// A file and how many jobs it holds.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) file: PathBuf,
    pub(crate) jobs: usize,
}

/// Fills the files.
pub(crate) async fn fill_all(sizes: Sizes, at: &Path) -> Result<Vec<Filled>, String> {
    let mut files = Vec::with_capacity(sizes.files.len());
    for jobs in sizes.files {
        files.push(filled(at.with_extension(jobs.to_string()), jobs).await?);
    }
    Ok(files)
}

/// Closes the files.
pub(crate) fn kept(files: Vec<Filled>) -> Vec<Kept> {
    files.into_iter().map(|filled| Kept { file: filled.file, jobs: filled.jobs }).collect()
}

/// Measures, and returns the files, closed.
pub(crate) async fn figures(
    sizes: Sizes,
    files: Vec<Filled>,
    report: &mut Report,
) -> Result<Vec<Kept>, String> {
    report.group("read: from the file, whose pages are in the store's cache as far as they fit");
    gets(sizes, &files, report).await?;
    hits(sizes, &files[0], report).await?;
    pages(sizes, &files, report).await?;
    pages_of_tenants(sizes, &files[0], report).await?;
    counters(sizes, &files, report).await?;
    let kept = kept(files);
    stream(sizes, kept.last().ok_or("no file")?, report).await?;
    Ok(kept)
}

async fn filled(file: PathBuf, jobs: usize) -> Result<Filled, String> {
    let store = RedbStore::open(&file).expect("a store");
    let (mut some, mut unread, mut together, step) =
        (Vec::new(), Vec::new(), Vec::new(), (jobs / MANY).max(1));
    for start in (0..jobs).step_by(CHUNK) {
        let batch = typical(start..jobs.min(start + CHUNK));
        some.extend(batch.iter().step_by(step).map(|job| job.id));
        unread.extend(batch.iter().skip(step / 2).step_by(step).map(|job| job.id));
        if start <= jobs / 2 {
            together = batch.iter().take(MANY).map(|job| job.id).collect();
        }
        fill(&store, batch).await;
    }
    // One after the other in the file would be one after the other in its pages.
    for all_over in [&mut some, &mut unread] {
        all_over.truncate(MANY);
        all_over.sort_unstable_by_key(|id| id.as_bytes().iter().rev().copied().collect::<Vec<u8>>());
    }
    holds(&store, State::Pending, jobs).await?;
    Ok(Filled { file, jobs, store, some, unread, together })
}

/// The shortest of the rounds of a piece of work.
async fn best(sizes: Sizes, mut work: impl AsyncFnMut() -> Result<(), String>) -> Result<Duration, String> {
    let mut best = Duration::MAX;
    for _ in 0..sizes.rounds {
        let start = Instant::now();
        work().await?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

async fn gets(sizes: Sizes, files: &[Filled], report: &mut Report) -> Result<(), String> {
    for Filled { jobs, store, some, unread, together, .. } in files {
        // The first time each of them is read, its page may be on the disk and its spec is decoded.
        let first = Instant::now();
        for id in unread {
            found(store, vec![*id]).await?;
        }
        let first = micros_each(first.elapsed(), unread);
        let one = one_by_one(sizes, store, some).await?;
        let what = format!("get by id out of {jobs}");
        report.judge(&what, micros_each(one, some), Unit::Micros, Goal::AtMost(5.0));
        report.show(&format!("{what}, the first time"), first, Unit::Micros);
        for (ids, which) in [(together, "that came together"), (some, "all over the file")] {
            let one = one_by_one(sizes, store, ids).await?;
            let many = best(sizes, async || found(store, ids.clone()).await).await?;
            let what = format!("{0} gets / get_many({0}) out of {jobs}, {which}", ids.len());
            report.judge(&what, one.as_secs_f64() / many.as_secs_f64(), Unit::Times, Goal::AtLeast(5.0));
            report.show("  a job of get_many", micros_each(many, ids), Unit::Micros);
        }
    }
    report.note(
        "get_many spares neighbours the way down the tree; it checks, decodes and hands over each job as a get does, on two \
         threads, which bounds what it can be faster by.",
    );
    Ok(())
}

/// Gets each of some jobs by a call of its own.
async fn one_by_one(sizes: Sizes, store: &RedbStore, ids: &[JobId]) -> Result<Duration, String> {
    best(sizes, async || {
        for id in ids {
            found(store, vec![*id]).await?;
        }
        Ok(())
    })
    .await
}

fn micros_each(took: Duration, ids: &[JobId]) -> f64 {
    took.as_secs_f64() * 1e6 / ids.len() as f64
}

/// Reads from the memory before the file.
async fn hits(sizes: Sizes, filled: &Filled, report: &mut Report) -> Result<(), String> {
    let cache = CachedStore::new(filled.store.clone());
    let read = cache.get_many(&Scope::All, filled.some.clone(), Consistency::Cached(Duration::ZERO)).await;
    assert_eq!(read.expect("the store reads").len(), filled.some.len());
    let hits = best(sizes, async || {
        for _ in 0..sizes.reads {
            let hit = |id: &JobId| cache.get_cached(&Scope::All, *id).is_some_and(|job| job.id == *id);
            if !filled.some.iter().all(hit) {
                return Err("a record that was read is not in memory".into());
            }
        }
        Ok(())
    });
    let nanos = micros_each(hits.await?, &filled.some) * 1e3 / sizes.reads as f64;
    let what = format!("get by id from memory (CachedStore), one of {} records", filled.some.len());
    report.judge(&what, nanos, Unit::Nanos, Goal::AtMost(150.0));
    Ok(())
}

async fn found(store: &RedbStore, ids: Vec<JobId>) -> Result<(), String> {
    let wanted = ids.clone();
    let jobs = store.get_many(&Scope::All, ids, Consistency::Latest).await.expect("the store reads");
    let right = jobs.iter().zip(&wanted).all(|(job, id)| job.as_ref().is_some_and(|job| job.id == *id));
    if right && jobs.len() == wanted.len() { Ok(()) } else { Err("get_many found other jobs".into()) }
}

async fn pages(sizes: Sizes, files: &[Filled], report: &mut Report) -> Result<(), String> {
    let mut times = Vec::with_capacity(files.len());
    for Filled { jobs, store, .. } in files {
        let page = best(sizes, async || {
            for _ in 0..sizes.reads {
                let query = Query::new().state(State::Pending);
                let page = store.query(&Scope::All, query).await.expect("the store reads");
                if page.jobs.len() != 100 {
                    return Err(format!("a page of {}", page.jobs.len()));
                }
            }
            Ok(())
        });
        let micros = page.await?.as_secs_f64() * 1e6 / sizes.reads as f64;
        report.judge(
            &format!("first page of 100 by state out of {jobs}"),
            micros,
            Unit::Micros,
            Goal::AtMost(200.0),
        );
        times.push(micros);
    }
    if let (Some(small), Some(large)) = (times.first(), times.last()) {
        report.judge(
            "page of the large file / of the small one",
            large / small,
            Unit::Times,
            Goal::AtMost(2.0),
        );
    }
    Ok(())
}

/// Lists what has ended, of so many tenants that have a job each, beside what has ended of one.
async fn pages_of_tenants(sizes: Sizes, like: &Filled, report: &mut Report) -> Result<(), String> {
    let tenants = like.jobs;
    let (one, many) = (like.file.with_extension("one"), like.file.with_extension("tenants"));
    let mut times = Vec::new();
    for (file, tenant) in [(one, |_| 0), (many, |n| n)] as [(PathBuf, fn(usize) -> usize); 2] {
        let store = RedbStore::open(&file).expect("a store");
        let of = |n: usize| Tenant::new(format!("tenant-{:06}", tenant(n))).expect("a name");
        let jobs = typical(0..tenants).into_iter().enumerate();
        let jobs: Vec<NewJob> = jobs.map(|(n, job)| NewJob::of(of(n), job.spec)).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        fill(&store, jobs).await;
        for ids in ids.chunks(MANY) {
            store.request_cancel(&Scope::All, ids.to_vec()).await.expect("the store cancels");
        }
        let page = async || {
            let page = store.query(&Scope::All, Query::new().state(State::Cancelled)).await.expect("a page");
            if page.jobs.len() == 100 { Ok(()) } else { Err(format!("a page of {}", page.jobs.len())) }
        };
        let first = Instant::now();
        page().await?;
        let first = first.elapsed().as_secs_f64() * 1e6;
        let again = best(sizes, async || {
            for _ in 0..sizes.reads {
                page().await?;
            }
            Ok(())
        });
        times.push((first, again.await?.as_secs_f64() * 1e6 / sizes.reads as f64));
    }
    let [(_, one), (first, many)] = times[..] else { return Err("two files".to_owned()) };
    report.judge(
        &format!("first page of 100 ended of {tenants} tenants / of one"),
        many / one,
        Unit::Times,
        Goal::AtMost(2.0),
    );
    report.show("  the page", many, Unit::Micros);
    report.show("  the first time", first, Unit::Micros);
    Ok(())
}

/// Reads the counts of one queue, however many jobs it has.
async fn counters(sizes: Sizes, files: &[Filled], report: &mut Report) -> Result<(), String> {
    let scope = Scope::Tenant(Tenant::default());
    let query = QueueQuery::new().queue(typical(0..1)[0].spec.queue().clone()).limit(1);
    let mut times = Vec::with_capacity(files.len());
    for Filled { jobs, store, .. } in files {
        let read = best(sizes, async || {
            for _ in 0..sizes.reads {
                let counted = store.queue_counts(&scope, query.clone()).await.expect("the store reads");
                let pending = counted.first().map_or(0, |of| of.counts.of(State::Pending));
                if pending != *jobs as u64 {
                    return Err(format!("{pending} jobs are counted"));
                }
            }
            Ok(())
        });
        let micros = read.await?.as_secs_f64() * 1e6 / sizes.reads as f64;
        report.show(&format!("counts of a queue of {jobs}"), micros, Unit::Micros);
        times.push(micros);
    }
    if let (Some(small), Some(large)) = (times.first(), times.last()) {
        let what = "counts of a queue of the large file / of the small one";
        report.judge(what, large / small, Unit::Times, Goal::AtMost(2.0));
    }
    Ok(())
}

async fn stream(sizes: Sizes, kept: &Kept, report: &mut Report) -> Result<(), String> {
    let mut took = Duration::MAX;
    for _ in 0..sizes.rounds {
        // As a program finds it that was just started.
        let store = RedbStore::open(&kept.file).expect("a store");
        let start = Instant::now();
        summaries(&store, kept.jobs).await?;
        took = took.min(start.elapsed());
    }
    let what = format!("stream {} summaries, a store just opened", kept.jobs);
    report.judge(&what, per_second(kept.jobs, took), Unit::PerSecond, Goal::AtLeast(500_000.0));
    let store = RedbStore::builder(&kept.file).cache_bytes(CACHE).open().expect("a store");
    let (streamed, peak) = sys::peak(summaries(&store, kept.jobs)).await;
    streamed?;
    let mib = peak as f64 / f64::from(1 << 20);
    report.judge(
        "growth of memory meanwhile, at most, with a cache of 1 MiB",
        mib,
        Unit::Mib,
        Goal::AtMost(64.0),
    );
    Ok(())
}

async fn summaries(store: &RedbStore, jobs: usize) -> Result<(), String> {
    let (mut stream, mut seen) = (store.stream(&Scope::All, Query::new().limit(Query::LIMIT_MAX)), 0);
    while let Some(batch) = stream.next().await {
        seen += batch.expect("the store reads").len();
    }
    if seen == jobs { Ok(()) } else { Err(format!("{seen} summaries of {jobs} jobs")) }
}
