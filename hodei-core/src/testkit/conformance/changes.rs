//! The change log: what was recorded, in the order of the commits.

use super::env::Env;
use super::fixture::Setup;
use super::jobs::*;
use crate::error::ErrorKind;
use crate::job::{Cause, State};
use crate::store::{Change, ChangeLog, Cursor, Move, Scope};

/// A walk with most causes, and the causes it has.
async fn walk(env: &mut Env) -> Vec<Cause> {
    use Cause::*;
    let parent = env.add(job()).await;
    env.add(job_of(spec().queue("other")).after(needs(&[parent]))).await;
    let held = env.hold(parent).await;
    env.tell(&held, Move::Returned).await;
    let held = env.hold(parent).await;
    env.tell(&held, started()).await;
    env.tell(&held, retried(std::time::Duration::ZERO)).await;
    env.run(parent, failed()).await;
    env.redrive(&[parent]).await;
    env.cancel(&[parent]).await;
    let (first, rest) =
        ([Submitted, Submitted, Claimed, Returned], [Claimed, Started, Retried, Claimed, Started]);
    [&first[..], &rest, &[Failed, ParentFailed, Redriven, Cancelled]].concat()
}

fn causes(changes: &[Change]) -> Vec<Cause> {
    changes.iter().map(|change| change.cause).collect()
}

pub(super) async fn every_transition_is_recorded_in_order(env: &mut Env) {
    let expected = walk(env).await;
    let log = env.change_log(&Scope::All).await;
    assert_eq!(causes(&log), expected);
    assert_eq!(log, env.seen.changes, "the same as the replies told");
}

pub(super) async fn pages_of_any_size_make_up_the_log(env: &mut Env) {
    walk(env).await;
    let all = env.change_log(&Scope::All).await;
    for limit in [1, 2, 5, 100] {
        let mut read = Vec::new();
        let mut after = None;
        loop {
            let page = env.store().changes(&Scope::All, after.clone(), limit).await.expect("changes");
            assert!(page.changes.len() <= limit);
            if page.changes.is_empty() {
                assert_eq!(page.next, env.store().changes_end().await.expect("changes_end"));
                break;
            }
            read.extend(page.changes);
            after = Some(page.next);
        }
        assert_eq!(read, all, "{limit} at a time");
    }
}

pub(super) async fn the_cursor_of_the_end_waits_for_the_next_change(env: &mut Env) {
    let start = env.store().changes_end().await.expect("changes_end");
    let id = env.add(job()).await;
    let page = env.store().changes(&Scope::All, Some(start), 10).await.expect("changes");
    assert_eq!(page.changes.iter().map(|change| change.job).collect::<Vec<_>>(), [id]);
    let empty = env.store().changes(&Scope::All, Some(page.next.clone()), 10).await.expect("changes");
    assert_eq!((empty.changes, &empty.next), (vec![], &page.next));
    env.cancel(&[id]).await;
    let more = env.store().changes(&Scope::All, Some(empty.next), 10).await.expect("changes");
    assert_eq!(causes(&more.changes), [Cause::Cancelled]);
}

pub(super) async fn a_tenant_reads_its_own_changes(env: &mut Env) {
    let mine = env.add(job()).await;
    let theirs = env.add(job_for(&acme(), spec())).await;
    env.cancel(&[theirs, mine]).await;
    for (scope, id) in [(own(), mine), (foreign(), theirs)] {
        let log = env.change_log(&scope).await;
        assert!(log.iter().all(|change| change.job == id && scope.covers(&change.tenant)));
        assert_eq!(causes(&log), [Cause::Submitted, Cause::Cancelled]);
    }
}

pub(super) async fn what_changes_nothing_is_not_recorded(env: &mut Env) {
    let held = env.running(job()).await;
    let before = env.change_log(&Scope::All).await;
    env.submit(vec![job().id(held.job.id)]).await;
    env.tell(&held, started()).await;
    env.tell(&held, Move::Returned).await;
    env.cancel(&[held.job.id, nobody()]).await;
    env.redrive(&[held.job.id]).await;
    env.advance(SECOND).await;
    env.lanes().await;
    assert_eq!(env.change_log(&Scope::All).await, before);
}

pub(super) async fn a_bad_limit_or_cursor_of_changes_is_invalid(env: &mut Env) {
    env.add_all(vec![job(), job()]).await;
    let query = crate::store::Query::new().limit(1);
    let of_jobs = env.store().query(&Scope::All, query).await.expect("query").next.expect("there is more");
    for (after, limit) in [
        (None, 0),
        (Some(Cursor::from_bytes(Vec::new())), 10),
        (Some(Cursor::from_bytes(vec![0xff; 3])), 10),
        (Some(Cursor::from_bytes(vec![0; 200])), 10),
        (Some(of_jobs), 10),
    ] {
        let error = env.store().changes(&Scope::All, after.clone(), limit).await.expect_err("it is bad");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{after:?}");
    }
}

pub(super) async fn a_log_of_ends_has_submissions_and_ends(env: &mut Env) {
    if !env.set_up(Setup::default().change_log(ChangeLog::TerminalOnly)).await {
        return;
    }
    let all = walk(env).await;
    assert_eq!(causes(&env.seen.changes), all, "the replies tell everything");
    let log = env.change_log(&Scope::All).await;
    let expected = [Cause::Submitted, Cause::Submitted, Cause::Failed, Cause::ParentFailed, Cause::Cancelled];
    assert_eq!(causes(&log), expected);
    assert!(log.iter().all(|change| change.from.is_none() || change.to.is_terminal()));
}

pub(super) async fn a_log_that_is_off_is_empty(env: &mut Env) {
    if !env.set_up(Setup::default().change_log(ChangeLog::Off)).await {
        return;
    }
    let all = walk(env).await;
    assert_eq!(causes(&env.seen.changes), all, "the replies tell everything");
    assert_eq!(env.change_log(&Scope::All).await, []);
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts").of(State::Cancelled), 1);
}
