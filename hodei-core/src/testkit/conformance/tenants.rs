//! Tenants: another's job does not exist.

use super::env::Env;
use super::jobs::*;
use crate::id::JobId;
use crate::job::State;
use crate::store::{CancelReply, Consistency, Query, Redriven, Scope};

pub(super) async fn anothers_job_is_neither_read_nor_listed(env: &mut Env) {
    let id = env.add(job()).await;
    env.run(id, succeeded()).await;
    let store = env.store();
    let read = store.get_many(&foreign(), vec![id], Consistency::Latest).await.expect("get");
    assert_eq!(read, [None]);
    assert_eq!(store.outputs(&foreign(), vec![id]).await.expect("outputs"), [None]);
    for query in [Query::new(), Query::new().state(State::Succeeded), Query::new().queue(name("default"))] {
        assert_eq!(store.query(&foreign(), query).await.expect("query").jobs, []);
    }
    assert_eq!(store.counts(&foreign()).await.expect("counts").total(), 0);
    assert_eq!(env.change_log(&foreign()).await, []);
}

pub(super) async fn anothers_pipeline_is_empty(env: &mut Env) {
    let pipeline = crate::id::PipelineId::mint(&acme(), &crate::time::SystemClock);
    let mine = env.add(job().in_pipeline(pipeline)).await;
    let theirs = env.add(job_for(&acme(), spec()).in_pipeline(pipeline)).await;
    for (scope, expected) in
        [(own(), vec![mine]), (foreign(), vec![theirs]), (Scope::All, vec![mine, theirs])]
    {
        let query = Query::new().pipeline(pipeline).oldest_first();
        let listed = env.store().query(&scope, query).await.expect("query").jobs;
        assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<JobId>>(), expected);
    }
}

pub(super) async fn anothers_job_is_neither_cancelled_nor_redriven(env: &mut Env) {
    let (open, gone) = (env.add(job()).await, env.add(job()).await);
    env.cancel(&[gone]).await;
    let before = (env.get(open).await, env.get(gone).await);
    let cancel = env.store().request_cancel(&foreign(), vec![open, gone]).await.expect("cancel");
    assert_eq!((cancel.replies, cancel.changes), (vec![CancelReply::NotFound; 2], vec![]));
    let redrive = env.store().redrive(&foreign(), vec![open, gone]).await.expect("redrive");
    assert_eq!((redrive.replies, redrive.changes), (vec![Redriven::NotFound; 2], vec![]));
    assert_eq!((env.get(open).await, env.get(gone).await), before);
    let cancel = env.store().request_cancel(&own(), vec![open]).await.expect("cancel");
    assert_eq!(cancel.replies, [CancelReply::Cancelled]);
    let redrive = env.store().redrive(&own(), vec![gone]).await.expect("redrive");
    assert_eq!(redrive.replies, [Redriven::Done]);
    env.seen.changes.extend(cancel.changes.into_iter().chain(redrive.changes));
}

pub(super) async fn tenants_have_lanes_of_their_own(env: &mut Env) {
    let mine = env.add(job()).await;
    let theirs = env.add(job_for(&acme(), spec())).await;
    let owner = env.owner("a").await;
    assert_eq!(ids(&env.claim_beside(&owner, theirs, 9).await), [theirs]);
    assert_eq!(ids(&env.claim_beside(&owner, mine, 9).await), [mine]);
}
