//! Jobs that need several workers at once.

use std::time::Duration;

use hodei_core::JobId;
use hodei_core::gateway::{Desired, News, StopCause};
use hodei_core::job::{Cause, Finish, JobSpecBuilder, Resources, State};

use super::world::*;

fn gang(workers: u32) -> JobSpecBuilder {
    command().resources(Resources::none().workers(workers))
}

/// Calls for every agent until all wait, and returns what was assigned to whom, with the names of the workers beside it.
fn round(world: &mut World, agents: &mut [Agent]) -> Vec<(usize, JobId, Vec<String>)> {
    let mut assigned = Vec::new();
    for _ in 0..2 {
        for (n, agent) in agents.iter_mut().enumerate() {
            let mut take = |desired: &Desired| {
                assigned.extend(desired.assign.iter().map(|assignment| {
                    let beside = assignment
                        .beside
                        .iter()
                        .flat_map(|beside| beside.iter())
                        .map(|peer| peer.worker.to_string())
                        .collect();
                    (n, assignment.job.id, beside)
                }));
            };
            if let Some(answer) = world.hear(agent) {
                take(&answer.expect("the call is answered"));
            }
            while let Some(answer) = world.sync(agent) {
                take(&answer.expect("the call is answered"));
            }
        }
    }
    assigned
}

fn agents(names: &[&'static str], slots: u32) -> Vec<Agent> {
    names.iter().map(|name| Agent::new(name, slots)).collect()
}

#[test]
fn a_gang_runs_on_one_worker_and_has_room_on_all_of_its_workers() {
    let mut world = World::new();
    let mut agents = agents(&["a", "b", "c"], 2);
    round(&mut world, &mut agents);
    let job = world.submit(gang(3), 1)[0];
    let assigned = round(&mut world, &mut agents);
    let [(host, id, beside)] = &assigned[..] else { panic!("one assignment: {assigned:?}") };
    let others: Vec<&str> =
        ["a", "b", "c"].into_iter().filter(|name| *name != ["a", "b", "c"][*host]).collect();
    let mut beside = beside.clone();
    beside.sort();
    assert_eq!((*id, beside), (job, others.iter().map(ToString::to_string).collect::<Vec<_>>()));
    assert_eq!(world.job(job).attempt, 0);
    world.submit(command(), 9);
    assert_eq!(round(&mut world, &mut agents).len(), 3, "a slot of each worker is the gang's");
    agents[*host].report(job, success());
    assert_eq!(round(&mut world, &mut agents).len(), 3, "and comes free everywhere when it ends");
    assert_eq!(world.job(job).state, State::Succeeded);
    assert_eq!(world.machine.snapshot().workers.iter().map(|worker| worker.jobs).sum::<u32>(), 6);
}

#[test]
fn a_gang_has_all_of_its_workers_or_none() {
    let mut world = World::new();
    let mut agents = agents(&["a", "b", "c"], 1);
    round(&mut world, &mut agents);
    world.submit(command(), 2);
    assert_eq!(round(&mut world, &mut agents).len(), 2);
    let job = world.submit(gang(2), 1)[0];
    assert_eq!(round(&mut world, &mut agents), []);
    agents.iter_mut().for_each(Agent::finish_all);
    let assigned = round(&mut world, &mut agents);
    assert_eq!(assigned.iter().map(|(_, id, beside)| (*id, beside.len())).collect::<Vec<_>>(), [(job, 1)]);
}

#[test]
fn two_gangs_wait_for_nobody_who_waits_for_them() {
    let mut world = World::new();
    let mut agents = agents(&["a", "b", "c"], 1);
    round(&mut world, &mut agents);
    let jobs = world.submit(gang(2), 4);
    let mut ended = 0;
    while ended < jobs.len() {
        let assigned = round(&mut world, &mut agents);
        assert_eq!(assigned.len(), 1, "three workers have room for one gang of two");
        let (host, id, _) = &assigned[0];
        agents[*host].report(*id, success());
        ended += 1;
    }
    assert_eq!(round(&mut world, &mut agents), []);
    assert!(jobs.iter().all(|job| world.job(*job).state == State::Succeeded));
}

#[test]
fn a_stream_of_small_jobs_does_not_starve_a_gang() {
    let mut world = World::new();
    let mut agents = agents(&["a", "b", "c", "d"], 1);
    round(&mut world, &mut agents);
    world.submit(command(), 40);
    round(&mut world, &mut agents);
    let job = world.submit(gang(3), 1)[0];
    for turn in 0.. {
        assert!(turn < 40 + 3 * 4, "it runs when those before it have ended, and three more at each worker");
        let n = turn % agents.len();
        world.submit(command(), 1);
        agents[n].finish_all();
        if round(&mut world, &mut agents).iter().any(|(_, id, _)| *id == job) {
            break;
        }
    }
}

#[test]
fn a_gang_that_loses_a_worker_comes_back_at_no_cost() {
    let mut world = World::new();
    let mut agents = agents(&["a", "b", "c"], 1);
    round(&mut world, &mut agents);
    let job = world.submit(gang(3), 1)[0];
    let (host, ..) = round(&mut world, &mut agents)[0];
    agents[host].report(job, News::Started);
    round(&mut world, &mut agents);
    let gone = (host + 1) % 3;
    let mut stopped = Vec::new();
    for _ in 0..4 {
        world.pass(Duration::from_secs(2));
        for (n, agent) in agents.iter_mut().enumerate().filter(|(n, _)| *n != gone) {
            while let Some(answer) = world.hear(agent).or_else(|| world.sync(agent)) {
                let stop = answer.expect("the call is answered").stop;
                stopped.extend(stop.into_iter().map(|stop| (n, stop.job, stop.why)));
            }
        }
    }
    assert_eq!(stopped, [(host, job, StopCause::Cancelled)]);
    agents[host].report(job, News::Ended(Box::new(Finish::cancelled())));
    let next = agents[gone].reborn();
    agents[gone] = next;
    let again = round(&mut world, &mut agents);
    assert_eq!(again.iter().map(|(_, id, beside)| (*id, beside.len())).collect::<Vec<_>>(), [(job, 2)]);
    let stored = world.job(job);
    assert_eq!((stored.cause, stored.attempt, stored.lost_count), (Cause::Claimed, 0, 0));
    agents[again[0].0].report(job, success());
    round(&mut world, &mut agents);
    world.submit(command(), 3);
    assert_eq!(round(&mut world, &mut agents).len(), 3, "all room is free again");
}

#[test]
fn a_gang_of_more_workers_than_there_are_stays_in_the_store() {
    let mut world = World::new();
    let mut agents = agents(&["a", "b"], 4);
    round(&mut world, &mut agents);
    let job = world.submit(gang(3), 1)[0];
    assert_eq!(round(&mut world, &mut agents), []);
    assert_eq!(world.job(job).state, State::Pending);
    let mut agents: Vec<Agent> = agents.into_iter().chain([Agent::new("c", 1)]).collect();
    assert_eq!(round(&mut world, &mut agents).len(), 1);
}
