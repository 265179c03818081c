//! Why a server is not there.

use std::io;

/// Why a server did not start, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program is not installed.
    #[error("missing: {program} (install the Debian package {package}, or run scripts/test)")]
    Missing {
        /// The program.
        program: &'static str,
        /// The package that brings it.
        package: &'static str,
    },
    /// The operating system refused something.
    #[error("failed to {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program.
        program: String,
        /// What it wrote.
        output: String,
    },
    /// A server did not answer in time, or ended at once.
    #[error("{program} does not answer; the end of its log:\n{log}")]
    Silent {
        /// The program.
        program: &'static str,
        /// The last lines of its log.
        log: String,
    },
}

impl StartError {
    /// Says what was tried when the operating system refused.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
