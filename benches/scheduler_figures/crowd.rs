//! The machine of a dispatcher before a crowd of agents: what the end of one job costs it when thousands of others are no
//! business of that, and what it costs to be told of all jobs at once.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hodei_benches::jobs;
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::gateway::{Assignment, News, Report as Told, RunningJob, SessionState};
use hodei_core::job::{Epoch, Finish, Lease, Output};
use hodei_core::store::{Coordination, JobStore, MemoryStore, Served, SubmitOptions};
use hodei_core::{JobId, Name, OwnerId, Timestamp};
use hodei_sched::machine::{Effect, Input, Scheduler, SchedulerConfig, Ticket};

use crate::Sizes;
use crate::engine::session;

/// Each agent runs so many jobs at once.
const SLOTS: u32 = 4;
/// A small and a large crowd.
const CROWDS: [usize; 2] = [100, 10_000];

/// A machine whose agents all run as much as they can, on a clock that moves when it is told to.
struct Crowd {
    machine: Scheduler,
    store: MemoryStore,
    owner: Lease,
    now: Timestamp,
    agents: Vec<SessionState>,
    /// What each of them runs.
    runs: Vec<Vec<Assignment>>,
    /// How long the machine has taken since this was set to nothing, without its store.
    spent: Duration,
}

/// Waits for what is ready: the store in memory never waits.
fn at_once<T>(future: impl Future<Output = T>) -> Result<T, String> {
    future.now_or_never().ok_or_else(|| "the store waits".to_owned())
}

impl Crowd {
    fn new(agents: usize) -> Result<Self, String> {
        let store = MemoryStore::new();
        let owner = OwnerId::new("node").map_err(|error| error.to_string())?;
        let owner = at_once(store.register(&owner, Duration::from_secs(3_600)))?;
        let owner = owner.map_err(|error| error.to_string())?;
        let now = Timestamp::from_micros(1_000_000_000);
        let machine = Scheduler::new(SchedulerConfig::default(), owner.clone(), now);
        let states = (0..agents).map(|n| {
            let worker = Name::new(format!("agent-{n:05}")).map_err(|error| error.to_string())?;
            Ok(SessionState { worker, ..session(SLOTS) })
        });
        let states = states.collect::<Result<Vec<_>, String>>()?;
        let runs = vec![Vec::new(); agents];
        let mut crowd = Self { machine, store, owner, now, agents: states, runs, spent: Duration::ZERO };
        // Twice as many as run, so that each end makes room for another one.
        let jobs = jobs(2 * agents * SLOTS as usize);
        at_once(crowd.store.submit(jobs, SubmitOptions::each()))?.map_err(|error| error.to_string())?;
        crowd.tell(Input::Woken)?;
        for agent in 0..agents {
            crowd.sync(agent, Vec::new())?;
        }
        // Whoever came before there was work for him has heard of it since.
        (0..agents).try_for_each(|agent| crowd.sync(agent, Vec::new()))?;
        let full = crowd.runs.iter().all(|runs| runs.len() == SLOTS as usize);
        if full { Ok(crowd) } else { Err("not all agents have work".to_owned()) }
    }

    fn tell(&mut self, input: Input) -> Result<(), String> {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let start = Instant::now();
            self.machine.handle(input, self.now);
            while let Some(effect) = self.machine.poll_effect(self.now) {
                match effect {
                    Effect::Reply(ticket, told) => {
                        // The ticket is the agent that asks: who is called off by his next call hears nothing.
                        let agent = usize::try_from(ticket).unwrap_or(usize::MAX);
                        if let (Ok(told), Some(state)) = (told, self.agents.get_mut(agent)) {
                            state.seen = told.number;
                            self.runs[agent].extend(told.assign);
                        }
                    }
                    call => {
                        self.spent += start.elapsed();
                        next = Some(self.ask(call)?);
                        break;
                    }
                }
            }
            if next.is_none() {
                self.spent += start.elapsed();
            }
        }
        // As a driver does before it sleeps.
        let start = Instant::now();
        let _ = self.machine.poll_timeout();
        self.spent += start.elapsed();
        Ok(())
    }

    fn ask(&mut self, call: Effect) -> Result<Input, String> {
        Ok(match call {
            Effect::AskLanes { every_level } => {
                Input::Lanes(at_once(self.store.lanes(&Served { every_level, ..Served::default() }))?)
            }
            Effect::Exchange(exchange) => Input::Exchanged(at_once(self.store.exchange(*exchange))?),
            Effect::AskLeases => Input::Leases(at_once(self.store.leases_of(&self.owner))?),
            other => return Err(format!("nobody expects {other:?}")),
        })
    }

    /// Calls for an agent, with what it has to report.
    fn sync(&mut self, agent: usize, reports: Vec<Told>) -> Result<(), String> {
        let state = &mut self.agents[agent];
        state.seq += 1;
        let running = self.runs[agent].iter().map(RunningJob::of);
        let called = SessionState { reports, running: running.collect(), ..state.clone() };
        self.tell(Input::Synced(Box::new(called), agent as Ticket))
    }

    /// Ends one job of an agent; returns how long the machine took to have another one begin there.
    fn end_one(&mut self, agent: usize, number: u64) -> Result<Duration, String> {
        self.now = self.now.saturating_add(Duration::from_micros(100));
        let assignment = self.runs[agent].pop().ok_or("an agent has no work")?;
        let news = News::Ended(Box::new(Finish::succeeded(Output::none())));
        let told = Told { number, job: assignment.job.id, epoch: assignment.job.epoch, news };
        self.spent = Duration::ZERO;
        self.sync(agent, vec![told])?;
        Ok(self.spent)
    }

    /// What all agents run, under its epochs.
    fn all(&self) -> Vec<(JobId, Epoch)> {
        let runs = self.runs.iter().flatten();
        runs.map(|assignment| (assignment.job.id, assignment.job.epoch)).collect()
    }
}

pub(crate) fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let crowds = if sizes.preload < 100_000 { [10, 100] } else { CROWDS };
    report.group(
        "the machine of a dispatcher, without its store, before a crowd of agents of 4 slots, all in use",
    );
    let mut each = Vec::new();
    for agents in crowds {
        let mut crowd = Crowd::new(agents)?;
        let ends = (sizes.pairs / 100).min(agents * SLOTS as usize / 2);
        let mut spent = Vec::with_capacity(ends);
        for n in 0..ends {
            let (agent, number) = (n % agents, 1 + n as u64 / agents as u64);
            spent.push(crowd.end_one(agent, number)?.as_nanos());
        }
        spent.sort_unstable();
        let median = spent.get(spent.len() / 2).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3);
        report.show(
            &format!("{agents} agents: a job ends and another one begins, median"),
            median,
            Unit::Micros,
        );
        each.push(median);
        let all = crowd.all();
        let jobs = all.len() as f64;
        let per_job = |spent: Duration| spent.as_secs_f64() * 1e9 / jobs;
        crowd.spent = Duration::ZERO;
        let held = at_once(crowd.store.leases_of(&crowd.owner))?;
        crowd.tell(Input::Leases(held))?;
        report.show(
            &format!("{agents} agents: told what the store holds for it, a job"),
            per_job(crowd.spent),
            Unit::Nanos,
        );
        crowd.spent = Duration::ZERO;
        crowd.tell(Input::Cancelled(all))?;
        report.show(
            &format!("{agents} agents: told that all are cancelled, a job"),
            per_job(crowd.spent),
            Unit::Nanos,
        );
    }
    let ratio = each.last().copied().unwrap_or(f64::NAN) / each.first().copied().unwrap_or(f64::NAN);
    report.judge(
        "  a hundred times as many agents make an end dearer by",
        ratio,
        Unit::Times,
        Goal::AtMost(2.0),
    );
    Ok(())
}
