//! What is to be done, and what else a job is born with.

use std::sync::Arc;

use bytes::Bytes;
use hodei_core::job::{
    Backoff, Command, CommandMore, Encoding, FailureClass, Fingerprint, JobSpec, Parent, Payload, Priority,
    Request, RequestClass, Requires, Resources, RetryPolicy, RetryRule, Runs, SpecParts,
};
use hodei_core::text::{TextMap, Texts};
use hodei_core::{JobId, Name, Result};

use super::buffer::{Reader, Writer, damaged};

const BODY: u8 = 1;
/// The first byte of a lean body, together with what is in it beside what nearly every job has.
const LEAN: u8 = 0x80;
/// A unique key.
const UNIQUE: u8 = 1;
/// Parents.
const PARENTS: u8 = 1 << 1;
/// It is a command, and no handler.
const COMMAND: u8 = 1 << 2;
/// A command has more than its arguments; a handler is not called as its job is, or has no first version in JSON.
const MORE: u8 = 1 << 3;
/// It needs resources.
const RESOURCES: u8 = 1 << 4;
/// A timeout or a retry policy.
const TRIES: u8 = 1 << 5;
/// Labels or keys of limits.
const LABELS: u8 = 1 << 6;

const SPEC: u8 = 1;
const REQUEST: u8 = 1;

/// How bodies are written; either is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// In as few bytes as they can.
    Lean,
    /// As programs of before read them.
    AsBefore,
}

/// What a job is born with beside its columns.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// What is to be done.
    pub(crate) spec: Arc<JobSpec>,
    /// What had to settle first.
    pub(crate) parents: Arc<[Parent]>,
    /// The key that no other job of the tenant has.
    pub(crate) unique: Option<Arc<str>>,
}

/// What the columns of a job say of its spec.
#[derive(Clone, Debug)]
pub(crate) struct SpecColumns {
    pub(crate) name: Name,
    pub(crate) queue: Name,
    pub(crate) priority: Priority,
    pub(crate) class: RequestClass,
}

impl Bodies {
    /// Writes what a job is born with beside its columns.
    pub(crate) fn bytes(self, unique: Option<&str>, parents: &[Parent], spec: &JobSpec) -> Vec<u8> {
        match self {
            Self::Lean => lean_body_bytes(unique, parents, spec),
            Self::AsBefore => body_bytes(unique, parents, spec),
        }
    }
}

fn body_bytes(unique: Option<&str>, parents: &[Parent], spec: &JobSpec) -> Vec<u8> {
    let mut to = Writer::of_layout(BODY);
    to.optional(unique, Writer::text);
    write_parents(&mut to, parents);
    write_work(&mut to, spec);
    to.finish()
}

/// What most jobs do not have takes a bit, and the fingerprint of the spec is made again where it is read.
fn lean_body_bytes(unique: Option<&str>, parents: &[Parent], spec: &JobSpec) -> Vec<u8> {
    let parts = spec.parts();
    let (command, more) = match &parts.payload {
        Payload::Handler { kind, version, encoding, .. } => {
            (false, *kind != parts.name || *version != 1 || *encoding != Encoding::Json)
        }
        Payload::Command(command) => (true, !command.env.is_empty() || command.more.is_some()),
    };
    let has = [
        (UNIQUE, unique.is_some()),
        (PARENTS, !parents.is_empty()),
        (COMMAND, command),
        (MORE, more),
        (RESOURCES, parts.resources != Resources::none()),
        (TRIES, parts.timeout.is_some() || parts.retry.is_some()),
        (LABELS, !parts.labels.is_empty() || !parts.limit_keys.is_empty()),
    ];
    let has = has.iter().filter(|(_, there)| *there).fold(0, |all, (bit, _)| all | bit);
    let mut to = Writer::of_layout(LEAN | has);
    if let Some(unique) = unique {
        to.text(unique);
    }
    if has & PARENTS != 0 {
        write_parents(&mut to, parents);
    }
    if has & RESOURCES != 0 {
        write_resources(&mut to, &parts.resources);
    }
    if has & TRIES != 0 {
        to.optional(parts.timeout, Writer::duration);
        to.optional(parts.retry.as_deref(), write_retry);
    }
    if has & LABELS != 0 {
        to.text(parts.labels.texts().packed());
        to.text(parts.limit_keys.packed());
    }
    match &parts.payload {
        payload if more => write_payload(&mut to, payload),
        Payload::Handler { args, .. } => to.bytes(args),
        Payload::Command(command) => to.text(command.argv.packed()),
    }
    to.finish()
}

/// Reads what a job is born with beside its columns, in either layout.
pub(crate) fn body_of(bytes: &[u8], columns: SpecColumns) -> Result<Body> {
    if let Some((first, rest)) = bytes.split_first().filter(|(first, _)| **first & LEAN != 0) {
        return lean_body_of(*first, rest, columns);
    }
    let mut from = Reader::of_layout(bytes, BODY)?;
    let unique = from.optional(|from| from.text().map(Arc::from))?;
    let parents = parents(&mut from)?;
    let spec = Arc::new(read_work(&mut from, columns)?);
    from.end()?;
    Ok(Body { spec, parents, unique })
}

fn lean_body_of(has: u8, bytes: &[u8], columns: SpecColumns) -> Result<Body> {
    let mut from = Reader::plain(bytes);
    let has = |bit| has & bit != 0;
    let unique = if has(UNIQUE) { Some(Arc::from(from.text()?)) } else { None };
    let parents = if has(PARENTS) { parents(&mut from)? } else { Arc::from([]) };
    let resources = if has(RESOURCES) { resources(&mut from)? } else { Resources::none() };
    let (timeout, retry) = if has(TRIES) {
        (from.optional(Reader::duration)?, from.optional(retry)?.map(Box::new))
    } else {
        (None, None)
    };
    let (labels, limit_keys) =
        if has(LABELS) { (from.map()?, from.texts()?) } else { (TextMap::default(), Texts::default()) };
    let payload = match (has(MORE), has(COMMAND)) {
        (true, _) => payload(&mut from)?,
        (false, true) => {
            Payload::Command(Command { argv: from.texts()?, env: TextMap::default(), more: None })
        }
        (false, false) => Payload::Handler {
            kind: columns.name.clone(),
            version: 1,
            encoding: Encoding::Json,
            args: Bytes::copy_from_slice(from.bytes()?),
        },
    };
    from.end()?;
    let SpecColumns { name, queue, priority, class } = columns;
    let parts = SpecParts { name, queue, payload, resources, priority, timeout, retry, labels, limit_keys };
    Ok(Body { spec: Arc::new(JobSpec::restore_without_fingerprint(parts, class)), parents, unique })
}

fn write_parents(to: &mut Writer, parents: &[Parent]) {
    to.number(parents.len() as u64);
    for parent in parents {
        to.fixed(parent.id.as_bytes());
        to.byte(parent.requires.number());
    }
}

fn parents(from: &mut Reader<'_>) -> Result<Arc<[Parent]>> {
    let parents = from.list(|from| {
        let id = JobId::from_bytes(from.fixed()?);
        let requires = Requires::from_number(from.byte()?).ok_or_else(|| damaged("a bad requirement"))?;
        Ok(Parent { id, requires })
    })?;
    Ok(parents.into())
}

/// Writes a whole spec, as schedules keep it.
pub(crate) fn spec_bytes(spec: &JobSpec) -> Vec<u8> {
    let mut to = Writer::of_layout(SPEC);
    to.text(spec.name().as_str());
    to.text(spec.queue().as_str());
    to.byte(spec.priority().level());
    to.fixed(&spec.class().number().to_le_bytes());
    write_work(&mut to, spec);
    to.finish()
}

/// Reads a whole spec.
pub(crate) fn spec_of(bytes: &[u8]) -> Result<JobSpec> {
    let mut from = Reader::of_layout(bytes, SPEC)?;
    let (name, queue) = (from.name()?, from.name()?);
    let priority = priority(from.byte()?)?;
    let class = RequestClass::from_number(u64::from_le_bytes(from.fixed()?));
    let spec = read_work(&mut from, SpecColumns { name, queue, priority, class })?;
    from.end()?;
    Ok(spec)
}

/// Reads a level.
pub(crate) fn priority(level: u8) -> Result<Priority> {
    Priority::new(level).map_err(|_| damaged("a bad priority"))
}

/// Writes what the jobs of a lane ask of a worker.
pub(crate) fn request_bytes(request: &Request) -> Vec<u8> {
    let mut to = Writer::of_layout(REQUEST);
    match &request.runs {
        Runs::Command => to.byte(0),
        Runs::Handler(kind) => {
            to.byte(1);
            to.text(kind.as_str());
        }
    }
    write_resources(&mut to, &request.resources);
    to.text(request.limit_keys.packed());
    to.finish()
}

/// Reads what the jobs of a lane ask of a worker.
pub(crate) fn request_of(bytes: &[u8]) -> Result<Request> {
    let mut from = Reader::of_layout(bytes, REQUEST)?;
    let runs = match from.byte()? {
        0 => Runs::Command,
        1 => Runs::Handler(from.name()?),
        _ => return Err(damaged("a bad kind of work")),
    };
    let request = Request { runs, resources: resources(&mut from)?, limit_keys: from.texts()? };
    from.end()?;
    Ok(request)
}

fn write_work(to: &mut Writer, spec: &JobSpec) {
    let parts = spec.parts();
    to.fixed(spec.fingerprint().as_bytes());
    write_payload(to, &parts.payload);
    write_resources(to, &parts.resources);
    to.optional(parts.timeout, Writer::duration);
    to.optional(parts.retry.as_deref(), write_retry);
    to.text(parts.labels.texts().packed());
    to.text(parts.limit_keys.packed());
}

fn read_work(from: &mut Reader<'_>, columns: SpecColumns) -> Result<JobSpec> {
    let fingerprint = Fingerprint::from_bytes(from.fixed()?);
    let parts = SpecParts {
        payload: payload(from)?,
        resources: resources(from)?,
        timeout: from.optional(Reader::duration)?,
        retry: from.optional(retry)?.map(Box::new),
        labels: from.map()?,
        limit_keys: from.texts()?,
        name: columns.name,
        queue: columns.queue,
        priority: columns.priority,
    };
    Ok(JobSpec::restore(parts, columns.class, fingerprint))
}

fn write_payload(to: &mut Writer, payload: &Payload) {
    match payload {
        Payload::Handler { kind, version, encoding, args } => {
            to.byte(0);
            to.text(kind.as_str());
            to.number((*version).into());
            to.byte(*encoding as u8);
            to.bytes(args);
        }
        Payload::Command(command) => {
            to.byte(1);
            to.text(command.argv.packed());
            to.text(command.env.texts().packed());
            to.optional(command.more.as_deref(), |to, more| {
                to.text(more.secrets.texts().packed());
                to.optional(more.cwd.as_deref(), Writer::text);
                to.optional(more.image.as_deref(), Writer::text);
                to.text(more.outputs.packed());
            });
        }
    }
}

fn payload(from: &mut Reader<'_>) -> Result<Payload> {
    match from.byte()? {
        0 => Ok(Payload::Handler {
            kind: from.name()?,
            version: from.small()?,
            encoding: match from.byte()? {
                0 => Encoding::Json,
                1 => Encoding::Binary,
                _ => return Err(damaged("a bad encoding")),
            },
            args: Bytes::copy_from_slice(from.bytes()?),
        }),
        1 => Ok(Payload::Command(Command {
            argv: from.texts()?,
            env: from.map()?,
            more: from.optional(command_more)?.map(Box::new),
        })),
        _ => Err(damaged("a bad payload")),
    }
}

fn command_more(from: &mut Reader<'_>) -> Result<CommandMore> {
    Ok(CommandMore {
        secrets: from.map()?,
        cwd: from.optional(|from| from.text().map(Box::from))?,
        image: from.optional(|from| from.text().map(Box::from))?,
        outputs: from.texts()?,
    })
}

fn write_resources(to: &mut Writer, resources: &Resources) {
    to.number(resources.cpu_millis);
    to.number(resources.memory);
    to.number(resources.gpus.into());
    to.number(resources.customs().len() as u64);
    for (name, amount) in resources.customs() {
        to.text(name.as_str());
        to.number(amount);
    }
}

fn resources(from: &mut Reader<'_>) -> Result<Resources> {
    let fixed = Resources::none().cpu_millis(from.number()?).memory(from.number()?).gpus(from.small()?);
    let custom = from.list(|from| Ok((from.name()?, from.number()?)))?;
    Ok(custom.into_iter().fold(fixed, |all, (name, amount)| all.custom(name, amount)))
}

fn write_backoff(to: &mut Writer, backoff: &Backoff) {
    match *backoff {
        Backoff::Fixed(wait) => {
            to.byte(0);
            to.duration(wait);
        }
        Backoff::Linear { step, max } => {
            to.byte(1);
            to.duration(step);
            to.duration(max);
        }
        Backoff::Exponential { base, max } => {
            to.byte(2);
            to.duration(base);
            to.duration(max);
        }
    }
}

fn backoff(from: &mut Reader<'_>) -> Result<Backoff> {
    Ok(match from.byte()? {
        0 => Backoff::Fixed(from.duration()?),
        1 => Backoff::Linear { step: from.duration()?, max: from.duration()? },
        2 => Backoff::Exponential { base: from.duration()?, max: from.duration()? },
        _ => return Err(damaged("a bad backoff")),
    })
}

fn write_retry(to: &mut Writer, policy: &RetryPolicy) {
    to.number(policy.max_attempts.into());
    write_backoff(to, &policy.backoff);
    to.byte(u8::from(policy.jitter));
    to.number(policy.rules.len() as u64);
    for (class, rule) in &policy.rules {
        to.byte(*class as u8);
        match rule {
            RetryRule::Never => to.byte(0),
            RetryRule::After(backoff) => {
                to.byte(1);
                write_backoff(to, backoff);
            }
        }
    }
}

fn retry(from: &mut Reader<'_>) -> Result<RetryPolicy> {
    let max_attempts = from.small()?;
    let backoff_of_all = backoff(from)?;
    let jitter = from.byte()? == 1;
    let rules = from.list(|from| {
        let class =
            FailureClass::from_number(from.byte()?).ok_or_else(|| damaged("a bad class of failure"))?;
        let rule = from.optional(backoff)?.map_or(RetryRule::Never, RetryRule::After);
        Ok((class, rule))
    })?;
    Ok(RetryPolicy { max_attempts, backoff: backoff_of_all, jitter, rules: rules.into() })
}
