//! One simulation, and many.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use super::agent::AgentModel;
use super::mixed::MixedLoad;
use super::options::Options;
use super::outcome::{Figures, Outcome};
use super::workload::Workload;
use super::world::World;

/// A simulation of nodes and agents over one store.
///
/// `A` is the agent model; everything else is the engine itself.
#[derive(Debug)]
pub struct Simulation<A> {
    options: Options,
    load: Box<dyn Workload>,
    agents: PhantomData<fn() -> A>,
}

impl<A: AgentModel> Simulation<A> {
    /// Sets up a simulation.
    #[must_use]
    pub fn new(options: Options, load: impl Workload + 'static) -> Self {
        Self { options, load: Box::new(load), agents: PhantomData }
    }

    /// Sets up the simulation of a seed of the swarm, with about so many jobs.
    ///
    /// # Errors
    ///
    /// As [`MixedLoad::of_seed`].
    pub fn swarm(options: Options, jobs: u32) -> hodei_core::Result<Self> {
        let load = MixedLoad::of_seed(options.seed, jobs)?.with_hunger();
        let mut load = load.with_places(options.seed)?.with_pipelines(options.seed)?;
        if options.looks {
            load = load.with_lulls();
        }
        if options.lasting {
            load = load.with_lasting_runs();
        }
        if options.nodes == 1 && options.dispatchers == 1 && options.agents > 1 {
            // All agents are with one dispatcher then, once trouble is over.
            load = load.with_gangs(2)?;
        }
        Ok(Self::new(options, load))
    }

    /// Runs to the end and judges what happened.
    ///
    /// # Performance
    ///
    /// One thread, no runtime, no sleep; the history is kept in memory until it was checked.
    pub fn run(self) -> Outcome {
        World::<A>::new(self.options, self.load).run()
    }
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// What was found first.
    pub first: String,
    /// Everything that was found, behind the last lines of the trace where they were kept.
    pub told: String,
}

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
#[must_use = "it may name seeds that failed"]
pub struct Campaign {
    /// How many seeds were run.
    pub seeds: u64,
    /// All of them together.
    pub figures: Figures,
    /// The seeds that failed.
    pub failed: Vec<Failed>,
}

/// How many lines of the trace a failure is told with.
const TAIL: usize = 60;

impl Campaign {
    /// Runs seeds of the swarm, until so many have failed. A seed that fails is run once more, for its trace.
    ///
    /// # Errors
    ///
    /// As [`MixedLoad::of_seed`].
    pub fn run<A: AgentModel>(
        seeds: Range<u64>,
        jobs: u32,
        failures_max: usize,
        options: impl Fn(u64) -> Options,
    ) -> hodei_core::Result<Self> {
        let mut campaign = Self::find::<A>(seeds, jobs, failures_max, &options)?;
        for failed in &mut campaign.failed {
            let again = options(failed.seed);
            let tail = again.tail.max(TAIL);
            failed.told = Simulation::<A>::swarm(again.tail(tail), jobs)?.run().to_string();
        }
        Ok(campaign)
    }

    /// As [`run`](Self::run), without the traces: each seed is run once.
    ///
    /// # Errors
    ///
    /// As [`MixedLoad::of_seed`].
    pub fn find<A: AgentModel>(
        seeds: Range<u64>,
        jobs: u32,
        failures_max: usize,
        options: impl Fn(u64) -> Options,
    ) -> hodei_core::Result<Self> {
        let mut campaign = Self::default();
        for seed in seeds {
            let outcome = Simulation::<A>::swarm(options(seed), jobs)?.run();
            campaign.seeds += 1;
            campaign.figures.add(&outcome.figures);
            if let Some(first) = outcome.first() {
                campaign.failed.push(Failed { seed, first, told: outcome.to_string() });
            }
            if campaign.failed.len() >= failures_max {
                break;
            }
        }
        Ok(campaign)
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            submitted,
            ended,
            transitions,
            events,
            lent,
            preempted,
            rests,
            calls,
            failed_calls,
            faults,
            virtual_time,
            recovery,
            ..
        } = self.figures;
        write!(
            f,
            "{} seeds, {submitted} jobs, {ended} ends, {transitions} transitions, {events} events, {calls} calls of the \
             store ({failed_calls} failed), {lent} jobs lent, {preempted} runs stopped \
             to make room, {rests} rests, {faults} greater faults, {} h of virtual time, at most {recovery:.1?} from the last fault to the end: {} seeds failed",
            self.seeds,
            virtual_time.as_secs() / 3_600,
            self.failed.len()
        )
    }
}
