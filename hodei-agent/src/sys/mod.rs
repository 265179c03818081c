//! What the agent asks of the operating system directly: children, their signals, their remains.
//!
//! This is the only folder of the crate that holds `unsafe`, and only in two files:
//!
//! * `clone` — creates a child that shares the agent's memory until its `execve`, as `posix_spawn` does;
//! * `pidfd` — waits for a child in a runtime, and takes the resources used along when it reaps it.
//!
//! Everything above them is safe: `spawner` (the one thread every child descends from), `child` (a child not yet
//! reaped), `sweep` (finding by its mark what left the process group), `memory` (what processes have).
//!
//! ```text
//!   async caller ── Command ──▶ hodei-spawner thread ── clone(VM|VFORK|PIDFD) ──▶ child ── execve
//!        ▲                          │        ▲
//!        └── Running{Child, pipes} ─┘        └── a Child dropped unreaped: killed at once, reaped here
//! ```
//!
//! **Why not `std::process::Command`.** `PR_SET_PDEATHSIG` has to be called in the child, and std offers only
//! `pre_exec` for that, which turns `posix_spawn` into `fork`: 30–40 times slower once the agent holds 512 MiB,
//! because its page tables are copied. A wrapper program around each job (`setpriv --pdeathsig`) would keep the fast
//! path without `unsafe`, but a library has no binary of its own to install, it costs a second `execve` per job, and
//! a missing program becomes an exit code instead of an error.
//!
//! **Why `libc` beside `rustix`.** `clone(2)` needs a wrapper that changes stacks in assembler; libc's is the one
//! `posix_spawn` itself is built on. rustix offers neither that nor a stable `execve`. All that rustix does offer is
//! used from rustix.
//!
//! **What this does not do.** It does not make the host process a child subreaper: that would change how the host's
//! own children behave, and a library must not. Orphans go to init, and are found by their mark instead.
//! It needs the host to leave `SIGCHLD` alone: where it is ignored, the kernel reaps on its own and nothing can hold
//! a process id still.

#[cfg(not(target_os = "linux"))]
compile_error!("hodei-agent runs processes on Linux only (5.9 or newer: pidfd and close_range)");

mod child;
mod clone;
mod command;
mod error;
mod memory;
mod pidfd;
mod spawner;
mod sweep;

pub(crate) use child::{Child, Exit, Reaped, Usage};
pub(crate) use command::{Command, Privileges};
pub(crate) use error::{SetupStep, SpawnError};
pub(crate) use memory::{KernelKills, Resident, resident, shares};
pub(crate) use rustix::process::Signal;
pub(crate) use spawner::{Running, Spawner};
pub(crate) use sweep::{JOB_VARIABLE, Jobs, MARK_VARIABLE, Swept, sweep};
