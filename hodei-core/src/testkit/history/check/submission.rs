//! I1 as far as the change log tells, I2, I3 and I15: what was submitted is there, once, and nothing else is.

use std::collections::{HashMap, HashSet};

use super::super::call::{Call, Reply};
use super::super::facts::Facts;
use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::id::JobId;
use crate::job::{Cause, Epoch, Held, State};
use crate::store::{Fired, Submitted};

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    acknowledged_are_logged(book, report);
    answers_tell_apart(book, report);
    keys_are_unique(book, report);
    freed_keys_are_unique(book, report);
    phantoms(book, report);
    fires(book, report);
}

fn acknowledged_are_logged(book: &Book<'_>, report: &mut Report) {
    let (Some(_), Some(survey)) = (book.log(), book.last()) else { return };
    for (id, job) in &book.jobs {
        if job.acknowledged.is_some_and(|at| at < survey.began) && job.logged.is_empty() {
            let text = "was acknowledged and is not in the change log".to_owned();
            report.add(Invariant::NoLostAck, *id, text);
        }
    }
}

/// Holds each answer to a submission to what it was compared with.
fn answers_tell_apart(book: &Book<'_>, report: &mut Report) {
    let mut stored: HashSet<JobId> = HashSet::new();
    for span in &book.spans {
        let (Call::Submit { jobs, atomic }, Some(Reply::Submitted { replies, .. })) =
            (span.call, span.reply())
        else {
            continue;
        };
        if jobs.len() != replies.len() {
            let text = format!("{} submissions got {} answers", jobs.len(), replies.len());
            report.add(Invariant::IdempotentSubmit, None, text);
        }
        for (facts, reply) in jobs.iter().zip(replies) {
            answer(book, facts, *reply, &mut stored, report);
        }
        let new = replies.iter().filter(|reply| matches!(reply, Submitted::New(_))).count();
        if *atomic && new > 0 && replies.iter().any(|reply| reply.stored().is_none()) {
            let text = format!("{new} jobs of an atomic batch were stored though others were not");
            report.add(Invariant::IdempotentSubmit, None, text);
        }
    }
}

fn answer(
    book: &Book<'_>,
    facts: &Facts,
    reply: Submitted,
    stored: &mut HashSet<JobId>,
    report: &mut Report,
) {
    let found = |id: JobId| book.jobs.get(&id).and_then(|job| job.sure_facts());
    match reply {
        Submitted::New(id) => {
            if id != facts.job {
                let text = format!("its submission was stored under the id {id}");
                report.add(Invariant::IdempotentSubmit, facts.job, text);
            }
            if !stored.insert(id) && book.pruned_jobs == Some(0) {
                report.add(Invariant::IdempotentSubmit, id, "was stored twice as new".to_owned());
            }
        }
        Submitted::Existing(id) => {
            if found(id).is_some_and(|old| old.fingerprint != facts.fingerprint) {
                let text = format!("another submission, {}, was taken for it", facts.job);
                report.add(Invariant::IdempotentSubmit, id, text);
            }
        }
        Submitted::Conflict(id) => {
            if found(id).is_some_and(|old| old.fingerprint == facts.fingerprint) {
                let text = format!("the same submission, {}, was told that it conflicts", facts.job);
                report.add(Invariant::IdempotentSubmit, id, text);
            }
        }
        Submitted::Refused(_) => {}
    }
}

fn keys_are_unique(book: &Book<'_>, report: &mut Report) {
    if book.pruned_jobs != Some(0) {
        return;
    }
    let mut holders = HashMap::new();
    for (id, job) in book.jobs.iter().filter(|(_, job)| !job.path.is_empty()) {
        let Some(facts) = job.sure_facts() else { continue };
        let Some(key) = facts.unique.as_deref().filter(|key| Held::of(key) == Held::UntilPruned) else {
            continue;
        };
        if let Some(first) = holders.insert((&facts.tenant, key), id) {
            report.add(Invariant::IdempotentSubmit, *id, format!("has the key {key:?} of job {first}"));
        }
    }
}

/// Keys that a job may leave go from one to the next in the order of the log: times need not tell it, since who waits for a
/// key may have looked at the clock before.
fn freed_keys_are_unique(book: &Book<'_>, report: &mut Report) {
    let mut holders = HashMap::new();
    for change in book.log().unwrap_or_default() {
        let facts = book.jobs.get(&change.job).and_then(|job| job.sure_facts());
        let Some((tenant, key)) = facts.and_then(|facts| Some((&facts.tenant, facts.unique.as_deref()?)))
        else {
            continue;
        };
        let holds = match Held::of(key) {
            Held::UntilPruned => continue,
            Held::WhileOpen => !change.to.is_terminal(),
            Held::UnlessFailed => !matches!(change.to, State::Failed | State::Cancelled),
            // Only those of its changes that come before its first claim: no later one takes the key again.
            Held::WhileWaiting => {
                change.epoch == Epoch::default()
                    && change.cause != Cause::Redriven
                    && matches!(change.to, State::Blocked | State::Pending)
            }
        };
        let held = (tenant, key);
        if !holds {
            // Whoever left it before may have given it to another.
            if holders.get(&held).is_some_and(|(holder, _)| *holder == change.job) {
                holders.remove(&held);
            }
        } else if let Some((first, ended)) = holders.insert(held, (change.job, change.to.is_terminal())) {
            // One that succeeded may have been pruned meanwhile.
            if first != change.job && (!ended || book.pruned_jobs == Some(0)) {
                let text = format!("has the key {key:?}, which job {first} holds");
                report.add(Invariant::IdempotentSubmit, change.job, text);
            }
        }
    }
}

fn phantoms(book: &Book<'_>, report: &mut Report) {
    if !book.knows_submissions {
        return;
    }
    let held = book.last().and_then(|survey| survey.held.as_deref()).unwrap_or_default();
    let held: HashSet<JobId> = held.iter().map(|seen| seen.job).collect();
    let known = book.jobs.iter().filter(|(_, job)| job.submitted).map(|(id, _)| *id);
    let known: HashSet<JobId> = known.collect();
    let moved = book.jobs.iter().filter(|(_, job)| !job.path.is_empty()).map(|(id, _)| *id);
    let mut phantoms: Vec<JobId> =
        moved.chain(held).collect::<HashSet<_>>().difference(&known).copied().collect();
    phantoms.sort_unstable();
    // A firing of unknown outcome may have stored a job whose id nobody was told.
    let fires = book.spans.iter().filter(|span| span.is_unknown() && matches!(span.call, Call::Fire { .. }));
    for id in phantoms.into_iter().skip(fires.count()) {
        report.add(Invariant::NoPhantom, id, "is there although nobody submitted it".to_owned());
    }
}

fn fires(book: &Book<'_>, report: &mut Report) {
    let mut fired = HashMap::new();
    for span in &book.spans {
        let (Call::Fire { tenant, schedule, at, .. }, Some(Reply::Fired { fired: Fired::New(job) })) =
            (span.call, span.reply())
        else {
            continue;
        };
        if let Some(first) = fired.insert((tenant, schedule, at), job) {
            let text =
                format!("schedule {schedule} of {tenant} fired it for {at}, as it had fired job {first}");
            report.add(Invariant::OneJobPerFire, *job, text);
        }
    }
}
