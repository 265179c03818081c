//! The two kinds of work, and what a worker must have to run them.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::resources::Resources;
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::Name;
use crate::text::{TextMap, Texts};

/// How the arguments of a handler are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Encoding {
    /// JSON.
    Json = 0,
    /// Bytes that only the handler understands.
    Binary = 1,
}

/// The arguments of a handler: a type with the name of the handler that takes it.
///
/// ```
/// use hodei_core::job::{JobKind, JobSpec};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Resize { width: u32 }
///
/// impl JobKind for Resize {
///     const KIND: &'static str = "resize";
/// }
///
/// let spec = JobSpec::of(&Resize { width: 640 })?.build()?;
/// assert_eq!(spec.name().as_str(), "resize");
/// # Ok::<(), hodei_core::Error>(())
/// ```
pub trait JobKind: Serialize + DeserializeOwned + Send + 'static {
    /// The name of the handler.
    const KIND: &'static str;
    /// The version of the arguments; raise it when their form changes.
    const VERSION: u16 = 1;
}

/// A process to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments; never given to a shell.
    pub argv: Texts,
    /// The environment, beside the few variables that the agent passes on.
    pub env: TextMap,
    /// What few commands have.
    pub more: Option<Box<CommandMore>>,
}

/// What few commands have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandMore {
    /// Environment names whose values are secrets, with the reference of each.
    pub secrets: TextMap,
    /// The directory to run in; the agent's choice when absent.
    pub cwd: Option<Box<str>>,
    /// The image to run in, for agents that have images.
    pub image: Option<Box<str>>,
    /// The names that the command must write to its output file.
    pub outputs: Texts,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Call a handler with arguments.
    Handler {
        /// The name of the handler.
        kind: Name,
        /// The version of the arguments.
        version: u16,
        /// How they are written.
        encoding: Encoding,
        /// The arguments; opaque to stores.
        args: Bytes,
    },
    /// Run a process.
    Command(Command),
}

impl Payload {
    /// Makes the payload of typed arguments, as JSON.
    ///
    /// # Errors
    ///
    /// `Invalid` when the arguments cannot be written as JSON or their kind is no name.
    pub fn of<K: JobKind>(args: &K) -> Result<Self> {
        let kind = Name::new(K::KIND)?;
        let args = serde_json::to_vec(args).map_err(|source| {
            Error::invalid("payload.encode", vec![Fault::new("args", "not_json")]).source_error(source)
        })?;
        Ok(Self::Handler { kind, version: K::VERSION, encoding: Encoding::Json, args: args.into() })
    }

    /// Reads typed arguments back.
    ///
    /// # Errors
    ///
    /// `Invalid` when the payload is a command, of another kind, or its arguments do not fit the type.
    pub fn args<K: JobKind>(&self) -> Result<K> {
        let Self::Handler { kind, encoding: Encoding::Json, args, .. } = self else {
            return Err(Error::invalid("payload.decode", vec![Fault::new("payload", "not_json_handler")]));
        };
        if kind.as_str() != K::KIND {
            return Err(Error::new(ErrorKind::Invalid, "payload.decode").with("kind", kind));
        }
        serde_json::from_slice(args).map_err(|source| {
            Error::invalid("payload.decode", vec![Fault::new("args", "bad_json")]).source_error(source)
        })
    }

    /// Returns what a worker must be able to run.
    #[must_use]
    pub fn runs(&self) -> Runs {
        match self {
            Self::Handler { kind, .. } => Runs::Handler(kind.clone()),
            Self::Command(_) => Runs::Command,
        }
    }
}

/// Something that a worker can run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Runs {
    /// Processes.
    Command,
    /// The handler of a name.
    Handler(Name),
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command => f.write_str("commands"),
            Self::Handler(kind) => write!(f, "handler {kind}"),
        }
    }
}

/// What a job asks of a worker. Jobs with equal requests are interchangeable for placement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What the worker must be able to run.
    pub runs: Runs,
    /// What it must have free.
    pub resources: Resources,
    /// The limits that it counts against while it is leased. They are part of the request so that all jobs of a lane
    /// are held back, or let through, together.
    pub limit_keys: Texts,
}

/// The hash of a [`Request`]: the part of a lane that tells requests apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestClass(u64);

impl RequestClass {
    /// Takes the number of a class, as stored rows keep it.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for RequestClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Request {
    /// Returns the class of this request: the first eight bytes of a BLAKE3 hash of its canonical bytes.
    #[must_use]
    pub fn class(&self) -> RequestClass {
        let mut bytes = Vec::with_capacity(64);
        match &self.runs {
            Runs::Command => bytes.push(0),
            Runs::Handler(kind) => {
                bytes.push(1);
                bytes.extend_from_slice(kind.as_str().as_bytes());
                bytes.push(0);
            }
        }
        bytes.extend_from_slice(&self.resources.cpu_millis.to_le_bytes());
        bytes.extend_from_slice(&self.resources.memory.to_le_bytes());
        bytes.extend_from_slice(&self.resources.gpus.to_le_bytes());
        for (name, amount) in self.resources.customs() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(&amount.to_le_bytes());
        }
        bytes.extend_from_slice(self.limit_keys.packed().as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&bytes).as_bytes();
        RequestClass(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}
