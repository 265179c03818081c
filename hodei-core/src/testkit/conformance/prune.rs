//! Pruning: what goes, what stays, and how much at a time.

use std::time::Duration;

use super::env::{Env, LIFE};
use super::jobs::*;
use crate::error::ErrorKind;
use crate::id::JobId;
use crate::id::Tenant;
use crate::job::State;
use crate::store::{Pruned, Query, Retention, Scope, Submitted, Term};

const DAY: Duration = Retention::KEYS_MIN;

fn keep(jobs: Duration) -> Retention {
    Retention { jobs, changes: 1_000_000, ..Retention::default() }
}

async fn pruned(env: &mut Env, term: &Term, retention: Retention) -> u64 {
    env.prune(term, retention, 1_000).await.jobs
}

async fn ended(env: &mut Env) -> JobId {
    let id = env.add(job()).await;
    env.cancel(&[id]).await;
    id
}

pub(super) async fn only_what_settled_long_ago_goes(env: &mut Env) {
    let term = env.term().await;
    let good = env.add(job()).await;
    env.run(good, succeeded()).await;
    let bad = env.add(job()).await;
    env.run(bad, failed()).await;
    let gone = ended(env).await;
    let pending = env.add(job()).await;
    let running = env.running(job_of(spec().queue("r"))).await.job.id;
    env.advance(2 * DAY - Duration::from_micros(1)).await;
    assert_eq!(pruned(env, &term, keep(2 * DAY)).await, 0);
    env.advance(Duration::from_micros(1)).await;
    assert_eq!(pruned(env, &term, keep(2 * DAY)).await, 3);
    for id in [good, bad, gone] {
        assert_eq!(env.find(id).await, None);
    }
    assert_eq!((env.state(pending).await, env.state(running).await), (State::Pending, State::Running));
    let listed = env.store().query(&Scope::All, Query::new()).await.expect("query");
    assert_eq!(listed.jobs.len(), 2);
}

pub(super) async fn the_dead_letter_has_an_age_of_its_own(env: &mut Env) {
    let term = env.term().await;
    let good = env.add(job()).await;
    env.run(good, succeeded()).await;
    let bad = env.add(job()).await;
    env.run(bad, failed()).await;
    env.advance(2 * DAY).await;
    let longer = Retention { failed: Some(3 * DAY), ..keep(2 * DAY) };
    assert_eq!(pruned(env, &term, longer).await, 1);
    assert_eq!((env.find(good).await, env.state(bad).await), (None, State::Failed));
    let shorter = Retention { failed: Some(DAY), ..keep(9 * DAY) };
    assert_eq!(pruned(env, &term, shorter).await, 1);
    assert_eq!(env.find(bad).await, None);
}

pub(super) async fn no_more_are_kept_than_retention_says(env: &mut Env) {
    let term = env.term().await;
    let mut gone = Vec::new();
    for _ in 0..4 {
        gone.push(ended(env).await);
        env.advance(Duration::from_secs(1)).await;
    }
    let other = job_for(&acme(), spec());
    let others = env.add(other).await;
    env.cancel(&[others]).await;
    let good = env.add(job()).await;
    env.run(good, succeeded()).await;
    let two = Retention { most: 2, ..keep(9 * DAY) };
    assert_eq!(pruned(env, &term, two).await, 0, "none goes before its keys may");
    env.advance(DAY).await;
    let young = ended(env).await;
    assert_eq!(pruned(env, &term, two).await, 3, "the young one counts");
    for id in &gone[..3] {
        assert_eq!(env.find(*id).await, None, "the oldest go");
    }
    for id in [gone[3], young, others] {
        assert_eq!(env.state(id).await, State::Cancelled);
    }
    assert_eq!(env.state(good).await, State::Succeeded, "each state has as many");
    assert_eq!(pruned(env, &term, two).await, 0);
}

pub(super) async fn keys_are_kept_for_a_day_at_least(env: &mut Env) {
    let term = env.term().await;
    let first = job().unique("k");
    env.add(first.clone()).await;
    env.cancel(&[first.id]).await;
    env.advance(DAY - Duration::from_micros(1)).await;
    assert_eq!(pruned(env, &term, keep(Duration::ZERO)).await, 0);
    assert_eq!(env.submit(vec![first.clone(), job().unique("k")]).await, [Submitted::Existing(first.id); 2]);
    env.advance(Duration::from_micros(1)).await;
    assert_eq!(pruned(env, &term, keep(Duration::ZERO)).await, 1);
    let second = job().unique("k");
    let replies = env.submit(vec![second.clone(), first.clone()]).await;
    assert_eq!(
        replies,
        [Submitted::New(second.id), Submitted::Existing(second.id)],
        "the key is free, then not"
    );
}

pub(super) async fn age_counts_from_the_end(env: &mut Env) {
    let term = env.term().await;
    let id = env.add(job()).await;
    env.advance(2 * DAY).await;
    env.cancel(&[id]).await;
    assert_eq!(pruned(env, &term, keep(DAY)).await, 0);
    env.redrive(&[id]).await;
    env.advance(2 * DAY).await;
    assert_eq!(pruned(env, &term, keep(DAY)).await, 0, "it goes round again");
    env.run(id, succeeded()).await;
    env.advance(DAY).await;
    assert_eq!(pruned(env, &term, keep(DAY)).await, 1);
}

pub(super) async fn a_parent_stays_while_a_child_is_open(env: &mut Env) {
    let term = env.term().await;
    let (parent, open) = (env.add(job()).await, env.add(job_of(spec().queue("open"))).await);
    let child = env.add(job().after(needs(&[parent, open]))).await;
    env.run(parent, succeeded_with(output("42"))).await;
    let ended_child = env.add(job().after(needs(&[parent]))).await;
    env.run(ended_child, succeeded()).await;
    env.advance(2 * DAY).await;
    assert_eq!(pruned(env, &term, keep(DAY)).await, 1, "only the child that has ended");
    env.run(open, succeeded()).await;
    assert_eq!(env.run(child, succeeded()).await.inputs[0].output, output("42"));
    assert_eq!(pruned(env, &term, keep(DAY)).await, 1, "the old parent; the others have only just ended");
    assert_eq!(env.find(parent).await, None);
    env.audit().await;
    env.advance(DAY).await;
    assert_eq!(pruned(env, &term, keep(DAY)).await, 2, "parent and child together");
}

pub(super) async fn a_child_that_is_redriven_does_without_a_pruned_parent(env: &mut Env) {
    let term = env.term().await;
    let parent = env.add(job()).await;
    env.run(parent, succeeded()).await;
    env.advance(DAY).await;
    let child = env.add(job().after(needs(&[parent]))).await;
    env.run(child, failed()).await;
    assert_eq!(pruned(env, &term, keep(DAY)).await, 1);
    env.redrive(&[child]).await;
    let held = env.run(child, succeeded()).await;
    assert!(held.inputs.is_empty() && held.job.parents.len() == 1);
}

pub(super) async fn a_prune_stops_at_its_limit_and_says_so(env: &mut Env) {
    let term = env.term().await;
    for (limit, expected) in
        [(2, vec![(2, true), (2, true), (1, false)]), (5, vec![(5, false)]), (usize::MAX, vec![(5, false)])]
    {
        for _ in 0..5 {
            ended(env).await;
        }
        env.advance(DAY).await;
        let mut rounds: Vec<(u64, bool)> = Vec::new();
        while rounds.last().is_none_or(|(_, more)| *more) && rounds.len() < 9 {
            let Pruned { jobs, more, .. } = env.prune(&term, keep(DAY), limit).await;
            rounds.push((jobs, more));
        }
        assert_eq!(rounds, expected, "{limit} at a time");
    }
}

pub(super) async fn a_prune_names_the_jobs_that_went(env: &mut Env) {
    let term = env.term().await;
    let mine = ended(env).await;
    let theirs = env.add(job_for(&acme(), spec())).await;
    env.cancel(&[theirs]).await;
    env.advance(DAY).await;
    ended(env).await;
    let mut gone = env.prune(&term, keep(DAY), 9).await.gone;
    gone.sort();
    let mut expected = [(Tenant::default(), mine), (acme(), theirs)];
    expected.sort();
    assert_eq!(gone, expected);
}

pub(super) async fn old_changes_go_and_their_cursors_expire(env: &mut Env) {
    let term = env.term().await;
    let store = env.shared();
    let start = store.changes_end().await.expect("changes_end");
    let ids = env.add_all((0..10).map(|_| job()).collect()).await;
    let middle = store.changes(&Scope::All, None, 6).await.expect("changes").next;
    let retention = Retention { jobs: DAY, changes: 4, ..Retention::default() };
    // How many go at a time is the store's affair.
    let (mut gone, mut more) = (0, true);
    while more {
        let pruned = env.prune(&term, retention, 5).await;
        assert!(pruned.changes > 0, "{gone} have gone, and it says that there are more");
        (gone, more) = (gone + pruned.changes, pruned.more);
    }
    assert_eq!(gone, 6);
    let expired = store.changes(&Scope::All, Some(start), 100).await.expect_err("what followed is gone");
    assert_eq!(expired.kind(), ErrorKind::CursorExpired);
    for after in [Some(middle), None] {
        let kept = store.changes(&Scope::All, after, 100).await.expect("changes").changes;
        assert_eq!(kept.iter().map(|change| change.job).collect::<Vec<_>>(), ids[6..]);
    }
    env.prune(&term, Retention { jobs: DAY, changes: 0, ..Retention::default() }, 100).await;
    let end = store.changes(&Scope::All, None, 100).await.expect("changes");
    assert_eq!((end.changes, end.next), (vec![], store.changes_end().await.expect("changes_end")));
}

pub(super) async fn a_term_that_is_over_prunes_nothing(env: &mut Env) {
    let id = ended(env).await;
    let leader = env.owner("leader").await;
    let short = env.store().take_term(&name("maintain"), &leader, LIFE).await.expect("take_term");
    env.advance(DAY).await;
    let short = short.expect("nobody led");
    let over = Pruned { term_lost: true, ..Pruned::default() };
    assert_eq!(env.prune(&short, keep(DAY), 9).await, over);
    assert!(env.find(id).await.is_some());
}
