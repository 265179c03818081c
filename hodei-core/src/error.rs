//! The one error of all crates.
//!
//! Kinds are named by what the caller can do about them. What went wrong inside (a codec, a database) is the
//! error's source and is never part of its type.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input breaks a rule; [`Error::faults`] lists each. Mend the input.
    Invalid,
    /// No such thing, or not in this scope.
    NotFound,
    /// It exists already with another content.
    Conflict,
    /// The caller no longer holds the lease it acted under. Stop the work.
    LeaseLost,
    /// The state machine has no such move.
    Illegal,
    /// It does not answer now. Retry after a while.
    Unavailable,
    /// It did not answer in time.
    Timeout,
    /// The write may or may not have happened. Repeat it: every write is idempotent.
    Indeterminate,
    /// A bounded queue or disk is full. Retry after some of it has drained.
    Full,
    /// Another process holds it.
    Locked,
    /// The stored bytes are damaged.
    Corrupt,
    /// It was written by a newer version.
    SchemaTooNew,
    /// The caller may not do this.
    PermissionDenied,
    /// The caller is not known.
    Unauthenticated,
    /// A named limit would be exceeded.
    LimitExceeded,
    /// The caller cancelled it.
    Cancelled,
    /// The cursor points before what is still kept. Start from a snapshot.
    CursorExpired,
    /// The configuration contradicts itself.
    Config,
    /// The operating system refused.
    Io,
    /// A defect of Hodei.
    Bug,
}

impl ErrorKind {
    /// Says whether the same call may succeed later without any change by the caller.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::Indeterminate | Self::Full | Self::Locked)
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Invalid => "invalid input",
            Self::NotFound => "not found",
            Self::Conflict => "exists with another content",
            Self::LeaseLost => "lease lost",
            Self::Illegal => "illegal move",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Indeterminate => "outcome unknown",
            Self::Full => "full",
            Self::Locked => "locked by another process",
            Self::Corrupt => "corrupt data",
            Self::SchemaTooNew => "schema is newer than this program",
            Self::PermissionDenied => "permission denied",
            Self::Unauthenticated => "unauthenticated",
            Self::LimitExceeded => "limit exceeded",
            Self::Cancelled => "cancelled",
            Self::CursorExpired => "cursor expired",
            Self::Config => "contradictory configuration",
            Self::Io => "input/output error",
            Self::Bug => "internal defect",
        }
    }
}

/// One broken rule of an input: which field, which rule, and the limit where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The field, as a path (`env.name`, `argv`, `timeout`).
    pub field: String,
    /// The rule, as a stable word (`too_long`, `nul`, `empty`).
    pub code: &'static str,
    /// The limit that was exceeded, where the rule has one.
    pub limit: Option<u64>,
    /// What was found, for people.
    pub detail: String,
}

impl Fault {
    /// Makes a fault without a limit.
    pub fn new(field: impl Into<String>, code: &'static str) -> Self {
        Self { field: field.into(), code, limit: None, detail: String::new() }
    }

    /// Adds the limit that was exceeded.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Adds what was found.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.code)?;
        if let Some(limit) = self.limit {
            write!(f, " (limit {limit})")?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Why an operation failed.
///
/// The text reads after "failed to …" and never holds a secret.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    op: &'static str,
    context: Vec<(&'static str, String)>,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of a kind, in an operation named like `store.submit`.
    #[must_use]
    pub fn new(kind: ErrorKind, op: &'static str) -> Self {
        Self(Box::new(Inner {
            kind,
            op,
            context: Vec::new(),
            faults: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// Makes an [`ErrorKind::Invalid`] of the broken rules.
    #[must_use]
    pub fn invalid(op: &'static str, faults: Vec<Fault>) -> Self {
        let mut error = Self::new(ErrorKind::Invalid, op);
        error.0.faults = faults;
        error
    }

    /// Adds a fact about the call.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn source_error(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says when a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the operation that failed.
    #[must_use]
    pub fn op(&self) -> &'static str {
        self.0.op
    }

    /// Returns the broken rules of an [`ErrorKind::Invalid`]; empty for the other kinds.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.0.faults
    }

    /// Returns a fact that was added by [`Error::with`].
    #[must_use]
    pub fn context(&self, key: &str) -> Option<&str> {
        self.0.context.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    }

    /// Returns how long to wait before a retry, where it is known.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Says whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.op, self.0.kind.text())?;
        for (key, value) in &self.0.context {
            write!(f, ", {key}={value}")?;
        }
        for (n, fault) in self.0.faults.iter().enumerate() {
            write!(f, "{}{fault}", if n == 0 { ": " } else { "; " })?;
        }
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_operation_kind_facts_and_faults() {
        let error = Error::invalid(
            "spec.build",
            vec![Fault::new("argv", "too_many").limit(4), Fault::new("env", "nul")],
        )
        .with("job", "a");
        assert_eq!(error.to_string(), "spec.build: invalid input, job=a: argv: too_many (limit 4); env: nul");
        assert_eq!(error.context("job"), Some("a"));
        assert!(!error.is_retryable());
    }

    #[test]
    fn retryable_kinds_carry_a_delay() {
        let error = Error::new(ErrorKind::Unavailable, "store.submit").retry_after(Duration::from_millis(5));
        assert!(error.is_retryable());
        assert_eq!(error.retry_delay(), Some(Duration::from_millis(5)));
    }
}
