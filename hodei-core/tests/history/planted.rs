//! Violations planted by hand in a history without any: each is found under its name.

use std::collections::HashMap;

use hodei_core::job::{Cause, Epoch, State};
use hodei_core::store::{Applied, CancelReply, Change, Fired, Rate, Refusal, Submitted};
use hodei_core::testkit::history::{Call, Entry, Facts, History, Invariant, Reply, check};
use hodei_core::{JobId, Timestamp};

use crate::script::{SECRET, Script, script};

/// What is done to the script.
type Plant = fn(&mut Script);

const PLANTS: &[(Invariant, &str, Plant)] = &[
    (Invariant::NoLostAck, "a stored job is neither logged nor held", |script| {
        let job = script.second;
        script.entries.retain(|entry| !matches!(entry, Entry::Logged { change } if change.job == job));
        script.entries.retain(|entry| !matches!(entry, Entry::Held { seen } if seen.job == job));
    }),
    (Invariant::NoLostAck, "a read does not find an acknowledged job", |script| {
        let job = script.second;
        script.replies(|reply| {
            if let Reply::Jobs { jobs } = reply {
                for seen in jobs {
                    *seen = seen.take().filter(|seen| seen.job != job);
                }
            }
        });
    }),
    (Invariant::NoLostAck, "a claimed job is not the submitted one", |script| {
        let job = script.second;
        let other = script.facts(script.limited).fingerprint;
        script.claims(|facts| {
            if facts.job == job {
                facts.fingerprint = other;
            }
        });
    }),
    (Invariant::IdempotentSubmit, "the repetition is stored as new", |script| {
        let job = script.keyed;
        script.answers(|answer| {
            if *answer == Submitted::Existing(job) {
                *answer = Submitted::New(job)
            }
        });
    }),
    (Invariant::IdempotentSubmit, "the repetition is told that it conflicts", |script| {
        let job = script.keyed;
        script.answers(|answer| {
            if *answer == Submitted::Existing(job) {
                *answer = Submitted::Conflict(job)
            }
        });
    }),
    (Invariant::IdempotentSubmit, "two jobs have one key", |script| {
        let (job, key) = (script.second, script.facts(script.keyed).unique);
        script.submitted(job, |facts| facts.unique = key.clone());
    }),
    (Invariant::IdempotentSubmit, "two jobs that have not ended have one key", |script| {
        for job in [script.retried, script.second] {
            script.submitted(job, |facts| facts.unique = Some("open:key".into()));
        }
    }),
    (Invariant::IdempotentSubmit, "two jobs that have not failed have one key", |script| {
        for job in [script.retried, script.second] {
            script.submitted(job, |facts| facts.unique = Some("unfailed:key".into()));
        }
    }),
    (Invariant::IdempotentSubmit, "two jobs wait with one key", |script| {
        for job in [script.retried, script.second] {
            script.submitted(job, |facts| facts.unique = Some("waiting:key".into()));
        }
    }),
    (Invariant::NoPhantom, "a refused job is there", |script| {
        let job = script.foreign;
        script.answers(|answer| {
            if *answer == Submitted::New(job) {
                *answer = Submitted::Refused(Refusal::TooMany);
            }
        });
    }),
    (Invariant::NoPhantom, "a job is there that nobody submitted", |script| {
        let (job, other) = (script.foreign, JobId::from_bytes([7; 16]));
        script.changes(|change| {
            if change.job == job {
                change.job = other
            }
        });
    }),
    (Invariant::LegalPath, "a line of the log stands twice", |script| {
        let place = script.logged(script.retried, 3);
        let line = script.entries[place].clone();
        script.entries.insert(place, line);
    }),
    (Invariant::LegalPath, "a transition is missing", |script| {
        let job = script.retried;
        script.without(job, 3);
    }),
    (Invariant::LegalPath, "a job ends twice", |script| {
        let job = script.second;
        let versions = script.versions(job);
        script.changes(|change| {
            if change.job == job && change.version == versions - 1 {
                (change.cause, change.to) = (Cause::Failed, State::Failed);
            }
        });
    }),
    (Invariant::LegalPath, "an answer says done and nothing changed", |script| {
        script.without(script.second, 3);
    }),
    (Invariant::ParentsFirst, "two of a sequence wait for a worker at once", |script| {
        for job in [script.retried, script.second] {
            script.submitted(job, |facts| facts.sequence = Some("line".into()));
        }
    }),
    (Invariant::EpochMonotone, "a claim keeps the epoch", |script| {
        let job = script.retried;
        script.changes(|change| {
            if change.job == job && change.epoch.number() == 2 {
                change.epoch = Epoch::from_number(1);
            }
        });
    }),
    (Invariant::EpochMonotone, "an owner lives the same life twice", |script| {
        script.replies(|reply| {
            if let Reply::Registered { lease } = reply {
                lease.incarnation = 1;
            }
        });
    }),
    (Invariant::EpochMonotone, "one claim is answered twice", |script| {
        let mut first = None;
        script.replies(|reply| {
            if let Reply::Exchanged { claimed, .. } = reply {
                claimed.extend(first.clone());
                first = first.take().or_else(|| claimed.first().cloned());
            }
        });
    }),
    (Invariant::Fencing, "a report under an old epoch is applied", |script| {
        let job = script.retried;
        script.calls(|call| {
            if let Call::Exchange { steps, .. } = call {
                let current = steps.iter_mut().filter(|step| step.job == job && step.epoch.number() == 2);
                current.for_each(|step| step.epoch = Epoch::from_number(1));
            }
        });
    }),
    (Invariant::Fencing, "the holder is told that it lost its lease", |script| {
        let epoch = Epoch::from_number(1);
        script.replies(|reply| {
            if let Reply::Exchanged { applied, .. } = reply {
                let done = applied.iter_mut().filter(|applied| **applied == Applied::Done);
                done.for_each(|applied| *applied = Applied::LeaseLost { held: epoch, current: epoch.next() });
            }
        });
    }),
    (Invariant::Fencing, "an owner claims in a life that is over", |script| {
        script.calls(|call| {
            if let Call::Exchange { owner, .. } = call {
                owner.incarnation = 1;
            }
        });
    }),
    (Invariant::ExclusiveExecution, "an epoch runs twice", |script| {
        let run = script.entries.iter().find(|entry| matches!(entry, Entry::RunBegan { .. })).cloned();
        let end = script.entries.len() / 2;
        script.entries.insert(end, run.expect("the script runs jobs"));
    }),
    (Invariant::ExclusiveExecution, "an epoch runs that nobody claimed", |script| {
        let job = script.second;
        for entry in &mut script.entries {
            if let Entry::RunBegan { job: ran, epoch, .. } = entry
                && *ran == job
            {
                *epoch = Epoch::from_number(9);
            }
        }
    }),
    (Invariant::RetryBound, "there are more attempts than allowed", |script| {
        let job = script.retried;
        script.submitted(job, |facts| facts.max_attempts = 1);
    }),
    (Invariant::RetryBound, "an attempt is not counted", |script| {
        let job = script.retried;
        script.changes(|change| {
            if change.job == job {
                change.attempt = change.attempt.min(1);
            }
        });
    }),
    (Invariant::RetryBound, "a job is lost more often than allowed", |script| {
        script.calls(|call| {
            if let Call::Reap { lost_max, .. } = call {
                *lost_max = 1;
            }
        });
    }),
    (Invariant::ParentsFirst, "a child goes before its parent has ended", |script| {
        for survey in 0..2 {
            let released = script.logged_in(survey, script.child, 2);
            let line = script.entries.remove(released);
            let begun = script.logged_in(survey, script.parent, 2);
            script.entries.insert(begun, line);
        }
    }),
    (Invariant::ParentsFirst, "a child stands before its parent", |script| {
        let child = script.logged_in(1, script.child, 1);
        let line = script.entries.remove(child);
        let parent = script.logged_in(1, script.parent, 1);
        script.entries.insert(parent, line);
    }),
    (Invariant::ParentsFirst, "a child is never released", |script| {
        let job = script.child;
        let versions = script.versions(job);
        (2..=versions).for_each(|version| script.without(job, version));
    }),
    (Invariant::CleanCancel, "a job is claimed after its end was asked for", |script| {
        let asked = script
            .entries
            .iter()
            .position(|entry| matches!(entry, Entry::Called { what: Call::RequestCancel { .. }, .. }));
        let asked = asked.expect("the script cancels");
        let pair: Vec<Entry> = script.entries.drain(asked..asked + 2).collect();
        let submitted = script
            .entries
            .iter()
            .position(|entry| matches!(entry, Entry::Returned { reply: Reply::Submitted { .. }, .. }));
        let place = submitted.expect("the script submits") + 1;
        script.entries.splice(place..place, pair);
    }),
    (Invariant::CleanCancel, "a job counts as cancelled and nothing changed", |script| {
        script.replies(|reply| {
            if let Reply::Cancelled { replies, .. } = reply {
                let ended = replies.iter_mut().filter(|reply| **reply == CancelReply::AlreadyTerminal);
                ended.for_each(|reply| *reply = CancelReply::Cancelled);
            }
        });
    }),
    (Invariant::LimitsKept, "a claim exceeds the limit", |script| {
        script.calls(|call| {
            if let Call::SetLimit { max, .. } = call {
                *max = 0;
            }
        });
    }),
    (Invariant::LimitsKept, "a claim takes a token that is not there", |script| {
        script.calls(|call| {
            if let Call::SetLimit { rate, .. } = call {
                *rate = rate.map(|rate| Rate::new(1, rate.per * 1_000));
            }
        });
    }),
    (Invariant::LimitsKept, "a limit leaks", |script| {
        for entry in &mut script.entries {
            if let Entry::SurveyEnded { limits, .. } = entry {
                limits.iter_mut().for_each(|limit| limit.in_use += 1);
            }
        }
    }),
    (Invariant::QueueOrder, "a more urgent job is overtaken", |script| {
        let job = script.second;
        script.submitted(job, |facts| facts.priority = hodei_core::job::Priority::MAX);
    }),
    (Invariant::QueueOrder, "a job is claimed before its time", |script| {
        let job = script.second;
        script.submitted(job, |facts| facts.run_at = Some(Timestamp::from_micros(i64::MAX)));
    }),
    (Invariant::QueueOrder, "a claim gets more than it asked for", |script| {
        script.calls(|call| {
            if let Call::Exchange { wants, .. } = call {
                wants.iter_mut().for_each(|want| want.n = 0);
            }
        });
    }),
    (Invariant::EventStream, "an announced transition is not recorded", |script| {
        let (job, last) = (script.second, script.versions(script.second));
        script.entries.retain(
            |entry| !matches!(entry, Entry::Logged { change } if change.job == job && change.version == last),
        );
    }),
    (Invariant::EventStream, "a recorded transition was not announced", |script| {
        let job = script.second;
        script.replies(|reply| {
            if let Reply::Submitted { changes, .. } = reply {
                changes.retain(|change| change.job != job);
            }
        });
    }),
    (Invariant::EventStream, "a subscriber misses a transition", |script| {
        let seen = |entry: &Entry| matches!(entry, Entry::Observed { seen, .. } if seen.version == 3);
        script.entries.retain(|entry| !seen(entry));
    }),
    (Invariant::EventStream, "a subscriber is told what did not happen", |script| {
        for entry in &mut script.entries {
            if let Entry::Observed { seen, .. } = entry {
                seen.state = State::Failed;
            }
        }
    }),
    (Invariant::WholeLogs, "bytes are lost and not counted", |script| {
        script.logs(|entry| {
            if let Entry::LogEnded { dropped, .. } = entry {
                *dropped = dropped.saturating_sub(1);
            }
        });
    }),
    (Invariant::WholeLogs, "the end of a run says nothing of its logs", |script| {
        script.entries.retain(|entry| !matches!(entry, Entry::LogEnded { .. }));
    }),
    (Invariant::WholeLogs, "a reader is given another run's bytes", |script| {
        script.logs(|entry| {
            if let Entry::LogRead { bytes, .. } = entry {
                bytes[0] = b'#';
            }
        });
    }),
    (Invariant::WholeLogs, "a reader is given the same bytes again", |script| {
        script.logs(|entry| {
            if let Entry::LogRead { offset, .. } = entry {
                *offset = 0;
            }
        });
    }),
    (Invariant::WholeLogs, "a reader is told of the end before it is there", |script| {
        script.logs(|entry| {
            if let Entry::LogRead { ended, .. } = entry {
                *ended = true;
            }
        });
    }),
    (Invariant::WholeLogs, "a reader is given more than was written", |script| {
        script.logs(|entry| {
            if let Entry::LogRead { bytes, next, .. } = entry {
                bytes.extend([b'x'; 40]);
                *next += 40;
            }
        });
    }),
    (Invariant::OneJobPerFire, "a fire time gives a second job", |script| {
        let job = script.second;
        script.replies(|reply| {
            if let Reply::Fired { fired } = reply {
                *fired = if *fired == Fired::Already { Fired::New(job) } else { *fired };
            }
        });
    }),
    (Invariant::OneJobPerFire, "two fire times are one", |script| {
        script.calls(|call| {
            if let Call::Fire { at, .. } = call {
                *at = Timestamp::EPOCH;
            }
        });
    }),
    (Invariant::TenantIsolation, "a read shows another tenant's job", |script| {
        let tenant = script.facts(script.foreign).tenant;
        script.calls(|call| {
            if let Call::GetMany { scope, .. } = call {
                *scope = Some(tenant.clone());
            }
        });
    }),
    (Invariant::TenantIsolation, "a cancellation knows another tenant's job", |script| {
        script.replies(|reply| {
            if let Reply::Cancelled { replies, .. } = reply {
                let unknown = replies.iter_mut().filter(|reply| **reply == CancelReply::NotFound);
                unknown.for_each(|reply| *reply = CancelReply::AlreadyTerminal);
            }
        });
    }),
    (Invariant::TenantIsolation, "a count is of everybody's jobs", |script| {
        script.replies(|reply| {
            if let Reply::Counts { counts } = reply {
                counts[0] += 5;
            }
        });
    }),
    (Invariant::TenantIsolation, "the queue of another tenant is counted", |script| {
        script.replies(|reply| {
            if let Reply::QueueCounts { counted } = reply {
                counted
                    .iter_mut()
                    .for_each(|of| of.tenant = hodei_core::Tenant::new("umbrella").expect("a name"));
            }
        });
    }),
    (Invariant::NoSecretShown, "a log has a secret", |script| {
        script.logs(|entry| {
            if let Entry::LogWritten { bytes, .. } = entry {
                *bytes = [b"token=", SECRET.as_bytes()].concat();
            }
        });
    }),
    (Invariant::NoSecretShown, "a file has a secret in hex", |script| {
        script.logs(|entry| {
            if let Entry::Output { bytes, .. } = entry {
                *bytes = SECRET.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
            }
        });
    }),
    (Invariant::NoSecretShown, "an error says a secret", |script| {
        let (call, kind) = (u64::MAX, format!("no such token: {SECRET}"));
        script.entries.push(Entry::Failed { call, kind, unknown: false });
    }),
    (Invariant::RecoveryIdempotent, "a job is another after the store was opened again", |script| {
        let last = script.entries.iter_mut().rev().find_map(|entry| match entry {
            Entry::Held { seen } => Some(seen),
            _ => None,
        });
        last.expect("the script surveys").attempt += 1;
    }),
    (Invariant::RecoveryIdempotent, "the log is another after the store was opened again", |script| {
        let place = script.logged_in(1, script.second, 2);
        script.entries.remove(place);
    }),
    (Invariant::Conservation, "a job is counted that is not there", |script| {
        for entry in &mut script.entries {
            if let Entry::SurveyEnded { counts: Some(counts), .. } = entry {
                counts[0] += 1;
            }
        }
    }),
    (Invariant::Conservation, "a queue is counted as another", |script| {
        for entry in &mut script.entries {
            if let Entry::SurveyEnded { queues: Some(queues), .. } = entry {
                queues.iter_mut().for_each(|of| of.queue = hodei_core::Name::literal("elsewhere"));
            }
        }
    }),
    (Invariant::Conservation, "a row is not what the log says", |script| {
        let job = script.second;
        for entry in &mut script.entries {
            if let Entry::Held { seen } = entry
                && seen.job == job
            {
                (seen.state, seen.cause) = (State::Failed, Cause::Failed);
            }
        }
    }),
];

impl Script {
    fn calls(&mut self, mut edit: impl FnMut(&mut Call)) {
        for entry in &mut self.entries {
            if let Entry::Called { what, .. } = entry {
                edit(what);
            }
        }
    }

    fn logs(&mut self, edit: impl FnMut(&mut Entry)) {
        self.entries.iter_mut().for_each(edit);
    }

    fn replies(&mut self, mut edit: impl FnMut(&mut Reply)) {
        for entry in &mut self.entries {
            if let Entry::Returned { reply, .. } = entry {
                edit(reply);
            }
        }
    }

    fn answers(&mut self, mut edit: impl FnMut(&mut Submitted)) {
        self.replies(|reply| {
            if let Reply::Submitted { replies, .. } = reply {
                replies.iter_mut().for_each(&mut edit);
            }
        });
    }

    fn claims(&mut self, mut edit: impl FnMut(&mut Facts)) {
        self.replies(|reply| {
            if let Reply::Exchanged { claimed, .. } = reply {
                claimed.iter_mut().for_each(|(_, facts)| edit(facts));
            }
        });
    }

    /// Edits what a job was submitted as.
    fn submitted(&mut self, job: JobId, edit: impl Fn(&mut Facts)) {
        self.calls(|call| {
            if let Call::Submit { jobs, .. } = call {
                jobs.iter_mut().filter(|facts| facts.job == job).for_each(&edit);
            }
        });
    }

    fn facts(&self, job: JobId) -> Facts {
        let submitted = self.entries.iter().find_map(|entry| match entry {
            Entry::Called { what: Call::Submit { jobs, .. }, .. } => {
                jobs.iter().find(|facts| facts.job == job).cloned()
            }
            _ => None,
        });
        submitted.expect("the script submits it")
    }

    /// Edits every transition, wherever it stands.
    fn changes(&mut self, mut edit: impl FnMut(&mut Change)) {
        for entry in &mut self.entries {
            if let Entry::Logged { change } = entry {
                edit(change);
            }
        }
        self.replies(|reply| match reply {
            Reply::Submitted { changes, .. }
            | Reply::Exchanged { changes, .. }
            | Reply::Cancelled { changes, .. }
            | Reply::Redriven { changes, .. }
            | Reply::Reaped { changes, .. }
            | Reply::Changes { changes } => changes.iter_mut().for_each(&mut edit),
            _ => {}
        });
    }

    /// Removes a transition, wherever it stands.
    fn without(&mut self, job: JobId, version: u32) {
        let is = |change: &Change| change.job == job && change.version == version;
        self.entries.retain(|entry| !matches!(entry, Entry::Logged { change } if is(change)));
        self.replies(|reply| match reply {
            Reply::Submitted { changes, .. }
            | Reply::Exchanged { changes, .. }
            | Reply::Redriven { changes, .. }
            | Reply::Reaped { changes, .. }
            | Reply::Changes { changes } => changes.retain(|change| !is(change)),
            _ => {}
        });
    }

    fn versions(&self, job: JobId) -> u32 {
        let versions = self.entries.iter().filter_map(|entry| match entry {
            Entry::Logged { change } if change.job == job => Some(change.version),
            _ => None,
        });
        versions.max().expect("the script logs it")
    }

    fn logged(&self, job: JobId, version: u32) -> usize {
        self.logged_in(1, job, version)
    }

    /// Where a survey has a line of the log.
    fn logged_in(&self, survey: usize, job: JobId, version: u32) -> usize {
        let is = |entry: &Entry| matches!(entry, Entry::Logged { change } if change.job == job && change.version == version);
        let places = self.entries.iter().enumerate().filter(|(_, entry)| is(entry)).map(|(place, _)| place);
        places.collect::<Vec<_>>()[survey]
    }
}

#[test]
fn the_script_is_clean() {
    let script = script();
    let report = check(&History::of(script.entries));
    assert!(report.is_clean(), "{report}");
    assert!(report.figures.ordered > 4 && report.figures.runs > 5, "{:?}", report.figures);
}

#[test]
fn every_planted_violation_is_found() {
    for (invariant, what, plant) in PLANTS {
        let mut script = script();
        plant(&mut script);
        let report = check(&History::of(script.entries));
        assert!(report.breaks(*invariant), "{what}: not found as {invariant} in {report}");
    }
}

#[test]
fn every_invariant_has_two_plants() {
    let mut plants: HashMap<Invariant, usize> = HashMap::new();
    for (invariant, ..) in PLANTS {
        *plants.entry(*invariant).or_default() += 1;
    }
    for invariant in Invariant::ALL {
        assert!(
            plants.get(&invariant).is_some_and(|n| *n >= 2),
            "{invariant} has {:?}",
            plants.get(&invariant)
        );
    }
}
