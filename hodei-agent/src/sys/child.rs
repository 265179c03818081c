//! A child that has not been reaped yet, which is the only kind one can signal.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::unix::AsyncFd;

use super::{
    pidfd::{reap, watch},
    spawner::Message,
};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with a code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
}

/// What a child used, with those of its own children it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time outside the kernel.
    pub(crate) user: Duration,
    /// Processor time inside the kernel.
    pub(crate) system: Duration,
    /// The largest resident set of one process, where it is known.
    ///
    /// The kernel's figure starts from the agent's own peak, whose memory a child shares until its `execve`, so a
    /// child that stayed below that peak has no figure of its own.
    pub(crate) max_resident_bytes: Option<u64>,
}

/// How a child ended and what it used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reaped {
    /// How it ended.
    pub(crate) exit: Exit,
    /// What it used.
    pub(crate) usage: Usage,
}

/// A child, running or exited, that has not been reaped: its process id and its group are its own.
///
/// [`reap`](Self::reap) consumes the handle, so nothing can signal the process id afterwards. Dropping the handle
/// kills the whole group at once and leaves the reaping to the spawner.
#[derive(Debug)]
pub(crate) struct Child {
    ready: AsyncFd<Arc<OwnedFd>>,
    leader: Leader,
}

impl Child {
    /// Registers with the current runtime.
    pub(super) fn new(leader: Leader) -> io::Result<Self> {
        let ready = watch(Arc::clone(&leader.pidfd))?;
        Ok(Self { ready, leader })
    }

    /// Waits until the leader has exited, and leaves it a zombie: its group keeps its id.
    ///
    /// # Errors
    ///
    /// `ECHILD` when something else in the process reaped the child.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: call it again.
    pub(crate) async fn exited(&self) -> io::Result<Exit> {
        loop {
            let mut ready = self.ready.readable().await?;
            if let Some(exit) = self.leader.peek()? {
                return Ok(exit);
            }
            ready.clear_ready();
        }
    }

    /// The process id, which is the id of its group and of its session too.
    pub(crate) fn id(&self) -> i32 {
        self.leader.pid.as_raw_nonzero().get()
    }

    /// Sends a signal to every process of the group. A group without living members is no error.
    ///
    /// # Errors
    ///
    /// `EPERM` when no member may be signalled.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        self.leader.signal_group(signal)
    }

    /// Kills what is left of the group, then takes the exit status. The leader must have exited.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when the leader still runs (it is killed by then), `ECHILD` when something else reaped it.
    pub(crate) fn reap(mut self) -> io::Result<Reaped> {
        // The zombie still holds the id of the group: this can hit nobody else.
        self.leader.signal_group(Signal::KILL)?;
        let exit = self.leader.peek()?.ok_or(io::ErrorKind::WouldBlock)?;
        let usage = reap(self.leader.pidfd.as_fd())?;
        self.leader.reaped = true;
        Ok(Reaped { exit, usage: Usage::from_kernel(&usage) })
    }
}

/// The guard of an unreaped child: while it lives, the process id is the child's.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) pid: Pid,
    pub(super) pidfd: Arc<OwnedFd>,
    /// Keeps the spawning thread alive as long as its child, and takes the child over when the guard is dropped.
    pub(super) spawner: Sender<Message>,
    pub(super) reaped: bool,
}

impl Leader {
    fn peek(&self) -> io::Result<Option<Exit>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
        Ok(status.as_ref().and_then(Exit::from_status))
    }

    fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::kill_process_group(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // ECHILD means that something else reaped it: the id may be anybody's, so it is left alone.
        if self.peek().is_err() {
            return;
        }
        // Both can fail only when there is nothing left to do: no process, or no thread to reap it.
        let _ = self.signal_group(Signal::KILL);
        let _ = self.spawner.send(Message::Orphan(Arc::clone(&self.pidfd)));
    }
}

impl Exit {
    fn from_status(status: &WaitIdStatus) -> Option<Self> {
        if let Some(code) = status.exit_status() {
            return Some(Self::Code(code));
        }
        let number = status.terminating_signal()?;
        Some(Self::Signal { number, core_dumped: status.dumped() })
    }
}

impl Usage {
    fn from_kernel(usage: &libc::rusage) -> Self {
        let resident = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
        let own = own_peak_resident_bytes();
        Self {
            user: duration(&usage.ru_utime),
            system: duration(&usage.ru_stime),
            max_resident_bytes: own.filter(|own| resident > *own).map(|_| resident),
        }
    }
}

fn duration(time: &libc::timeval) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// The largest resident set this process has had.
fn own_peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
