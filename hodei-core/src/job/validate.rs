//! The rules that a spec is held to. Every fault is reported, not only the first.

use std::collections::HashSet;
use std::time::Duration;

use super::outcome::FailureClass;
use super::payload::Payload;
use super::resources::Resources;
use super::retry::{Backoff, RetryPolicy, RetryRule};
use super::spec::{JobSpec, SpecLimits, lasts_of};
use super::spec_builder::{JobSpecBuilder, RawCommand, RawMore, Work};
use crate::error::Fault;
use crate::id::Name;
use crate::text::shown;

/// Names that loaders and shells obey: setting them runs other code than the command named.
const DANGEROUS: [&str; 12] = [
    "BASH_ENV",
    "ENV",
    "PROMPT_COMMAND",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "IFS",
    "GIT_SSH_COMMAND",
    "GIT_SSH",
    "GIT_EXTERNAL_DIFF",
    "PERL5OPT",
    "NODE_OPTIONS",
];

/// Beginnings of names that loaders obey.
const DANGEROUS_PREFIXES: [&str; 2] = ["LD_", "DYLD_"];

/// The beginning of the names that Hodei sets itself.
const RESERVED_PREFIX: &str = "HODEI_";

/// Returns every rule that a spec breaks.
pub(super) fn faults(spec: &JobSpecBuilder, limits: &SpecLimits) -> Vec<Fault> {
    let mut faults = Vec::new();
    faults.extend(spec.name.as_deref().and_then(|name| Name::fault("name", name)));
    faults.extend(Name::fault("queue", &spec.queue));
    match &spec.work {
        Work::Handler(payload) => handler(payload, limits, &mut faults),
        Work::Command(command) => self::command(command, limits, &mut faults),
    }
    if let Some(rare) = &spec.rare {
        faults.extend(rare.misplaced.iter().map(|field| Fault::new(*field, "not_for_handlers")));
    }
    if !spec.labels.is_empty() {
        labels(&spec.labels, limits, &mut faults);
    }
    if let Some(rare) = &spec.rare {
        limit_keys(&rare.limit_keys, limits, &mut faults);
        rare.placement.faults(&mut faults);
    }
    resources(&spec.resources, limits, &mut faults);
    if let Some(timeout) = spec.timeout {
        faults.extend(duration("timeout", timeout, limits.duration));
    }
    if let Some(policy) = &spec.retry {
        retry(policy, limits, &mut faults);
    }
    faults
}

fn handler(payload: &Payload, limits: &SpecLimits, faults: &mut Vec<Fault>) {
    match payload {
        Payload::Command(_) => faults.push(Fault::new("payload", "not_handler")),
        Payload::Handler { args, .. } if args.len() > limits.payload_bytes => {
            faults.push(too(args.len(), "payload", "too_long", limits.payload_bytes));
        }
        Payload::Handler { .. } => {}
    }
}

fn command(command: &RawCommand, limits: &SpecLimits, faults: &mut Vec<Fault>) {
    argv(&command.argv, limits, faults);
    let secrets = command.more.as_deref().map_or(&[][..], |more| &more.secrets);
    if !(command.env.is_empty() && secrets.is_empty()) {
        env(&command.env, secrets, limits, faults);
    }
    if let Some(more) = &command.more {
        self::more(more, limits, faults);
    }
}

fn more(more: &RawMore, limits: &SpecLimits, faults: &mut Vec<Fault>) {
    for (field, text) in [("cwd", &more.cwd), ("image", &more.image)] {
        if let Some(text) = text {
            faults.extend(line(field, text, limits.text_bytes));
        }
    }
    if more.outputs.len() > limits.labels {
        faults.push(too(more.outputs.len(), "outputs", "too_many", limits.labels));
    }
    let mut seen = HashSet::new();
    for output in &more.outputs {
        faults.extend(Name::fault("outputs", output));
        if !seen.insert(output) {
            faults.push(Fault::new("outputs", "duplicate").detail(shown(output)));
        }
    }
}

fn argv(argv: &[String], limits: &SpecLimits, faults: &mut Vec<Fault>) {
    match argv.first() {
        None => faults.push(Fault::new("argv", "empty")),
        Some(program) if program.is_empty() => faults.push(Fault::new("argv[0]", "empty")),
        Some(_) => {}
    }
    if argv.len() > limits.argv_items {
        faults.push(too(argv.len(), "argv", "too_many", limits.argv_items));
    }
    let total: usize = argv.iter().map(String::len).sum();
    if total > limits.argv_bytes {
        faults.push(too(total, "argv", "too_long", limits.argv_bytes));
    }
    for (n, arg) in argv.iter().enumerate() {
        if arg.contains('\0') {
            faults.push(Fault::new(format!("argv[{n}]"), "nul"));
        }
        if arg.len() > limits.arg_bytes {
            faults.push(too(arg.len(), &format!("argv[{n}]"), "too_long", limits.arg_bytes));
        }
    }
}

fn env(env: &[(String, String)], secrets: &[(String, String)], limits: &SpecLimits, faults: &mut Vec<Fault>) {
    let count = env.len() + secrets.len();
    if count > limits.env_items {
        faults.push(too(count, "env", "too_many", limits.env_items));
    }
    let total: usize = env.iter().chain(secrets).map(|(name, value)| name.len() + value.len()).sum();
    if total > limits.env_bytes {
        faults.push(too(total, "env", "too_long", limits.env_bytes));
    }
    let mut seen = HashSet::new();
    for (name, _) in env.iter().chain(secrets) {
        faults.extend(env_name_fault(name, limits));
        if !seen.insert(name) {
            faults.push(Fault::new("env.name", "duplicate").detail(shown(name)));
        }
    }
    for (name, value) in env {
        if value.contains('\0') {
            faults.push(Fault::new("env.value", "nul").detail(shown(name)));
        }
        if value.len() > limits.env_value_bytes {
            faults.push(too(value.len(), "env.value", "too_long", limits.env_value_bytes));
        }
    }
    for (_, reference) in secrets {
        faults.extend(line("secrets", reference, limits.text_bytes));
    }
}

/// Returns the first rule that an environment name breaks.
fn env_name_fault(name: &str, limits: &SpecLimits) -> Option<Fault> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let dangerous =
        DANGEROUS.contains(&name) || DANGEROUS_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let code = if name.is_empty() {
        "empty"
    } else if name.contains('\0') {
        "nul"
    } else if name.len() > limits.env_name_bytes {
        return Some(too(name.len(), "env.name", "too_long", limits.env_name_bytes));
    } else if name.contains('=') {
        "has_eq"
    } else if !name.bytes().all(ok) || name.as_bytes()[0].is_ascii_digit() {
        "bad_char"
    } else if name.starts_with(RESERVED_PREFIX) {
        "reserved"
    } else if dangerous && !limits.allow_env.iter().any(|allowed| allowed == name) {
        "denied"
    } else {
        return None;
    };
    Some(Fault::new("env.name", code).detail(shown(name)))
}

fn labels(labels: &[(String, String)], limits: &SpecLimits, faults: &mut Vec<Fault>) {
    if labels.len() > limits.labels {
        faults.push(too(labels.len(), "labels", "too_many", limits.labels));
    }
    let mut seen = HashSet::new();
    for (name, value) in labels {
        faults.extend(Name::fault("labels.name", name));
        if !seen.insert(name) {
            faults.push(Fault::new("labels.name", "duplicate").detail(shown(name)));
        }
        if name == JobSpec::SEQUENCE {
            faults.extend(Name::fault("sequence", value));
        } else if name == JobSpec::LASTS {
            faults.extend(match lasts_of(value) {
                Some(lasts) => duration("lasts", lasts, limits.duration),
                None => Some(Fault::new("lasts", "bad_number")),
            });
        } else if value.contains('\0') {
            faults.push(Fault::new("labels.value", "nul").detail(shown(name)));
        } else if value.chars().any(turns) {
            faults.push(Fault::new("labels.value", "control_char").detail(shown(name)));
        }
        if value.len() > limits.text_bytes {
            faults.push(too(value.len(), "labels.value", "too_long", limits.text_bytes));
        }
    }
}

fn limit_keys(keys: &[String], limits: &SpecLimits, faults: &mut Vec<Fault>) {
    if keys.len() > limits.limit_keys {
        faults.push(too(keys.len(), "limit_keys", "too_many", limits.limit_keys));
    }
    let mut seen = HashSet::new();
    for key in keys {
        faults.extend(Name::fault("limit_keys", key));
        if !seen.insert(key) {
            faults.push(Fault::new("limit_keys", "duplicate").detail(shown(key)));
        }
    }
}

/// A text of one line: not empty, no control characters, not too long.
pub(super) fn line(field: &str, text: &str, limit: usize) -> Option<Fault> {
    if text.is_empty() {
        Some(Fault::new(field, "empty"))
    } else if text.contains('\0') {
        Some(Fault::new(field, "nul"))
    } else if text.chars().any(hides) {
        Some(Fault::new(field, "control_char").detail(shown(text)))
    } else if text.len() > limit {
        Some(too(text.len(), field, "too_long", limit))
    } else {
        None
    }
}

/// Says whether a character moves or turns what stands beside it: control and bidirectional ones. The zero-width
/// joiners that some scripts are written with are none.
fn turns(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Says whether a character hides or turns what stands beside it: those that turn, and all zero-width ones.
fn hides(c: char) -> bool {
    turns(c) || matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{feff}')
}

fn resources(resources: &Resources, limits: &SpecLimits, faults: &mut Vec<Fault>) {
    for (field, amount) in
        [("resources.cpu_millis", resources.cpu_millis), ("resources.memory", resources.memory)]
    {
        if amount > Resources::MAX {
            faults.push(Fault::new(field, "too_large").limit(Resources::MAX));
        }
    }
    if resources.worker_count() > Resources::WORKERS_MAX {
        faults.push(Fault::new("resources.workers", "too_large").limit(Resources::WORKERS_MAX.into()));
    }
    if resources.token_count() > Resources::TOKENS_MAX {
        faults.push(Fault::new("resources.tokens", "too_large").limit(Resources::TOKENS_MAX.into()));
    }
    let named = resources.customs().filter(|(name, _)| !Resources::is_place(name)).count();
    if named > limits.labels {
        faults.push(too(named, "resources", "too_many", limits.labels));
    }
    match resources.placement() {
        Some(placement) => placement.faults(faults),
        None => faults.push(Fault::new("placement", "bad_form")),
    }
    for (name, amount) in resources.customs() {
        if amount > Resources::MAX {
            faults.push(Fault::new(format!("resources.{name}"), "too_large").limit(Resources::MAX));
        }
    }
}

fn retry(policy: &RetryPolicy, limits: &SpecLimits, faults: &mut Vec<Fault>) {
    if policy.max_attempts == 0 {
        faults.push(Fault::new("retry.max_attempts", "zero"));
    }
    if policy.max_attempts > RetryPolicy::MAX_ATTEMPTS {
        let limit = u64::from(RetryPolicy::MAX_ATTEMPTS);
        faults.push(Fault::new("retry.max_attempts", "too_large").limit(limit));
    }
    if policy.rules.len() > FailureClass::ALL.len() {
        faults.push(too(policy.rules.len(), "retry.rules", "too_many", FailureClass::ALL.len()));
    }
    let own = std::iter::once(&policy.backoff);
    let ruled = policy.rules.iter().filter_map(|(_, rule)| match rule {
        RetryRule::After(backoff) => Some(backoff),
        RetryRule::Never => None,
    });
    let longest = own.chain(ruled).map(Backoff::longest).max().unwrap_or_default();
    if longest > limits.duration {
        faults.push(Fault::new("retry.backoff", "too_large").limit(limits.duration.as_secs()));
    }
}

/// A time that must be at least a microsecond, the finest that is kept, and at most `max`; the limit of the fault is in
/// seconds.
pub(super) fn duration(field: &str, duration: Duration, max: Duration) -> Option<Fault> {
    if duration < Duration::from_micros(1) {
        Some(Fault::new(field, "zero"))
    } else if duration > max {
        Some(Fault::new(field, "too_large").limit(max.as_secs()))
    } else {
        None
    }
}

fn too(got: usize, field: &str, code: &'static str, limit: usize) -> Fault {
    Fault::new(field, code).limit(limit as u64).detail(format!("got {got}"))
}

#[cfg(test)]
mod tests;
