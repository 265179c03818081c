//! Who comes first.

use hodei_core::Tenant;
use hodei_core::job::{NewJob, Priority};
use hodei_core::store::{Policies, QueuePolicy};

use super::world::{Agent, World, command, now};

fn level(n: u8) -> Priority {
    Priority::new(n).expect("a level")
}

fn jobs_of(tenant: &str, queue: &str, n: usize) -> Vec<NewJob> {
    let tenant = Tenant::new(tenant).expect("a name");
    let spec = std::sync::Arc::new(command().queue(queue).build().expect("a valid spec"));
    (0..n).map(|_| NewJob::of(tenant.clone(), std::sync::Arc::clone(&spec))).collect()
}

/// How many of the jobs that an agent has are of a tenant.
fn of(world: &World, agent: &Agent, tenant: &str) -> usize {
    agent.jobs().iter().filter(|job| world.job(**job).tenant.as_str() == tenant).count()
}

#[test]
fn a_higher_level_goes_first_then_who_has_waited_longer() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for n in [1, 5, 5, 9, 1] {
        ids.extend(world.submit(command().priority(level(n)), 1));
    }
    let mut agent = Agent::new("w", 1);
    let mut order = Vec::new();
    while order.len() < ids.len() {
        world.sync(&mut agent);
        order.extend(agent.jobs());
        agent.finish_all();
    }
    assert_eq!(order, [ids[3], ids[1], ids[2], ids[0], ids[4]]);
}

#[test]
fn a_level_is_not_overtaken_by_a_flood_below_it() {
    let mut world = World::new();
    world.submit(command().priority(level(1)), 1_000);
    let urgent = world.submit(command().priority(level(2)), 3);
    let mut agent = Agent::new("w", 3);
    world.sync(&mut agent);
    assert_eq!(agent.jobs(), urgent);
}

#[test]
fn tenants_of_a_level_share_alike_however_much_each_has() {
    let mut world = World::new();
    let mut jobs = jobs_of("flood", "default", 10_000);
    jobs.extend(jobs_of("drop", "default", 20));
    world.submit_all(jobs);
    let mut agent = Agent::new("w", 20);
    world.sync(&mut agent);
    assert_eq!((of(&world, &agent, "flood"), of(&world, &agent, "drop")), (10, 10));
}

#[test]
fn a_tenant_gains_nothing_by_spreading_its_work_over_queues() {
    let mut world = World::new();
    let queues = (0..10).flat_map(|n| jobs_of("many", &format!("q{n}"), 100));
    let jobs = queues.chain(jobs_of("one", "default", 100)).collect();
    world.submit_all(jobs);
    let mut agent = Agent::new("w", 20);
    world.sync(&mut agent);
    assert_eq!((of(&world, &agent, "many"), of(&world, &agent, "one")), (10, 10));
}

#[test]
fn weights_are_kept() {
    let mut world = World::new();
    let heavy = Tenant::new("heavy").expect("a name");
    let queue = hodei_core::Name::literal("default");
    let policy = QueuePolicy { tenant: heavy, queue, paused: false, weight: 3 };
    now(world.store.set_queue(policy)).expect("the store keeps it");
    let mut jobs = jobs_of("heavy", "default", 100);
    jobs.extend(jobs_of("light", "default", 100));
    world.submit_all(jobs);
    let mut agent = Agent::new("w", 40);
    world.sync(&mut agent);
    assert_eq!((of(&world, &agent, "heavy"), of(&world, &agent, "light")), (30, 10));
}

#[test]
fn what_a_tenant_does_not_use_goes_to_the_others() {
    let mut world = World::new();
    let mut jobs = jobs_of("a", "default", 2);
    jobs.extend(jobs_of("b", "default", 3));
    jobs.extend(jobs_of("c", "default", 100));
    world.submit_all(jobs);
    let mut agent = Agent::new("w", 20);
    world.sync(&mut agent);
    let got = ["a", "b", "c"].map(|tenant| of(&world, &agent, tenant));
    assert_eq!(got, [2, 3, 15]);
}

#[test]
fn with_one_slot_tenants_take_turns() {
    let mut world = World::new();
    let tenants = ["a", "b", "c"];
    world.submit_all(tenants.iter().flat_map(|tenant| jobs_of(tenant, "default", 100)).collect());
    let mut agent = Agent::new("w", 1);
    let mut served = [0_usize; 3];
    for _ in 0..60 {
        world.sync(&mut agent);
        for (n, tenant) in tenants.iter().enumerate() {
            served[n] += of(&world, &agent, tenant);
        }
        agent.finish_all();
    }
    assert!(served.iter().all(|n| *n >= 15), "{served:?}");
}
