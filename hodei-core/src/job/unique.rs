//! What a job is unique by.

use std::sync::Arc;
use std::time::Duration;

use super::fingerprint::Fingerprint;
use super::new::NewJob;
use super::payload::Payload;
use crate::time::{Timestamp, micros};

/// The longest unique key, in bytes, with what is written before and behind the name that was given.
pub const UNIQUE_KEY_MAX: usize = 256;

/// What a key begins with that is free once its job has ended.
const WHILE_OPEN: &str = "open:";

/// What stands between the name of a key and the hash of what else tells jobs apart.
const HASHED: char = '#';

/// What a job is unique by, and for how long: [`NewJob::unique`] makes a key of it that one job of the tenant has at a time.
///
/// A key is a text, so that rows, exports and other programs say the same with it. A name alone is its own key; the kind,
/// the arguments, the queue and the period are a hash behind the name (`name#hash`, in 32 hexadecimal digits); a key that
/// begins with `open:` is free once its job has ended, every other one when the job is pruned. A text that was given as a
/// name means the same: `open:nightly` is `Unique::key("nightly").while_open()`.
///
/// So a key is held in one of two sets of states: those of a job that is open, or all of them. There are no others. A job that
/// waits again after a run (one that failed, was returned or lost its owner) comes back to states that it had left; if its key
/// were free while it runs, another job could have it by then, and two would wait with one key. A job that has ended comes back
/// only by [`JobStore::redrive`](crate::store::JobStore::redrive), which can be refused.
///
/// What is hashed is, encoded as in a [`Fingerprint`]: `hodei unique 1`, the optional kind as a text, the optional payload,
/// the optional queue as a text, and the optional period as its length and the number of periods since 1970. The kind of a
/// command is the first of its arguments.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use hodei_core::job::{JobSpec, NewJob, Unique};
///
/// let backup = || NewJob::new(JobSpec::command(["backup", "db"]).build().expect("a valid spec"));
/// // One in an hour with the same arguments, however it ends.
/// let hourly = backup().unique(Unique::new().by_args().per(Duration::from_secs(3_600)));
/// // One at a time; the next one may be submitted when it has ended.
/// let single = backup().unique(Unique::key("backup").while_open());
/// assert_ne!(hourly.unique, single.unique);
/// assert_eq!(single.unique.as_deref(), Some("open:backup"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "it does nothing until a job has it"]
pub struct Unique {
    name: Arc<str>,
    of: Of,
    by_queue: bool,
    period: Option<Duration>,
    at: Option<Timestamp>,
    while_open: bool,
}

/// How much of what is to be done tells jobs apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Of {
    Nothing,
    Kind,
    Args,
}

impl Unique {
    /// Makes jobs of one kind unique, whatever their arguments are.
    pub fn new() -> Self {
        Self { of: Of::Kind, ..Self::key("") }
    }

    /// Makes jobs unique that name the same key, whatever they are.
    pub fn key(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { name, of: Of::Nothing, by_queue: false, period: None, at: None, while_open: false }
    }

    /// Tells jobs apart by their kind: that of their handler, or the first argument of their command.
    pub fn by_kind(self) -> Self {
        Self { of: self.of.max(Of::Kind), ..self }
    }

    /// Tells jobs apart by their kind and all their arguments, as they are encoded; of a command also by its environment and
    /// where it runs.
    pub fn by_args(self) -> Self {
        Self { of: Of::Args, ..self }
    }

    /// Tells jobs apart by their queue.
    pub fn by_queue(self) -> Self {
        Self { by_queue: true, ..self }
    }

    /// Tells jobs apart by the period in which they are submitted. Periods follow one another from 1970 on, so two jobs
    /// that are submitted shortly before and after the end of one are both new. Shorter ones than a microsecond are one.
    ///
    /// When a job is submitted is what its id says, by the clock of its submitter: a repetition after a lost reply then has
    /// the same key. [`Unique::at`] names another time.
    pub fn per(self, period: Duration) -> Self {
        Self { period: Some(period), ..self }
    }

    /// Sets the time whose period counts: when the job is to run, say, or what
    /// [`Coordination::now`](crate::store::Coordination::now) says, where the clocks of submitters are far apart.
    pub fn at(self, at: Timestamp) -> Self {
        Self { at: Some(at), ..self }
    }

    /// Frees the key once its job has ended, in the same transaction. A job that is retried keeps it; one that is redriven
    /// takes it again, or is refused when another job has it by then.
    pub fn while_open(self) -> Self {
        Self { while_open: true, ..self }
    }

    /// Says whether a key is free once its job has ended.
    #[must_use]
    pub fn is_while_open(key: &str) -> bool {
        key.starts_with(WHILE_OPEN)
    }

    /// Returns the name and the hash of a key, without what says how long it lasts.
    pub(super) fn name_of(key: &str) -> &str {
        key.strip_prefix(WHILE_OPEN).unwrap_or(key)
    }

    /// Makes the key of a job.
    pub(super) fn key_of(&self, job: &NewJob) -> Arc<str> {
        let hashed = self.of > Of::Nothing || self.by_queue || self.period.is_some();
        if !hashed && !self.while_open {
            return Arc::clone(&self.name);
        }
        let (begin, name) = (if self.while_open { WHILE_OPEN } else { "" }, &self.name);
        if hashed {
            let hash = Fingerprint::of_unique(&self.parts(job));
            format!("{begin}{name}{HASHED}{hash:?}").into()
        } else {
            format!("{begin}{name}").into()
        }
    }

    fn parts<'j>(&self, job: &'j NewJob) -> UniqueParts<'j> {
        let payload = job.spec.payload();
        let period = self.period.map(|period| {
            let length = micros(period).max(1);
            let at = self.at.unwrap_or_else(|| job.id.minted_at());
            (length, at.as_micros().div_euclid(length))
        });
        UniqueParts {
            kind: (self.of == Of::Kind).then(|| kind_of(payload)),
            payload: (self.of == Of::Args).then_some(payload),
            queue: self.by_queue.then(|| job.spec.queue().as_str()),
            period,
        }
    }
}

impl Default for Unique {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&str> for Unique {
    fn from(name: &str) -> Self {
        Self::key(name)
    }
}

impl From<String> for Unique {
    fn from(name: String) -> Self {
        Self::key(name)
    }
}

impl From<Arc<str>> for Unique {
    fn from(name: Arc<str>) -> Self {
        Self::key(name)
    }
}

/// What is hashed of a job.
pub(super) struct UniqueParts<'j> {
    pub(super) kind: Option<&'j str>,
    pub(super) payload: Option<&'j Payload>,
    pub(super) queue: Option<&'j str>,
    /// Its length in microseconds, and its number.
    pub(super) period: Option<(i64, i64)>,
}

fn kind_of(payload: &Payload) -> &str {
    match payload {
        Payload::Handler { kind, .. } => kind.as_str(),
        Payload::Command(command) => command.argv.iter().next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
