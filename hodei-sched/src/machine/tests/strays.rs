//! What an agent runs without a lease takes room until it has ended.

use hodei_core::JobId;
use hodei_core::gateway::{Desired, RunningJob};
use hodei_core::job::{Epoch, Resources, Runs};
use proptest::prelude::*;

use super::world::{Agent, World, assigned, command, success};
use crate::machine::Input;

/// What each worker has.
const SLOTS: u32 = 4;
const CPU: u64 = 1_000;

fn cpu(millis: u64) -> Resources {
    Resources::none().cpu_millis(millis)
}

fn agent() -> Agent {
    Agent::with("w", SLOTS, cpu(CPU), vec![Runs::Command])
}

/// A job that nobody here knows.
fn foreign(n: u64) -> JobId {
    JobId::from_parts(n, hodei_core::Tenant::default().slot(), 7)
}

fn waiting_news(world: &mut World, agent: &mut Agent) -> Vec<JobId> {
    let heard: Option<Desired> = world.hear(agent).map(|heard| *heard.expect("an answer"));
    heard.map(|heard| assigned(&heard)).unwrap_or_default()
}

#[test]
fn an_agent_that_comes_with_runs_of_another_node_is_given_only_what_is_left() {
    let (mut world, mut agent) = (World::new(), agent());
    agent.runs(foreign(1), 3, cpu(800));
    let small = world.submit(command().resources(cpu(200)), 1);
    let large = world.submit(command().resources(cpu(500)), 1);
    let heard = world.news(&mut agent);
    assert_eq!(heard.stop.len(), 1, "it is to end");
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [foreign(1), small[0]], "it runs on, and takes its room");
    agent.state.running.remove(0);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [small[0], large[0]]);
}

#[test]
fn a_slot_is_taken_too() {
    let (mut world, mut agent) = (World::new(), agent());
    (1..=3).for_each(|n| agent.runs(foreign(n), 1, Resources::none()));
    let jobs = world.submit(command(), 3);
    world.settle(&mut agent);
    assert_eq!(agent.jobs()[3..], jobs[..1]);
    agent.state.running.drain(..2);
    world.settle(&mut agent);
    assert_eq!(agent.jobs()[1..], jobs[..]);
}

#[test]
fn what_is_assigned_and_unheard_waits_while_the_agent_has_no_room_for_it() {
    let (mut world, mut agent) = (World::new(), agent());
    let jobs = world.submit(command().resources(cpu(600)), 1);
    let call = agent.state.clone();
    assert_eq!(assigned(&world.news(&mut agent)), jobs);
    // That answer was lost. Meanwhile the agent began what another node had given it.
    (agent.state.running, agent.state.seen) = (call.running, call.seen);
    agent.runs(foreign(1), 1, cpu(600));
    let heard = world.news(&mut agent);
    assert_eq!((assigned(&heard), heard.stop.len()), (vec![], 1));
    assert!(world.sync(&mut agent).is_none(), "it is not answered over and over");
    world.submit(command(), 1);
    assert_eq!(waiting_news(&mut world, &mut agent), [], "nothing more comes there meanwhile");
    agent.state.running.clear();
    world.settle(&mut agent);
    assert_eq!(agent.jobs().len(), 2);
}

#[test]
fn a_run_of_an_older_epoch_takes_room_until_it_has_ended() {
    let (mut world, mut agent) = (World::new(), agent());
    let jobs = world.submit(command().resources(cpu(500)), 1);
    world.settle(&mut agent);
    let older: RunningJob = agent.state.running[0].clone();
    // The store gives it to this node again, under a higher epoch, before the agent has said anything.
    let mut job = world.job(jobs[0]);
    job.epoch = Epoch::from_number(2);
    let claimed = hodei_core::store::Claimed { job: std::sync::Arc::new(job), inputs: [].into() };
    let now = world.clock_now();
    world.machine.claimed(claimed, now);
    world.tell(Input::Tick);
    assert_eq!(waiting_news(&mut world, &mut agent), jobs);
    assert_eq!(agent.state.running.len(), 2);
    let more = world.submit(command().resources(cpu(500)), 1);
    world.settle(&mut agent);
    assert_eq!(agent.state.running.len(), 2, "both take room");
    agent.state.running.retain(|run| *run != older);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [jobs[0], more[0]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_an_agent_comes_with_it_never_runs_more_than_it_has_room_for(
        steps in prop::collection::vec((0_u8..6, 0_usize..8, 100_u64..700), 1..40),
    ) {
        let (mut world, mut agent) = (World::new(), agent());
        let theirs: Vec<JobId> = (0..40).map(foreign).collect();
        let fits = |agent: &Agent| {
            let runs = &agent.state.running;
            runs.len() <= SLOTS as usize && runs.iter().map(|run| run.resources.cpu_millis).sum::<u64>() <= CPU
        };
        for (n, (step, which, millis)) in (0..).zip(steps) {
            match step {
                0 | 1 => drop(world.submit(command().resources(cpu(millis)), 1)),
                2 => agent.runs(foreign(n), 1, cpu(millis)),
                3 if which < agent.state.running.len() => {
                    // Of what is not known here nothing is reported.
                    let job = agent.jobs()[which];
                    if theirs.contains(&job) {
                        agent.state.running.swap_remove(which);
                    } else {
                        agent.report(job, success());
                    }
                }
                4 => drop(world.sync(&mut agent)),
                _ => world.settle(&mut agent),
            }
            if !fits(&agent) && step == 2 {
                // More than it can have come to run: no agent begins that.
                agent.state.running.pop();
            }
            prop_assert!(fits(&agent), "{:?}", agent.state.running);
        }
        world.settle(&mut agent);
        while !agent.state.running.is_empty() {
            agent.state.running.retain(|run| !theirs.contains(&run.job));
            agent.finish_all();
            world.settle(&mut agent);
        }
        prop_assert_eq!(world.machine.room(), SLOTS as usize, "nothing is kept for ever");
    }
}
