//! Rates: exact over lanes, picks and owners, and spent for good.

use std::time::Duration;

use super::env::Env;
use super::jobs::*;
use super::wide_limits::race;
use crate::error::ErrorKind;
use crate::id::{JobId, Tenant};
use crate::job::{Lease, NewJob, Resources};
use crate::store::{Lane, Limit, LimitOf, Move, Pick, Rate, Scope, Spent};
use crate::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

/// Whether the store holds rates; one that does not refuses them.
async fn are_held(env: &Env) -> bool {
    let held = env.store().capabilities().rates;
    if !held {
        let paced = Limit::paced(of_key(), Rate::new(1, SECOND));
        let error = env.store().set_limit(paced).await.expect_err("nobody could hold it");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), []);
    }
    held
}

fn of_key() -> LimitOf {
    LimitOf::Key(Tenant::default(), name("k"))
}

/// A limit of each kind that counts [`keyed`].
fn kinds(env: &Env) -> Vec<LimitOf> {
    let all = Some(LimitOf::All).filter(|_| env.store().capabilities().limits_all);
    let (tenant, queue) = (Tenant::default, name("default"));
    let others = [LimitOf::Tenant(tenant()), LimitOf::Queue(tenant(), queue), of_key()];
    all.into_iter().chain(others).collect()
}

fn keyed() -> NewJob {
    job_of(spec().limited_by("k"))
}

async fn keyed_jobs(env: &mut Env, n: usize) -> Vec<JobId> {
    env.add_all((0..n).map(|_| keyed()).collect()).await
}

async fn pace(env: &Env, of: &LimitOf, rate: Rate) {
    env.store().set_limit(Limit::paced(of.clone(), rate)).await.expect("set_limit");
}

async fn spent(env: &Env, of: &LimitOf) -> Spent {
    let limits = env.store().limits(&Scope::All).await.expect("limits");
    limits.into_iter().find(|row| row.limit.of == *of).expect("it was set").spent
}

async fn left(env: &Env, of: &LimitOf, rate: Rate) -> u64 {
    rate.left(spent(env, of).await, env.now())
}

/// Claims from the lane of a job, and says how many it got.
async fn claims(env: &mut Env, beside: JobId, n: u32) -> usize {
    let worker = env.worker().await;
    env.claim_beside(&worker, beside, n).await.len()
}

pub(super) async fn a_burst_is_claimed_and_then_what_comes(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    for of in kinds(env) {
        let rate = Rate::new(4, SECOND).burst(3);
        pace(env, &of, rate).await;
        let ids = keyed_jobs(env, 12).await;
        assert_eq!((claims(env, ids[0], 9).await, claims(env, ids[0], 9).await), (3, 0), "{of}");
        for (wait, n) in [(249, 0), (1, 1), (250, 1), (600, 2), (60_000, 3)] {
            env.advance(Duration::from_millis(wait)).await;
            assert_eq!(claims(env, ids[0], 9).await, n, "{of}, {wait} ms later");
        }
        let worker = env.worker().await;
        for held in env.store().leases_of(&worker).await.expect("leases_of") {
            env.tell(&held, succeeded()).await;
        }
        env.cancel(&ids).await;
        assert!(env.store().remove_limit(&of).await.expect("remove_limit"));
    }
}

pub(super) async fn a_rate_holds_over_lanes_and_picks(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    pace(env, &of_key(), Rate::new(5, SECOND)).await;
    let here = keyed_jobs(env, 3).await;
    let there = env.add_all((0..3).map(|_| job_of(spec().queue("other").limited_by("k"))).collect()).await;
    let free = env.add_all(vec![job(), job()]).await;
    let mut picks = Vec::new();
    for id in [here[0], there[0], here[0], free[0]] {
        picks.push(Pick {
            lane: Lane::of(&env.get(id).await),
            floor: priority(0),
            ceiling: priority(63),
            n: 2,
        });
    }
    let worker = env.worker().await;
    let done = env.exchange(&worker, Vec::new(), picks).await;
    assert_eq!(ids(&done.claimed), [here[0], here[1], there[0], there[1], here[2], free[0], free[1]]);
    assert_eq!(claims(env, there[2], 1).await, 0);
    // What ends gives no token back.
    env.tell(&done.claimed[0], succeeded()).await;
    assert_eq!(claims(env, there[2], 1).await, 0);
}

pub(super) async fn a_closed_lane_is_not_shown_and_says_when_it_opens(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    let jobs = keyed_jobs(env, 5).await;
    assert_eq!(env.lanes().await.opens_at, None);
    pace(env, &of_key(), Rate::new(2, SECOND)).await;
    let (lanes, half) = (env.lanes().await, Duration::from_millis(500));
    assert_eq!((lanes.heads[0].depth, lanes.opens_at), (2, Some(env.ahead(half))), "when two are claimed");
    assert_eq!(claims(env, jobs[0], 2).await, 2);
    let (closed, opens_at) = (env.lanes().await, env.ahead(half));
    assert_eq!((closed.heads, closed.opens_at), (Vec::new(), Some(opens_at)));
    env.advance(half).await;
    let lanes = env.lanes().await;
    assert_eq!((lanes.heads[0].depth, lanes.opens_at), (1, Some(env.ahead(half))));
    env.advance(half).await;
    assert_eq!(claims(env, jobs[0], 2).await, 2);
    env.advance(half).await;
    let lanes = env.lanes().await;
    assert_eq!((lanes.heads[0].depth, lanes.opens_at), (1, None), "no rate holds the last one back");
}

pub(super) async fn only_served_lanes_open(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    pace(env, &of_key(), Rate::new(1, SECOND)).await;
    let jobs = keyed_jobs(env, 2).await;
    env.hold(jobs[0]).await;
    let served =
        |queue| crate::store::Served { queues: Some(vec![name(queue)]), ..crate::store::Served::default() };
    let opens = async |queue| env.store().lanes(&served(queue)).await.expect("lanes").opens_at;
    assert_eq!((opens("default").await, opens("other").await), (Some(env.ahead(SECOND)), None));
}

pub(super) async fn tokens_are_spent_for_good(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    let (rate, term) = (Rate::new(20, HOUR), env.term().await);
    pace(env, &of_key(), rate).await;
    let mut expected = 20;
    let steps = [succeeded(), failed(), snoozed(HOUR), retried(Duration::ZERO), Move::Preempted];
    for step in steps {
        let held = env.running(keyed()).await;
        expected -= 1;
        assert_eq!(left(env, &of_key(), rate).await, expected);
        env.tell(&held, step).await;
        assert_eq!(left(env, &of_key(), rate).await, expected);
        env.cancel(&[held.job.id]).await;
    }
    let id = env.add(keyed()).await;
    let held = env.hold(id).await;
    env.tell(&held, Move::Returned).await;
    assert_eq!(left(env, &of_key(), rate).await, expected - 1, "given back unstarted");
    env.run(id, succeeded()).await;
    assert_eq!(left(env, &of_key(), rate).await, expected - 2, "and claimed again");
    let (owner, id): (Lease, _) = (env.owner("a").await, env.add(keyed()).await);
    env.take(&owner, id).await;
    env.store().retire(&owner).await.expect("retire");
    env.reap(&term, 9).await;
    env.take(&env.owner("b").await, id).await;
    assert_eq!(left(env, &of_key(), rate).await, expected - 4, "twice by one whose owner died");
}

pub(super) async fn a_job_takes_as_many_tokens_as_it_says(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    let rate = Rate::new(10, SECOND).burst(7);
    pace(env, &of_key(), rate).await;
    let dear = |n| job_of(spec().limited_by("k").resources(Resources::none().tokens(n)));
    let threes = env.add_all((0..5).map(|_| dear(3)).collect()).await;
    let ones = keyed_jobs(env, 5).await;
    let tens = env.add_all((0..2).map(|_| dear(10)).collect()).await;
    let depths = async |env: &Env, id: JobId| {
        let lane = Lane::of(&env.get(id).await);
        env.lanes().await.heads.into_iter().find(|head| head.lane == lane).map_or(0, |head| head.depth)
    };
    assert_eq!(depths(env, threes[0]).await, 2);
    assert_eq!(depths(env, ones[0]).await, 5);
    assert_eq!(
        depths(env, tens[0]).await,
        1,
        "one that takes more than a burst goes when all of it is there"
    );
    assert_eq!((claims(env, threes[0], 9).await, claims(env, ones[0], 9).await), (2, 1));
    assert_eq!(left(env, &of_key(), rate).await, 0);
    env.advance(Duration::from_millis(699)).await;
    assert_eq!((claims(env, tens[0], 9).await, depths(env, threes[0]).await), (0, 2));
    env.advance(Duration::from_millis(1)).await;
    assert_eq!((claims(env, tens[0], 9).await, claims(env, ones[0], 9).await), (1, 0));
    env.advance(Duration::from_millis(399)).await;
    assert_eq!(claims(env, ones[0], 9).await, 0, "what it took beyond a burst is owed");
    env.advance(Duration::from_millis(1)).await;
    assert_eq!(claims(env, ones[0], 9).await, 1);
}

pub(super) async fn the_slowest_of_several_rates_decides(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    let kinds = kinds(env);
    for slowest in &kinds {
        for of in &kinds {
            let tokens = if of == slowest { 2 } else { 3 };
            pace(env, of, Rate::new(tokens, SECOND)).await;
        }
        let ids = keyed_jobs(env, 9).await;
        assert_eq!(claims(env, ids[0], 9).await, 2, "{slowest}");
        for of in &kinds {
            let tokens = if of == slowest { 2 } else { 3 };
            let rate = Rate::new(tokens, SECOND);
            assert_eq!(left(env, of, rate).await, u64::from(tokens) - 2, "a job takes of {of}");
        }
        let next = env.ahead(Duration::from_millis(500));
        assert_eq!(env.lanes().await.opens_at, Some(next));
        let worker = env.worker().await;
        for held in env.store().leases_of(&worker).await.expect("leases_of") {
            env.tell(&held, succeeded()).await;
        }
        env.cancel(&ids).await;
        for of in &kinds {
            env.store().remove_limit(of).await.expect("remove_limit");
        }
    }
}

pub(super) async fn a_rate_and_a_maximum_hold_beside_each_other(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    for of in kinds(env) {
        let limit = Limit::new(of.clone(), 2).rate(Rate::new(3, SECOND));
        env.store().set_limit(limit).await.expect("set_limit");
        let ids = keyed_jobs(env, 6).await;
        assert_eq!(claims(env, ids[5], 9).await, 2, "{of}");
        let lanes = env.lanes().await;
        assert_eq!((lanes.heads.len(), lanes.opens_at), (0, None), "who holds one lets the next one through");
        let worker = env.worker().await;
        for held in env.store().leases_of(&worker).await.expect("leases_of") {
            env.tell(&held, succeeded()).await;
        }
        assert_eq!((env.lanes().await.heads[0].depth, claims(env, ids[5], 9).await), (1, 1));
        for held in env.store().leases_of(&worker).await.expect("leases_of") {
            env.tell(&held, succeeded()).await;
        }
        env.cancel(&ids).await;
        env.store().remove_limit(&of).await.expect("remove_limit");
    }
}

pub(super) async fn what_is_spent_stays_spent_when_a_rate_is_set(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    for of in kinds(env) {
        let rate = Rate::new(4, SECOND);
        pace(env, &of, rate).await;
        let ids = keyed_jobs(env, 4).await;
        assert_eq!(claims(env, ids[0], 3).await, 3);
        let before = spent(env, &of).await;
        pace(env, &of, rate).await;
        env.store().set_limit(Limit::new(of.clone(), 90).rate(rate)).await.expect("set_limit");
        assert_eq!(spent(env, &of).await, before, "{of}");
        let (wider, slower) = (rate.burst(9), Rate::new(4, HOUR));
        pace(env, &of, wider).await;
        assert_eq!(left(env, &of, wider).await, 6, "three are spent");
        pace(env, &of, slower).await;
        assert_eq!(left(env, &of, slower).await, 1);
        env.store().set_limit(Limit::new(of.clone(), 90)).await.expect("set_limit");
        assert_eq!((spent(env, &of).await, env.lanes().await.opens_at), (Spent::default(), None));
        pace(env, &of, slower).await;
        assert_eq!(left(env, &of, slower).await, 4, "it had none, and begins full");
        env.cancel(&ids).await;
        env.store().remove_limit(&of).await.expect("remove_limit");
    }
}

pub(super) async fn a_rate_that_cannot_be_held_is_refused(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    let rates = [
        (Rate::new(0, SECOND), "rate.tokens"),
        (Rate::new(1, Duration::ZERO), "rate.per"),
        (Rate::new(1, SECOND).burst(0), "rate.burst"),
        (Rate::new(1, Rate::GAP_MAX + SECOND), "rate.per"),
        (Rate::new(1, Rate::GAP_MAX).burst(99), "rate.burst"),
    ];
    for (rate, field) in rates {
        let error = env.store().set_limit(Limit::paced(of_key(), rate)).await.expect_err("it cannot be held");
        assert_eq!((error.kind(), error.faults()[0].field.as_str()), (ErrorKind::Invalid, field));
    }
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), []);
    for rate in [Rate::new(u32::MAX, Duration::from_nanos(1)), Rate::new(1, Rate::GAP_MAX).burst(11)] {
        pace(env, &of_key(), rate).await;
        let limits = env.store().limits(&Scope::All).await.expect("limits");
        assert_eq!(limits[0].limit, Limit::paced(of_key(), rate));
    }
}

pub(super) async fn racing_owners_never_exceed_a_rate(env: &mut Env) {
    env.seen.unordered = true;
    if !are_held(env).await {
        return;
    }
    for of in kinds(env) {
        pace(env, &of, Rate::new(5, HOUR)).await;
        let (ids, claimed) = race(env).await;
        assert_eq!((claimed.len(), left(env, &of, Rate::new(5, HOUR)).await), (5, 0), "{of}");
        for one in &claimed {
            env.tell(one, succeeded()).await;
        }
        env.cancel(&ids).await;
        env.store().remove_limit(&of).await.expect("remove_limit");
    }
}

pub(super) async fn what_is_spent_comes_back(env: &mut Env) {
    if !are_held(env).await {
        return;
    }
    let kinds = kinds(env);
    for of in &kinds {
        pace(env, of, Rate::new(3, HOUR)).await;
    }
    let ids = keyed_jobs(env, 4).await;
    assert_eq!(claims(env, ids[0], 2).await, 2);
    let before = env.store().limits(&Scope::All).await.expect("limits");
    if !env.reopen().await {
        return;
    }
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), before);
    assert_eq!((claims(env, ids[0], 9).await, env.lanes().await.heads.len()), (1, 0));
    let opens: Option<Timestamp> = env.lanes().await.opens_at;
    assert!(env.reopen().await);
    assert_eq!(env.lanes().await.opens_at, opens);
    for of in &kinds {
        assert!(env.store().remove_limit(of).await.expect("remove_limit"));
    }
    assert!(env.reopen().await);
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), []);
    assert_eq!(env.lanes().await.heads.len(), 1);
}
