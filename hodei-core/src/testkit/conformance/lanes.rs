//! Lanes: the heads tell what is ready, and nothing else.

use super::env::Env;
use super::jobs::*;
use crate::id::{PipelineId, Tenant};
use crate::job::{JobSpec, Resources, Selector, Share};
use crate::pipeline::{Pipeline, Step};
use crate::store::{Lane, LaneHead, Limit, LimitOf, QueuePolicy, Served};

pub(super) async fn an_empty_store_has_no_lanes(env: &mut Env) {
    let lanes = env.lanes().await;
    assert_eq!((lanes.heads, lanes.next_due), (Vec::new(), None));
}

pub(super) async fn a_head_tells_level_depth_and_age(env: &mut Env) {
    env.add(urgent(10)).await;
    env.advance(SECOND).await;
    let first = env.add(urgent(40)).await;
    let since = env.now();
    env.advance(SECOND).await;
    env.add(urgent(40)).await;
    env.add(urgent(10)).await;
    let job = env.get(first).await;
    let head = LaneHead {
        lane: Lane::of(&job),
        request: job.spec.request().into(),
        level: priority(40),
        depth: 2,
        eligible_at: since,
        weight: 1,
    };
    assert_eq!(env.lanes().await.heads, [head]);
}

pub(super) async fn every_level_of_a_lane_is_shown_to_whoever_asks(env: &mut Env) {
    let mut since = Vec::new();
    for level in [10, 40, 10, 63, 0] {
        since.push(env.now());
        env.add(urgent(level)).await;
        env.advance(SECOND).await;
    }
    env.add(job_of(spec().queue("other").priority(priority(5)))).await;
    let tell = |head: &LaneHead| (head.lane.queue.clone(), head.level.level(), head.depth, head.eligible_at);
    let (own, other) = (env.levels().await, name("other"));
    let queue = own.heads.iter().find(|head| head.level == priority(63)).expect("shown").lane.queue.clone();
    let of = |queue: &crate::id::Name| -> Vec<_> {
        own.heads.iter().map(tell).filter(|head| head.0 == *queue).collect()
    };
    let first = |level, depth, at: usize| (queue.clone(), level, depth, since[at]);
    assert_eq!(of(&queue), [first(63, 1, 3), first(40, 1, 1), first(10, 2, 0), first(0, 1, 4)]);
    assert_eq!(of(&other), [(other.clone(), 5, 1, env.now())]);
    assert_eq!(env.lanes().await.heads.len(), 2, "who does not ask sees one of each lane");
    // What a limit leaves is told of each level for itself: one of them may take it all.
    let limited = |level| job_of(spec().queue("limited").limited_by("k").priority(priority(level)));
    env.add_all(vec![limited(7), limited(9), limited(7), limited(9)]).await;
    let limit = Limit::new(LimitOf::Key(Tenant::default(), name("k")), 1);
    env.store().set_limit(limit).await.expect("set_limit");
    let levels = env.levels().await.heads;
    let levels = levels.iter().map(tell).filter(|head| head.0 == name("limited"));
    assert_eq!(levels.map(|head| (head.1, head.2)).collect::<Vec<_>>(), [(9, 1), (7, 1)]);
}

pub(super) async fn heads_follow_what_is_claimed(env: &mut Env) {
    let ids = env.add_all(vec![urgent(40), urgent(40), urgent(10)]).await;
    for (depth, level, claimed) in [(2, 40, ids[0]), (1, 40, ids[1]), (1, 10, ids[2])] {
        let head = env.lanes().await.heads.remove(0);
        assert_eq!((head.depth, head.level), (depth, priority(level)));
        env.hold(claimed).await;
    }
    assert_eq!(env.lanes().await.heads, []);
}

pub(super) async fn lanes_part_tenants_queues_and_requests(env: &mut Env) {
    let large = Resources::none().cpu_millis(2_000);
    let apart = vec![
        job(),
        job_for(&acme(), spec()),
        job_of(spec().queue("other")),
        job_of(spec().resources(large)),
        job_of(spec().limited_by("k")),
    ];
    let same = vec![
        job_of(spec().name("renamed").priority(priority(1))),
        job_of(JobSpec::command(["other", "arguments"]).label("a", "b")),
    ];
    env.add_all(apart).await;
    assert_eq!(env.lanes().await.heads.len(), 5);
    env.add_all(same).await;
    assert_eq!(env.lanes().await.heads.len(), 5, "names, levels and arguments share a lane");
}

pub(super) async fn pipelines_part_lanes(env: &mut Env) {
    let slot = Tenant::default().slot();
    let wide: Vec<PipelineId> = (0..64).map(|ticket| PipelineId::from_parts(ticket, slot, 0)).collect();
    let apart = wide.iter().find(|id| Share::of(**id) != Share::of(wide[0]));
    let wide = [wide[0], *apart.expect("they are spread")];
    let first = job().in_pipeline(wide[0]);
    let child = job().in_pipeline(wide[0]).after(needs(&[first.id]));
    let small = |weight| {
        let pipeline = Pipeline::builder("p").weight(weight).step(Step::new("job", spec()));
        pipeline.build().expect("a valid pipeline").jobs()[0].clone()
    };
    let (last, heaviest) = (job().in_pipeline(wide[1]), Share::WEIGHT_MAX);
    let heavy = job_of(spec().resources(Resources::none().share(Share::SMALL.weighing(7))));
    let jobs = vec![job(), small(1), first, last, child, small(heaviest), heavy.in_pipeline(wide[0])];
    let ids = env.add_all(jobs).await;
    let shares = [Share::NONE, Share::SMALL, Share::of(wide[0]), Share::of(wide[1])];
    let heads = env.lanes().await.heads;
    assert_eq!(heads.len(), 6, "pipelines of different weights are apart");
    let heavy = [(ids[5], Share::SMALL.weighing(heaviest)), (ids[6], Share::of(wide[0]).weighing(7))];
    for (id, share) in heavy {
        let lane = Lane::of(&env.get(id).await);
        let head = heads.iter().find(|head| head.lane == lane).expect("its lane is shown");
        assert_eq!((head.request.share(), head.request.class()), (share, lane.class));
    }
    for (id, share) in ids.iter().zip(shares) {
        let lane = Lane::of(&env.get(*id).await);
        let head = heads.iter().find(|head| head.lane == lane).expect("its lane is shown");
        assert_eq!((head.request.share(), head.depth, head.request.class()), (share, 1, lane.class));
    }
    env.run(ids[2], succeeded()).await;
    let worker = env.worker().await;
    for id in [ids[4], ids[0], ids[1], ids[3]] {
        let claimed = env.claim_beside(&worker, id, 9).await;
        assert_eq!(self::ids(&claimed), [id], "a claim is of one lane");
        assert_eq!(claimed[0].job.spec.class(), env.get(id).await.spec.class());
    }
}

pub(super) async fn what_jobs_say_of_their_place_parts_lanes_and_is_kept(env: &mut Env) {
    let zone = |zone: &str| spec().require(Selector::is("zone", zone));
    let long =
        Selector::In("l".repeat(128), (0..16).map(|n| format!("value {n} – {}", "é".repeat(15))).collect());
    let apart = vec![
        job(),
        job_of(zone("a")),
        job_of(zone("b")),
        job_of(zone("a").prefer(long).group("g")),
        job_of(spec().group("g").apart("g").prefer_beside("h")),
        job_of(spec().beside("g")),
    ];
    let places: Vec<_> = apart.iter().map(|job| job.spec.placement()).collect();
    let ids = env.add_all(apart).await;
    env.add_all(vec![job_of(zone("a").require(Selector::is("zone", "a")))]).await;
    let heads = env.lanes().await.heads;
    assert_eq!(heads.len(), 6, "who says the same in other words shares a lane");
    let worker = env.worker().await;
    for (id, place) in ids.into_iter().zip(places) {
        let lane = Lane::of(&env.get(id).await);
        let head = heads.iter().find(|head| head.lane == lane).expect("its lane is shown");
        assert_eq!((head.request.resources.placement(), head.request.class()), (place.clone(), lane.class));
        let claimed = env.claim_beside(&worker, id, 9).await;
        let job = claimed.iter().find(|claimed| claimed.job.id == id).expect("it is claimed");
        assert_eq!(job.job.spec.placement(), place);
    }
}

pub(super) async fn only_served_queues_are_shown(env: &mut Env) {
    env.add_all(vec![job_of(spec().queue("a")), job_of(spec().queue("b")), job_of(spec().queue("c"))]).await;
    for queues in [&["a"][..], &["a", "c"], &["nobody"], &[]] {
        let served = Served { queues: Some(queues.iter().copied().map(name).collect()), ..Served::default() };
        let mut shown: Vec<_> = env
            .store()
            .lanes(&served)
            .await
            .expect("lanes")
            .heads
            .into_iter()
            .map(|head| head.lane.queue)
            .collect();
        shown.sort();
        let expected: Vec<_> = queues.iter().filter(|queue| **queue != "nobody").copied().map(name).collect();
        assert_eq!(shown, expected);
    }
    assert_eq!(env.lanes().await.heads.len(), 3);
}

pub(super) async fn a_delayed_job_appears_when_it_is_due(env: &mut Env) {
    let (soon, late) = (env.ahead(SECOND), env.ahead(2 * SECOND));
    let id = env.add(job().run_at(soon)).await;
    env.add(job_of(spec().queue("other")).run_at(late)).await;
    let before = env.lanes().await;
    assert_eq!((before.heads, before.next_due), (Vec::new(), Some(soon)));
    env.advance(SECOND).await;
    let then = env.lanes().await;
    let head = &then.heads[0];
    assert_eq!((then.heads.len(), then.next_due), (1, Some(late)));
    assert_eq!((&head.lane, head.depth, head.eligible_at), (&Lane::of(&env.get(id).await), 1, soon));
    env.advance(HOUR).await;
    let after = env.lanes().await;
    assert_eq!((after.heads.len(), after.next_due), (2, None));
}

pub(super) async fn a_delayed_job_that_is_cancelled_is_due_no_more(env: &mut Env) {
    let id = env.add(job().run_at(env.ahead(SECOND))).await;
    env.cancel(&[id]).await;
    assert_eq!(env.lanes().await.next_due, None);
    env.advance(SECOND).await;
    assert_eq!(env.lanes().await.heads, []);
}

pub(super) async fn blocked_leased_and_settled_jobs_are_in_no_lane(env: &mut Env) {
    let parent = env.add(job()).await;
    env.add(job_of(spec().queue("blocked")).after(needs(&[parent]))).await;
    let running = env.running(job_of(spec().queue("running"))).await;
    env.add(job_of(spec().queue("scheduled"))).await;
    let ended = env.add(job_of(spec().queue("ended"))).await;
    env.run(ended, succeeded()).await;
    let queues = |heads: Vec<LaneHead>| heads.into_iter().map(|head| head.lane.queue).collect::<Vec<_>>();
    assert_eq!(queues(env.lanes().await.heads), [name("default"), name("scheduled")]);
    env.tell(&running, retried(std::time::Duration::ZERO)).await;
    assert_eq!(queues(env.lanes().await.heads), [name("default"), name("running"), name("scheduled")]);
}

pub(super) async fn paused_queues_do_not_appear(env: &mut Env) {
    env.add_all(vec![job(), job_for(&acme(), spec())]).await;
    let mut policy =
        QueuePolicy { tenant: Tenant::default(), queue: name("default"), paused: true, weight: 7 };
    env.store().set_queue(policy.clone()).await.expect("set_queue");
    let heads = env.lanes().await.heads;
    assert_eq!(heads.iter().map(|head| head.lane.tenant.clone()).collect::<Vec<_>>(), [acme()]);
    policy.paused = false;
    env.store().set_queue(policy).await.expect("set_queue");
    let weights: Vec<u32> = env.lanes().await.heads.iter().map(|head| head.weight).collect();
    assert_eq!(weights, [1, 7], "in the order of the lanes");
}

pub(super) async fn limits_cut_the_depth_and_hide_the_lane(env: &mut Env) {
    let ids = env.add_all((0..4).map(|_| job_of(spec().limited_by("k"))).collect()).await;
    let depths = async |env: &Env| env.lanes().await.heads.iter().map(|head| head.depth).collect::<Vec<_>>();
    for (max, expected) in [(9, vec![4]), (2, vec![2]), (0, vec![])] {
        let limit = Limit::key(Tenant::default(), name("k"), max);
        env.store().set_limit(limit).await.expect("set_limit");
        assert_eq!(depths(env).await, expected, "at {max}");
    }
    let limit = Limit::key(Tenant::default(), name("k"), 2);
    env.store().set_limit(limit).await.expect("set_limit");
    let held = env.hold(ids[0]).await;
    assert_eq!(depths(env).await, [1]);
    env.hold(ids[1]).await;
    assert_eq!(depths(env).await, [0; 0]);
    env.tell(&held, succeeded()).await;
    assert_eq!(depths(env).await, [1]);
}

pub(super) async fn who_comes_before_is_counted_in_the_lane_and_over_all(env: &mut Env) {
    let first = env.add(job()).await;
    env.advance(SECOND).await;
    let urgent = env.add_all(vec![urgent(40), urgent(63)]).await;
    let other = |level| job_of(spec().queue("other").priority(priority(level)));
    env.add_all(vec![other(50), other(32), other(10)]).await;
    env.add(job_for(&acme(), spec())).await;
    env.add(job().run_at(env.ahead(HOUR))).await;
    env.advance(SECOND).await;
    let last = env.add(job()).await;
    // The id decides where all else is the same, so those of the same moment are told apart by it.
    for (id, lane, all) in [(first, 2, 3), (urgent[1], 0, 0), (urgent[0], 1, 2), (last, 3, 6)] {
        let told = env.store().before(&env.get(id).await, 100).await.expect("before");
        assert_eq!((told.lane, told.all, told.more), (lane, all, false));
    }
    // Where counting stops, those of its own lane have been counted first.
    for (most, lane, all) in [(2, 2, 2), (3, 3, 3), (4, 3, 4)] {
        let told = env.store().before(&env.get(last).await, most).await.expect("before");
        assert_eq!((told.lane, told.all, told.more), (lane, all, true));
    }
    let held = env.hold(urgent[1]).await;
    let told = env.store().before(&env.get(last).await, 100).await.expect("before");
    assert_eq!((told.lane, told.all), (2, 5));
    env.tell(&held, succeeded()).await;
}
