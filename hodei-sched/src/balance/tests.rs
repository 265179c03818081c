//! What each balancer promises.

use std::collections::{HashMap, HashSet};

use hodei_core::gateway::Offer;
use hodei_core::job::{Priority, Request, Resources, Runs};
use hodei_core::text::{TextMap, Texts};

use super::{Balancer, ConsistentHash, Fit, LeastLoaded, ResourceAware, RoundRobin, TwoChoices};
use crate::machine::placement::{Asked, Fleet, WorkerId};
use crate::queue::ClassId;

fn worker(slots: u32, cpu: u64) -> Offer {
    let capacity = Resources::none().cpu_millis(cpu);
    Offer { runs: vec![Runs::Command], capacity, slots, labels: TextMap::default() }
}

/// A fleet of such workers, and the class of jobs that need so much CPU.
fn fleet(workers: &[(u32, u64)], cpu: u64) -> (Fleet, Vec<WorkerId>, ClassId) {
    let mut fleet = Fleet::new();
    let joined =
        (1..).zip(workers).map(|(key, (slots, cpu))| fleet.join(&worker(*slots, *cpu), key)).collect();
    let class = class(&mut fleet, cpu);
    (fleet, joined, class)
}

fn class(fleet: &mut Fleet, cpu: u64) -> ClassId {
    let resources = Resources::none().cpu_millis(cpu);
    fleet.class(&Request { runs: Runs::Command, resources, limit_keys: Texts::default() }, 0)
}

fn place(fleet: &mut Fleet, class: ClassId, key: u64, balancer: &mut dyn Balancer) -> Option<WorkerId> {
    fleet.place(Asked { class, level: Priority::DEFAULT, key }, balancer)
}

#[test]
fn in_turn_and_past_whom_there_is_no_room() {
    let (mut fleet, workers, class) = fleet(&[(2, 0), (1, 0), (2, 0)], 0);
    let mut balancer = RoundRobin::new();
    let placed: Vec<_> = (0..6).map(|_| place(&mut fleet, class, 0, &mut balancer)).collect();
    let of = |n: usize| Some(workers[n]);
    assert_eq!(placed, [of(0), of(1), of(2), of(0), of(2), None]);
}

#[test]
fn the_most_free_slots_come_first() {
    let (mut fleet, workers, class) = fleet(&[(3, 0), (5, 0)], 0);
    let placed: Vec<_> = (0..4).map(|_| place(&mut fleet, class, 0, &mut LeastLoaded)).collect();
    assert_eq!(placed[..2], [Some(workers[1]); 2]);
    assert_eq!(placed[2..].iter().collect::<HashSet<_>>().len(), 2);
}

#[test]
fn a_tight_fit_leaves_room_for_large_jobs_and_a_loose_one_spreads() {
    let sizes = [(10, 8_000), (10, 4_000), (10, 2_000)];
    let (mut tight, workers, small) = fleet(&sizes, 1_000);
    let large = class(&mut tight, 8_000);
    let mut balancer = ResourceAware::new(Fit::Tightest);
    (0..6).for_each(|_| assert_ne!(place(&mut tight, small, 0, &mut balancer), Some(workers[0])));
    assert_eq!(place(&mut tight, large, 0, &mut balancer), Some(workers[0]));
    let (mut loose, _, small) = fleet(&sizes, 1_000);
    let mut balancer = ResourceAware::new(Fit::Loosest);
    let spread: HashSet<_> = (0..6).map(|_| place(&mut loose, small, 0, &mut balancer)).collect();
    assert!(spread.len() >= 2);
}

#[test]
fn a_key_keeps_its_worker_when_others_go_and_nobody_gets_much_more_than_its_part() {
    let (mut all, workers, class) = fleet(&[(1_000, 0); 20], 0);
    let mut balancer = ConsistentHash::new();
    let mut homes = HashMap::new();
    for key in 0..500 {
        let home = place(&mut all, class, key, &mut balancer).expect("there is room");
        homes.insert(key, home);
    }
    let most = homes.values().fold(HashMap::<_, u32>::new(), |mut counts, home| {
        *counts.entry(home).or_default() += 1;
        counts
    });
    assert!(most.values().all(|n| *n <= 32), "500 on 20 are 25 each, and a quarter more: {most:?}");
    // Idle again, and without one of them.
    homes.iter().for_each(|(_, home)| all.release(*home, class));
    all.leave(workers[7]);
    let mut moved = 0;
    for key in 0..500 {
        let home = place(&mut all, class, key, &mut balancer).expect("there is room");
        moved += u32::from(home != homes[&key]);
        all.release(home, class);
    }
    assert!(moved <= 180, "{moved} of 500 moved");
}

/// What the ring tells does not depend on how it came to be as it is.
#[test]
fn a_ring_that_was_kept_up_is_as_one_that_was_made_now() {
    let (mut all, mut workers, class) = fleet(&[(4, 0); 30], 0);
    let mut kept = ConsistentHash::new();
    for round in 0..60_u64 {
        match round % 4 {
            0 => all.leave(workers.remove(usize::try_from(round * 7).unwrap_or(0) % workers.len())),
            // The first of them gets the number of who has left.
            1 => workers.push(all.join(&worker(4, 0), 1_000 + round)),
            2 => all.set_draining(workers[3], round % 8 == 2),
            _ => workers.extend([round, round + 1].map(|key| all.join(&worker(4, 0), 2_000 + key))),
        }
        for key in 0..10 {
            let home = place(&mut all, class, key, &mut kept).expect("there is room");
            all.release(home, class);
            let mut made = ConsistentHash::new();
            assert_eq!(place(&mut all, class, key, &mut made), Some(home), "round {round}");
            all.release(home, class);
        }
    }
}

/// One worker of many has room, and it is not among the first in the ring.
#[test]
fn where_hardly_anybody_has_room_it_is_the_next_one_behind_the_first() {
    let (mut all, workers, class) = fleet(&[(1, 0); 2_000], 0);
    for _ in 0..2_000 {
        place(&mut all, class, 0, &mut LeastLoaded).expect("there is room");
    }
    let mut balancer = ConsistentHash::new();
    for (n, free) in workers.iter().enumerate().step_by(101) {
        all.release(*free, class);
        let key = u64::try_from(n).unwrap_or(0);
        assert_eq!(place(&mut all, class, key, &mut balancer), Some(*free));
    }
    assert_eq!(place(&mut all, class, 0, &mut balancer), None);
    // Of two the one that comes next behind the first of the ring: each is it for some keys.
    all.release(workers[500], class);
    all.release(workers[1_500], class);
    let mut homes = HashMap::new();
    for key in 0..64 {
        let home = place(&mut all, class, key, &mut balancer).expect("there is room");
        *homes.entry(home).or_insert(0) += 1;
        all.release(home, class);
    }
    let of = |n: usize| homes.get(&workers[n]).copied().unwrap_or(0);
    assert!(of(500) + of(1_500) == 64 && of(500) >= 16 && of(1_500) >= 16, "{homes:?}");
}

#[test]
fn two_choices_spread_evenly_and_repeatably() {
    let run = || {
        let (mut fleet, workers, class) = fleet(&[(100, 0); 50], 0);
        let mut balancer = TwoChoices::seeded(7);
        let placed: Vec<_> = (0..1_000).map(|_| place(&mut fleet, class, 0, &mut balancer)).collect();
        let free: Vec<u32> = workers.iter().map(|worker| fleet.free_slots(*worker)).collect();
        (placed, free)
    };
    let (placed, free) = run();
    assert!(free.iter().all(|free| (70..=90).contains(free)), "20 each: {free:?}");
    assert_eq!(run().0, placed);
}

#[test]
fn every_balancer_fills_a_fleet_to_the_last_slot_and_no_further() {
    let all: [Box<dyn Balancer>; 6] = [
        Box::new(RoundRobin::new()),
        Box::new(LeastLoaded),
        Box::new(ResourceAware::new(Fit::Tightest).sample(3)),
        Box::new(ResourceAware::new(Fit::Loosest)),
        Box::new(ConsistentHash::new()),
        Box::new(TwoChoices::seeded(1)),
    ];
    for mut balancer in all.iter().map(|balancer| balancer.another()) {
        let (mut fleet, _, class) = fleet(&[(3, 2_000), (1, 8_000), (9, 4_000), (70, 50_000)], 1_000);
        let placed = (0..200).filter_map(|key| place(&mut fleet, class, key, &mut *balancer)).count();
        assert_eq!(placed, 2 + 1 + 4 + 50, "{balancer:?}");
    }
}
