//! The queues of a tenant take turns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::{NewJob, Resources};
use hodei_core::store::{Policies, QueuePolicy};
use hodei_core::{JobId, Name, Tenant};

use super::world::{Agent, World, command, now, success};

fn jobs_of(tenant: &str, queue: &str, n: usize) -> Vec<NewJob> {
    let tenant = Tenant::new(tenant).expect("a name");
    let spec = Arc::new(command().queue(queue).build().expect("a valid spec"));
    (0..n).map(|_| NewJob::of(tenant.clone(), Arc::clone(&spec))).collect()
}

fn weigh(world: &World, tenant: &str, queue: &str, weight: u32) {
    let (tenant, queue) = (Tenant::new(tenant).expect("a name"), Name::new(queue).expect("a name"));
    now(world.store.set_queue(QueuePolicy { tenant, queue, paused: false, weight })).expect("it is set");
}

/// Whose jobs these are, and of which queues.
fn count(world: &World, jobs: &[JobId]) -> BTreeMap<(String, String), u32> {
    let mut counts = BTreeMap::new();
    for job in jobs {
        let job = world.job(*job);
        *counts.entry((job.tenant.as_str().to_owned(), job.spec.queue().to_string())).or_default() += 1;
    }
    counts
}

fn of(counts: &BTreeMap<(String, String), u32>, tenant: &str, queue: &str) -> u32 {
    counts.get(&(tenant.to_owned(), queue.to_owned())).copied().unwrap_or(0)
}

/// Ends the jobs of an agent one at a time, so many in all, and returns which ones began.
fn serve(world: &mut World, agent: &mut Agent, turns: u32) -> Vec<JobId> {
    let mut begun = Vec::new();
    for _ in 0..turns {
        let before = agent.jobs();
        agent.report(before[0], success());
        world.settle(agent);
        begun.extend(agent.jobs().into_iter().filter(|job| !before.contains(job)));
    }
    begun
}

#[test]
fn the_queues_of_a_tenant_share_what_is_free_by_their_weights() {
    let mut world = World::new();
    weigh(&world, "t", "heavy", 3);
    let jobs = jobs_of("t", "heavy", 100).into_iter().chain(jobs_of("t", "light", 100));
    world.submit_all(jobs.chain(jobs_of("other", "light", 100)).collect());
    let mut agent = Agent::new("w", 16);
    world.sync(&mut agent);
    let counts = count(&world, &agent.jobs());
    // The tenant weighs as the heaviest of its queues: three shares of four, and three of four of these.
    assert_eq!(
        [of(&counts, "t", "heavy"), of(&counts, "t", "light"), of(&counts, "other", "light")],
        [9, 3, 4]
    );
}

#[test]
fn queues_keep_their_weights_as_slots_come_free_one_at_a_time() {
    for (slots, weights) in [(1, [3, 1]), (8, [3, 1]), (1, [1, 1]), (8, [1, 1]), (1, [10, 1])] {
        let mut world = World::new();
        for (queue, weight) in ["a", "b"].iter().zip(weights) {
            weigh(&world, "t", queue, weight);
        }
        // Neither runs out of work.
        world.submit_all(["a", "b"].iter().flat_map(|queue| jobs_of("t", queue, 400)).collect());
        let mut agent = Agent::new("w", slots);
        world.settle(&mut agent);
        let mut begun = agent.jobs();
        begun.extend(serve(&mut world, &mut agent, 200));
        let counts = count(&world, &begun);
        let all: u32 = counts.values().sum();
        let ideal = f64::from(all) * f64::from(weights[0]) / f64::from(weights[0] + weights[1]);
        let lag = (f64::from(of(&counts, "t", "a")) - ideal).abs();
        // What is asked for in one pick: the slots, and two for each that has ended.
        assert!(lag <= f64::from(slots + 2), "{counts:?} of weights {weights:?} in {slots} slots");
    }
}

#[test]
fn a_new_queue_does_not_wait_for_the_backlog_of_another() {
    const NEW: u32 = 20;
    let mut world = World::new();
    world.submit_all(jobs_of("t", "bulk", 100_000));
    let mut agent = Agent::new("w", 8);
    world.settle(&mut agent);
    serve(&mut world, &mut agent, 100);
    world.submit_all(jobs_of("t", "mail", NEW as usize));
    let begun = serve(&mut world, &mut agent, 2 * NEW + 2 * 8);
    let counts = count(&world, &begun);
    assert_eq!(of(&counts, "t", "mail"), NEW, "every other one, behind what was claimed before: {counts:?}");
}

#[test]
fn who_can_not_be_served_gives_nobody_an_advantage() {
    let mut world = World::new();
    let spec = command().queue("gpu").resources(Resources::none().gpus(1)).build().expect("a valid spec");
    let nobody =
        ["t", "idle"].map(|tenant| NewJob::of(Tenant::new(tenant).expect("a name"), Arc::new(spec.clone())));
    world.submit_all(nobody.into_iter().chain(jobs_of("t", "old", 2_000)).collect());
    let mut agent = Agent::new("w", 4);
    world.settle(&mut agent);
    serve(&mut world, &mut agent, 500);
    // Who comes now begins where the old ones are, and not where those are who have waited in vain.
    world.submit_all(jobs_of("t", "new", 500).into_iter().chain(jobs_of("late", "default", 500)).collect());
    let begun = serve(&mut world, &mut agent, 200);
    let counts = count(&world, &begun);
    let got = [of(&counts, "t", "old"), of(&counts, "t", "new"), of(&counts, "late", "default")];
    assert!(got[0].abs_diff(50) <= 8 && got[1].abs_diff(50) <= 8 && got[2].abs_diff(100) <= 8, "{got:?}");
}

#[test]
fn what_was_claimed_together_begins_by_the_weights_of_its_queues() {
    let mut world = World::new();
    weigh(&world, "t", "a", 3);
    let mut agent = Agent::new("w", 32);
    // All of them are claimed before any begins.
    world.submit_all(["b", "a"].iter().flat_map(|queue| jobs_of("t", queue, 16)).collect());
    world.settle(&mut agent);
    assert_eq!(agent.jobs().len(), 32);
    let first: Vec<JobId> = agent.jobs().into_iter().take(8).collect();
    let counts = count(&world, &first);
    assert_eq!((of(&counts, "t", "a"), of(&counts, "t", "b")), (6, 2));
}

#[test]
fn who_was_served_alone_and_went_stands_behind_nobody() {
    let mut world = World::new();
    let mut agent = Agent::new("w", 100);
    world.submit_all(jobs_of("early", "default", 100));
    world.settle(&mut agent);
    agent.finish_all();
    world.settle(&mut agent);
    world.pass(Duration::from_secs(8 * 3_600));
    world.submit_all(["early", "late"].iter().flat_map(|tenant| jobs_of(tenant, "default", 100)).collect());
    world.settle(&mut agent);
    let begun = agent.jobs();
    let counts = count(&world, &begun);
    assert_eq!((of(&counts, "early", "default"), of(&counts, "late", "default")), (50, 50));
}
