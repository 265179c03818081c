//! What can be done with a pidfd only by `unsafe` means: waiting for it in a runtime, reaping with the resources used.
#![expect(
    unsafe_code,
    reason = "tokio asks for a promise about the descriptor; rustix's waitid tells no usage"
)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    sync::Arc,
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a pidfd with the current runtime; it becomes readable when the process has exited.
///
/// # Errors
///
/// When the runtime can watch no more.
pub(super) fn watch(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `Arc<OwnedFd>` names the same descriptor all its life and keeps it open, and the `AsyncFd` owns it
    // until it has deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}

/// Reaps the child behind `pidfd`, which must have exited, and returns what it and the children it waited for used.
/// Afterwards its process id may mean another process. For a child that still runs this does nothing.
///
/// # Errors
///
/// `ECHILD` when it is no child of this process or was reaped before.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<libc::rusage> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: no siginfo is asked for, and `usage` is a writable rusage. (The kernel takes five arguments; libc's
    // `waitid` passes only four.)
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            ptr::null_mut::<libc::siginfo_t>(),
            libc::WEXITED | libc::WNOHANG,
            usage.as_mut_ptr(),
        )
    };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zero is a valid value of every field, and the kernel wrote the rest.
    let usage = unsafe { usage.assume_init() };
    Ok(usage)
}
