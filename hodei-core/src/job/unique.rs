//! What a job is unique by.

use std::sync::Arc;
use std::time::Duration;

use super::fingerprint::Fingerprint;
use super::new::NewJob;
use super::payload::Payload;
use super::record::{Epoch, Job};
use super::state::State;
use crate::time::{Timestamp, micros};

/// The longest unique key, in bytes, with what is written before and behind the name that was given.
pub const UNIQUE_KEY_MAX: usize = 256;

/// What stands between the name of a key and the hash of what else tells jobs apart.
const HASHED: char = '#';

/// In which states of its job a unique key is held. It is free in all others: another job of the tenant may have it then.
///
/// A job that waits again after a run (one that failed, was returned or lost its owner) comes back to states that it had left;
/// if it had left its key there, another job could have that by then, and two would hold one key. So a key that is held while
/// a job runs is held until the job has ended, and one that is free once the job was claimed is not held again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Held {
    /// In all of them: until the job is pruned.
    #[default]
    UntilPruned,
    /// Until the job has ended.
    WhileOpen,
    /// Until the job has failed or was cancelled; one that succeeded holds it until it is pruned.
    UnlessFailed,
    /// Until the job is claimed for the first time, or has ended.
    WhileWaiting,
}

impl Held {
    /// Every set of states but the first, with what the keys begin with that are held in it.
    const BEGINNINGS: [(Self, &str); 3] =
        [(Self::WhileOpen, "open:"), (Self::UnlessFailed, "unfailed:"), (Self::WhileWaiting, "waiting:")];

    /// Returns in which states a key is held.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self::split(key).0
    }

    /// Says whether a job holds a key of this kind that it was submitted with.
    #[must_use]
    pub fn by(self, job: &Job) -> bool {
        match self {
            Self::UntilPruned => true,
            Self::WhileOpen => !job.state.is_terminal(),
            Self::UnlessFailed => !matches!(job.state, State::Failed | State::Cancelled),
            // The epoch says whether it was ever claimed.
            Self::WhileWaiting => {
                !job.state.is_terminal() && job.epoch == Epoch::default() && job.generation == 0
            }
        }
    }

    /// Says whether a job that is redriven takes its key again, or is refused where another one has it.
    #[must_use]
    pub fn is_taken_again(self) -> bool {
        matches!(self, Self::WhileOpen | Self::UnlessFailed)
    }

    /// Returns in which states a key is held, and its name and hash.
    fn split(key: &str) -> (Self, &str) {
        let named = Self::BEGINNINGS.iter().find_map(|(held, begin)| Some((*held, key.strip_prefix(begin)?)));
        named.unwrap_or((Self::UntilPruned, key))
    }

    fn beginning(self) -> &'static str {
        Self::BEGINNINGS.iter().find(|(held, _)| *held == self).map_or("", |(_, begin)| begin)
    }
}

/// What a job is unique by, and for how long: [`NewJob::unique`] makes a key of it that one job of the tenant has at a time.
///
/// A key is a text, so that rows, exports and other programs say the same with it. A name alone is its own key; the kind,
/// the arguments, the queue and the period are a hash behind the name (`name#hash`, in 32 hexadecimal digits). What a key
/// begins with says in which states of its job it is [`Held`]:
///
/// | made by | begins with | is free |
/// |---|---|---|
/// | nothing else | anything else | when the job is pruned |
/// | [`Unique::while_open`] | `open:` | when the job has ended |
/// | [`Unique::unless_failed`] | `unfailed:` | when the job has failed or was cancelled, or is pruned |
/// | [`Unique::while_waiting`] | `waiting:` | when the job is claimed for the first time, or has ended |
///
/// A text that was given as a name means the same: `open:nightly` is `Unique::key("nightly").while_open()`. Keys with the same
/// name that begin differently are different keys.
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
/// // Once, unless it fails: then it may be submitted again.
/// let once = backup().unique(Unique::key("backup").unless_failed());
/// // One that waits, whatever runs: it will see all that was written before it was asked for.
/// let next = backup().unique(Unique::key("backup").while_waiting());
/// assert_ne!(hourly.unique, single.unique);
/// assert_eq!(single.unique.as_deref(), Some("open:backup"));
/// assert_eq!(once.unique.as_deref(), Some("unfailed:backup"));
/// assert_eq!(next.unique.as_deref(), Some("waiting:backup"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "it does nothing until a job has it"]
pub struct Unique {
    name: Arc<str>,
    of: Of,
    by_queue: bool,
    period: Option<Duration>,
    at: Option<Timestamp>,
    held: Held,
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
        Self { name, of: Of::Nothing, by_queue: false, period: None, at: None, held: Held::UntilPruned }
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
        Self { held: Held::WhileOpen, ..self }
    }

    /// Frees the key once its job has failed or was cancelled; a job that succeeded keeps it until it is pruned. A job that
    /// is retried keeps it; one that is redriven takes it again, or is refused when another job has it by then.
    pub fn unless_failed(self) -> Self {
        Self { held: Held::UnlessFailed, ..self }
    }

    /// Frees the key once its job is claimed for the first time, or has ended: one waits at most, and the next one may wait
    /// while one runs. Whoever is told of an existing job can rely on its run beginning after that.
    ///
    /// A job that waits again (after a failure, a return or the death of its owner, or since it was redriven) does so without
    /// its key, beside the next one. Schedulers claim ahead, so a job that is claimed and has not begun does not hold it either.
    pub fn while_waiting(self) -> Self {
        Self { held: Held::WhileWaiting, ..self }
    }

    /// Returns the name and the hash of a key, without what says how long it lasts.
    pub(super) fn name_of(key: &str) -> &str {
        Held::split(key).1
    }

    /// Makes the key of a job.
    pub(super) fn key_of(&self, job: &NewJob) -> Arc<str> {
        let hashed = self.of > Of::Nothing || self.by_queue || self.period.is_some();
        if !hashed && self.held == Held::UntilPruned {
            return Arc::clone(&self.name);
        }
        let (begin, name) = (self.held.beginning(), &self.name);
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
