//! Terms: one leader of a duty at a time, each with a higher number.

use super::env::{Env, LIFE};
use super::jobs::*;
use crate::job::Lease;
use crate::store::Term;

async fn take(env: &Env, duty: &'static str, holder: &Lease) -> Option<Term> {
    env.store().take_term(&name(duty), holder, LIFE).await.expect("take_term")
}

async fn keep(env: &Env, term: &Term) -> bool {
    env.store().keep_term(term, LIFE).await.expect("keep_term")
}

pub(super) async fn one_leads_a_duty_at_a_time(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let term = take(env, "maintain", &a).await.expect("nobody leads");
    assert_eq!((&term.duty, &term.holder), (&name("maintain"), &a));
    assert_eq!((take(env, "maintain", &b).await, take(env, "maintain", &a).await), (None, None));
    assert!(take(env, "cron", &b).await.is_some(), "duties do not know each other");
    env.advance(LIFE).await;
    let next = take(env, "maintain", &b).await.expect("its time was over");
    assert!(next.number > term.number);
}

pub(super) async fn a_term_is_kept_while_it_lasts(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let term = take(env, "maintain", &a).await.expect("nobody leads");
    for _ in 0..3 {
        env.advance(LIFE - SECOND).await;
        assert!(keep(env, &term).await);
        assert_eq!(take(env, "maintain", &b).await, None);
    }
    env.advance(LIFE).await;
    assert!(!keep(env, &term).await, "what is over cannot be kept, even if nobody took it");
    assert!(take(env, "maintain", &b).await.is_some());
    assert!(!keep(env, &term).await);
}

pub(super) async fn the_store_tells_its_time(env: &mut Env) {
    assert_eq!(env.store().now().await.expect("now"), env.now());
    env.advance(HOUR).await;
    assert_eq!(env.store().now().await.expect("now"), env.now());
}

pub(super) async fn a_forged_term_is_not_kept(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let term = take(env, "maintain", &a).await.expect("nobody leads");
    for forged in [
        Term { number: term.number + 1, ..term.clone() },
        Term { holder: b, ..term.clone() },
        Term { duty: name("cron"), ..term.clone() },
    ] {
        assert!(!keep(env, &forged).await, "{forged:?}");
        assert!(env.reap(&forged, 9).await.term_lost, "{forged:?}");
    }
    assert!(keep(env, &term).await);
}

pub(super) async fn who_retires_leads_no_more(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let term = take(env, "maintain", &a).await.expect("nobody leads");
    let others = take(env, "cron", &b).await.expect("nobody leads");
    env.store().retire(&a).await.expect("retire");
    assert!(!keep(env, &term).await && keep(env, &others).await);
    let next = take(env, "maintain", &b).await.expect("at once");
    assert!(next.number > term.number);
    env.store().retire(&a).await.expect("retire again");
    assert!(keep(env, &next).await);
}
