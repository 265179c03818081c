//! Nothing is ever promised twice, and everybody who can be is placed.

use std::collections::HashMap;

use hodei_core::Name;
use hodei_core::gateway::Offer;
use hodei_core::job::{Priority, Request, Resources, Runs};
use hodei_core::text::{TextMap, Texts};
use proptest::prelude::*;

use super::{Asked, Fleet, Room, Rule, Selector, WorkerId};
use crate::balance::{Balancer, Fit, LeastLoaded, ResourceAware, RoundRobin, TwoChoices};
use crate::queue::ClassId;

mod company;

fn resources((cpu, memory, gpus, licences): (u64, u64, u32, u64)) -> Resources {
    Resources::none().cpu_millis(cpu).memory(memory).gpus(gpus).custom(Name::literal("licence"), licences)
}

fn offer(slots: u32, capacity: Resources, labels: &[(&str, &str)]) -> Offer {
    let labels = TextMap::new(labels.iter().copied()).expect("texts");
    Offer { runs: vec![Runs::Command], capacity, slots, labels }
}

fn request(resources: Resources) -> Request {
    Request { runs: Runs::Command, resources, limit_keys: Texts::default() }
}

fn asked(class: ClassId, level: u8) -> Asked {
    Asked { class, level: Priority::new(level).expect("a level"), key: 0 }
}

/// A fleet beside the plain truth of who has what.
struct Pair {
    fleet: Fleet,
    balancer: Box<dyn Balancer>,
    workers: HashMap<WorkerId, (u32, Resources)>,
    /// Each with all the workers on which it has room.
    jobs: Vec<(Vec<WorkerId>, ClassId, Resources)>,
    draining: Vec<WorkerId>,
}

impl Pair {
    fn left(&self, worker: WorkerId) -> (u32, Resources) {
        let (slots, capacity) = &self.workers[&worker];
        let here = self.jobs.iter().filter(|(at, ..)| at.contains(&worker));
        here.fold((*slots, capacity.clone()), |(slots, left), (_, _, needs)| {
            let needs = needs.clone().workers(1);
            let left = left.checked_sub(&needs).expect("no resource is promised twice");
            (slots.checked_sub(1).expect("no slot is promised twice"), left)
        })
    }

    fn place(&mut self, needs: &Resources) {
        let class = self.fleet.class(&request(needs.clone()), 0);
        let fits = |worker: &&WorkerId| {
            let (slots, left) = self.left(**worker);
            slots > 0 && needs.fits(&left) && !self.draining.contains(worker)
        };
        let possible = self.workers.keys().filter(fits).count() >= needs.worker_count() as usize;
        let spoken_of = Room::of(&self.fleet).take(class, Priority::DEFAULT, 1);
        assert_eq!(spoken_of > 0, possible);
        match self.fleet.place(asked(class, 32), &mut *self.balancer) {
            Some(worker) => {
                self.fleet.count(class);
                let mut workers = self.fleet.others();
                workers.push(worker);
                workers.sort_unstable();
                workers.dedup();
                assert_eq!(workers.len(), needs.worker_count() as usize, "each worker once");
                assert!(workers.iter().all(|worker| !self.draining.contains(worker)));
                self.jobs.push((workers.clone(), class, needs.clone()));
                workers.iter().for_each(|worker| drop(self.left(*worker)));
            }
            None => assert!(!possible, "there is room for {needs:?}"),
        }
    }

    fn release(&mut self, n: usize) {
        if !self.jobs.is_empty() {
            let (workers, class, _) = self.jobs.remove(n % self.jobs.len());
            workers.iter().for_each(|worker| self.fleet.release(*worker, class));
            self.fleet.discount(class);
        }
    }

    fn leave(&mut self, n: usize) {
        let Some(worker) = self.workers.keys().copied().nth(n % self.workers.len().max(1)) else { return };
        self.fleet.leave(worker);
        self.workers.remove(&worker);
        self.draining.retain(|draining| *draining != worker);
        let (gone, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.jobs).into_iter().partition(|(at, ..)| at.contains(&worker));
        for (workers, class, _) in gone {
            let left = workers.iter().filter(|other| **other != worker);
            left.for_each(|other| self.fleet.release(*other, class));
            self.fleet.discount(class);
        }
        self.jobs = stay;
    }

    fn check(&self) {
        let open = self.workers.keys().filter(|worker| !self.draining.contains(worker));
        let slots: u64 = open.map(|worker| u64::from(self.left(*worker).0)).sum();
        assert_eq!(self.fleet.open_slots(), slots);
        assert_eq!(
            self.fleet.load(),
            (
                self.jobs.iter().map(|(workers, ..)| workers.len() as u64).sum(),
                u32::try_from(self.workers.len()).expect("few")
            )
        );
    }
}

fn amounts(most: u64) -> impl Strategy<Value = (u64, u64, u32, u64)> {
    (0..most, 0..most, 0_u32..3, prop_oneof![3 => Just(0), 1 => 0..4_u64])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_is_promised_twice_and_no_room_is_overlooked(
        kind in 0_u8..4,
        ops in prop::collection::vec((0_u8..10, 0_u32..5, amounts(8), amounts(20), any::<prop::sample::Index>()), 1..120),
        gangs in prop::collection::vec(prop_oneof![2 => Just(1_u32), 1 => 2..4_u32], 120),
    ) {
        let balancer: Box<dyn Balancer> = match kind {
            0 => Box::new(LeastLoaded),
            1 => Box::new(RoundRobin::new()),
            2 => Box::new(ResourceAware::new(Fit::Tightest)),
            _ => Box::new(TwoChoices::seeded(3)),
        };
        let (workers, jobs, draining) = (HashMap::new(), Vec::new(), Vec::new());
        let mut pair = Pair { fleet: Fleet::new(), balancer, workers, jobs, draining };
        for ((op, slots, needs, has, which), gang) in ops.into_iter().zip(gangs) {
            match op {
                0 | 1 => {
                    let capacity = resources(has);
                    let key = pair.workers.len() as u64;
                    let worker = pair.fleet.join(&offer(slots, capacity.clone(), &[]), key);
                    pair.workers.insert(worker, (slots, capacity));
                }
                2 => pair.leave(which.index(64)),
                3 => {
                    if let Some(worker) = pair.workers.keys().copied().nth(which.index(64)) {
                        pair.fleet.set_draining(worker, true);
                        if !pair.draining.contains(&worker) {
                            pair.draining.push(worker);
                        }
                    }
                }
                4 | 5 => pair.release(which.index(64)),
                _ => pair.place(&resources(needs).workers(gang)),
            }
            pair.check();
        }
    }
}

proptest! {
    #[test]
    fn so_many_gangs_fit_as_can_be_filled_one_by_one(
        most in prop::collection::vec(0_u32..6, 0..8),
        workers in 1_u32..5,
        n in 0_u32..9,
    ) {
        // Taking from whoever has the most left is the best that one can do.
        let (mut left, mut filled) = (most.clone(), 0);
        while filled < n {
            left.sort_unstable_by(|a, b| b.cmp(a));
            let chosen = left.iter_mut().take(workers as usize).filter(|left| **left > 0);
            let chosen: Vec<&mut u32> = chosen.collect();
            if chosen.len() < workers as usize {
                break;
            }
            chosen.into_iter().for_each(|left| *left -= 1);
            filled += 1;
        }
        prop_assert_eq!(super::gang::gangs(&most, workers, n), filled);
    }
}

/// Names what has no room, or panics, as it is told.
#[derive(Debug)]
struct Wrong(bool);

impl Balancer for Wrong {
    fn choose(&mut self, candidates: &mut super::Candidates<'_>) -> Option<WorkerId> {
        assert!(!self.0, "a balancer that panics");
        candidates.everybody().last().map(|WorkerId(last)| WorkerId(last + 7))
    }

    fn another(&self) -> Box<dyn Balancer> {
        Box::new(Self(self.0))
    }
}

#[test]
fn a_balancer_that_is_wrong_or_panics_has_chosen_nobody() {
    let mut fleet = Fleet::new();
    fleet.join(&offer(1, Resources::none(), &[]), 0);
    let class = fleet.class(&request(Resources::none()), 0);
    for panics in [false, true] {
        assert_eq!(fleet.place(asked(class, 32), &mut Wrong(panics)), None);
    }
    assert!(fleet.place(asked(class, 32), &mut LeastLoaded).is_some());
}

#[test]
fn selectors_say_where_preferences_where_first_and_apart_how_many() {
    let mut fleet = Fleet::new();
    let labels: [&[(&str, &str)]; 4] = [
        &[("zone", "a"), ("disk", "ssd")],
        &[("zone", "b"), ("disk", "ssd")],
        &[("zone", "b")],
        &[("zone", "c"), ("spot", "yes")],
    ];
    let workers: Vec<WorkerId> = (0..)
        .zip(labels)
        .map(|(key, labels)| fleet.join(&offer(2, Resources::none(), labels), key))
        .collect();
    let plain = request(Resources::none());
    let mut placed = |rule: Rule| {
        let rule = fleet.add_rule(rule);
        let class = fleet.class(&plain, rule);
        let all: Vec<usize> = std::iter::from_fn(|| fleet.place(asked(class, 32), &mut RoundRobin::new()))
            .map(|worker| workers.iter().position(|known| *known == worker).expect("it is known"))
            .collect();
        all.iter().for_each(|n| fleet.release(workers[*n], class));
        all
    };
    let has = |label: &str, value: &str| Selector::is(label, value);
    assert_eq!(placed(Rule::anywhere().require(has("zone", "b"))), [1, 1, 2, 2]);
    assert_eq!(placed(Rule::anywhere().require(Selector::Has("disk".into()))), [0, 0, 1, 1]);
    assert_eq!(placed(Rule::anywhere().require(Selector::Lacks("disk".into()))), [2, 2, 3, 3]);
    let either = Selector::In("zone".into(), vec!["a".into(), "c".into()]);
    assert_eq!(placed(Rule::anywhere().require(either)), [0, 0, 3, 3]);
    let neither = Selector::NotIn("zone".into(), vec!["a".into(), "c".into()]);
    assert_eq!(placed(Rule::anywhere().require(neither).require(Selector::Has("disk".into()))), [1, 1]);
    assert_eq!(placed(Rule::anywhere().prefer(has("spot", "yes"))), [3, 3, 0, 0, 1, 1, 2, 2]);
    assert_eq!(placed(Rule::anywhere().apart()), [0, 1, 2, 3]);
    assert_eq!(placed(Rule::anywhere().require(has("zone", "d"))), [0_usize; 0]);
}

#[test]
fn who_joins_later_or_works_again_comes_first_only_where_that_is_preferred() {
    let mut fleet = Fleet::new();
    let preferring = fleet.add_rule(Rule::anywhere().prefer(Selector::is("zone", "b")));
    let [a, b] = ["a", "b"].map(|zone| fleet.join(&offer(9, Resources::none(), &[("zone", zone)]), 0));
    let plain = request(Resources::none());
    let [anywhere, in_b] = [0, preferring].map(|rule| fleet.class(&plain, rule));
    let mut in_turn = RoundRobin::new();
    let mut placed = |fleet: &mut Fleet, class| {
        let workers: Vec<_> =
            (0..4).map(|_| fleet.place(asked(class, 32), &mut in_turn).expect("room")).collect();
        workers.iter().for_each(|worker| fleet.release(*worker, class));
        workers.iter().filter(|worker| **worker == b).count()
    };
    let late = fleet.join(&offer(9, Resources::none(), &[]), 0);
    let first = fleet.place(asked(anywhere, 32), &mut RoundRobin::new()).expect("room");
    assert_eq!(first, a, "nobody is preferred");
    fleet.release(first, anywhere);
    fleet.leave(late);
    for worker in [a, b] {
        fleet.set_draining(worker, true);
    }
    fleet.set_rule(preferring, Rule::anywhere().prefer(Selector::is("zone", "b")));
    for worker in [b, a] {
        fleet.set_draining(worker, false);
    }
    assert_eq!([anywhere, in_b].map(|class| placed(&mut fleet, class)), [2, 4]);
}

#[test]
fn a_rule_that_changes_holds_from_then_on() {
    let mut fleet = Fleet::new();
    let [a, b] = ["a", "b"].map(|zone| fleet.join(&offer(9, Resources::none(), &[("zone", zone)]), 0));
    let rule = fleet.add_rule(Rule::anywhere().require(Selector::is("zone", "a")));
    let class = fleet.class(&request(Resources::none()), rule);
    assert_eq!(fleet.place(asked(class, 32), &mut RoundRobin::new()), Some(a));
    fleet.set_rule(rule, Rule::anywhere().require(Selector::is("zone", "b")));
    assert_eq!(fleet.place(asked(class, 32), &mut RoundRobin::new()), Some(b));
}

#[test]
fn jobs_are_kept_apart_from_those_that_came_before_the_rule_did_so() {
    let mut fleet = Fleet::new();
    let worker = fleet.join(&offer(3, Resources::none(), &[]), 0);
    let rule = fleet.add_rule(Rule::anywhere());
    let class = fleet.class(&request(Resources::none()), rule);
    assert_eq!(fleet.place(asked(class, 32), &mut LeastLoaded), Some(worker));
    fleet.set_rule(rule, Rule::anywhere().apart());
    assert_eq!(fleet.place(asked(class, 32), &mut LeastLoaded), None);
    assert!(!fleet.would_fit(worker, class, &[]) && fleet.would_fit(worker, class, &[class]));
    fleet.release(worker, class);
    assert_eq!(fleet.place(asked(class, 32), &mut LeastLoaded), Some(worker));
    assert_eq!(fleet.place(asked(class, 32), &mut LeastLoaded), None, "the end of the first one let one by");
}

#[test]
fn what_is_held_for_a_large_job_delays_it_by_nothing_and_nobody_else() {
    let mut fleet = Fleet::new();
    let big = |cpu, memory| resources((cpu, memory, 0, 0));
    let [one, other] = [8, 8].map(|cpu| fleet.join(&offer(9, big(cpu, 8), &[]), 0));
    let [small, large, lean] = [big(1, 0), big(8, 0), big(0, 1)].map(|needs| fleet.class(&request(needs), 0));
    // One small job on each: the large one finds no room.
    let mut balancer = LeastLoaded;
    let first: Vec<_> = (0..2).map(|_| fleet.place(asked(small, 32), &mut balancer)).collect();
    assert_eq!(first, [Some(one), Some(other)]);
    assert_eq!(fleet.place(asked(large, 40), &mut balancer), None);
    fleet.hold(large, Priority::new(40).expect("a level"));
    let held = fleet.held().expect("one is held").1;
    let free = if held == one { other } else { one };
    // Small jobs go on elsewhere until nothing is left there.
    (0..7).for_each(|_| assert_eq!(fleet.place(asked(small, 32), &mut balancer), Some(free)));
    assert_eq!(fleet.place(asked(small, 32), &mut balancer), None);
    // What needs nothing that the large one needs may go there, and so may what is more urgent.
    assert!(fleet.place(asked(lean, 32), &mut RoundRobin::new()).is_some());
    assert_eq!(fleet.place(asked(small, 50), &mut balancer), Some(held));
    fleet.release(held, small);
    fleet.release(held, small);
    assert_eq!(fleet.place(asked(large, 40), &mut balancer), Some(held));
    assert_eq!(fleet.held(), None, "it has what it waited for");
}

proptest! {
    #[test]
    fn room_that_may_be_there_is_there(
        ops in prop::collection::vec((0_u8..7, 0_usize..4, 0_usize..64, 0_u8..64), 1..150),
    ) {
        let mut fleet = Fleet::new();
        for key in 0..4 {
            fleet.join(&offer(3, resources((400, 400, 1, 0)), &[]), key);
        }
        let apart = fleet.add_rule(Rule::anywhere().apart());
        let needs = [((100, 0, 0, 0), 0), ((300, 100, 0, 0), 0), ((0, 300, 1, 0), 0), ((50, 50, 0, 0), apart)];
        let classes = needs.map(|(needs, rule)| fleet.class(&request(resources(needs)), rule));
        classes.iter().for_each(|class| fleet.count(*class));
        let mut jobs: Vec<(WorkerId, ClassId)> = Vec::new();
        for (op, class, which, level) in ops {
            let asked = asked(classes[class], level);
            match op {
                0..=2 => {
                    let may = fleet.may_have_room(asked.class, asked.level);
                    let placed = fleet.place(asked, &mut LeastLoaded);
                    prop_assert_eq!(placed.is_some(), may);
                    jobs.extend(placed.map(|worker| (worker, asked.class)));
                }
                3 => fleet.hold(asked.class, asked.level),
                4 => fleet.unhold(),
                _ if jobs.is_empty() => {}
                _ => {
                    let (worker, class) = jobs.swap_remove(which % jobs.len());
                    fleet.release(worker, class);
                }
            }
        }
    }
}
