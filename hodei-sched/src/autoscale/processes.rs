//! Agents as processes of this machine.

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::target::ScaleTarget;

/// An agent that ends sooner than this after its start is taken for one that cannot work.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// The first wait before another is started in the place of one that could not work; it doubles up to 64 times.
const RESTART_WAIT: Duration = Duration::from_secs(1);
/// How often an ending agent is looked at by [`LocalProcesses::shutdown`].
const LOOK: Duration = Duration::from_millis(20);

/// A program that is an agent: it connects to its node by itself, and ends itself after SIGTERM, when what it runs has
/// ended.
#[derive(Clone, Debug)]
pub struct AgentProgram {
    program: OsString,
    args: Vec<OsString>,
    env: HashMap<OsString, OsString>,
    grace: Duration,
}

impl AgentProgram {
    /// Takes a program. Each of its processes finds its number in the environment as `HODEI_AGENT`: the smallest one that
    /// no other living process has, be it one that is ending, to make the worker's name of.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        let (args, env) = (Vec::new(), HashMap::new());
        Self { program: program.into(), args, env, grace: Duration::from_secs(60) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable of its environment, beside those of this process.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets how long a process may take to end after SIGTERM before it is killed; what it ran is then taken back from it.
    /// Default: 1 min.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// Agents as processes of this machine: started, stopped with SIGTERM and after a grace with SIGKILL, and started again when
/// they die, with growing waits when they die young, until one that was started since has lived for 10 s.
///
/// Nothing runs in the background: what has died is noticed, and what overstays its grace is killed, whenever the target is
/// asked something. Dropping it kills all of them; call [`LocalProcesses::shutdown`] to let them end.
#[derive(Debug)]
pub struct LocalProcesses {
    program: AgentProgram,
    /// Across awaits: starting and ending is one after the other.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number; the highest are stopped first.
    alive: Vec<Agent>,
    ending: Vec<Ending>,
    /// How many in a row died young, with no other one started since that has lived longer.
    young: u32,
    /// When the last one of them was found dead.
    died: Option<Instant>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Agent {
    number: u32,
    child: Child,
    started: Instant,
}

/// A process that was told to end. It works under its number until it has ended: who got the same number would take its
/// worker's place, and what it still runs would be lost.
#[derive(Debug)]
struct Ending {
    number: u32,
    child: Child,
    /// Nothing where that is too far away to come.
    until: Option<Instant>,
}

impl LocalProcesses {
    /// Takes the program. Nothing is started.
    #[must_use]
    pub fn new(program: AgentProgram) -> Self {
        Self { program, state: Mutex::default() }
    }

    /// Returns the ids of the processes that are not ending.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn ids(&self) -> Vec<u32> {
        self.state.lock().await.alive.iter().filter_map(|agent| agent.child.id()).collect()
    }

    /// Stops all of them and waits until they have ended, those killed that overstay their grace. Idempotent.
    ///
    /// # Cancel safety
    ///
    /// When dropped, those that have not ended go on ending.
    pub async fn shutdown(&self) {
        let mut state = self.state.lock().await;
        state.stop_down_to(0, self.program.grace);
        while !state.ending.is_empty() {
            state.look();
            tokio::time::sleep(LOOK).await;
        }
    }

    fn start(&self, number: u32) -> Result<Agent> {
        let mut command = Command::new(&self.program.program);
        command.args(&self.program.args).envs(&self.program.env).env("HODEI_AGENT", number.to_string());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(|source| {
            let program = self.program.program.to_string_lossy();
            Error::new(ErrorKind::Io, "autoscale.start").with("program", program).source_error(source)
        })?;
        Ok(Agent { number, child, started: Instant::now() })
    }
}

#[async_trait]
impl ScaleTarget for LocalProcesses {
    async fn current(&self) -> Result<u32> {
        let mut state = self.state.lock().await;
        state.look();
        Ok(u32::try_from(state.alive.len()).unwrap_or(u32::MAX))
    }

    /// Starts no more while it waits after deaths: `Unavailable`, with the time to ask again.
    async fn scale_to(&self, agents: u32) -> Result<()> {
        let mut state = self.state.lock().await;
        state.look();
        state.stop_down_to(agents as usize, self.program.grace);
        while state.alive.len() < agents as usize {
            let now = Instant::now();
            if let Some(at) = state.not_before.filter(|at| *at > now) {
                let waits = Error::new(ErrorKind::Unavailable, "autoscale.start");
                return Err(
                    waits.with("why", format!("agents died young; the next starts in {:?}", at - now))
                );
            }
            let number = state.free_number();
            let agent = self.start(number)?;
            state.alive.push(agent);
            state.alive.sort_by_key(|agent| agent.number);
        }
        Ok(())
    }
}

impl State {
    /// Takes notice of who has died, and kills who overstays.
    fn look(&mut self) {
        let now = Instant::now();
        let (mut died, mut old) = (0_u32, false);
        // What lived before tells nothing of what is started now.
        let since = self.died;
        self.alive.retain_mut(|agent| {
            let gone = matches!(agent.child.try_wait(), Ok(Some(_)));
            died += u32::from(gone && now - agent.started < SHORT_LIFE);
            let is_later = since.is_none_or(|since| agent.started >= since);
            old |= !gone && is_later && now - agent.started >= SHORT_LIFE;
            !gone
        });
        if died > 0 {
            self.not_before = Some(now + RESTART_WAIT * (1 << self.young.min(6)));
            self.young = self.young.saturating_add(1);
            self.died = Some(now);
        } else if old {
            (self.young, self.died, self.not_before) = (0, None, None);
        }
        self.ending.retain_mut(|ending| {
            if ending.until.is_some_and(|until| now >= until) {
                // One that has just ended cannot be killed, and is found so next.
                let _ = ending.child.start_kill();
            }
            !matches!(ending.child.try_wait(), Ok(Some(_)))
        });
    }

    fn stop_down_to(&mut self, agents: usize, grace: Duration) {
        let until = Instant::now().checked_add(grace);
        for mut agent in self.alive.split_off(agents.min(self.alive.len())) {
            // An unreaped child keeps its id, so the signal reaches nobody else.
            let pid = agent.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            if pid.is_none_or(|pid| kill_process(pid, Signal::TERM).is_err()) {
                let _ = agent.child.start_kill();
            }
            self.ending.push(Ending { number: agent.number, child: agent.child, until });
        }
    }

    fn free_number(&self) -> u32 {
        let alive = self.alive.iter().map(|agent| agent.number);
        let taken: Vec<u32> = alive.chain(self.ending.iter().map(|ending| ending.number)).collect();
        (0..).find(|number| !taken.contains(number)).unwrap_or(u32::MAX)
    }
}
