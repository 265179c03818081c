//! A scheduling policy tried out in virtual time, under faults: are mails served while reports pile up?
//!
//! Run with: `cargo run --release --example simulate`
//!
//! Nothing here is a model of the scheduler: it is the engine itself, on simulated nodes, agents and time. A seed gives
//! the same minutes of trouble each time.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::Assignment;
use hodei_core::job::{JobSpec, Priority};
use hodei_core::store::{Change, SubmitOptions};
use hodei_core::{JobId, Tenant, Timestamp};
use hodei_sched::sim::{Act, Faults, Mode, Options, RunPlan, Scene, SimpleAgent, Simulation, Workload};

/// What is wanted of the run: how long each mail waited for its first run.
type Waits = Rc<RefCell<Vec<Duration>>>;

/// A mail every 40 ms, and a pile of a hundred reports every four seconds: more than the agents can do at once.
#[derive(Debug)]
struct Office {
    mail: Arc<JobSpec>,
    report: Arc<JobSpec>,
    turn: u32,
    /// Mails that have not begun, since when.
    waiting: HashMap<JobId, Timestamp>,
    waits: Waits,
}

impl Office {
    fn new(mail: Priority, waits: Waits) -> hodei_core::Result<Self> {
        let spec =
            |name: &str, level| JobSpec::command([name]).queue(name).priority(level).build().map(Arc::new);
        Ok(Self {
            mail: spec("mail", mail)?,
            report: spec("report", Priority::DEFAULT)?,
            turn: 0,
            waiting: HashMap::new(),
            waits,
        })
    }
}

impl Workload for Office {
    fn next(&mut self, scene: &mut Scene<'_>) -> Option<(Duration, Act)> {
        self.turn += 1;
        let tenant = Tenant::default();
        let jobs = match self.turn {
            turn if turn.is_multiple_of(100) => (0..100).map(|_| scene.job(&tenant, &self.report)).collect(),
            1..=1_500 => {
                let job = scene.job(&tenant, &self.mail);
                self.waiting.insert(job.id, scene.now);
                vec![job]
            }
            _ => return None,
        };
        Some((Duration::from_millis(40), Act::Submit(jobs, SubmitOptions::each())))
    }

    fn run(&mut self, assignment: &Assignment, scene: &mut Scene<'_>) -> RunPlan {
        let mail = assignment.job.spec.queue().as_str() == "mail";
        RunPlan::succeeds(if mail { scene.random.millis(5, 30) } else { scene.random.millis(200, 900) })
    }

    fn committed(&mut self, change: &Change) {
        // Under way or, when it was short, over: it is told of once.
        if change.attempt > 0
            && let Some(since) = self.waiting.remove(&change.job)
        {
            self.waits.borrow_mut().push(change.at.saturating_since(since));
        }
    }
}

/// Simulates the office with mails of some level, and tells how long mails waited.
fn simulate(policy: &str, level: Priority, faults: Faults) -> Result<(), Box<dyn std::error::Error>> {
    let waits = Waits::default();
    let mut options = Options::calm(2026);
    (options.nodes, options.agents, options.slots) = (2, 4, 4);
    options.faults = faults;
    (options.mode, options.trouble) = (Mode::Liveness, Duration::from_secs(30));
    let outcome = Simulation::<SimpleAgent>::new(options, Office::new(level, Rc::clone(&waits))?).run();
    if !outcome.is_clean() {
        return Err(outcome.to_string().into());
    }
    let mut waits = waits.borrow_mut();
    waits.sort_unstable();
    let at = |per_cent: usize| {
        waits.get(waits.len().saturating_sub(1) * per_cent / 100).copied().unwrap_or_default()
    };
    println!(
        "{policy:<28} {:>4} mails   p50 {:>8.1?}   p99 {:>8.1?}   {} faults, {:.0?} simulated",
        waits.len(),
        at(50),
        at(99),
        outcome.figures.faults,
        outcome.figures.virtual_time,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut faults = Faults::none();
    (faults.node_crashes, faults.agent_crashes, faults.drop) = (true, true, 10);
    simulate("one level", Priority::DEFAULT, Faults::none())?;
    simulate("mails first", Priority::MAX, Faults::none())?;
    simulate("one level, under faults", Priority::DEFAULT, faults.clone())?;
    simulate("mails first, under faults", Priority::MAX, faults)?;
    Ok(())
}
