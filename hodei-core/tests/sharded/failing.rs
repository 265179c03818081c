//! One shard fails, and the others go on.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hodei_core::job::{Lease, NewJob};
use hodei_core::store::*;
use hodei_core::testkit::fault::Fault;
use hodei_core::{Clock, ErrorKind, JobId, Result, Tenant};

use crate::world::{
    LIFE, Shards, add, claiming, ended, ids, job, listed, name, owner, pick, telling, tenant_in,
};

/// Two shards, a tenant in each with two jobs, and an owner.
struct Pair {
    shards: Shards,
    store: ShardedStore,
    jobs: [[NewJob; 2]; 2],
    owner: Lease,
}

impl Pair {
    async fn new() -> Self {
        let shards = Shards::new(2);
        let store = shards.open().await;
        let owner = store.register(&owner("a"), LIFE).await.expect("register");
        let jobs = [0, 1].map(|shard| [0; 2].map(|_| job(&tenant_in(shard, 2, 0))));
        add(&store, jobs.iter().flatten().cloned().collect()).await;
        Self { shards, store, jobs, owner }
    }

    fn tenant(&self, shard: usize) -> Tenant {
        self.jobs[shard][0].tenant.clone()
    }

    /// Claims so many jobs of each tenant.
    async fn claim(&self, n: u32) -> Exchanged {
        let picks = self.jobs.iter().map(|jobs| pick(&jobs[0], n)).collect();
        self.store.exchange(claiming(&self.owner, picks)).await.expect("exchange")
    }
}

/// The error names the shard.
fn fails_for<T: std::fmt::Debug>(shard: &'static str, answer: Result<T>) {
    let error = answer.expect_err("a shard is down");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Unavailable, Some(shard)), "{error}");
}

#[tokio::test]
async fn verbs_that_need_only_other_shards_go_on_and_the_others_name_the_shard() {
    for (down, named) in [(0, "0"), (1, "1")] {
        let pair = Pair::new().await;
        let (store, up) = (&pair.store, 1 - down);
        let (well, ill) = (Scope::Tenant(pair.tenant(up)), Scope::Tenant(pair.tenant(down)));
        pair.shards.faults[down].all(Fault::Refused);
        add(store, vec![job(&pair.tenant(up))]).await;
        fails_for(named, store.submit(vec![job(&pair.tenant(down))], SubmitOptions::each()).await);
        assert_eq!(store.counts(&well).await.expect("counts").total(), 3);
        fails_for(named, store.counts(&ill).await);
        fails_for(named, store.counts(&Scope::All).await);
        assert_eq!(listed(store, &well, Query::new()).await.expect("query").len(), 3);
        fails_for(named, store.query(&Scope::All, Query::new()).await);
        assert_eq!(store.changes(&well, None, 9).await.expect("changes").changes.len(), 3);
        fails_for(named, store.changes(&Scope::All, None, 9).await);
        let (here, there) = (pair.jobs[up][0].id, pair.jobs[down][0].id);
        let get = |ids: Vec<JobId>| store.get_many(&Scope::All, ids, Consistency::Latest);
        assert!(get(vec![here]).await.expect("get")[0].is_some());
        fails_for(named, get(vec![here, there]).await);
        assert_eq!(store.limits(&well).await.expect("limits"), []);
        let heads = store.lanes(&Served::default()).await.expect("lanes").heads;
        assert_eq!(heads.iter().map(|head| head.lane.tenant.clone()).collect::<Vec<_>>(), [pair.tenant(up)]);
        let failures = store.failures();
        assert_eq!(
            (failures[up].clone(), failures[down].as_ref().map(|f| f.0)),
            (None, Some(ErrorKind::Unavailable))
        );
        pair.shards.faults[down].heal();
        assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 5);
        assert!(store.failures().iter().all(Option::is_none));
    }
}

#[tokio::test]
async fn a_submission_to_a_failed_and_a_healthy_shard_is_repeated_whole() {
    let pair = Pair::new().await;
    let jobs = vec![job(&pair.tenant(1)), job(&pair.tenant(0))];
    pair.shards.faults[1].all(Fault::Refused);
    fails_for("1", pair.store.submit(jobs.clone(), SubmitOptions::each()).await);
    pair.shards.faults[1].heal();
    let done = pair.store.submit(jobs.clone(), SubmitOptions::each()).await.expect("submit");
    assert_eq!(done.replies, [Submitted::New(jobs[0].id), Submitted::Existing(jobs[1].id)]);
}

#[tokio::test]
async fn an_exchange_settles_and_claims_where_it_can() {
    let pair = Pair::new().await;
    let held = pair.claim(1).await.claimed;
    assert_eq!(ids(&held), [pair.jobs[0][0].id, pair.jobs[1][0].id]);
    let steps = || held.iter().rev().map(ended).collect::<Vec<_>>();
    pair.shards.faults[1].all(Fault::Refused);
    let picks = pair.jobs.iter().map(|jobs| pick(&jobs[0], 1)).collect();
    let exchange = Exchange { owner: pair.owner.clone(), transitions: steps(), picks };
    let done = pair.store.exchange(exchange).await.expect("the healthy half");
    assert_eq!(done.applied, [Applied::Unavailable, Applied::Done]);
    assert_eq!((ids(&done.claimed), done.owner_lost), (vec![pair.jobs[0][1].id], false));
    assert_eq!((done.changes.len(), done.partial), (2, true));
    pair.shards.faults[1].heal();
    let again = pair.store.exchange(telling(&pair.owner, steps())).await.expect("exchange");
    assert_eq!((again.applied, again.partial), (vec![Applied::Done, Applied::AlreadyApplied], false));
    assert_eq!(again.reclaimed, [], "what was never claimed");
    pair.shards.faults.iter().for_each(|faults| faults.all(Fault::Refused));
    let done = pair.store.exchange(telling(&pair.owner, steps())).await.expect("it is to be told again");
    assert_eq!(done.applied, [Applied::Unavailable; 2]);
    assert!(pair.store.failures().iter().all(Option::is_some));
}

#[tokio::test]
async fn claims_that_all_shards_lost_come_from_each_as_it_answers_again() {
    let pair = Pair::new().await;
    pair.shards.faults.iter().for_each(|faults| faults.all(Fault::ReplyLost));
    assert_eq!(ids(&pair.claim(1).await.claimed), []);
    let nothing = || pair.store.exchange(claiming(&pair.owner, Vec::new()));
    for shard in [0, 1] {
        pair.shards.faults[shard].heal();
        let found = nothing().await.expect("exchange").reclaimed;
        assert_eq!(ids(&found), [pair.jobs[shard][0].id], "whatever the other does");
    }
}

#[tokio::test]
async fn a_claim_in_doubt_is_found_where_its_slot_has_moved() {
    let pair = Pair::new().await;
    pair.shards.faults[1].all(Fault::ReplyLost);
    assert_eq!(ids(&pair.claim(1).await.claimed), [pair.jobs[0][0].id]);
    pair.shards.faults[1].heal();
    pair.store.move_slot(pair.tenant(1).slot(), 0).await.expect("it moves");
    let nothing = || pair.store.exchange(claiming(&pair.owner, Vec::new()));
    pair.shards.faults[0].all(Fault::Refused);
    assert_eq!(nothing().await.expect("exchange").reclaimed, [], "nobody can say");
    pair.shards.faults[0].heal();
    // An exchange that asks the shard in doubt something.
    let found = pair.claim(0).await.reclaimed;
    assert_eq!(ids(&found), [pair.jobs[0][0].id, pair.jobs[1][0].id], "with what it knows already");
    assert_eq!(pair.claim(0).await.reclaimed, [], "once");
}

#[tokio::test]
async fn an_exchange_that_asks_a_shard_only_for_its_next_job_hides_no_wake_up() {
    let pair = Pair::new().await;
    let due = pair.shards.clock.now().saturating_add(Duration::from_secs(1));
    add(&pair.store, vec![job(&pair.tenant(1)).run_at(due)]).await;
    let mut wakeups = pair.store.wakeups();
    pair.shards.clock.advance(Duration::from_secs(1));
    let exchange = claiming(&pair.owner, vec![pick(&pair.jobs[0][0], 1)]);
    assert_eq!(pair.store.exchange(exchange).await.expect("exchange").next_due, None);
    let rung = wakeups.as_mut().poll_next(&mut Context::from_waker(Waker::noop()));
    assert_eq!(rung, Poll::Ready(Some(Wakeup)), "a job is ready that nobody was told of");
}

#[tokio::test]
async fn claims_whose_reply_was_lost_come_with_a_later_exchange() {
    let pair = Pair::new().await;
    pair.shards.faults[1].all(Fault::ReplyLost);
    let done = pair.claim(1).await;
    assert_eq!((ids(&done.claimed), done.reclaimed), (vec![pair.jobs[0][0].id], vec![]));
    let nothing = || pair.store.exchange(claiming(&pair.owner, Vec::new()));
    assert_eq!(nothing().await.expect("exchange").reclaimed, [], "it still does not answer");
    pair.shards.faults[1].heal();
    let other = pair.store.register(&owner("b"), LIFE).await.expect("register");
    let theirs = pair.store.exchange(claiming(&other, Vec::new())).await.expect("exchange");
    assert_eq!(theirs.reclaimed, [], "not another owner's");
    let found = nothing().await.expect("exchange").reclaimed;
    assert_eq!(ids(&found), [pair.jobs[1][0].id]);
    assert_eq!(nothing().await.expect("exchange").reclaimed, [], "once");
    let told = pair.store.exchange(telling(&pair.owner, vec![ended(&found[0])])).await.expect("exchange");
    assert_eq!(told.applied, [Applied::Done]);
}

#[tokio::test]
async fn a_shard_that_missed_an_owner_learns_of_it_when_it_is_needed() {
    for by_beat in [true, false] {
        let mut pair = Pair::new().await;
        pair.shards.faults[1].all(Fault::Refused);
        pair.owner = pair.store.register(&owner("a"), LIFE).await.expect("the home knows it");
        pair.shards.faults[1].heal();
        if by_beat {
            let beats = pair.store.beat(vec![pair.owner.clone()], LIFE).await.expect("beat");
            assert!(beats[0].alive);
            assert_eq!(pair.shards.stores[1].owner_life(&pair.owner).await.expect("life"), Some(LIFE));
        }
        let done = pair.claim(1).await;
        assert_eq!(
            (done.owner_lost, ids(&done.claimed)),
            (false, vec![pair.jobs[0][0].id, pair.jobs[1][0].id])
        );
    }
}

#[tokio::test]
async fn an_owner_that_the_home_does_not_know_is_lost_everywhere() {
    let pair = Pair::new().await;
    let stranger = Lease { owner: owner("stranger"), incarnation: 99 };
    let done =
        pair.store.exchange(claiming(&stranger, vec![pick(&pair.jobs[1][0], 1)])).await.expect("exchange");
    assert!(done.owner_lost && done.claimed.is_empty());
}

#[tokio::test]
async fn an_owner_whose_life_ended_in_a_shard_is_dead() {
    let pair = Pair::new().await;
    pair.claim(1).await;
    pair.shards.faults[1].all(Fault::Refused);
    for _ in 0..2 {
        pair.shards.clock.advance(LIFE / 3 * 2);
        let beats = pair.store.beat(vec![pair.owner.clone()], LIFE).await.expect("the home hears it");
        assert!(beats[0].alive);
    }
    pair.shards.faults[1].heal();
    let beats = pair.store.beat(vec![pair.owner.clone()], LIFE).await.expect("beat");
    assert_eq!(beats, [Beat::default()]);
    assert_eq!(pair.shards.stores[0].owner_life(&pair.owner).await.expect("life"), None);
}

#[tokio::test]
async fn what_to_cancel_is_told_from_every_shard() {
    let pair = Pair::new().await;
    let held = pair.claim(1).await.claimed;
    let start = |held: &Claimed| Transition {
        job: held.job.id,
        epoch: held.job.epoch,
        step: Move::Started { lease: None },
    };
    let starts = held.iter().map(start).collect();
    pair.store.exchange(telling(&pair.owner, starts)).await.expect("exchange");
    pair.store.request_cancel(&Scope::All, ids(&held)).await.expect("cancel");
    let beats = pair.store.beat(vec![pair.owner.clone()], LIFE).await.expect("beat");
    let mut expected: Vec<_> = held.iter().map(|held| (held.job.id, held.job.epoch)).collect();
    expected.sort_unstable();
    assert_eq!(beats, [Beat { alive: true, cancel: expected }]);
}

#[tokio::test]
async fn a_shard_that_missed_a_term_learns_of_it_when_it_is_needed() {
    let pair = Pair::new().await;
    pair.claim(2).await;
    let spec = Arc::clone(&pair.jobs[1][0].spec);
    let schedule =
        Schedule { tenant: pair.tenant(1), name: name("s"), rule: "@daily".into(), spec, last_fired: None };
    pair.store.set_schedule(schedule).await.expect("set_schedule");
    let leader = pair.store.register(&owner("leader"), 10 * LIFE).await.expect("register");
    pair.shards.faults[1].all(Fault::Refused);
    let term =
        pair.store.take_term(&name("d"), &leader, 10 * LIFE).await.expect("take").expect("nobody leads");
    pair.shards.faults[1].heal();
    let at = pair.shards.clock.now();
    let fired = pair.store.fire(&term, &pair.tenant(1), &name("s"), at).await.expect("fire");
    assert!(matches!(fired, Fired::New(_)));
    pair.shards.clock.advance(LIFE);
    let reaped = pair.store.reap(&term, 3, 3).await.expect("reap");
    assert_eq!((reaped.changes.len(), reaped.more, reaped.term_lost), (3, true, false));
    let forged = Term { number: 9, ..term };
    assert!(pair.store.reap(&forged, 3, 9).await.expect("reap").term_lost);
    let fired = pair.store.fire(&forged, &pair.tenant(1), &name("s"), at).await.expect("fire");
    assert_eq!(fired, Fired::TermLost);
    assert!(pair.store.prune(&forged, Retention::default(), 9).await.expect("prune").term_lost);
}

#[tokio::test]
async fn a_reap_tells_what_it_did_before_it_fails() {
    for down in [0, 1] {
        let pair = Pair::new().await;
        let leader = pair.store.register(&owner("leader"), 10 * LIFE).await.expect("register");
        let term =
            pair.store.take_term(&name("d"), &leader, 10 * LIFE).await.expect("take").expect("nobody leads");
        pair.claim(2).await;
        pair.shards.clock.advance(LIFE);
        pair.shards.faults[down].all(Fault::Refused);
        let done = pair.store.reap(&term, 3, 9).await.expect("the healthy half");
        assert_eq!((done.changes.len(), done.more, done.partial), (2, true, true));
        fails_for(["0", "1"][down], pair.store.reap(&term, 3, 9).await);
        pair.shards.faults[down].heal();
        let rest = pair.store.reap(&term, 3, 9).await.expect("reap");
        assert_eq!((rest.changes.len(), rest.more, rest.partial), (2, false, false));
    }
}

/// Reaping and pruning alternate, as a leader does: each has its own turns.
#[tokio::test]
async fn a_shard_that_always_has_more_to_do_starves_no_other() {
    let pair = Pair::new().await;
    let held = pair.claim(2).await.claimed;
    let leader = pair.store.register(&owner("leader"), 10 * LIFE).await.expect("register");
    let term =
        pair.store.take_term(&name("d"), &leader, 10 * LIFE).await.expect("take").expect("nobody leads");
    pair.shards.clock.advance(LIFE);
    let retention = Retention { changes: 0, ..Retention::default() };
    let slots = [0, 1].map(|shard| pair.tenant(shard).slot());
    let (mut reaped, mut pruned) = ([0, 0], Vec::new());
    for _ in 0..2 {
        let done = pair.store.reap(&term, 3, 1).await.expect("reap");
        assert_eq!((done.changes.len(), done.more, done.term_lost), (1, true, false));
        let of = slots.iter().position(|slot| *slot == done.changes[0].job.slot()).expect("of the pair");
        reaped[of] += 1;
        let done = pair.store.prune(&term, retention, 1).await.expect("prune");
        assert_eq!((done.changes, done.more, done.term_lost), (1, true, false));
        let ends = pair.shards.stores.iter().map(|shard| shard.changes(&Scope::All, None, 99));
        let mut left = Vec::new();
        for end in ends {
            left.push(end.await.expect("changes").changes.len());
        }
        pruned.push(left);
    }
    assert_eq!((reaped, held.len()), ([1, 1], 4));
    // Two submitted and two claimed in each, one reaped in each, and one pruned in each.
    assert_eq!(pruned[1], [4, 4], "{pruned:?}");
}

#[tokio::test]
async fn whoever_led_before_does_nothing_in_a_shard_that_has_not_heard_of_the_next() {
    let pair = Pair::new().await;
    pair.claim(2).await;
    let leaders = [
        pair.store.register(&owner("old"), 10 * LIFE).await.expect("register"),
        pair.store.register(&owner("new"), 10 * LIFE).await.expect("register"),
    ];
    let old = pair.store.take_term(&name("d"), &leaders[0], LIFE).await.expect("take").expect("it is free");
    // The home gives the term to another one while the second shard, whose clock is the same, keeps it for the first.
    pair.shards.stores[1].adopt_term(&old, 10 * LIFE).await.expect("adopt");
    pair.shards.clock.advance(2 * LIFE);
    pair.shards.faults[1].all(Fault::Refused);
    pair.store.take_term(&name("d"), &leaders[1], LIFE).await.expect("take").expect("it is free");
    pair.shards.faults[1].heal();
    for _ in 0..3 {
        let reaped = pair.store.reap(&old, 3, 9).await.expect("reap");
        assert_eq!((reaped.changes.len(), reaped.term_lost), (0, true));
        let retention = Retention { changes: 0, ..Retention::default() };
        let pruned = pair.store.prune(&old, retention, 9).await.expect("prune");
        assert_eq!((pruned.changes, pruned.term_lost), (0, true));
    }
}

#[tokio::test]
async fn without_the_home_work_goes_on_and_nobody_new_comes() {
    let pair = Pair::new().await;
    let held = pair.claim(1).await.claimed;
    pair.shards.faults[0].all(Fault::Refused);
    let picks = vec![pick(&pair.jobs[1][0], 1)];
    let exchange = Exchange { owner: pair.owner.clone(), transitions: vec![ended(&held[1])], picks };
    let done = pair.store.exchange(exchange).await.expect("the healthy half");
    assert_eq!((done.applied, ids(&done.claimed)), (vec![Applied::Done], vec![pair.jobs[1][1].id]));
    assert!(!done.partial, "the home was asked for nothing");
    fails_for("0", pair.store.register(&owner("b"), LIFE).await);
    fails_for("0", pair.store.take_term(&name("d"), &pair.owner, LIFE).await);
    fails_for("0", pair.store.beat(vec![pair.owner.clone()], LIFE).await);
    pair.shards.clock.advance(Duration::from_secs(1));
    fails_for("0", pair.store.move_slot(pair.tenant(1).slot(), 0).await);
}
