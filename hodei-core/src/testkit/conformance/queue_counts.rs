//! The counts of queues: exact after every move, for as many tenants and queues as there are.

use std::time::Duration;

use super::audit::recounted;
use super::env::{Env, LIFE};
use super::jobs::*;
use crate::error::ErrorKind;
use crate::id::{JobId, Name, Tenant};
use crate::job::{NewJob, State};
use crate::store::{Counts, Move, Query, QueueCounts, QueueQuery, Retention, Scope};

/// How many steps the property with many moves takes.
const STEPS: usize = 90;

async fn page(env: &Env, scope: &Scope, query: QueueQuery) -> Vec<QueueCounts> {
    env.store().queue_counts(scope, query).await.expect("queue_counts")
}

async fn one(env: &Env, tenant: &Tenant, queue: &'static str) -> Counts {
    let query = QueueQuery::new().queue(name(queue)).limit(1);
    let found = page(env, &Scope::Tenant(tenant.clone()), query).await;
    assert!(found.iter().all(|of| of.tenant == *tenant && of.queue == name(queue)));
    found.first().map(|of| of.counts).unwrap_or_default()
}

fn in_queue(tenant: &Tenant, queue: &'static str) -> NewJob {
    job_for(tenant, spec().queue(queue))
}

pub(super) async fn counts_of_a_queue_follow_every_move(env: &mut Env) {
    let own = Tenant::default();
    let expect = async |env: &Env, expected: [u64; 7]| {
        assert_eq!(one(env, &own, "a").await, Counts::from_numbers(expected));
        assert_eq!(one(env, &own, "b").await, Counts::from_numbers([0, 1, 0, 0, 0, 0, 0]), "the other queue");
        assert_eq!(one(env, &acme(), "a").await, Counts::default(), "the other tenant");
    };
    env.add(in_queue(&own, "b")).await;
    expect(env, [0; 7]).await;
    let parent = env.add(in_queue(&own, "a")).await;
    env.add(in_queue(&own, "a").after(needs(&[parent]))).await;
    expect(env, [1, 1, 0, 0, 0, 0, 0]).await;
    let held = env.hold(parent).await;
    expect(env, [1, 0, 1, 0, 0, 0, 0]).await;
    env.tell(&held, started()).await;
    expect(env, [1, 0, 0, 1, 0, 0, 0]).await;
    env.tell(&held, retried(HOUR)).await;
    expect(env, [1, 1, 0, 0, 0, 0, 0]).await;
    env.advance(HOUR).await;
    env.run(parent, failed()).await;
    expect(env, [0, 0, 0, 0, 0, 2, 0]).await;
    env.redrive(&[parent]).await;
    expect(env, [0, 1, 0, 0, 0, 1, 0]).await;
    env.cancel(&[parent]).await;
    expect(env, [0, 0, 0, 0, 0, 1, 1]).await;
    env.redrive(&[parent]).await;
    env.run(parent, succeeded()).await;
    expect(env, [0, 0, 0, 0, 1, 1, 0]).await;
}

pub(super) async fn a_queue_without_jobs_is_not_counted(env: &mut Env) {
    let term = env.term().await;
    let (kept, gone) = (env.add(job()).await, env.add(in_queue(&acme(), "a")).await);
    env.cancel(&[gone]).await;
    assert_eq!(env.queues_counted(&Scope::All).await.len(), 2, "it has ended and is kept");
    env.advance(2 * Retention::KEYS_MIN).await;
    let retention = Retention { jobs: Retention::KEYS_MIN, changes: u64::MAX, ..Retention::default() };
    assert_eq!(env.prune(&term, retention, 10).await.jobs, 1);
    let left = env.queues_counted(&Scope::All).await;
    assert_eq!(left, recounted(&[env.get(kept).await]));
    assert_eq!(env.queues_counted(&foreign()).await, []);
}

pub(super) async fn queues_are_counted_by_pages_in_order(env: &mut Env) {
    let mut jobs = Vec::new();
    for tenant in [acme(), Tenant::default()] {
        for queue in ["q9", "q1", "Q1", "q-1", "q10", "a"] {
            jobs.extend([in_queue(&tenant, queue), in_queue(&tenant, queue)]);
        }
    }
    env.add_all(jobs).await;
    let expected = recounted(&env.all_jobs().await);
    assert_eq!(expected.len(), 12);
    for limit in [1, 2, 5, 11, 12, 13, Query::LIMIT_MAX] {
        let (mut query, mut found) = (QueueQuery::new().limit(limit), Vec::new());
        loop {
            let page = page(env, &Scope::All, query.clone()).await;
            assert!(page.len() <= limit, "at most the limit");
            let Some(last) = page.last() else { break };
            query = query.after(last);
            found.extend(page);
        }
        assert_eq!(found, expected, "{limit} a page");
    }
    let of_tenant = |of: &&QueueCounts| of.tenant == acme();
    let foreign_ones: Vec<_> = expected.iter().filter(of_tenant).cloned().collect();
    assert_eq!(env.queues_counted(&foreign()).await, foreign_ones);
}

pub(super) async fn one_name_is_counted_over_tenants(env: &mut Env) {
    for tenant in [acme(), Tenant::default(), Tenant::new("zebra").expect("a name")] {
        env.add_all(vec![in_queue(&tenant, "a"), in_queue(&tenant, "b"), in_queue(&tenant, "b")]).await;
    }
    let expected: Vec<QueueCounts> =
        recounted(&env.all_jobs().await).into_iter().filter(|of| of.queue == name("b")).collect();
    let query = QueueQuery::new().queue(name("b"));
    assert_eq!(page(env, &Scope::All, query.clone()).await, expected);
    let first = page(env, &Scope::All, query.clone().limit(1)).await;
    assert_eq!(first, expected[..1]);
    let rest = page(env, &Scope::All, query.clone().after(&first[0])).await;
    assert_eq!(rest, expected[1..]);
    assert_eq!(page(env, &own(), query.clone()).await, expected[1..2]);
    assert_eq!(page(env, &Scope::All, query.queue(name("c"))).await, []);
}

pub(super) async fn a_bad_limit_of_queues_is_invalid(env: &mut Env) {
    for limit in [0, Query::LIMIT_MAX + 1] {
        let error = env.store().queue_counts(&Scope::All, QueueQuery::new().limit(limit)).await;
        assert_eq!(error.expect_err("no page is like that").kind(), ErrorKind::Invalid);
    }
}

/// Moves a job by a step of the many, whatever it may be in.
async fn step(env: &mut Env, number: usize, id: JobId) {
    // Where no history is kept, what has ended is gone.
    let Some(job) = env.find(id).await else { return };
    match (number % 5, job.state) {
        (0, State::Pending) => drop(env.cancel(&[id]).await),
        (_, State::Failed | State::Cancelled) => drop(env.redrive(&[id]).await),
        (1, State::Pending) => drop(env.run(id, succeeded()).await),
        (2, State::Pending) => drop(env.run(id, failed()).await),
        (3, State::Pending) => drop(env.hold(id).await),
        (_, State::Pending) => {
            let held = env.hold(id).await;
            let steps: [Move; 4] = [retried(Duration::ZERO), Move::Returned, snoozed(HOUR), Move::Preempted];
            let made = steps.into_iter().nth(number / 5 % 4).expect("one of four");
            if !matches!(made, Move::Returned) {
                env.tell(&held, started()).await;
            }
            env.tell(&held, made).await;
        }
        _ => drop(env.cancel(&[id]).await),
    }
}

pub(super) async fn counts_of_queues_agree_with_a_recount_after_many_moves(env: &mut Env) {
    let term = env.term().await;
    let queues = ["a", "b", "c"];
    let tenants: Vec<Tenant> =
        ["t1", "t2", "t3", "t4", "t5"].map(|of| Tenant::new(of).expect("a name")).into();
    let mut ids = Vec::new();
    for number in 0..STEPS {
        let (tenant, queue) = (&tenants[number * 7 % tenants.len()], queues[number % queues.len()]);
        // Each in a lane of its own, so that it is the first of it.
        let alone = |new: usize| job_for(tenant, spec().queue(queue).limited_by(format!("k{number}-{new}")));
        ids.extend(env.add_all(vec![alone(0), alone(1)]).await);
        step(env, number, ids[number * 5 % ids.len()]).await;
        if number % 30 == 29 {
            // Whoever held something is dead: what had ended long ago goes, and what was held comes back.
            let owner = env.owner("mortal").await;
            let id = env.add(alone(2)).await;
            env.take(&owner, id).await;
            env.advance(LIFE + Retention::KEYS_MIN).await;
            let retention =
                Retention { jobs: Retention::KEYS_MIN, changes: u64::MAX, ..Retention::default() };
            env.reap(&term, 100).await;
            env.prune(&term, retention, 3).await;
            ids = env.all_jobs().await.iter().map(|job| job.id).collect();
        }
        if number % 10 == 9 {
            let jobs = env.all_jobs().await;
            assert_eq!(env.queues_counted(&Scope::All).await, recounted(&jobs), "after {number} steps");
        }
    }
    let jobs = env.all_jobs().await;
    for tenant in &tenants {
        for queue in queues {
            let is_there =
                |job: &&crate::job::Job| job.tenant == *tenant && job.spec.queue().as_str() == queue;
            let expected = recounted(jobs.iter().filter(is_there));
            let told = one(env, tenant, queue).await;
            assert_eq!(told, expected.first().map(|of| of.counts).unwrap_or_default(), "{tenant} {queue}");
        }
    }
}

pub(super) async fn counts_of_queues_come_back(env: &mut Env) {
    let mine = Tenant::default();
    let ended = env.add(in_queue(&mine, "ended")).await;
    env.run(ended, succeeded()).await;
    let both = env.add_all(vec![in_queue(&mine, "mixed"), in_queue(&mine, "mixed")]).await;
    env.run(both[0], failed()).await;
    env.add(in_queue(&acme(), "open")).await;
    let before = env.queues_counted(&Scope::All).await;
    assert_eq!(before, recounted(&env.all_jobs().await));
    if !env.reopen().await {
        return;
    }
    assert_eq!(env.queues_counted(&Scope::All).await, before);
    env.redrive(&both[..1]).await;
    let pending = one(env, &mine, "mixed").await.of(State::Pending);
    assert_eq!((pending, one(env, &mine, "ended").await.of(State::Succeeded)), (2, 1));
    let all: Vec<Name> = env.queues_counted(&own()).await.into_iter().map(|of| of.queue).collect();
    assert_eq!(all, [name("ended"), name("mixed")]);
}
