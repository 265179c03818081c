//! Feeds: who is told what was committed, and in which order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::env::{Ear, Env, LIFE, together};
use super::fixture::Setup;
use super::jobs::*;
use crate::id::{JobId, Tenant};
use crate::job::Cause;
use crate::store::{Change, ChangeLog, ChangeSink, Feed, Fired, Schedule, Scope, SubmitOptions};

/// Has another sink told what is committed.
fn another(env: &Env) -> (Arc<Ear>, Feed) {
    let ear = Arc::<Ear>::default();
    (Arc::clone(&ear), env.store().feed(ear))
}

fn causes(changes: &[Change]) -> Vec<Cause> {
    changes.iter().map(|change| change.cause).collect()
}

/// Moves jobs by every verb that there is, and returns the causes in their order.
async fn every_verb(env: &mut Env) -> Vec<Cause> {
    use Cause::*;
    let term = env.term().await;
    let parent = env.add(job()).await;
    let child = env.add(job_of(spec().queue("child")).after(needs(&[parent]))).await;
    env.run(parent, spawning(vec![job_of(spec().queue("spawned"))])).await;
    env.cancel(&[child]).await;
    env.redrive(&[child]).await;
    let mortal = env.owner("mortal").await;
    env.take(&mortal, child).await;
    env.advance(LIFE).await;
    env.reap(&term, 9).await;
    let spec = Arc::new(spec().build().expect("a valid spec"));
    let (tenant, rule) = (Tenant::default(), "@daily".into());
    let daily = Schedule { tenant, name: name("daily"), rule, spec, last_fired: None };
    env.store().set_schedule(daily).await.expect("set_schedule");
    let at = env.now();
    assert!(matches!(env.fire(&term, "daily", at).await, Fired::New(_)));
    let settled = [Submitted, Submitted, Claimed, Started, Succeeded, ParentsSettled, Submitted];
    [&settled[..], &[Cancelled, Redriven, Claimed, Lost, Submitted]].concat()
}

pub(super) async fn every_verb_is_heard_in_the_order_of_the_log(env: &mut Env) {
    let (other, _feed) = another(env);
    let expected = every_verb(env).await;
    let heard = env.ear.heard();
    assert_eq!(causes(&heard), expected);
    assert_eq!(heard, env.change_log(&Scope::All).await);
    assert_eq!(heard, other.heard(), "every sink is told");
}

pub(super) async fn what_commits_side_by_side_is_heard_in_the_order_of_the_log(env: &mut Env) {
    env.seen.unordered = true;
    let store = env.shared();
    let racing = (0..16).map(|_| {
        let store = &store;
        let (first, second) = (job(), job());
        Box::pin(async move {
            let id = first.id;
            store.submit(vec![first, second], SubmitOptions::each()).await.expect("submit");
            store.request_cancel(&Scope::All, vec![id]).await.expect("cancel");
            id
        }) as Pin<Box<dyn Future<Output = JobId> + Send + '_>>
    });
    assert_eq!(together(racing.collect()).await.len(), 16);
    let heard = env.ear.heard();
    assert_eq!((heard.len(), heard), (16 * 3, env.change_log(&Scope::All).await));
}

pub(super) async fn a_commit_is_heard_before_its_reply(env: &mut Env) {
    let mut told = 0;
    for _ in 0..8 {
        env.add(job()).await;
        told += 1;
        assert_eq!(env.ear.heard().len(), told);
    }
}

pub(super) async fn what_is_not_recorded_is_heard(env: &mut Env) {
    for change_log in [ChangeLog::TerminalOnly, ChangeLog::Off] {
        if !env.set_up(Setup::default().change_log(change_log)).await {
            continue;
        }
        let expected = every_verb(env).await;
        assert_eq!(causes(&env.ear.heard()), expected, "{change_log:?}");
    }
}

pub(super) async fn a_dropped_feed_hears_nothing_more(env: &mut Env) {
    let (other, feed) = another(env);
    let id = env.add(job()).await;
    drop(feed);
    env.cancel(&[id]).await;
    assert_eq!(causes(&other.heard()), [Cause::Submitted]);
    assert_eq!(causes(&env.ear.heard()), [Cause::Submitted, Cause::Cancelled], "the other goes on");
}

/// A sink that cannot bear anything.
#[derive(Debug)]
struct Weak;

impl ChangeSink for Weak {
    fn committed(&self, _: &[Change]) {
        // No panic hook speaks of it: it is part of the test.
        std::panic::resume_unwind(Box::new("a sink gave up"));
    }
}

pub(super) async fn a_sink_that_panics_spoils_nothing(env: &mut Env) {
    let _feed = env.store().feed(Arc::new(Weak));
    let id = env.add(job()).await;
    env.cancel(&[id]).await;
    assert_eq!(causes(&env.ear.heard()), [Cause::Submitted, Cause::Cancelled]);
}
