//! What a durable store still knows when it is opened again.

use std::sync::Arc;

use super::env::Env;
use super::jobs::*;
use crate::id::{JobId, Tenant};
use crate::job::{Job, State};
use crate::store::{Applied, CancelReply, Fired, Limit, QueuePolicy, Redriven, Schedule, Scope, Submitted};

/// Jobs in every state, and one that waits for a parent that was told once.
async fn populate(env: &mut Env) -> Vec<JobId> {
    let pending = env.add(urgent(9).unique("k").run_at(env.ahead(HOUR))).await;
    let bad = env.add(job_of(spec().limited_by("key"))).await;
    let open = env.add(job_of(spec().queue("open"))).await;
    let blocked = env.add(job().after(outlives(&[bad, open]))).await;
    env.run(bad, failed()).await;
    env.redrive(&[bad]).await;
    let good = env.add(urgent(60)).await;
    env.run(good, succeeded_with(output("42"))).await;
    let running = env.running(job_of(spec().queue("r").limited_by("key"))).await.job.id;
    let gone = env.add(job_of(spec().queue("gone"))).await;
    env.cancel(&[gone]).await;
    vec![pending, bad, open, blocked, good, running, gone]
}

async fn read_all(env: &Env, ids: &[JobId]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for id in ids {
        jobs.push(env.get(*id).await);
    }
    jobs
}

pub(super) async fn jobs_and_their_indexes_come_back(env: &mut Env) {
    let ids = populate(env).await;
    let (jobs, lanes) = (read_all(env, &ids).await, env.lanes().await);
    let counts = env.store().counts(&own()).await.expect("counts");
    let log = env.change_log(&Scope::All).await;
    let end = env.store().changes_end().await.expect("changes_end");
    if !env.reopen().await {
        return;
    }
    assert_eq!((read_all(env, &ids).await, env.lanes().await), (jobs, lanes));
    assert_eq!(env.store().counts(&own()).await.expect("counts"), counts);
    assert_eq!(
        (env.change_log(&Scope::All).await, env.store().changes_end().await.expect("end")),
        (log, end.clone())
    );
    let again = job_of(spec().priority(priority(9))).unique("k").run_at(env.ahead(HOUR));
    assert_eq!(env.submit(vec![again]).await, [Submitted::Existing(ids[0])], "keys are kept");
    let id = env.add(job_of(spec().queue("new"))).await;
    let page = env.store().changes(&Scope::All, Some(end), 10).await.expect("cursors stay good");
    assert_eq!(page.changes.iter().map(|change| change.job).collect::<Vec<_>>(), [id]);
}

pub(super) async fn what_a_child_was_told_comes_back(env: &mut Env) {
    let ids = populate(env).await;
    if !env.reopen().await {
        return;
    }
    let (bad, open, blocked) = (ids[1], ids[2], ids[3]);
    env.run(bad, succeeded()).await;
    assert_eq!(env.state(blocked).await, State::Blocked, "it was told of this parent before");
    env.run(open, succeeded()).await;
    assert_eq!(env.state(blocked).await, State::Pending);
}

pub(super) async fn policies_come_back(env: &mut Env) {
    let term = env.term().await;
    let tenant = Tenant::default;
    let queue = QueuePolicy { tenant: tenant(), queue: name("default"), paused: true, weight: 3 };
    env.store().set_queue(queue.clone()).await.expect("set_queue");
    let limit = Limit::key(tenant(), name("key"), 5);
    env.store().set_limit(limit).await.expect("set_limit");
    let held = env.running(job_of(spec().queue("r").limited_by("key"))).await;
    let spec = Arc::new(spec().build().expect("valid"));
    let daily =
        Schedule { tenant: tenant(), name: name("daily"), rule: "@daily".into(), spec, last_fired: None };
    env.store().set_schedule(daily).await.expect("set_schedule");
    let at = env.now();
    env.fire(&term, "daily", at).await;
    let (limits, schedules) = (env.store().limits(&own()).await, env.store().schedules(&own()).await);
    if !env.reopen().await {
        return;
    }
    assert_eq!(env.store().queues(&own()).await.expect("queues"), [queue]);
    assert_eq!(env.store().limits(&own()).await.expect("limits"), limits.expect("limits"));
    assert_eq!(env.store().schedules(&own()).await.expect("schedules"), schedules.expect("schedules"));
    let leader = env.owner("leader").await;
    let next = env.store().take_term(&name("other"), &leader, HOUR).await.expect("take").expect("free");
    assert_eq!(env.fire(&next, "daily", at).await, Fired::Already);
    assert_eq!(env.tell(&held, succeeded()).await, Applied::Done, "leases outlive the process");
    assert_eq!(env.store().limits(&own()).await.expect("limits")[0].in_use, 0);
}

pub(super) async fn the_dead_of_an_exclusive_store_are_dead_at_once(env: &mut Env) {
    let (owner, term) = (env.owner("a").await, env.term().await);
    let id = env.add(job()).await;
    let held = env.take(&owner, id).await;
    if !env.reopen().await {
        return;
    }
    let exclusive = env.store().capabilities().exclusive;
    let beats = env.store().beat(vec![owner.clone()], SECOND).await.expect("beat");
    assert_eq!(beats[0].alive, !exclusive);
    assert_eq!(env.held_by(&owner).await, [id]);
    assert_eq!(env.store().keep_term(&term, HOUR).await.expect("keep_term"), !exclusive);
    let again = env.owner("a").await;
    assert!(again.incarnation > owner.incarnation, "incarnations go on rising");
    if exclusive {
        let next = env.term().await;
        assert!(next.number > term.number, "numbers go on rising");
        assert_eq!(env.reap(&next, 9).await.changes.len(), 1);
        let next = env.take(&again, id).await;
        assert!(next.job.epoch > held.job.epoch, "epochs go on rising");
    }
}

pub(super) async fn a_store_can_be_opened_again_and_again(env: &mut Env) {
    let ids = populate(env).await;
    for _ in 0..3 {
        let jobs = read_all(env, &ids).await;
        if !env.reopen().await {
            return;
        }
        env.audit().await;
        assert_eq!(read_all(env, &ids).await, jobs);
    }
    assert_eq!(env.cancel(&ids[..1]).await, [CancelReply::Cancelled]);
    assert_eq!(env.redrive(&ids[..1]).await, [Redriven::Done]);
}
