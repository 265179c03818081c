//! What an end makes ready is had with it, and what several nodes take is not asked for twice.

use std::time::Duration;

use hodei_core::job::{Finish, JobSpecBuilder, NewJob, Output, Priority, State};
use hodei_core::pipeline::{Pipeline, PipelineLimits, Step};
use hodei_core::store::{JobStore, Scope};
use hodei_core::{JobId, Tenant};

use super::world::{Agent, World, assigned, command, now, success};
use crate::machine::SchedulerConfig;

/// A pipeline whose steps come one behind the other.
fn chain(specs: impl IntoIterator<Item = JobSpecBuilder>) -> Vec<NewJob> {
    let steps = specs.into_iter().enumerate().map(|(n, spec)| {
        let step = Step::new(format!("s{n}"), spec);
        n.checked_sub(1).into_iter().fold(step, |step, before| step.needs(format!("s{before}")))
    });
    let pipeline = steps.fold(Pipeline::builder("chain"), hodei_core::pipeline::PipelineBuilder::step);
    pipeline.build_within(&PipelineLimits::default()).expect("a valid pipeline").jobs().to_vec()
}

/// An agent of so many slots that has begun the first of these jobs; the number of exchanges until then.
fn begun(jobs: Vec<NewJob>, slots: u32) -> (World, Agent, Vec<JobId>, usize) {
    let (mut world, mut agent) = (World::new(), Agent::new("w", slots));
    let jobs = world.submit_all(jobs);
    world.settle(&mut agent);
    let exchanges = world.exchanges.len();
    (world, agent, jobs, exchanges)
}

#[test]
fn the_next_step_comes_with_the_end_of_the_one_before() {
    let (mut world, mut agent, jobs, before) = begun(chain((0..5).map(|_| command())), 1);
    for (n, job) in jobs.iter().enumerate() {
        assert_eq!(agent.jobs(), [*job]);
        agent.finish_all();
        world.settle(&mut agent);
        assert_eq!(world.exchanges.len(), before + n + 1, "one exchange for each step");
    }
    let counts = now(world.store.counts(&Scope::All)).expect("the store counts");
    assert_eq!(counts.of(State::Succeeded), 5);
}

#[test]
fn what_a_run_leaves_behind_comes_with_its_end() {
    let plain = vec![NewJob::new(command().build().expect("a valid spec"))];
    let (mut world, mut agent, _, before) = begun(plain, 4);
    let next =
        NewJob::of(Tenant::default(), command().priority(Priority::MIN).build().expect("a valid spec"));
    let (id, job) = (next.id, agent.jobs()[0]);
    let finish = Finish { spawn: vec![next], ..Finish::succeeded(Output::none()) };
    agent.report(job, hodei_core::gateway::News::Ended(Box::new(finish)));
    assert_eq!(assigned(&world.news(&mut agent)), [id]);
    assert_eq!(world.exchanges.len(), before + 1);
}

#[test]
fn what_is_ready_already_comes_before_what_follows() {
    let (mut world, mut agent, jobs, _) = begun(chain((0..2).map(|_| command())), 1);
    let urgent = world.submit(command().queue("other").priority(Priority::MAX), 1);
    agent.finish_all();
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), urgent);
    agent.finish_all();
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [jobs[1]]);
}

#[test]
fn a_more_urgent_child_of_another_lane_comes_first() {
    // Both children are ready at once, and there is one slot.
    let lesser = command().priority(Priority::MIN);
    let urgent = command().queue("other").priority(Priority::MAX);
    let steps = [command().priority(Priority::MIN), lesser, urgent];
    let pipeline = steps.into_iter().enumerate().fold(Pipeline::builder("fork"), |pipeline, (n, spec)| {
        let step = Step::new(format!("s{n}"), spec);
        pipeline.step(if n == 0 { step } else { step.needs("s0") })
    });
    let pipeline = pipeline.build_within(&PipelineLimits::default()).expect("a valid pipeline");
    let (mut world, mut agent, _, _) = begun(pipeline.jobs().to_vec(), 1);
    world.clock.advance(Duration::from_millis(200));
    agent.finish_all();
    world.settle(&mut agent);
    let queues: Vec<_> = agent.jobs().iter().map(|job| world.job(*job).spec.queue().clone()).collect();
    assert_eq!(queues.iter().map(hodei_core::Name::as_str).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn where_the_next_steps_lie_elsewhere_they_are_rarely_looked_for_here() {
    let steps = (0..40).map(|n| command().queue(format!("q{n}")));
    let (mut world, mut agent, jobs, _) = begun(chain(steps), 1);
    let mut vain = 0;
    for job in jobs {
        assert_eq!(agent.jobs(), [job]);
        agent.finish_all();
        let before = world.exchanges.len();
        world.settle(&mut agent);
        vain += usize::from(!world.exchanges[before].picks.is_empty());
    }
    assert!((1..10).contains(&vain), "{vain} of forty");
}

#[test]
fn jobs_of_no_pipeline_are_not_followed() {
    let (mut world, mut agent, _, before) = begun(vec![NewJob::new(command().build().expect("valid"))], 1);
    agent.finish_all();
    world.settle(&mut agent);
    assert!(world.exchanges[before..].iter().all(|exchange| exchange.picks.is_empty()));
}

/// Two nodes by turns, each with an agent that ends all it has between its calls: what they asked for, and what came.
fn by_turns(jobs: usize, slots: u32, nodes: usize) -> (u64, u64) {
    let mut worlds = vec![World::with(SchedulerConfig::default())];
    for n in 1..nodes {
        worlds.push(World::beside(&worlds[0], &format!("node-{n}")));
    }
    let mut agents: Vec<Agent> = (0..nodes).map(|_| Agent::new("w", slots)).collect();
    worlds[0].submit(command(), jobs);
    loop {
        for (world, agent) in worlds.iter_mut().zip(&mut agents) {
            world.settle(agent);
            agent.finish_all();
        }
        let counts = now(worlds[0].store.counts(&Scope::All)).expect("the store counts");
        if counts.of(State::Succeeded) == jobs as u64 {
            break;
        }
    }
    let claims = worlds.iter().map(|world| world.machine.snapshot().claims);
    claims.fold((0, 0), |(asked, came), claims| (asked + claims.asked, came + claims.came))
}

#[test]
fn nodes_ask_for_little_that_others_have_taken() {
    for nodes in [2, 3] {
        let (asked, came) = by_turns(20_000, 500, nodes);
        assert_eq!(came, 20_000);
        assert!(asked - came <= 200, "{nodes} nodes asked for {} in vain", asked - came);
    }
}

#[test]
fn a_lone_node_asks_for_nothing_in_vain() {
    let (asked, came) = by_turns(20_000, 500, 1);
    assert_eq!((asked, came), (20_000, 20_000));
}

#[test]
fn the_end_of_an_agent_is_settled_alone() {
    let (mut world, mut agent, jobs, before) = begun(chain((0..2).map(|_| command())), 1);
    agent.state.draining = true;
    agent.report(jobs[0], success());
    world.sync(&mut agent);
    assert!(
        world.exchanges[before..].iter().all(|exchange| exchange.picks.is_empty()),
        "nobody could run it"
    );
}
