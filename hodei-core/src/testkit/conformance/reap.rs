//! Reaping: dead owners, passed deadlines, and how much at a time.

use super::env::{Env, LIFE};
use super::jobs::*;
use crate::id::JobId;
use crate::job::{Cause, FailureClass, Outcome, State};
use crate::store::{Reaped, Term};

pub(super) async fn a_dead_owner_loses_its_jobs(env: &mut Env) {
    let term = env.term().await;
    let (dead, alive) = (env.owner("a").await, env.worker().await);
    let all = env.add_all(vec![job(), job(), job()]).await;
    let held = env.claim_beside(&dead, all[0], 2).await;
    env.tell(&held[0], started()).await;
    env.take(&alive, all[2]).await;
    env.advance(LIFE - SECOND).await;
    assert_eq!(env.reap(&term, 9).await, Reaped::default());
    env.advance(SECOND).await;
    let reaped = env.reap(&term, 9).await;
    assert_eq!((reaped.changes.len(), reaped.more, reaped.term_lost), (2, false, false));
    for id in [all[0], all[1]] {
        let stored = env.get(id).await;
        assert_eq!((stored.state, stored.cause, stored.lease), (State::Pending, Cause::Lost, None));
        assert_eq!((stored.lost_count, stored.attempt, stored.eligible_at), (1, 0, env.now()));
    }
    assert_eq!(env.state(all[2]).await, State::Scheduled);
    assert_eq!((env.held_by(&dead).await, env.reap(&term, 9).await), (vec![], Reaped::default()));
}

pub(super) async fn an_older_life_loses_its_jobs(env: &mut Env) {
    let term = env.term().await;
    let older = env.owner("a").await;
    let all = env.add_all(vec![job(), job()]).await;
    env.take(&older, all[0]).await;
    let younger = env.owner("a").await;
    env.take(&younger, all[1]).await;
    assert_eq!(env.reap(&term, 9).await.changes.len(), 1);
    assert_eq!((env.held_by(&older).await, env.held_by(&younger).await), (vec![], vec![all[1]]));
}

pub(super) async fn a_job_that_kills_its_owners_fails(env: &mut Env) {
    let term = env.term().await;
    let id = env.add(job()).await;
    let child = env.add(job().after(needs(&[id]))).await;
    for loss in 1..=LOST_MAX {
        let owner = env.owner("a").await;
        let held = env.take(&owner, id).await;
        env.tell(&held, started()).await;
        env.store().retire(&owner).await.expect("retire");
        env.reap(&term, 9).await;
        let stored = env.get(id).await;
        let state = if loss < LOST_MAX { State::Pending } else { State::Failed };
        assert_eq!((stored.lost_count, stored.state), (loss, state));
    }
    let stored = env.get(id).await;
    let Some(Outcome::Failed(failure)) = stored.outcome() else { panic!("it failed: {stored:?}") };
    assert_eq!((stored.cause, failure.class), (Cause::LostTooOften, FailureClass::LostTooOften));
    assert_eq!(env.get(child).await.cause, Cause::ParentFailed);
}

pub(super) async fn a_pending_job_past_its_deadline_fails(env: &mut Env) {
    let term = env.term().await;
    let at = env.ahead(SECOND);
    let late = env.add(job().deadline(at)).await;
    let delayed = env.add(job().deadline(at).run_at(env.ahead(HOUR))).await;
    let child = env.add(job().after(outlives(&[late]))).await;
    let blocked = env.add(job().after(needs(&[child])).deadline(at)).await;
    let running = env.running(job_of(spec().queue("r")).deadline(at)).await.job.id;
    env.advance(SECOND - std::time::Duration::from_micros(1)).await;
    assert_eq!(env.reap(&term, 9).await, Reaped::default());
    env.advance(std::time::Duration::from_micros(1)).await;
    env.reap(&term, 9).await;
    for id in [late, delayed] {
        let stored = env.get(id).await;
        let Some(Outcome::Failed(failure)) = stored.outcome() else { panic!("it failed: {stored:?}") };
        assert_eq!((stored.cause, failure.class), (Cause::DeadlinePassed, FailureClass::Deadline));
    }
    assert_eq!(env.lanes().await.next_due, None);
    assert_eq!(env.state(child).await, State::Pending, "its parent has ended");
    assert_eq!((env.state(blocked).await, env.state(running).await), (State::Blocked, State::Running));
}

/// Reaps until nothing is left, and returns how many changes each reap made and whether it said that there is more.
async fn drained(env: &mut Env, term: &Term, limit: usize) -> Vec<(usize, bool)> {
    let mut rounds = Vec::new();
    while rounds.last().is_none_or(|(_, more)| *more) {
        let reaped = env.reap(term, limit).await;
        rounds.push((reaped.changes.len(), reaped.more));
        assert!(rounds.len() < 10, "it comes to an end: {rounds:?}");
    }
    rounds
}

pub(super) async fn a_reap_stops_at_its_limit_and_says_so(env: &mut Env) {
    let term = env.term().await;
    for (limit, expected) in [
        (1, vec![(1, true), (1, true), (1, true), (1, true), (1, false)]),
        (2, vec![(2, true), (2, true), (1, false)]),
        (3, vec![(3, true), (2, false)]),
        (4, vec![(4, true), (1, false)]),
        (5, vec![(5, false)]),
        (usize::MAX, vec![(5, false)]),
    ] {
        let (a, b) = (env.owner("a").await, env.owner("b").await);
        let ids: Vec<JobId> = env.add_all(vec![job(), job(), job()]).await;
        env.claim_beside(&a, ids[0], 2).await;
        env.take(&b, ids[2]).await;
        let late = job().deadline(env.ahead(SECOND));
        let late = env.add_all(vec![late, job().deadline(env.ahead(SECOND))]).await;
        env.advance(LIFE).await;
        assert_eq!(env.reap(&term, 0).await, Reaped { more: true, ..Reaped::default() });
        assert_eq!(drained(env, &term, limit).await, expected, "{limit} at a time");
        env.cancel(&[ids, late].concat()).await;
    }
}

pub(super) async fn children_do_not_count_against_the_limit(env: &mut Env) {
    let term = env.term().await;
    let parent = env.add(job().deadline(env.ahead(SECOND))).await;
    let children = (0..5).map(|_| job().after(needs(&[parent]))).collect();
    env.add_all(children).await;
    env.advance(SECOND).await;
    let reaped = env.reap(&term, 1).await;
    assert_eq!((reaped.changes.len(), reaped.more), (6, false));
}

pub(super) async fn a_job_that_comes_back_too_late_fails_in_the_end(env: &mut Env) {
    let term = env.term().await;
    let owner = env.owner("a").await;
    let id = env.add(job().deadline(env.ahead(SECOND))).await;
    env.take(&owner, id).await;
    env.advance(LIFE).await;
    env.reap(&term, 9).await;
    env.reap(&term, 9).await;
    let stored = env.get(id).await;
    assert_eq!((stored.cause, stored.lost_count), (Cause::DeadlinePassed, 1));
}

pub(super) async fn a_term_that_is_over_reaps_nothing(env: &mut Env) {
    let owner = env.owner("a").await;
    let id = env.add(job().deadline(env.ahead(SECOND))).await;
    let leader = env.owner("leader").await;
    let short = env.store().take_term(&name("maintain"), &leader, LIFE).await.expect("take_term");
    let short = short.expect("nobody leads");
    env.advance(LIFE).await;
    let over = Reaped { term_lost: true, ..Reaped::default() };
    assert_eq!(env.reap(&short, 9).await, over, "expired");
    let term = env.term().await;
    assert_eq!(env.reap(&short, 9).await, over, "taken by another");
    assert_eq!(env.state(id).await, State::Pending);
    assert!(!env.reap(&term, 9).await.term_lost);
    assert_eq!((env.state(id).await, env.held_by(&owner).await), (State::Failed, vec![]));
}
