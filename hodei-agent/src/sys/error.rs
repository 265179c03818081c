//! Why a child could not be started.

use std::{fmt, io, path::PathBuf};

/// Why a child could not be started. Whatever the variant, no process is left behind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// The command can not be expressed to the kernel at all; trying again will not help.
    #[error("invalid command: {0}")]
    Invalid(&'static str),
    /// Pipes could not be created, most often because the agent is out of file descriptors.
    #[error("create the pipes of the child")]
    Pipes(#[source] io::Error),
    /// The kernel refused a new process (`EAGAIN`: the limit of processes, `ENOMEM`).
    #[error("create the process")]
    Process(#[source] io::Error),
    /// The working directory could not be entered.
    #[error("enter working directory {}", .path.display())]
    WorkingDirectory {
        /// The directory asked for.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program is missing, may not be executed, or is no program.
    #[error("execute {}", .program.display())]
    Execute {
        /// The program as the command named it.
        program: PathBuf,
        /// What the kernel said: `ENOENT`, `EACCES`, `ENOEXEC`, `E2BIG` and so on.
        #[source]
        source: io::Error,
    },
    /// The child could not be isolated from the agent, so it was not let run.
    #[error("{step}")]
    Setup {
        /// What was being done.
        step: SetupStep,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The spawning thread is gone.
    #[error("the spawner has stopped")]
    Stopped,
}

/// A step between the creation of a child and its `execve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetupStep {
    /// `setsid`: a session and a process group of its own, and no terminal.
    Session,
    /// `PR_SET_PDEATHSIG`: the child dies with the agent.
    DeathSignal,
    /// The agent was gone before the death signal was armed.
    AgentGone,
    /// `PR_SET_NO_NEW_PRIVS`.
    Privileges,
    /// `dup2` of the standard streams.
    Streams,
    /// `chdir`.
    WorkingDirectory,
    /// `close_range` of everything above standard error.
    CloseFiles,
    /// Default dispositions and an empty mask.
    Signals,
    /// `execve`.
    Execute,
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "start a session for the child",
            Self::DeathSignal => "tie the child to the life of the agent",
            Self::AgentGone => "start a child of an agent that is gone",
            Self::Privileges => "deny new privileges to the child",
            Self::Streams => "connect the standard streams of the child",
            Self::WorkingDirectory => "enter the working directory",
            Self::CloseFiles => "close the agent's files in the child",
            Self::Signals => "reset the signals of the child",
            Self::Execute => "execute the program",
        })
    }
}
