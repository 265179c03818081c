//! What is to be done, validated once at the door.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::payload::{JobKind, Payload, Request, RequestClass, Runs};
use super::placement::Placement;
use super::resources::Resources;
use super::retry::RetryPolicy;
use super::share::Share;
pub use super::spec_builder::JobSpecBuilder;
use crate::error::{Error, Fault, Result};
use crate::id::Name;
use crate::text::{TextMap, Texts};

/// How urgent a job is: 0 to 63, 63 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// The least urgent.
    pub const MIN: Self = Self(0);
    /// The most urgent.
    pub const MAX: Self = Self(63);
    /// What a job has that says nothing: 32.
    pub const DEFAULT: Self = Self(32);

    /// Takes a priority.
    ///
    /// # Errors
    ///
    /// `Invalid` with the code `too_large` above 63.
    pub fn new(level: u8) -> Result<Self> {
        if level <= Self::MAX.0 {
            Ok(Self(level))
        } else {
            Err(Error::invalid(
                "priority",
                vec![Fault::new("priority", "too_large").limit(Self::MAX.0.into())],
            ))
        }
    }

    /// Returns the level.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The limits that specs are held to. Each can be set; the defaults are in its documentation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpecLimits {
    /// Arguments of a command: 4,096.
    pub argv_items: usize,
    /// Bytes of one argument: 128 KiB − 1, what Linux takes.
    pub arg_bytes: usize,
    /// Bytes of all arguments: 1 MiB.
    pub argv_bytes: usize,
    /// Environment entries, secrets included: 1,024.
    pub env_items: usize,
    /// Bytes of an environment name: 256.
    pub env_name_bytes: usize,
    /// Bytes of an environment value: 128 KiB − 1.
    pub env_value_bytes: usize,
    /// Bytes of all environment names and values, those of secrets and their references included: 1 MiB. With as much of
    /// arguments it is what Linux takes.
    pub env_bytes: usize,
    /// Labels, names of outputs, and resources that the application names: 64 of each.
    pub labels: usize,
    /// Bytes of a label's value, of a directory, of an image, of a secret's reference: 4 KiB.
    pub text_bytes: usize,
    /// Keys of limits that a job counts against: 4.
    pub limit_keys: usize,
    /// Bytes of a handler's arguments: 1 MiB.
    pub payload_bytes: usize,
    /// The longest timeout, wait or delay: 366 days.
    pub duration: Duration,
    /// Environment names that are otherwise refused because loaders and shells obey them; none.
    pub allow_env: Vec<String>,
}

impl Default for SpecLimits {
    fn default() -> Self {
        Self {
            argv_items: 4_096,
            arg_bytes: 128 * 1024 - 1,
            argv_bytes: 1024 * 1024,
            env_items: 1_024,
            env_name_bytes: 256,
            env_value_bytes: 128 * 1024 - 1,
            env_bytes: 1024 * 1024,
            labels: 64,
            text_bytes: 4 * 1024,
            limit_keys: 4,
            payload_bytes: 1024 * 1024,
            duration: Duration::from_secs(366 * 24 * 3_600),
            allow_env: Vec::new(),
        }
    }
}

impl SpecLimits {
    /// The limits of what was once let through: sizes and numbers are what they are, and these names of the environment were
    /// allowed.
    #[cfg(feature = "lines")]
    pub(crate) fn kept(env: Vec<&str>) -> Self {
        let any = usize::MAX;
        Self {
            argv_items: any,
            arg_bytes: any,
            argv_bytes: any,
            env_items: any,
            env_name_bytes: any,
            env_value_bytes: any,
            env_bytes: any,
            labels: any,
            text_bytes: any,
            limit_keys: any,
            payload_bytes: any,
            duration: Duration::MAX,
            allow_env: env.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// The parts of a [`JobSpec`], as stores write them down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecParts {
    /// What people call it; the kind of the handler or the program when nothing was said.
    pub name: Name,
    /// The queue it waits in.
    pub queue: Name,
    /// What is to be done.
    pub payload: Payload,
    /// What it needs.
    pub resources: Resources,
    /// How urgent it is.
    pub priority: Priority,
    /// How long a run may take; without end when absent.
    pub timeout: Option<Duration>,
    /// When it is retried; the default policy when absent.
    pub retry: Option<Box<RetryPolicy>>,
    /// What the application notes about it.
    pub labels: TextMap,
    /// The keys of the limits that it counts against while it is leased; at most four.
    pub limit_keys: Texts,
}

/// What is to be done: immutable, valid, and shared by everyone who handles the job.
///
/// A spec comes from [`JobSpecBuilder::build`], which holds it to [`SpecLimits`], or out of a store, which took only
/// such specs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    parts: SpecParts,
    class: RequestClass,
    fingerprint: Fingerprint,
}

/// Reads the label that says how long a run takes.
pub(super) fn lasts_of(label: &str) -> Option<Duration> {
    label.parse().ok().map(Duration::from_micros)
}

impl JobSpec {
    /// The label that names a job's sequence: a [`Name`].
    pub const SEQUENCE: &'static str = "hodei.sequence";
    /// The label that says how long a run takes: microseconds.
    pub const LASTS: &'static str = "hodei.lasts";

    /// Begins the spec of a handler's work.
    ///
    /// # Errors
    ///
    /// As [`Payload::of`].
    pub fn of<K: JobKind>(args: &K) -> Result<JobSpecBuilder> {
        Ok(JobSpecBuilder::handler(Payload::of(args)?))
    }

    /// Begins the spec of a process: the program and its arguments, never given to a shell.
    pub fn command<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> JobSpecBuilder {
        JobSpecBuilder::command(argv.into_iter().map(Into::into).collect())
    }

    /// Begins the spec of a script for `/bin/sh -eu`.
    pub fn shell(script: impl Into<String>) -> JobSpecBuilder {
        Self::command(["/bin/sh".to_owned(), "-eu".to_owned(), "-c".to_owned(), script.into()])
    }

    pub(super) fn of_valid_parts(parts: SpecParts) -> Self {
        let fingerprint = Fingerprint::of_spec(&parts);
        let mut spec = Self { parts, class: RequestClass::from_number(0), fingerprint };
        spec.class = spec.plain_class().unwrap_or_else(|| spec.request().class());
        spec
    }

    /// The class of a command that asks for nothing but a free slot and its turns; computed once for all of them.
    fn plain_class(&self) -> Option<RequestClass> {
        static PLAIN: LazyLock<Vec<RequestClass>> = LazyLock::new(|| {
            let request = |share| {
                let resources = Resources::none().share(share);
                Request { runs: Runs::Command, resources, limit_keys: Texts::default() }
            };
            Share::all().map(|share| request(share).class()).collect()
        });
        let command = matches!(self.parts.payload, Payload::Command(_));
        let share =
            self.parts.resources.share_alone().filter(|_| command && self.parts.limit_keys.is_empty())?;
        if share.weight() > 1 {
            return None;
        }
        PLAIN.get(usize::from(share.number())).copied()
    }

    /// Restores a spec that a store wrote down. Nothing is checked: only for parts, class and fingerprint that came
    /// out of a valid spec and whose bytes passed a checksum.
    #[must_use]
    pub fn restore(parts: SpecParts, class: RequestClass, fingerprint: Fingerprint) -> Self {
        Self { parts, class, fingerprint }
    }

    /// Restores a spec that a store wrote down without its fingerprint, which is made again. Otherwise as
    /// [`JobSpec::restore`].
    #[must_use]
    pub fn restore_without_fingerprint(parts: SpecParts, class: RequestClass) -> Self {
        let fingerprint = Fingerprint::of_spec(&parts);
        Self { parts, class, fingerprint }
    }

    /// Returns the same spec with other arguments for its handler; that of a command is the same. They are not held to any
    /// limit: what is encoded may be a little longer than what was checked.
    #[must_use]
    pub(crate) fn with_args(&self, args: bytes::Bytes) -> Self {
        let mut parts = self.parts.clone();
        if let Payload::Handler { args: old, .. } = &mut parts.payload {
            *old = args;
        }
        let fingerprint = Fingerprint::of_spec(&parts);
        Self { parts, class: self.class, fingerprint }
    }

    /// Has its jobs take their turns with others.
    pub(crate) fn set_share(&mut self, share: Share) {
        if self.parts.resources.turns_with() == share {
            return;
        }
        self.parts.resources = std::mem::take(&mut self.parts.resources).share(share);
        self.fingerprint = Fingerprint::of_spec(&self.parts);
        self.class = self.plain_class().unwrap_or_else(|| self.request().class());
    }

    /// Returns the parts, as stores write them down.
    #[must_use]
    pub fn parts(&self) -> &SpecParts {
        &self.parts
    }

    /// Returns what people call it.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.parts.name
    }

    /// Returns the queue it waits in.
    #[must_use]
    pub fn queue(&self) -> &Name {
        &self.parts.queue
    }

    /// Returns what is to be done.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.parts.payload
    }

    /// Returns what it needs.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.parts.resources
    }

    /// Returns how urgent it is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.parts.priority
    }

    /// Returns how long a run may take.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.parts.timeout
    }

    /// Returns when it is retried.
    #[must_use]
    pub fn retry(&self) -> &RetryPolicy {
        static DEFAULT: LazyLock<RetryPolicy> = LazyLock::new(RetryPolicy::default);
        self.parts.retry.as_deref().unwrap_or(&DEFAULT)
    }

    /// Returns what the application notes about it.
    #[must_use]
    pub fn labels(&self) -> &TextMap {
        &self.parts.labels
    }

    /// Returns the key of the sequence in which the job has its turn.
    #[must_use]
    pub fn sequence(&self) -> Option<&str> {
        self.parts.labels.get(Self::SEQUENCE)
    }

    /// Returns how long a run takes, as far as somebody said so.
    #[must_use]
    pub fn lasts(&self) -> Option<Duration> {
        self.parts.labels.get(Self::LASTS).and_then(lasts_of)
    }

    /// Returns where its jobs may run, and beside whom; nothing where a later version wrote that in a form that this one does
    /// not know.
    #[must_use]
    pub fn placement(&self) -> Option<Placement> {
        self.parts.resources.placement()
    }

    /// Returns what it asks of a worker.
    #[must_use]
    pub fn request(&self) -> Request {
        Request {
            runs: self.parts.payload.runs(),
            resources: self.parts.resources.clone(),
            limit_keys: self.parts.limit_keys.clone(),
        }
    }

    /// Returns the keys of the limits that it counts against while it is leased.
    #[must_use]
    pub fn limit_keys(&self) -> &Texts {
        &self.parts.limit_keys
    }

    /// Returns the class of [`JobSpec::request`], computed once.
    #[must_use]
    pub fn class(&self) -> RequestClass {
        self.class
    }

    /// Returns the fingerprint of the spec alone.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}
