//! How much memory a record takes.

use crate::id::Name;
use crate::job::{Job, JobSpec, Outcome, Output, Parent, Payload, Settled, SpecParts};

/// What the cache itself spends on an entry, roughly: its slot, the place in the table, and the heads of the allocations.
pub(super) const ENTRY: usize = 256;

/// Returns the bytes of a record, what it shares with others counted in full: a bound from above.
pub(super) fn of_job(job: &Job) -> usize {
    size_of::<Job>()
        + size_of::<JobSpec>()
        + of_spec(job.spec.parts())
        + job.tenant.as_str().len()
        + job.parents.len() * size_of::<Parent>()
        + job.unique.as_deref().map_or(0, str::len)
        + job.lease.as_ref().map_or(0, |lease| lease.owner.name().as_str().len())
        + job.settled.as_deref().map_or(0, of_settled)
}

/// Returns the bytes of an output.
pub(super) fn of_output(output: &Output) -> usize {
    match output {
        Output::Inline(bytes) => bytes.len(),
        Output::Blob(blob) => blob.key.len(),
    }
}

fn of_settled(settled: &Settled) -> usize {
    let message = match &settled.outcome {
        Outcome::Failed(failure) => failure.message.len(),
        Outcome::Succeeded | Outcome::Cancelled => 0,
    };
    let manifest = settled.manifest.as_deref().map_or(0, |manifest| {
        let of_artifact = |name: &Name, key: &str| 128 + name.as_str().len() + key.len();
        let artifacts = manifest.artifacts.iter().map(|entry| of_artifact(&entry.name, &entry.blob.key));
        manifest.logs.len() * 32 + artifacts.sum::<usize>()
    });
    size_of::<Settled>() + of_output(&settled.output) + message + manifest
}

fn of_spec(parts: &SpecParts) -> usize {
    let payload = match &parts.payload {
        Payload::Handler { kind, args, .. } => kind.as_str().len() + args.len(),
        Payload::Command(command) => {
            let more = command.more.as_deref().map_or(0, |more| {
                let texts = more.secrets.texts().packed().len() + more.outputs.packed().len();
                texts + more.cwd.as_deref().map_or(0, str::len) + more.image.as_deref().map_or(0, str::len)
            });
            command.argv.packed().len() + command.env.texts().packed().len() + more
        }
    };
    let retry = parts.retry.as_deref().map_or(0, |retry| 64 + retry.rules.len() * 64);
    let customs: usize = parts.resources.customs().map(|(name, _)| 40 + name.as_str().len()).sum();
    let names = parts.name.as_str().len() + parts.queue.as_str().len();
    names + payload + retry + customs + parts.labels.texts().packed().len() + parts.limit_keys.packed().len()
}
