//! A run, from the command to a process reaped and cleaned up after.

use std::{ffi::OsString, io, sync::Arc};

use tokio::{sync::watch, time::Instant};

use super::{
    CommandPlan, Control, EndedBy, Escapees, Finished, RunError, Stream,
    drain::drain,
    memory::{Memory, Seen},
    supervise::supervise,
    sweeper::{Outcome, Sweeper},
};
use crate::sys::{
    Child, Command, Exit, JOB_VARIABLE, KernelKills, MARK_VARIABLE, Reaped, Running, Spawner, Swept,
};

/// Runs processes for one agent.
///
/// Its mark has to be unique among the agents of a machine and the same after a restart, for it is how an agent knows
/// the processes it left behind.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    mark: Arc<str>,
    spawner: Spawner,
    sweeper: Arc<Sweeper>,
    memory: Arc<Memory>,
}

/// The process is over; its output may not be.
struct Over {
    reaped: Reaped,
    ended_by: EndedBy,
    /// `None` where there was no reason to sweep yet.
    swept: Option<Outcome>,
    at: Instant,
}

impl Processes {
    /// Starts the spawning thread.
    ///
    /// # Errors
    ///
    /// When the system has no thread or no `/dev/null` to give.
    pub(crate) fn start(mark: impl Into<Arc<str>>) -> io::Result<Self> {
        Self::counting(mark, KernelKills::find())
    }

    /// As [`Processes::start`], where the kernel counts there what it kills.
    pub(super) fn counting(mark: impl Into<Arc<str>>, kills: KernelKills) -> io::Result<Self> {
        let mark = mark.into();
        let sweeper = Arc::new(Sweeper::new(Arc::clone(&mark)));
        Ok(Self { mark, spawner: Spawner::start()?, sweeper, memory: Arc::new(Memory::new(kills)) })
    }

    /// Kills every process that carries the mark: what an earlier agent that was killed has left. To be called
    /// before the first run.
    ///
    /// # Errors
    ///
    /// When `/proc` can not be listed.
    pub(crate) async fn sweep_all(&self) -> io::Result<Swept> {
        self.sweeper.sweep_all().await
    }

    /// Runs a process until it is reaped, its group is dead and its output delivered.
    ///
    /// # Errors
    ///
    /// [`RunError::Spawn`] when it never ran; [`RunError::Wait`] when its exit is unknown, in which case it was killed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the group; the spawner reaps it. Escapees are left to the next sweep.
    pub(crate) async fn run(&self, plan: CommandPlan, control: Control) -> Result<Finished, RunError> {
        let started = Instant::now();
        let mut seen = self.memory.begin();
        let Running { child, stdout, stderr } = self.spawner.spawn(self.command(&plan)).await?;
        let (dead, died) = watch::channel(None);
        let sink = control.output.as_ref();
        let (over, stdout, stderr) = tokio::join!(
            async {
                let over = self.see_through(child, &plan, control.stop, &mut seen).await;
                // Nobody listens when both streams have ended already.
                let _ = dead.send(Some(Instant::now()));
                over
            },
            drain(Stream::Stdout, stdout, sink, died.clone()),
            drain(Stream::Stderr, stderr, sink, died.clone()),
        );
        let over = over.map_err(RunError::Wait)?;
        let leaked = stdout.leaked || stderr.leaked;
        let swept = match over.swept {
            Some(swept) => swept,
            None if leaked => self.sweep(&plan.job).await,
            None => Outcome { killed: 0, clean: true },
        };
        let used = over.reaped.usage;
        let peak = seen.peak.max(used.max_resident_bytes.unwrap_or(0));
        let killed = is_killed(over.reaped.exit);
        let ended_by = match over.ended_by {
            // It had ended in the moment in which it was to be killed.
            EndedBy::Memory if !killed => EndedBy::Itself,
            other => other,
        };
        Ok(Finished {
            memory: (peak > 0).then_some(peak),
            starved: killed && ended_by == EndedBy::Itself && self.memory.was_starved(&seen),
            exit: over.reaped.exit,
            ended_by,
            leaked,
            escapees: swept.killed,
            contained: swept.clean,
            usage: used,
            duration: over.at.duration_since(started),
            stdout_bytes: stdout.bytes,
            stderr_bytes: stderr.bytes,
        })
    }

    /// Waits for the process, then cleans up in the order that leaves no gap: the group while the zombie holds its
    /// id, then those who left it (they may hold the output open), and last the zombie.
    async fn see_through(
        &self,
        child: Child,
        plan: &CommandPlan,
        stop: watch::Receiver<super::Stop>,
        seen: &mut Seen,
    ) -> io::Result<Over> {
        let ended_by = self.supervise(&child, plan, stop, seen).await?;
        child.signal_group(crate::sys::Signal::KILL)?;
        let swept = match plan.escapees {
            Escapees::OnSuspicion if ended_by == EndedBy::Itself => None,
            Escapees::Always | Escapees::OnSuspicion => Some(self.sweep(&plan.job).await),
        };
        Ok(Over { reaped: child.reap()?, ended_by, swept, at: Instant::now() })
    }

    /// Waits for the process, and kills it where it has more memory than it may.
    async fn supervise(
        &self,
        child: &Child,
        plan: &CommandPlan,
        stop: watch::Receiver<super::Stop>,
        seen: &mut Seen,
    ) -> io::Result<EndedBy> {
        let supervised = supervise(child, plan.timeout, plan.grace, stop);
        tokio::pin!(supervised);
        let watched = async {
            match plan.memory {
                Some(watch) => self.memory.watch(child.id(), watch, seen).await,
                None => match self.memory.count_on(seen).await {},
            }
        };
        tokio::select! {
            biased;
            ended_by = &mut supervised => return ended_by,
            () = watched => {}
        }
        child.signal_group(crate::sys::Signal::KILL)?;
        match supervised.await? {
            EndedBy::Itself => Ok(EndedBy::Memory),
            before => Ok(before),
        }
    }

    /// A sweep that fails does not change how the job ended; it means that nothing is known to be clean.
    async fn sweep(&self, job: &str) -> Outcome {
        self.sweeper.sweep_job(job).await.unwrap_or(Outcome { killed: 0, clean: false })
    }

    fn command(&self, plan: &CommandPlan) -> Command {
        let mut env = plan.env.clone();
        env.insert(MARK_VARIABLE.into(), OsString::from(&*self.mark));
        env.insert(JOB_VARIABLE.into(), OsString::from(&plan.job));
        Command {
            argv: plan.argv.clone(),
            env: env.into_iter().collect(),
            cwd: plan.cwd.clone(),
            privileges: plan.privileges,
        }
    }
}

/// Whether a process was killed, or is a shell that says so of the one that it ran.
fn is_killed(exit: Exit) -> bool {
    const KILL: i32 = 9;
    match exit {
        Exit::Signal { number, .. } => number == KILL,
        Exit::Code(code) => code == 128 + KILL,
    }
}
