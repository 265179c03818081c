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

/// Serves tenants with endless work, as slots come free one at a time and new work comes all the time, and returns how many
/// jobs of each have begun.
fn served(weights: &[u32], slots: u32, starts: bool, turns: u32) -> Vec<u32> {
    let mut world = World::new();
    let names: Vec<String> = (0..weights.len()).map(|n| format!("t{n}")).collect();
    for (name, weight) in names.iter().zip(weights) {
        let tenant = Tenant::new(name).expect("a name");
        let queue = hodei_core::Name::literal("default");
        let policy = QueuePolicy { tenant, queue, paused: false, weight: *weight };
        now(world.store.set_queue(policy)).expect("the store keeps it");
    }
    world.submit_all(names.iter().flat_map(|name| jobs_of(name, "default", 40)).collect());
    let mut agent = Agent::new("w", slots);
    let mut begun = std::collections::BTreeSet::new();
    for _ in 0..turns {
        world.submit_all(names.iter().flat_map(|name| jobs_of(name, "default", 1)).collect());
        world.settle(&mut agent);
        for job in agent.jobs() {
            if begun.insert(job) && starts {
                agent.report(job, hodei_core::gateway::News::Started);
                world.settle(&mut agent);
            }
        }
        let first = agent.jobs()[0];
        agent.report(first, super::world::success());
    }
    let mut counts = vec![0; weights.len()];
    for job in begun {
        let name = world.job(job).tenant.as_str().to_owned();
        counts[names.iter().position(|known| *known == name).expect("it is known")] += 1;
    }
    counts
}

#[test]
fn tenants_share_what_comes_free_one_slot_at_a_time() {
    const TURNS: u32 = 300;
    for slots in [1, 8] {
        for starts in [false, true] {
            for weights in [&[1, 1][..], &[1, 1, 1], &[1; 4], &[1; 6], &[10, 1], &[3, 1, 1]] {
                let counts = served(weights, slots, starts, TURNS);
                let (all, total): (u32, u32) = (counts.iter().sum(), weights.iter().sum());
                for (count, weight) in counts.iter().zip(weights) {
                    let ideal = f64::from(all) * f64::from(*weight) / f64::from(total);
                    let lag = (f64::from(*count) - ideal).abs();
                    assert!(lag <= 8.0, "{counts:?} of weights {weights:?}, {slots} slots, starts {starts}");
                }
            }
        }
    }
}

#[test]
fn the_steps_of_the_longest_way_come_first() {
    use hodei_core::pipeline::{Pipeline, Step};
    let lasts = std::time::Duration::from_secs;
    let step = |name: &str, needs: &[&str], seconds| {
        let step = Step::new(name, command().lasts(lasts(seconds)));
        needs.iter().fold(step, |step, need| step.needs(*need))
    };
    let pipeline = Pipeline::builder("p")
        .step(step("plan", &[], 1))
        .step(step("lint", &["plan"], 9))
        .step(step("docs", &["plan"], 5))
        .step(step("build", &["plan"], 4))
        .step(step("test", &["build"], 8))
        .build()
        .expect("a valid pipeline");
    let mut world = World::new();
    world.submit_all(pipeline.jobs().to_vec());
    let (mut agent, mut order) = (Agent::new("w", 1), Vec::new());
    while order.len() < 5 {
        world.settle(&mut agent);
        order.extend(agent.jobs().iter().map(|job| world.job(*job).spec.name().to_string()));
        agent.finish_all();
    }
    // 12 seconds lie behind the start of the build, 9 behind that of the lint, 8 and 5 behind those of the others.
    assert_eq!(order, ["plan", "build", "lint", "test", "docs"]);
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

#[test]
fn what_was_claimed_ahead_does_not_come_before_what_is_more_urgent() {
    let (mut world, mut agent) = World::ahead(level(10));
    // Those that run now take long; many of their level are claimed already.
    let urgent = world.submit(command().priority(level(63)), 3);
    for _ in 0..3 {
        world.pass(std::time::Duration::from_secs(1));
        world.settle(&mut agent);
    }
    for job in urgent {
        let first = agent.jobs()[0];
        agent.report(first, super::world::success());
        world.settle(&mut agent);
        assert!(agent.jobs().contains(&job), "it takes the next slot that comes free");
    }
}
