//! The thread every child descends from.
//!
//! The death signal of a child comes when the *thread* that created it ends, so one thread creates them all, and it
//! lives as long as any handle or any unreaped child. It also reaps the children whose handles were dropped.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::PipeFlags,
};
use tokio::{net::unix::pipe, sync::oneshot};

use super::{
    Child, Command, SetupStep, SpawnError,
    child::Leader,
    clone::{self, Born, Stack, Stillborn, Streams},
    pidfd::reap,
};

/// How often children that were dropped and killed are looked at until they can be reaped.
const ORPHAN_INTERVAL: Duration = Duration::from_millis(20);
/// How long the thread stays for killed children after its last handle is gone.
const ORPHAN_BOUND: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// The lowest descriptor that is no standard stream.
const FIRST_FREE_FD: i32 = 3;

/// Creates children on a thread of its own. Clones share the thread.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    /// Unbounded, yet never long: every sender waits for its answer or is a child that exists.
    inbox: Sender<Message>,
}

/// A child that runs, and the reading ends of its output.
#[derive(Debug)]
pub(crate) struct Running {
    /// The process.
    pub(crate) child: Child,
    /// What it writes to standard output.
    pub(crate) stdout: pipe::Receiver,
    /// What it writes to standard error.
    pub(crate) stderr: pipe::Receiver,
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Create a child.
    Spawn(Request),
    /// Reap a killed child when it is dead.
    Orphan(Arc<OwnedFd>),
}

/// One child to create.
#[derive(Debug)]
pub(super) struct Request {
    command: Command,
    /// Becomes the child's hold on the thread.
    spawner: Sender<Message>,
    answer: oneshot::Sender<Result<Parts, SpawnError>>,
}

/// A child before it is registered with a runtime.
#[derive(Debug)]
struct Parts {
    leader: Leader,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When `/dev/null` can not be opened or the thread not be started.
    pub(crate) fn start() -> io::Result<Self> {
        let null = OpenOptions::new().read(true).open("/dev/null")?;
        let null = above_streams(null.into())?;
        let (inbox, messages) = mpsc::channel();
        // Not joined: it ends by itself after the last handle and the last child, and a drop must not wait for that.
        thread::Builder::new().name("hodei-spawner".to_owned()).spawn(move || serve(&messages, &null))?;
        Ok(Self { inbox })
    }

    /// Creates a child in a session and group of its own, with `/dev/null` for input and a pipe for each output.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] names what failed; there is no child then.
    ///
    /// # Cancel safety
    ///
    /// A child created for a caller who is gone is killed and reaped.
    pub(crate) async fn spawn(&self, command: Command) -> Result<Running, SpawnError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { command, spawner: self.inbox.clone(), answer };
        self.inbox.send(Message::Spawn(request)).map_err(|_| SpawnError::Stopped)?;
        let Parts { leader, stdout, stderr } = answered.await.map_err(|_| SpawnError::Stopped)??;
        Ok(Running {
            child: Child::new(leader).map_err(SpawnError::Pipes)?,
            stdout: pipe::Receiver::from_owned_fd_unchecked(stdout).map_err(SpawnError::Pipes)?,
            stderr: pipe::Receiver::from_owned_fd_unchecked(stderr).map_err(SpawnError::Pipes)?,
        })
    }
}

/// The thread.
fn serve(messages: &Receiver<Message>, null: &OwnedFd) {
    clone::block_signals();
    let mut stack = Stack::new();
    let mut orphans = Vec::new();
    while let Some(message) = next(messages, &mut orphans) {
        match message {
            Message::Orphan(pidfd) => orphans.push(pidfd),
            Message::Spawn(request) if request.answer.is_closed() => {}
            Message::Spawn(Request { command, spawner, answer }) => {
                // When nobody takes the answer, dropping it makes an orphan of the child.
                let _ = answer.send(create(&command, &mut stack, null, spawner));
            }
        }
    }
    wait_for(orphans);
}

/// The next message, reaping orphans meanwhile; `None` when there can be no more.
fn next(messages: &Receiver<Message>, orphans: &mut Vec<Arc<OwnedFd>>) -> Option<Message> {
    loop {
        orphans.retain(|pidfd| still_runs(pidfd));
        if orphans.is_empty() {
            return messages.recv().ok();
        }
        match messages.recv_timeout(ORPHAN_INTERVAL) {
            Ok(message) => return Some(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Whether a killed child still runs; when not, it is reaped.
fn still_runs(pidfd: &OwnedFd) -> bool {
    let exited = is_readable(pidfd, Timespec { tv_sec: 0, tv_nsec: 0 });
    if exited {
        // It fails only when something else reaped the child.
        let _ = reap(pidfd.as_fd());
    }
    !exited
}

/// Waits for killed children one by one, each for a bounded time: one in an uninterruptible sleep is left to init.
fn wait_for(orphans: Vec<Arc<OwnedFd>>) {
    for pidfd in orphans {
        if is_readable(&pidfd, ORPHAN_BOUND) {
            let _ = reap(pidfd.as_fd());
        }
    }
}

/// Whether the process behind `pidfd` exits within the time.
fn is_readable(pidfd: &OwnedFd, within: Timespec) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&within)), Ok(1..))
}

fn create(
    command: &Command,
    stack: &mut Stack,
    null: &OwnedFd,
    spawner: Sender<Message>,
) -> Result<Parts, SpawnError> {
    let prepared = command.prepare()?;
    let (stdout, child_stdout) = output_pipe().map_err(SpawnError::Pipes)?;
    let (stderr, child_stderr) = output_pipe().map_err(SpawnError::Pipes)?;
    let streams = Streams { stdin: null, stdout: &child_stdout, stderr: &child_stderr };
    match clone::spawn(stack, &prepared, streams) {
        Ok(Born { pid, pidfd }) => {
            let leader = Leader { pid, pidfd: Arc::new(pidfd), spawner, reaped: false };
            Ok(Parts { leader, stdout, stderr })
        }
        Err(Stillborn::NoProcess(source)) => Err(SpawnError::Process(source)),
        Err(Stillborn::GaveUp { pidfd, step, source }) => {
            // It exits without waiting for anything; it can not have become anybody else's child.
            wait_for(vec![Arc::new(pidfd)]);
            Err(failure(command, step, source))
        }
    }
}

fn failure(command: &Command, step: SetupStep, source: io::Error) -> SpawnError {
    match step {
        SetupStep::WorkingDirectory => SpawnError::WorkingDirectory { path: command.cwd.clone(), source },
        SetupStep::Execute => {
            SpawnError::Execute { program: command.argv.first().cloned().unwrap_or_default().into(), source }
        }
        SetupStep::Session
        | SetupStep::DeathSignal
        | SetupStep::AgentGone
        | SetupStep::Privileges
        | SetupStep::Streams
        | SetupStep::CloseFiles
        | SetupStep::Signals => SpawnError::Setup { step, source },
    }
}

/// A pipe whose reading end does not block; the writing end does, as programs expect.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, above_streams(write)?))
}

/// Moves a descriptor that took the place of a standard stream the host had closed.
fn above_streams(fd: OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    if fd.as_raw_fd() >= FIRST_FREE_FD {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, FIRST_FREE_FD)?)
}
