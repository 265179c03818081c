//! Lists are the jobs, sorted, whichever way they are read and whatever happens meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use hodei_core::job::{JobSummary, NewJob, State};
use hodei_core::store::{Consistency, Cursor, JobStore, Order, Query, Scope, Served};
use hodei_core::{Clock, ErrorKind, JobId, Name, PipelineId, Tenant};
use hodei_store_redb::RedbStore;

use crate::env::{Env, claim, done, job, job_of, owner, report, spec, submit, tenant};

/// Jobs of three tenants in several states, of several names and queues, some of them of a pipeline.
async fn fill(env: &Env, store: &RedbStore) -> (Vec<JobSummary>, PipelineId) {
    let tenants = [Tenant::default(), tenant("a"), tenant("zz")];
    let pipeline = PipelineId::mint(&tenants[0], &*env.clock);
    let mut ids = Vec::new();
    for round in 0..12 {
        // Some rounds share their time: ids break the tie.
        env.clock.advance(Duration::from_micros(round % 3));
        for (n, tenant) in tenants.iter().enumerate() {
            let of = |queue: &str| {
                job_of(tenant, spec().queue(queue).name(if round % 2 == 0 { "even" } else { "odd" }))
            };
            let mut jobs = vec![of("q"), of("r")];
            if n == 0 {
                jobs[0] = jobs[0].clone().in_pipeline(pipeline);
            }
            // Not in the order of their ids.
            jobs.reverse();
            ids.extend(submit(store, jobs).await);
        }
    }
    let node = owner(store, "node").await;
    for of in claim(store, &node, 3).await.iter().step_by(2) {
        report(store, &node, (of.job.id, of.job.epoch), done()).await;
    }
    store.request_cancel(&Scope::All, ids.iter().copied().step_by(7).collect()).await.expect("sound");
    let jobs = store.get_many(&Scope::All, ids, Consistency::Latest).await.expect("sound");
    (jobs.into_iter().map(|job| job.expect("it was stored").summary()).collect(), pipeline)
}

/// What a query has to give, from all jobs there are.
fn expected(all: &[JobSummary], scope: &Scope, query: &Query) -> Vec<JobSummary> {
    let mut list: Vec<_> =
        all.iter().filter(|job| scope.covers(&job.tenant) && query.matches(job)).cloned().collect();
    list.sort_by_key(|job| (job.created_at, job.id));
    if query.order == Order::NewestFirst {
        list.reverse();
    }
    list
}

async fn paged(store: &RedbStore, scope: &Scope, query: &Query) -> Vec<JobSummary> {
    let (mut list, mut next) = (Vec::new(), Some(query.clone()));
    while let Some(query) = next {
        let page = store.query(scope, query.clone()).await.expect("the store is sound");
        assert!(page.jobs.len() <= query.limit);
        list.extend(page.jobs);
        next = page.next.map(|cursor| query.after(cursor));
    }
    list
}

async fn streamed(store: &RedbStore, scope: &Scope, query: Query) -> Vec<JobSummary> {
    let batches: Vec<Vec<JobSummary>> = store.stream(scope, query).try_collect().await.expect("sound");
    assert!(batches.iter().all(|batch| !batch.is_empty()));
    batches.concat()
}

#[tokio::test]
async fn pages_and_streams_are_the_sorted_jobs() {
    let env = Env::new();
    let store = env.open();
    let (all, pipeline) = fill(&env, &store).await;
    let mut filters = vec![
        Query::new(),
        Query::new().pipeline(pipeline),
        Query::new().pipeline(pipeline).state(State::Succeeded),
        Query::new().queue(Name::literal("q")),
        Query::new().name(Name::literal("odd")).state(State::Pending),
        Query::new().name(Name::literal("nobody")),
    ];
    filters.extend(State::ALL.map(|state| Query::new().state(state)));
    let scopes = [Scope::All, tenant("a").into(), Tenant::default().into(), tenant("nobody").into()];
    let mut found = 0;
    for filter in filters {
        for query in [filter.clone(), filter.oldest_first()] {
            for scope in &scopes {
                let right = expected(&all, scope, &query);
                found += right.len();
                for limit in [1, 5, 72, 1_000] {
                    let query = query.clone().limit(limit);
                    assert_eq!(paged(&store, scope, &query).await, right, "{scope:?} {query:?}");
                    assert_eq!(streamed(&store, scope, query).await, right);
                }
            }
        }
    }
    assert!(found > 500, "the queries find something");
}

/// A page of all tenants opened a range of the file for each of them.
#[tokio::test]
async fn the_first_pages_of_all_tenants_are_in_memory_once_somebody_has_asked() {
    const TENANTS: usize = 300;
    let env = Env::new();
    let store = env.open();
    let tenants: Vec<Tenant> = (0..TENANTS).map(|n| tenant(&format!("tenant-{n}"))).collect();
    let ids =
        submit(&store, tenants.iter().flat_map(|of| [job_of(of, spec()), job_of(of, spec())]).collect())
            .await;
    let first: Vec<JobId> = ids.iter().copied().step_by(2).collect();
    store.request_cancel(&Scope::All, first.clone()).await.unwrap();
    let query = |limit| Query::new().state(State::Cancelled).limit(limit);
    let before = store.stats().rows_read;
    paged(&store, &Scope::All, &query(1_000)).await;
    let begun = store.stats().rows_read;
    assert_eq!(begun - before, 2 * TENANTS as u64, "it was read");
    let page = store.query(&Scope::All, query(10)).await.unwrap();
    assert!(store.stats().rows_read - begun <= 30, "{}", store.stats().rows_read - begun);
    // Whatever ends from now on is there as well.
    env.clock.advance(Duration::from_secs(1));
    let more = submit(&store, vec![job_of(&tenants[7], spec())]).await;
    store.request_cancel(&Scope::All, more.clone()).await.unwrap();
    let again = store.query(&Scope::All, query(11)).await.unwrap();
    assert_eq!((again.jobs[0].id, &again.jobs[1..]), (more[0], &page.jobs[..]));
    assert_eq!(paged(&store, &Scope::All, &query(7)).await.len(), TENANTS + 1);
}

#[tokio::test]
async fn a_cursor_stays_good_though_its_job_moved_and_others_came() {
    let env = Env::new();
    let store = env.open();
    let ids = submit(&store, (0..10).map(|_| job()).collect()).await;
    let query = Query::new().oldest_first().state(State::Pending).limit(4);
    let first = store.query(&Scope::All, query.clone()).await.unwrap();
    store.request_cancel(&Scope::All, ids[3..5].to_vec()).await.unwrap();
    env.clock.advance(Duration::from_secs(1));
    let late = submit(&store, vec![job()]).await;
    let rest = paged(&store, &Scope::All, &query.after(first.next.unwrap())).await;
    let rest: Vec<JobId> = rest.iter().map(|job| job.id).collect();
    assert_eq!(rest, [&ids[5..], &late].concat(), "what moved away is not listed again");
}

#[tokio::test]
async fn what_is_no_query_is_refused() {
    let env = Env::new();
    let store = env.open();
    for query in [
        Query::new().limit(0),
        Query::new().limit(Query::LIMIT_MAX + 1),
        Query::new().after(Cursor::from_bytes(&b"short"[..])),
        Query::new().after(Cursor::from_bytes(vec![0; 25])),
    ] {
        let error = store.query(&Scope::All, query.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{query:?}");
        let stream: Result<Vec<_>, _> = store.stream(&Scope::All, query).try_collect().await;
        assert_eq!(stream.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let cursor = Some(Cursor::from_bytes(&b"short"[..]));
    assert_eq!(store.changes(&Scope::All, cursor, 1).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn changes_of_a_tenant_are_the_changes_of_all_without_the_others() {
    let env = Env::new();
    let store = env.open();
    fill(&env, &store).await;
    let all = store.changes(&Scope::All, None, 10_000).await.unwrap();
    let (scope, mut own, mut cursor) = (Scope::from(tenant("a")), Vec::new(), None);
    loop {
        let page = store.changes(&scope, cursor, 7).await.unwrap();
        cursor = Some(page.next);
        if page.changes.is_empty() {
            break;
        }
        own.extend(page.changes);
    }
    let right: Vec<_> = all.changes.into_iter().filter(|change| scope.covers(&change.tenant)).collect();
    assert!(!right.is_empty());
    assert_eq!((own, cursor), (right, Some(all.next)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn streams_go_on_beside_writers() {
    let env = Env::new();
    let store = env.open();
    let first: BTreeSet<JobId> =
        submit(&store, (0..200).map(|_| job()).collect()).await.into_iter().collect();
    let writer = tokio::spawn({
        let store = store.clone();
        let clock = std::sync::Arc::clone(&env.clock);
        async move {
            let node = owner(&store, "node").await;
            for _ in 0..40 {
                clock.advance(Duration::from_micros(1));
                submit(&store, vec![job(), job()]).await;
                for of in claim(&store, &node, 5).await {
                    report(&store, &node, (of.job.id, of.job.epoch), done()).await;
                }
            }
        }
    });
    let mut rounds = 0;
    loop {
        let last = writer.is_finished();
        for query in [Query::new().limit(9), Query::new().oldest_first().limit(9)] {
            let list = streamed(&store, &Scope::All, query.clone()).await;
            let seen: BTreeSet<JobId> = list.iter().map(|job| job.id).collect();
            assert_eq!(seen.len(), list.len(), "none is listed twice");
            assert!(seen.is_superset(&first), "none that was there from the start is missing");
            let mut sorted = expected(&list, &Scope::All, &query);
            sorted.truncate(list.len());
            let ids = |of: &[JobSummary]| of.iter().map(|job| job.id).collect::<Vec<_>>();
            assert_eq!(ids(&list), ids(&sorted));
        }
        rounds += 1;
        if last {
            break;
        }
    }
    writer.await.unwrap();
    assert!(rounds > 0);
    assert_eq!(store.counts(&Scope::All).await.unwrap().total(), 280);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn delayed_jobs_are_in_their_lanes_as_soon_as_they_are_due() {
    let env = Env::new();
    let store = env.open();
    let at = |secs| env.clock.now().saturating_add(Duration::from_secs(secs));
    let jobs: Vec<NewJob> = [3, 1, 2, 1].map(|secs| job().run_at(at(secs))).into();
    let due: Vec<_> = jobs.iter().map(|job| job.run_at.unwrap()).collect();
    submit(&store, jobs.clone()).await;
    let node = owner(&store, "node").await;
    assert_eq!(claim(&store, &node, 10).await, []);
    for (ready, next) in [(2, Some(due[2])), (1, Some(due[0])), (1, None)] {
        env.clock.advance(Duration::from_secs(1));
        let lanes = store.lanes(&Served::default()).await.unwrap();
        assert_eq!((lanes.heads[0].depth, lanes.next_due), (ready, next));
        let before = store.stats().commits;
        store.lanes(&Served::default()).await.unwrap();
        assert_eq!(store.stats().commits, before, "what is in its lane is not moved again");
        assert_eq!(claim(&store, &node, 10).await.len() as u64, ready);
    }
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn delayed_jobs_can_be_claimed_by_whoever_knows_their_lane() {
    let env = Env::new();
    let store = env.open();
    submit(&store, vec![job()]).await;
    let node = owner(&store, "node").await;
    let lane = store.lanes(&Served::default()).await.unwrap().heads.remove(0).lane;
    assert_eq!(claim(&store, &node, 1).await.len(), 1);
    let late = env.clock.now().saturating_add(Duration::from_secs(1));
    submit(&store, vec![job().run_at(late)]).await;
    let pick = hodei_core::store::Pick {
        lane,
        floor: hodei_core::job::Priority::MIN,
        ceiling: hodei_core::job::Priority::MAX,
        n: 5,
    };
    for (wait, n, next_due) in [(0, 0, Some(late)), (1, 1, None)] {
        env.clock.advance(Duration::from_secs(wait));
        let (owner, picks) = (node.clone(), vec![pick.clone()]);
        let exchange = hodei_core::store::Exchange { owner, transitions: Vec::new(), picks };
        let done = store.exchange(exchange).await.unwrap();
        assert_eq!((done.claimed.len(), done.next_due), (n, next_due));
    }
}

/// Jobs that move in one commit are read as before it or as after it, never some so and some so.
#[test]
fn a_read_is_never_torn_between_two_commits() {
    const JOBS: u32 = 600;
    let env = Env::new();
    let store = env.open();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (main, mut reads) = (runtime(), 0);
    let node = main.block_on(owner(&store, "node"));
    for _ in 0..40 {
        let ids = main.block_on(submit(&store, (0..JOBS).map(|_| job()).collect()));
        let over = std::sync::atomic::AtomicBool::new(false);
        let (has_read, read) = std::sync::mpsc::channel();
        std::thread::scope(|threads| {
            let (store, over, ids) = (&store, &over, &ids);
            let reading = threads.spawn(move || {
                let (reader, mut before, mut after) = (runtime(), 0, 0);
                while !over.load(std::sync::atomic::Ordering::SeqCst) || before + after == 0 {
                    let get = store.get_many(&Scope::All, ids.clone(), Consistency::Latest);
                    let jobs = reader.block_on(get).expect("the store is sound");
                    let pending = jobs.iter().flatten().filter(|job| job.state == State::Pending).count();
                    assert!(pending == 0 || pending == ids.len(), "{pending} of {} are as before", ids.len());
                    (before, after) = (before + usize::from(pending > 0), after + usize::from(pending == 0));
                    // Only the first time matters.
                    let _ = has_read.send(());
                }
                (before, after)
            });
            let begun = read.recv_timeout(Duration::from_secs(60));
            let held = begun.map(|()| main.block_on(claim(store, &node, JOBS)));
            over.store(true, std::sync::atomic::Ordering::SeqCst);
            let held = held.expect("it reads");
            assert_eq!(held.len(), ids.len(), "all in one commit");
            let (before, after) = reading.join().expect("no read is torn");
            assert!(before > 0, "one had ended when the commit began");
            reads += before + after;
        });
    }
    println!("{reads} reads beside 40 commits");
}

/// Delayed jobs come into their lanes so many at a time, and the rest with the next calls.
#[tokio::test]
async fn what_has_become_due_comes_in_bounded_steps_until_all_is_there() {
    const JOBS: usize = 23_000;
    let env = Env::new();
    let store = env.open();
    let at = env.clock.now().saturating_add(Duration::from_secs(60));
    let due = std::sync::Arc::new(spec().build().unwrap());
    for _ in 0..JOBS / 1_000 {
        let jobs = (0..1_000).map(|_| NewJob::new(std::sync::Arc::clone(&due)).run_at(at)).collect();
        submit(&store, jobs).await;
    }
    let lanes = async || store.lanes(&Served::default()).await.unwrap();
    let before = lanes().await;
    assert_eq!((before.heads.len(), before.next_due), (0, Some(at)));
    env.clock.advance(Duration::from_secs(60));
    let mut depths = Vec::new();
    loop {
        let lanes = lanes().await;
        depths.push(lanes.heads[0].depth);
        match lanes.next_due {
            Some(next) => assert_eq!(next, at, "whoever asked is told to ask again, now"),
            None => break,
        }
    }
    assert_eq!(depths, [10_000, 20_000, 23_000]);
    let node = owner(&store, "node").await;
    assert_eq!(claim(&store, &node, u32::MAX).await.len(), JOBS);
}
