//! Claiming: who comes first, who may, and what comes along.

use super::env::{Env, LIFE, together};
use super::jobs::*;
use crate::id::{JobId, Tenant};
use crate::job::{Lease, NewJob, Output, Requires, State};
use crate::store::{Applied, Exchange, Input, Lane, Pick, QueuePolicy};
use crate::time::Timestamp;

fn pick(lane: &Lane, floor: u8, n: u32) -> Pick {
    Pick { lane: lane.clone(), floor: priority(floor), ceiling: priority(63), n }
}

pub(super) async fn a_claim_leases_the_job_under_a_new_epoch(env: &mut Env) {
    let id = env.add(job()).await;
    env.advance(SECOND).await;
    let owner = env.owner("a").await;
    let held = env.take(&owner, id).await;
    let stored = env.get(id).await;
    assert_eq!(*held.job, stored);
    assert_eq!((stored.state, &stored.lease, stored.epoch.number()), (State::Scheduled, &Some(owner), 1));
    assert_eq!((stored.attempt, stored.version, stored.moved_at), (0, 2, env.now()));
    env.report(vec![of(&held, retried(std::time::Duration::ZERO))]).await;
    let again = env.hold(id).await;
    assert_eq!(again.job.epoch.number(), 2);
}

pub(super) async fn claims_come_by_level_then_time_then_id(env: &mut Env) {
    let (first, second) = (env.now(), env.ahead(SECOND));
    let at = |at: Timestamp, level: u8| urgent(level).run_at(at);
    env.advance(HOUR).await;
    let delayed = |by: u64| env.ahead(std::time::Duration::from_secs(by));
    let (soon, later) = (delayed(1), delayed(2));
    let mut same: Vec<NewJob> = vec![at(first, 10), at(second, 10), at(first, 10)];
    same.sort_by_key(|job| job.id);
    let jobs =
        vec![at(later, 20), same[2].clone(), at(soon, 20), same[0].clone(), at(later, 50), same[1].clone()];
    let expected = vec![jobs[4].id, jobs[2].id, jobs[0].id, same[0].id, same[1].id, same[2].id];
    env.add_all(jobs).await;
    env.advance(HOUR).await;
    let owner = env.owner("a").await;
    let claimed = env.claim_beside(&owner, expected[0], 9).await;
    assert_eq!(ids(&claimed), expected);
}

pub(super) async fn a_pick_takes_at_most_n_and_nothing_below_its_floor(env: &mut Env) {
    let all = env.add_all(vec![urgent(10), urgent(40), urgent(30), urgent(40)]).await;
    let lane = Lane::of(&env.get(all[0]).await);
    let worker = env.worker().await;
    for (floor, n, expected) in [
        (41, 9, vec![]),
        (40, 0, vec![]),
        (0, 1, vec![all[1]]),
        (30, 9, vec![all[3], all[2]]),
        (11, 9, vec![]),
        (10, 9, vec![all[0]]),
    ] {
        let done = env.exchange(&worker, Vec::new(), vec![pick(&lane, floor, n)]).await;
        assert_eq!(ids(&done.claimed), expected, "at least {floor}, at most {n}");
    }
}

pub(super) async fn a_pick_takes_nothing_above_its_ceiling(env: &mut Env) {
    let jobs = vec![urgent(10), urgent(40), urgent(20), urgent(10), urgent(20), urgent(63)];
    let all = env.add_all(jobs).await;
    let lane = Lane::of(&env.get(all[0]).await);
    let worker = env.worker().await;
    let between = |floor, ceiling, n| Pick { ceiling: priority(ceiling), ..pick(&lane, floor, n) };
    for (picks, expected) in [
        (vec![between(0, 9, 9)], vec![]),
        (vec![between(21, 20, 9)], vec![]),
        (vec![between(10, 10, 1)], vec![all[0]]),
        // Each level for itself, as what has waited for long is claimed: in the order of the picks.
        (vec![between(10, 10, 1), between(20, 20, 1), between(40, 63, 1)], vec![all[3], all[2], all[5]]),
        (vec![between(0, 39, 9), between(0, 63, 9)], vec![all[4], all[1]]),
    ] {
        let done = env.exchange(&worker, Vec::new(), picks.clone()).await;
        assert_eq!(ids(&done.claimed), expected, "{picks:?}");
    }
}

pub(super) async fn picks_are_granted_in_their_order(env: &mut Env) {
    let here = env.add_all(vec![job(), job(), job()]).await;
    let there = env.add(job_of(spec().queue("other"))).await;
    let (lane, other) = (Lane::of(&env.get(here[0]).await), Lane::of(&env.get(there).await));
    let empty = Lane { queue: name("nobody"), ..lane.clone() };
    let worker = env.worker().await;
    let picks = vec![pick(&lane, 0, 1), pick(&empty, 0, 1), pick(&other, 0, 5), pick(&lane, 0, 1)];
    let done = env.exchange(&worker, Vec::new(), picks).await;
    assert_eq!(ids(&done.claimed), [here[0], there, here[1]]);
    assert_eq!(done.changes.iter().map(|change| change.job).collect::<Vec<_>>(), [here[0], there, here[1]]);
}

pub(super) async fn a_delayed_job_is_not_claimed_before_its_time(env: &mut Env) {
    let at = env.ahead(SECOND);
    let id = env.add(job().run_at(at)).await;
    let worker = env.worker().await;
    let lane = Lane::of(&env.get(id).await);
    env.advance(SECOND - std::time::Duration::from_micros(1)).await;
    let done = env.exchange(&worker, Vec::new(), vec![pick(&lane, 0, 1)]).await;
    assert_eq!((ids(&done.claimed), done.next_due), (vec![], Some(at)));
    env.advance(std::time::Duration::from_micros(1)).await;
    let done = env.exchange(&worker, Vec::new(), vec![pick(&lane, 0, 1)]).await;
    assert_eq!((ids(&done.claimed), done.next_due), (vec![id], None));
}

pub(super) async fn a_job_past_its_deadline_is_not_claimed(env: &mut Env) {
    let late = env.add(urgent(60).deadline(env.ahead(SECOND))).await;
    let others = env.add_all(vec![urgent(50), urgent(50).deadline(env.ahead(HOUR))]).await;
    env.advance(SECOND).await;
    let owner = env.owner("a").await;
    assert_eq!(ids(&env.claim_beside(&owner, late, 2).await), others);
    assert_eq!(ids(&env.claim_beside(&owner, late, 2).await), []);
    assert_eq!(env.state(late).await, State::Pending, "only a reap fails it");
}

pub(super) async fn a_paused_queue_gives_nothing(env: &mut Env) {
    let id = env.add(job()).await;
    let owner = env.owner("a").await;
    for (paused, expected) in [(true, vec![]), (false, vec![id])] {
        let policy = QueuePolicy { tenant: Tenant::default(), queue: name("default"), paused, weight: 1 };
        env.store().set_queue(policy).await.expect("set_queue");
        assert_eq!(ids(&env.claim_beside(&owner, id, 1).await), expected);
    }
}

pub(super) async fn outputs_of_the_parents_come_with_the_claim(env: &mut Env) {
    let good = env.add(job_of(spec().name("good"))).await;
    env.run(good, succeeded_with(output("42"))).await;
    let bad = env.add(job_of(spec().name("bad"))).await;
    env.run(bad, failed()).await;
    let mut parents = outlives(&[bad, good]);
    parents[1].requires = Requires::Success;
    let child = env.add(job().after(parents)).await;
    let held = env.hold(child).await;
    let input = |job: JobId, text, output: Output| Input { job, name: name(text), output };
    let expected = [input(bad, "bad", Output::none()), input(good, "good", output("42"))];
    assert_eq!(*held.inputs, expected, "in the order of the parents");
    let worker = env.worker().await;
    assert_eq!(env.store().leases_of(&worker).await.expect("leases_of"), [held]);
}

pub(super) async fn a_job_that_lost_an_owner_is_claimed_alone(env: &mut Env) {
    let term = env.term().await;
    let lost = env.add(urgent(40)).await;
    let owner = env.owner("a").await;
    env.take(&owner, lost).await;
    env.store().retire(&owner).await.expect("retire");
    env.reap(&term, 9).await;
    let others = env.add_all(vec![urgent(50), urgent(30)]).await;
    let owner = env.owner("b").await;
    for expected in [vec![others[0]], vec![lost], vec![others[1]]] {
        assert_eq!(ids(&env.claim_beside(&owner, lost, 9).await), expected);
    }
}

pub(super) async fn only_a_living_owner_claims(env: &mut Env) {
    let id = env.add(job()).await;
    let held = env.running(job_of(spec().queue("held"))).await;
    let (expired, retired, older) = (env.owner("a").await, env.owner("b").await, env.owner("c").await);
    env.advance(LIFE).await;
    let younger = env.owner("c").await;
    env.store().retire(&retired).await.expect("retire");
    let stranger = Lease { owner: crate::id::OwnerId::from(name("stranger")), incarnation: 1 };
    let lane = Lane::of(&env.get(id).await);
    for owner in [expired, retired, older.clone(), stranger] {
        let done = env.exchange(&owner, Vec::new(), vec![pick(&lane, 0, 1)]).await;
        assert!(done.owner_lost && done.claimed.is_empty(), "{owner:?}");
    }
    let done = env.exchange(&older, vec![of(&held, succeeded())], vec![pick(&lane, 0, 1)]).await;
    assert_eq!((done.owner_lost, done.applied, done.claimed), (true, vec![Applied::Done], vec![]));
    let done = env.exchange(&younger, Vec::new(), vec![pick(&lane, 0, 1)]).await;
    assert_eq!((done.owner_lost, ids(&done.claimed)), (false, vec![id]));
}

pub(super) async fn what_is_settled_makes_way_in_the_same_exchange(env: &mut Env) {
    let parent = env.add(job()).await;
    let child = env.add(job().after(needs(&[parent]))).await;
    let held = env.hold(parent).await;
    let worker = env.worker().await;
    let lane = Lane::of(&env.get(child).await);
    let step = of(&held, succeeded_with(output("42")));
    let done = env.exchange(&worker, vec![step], vec![pick(&lane, 0, 1)]).await;
    assert_eq!((done.applied, ids(&done.claimed)), (vec![Applied::Done], vec![child]));
    assert_eq!(done.claimed[0].inputs[0].output, output("42"));
}

pub(super) async fn racing_owners_never_claim_the_same_job(env: &mut Env) {
    env.seen.unordered = true;
    let all = env.add_all((0..40).map(|_| job()).collect()).await;
    let lane = Lane::of(&env.get(all[0]).await);
    let mut owners = Vec::new();
    for owner in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        owners.push(env.owner(owner).await);
    }
    let store = env.shared();
    let racing = owners.iter().map(|owner| {
        let exchange =
            Exchange { owner: owner.clone(), transitions: Vec::new(), picks: vec![pick(&lane, 0, 4)] };
        let store = &store;
        Box::pin(async move { ids(&store.exchange(exchange).await.expect("exchange").claimed) })
            as std::pin::Pin<Box<dyn Future<Output = Vec<JobId>> + Send + '_>>
    });
    let mut claimed = together(racing.collect()).await.concat();
    claimed.sort_unstable();
    let count = claimed.len();
    claimed.dedup();
    assert_eq!((claimed.len(), count), (32, 32), "each job once, and to each owner what it asked for");
}
