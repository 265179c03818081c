//! What is to be done.

use bytes::Bytes;
use hodei_core::job::{
    Backoff, Command, CommandMore, Encoding, FailureClass, Fingerprint, JobSpec, NewJob, Payload,
    RequestClass, Resources, RetryPolicy, RetryRule, SpecParts,
};

use hodei_core::{Name, Result};

use super::envelope::{ROW_MAX, append_part, decode_part};
use super::row::{BackoffRow, BornRow, Id, MoreRow, PayloadRow, ResourcesRow, RetryRow, SpecRow, WorkRow};
use super::value::{Names, bad, duration, map, name, priority, shared, texts, wait};
use crate::error::corrupt;

/// Writes of a spec what no list shows behind what is in a buffer.
pub(crate) fn work_part(spec: &JobSpec, into: &mut Vec<u8>) -> Result<()> {
    let parts = spec.parts();
    let row = WorkRow {
        payload: payload_row(&parts.payload),
        resources: resources_row(&parts.resources),
        timeout: parts.timeout.map(wait),
        retry: parts.retry.as_deref().map(retry_row),
        labels: parts.labels.texts().packed(),
    };
    append_part(&row, into)
}

/// Returns how many bytes [`work_part`] makes of a spec, at most a few more.
pub(crate) fn work_bytes(spec: &JobSpec) -> usize {
    let parts = spec.parts();
    let payload = match &parts.payload {
        Payload::Handler { kind, args, .. } => kind.as_str().len() + args.len(),
        Payload::Command(command) => {
            let more = |more: &CommandMore| {
                let texts = more.secrets.texts().packed().len() + more.outputs.packed().len();
                texts + more.cwd.as_deref().map_or(0, str::len) + more.image.as_deref().map_or(0, str::len)
            };
            let texts = command.argv.packed().len() + command.env.texts().packed().len();
            texts + command.more.as_deref().map_or(0, more)
        }
    };
    let custom: usize = parts.resources.customs().map(|(name, _)| name.as_str().len() + NUMBERS).sum();
    let rules = parts.retry.as_deref().map_or(0, |retry| retry.rules.len() * 2 * NUMBERS);
    payload + custom + rules + parts.labels.texts().packed().len() + 4 * NUMBERS
}

/// What a few numbers and the lengths of texts take in a row at most.
const NUMBERS: usize = 64;

/// Says whether a job fits into a row, without making it.
pub(crate) fn fits(job: &NewJob) -> bool {
    let spec = job.spec.parts();
    let texts = [job.tenant.as_str(), spec.name.as_str(), spec.queue.as_str(), spec.limit_keys.packed()];
    let texts: usize = texts.map(str::len).iter().sum();
    let parents = job.parents.len() * (size_of::<Id>() + 1);
    let unique = job.unique.as_deref().map_or(0, str::len);
    work_bytes(&job.spec) + texts + parents + unique + 4 * NUMBERS <= ROW_MAX
}

/// Reads the spec of a job.
pub(super) fn work(row: &BornRow<'_>, names: &mut Names) -> Result<JobSpec> {
    let work: WorkRow<'_> = decode_part(row.work)?;
    let parts = SpecParts {
        name: shared(&mut names.name, row.name)?,
        queue: shared(&mut names.queue, row.queue)?,
        payload: payload(work.payload, &mut names.kind)?,
        resources: resources(work.resources)?,
        priority: priority(row.priority)?,
        timeout: work.timeout.map(duration).transpose()?,
        retry: work.retry.map(retry).transpose()?.map(Box::new),
        labels: map(work.labels)?,
        limit_keys: texts(row.limit_keys)?,
    };
    let (class, fingerprint) =
        (RequestClass::from_number(row.class), Fingerprint::from_bytes(row.spec_fingerprint));
    Ok(JobSpec::restore(parts, class, fingerprint))
}

pub(super) fn spec_row(spec: &JobSpec) -> SpecRow<'_> {
    let parts = spec.parts();
    SpecRow {
        class: spec.class().number(),
        fingerprint: *spec.fingerprint().as_bytes(),
        name: parts.name.as_str(),
        queue: parts.queue.as_str(),
        payload: payload_row(&parts.payload),
        resources: resources_row(&parts.resources),
        priority: parts.priority.level(),
        timeout: parts.timeout.map(wait),
        retry: parts.retry.as_deref().map(retry_row),
        labels: parts.labels.texts().packed(),
        limit_keys: parts.limit_keys.packed(),
    }
}

pub(super) fn spec(row: SpecRow<'_>) -> Result<JobSpec> {
    let parts = SpecParts {
        name: name(row.name)?,
        queue: name(row.queue)?,
        payload: payload(row.payload, &mut None)?,
        resources: resources(row.resources)?,
        priority: priority(row.priority)?,
        timeout: row.timeout.map(duration).transpose()?,
        retry: row.retry.map(retry).transpose()?.map(Box::new),
        labels: map(row.labels)?,
        limit_keys: texts(row.limit_keys)?,
    };
    let (class, fingerprint) =
        (RequestClass::from_number(row.class), Fingerprint::from_bytes(row.fingerprint));
    Ok(JobSpec::restore(parts, class, fingerprint))
}

fn payload_row(payload: &Payload) -> PayloadRow<'_> {
    match payload {
        Payload::Handler { kind, version, encoding, args } => {
            PayloadRow::Handler { kind: kind.as_str(), version: *version, encoding: *encoding as u8, args }
        }
        Payload::Command(command) => PayloadRow::Command {
            argv: command.argv.packed(),
            env: command.env.texts().packed(),
            more: command.more.as_deref().map(|more| MoreRow {
                secrets: more.secrets.texts().packed(),
                cwd: more.cwd.as_deref(),
                image: more.image.as_deref(),
                outputs: more.outputs.packed(),
            }),
        },
    }
}

fn payload(row: PayloadRow<'_>, last: &mut Option<Name>) -> Result<Payload> {
    Ok(match row {
        PayloadRow::Handler { kind, version, encoding, args } => Payload::Handler {
            kind: shared(last, kind)?,
            version,
            encoding: match encoding {
                0 => Encoding::Json,
                1 => Encoding::Binary,
                _ => return Err(corrupt("row.decode", "a bad encoding")),
            },
            args: Bytes::copy_from_slice(args),
        },
        PayloadRow::Command { argv, env, more } => Payload::Command(Command {
            argv: texts(argv)?,
            env: map(env)?,
            more: more.as_ref().map(command_more).transpose()?,
        }),
    })
}

fn command_more(row: &MoreRow<'_>) -> Result<Box<CommandMore>> {
    Ok(Box::new(CommandMore {
        secrets: map(row.secrets)?,
        cwd: row.cwd.map(Box::from),
        image: row.image.map(Box::from),
        outputs: texts(row.outputs)?,
    }))
}

fn resources_row(resources: &Resources) -> ResourcesRow<'_> {
    ResourcesRow {
        cpu_millis: resources.cpu_millis,
        memory: resources.memory,
        gpus: resources.gpus,
        custom: resources.customs().map(|(name, amount)| (name.as_str(), amount)).collect(),
    }
}

fn resources(row: ResourcesRow<'_>) -> Result<Resources> {
    let fixed = Resources::none().cpu_millis(row.cpu_millis).memory(row.memory).gpus(row.gpus);
    row.custom.into_iter().try_fold(fixed, |all, (custom, amount)| Ok(all.custom(name(custom)?, amount)))
}

fn backoff_row(backoff: &Backoff) -> BackoffRow {
    match *backoff {
        Backoff::Fixed(time) => BackoffRow::Fixed(wait(time)),
        Backoff::Linear { step, max } => BackoffRow::Linear { step: wait(step), max: wait(max) },
        Backoff::Exponential { base, max } => BackoffRow::Exponential { base: wait(base), max: wait(max) },
    }
}

fn backoff(row: BackoffRow) -> Result<Backoff> {
    Ok(match row {
        BackoffRow::Fixed(time) => Backoff::Fixed(duration(time)?),
        BackoffRow::Linear { step, max } => Backoff::Linear { step: duration(step)?, max: duration(max)? },
        BackoffRow::Exponential { base, max } => {
            Backoff::Exponential { base: duration(base)?, max: duration(max)? }
        }
    })
}

fn retry_row(policy: &RetryPolicy) -> RetryRow {
    let rule = |(class, rule): &(FailureClass, RetryRule)| match rule {
        RetryRule::Never => (*class as u8, None),
        RetryRule::After(backoff) => (*class as u8, Some(backoff_row(backoff))),
    };
    RetryRow {
        max_attempts: policy.max_attempts,
        backoff: backoff_row(&policy.backoff),
        jitter: policy.jitter,
        rules: policy.rules.iter().map(rule).collect(),
    }
}

fn retry(row: RetryRow) -> Result<RetryPolicy> {
    let rule = |(class, row): (u8, Option<BackoffRow>)| {
        let rule = row.map(backoff).transpose()?.map_or(RetryRule::Never, RetryRule::After);
        Ok((failure_class(class)?, rule))
    };
    Ok(RetryPolicy {
        max_attempts: row.max_attempts,
        backoff: backoff(row.backoff)?,
        jitter: row.jitter,
        rules: row.rules.into_iter().map(rule).collect::<Result<_>>()?,
    })
}

pub(super) fn failure_class(number: u8) -> Result<FailureClass> {
    FailureClass::from_number(number).ok_or_else(bad("a bad class of failure"))
}
