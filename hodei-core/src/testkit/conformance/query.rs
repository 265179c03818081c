//! Lists: every filter, both orders, pages, and streams.

use std::future::poll_fn;

use super::env::Env;
use super::jobs::*;
use crate::error::{ErrorKind, Result};
use crate::id::{Name, PipelineId, Tenant};
use crate::job::{Job, JobSummary, State};
use crate::store::{Cursor, Order, Query, Scope, SummaryStream};
use crate::time::SystemClock;

/// Jobs of two tenants, queues, names and pipelines in every state, some of the same microsecond.
async fn populate(env: &mut Env) -> Vec<PipelineId> {
    let tenants = [Tenant::default(), acme()];
    let pipelines: Vec<PipelineId> =
        tenants.iter().map(|tenant| PipelineId::mint(tenant, &SystemClock)).collect();
    for state in State::ALL {
        for n in 0..4 {
            let (tenant, pipeline) = (&tenants[n % 2], pipelines[n % 2]);
            let queue = if n < 2 { "a" } else { "b" };
            let named = if n == 0 { "first" } else { "other" };
            let mut new = job_for(tenant, spec().queue(queue).name(named));
            if n < 3 {
                new = new.in_pipeline(pipeline);
            }
            if state == State::Blocked {
                let parent = env.add(job_for(tenant, spec().queue("parents"))).await;
                new = new.after(needs(&[parent]));
            }
            let id = env.add(new).await;
            bring(env, id, state).await;
        }
        env.advance(SECOND).await;
    }
    pipelines
}

async fn bring(env: &mut Env, id: crate::id::JobId, state: State) {
    match state {
        State::Blocked => {}
        State::Pending => {
            // Out of the way of those that are claimed after it.
            let held = env.hold(id).await;
            env.tell(&held, retried(100 * HOUR)).await;
        }
        State::Scheduled => drop(env.hold(id).await),
        State::Running => {
            let held = env.hold(id).await;
            env.tell(&held, started()).await;
        }
        State::Succeeded => drop(env.run(id, succeeded()).await),
        State::Failed => drop(env.run(id, failed()).await),
        State::Cancelled => drop(env.cancel(&[id]).await),
    }
}

/// What a list must give, by looking at every job.
fn expected(jobs: &[Job], scope: &Scope, query: &Query) -> Vec<JobSummary> {
    let in_scope = jobs.iter().filter(|job| scope.covers(&job.tenant)).map(Job::summary);
    let mut found: Vec<JobSummary> = in_scope.filter(|job| query.matches(job)).collect();
    found.sort_by_key(|job| (job.created_at, job.id));
    if query.order == Order::NewestFirst {
        found.reverse();
    }
    found
}

async fn paged(env: &Env, scope: &Scope, mut query: Query) -> Vec<JobSummary> {
    let mut found = Vec::new();
    loop {
        let page = env.store().query(scope, query.clone()).await.expect("query");
        assert!(page.jobs.len() <= query.limit, "at most the limit");
        found.extend(page.jobs);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return found,
        }
    }
}

fn queries(pipelines: &[PipelineId]) -> Vec<Query> {
    let states = State::ALL.into_iter().map(Some).chain([None]);
    let some = |texts: [&'static str; 3]| texts.into_iter().map(|text| Some(name(text))).chain([None]);
    let queues: Vec<Option<Name>> = some(["a", "b", "nobody"]).collect();
    let names: Vec<Option<Name>> = some(["first", "other", "nobody"]).collect();
    let pipelines: Vec<_> = pipelines.iter().copied().map(Some).chain([None]).collect();
    let mut all = Vec::new();
    for state in states {
        for queue in &queues {
            for named in &names {
                for pipeline in &pipelines {
                    let (queue, name, pipeline) = (queue.clone(), named.clone(), *pipeline);
                    all.push(Query { state, queue, name, pipeline, ..Query::new() });
                }
            }
        }
    }
    all
}

pub(super) async fn a_list_has_what_passes_its_filters_in_order(env: &mut Env) {
    let pipelines = populate(env).await;
    let jobs = env.all_jobs().await;
    assert_eq!(jobs.len(), 32);
    for query in queries(&pipelines) {
        for scope in [Scope::All, own(), foreign()] {
            for query in [query.clone(), query.clone().oldest_first()] {
                let list = paged(env, &scope, query.clone()).await;
                assert_eq!(list, expected(&jobs, &scope, &query), "{scope:?} {query:?}");
            }
        }
    }
}

pub(super) async fn pages_of_any_size_make_up_the_list(env: &mut Env) {
    let pipelines = populate(env).await;
    let jobs = env.all_jobs().await;
    let plain = Query::new;
    for query in
        [plain(), plain().state(State::Failed), plain().pipeline(pipelines[0]), plain().queue(name("b"))]
    {
        for scope in [Scope::All, own()] {
            for query in [query.clone(), query.clone().oldest_first()] {
                for limit in [1, 2, 3, Query::LIMIT_MAX] {
                    let list = paged(env, &scope, query.clone().limit(limit)).await;
                    assert_eq!(list, expected(&jobs, &scope, &query), "{limit} of {scope:?} {query:?}");
                }
            }
        }
    }
}

pub(super) async fn a_cursor_goes_on_where_it_was_while_jobs_come_and_go(env: &mut Env) {
    let before = env.add_all((0..4).map(|_| job()).collect()).await;
    for newest in [true, false] {
        let query = if newest { Query::new() } else { Query::new().oldest_first() };
        let query = query.limit(2);
        let first = env.store().query(&own(), query.clone()).await.expect("query");
        env.advance(SECOND).await;
        env.add(job()).await;
        let next = query.limit(100).after(first.next.expect("there is more"));
        let rest = env.store().query(&own(), next).await.expect("query");
        let mut seen: Vec<_> = first.jobs.iter().chain(&rest.jobs).map(|job| job.id).collect();
        seen.sort_unstable();
        let count = seen.len();
        seen.dedup();
        assert!(seen.len() == count && before.iter().all(|id| seen.contains(id)), "newest first: {newest}");
    }
}

pub(super) async fn a_bad_limit_or_cursor_is_invalid(env: &mut Env) {
    env.add_all(vec![job(), job()]).await;
    let of_changes = env.store().changes_end().await.expect("changes_end");
    let bad = [
        Query::new().limit(0),
        Query::new().limit(Query::LIMIT_MAX + 1),
        Query::new().after(Cursor::from_bytes(Vec::new())),
        Query::new().after(Cursor::from_bytes(vec![0xff; 3])),
        Query::new().after(Cursor::from_bytes(vec![0; 200])),
        Query::new().after(of_changes),
    ];
    for query in bad {
        let error = env.store().query(&Scope::All, query.clone()).await.expect_err("it is bad");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{query:?}");
        let streamed = drain(env.store().stream(&Scope::All, query)).await;
        let kinds: Vec<_> = streamed.into_iter().map(|batch| batch.map_err(|error| error.kind())).collect();
        assert_eq!(kinds, [Err(ErrorKind::Invalid)], "one error, then the end");
    }
}

async fn drain(mut stream: SummaryStream) -> Vec<Result<Vec<JobSummary>>> {
    let mut batches = Vec::new();
    while let Some(batch) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        batches.push(batch);
        assert!(batches.len() < 1_000, "it comes to an end");
    }
    batches
}

pub(super) async fn a_stream_gives_the_list_in_batches(env: &mut Env) {
    populate(env).await;
    let jobs = env.all_jobs().await;
    for query in [Query::new().limit(5), Query::new().oldest_first().state(State::Running).limit(1)] {
        for scope in [Scope::All, foreign()] {
            let mut list = Vec::new();
            for batch in drain(env.store().stream(&scope, query.clone())).await {
                let batch = batch.expect("stream");
                assert!(batch.len() <= query.limit, "at most the limit");
                list.extend(batch);
            }
            assert_eq!(list, expected(&jobs, &scope, &query));
        }
    }
    let none = drain(env.store().stream(&own(), Query::new().name(name("nobody")))).await;
    assert!(none.into_iter().all(|batch| batch.expect("stream").is_empty()));
}
