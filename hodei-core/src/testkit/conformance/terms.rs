//! Terms: one leader of a duty at a time, each with a higher number.

use super::env::{Env, LIFE};
use super::jobs::*;
use super::schedules::schedule;
use crate::id::Tenant;
use crate::job::Lease;
use crate::store::{CancelReply, Round, Rounded, Term};

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
    let again = env.owner("b").await;
    env.store().retire(&a).await.expect("retire somebody else");
    assert!(keep(env, &next).await, "its holder lives on");
    env.store().retire(&again).await.expect("retire");
    assert!(!keep(env, &next).await, "it was taken in the life before");
    let last = take(env, "maintain", &a).await.expect("at once");
    let later = env.owner("a").await;
    let cron =
        env.store().take_term(&name("sweep"), &later, LIFE).await.expect("take_term").expect("nobody leads");
    env.store().retire(&a).await.expect("retire a life that is over");
    assert!(!keep(env, &last).await && keep(env, &cron).await, "nothing to a later life");
}

async fn round(env: &Env, owners: &[&Lease], term: Option<&Term>) -> Rounded {
    let owners = owners.iter().copied().cloned().collect();
    let round = Round { owners, ttl: LIFE, duty: name("maintain"), term: term.cloned() };
    env.store().round(round).await.expect("round")
}

pub(super) async fn a_round_beats_and_leads_as_its_verbs_do(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let stranger = Lease { owner: b.owner.clone(), incarnation: b.incarnation + 1 };
    let first = round(env, &[&a, &stranger], None).await;
    assert_eq!(first.beats.iter().map(|beat| beat.alive).collect::<Vec<_>>(), [true, false]);
    let term = first.term.expect("nobody leads");
    assert_eq!((&term.duty, &term.holder), (&name("maintain"), &a));
    assert_eq!(round(env, &[&b], None).await.term, None, "a leads");
    let asked = round(env, &[], None).await;
    // A store may look or not.
    let (led, scheduled) = (asked.led, asked.scheduled);
    assert_eq!(asked, Rounded { led, scheduled, ..Rounded::default() });
    for _ in 0..3 {
        env.advance(LIFE - SECOND).await;
        assert_eq!(round(env, &[&a], Some(&term)).await.term.as_ref(), Some(&term));
        assert!(round(env, &[&b], None).await.beats[0].alive);
    }
    env.advance(LIFE - SECOND).await;
    assert!(keep(env, &term).await);
    env.advance(SECOND).await;
    // Its holder has died, the term has not.
    let late = round(env, &[&a], Some(&term)).await;
    assert_eq!((late.beats[0].alive, late.term.as_ref()), (false, Some(&term)));
    env.advance(LIFE).await;
    let c = env.owner("c").await;
    let next = round(env, &[&c], Some(&term)).await.term.expect("its time was over");
    assert!(next.number > term.number && next.holder == c);
    assert_eq!(
        round(env, &[&c], Some(&term)).await.term,
        None,
        "an old term is not kept, and the new one lasts"
    );
}

pub(super) async fn a_round_says_what_owners_must_stop(env: &mut Env) {
    let owner = env.worker().await;
    let held = env.running(job()).await.job;
    assert_eq!(env.cancel(&[held.id]).await, [CancelReply::Requested]);
    assert_eq!(round(env, &[&owner], None).await.beats[0].cancel, [(held.id, held.epoch)]);
}

pub(super) async fn a_round_of_the_leader_says_when_there_is_something_to_reap(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let term = round(env, &[&a], None).await.term.expect("nobody leads");
    let lost = env.add(job()).await;
    env.take(&b, lost).await;
    env.store().retire(&b).await.expect("retire");
    assert!(round(env, &[&a], Some(&term)).await.reapable, "what b held is lost");
    assert_eq!(env.reap(&term, 9).await.changes.len(), 1);
    let at = env.ahead(SECOND);
    env.add(job().deadline(at)).await;
    env.advance(SECOND).await;
    assert!(round(env, &[&a], Some(&term)).await.reapable, "a job is too late");
    assert_eq!(env.reap(&term, 9).await.changes.len(), 1);
    env.add(job().deadline(env.ahead(SECOND)).run_at(env.ahead(HOUR))).await;
    env.advance(SECOND).await;
    assert!(round(env, &[&a], Some(&term)).await.reapable, "one that is not due yet is too late as well");
    let c = env.owner("c").await;
    assert!(!round(env, &[&c], None).await.reapable, "who does not lead has nothing to reap");
}

pub(super) async fn a_round_says_when_there_may_be_schedules(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    env.store().set_schedule(schedule(Tenant::default(), "nightly", "@daily")).await.expect("set_schedule");
    let leads = round(env, &[&a], None).await;
    assert!(leads.term.is_some() && leads.scheduled);
    assert!(round(env, &[&b], None).await.scheduled, "who does not lead may fire");
}
