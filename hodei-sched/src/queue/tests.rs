//! The queue beside a plain model of it.

use std::time::Duration;

use hodei_core::Timestamp;
use hodei_core::job::Priority;
use proptest::prelude::*;

use super::{Ageing, ClassId, Handle, LaneId, Parcel, ReadyQueue, ShareId, seats};

fn level(level: u8) -> Priority {
    Priority::new(level).expect("a level")
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// A job as the model knows it.
#[derive(Clone, Copy, Debug)]
struct Job {
    id: u32,
    lane: usize,
    level: u8,
    /// When it came to its level.
    since: i64,
    due: Option<i64>,
    handle: Handle,
}

/// The queue, and a list of what it should hold.
struct Pair {
    queue: ReadyQueue<u32>,
    ageing: Option<Ageing>,
    lanes: Vec<LaneId>,
    /// In the order in which they came to their levels.
    jobs: Vec<Job>,
    held: Vec<u32>,
    now: i64,
    next: u32,
}

/// Three tenants; the second has two pipelines. The class of a lane is its number modulo three.
fn pair(ageing: Option<Ageing>) -> Pair {
    let mut queue = ReadyQueue::new(ageing);
    let tenants: Vec<ShareId> = (1..=3).map(|weight| queue.open_share(None, weight)).collect();
    let pipelines: Vec<ShareId> = (1..=2).map(|weight| queue.open_share(Some(tenants[1]), weight)).collect();
    let shares = [tenants[0], tenants[0], pipelines[0], pipelines[1], tenants[2], tenants[2]];
    let lanes = (0_u32..).zip(shares).map(|(n, share)| queue.open_lane(share, ClassId(n % 3), 1)).collect();
    Pair { queue, ageing, lanes, jobs: Vec::new(), held: Vec::new(), now: 0, next: 0 }
}

impl Pair {
    fn push(&mut self, lane: usize, at_level: u8, delay: Option<i64>) {
        let (id, place, now) = (self.next, self.lanes[lane], at(self.now));
        let due = delay.map(|delay| self.now + delay);
        let handle = match due {
            None => self.queue.push(id, place, level(at_level), now),
            Some(due) => self.queue.push_delayed(id, place, level(at_level), at(due)),
        };
        self.next += 1;
        self.jobs.push(Job { id, lane, level: at_level, since: self.now, due, handle });
    }

    fn remove(&mut self, n: usize) {
        if self.jobs.is_empty() {
            return;
        }
        let job = self.jobs.remove(n % self.jobs.len());
        assert_eq!(self.queue.get(job.handle), Some(&job.id));
        assert_eq!(self.queue.remove(job.handle), Some(job.id));
        assert_eq!(self.queue.remove(job.handle), None, "a handle names a job once");
    }

    fn advance(&mut self, by: i64) {
        self.now += by;
        self.queue.advance(at(self.now));
        // What fires comes behind what is ready, in the order of the times.
        let (mut fired, mut jobs): (Vec<Job>, Vec<Job>) = std::mem::take(&mut self.jobs)
            .into_iter()
            .partition(|job| job.due.is_some_and(|due| due <= self.now));
        fired.sort_by_key(|job| (job.due, job.id));
        jobs.extend(fired.into_iter().map(|job| Job { due: None, since: self.now, ..job }));
        self.jobs = jobs;
        let Some(ageing) = self.ageing else { return };
        let every = i64::try_from(ageing.every.as_micros()).expect("short");
        let old = |job: &Job| {
            job.due.is_none() && job.level < ageing.ceiling.level() && job.since + every <= self.now
        };
        let (risen, mut jobs): (Vec<Job>, Vec<Job>) =
            std::mem::take(&mut self.jobs).into_iter().partition(old);
        jobs.extend(risen.into_iter().map(|job| Job { level: job.level + 1, since: self.now, ..job }));
        self.jobs = jobs;
    }

    fn hold(&mut self, class: u32) {
        self.queue.hold(ClassId(class));
        self.held.push(class);
    }

    fn let_go(&mut self, class: u32) {
        self.queue.let_go(ClassId(class));
        self.held.retain(|held| *held != class);
    }

    fn ready(&self) -> impl Iterator<Item = &Job> {
        let class = |job: &&Job| u32::try_from(job.lane % 3).expect("small");
        self.jobs.iter().filter(move |job| job.due.is_none() && !self.held.contains(&class(job)))
    }

    /// Pops, and checks that the job is of the highest level, and the first of its lane there.
    fn pop(&mut self) {
        let highest = self.ready().map(|job| job.level).max();
        let peeked = self.queue.peek().map(|next| (*next.item, next.class, next.level));
        let Some(popped) = self.queue.pop() else {
            assert_eq!(highest, None);
            return;
        };
        assert_eq!(Some(popped.level.level()), highest);
        let lane = self.lanes.iter().position(|lane| *lane == popped.lane).expect("a lane");
        assert_eq!(
            peeked,
            Some((popped.item, ClassId(u32::try_from(lane % 3).expect("small")), popped.level))
        );
        let first =
            self.ready().find(|job| job.lane == lane && Some(job.level) == highest).expect("it is ready");
        assert_eq!(popped.item, first.id);
        let id = first.id;
        self.jobs.retain(|job| job.id != id);
    }

    fn check(&self) {
        assert_eq!(self.queue.len(), self.jobs.len());
        for (n, lane) in self.lanes.iter().enumerate() {
            assert_eq!(self.queue.len_of(*lane), self.jobs.iter().filter(|job| job.lane == n).count());
        }
        for number in 0..64 {
            let there = self.jobs.iter().filter(|job| job.level == number && job.due.is_none()).count();
            assert_eq!(self.queue.depth(level(number)), there);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_batch_is_what_single_pops_would_be(
        ops in prop::collection::vec((0_u8..12, 0_usize..6, 0_u8..3, 1_usize..40), 1..120),
    ) {
        let [mut batched, mut single] = [(), ()].map(|()| pair(None));
        for (op, lane, at_level, n) in ops {
            let class = ClassId(u32::from(at_level));
            match op {
                0..=6 => {
                    for item in 0..u32::try_from(n).expect("small") {
                        for Pair { queue, lanes, .. } in [&mut batched, &mut single] {
                            queue.push(item, lanes[lane], level(at_level), at(0));
                        }
                    }
                }
                7 => [&mut batched, &mut single].iter_mut().for_each(|pair| pair.queue.hold(class)),
                8 => [&mut batched, &mut single].iter_mut().for_each(|pair| pair.queue.let_go(class)),
                _ => {
                    let mut out = Vec::new();
                    batched.queue.pop_batch(n, &mut out);
                    let one_by_one = std::iter::from_fn(|| single.queue.pop()).take(n);
                    prop_assert_eq!(out, one_by_one.collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn the_order_is_that_of_the_model(
        ages in any::<bool>(),
        ops in prop::collection::vec((0_u8..14, 0_usize..6, prop_oneof![0_u8..3, 60_u8..64], 0_i64..20_000), 1..250),
    ) {
        // A tick of the wheel, so that the model need not know of it.
        let every = Duration::from_micros(5_000);
        let mut pair = pair(ages.then_some(Ageing { every, ceiling: Priority::MAX }));
        for (op, lane, at_level, number) in ops {
            match op {
                0..=4 => pair.push(lane, at_level, None),
                5 => pair.push(lane, at_level, Some(number * 3)),
                6..=8 => pair.pop(),
                9 => pair.remove(usize::try_from(number).expect("small")),
                10 => pair.hold(u32::from(at_level % 3)),
                11 => pair.let_go(u32::from(at_level % 3)),
                _ => pair.advance(number),
            }
            pair.check();
        }
        (0..3).for_each(|class| pair.let_go(class));
        pair.advance(1_000_000);
        while !pair.jobs.is_empty() {
            pair.pop();
        }
        prop_assert!(pair.queue.is_empty());
    }

    #[test]
    fn a_job_waits_no_longer_than_its_bound(from in 0_u8..64, rival in 0_u8..64, every in 1_i64..50) {
        let ageing = Ageing { every: Duration::from_millis(every.unsigned_abs()), ceiling: Priority::MAX };
        let mut queue = ReadyQueue::new(Some(ageing));
        let shares: Vec<ShareId> = (0..2).map(|_| queue.open_share(None, 1)).collect();
        let [poor, rich] = [0, 1].map(|n| queue.open_lane(shares[n], ClassId(0), 1));
        let mut now = at(1);
        queue.push("waits", poor, level(from), now);
        // Others come faster than they are served, for ever.
        let bound = now.saturating_add(ageing.bound(level(from)) + Duration::from_millis(5));
        loop {
            queue.push("rival", rich, level(rival), now);
            queue.push("rival", rich, level(rival), now);
            if queue.pop().expect("there is work").item == "waits" {
                break;
            }
            prop_assert!(now <= bound, "{now} is after {bound}");
            now = now.saturating_add(Duration::from_millis(1));
            queue.advance(now);
        }
    }
}

/// Serves from the queue and from a fluid ideal, and returns the greatest lag of any tenant.
fn lag(weights: &[u32], pops: usize, backlog: impl Fn(usize) -> usize) -> f64 {
    let mut queue = ReadyQueue::new(None);
    let lanes: Vec<LaneId> = weights
        .iter()
        .map(|weight| {
            let share = queue.open_share(None, *weight);
            queue.open_lane(share, ClassId(0), 1)
        })
        .collect();
    for (tenant, lane) in lanes.iter().enumerate() {
        (0..backlog(tenant)).for_each(|_| {
            queue.push(tenant, *lane, Priority::DEFAULT, at(0));
        });
    }
    let mut ideal = vec![0.0_f64; weights.len()];
    let mut served = vec![0.0_f64; weights.len()];
    let mut worst = 0.0_f64;
    for _ in 0..pops {
        let busy: Vec<usize> = (0..weights.len()).filter(|n| queue.len_of(lanes[*n]) > 0).collect();
        let total: f64 = busy.iter().map(|n| f64::from(weights[*n])).sum();
        busy.iter().for_each(|n| ideal[*n] += f64::from(weights[*n]) / total);
        served[queue.pop().expect("there is work").item] += 1.0;
        worst = busy.iter().map(|n| ideal[*n] - served[*n]).fold(worst, f64::max);
    }
    worst
}

proptest! {
    #[test]
    fn no_tenant_lags_a_job_behind_the_ideal(weights in prop::collection::vec(1_u32..100, 1..12)) {
        let worst = lag(&weights, 2_000, |_| 2_000);
        prop_assert!(worst <= 1.001, "{worst}");
    }
}

/// A member of a stage: its weight, and those who share what it gets.
#[derive(Clone, Debug)]
struct Member {
    weight: u32,
    within: Vec<Self>,
}

/// Tenants, queues of each, and pipelines of each of these.
fn stages() -> impl Strategy<Value = Vec<Member>> {
    let leaf = (1_u32..20).prop_map(|weight| Member { weight, within: Vec::new() });
    let of = |within: BoxedStrategy<Member>| {
        let members = (1_u32..20, prop::collection::vec(within, 1..4));
        members.prop_map(|(weight, within)| Member { weight, within }).boxed()
    };
    prop::collection::vec(of(of(leaf.boxed())), 1..4)
}

/// What somebody has had, and what he ought to have had: of the whole, and of what went to whom he draws from.
#[derive(Debug, Default)]
struct Account {
    served: f64,
    of_all: f64,
    of_stage: f64,
}

/// Opens the shares of a stage, and notes of each lane that is opened from whom it draws, the first stage first.
fn open(queue: &mut ReadyQueue<usize>, stage: &[Member], path: &[(ShareId, usize)], tree: &mut Tree) {
    let all: u32 = stage.iter().map(|member| member.weight).sum();
    for member in stage {
        let share = queue.open_share(path.last().map(|(share, _)| *share), member.weight);
        let above = path.last().map_or(1.0, |(_, at)| tree.parts[*at].1);
        let part = f64::from(member.weight) / f64::from(all);
        tree.parts.push((part, above * part));
        let path: Vec<_> = path.iter().copied().chain([(share, tree.parts.len() - 1)]).collect();
        if member.within.is_empty() {
            let lane = queue.open_lane(share, ClassId(0), 1);
            (0..300).for_each(|_| {
                queue.push(tree.leaves.len(), lane, Priority::DEFAULT, at(0));
            });
            tree.leaves.push(path.iter().map(|(_, at)| *at).collect());
        } else {
            open(queue, &member.within, &path, tree);
        }
    }
}

#[derive(Debug, Default)]
struct Tree {
    /// What each member ought to get: of its stage, and of all.
    parts: Vec<(f64, f64)>,
    /// The members that each lane draws from.
    leaves: Vec<Vec<usize>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn nobody_lags_a_job_for_each_stage_behind_the_ideal(tenants in stages()) {
        let (mut queue, mut tree) = (ReadyQueue::new(None), Tree::default());
        open(&mut queue, &tenants, &[], &mut tree);
        let mut accounts: Vec<Account> = tree.parts.iter().map(|_| Account::default()).collect();
        // Nobody runs out of work.
        for _ in 0..300 {
            let leaf = queue.pop().expect("there is work").item;
            for (account, (_, of_all)) in accounts.iter_mut().zip(&tree.parts) {
                account.of_all += of_all;
            }
            let mut above = None;
            for member in &tree.leaves[leaf] {
                // Whoever shares with it what has been given out now.
                let stage: Vec<usize> = tree.leaves.iter().filter_map(|path| {
                    let at = path.iter().position(|it| Some(*it) == above).map_or(0, |at| at + 1);
                    (above.is_none() || path.contains(&above?)).then(|| path[at])
                }).collect();
                for (n, (account, (of_stage, _))) in accounts.iter_mut().zip(&tree.parts).enumerate() {
                    if stage.contains(&n) {
                        account.of_stage += of_stage;
                    }
                }
                accounts[*member].served += 1.0;
                above = Some(*member);
            }
            for path in &tree.leaves {
                for (stage, member) in path.iter().enumerate() {
                    let Account { served, of_all, of_stage } = &accounts[*member];
                    let stages = f64::from(u32::try_from(stage + 1).expect("three"));
                    prop_assert!(of_stage - served <= 1.001, "{} of its stage", of_stage - served);
                    prop_assert!(of_all - served <= stages + 0.001, "{} in stage {stages}", of_all - served);
                }
            }
        }
    }
}

#[test]
fn a_flood_delays_nobody() {
    let mut queue = ReadyQueue::new(None);
    let [flood, small] = [1, 4].map(|weight| queue.open_share(None, weight));
    let [flood, small] = [flood, small].map(|share| queue.open_lane(share, ClassId(0), 1));
    (0..10_000).for_each(|_| {
        queue.push("flood", flood, Priority::DEFAULT, at(0));
    });
    (0..30).for_each(|_| {
        queue.push("small", small, Priority::DEFAULT, at(0));
    });
    let mut first = Vec::new();
    queue.pop_batch(38, &mut first);
    assert_eq!(first.iter().filter(|popped| popped.item == "small").count(), 30);
}

#[test]
fn a_pipeline_gains_nothing_by_having_many_lanes() {
    let mut queue = ReadyQueue::new(None);
    let tenant = queue.open_share(None, 1);
    let [many, one] = [1, 1].map(|weight| queue.open_share(Some(tenant), weight));
    for class in 0..10 {
        let lane = queue.open_lane(many, ClassId(class), 1);
        (0..100).for_each(|_| {
            queue.push("many", lane, Priority::DEFAULT, at(0));
        });
    }
    let lane = queue.open_lane(one, ClassId(0), 1);
    (0..100).for_each(|_| {
        queue.push("one", lane, Priority::DEFAULT, at(0));
    });
    let mut first = Vec::new();
    queue.pop_batch(100, &mut first);
    assert_eq!(first.iter().filter(|popped| popped.item == "one").count(), 50);
}

#[test]
fn lanes_and_shares_are_closed_when_nothing_is_left_in_them() {
    let ageing = Ageing { every: Duration::from_millis(1), ceiling: Priority::MAX };
    let mut queue = ReadyQueue::new(Some(ageing));
    for round in 0..100 {
        let share = queue.open_share(None, 1);
        let lane = queue.open_lane(share, ClassId(0), 1);
        let handle = queue.push(round, lane, Priority::MIN, at(round));
        assert!(!queue.close_lane(lane) && !queue.close_share(share));
        queue.advance(at(round * 2_000));
        assert_eq!(queue.remove(handle), Some(round));
        assert!(queue.close_lane(lane) && queue.close_share(share));
        assert!(!queue.close_lane(lane), "it is closed");
    }
    queue.advance(at(10_000_000));
    assert!(queue.is_empty() && queue.pop().is_none());
}

#[test]
fn a_handle_does_not_name_the_next_job_of_its_place() {
    let mut queue = ReadyQueue::new(None);
    let share = queue.open_share(None, 1);
    let lane = queue.open_lane(share, ClassId(0), 1);
    let mut push = |job| {
        let handle = queue.push(job, lane, Priority::MIN, at(0));
        assert_eq!(queue.pop().map(|popped| popped.item), Some(job));
        handle
    };
    let gone = [push(1), push(2)];
    let there = queue.push(3, lane, Priority::MIN, at(0));
    assert_eq!(gone.map(|handle| queue.remove(handle)), [None; 2]);
    assert_eq!(queue.remove(there), Some(3));
}

#[test]
fn handles_go_with_jobs_that_rise_and_become_ready() {
    let ageing = Ageing { every: Duration::from_millis(1), ceiling: Priority::MAX };
    let mut queue = ReadyQueue::new(Some(ageing));
    let share = queue.open_share(None, 1);
    let lane = queue.open_lane(share, ClassId(0), 1);
    let rises = queue.push("rises", lane, Priority::MIN, at(0));
    let fires = queue.push_delayed("fires", lane, Priority::MIN, at(5_000));
    queue.advance(at(10_000));
    let places = ["in the place of who rose", "in the place of who fired"];
    let came = [
        queue.push(places[0], lane, Priority::MIN, at(10_000)),
        queue.push_delayed(places[1], lane, Priority::MIN, at(1_000_000)),
    ];
    // What is found now has the same handles, whether or not it has moved.
    let found = queue.find_all(|_| true);
    for (handle, job) in
        [rises, fires, came[0], came[1]].into_iter().zip(["rises", "fires", places[0], places[1]])
    {
        let again = found.iter().find(|found| **found == handle);
        assert_eq!(again.and_then(|again| queue.get(*again)), Some(&job));
        assert_eq!(queue.get_mut(handle).copied(), Some(job));
    }
    assert_eq!(queue.pop().map(|popped| popped.item), Some("rises"));
    assert_eq!(queue.remove(rises), None, "it has gone");
    assert_eq!(queue.remove(fires), Some("fires"));
    assert_eq!(queue.remove(fires), None, "it has gone");
    assert_eq!(came.map(|handle| queue.remove(handle)), places.map(Some));
    assert!(queue.is_empty());
}

#[test]
fn whoever_asked_one_that_has_gone_asks_others() {
    let [mut a, b, mut c]: [_; 3] = seats::<u32>(3).try_into().expect("three seats");
    b.show(9);
    assert!(a.ask(4));
    assert!(!a.ask(4), "an answer is still to come");
    // It may have answered before it went.
    assert_eq!(b.give(0, vec![1]), [0; 0]);
    drop(b);
    c.show(9);
    assert!(a.ask(4), "nobody answers any more");
    assert_eq!(a.take(), Some(Parcel::Given(1, vec![1])));
    assert!(a.waits() && !a.ask(4), "the other one's answer is still to come");
    assert_eq!(c.take(), Some(Parcel::Asked(0, 4)));
    assert_eq!(c.give(0, Vec::new()), [0; 0]);
    assert_eq!(a.take(), Some(Parcel::Given(2, Vec::new())));
    assert!(!a.waits());
}

#[test]
fn a_bound_that_is_beyond_all_time_is_the_longest_one() {
    let ageing = Ageing { every: Duration::MAX, ceiling: Priority::MAX };
    assert_eq!(ageing.bound(Priority::MIN), Duration::MAX);
    assert_eq!(ageing.bound(Priority::MAX), Duration::ZERO);
}
