//! Owners: who is alive, what they hold, and what they must stop.

use std::time::Duration;

use super::env::{Env, LIFE};
use super::jobs::*;
use crate::error::ErrorKind;
use crate::id::OwnerId;
use crate::job::Lease;
use crate::store::{Beat, CancelReply, Living, OWNER_TTL_MIN};

async fn beat(env: &Env, owners: &[&Lease]) -> Vec<Beat> {
    let owners = owners.iter().copied().cloned().collect();
    env.store().beat(owners, LIFE).await.expect("beat")
}

async fn alive(env: &Env, owner: &Lease) -> bool {
    beat(env, &[owner]).await[0].alive
}

pub(super) async fn incarnations_rise(env: &mut Env) {
    let first = env.owner("a").await;
    let second = env.owner("a").await;
    env.store().retire(&second).await.expect("retire");
    let third = env.owner("a").await;
    assert!(first.incarnation < second.incarnation && second.incarnation < third.incarnation);
    assert_eq!((alive(env, &first).await, alive(env, &second).await), (false, false));
    assert!(alive(env, &third).await);
}

pub(super) async fn incarnations_rise_after_a_prune(env: &mut Env) {
    let first = env.owner("a").await;
    let term = env.term().await;
    env.advance(HOUR).await;
    env.prune(&term, crate::store::Retention::default(), 100).await;
    let second = env.owner("a").await;
    assert!(first.incarnation < second.incarnation);
}

pub(super) async fn a_life_too_short_is_refused(env: &mut Env) {
    let owner = OwnerId::from(name("a"));
    let error =
        env.store().register(&owner, OWNER_TTL_MIN - Duration::from_micros(1)).await.expect_err("short");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!((error.faults()[0].field.as_str(), error.faults()[0].code), ("ttl", "too_small"));
    assert_eq!(error.faults()[0].limit, u64::try_from(OWNER_TTL_MIN.as_millis()).ok());
    env.store().register(&owner, OWNER_TTL_MIN).await.expect("just long enough");
}

pub(super) async fn a_beat_prolongs_a_life_and_the_end_is_the_end(env: &mut Env) {
    let owner = env.owner("a").await;
    for _ in 0..3 {
        env.advance(LIFE - Duration::from_micros(1)).await;
        assert!(alive(env, &owner).await);
    }
    env.advance(LIFE).await;
    assert!(!alive(env, &owner).await, "its life ends when it is over, not after");
    assert!(!alive(env, &owner).await, "and stays so");
}

pub(super) async fn many_owners_beat_at_once(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let stranger = Lease { owner: OwnerId::from(name("stranger")), incarnation: 1 };
    let beats = beat(env, &[&b, &stranger, &a, &b]).await;
    assert_eq!(beats.iter().map(|beat| beat.alive).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(beat(env, &[]).await, []);
}

pub(super) async fn retiring_is_idempotent_and_nothing_to_the_next_life(env: &mut Env) {
    let older = env.owner("a").await;
    env.store().retire(&older).await.expect("retire");
    env.store().retire(&older).await.expect("retire again");
    assert!(!alive(env, &older).await);
    let younger = env.owner("a").await;
    env.store().retire(&older).await.expect("retire once more");
    assert!(alive(env, &younger).await);
    let stranger = Lease { owner: OwnerId::from(name("stranger")), incarnation: 1 };
    env.store().retire(&stranger).await.expect("retire a stranger");
}

pub(super) async fn leases_are_told_by_owner_and_incarnation(env: &mut Env) {
    let all = env.add_all(vec![job(), job(), job(), job()]).await;
    let older = env.owner("a").await;
    env.claim_beside(&older, all[0], 2).await;
    let younger = env.owner("a").await;
    env.take(&younger, all[2]).await;
    let other = env.owner("b").await;
    let held = env.take(&other, all[3]).await;
    assert_eq!(env.held_by(&older).await, all[..2], "by id; dead, but not yet reaped");
    assert_eq!(env.held_by(&younger).await, [all[2]]);
    assert_eq!(env.store().leases_of(&other).await.expect("leases_of"), [held]);
    let stranger = Lease { owner: OwnerId::from(name("ab")), incarnation: older.incarnation };
    assert_eq!(env.held_by(&stranger).await, []);
}

pub(super) async fn a_beat_tells_what_to_cancel(env: &mut Env) {
    let (a, b) = (env.owner("a").await, env.owner("b").await);
    let all = env.add_all(vec![job(), job(), job()]).await;
    let mine = env.claim_beside(&a, all[0], 2).await;
    let theirs = env.take(&b, all[2]).await;
    let starts = mine.iter().chain([&theirs]).map(|held| of(held, started())).collect();
    env.report(starts).await;
    let asked = env.cancel(&[all[1], all[2]]).await;
    assert_eq!(asked, [CancelReply::Requested, CancelReply::Requested]);
    for _ in 0..2 {
        let beats = beat(env, &[&a, &b]).await;
        assert_eq!(beats[0].cancel, [(all[1], mine[1].job.epoch)], "until it has stopped");
        assert_eq!(beats[1].cancel, [(all[2], theirs.job.epoch)]);
    }
    env.tell(&mine[1], cancelled()).await;
    env.tell(&theirs, succeeded()).await;
    let beats = beat(env, &[&a, &b]).await;
    assert!(beats.iter().all(|beat| beat.alive && beat.cancel.is_empty()));
}

pub(super) async fn a_dead_owner_is_told_nothing(env: &mut Env) {
    let owner = env.owner("a").await;
    let id = env.add(job()).await;
    let held = env.take(&owner, id).await;
    env.tell(&held, started()).await;
    env.cancel(&[id]).await;
    env.advance(LIFE).await;
    assert_eq!(beat(env, &[&owner]).await, [Beat::default()]);
}

pub(super) async fn who_lives_is_listed_with_what_he_leads(env: &mut Env) {
    let listed = async |env: &Env| env.store().owners().await.expect("owners");
    assert_eq!(listed(env).await, []);
    let (older, b) = (env.owner("a").await, env.owner("b").await);
    let led = env.store().take_term(&name("lead"), &older, LIFE).await.expect("take_term");
    assert!(led.is_some());
    let a = env.owner("a").await;
    let until = env.now().saturating_add(LIFE);
    let term = env.store().take_term(&name("clean"), &b, LIFE).await.expect("take_term");
    assert!(term.is_some());
    let living = |lease: &Lease, until, duties: &[&'static str]| Living {
        lease: lease.clone(),
        until,
        duties: duties.iter().map(|duty| name(duty)).collect(),
    };
    let all = listed(env).await;
    assert_eq!(all, [living(&a, until, &[]), living(&b, until, &["clean"])], "an older life is none");
    env.advance(LIFE / 2).await;
    beat(env, &[&b]).await;
    let later = env.now().saturating_add(LIFE);
    assert_eq!(listed(env).await, [living(&a, until, &[]), living(&b, later, &["clean"])]);
    env.advance(LIFE / 2).await;
    assert_eq!(listed(env).await, [living(&b, later, &[])], "a term ends by its own time");
    env.store().retire(&b).await.expect("retire");
    assert_eq!(listed(env).await, []);
}
