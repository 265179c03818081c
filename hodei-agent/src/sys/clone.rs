//! Creating a child without copying the agent: the unsafe half of the spawner.
//!
//! `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD)` on a stack of its own: the child runs [`become_job`] in the agent's
//! memory while the calling thread is suspended, until `execve` or exit. The rules the child lives by:
//!
//! * it allocates nothing and takes no lock: another thread of the agent may hold it, or be left holding it;
//! * it makes system calls only, through rustix (which issues them itself) or libc functions that are nothing more;
//! * no handler of the agent runs in it: the calling thread has every signal blocked, the child inherits that mask
//!   and lifts it only when each disposition is the default;
//! * it has its own table of descriptors and of dispositions, so what it closes and resets is its own.
//!
//! An error travels back in the shared memory, so the parent knows it when `clone` returns.
#![expect(
    unsafe_code,
    reason = "clone(2) and execve(2) have no safe wrapper; std's needs a fork, 30 times slower"
)]

use std::{
    convert::Infallible,
    ffi::{CStr, CString, c_int, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::{Pid, Signal};

use super::{
    SetupStep,
    command::{Prepared, Privileges, Strings},
};

/// Stack of a child between `clone` and `execve`: 64 KiB. A test measures about 1 KiB of use.
const STACK_WORDS: usize = 64 * 1024 / size_of::<u128>();
/// How much of the stack's far end must still be as it was painted after each child: 4 KiB.
const STACK_GUARD_WORDS: usize = 4 * 1024 / size_of::<u128>();
/// What unused stack looks like.
const PAINT: u128 = 0x5aa5_1ee7_0dd5_eed5_5aa5_1ee7_0dd5_eed5;
/// The size of the kernel's signal set, which two system calls want to be told.
const KERNEL_SIGSET_BYTES: usize = 8;
/// The highest signal number of Linux.
const LAST_SIGNAL: c_int = 64;

/// The stack children borrow, one after the other.
pub(super) struct Stack(Box<[u128]>);

impl Stack {
    pub(super) fn new() -> Self {
        Self(vec![PAINT; STACK_WORDS].into_boxed_slice())
    }

    /// The end stacks grow from. Aligned to 16 bytes, as every ABI of Linux asks, for so is `u128`.
    fn top(&mut self) -> *mut c_void {
        self.0.as_mut_ptr_range().end.cast()
    }

    /// How many bytes the deepest child so far has used.
    #[cfg(test)]
    fn used_bytes(&self) -> usize {
        let untouched = self.0.iter().take_while(|word| **word == PAINT).count();
        (self.0.len() - untouched) * size_of::<u128>()
    }

    fn guard_is_intact(&self) -> bool {
        self.0[..STACK_GUARD_WORDS].iter().all(|word| *word == PAINT)
    }
}

/// The standard streams of a child. None of them may be a descriptor below 3, or one `dup2` would undo another.
pub(super) struct Streams<'a> {
    pub(super) stdin: &'a OwnedFd,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
}

/// A child that runs its program.
pub(super) struct Born {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// Why there is none.
pub(super) enum Stillborn {
    /// `clone` failed, so there never was a process.
    NoProcess(io::Error),
    /// The child gave up before or at `execve`. It has exited and waits to be reaped.
    GaveUp { pidfd: OwnedFd, step: SetupStep, source: io::Error },
}

/// What the child reads and the place it answers in.
struct Call<'a> {
    command: &'a Prepared,
    streams: Streams<'a>,
    agent: Pid,
    failure: Option<Failure>,
}

/// Where the child gave up. Plain data: the child can not make an `io::Error`.
#[derive(Clone, Copy)]
struct Failure {
    step: SetupStep,
    errno: c_int,
}

impl Failure {
    /// For `map_err` after a call of rustix.
    fn at(step: SetupStep) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self { step, errno: errno.raw_os_error() }
    }
}

/// Blocks every signal in the calling thread, for good. Precondition of [`spawn`].
pub(super) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set that `pthread_sigmask` then reads; no old mask is asked for.
    // libc's own functions, because libc keeps out the signals its `setuid` needs to reach every thread.
    let outcome = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut())
    };
    assert_eq!(outcome, 0, "SIG_SETMASK is a valid way to change a mask");
}

/// Creates a child and returns once it runs its program or has failed to.
///
/// The calling thread must have called [`block_signals`], and must outlive the child: its end is the child's too.
pub(super) fn spawn(stack: &mut Stack, command: &Prepared, streams: Streams<'_>) -> Result<Born, Stillborn> {
    let mut call = Call { command, streams, agent: rustix::process::getpid(), failure: None };
    let mut pidfd: c_int = -1;
    // SAFETY: `child_main` gets the `Call` it expects. `call`, `stack` and everything borrowed outlive the child's use
    // of them, because CLONE_VFORK suspends this thread until the child has executed or exited; for the same reason
    // nobody touches them meanwhile. The stack is aligned, larger than the child needs (checked below), and used by
    // one child at a time thanks to `&mut`. The child keeps the rules at the top of this file.
    let pid = unsafe {
        libc::clone(
            child_main,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut call).cast(),
            &raw mut pidfd,
            ptr::null_mut::<c_void>(),
            ptr::null_mut::<c_void>(),
        )
    };
    assert!(stack.guard_is_intact(), "a child overran its stack");
    if pid < 0 {
        return Err(Stillborn::NoProcess(io::Error::last_os_error()));
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor there, close-on-exec, that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match call.failure {
        None => Ok(Born { pid: Pid::from_raw(pid).expect("a pid is positive"), pidfd }),
        Some(Failure { step, errno }) => {
            Err(Stillborn::GaveUp { pidfd, step, source: io::Error::from_raw_os_error(errno) })
        }
    }
}

/// The first function of the child; what it returns becomes the exit status.
extern "C" fn child_main(call: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its `Call` and is suspended, so this is the only reference in use.
    let call = unsafe { &mut *call.cast::<Call<'_>>() };
    let Err(failure) = become_job(call);
    call.failure = Some(failure);
    127
}

/// Makes the child what a job should find itself to be, then executes the program.
fn become_job(call: &Call<'_>) -> Result<Infallible, Failure> {
    // Before anything else, so that the time in which a killed agent leaves the child alive is shortest.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at(SetupStep::DeathSignal))?;
    // The agent may have died just before: then the signal never comes, but the parent is another one already.
    if rustix::process::getppid() != Some(call.agent) {
        return Err(Failure { step: SetupStep::AgentGone, errno: libc::ESRCH });
    }
    rustix::process::setsid().map_err(Failure::at(SetupStep::Session))?;
    if call.command.privileges == Privileges::Fixed {
        rustix::thread::set_no_new_privs(true).map_err(Failure::at(SetupStep::Privileges))?;
    }
    let Streams { stdin, stdout, stderr } = &call.streams;
    rustix::stdio::dup2_stdin(stdin.as_fd()).map_err(Failure::at(SetupStep::Streams))?;
    rustix::stdio::dup2_stdout(stdout.as_fd()).map_err(Failure::at(SetupStep::Streams))?;
    rustix::stdio::dup2_stderr(stderr.as_fd()).map_err(Failure::at(SetupStep::Streams))?;
    rustix::process::chdir(call.command.cwd.as_c_str()).map_err(Failure::at(SetupStep::WorkingDirectory))?;
    close_all_but_streams().map_err(Failure::at(SetupStep::CloseFiles))?;
    reset_signals().map_err(Failure::at(SetupStep::Signals))?;
    let Err(errno) = execute_first(&call.command.candidates, &call.command.argv, &call.command.env);
    Err(Failure { step: SetupStep::Execute, errno: errno.raw_os_error() })
}

/// Closes every descriptor above standard error: the host's own files may lack close-on-exec.
fn close_all_but_streams() -> Result<(), rustix::io::Errno> {
    // SAFETY: the child's table of descriptors is a copy (no CLONE_FILES), so nothing of the agent's is closed, and
    // the child uses none of them any more. Called by number because older libcs have no wrapper.
    let outcome = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if outcome == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets every signal to its default and unblocks all. `execve` would keep those the host ignores, such as SIGPIPE,
/// which Rust programs ignore from the start.
fn reset_signals() -> Result<(), rustix::io::Errno> {
    // The kernel's `struct sigaction` with everything zero is SIG_DFL without flags or mask; no architecture's is
    // larger. By number, for libc's `sigaction` takes a lock for SIGABRT.
    let default = [0_u64; 8];
    for signal in (1..=LAST_SIGNAL).filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP) {
        // SAFETY: `default` is a valid, large enough action; the dispositions are the child's own (no CLONE_SIGHAND).
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                KERNEL_SIGSET_BYTES,
            )
        };
        if outcome != 0 {
            return Err(last_errno());
        }
    }
    let none = 0_u64;
    // SAFETY: `none` is a valid set of the size given; the mask is the child's own.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<c_void>(),
            KERNEL_SIGSET_BYTES,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Executes the first candidate that is there, as `execvp` does, but without handing files the kernel does not
/// recognise to a shell: nothing is given to a shell that was not asked for.
fn execute_first(
    candidates: &[CString],
    argv: &Strings,
    env: &Strings,
) -> Result<Infallible, rustix::io::Errno> {
    let mut verdict = rustix::io::Errno::NOENT;
    for candidate in candidates {
        match execute(candidate, argv, env) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(rustix::io::Errno::ACCESS) => verdict = rustix::io::Errno::ACCESS,
            outcome => return outcome,
        }
    }
    Err(verdict)
}

fn execute(program: &CStr, argv: &Strings, env: &Strings) -> Result<Infallible, rustix::io::Errno> {
    // SAFETY: a NUL-terminated path and two null-terminated arrays of NUL-terminated strings, all alive in `Prepared`.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(last_errno())
}

/// The error of the libc call just made. It lives in thread-local storage that the child shares with the suspended
/// thread: reading it is a plain load.
fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sys::Command;

    #[test]
    fn a_child_needs_a_fraction_of_its_stack() {
        let used = std::thread::spawn(|| {
            block_signals();
            let mut stack = Stack::new();
            let null: OwnedFd = File::options().read(true).write(true).open("/dev/null").unwrap().into();
            let argv = vec!["no-such-program".into()];
            let command = Command { argv, env: vec![], cwd: "/".into(), privileges: Privileges::Fixed };
            // One that fails goes through all there is.
            let streams = Streams { stdin: &null, stdout: &null, stderr: &null };
            let outcome = spawn(&mut stack, &command.prepare().unwrap(), streams);
            let Err(Stillborn::GaveUp { pidfd, step: SetupStep::Execute, .. }) = outcome else { panic!() };
            rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            )
            .unwrap();
            stack.used_bytes()
        });
        let used = used.join().unwrap();
        assert!((1..8 * 1024).contains(&used), "{used} bytes");
    }
}
