//! I4, I5 and I6 in the answers of exchanges: what is said is what was committed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::call::{Call, Reply, Step, Want};
use super::super::facts::{Facts, Seen};
use super::super::report::{Invariant, Report};
use super::book::{Book, JobBook};
use super::path::is_report;
use crate::id::JobId;
use crate::job::{Cause, Epoch};
use crate::store::{Applied, Change};

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let mut claims = HashSet::new();
    for span in &book.spans {
        let (
            Call::Exchange { steps, wants, .. },
            Some(Reply::Exchanged { applied, claimed, owner_lost, changes, .. }),
        ) = (span.call, span.reply())
        else {
            continue;
        };
        if steps.len() != applied.len() {
            let text = format!("{} transitions got {} answers", steps.len(), applied.len());
            report.add(Invariant::LegalPath, None, text);
        }
        applications(book, steps, applied, changes, report);
        granted(book, claimed, changes, &mut claims, report);
        wanted(wants, claimed, report);
        if *owner_lost && !claimed.is_empty() {
            let text = "an owner was told that it is lost and given jobs".to_owned();
            report.add(Invariant::Fencing, claimed[0].0.job, text);
        }
    }
}

/// Holds each answer to a transition to the changes beside it.
fn applications(
    book: &Book<'_>,
    steps: &[Step],
    applied: &[Applied],
    changes: &[Change],
    report: &mut Report,
) {
    let mut made: BTreeMap<JobId, Vec<&Change>> = BTreeMap::new();
    for change in changes.iter().filter(|change| is_answered(change.cause)) {
        made.entry(change.job).or_default().push(change);
    }
    for (step, applied) in steps.iter().zip(applied) {
        let known = book.jobs.get(&step.job);
        match applied {
            Applied::Done => done(step, made.entry(step.job).or_default(), report),
            Applied::AlreadyApplied => {
                if book.log().is_some() && !known.is_some_and(|job| was_made(job, step)) {
                    let text =
                        format!("{:?} under epoch {} counts as made and was not", step.cause, step.epoch);
                    report.add(Invariant::LegalPath, step.job, text);
                }
            }
            Applied::LeaseLost { held, current } => {
                lease_lost(book, step, (*held, *current), report);
            }
            Applied::Illegal | Applied::NotFound | Applied::Unavailable => {}
        }
    }
    for change in made.into_values().flatten() {
        let text = format!("version {}, {:?}, was made and not answered so", change.version, change.cause);
        report.add(Invariant::Fencing, change.job, text);
    }
}

/// A transition that was answered as done has its change, under its epoch.
fn done(step: &Step, made: &mut Vec<&Change>, report: &mut Report) {
    let place = made.iter().position(|change| may_make(step.cause, change.cause));
    match place.map(|place| made.remove(place)) {
        None => {
            let text =
                format!("{:?} under epoch {} counts as done and changed nothing", step.cause, step.epoch);
            report.add(Invariant::LegalPath, step.job, text);
        }
        Some(change) if change.epoch != step.epoch => {
            let text = format!("{:?} under epoch {} changed epoch {}", step.cause, step.epoch, change.epoch);
            report.add(Invariant::Fencing, step.job, text);
        }
        Some(_) => {}
    }
}

/// Whether the path of a job has what a transition says. A start counts as made once its run has ended.
fn was_made(job: &JobBook<'_>, step: &Step) -> bool {
    let first = job.path.partition_point(|change| change.epoch < step.epoch);
    let under = job.path[first..].iter().take_while(|change| change.epoch == step.epoch);
    let mut causes = under.map(|change| change.cause);
    let ended_run = |cause| cause == Cause::Cancelled || (is_report(cause) && cause != Cause::Returned);
    causes.any(|cause| may_make(step.cause, cause) || (step.cause == Cause::Started && ended_run(cause)))
}

/// Whether a report of one cause may make a transition of another: a job that somebody asked to end goes nowhere else,
/// and one loss is the last.
const fn may_make(told: Cause, made: Cause) -> bool {
    let back = matches!(told, Cause::Retried | Cause::Snoozed | Cause::Preempted | Cause::Lost);
    told as u8 == made as u8
        || (back && matches!(made, Cause::Cancelled))
        || (matches!(told, Cause::Lost) && matches!(made, Cause::LostTooOften))
}

/// Whether an exchange makes such a transition only when a report asks for it.
const fn is_answered(cause: Cause) -> bool {
    is_report(cause) || matches!(cause, Cause::Cancelled | Cause::Lost | Cause::LostTooOften)
}

/// Whoever is told that its lease is lost had lost it.
fn lease_lost(book: &Book<'_>, step: &Step, (held, current): (Epoch, Epoch), report: &mut Report) {
    let Some(job) = book.jobs.get(&step.job).filter(|_| book.log().is_some()) else { return };
    let under = |epoch: Epoch| job.path.iter().filter(move |change| change.epoch == epoch);
    let wrong = if held != step.epoch {
        true
    } else if held == current {
        !under(current).any(|change| !change.to.is_leased())
    } else {
        under(current).next().is_none()
            || (current < held && under(held).any(|change| change.cause == Cause::Claimed))
    };
    if wrong {
        let text = format!(
            "{:?} under epoch {} was answered with a lost lease, held {held}, current {current}",
            step.cause, step.epoch
        );
        report.add(Invariant::Fencing, step.job, text);
    }
}

/// Each claim is new, committed, and of the job that was submitted.
fn granted(
    book: &Book<'_>,
    claimed: &[(Seen, Facts)],
    changes: &[Change],
    claims: &mut HashSet<(JobId, Epoch)>,
    report: &mut Report,
) {
    let is_claim = |change: &&Change| change.cause == Cause::Claimed;
    let mut committed: BTreeSet<_> =
        changes.iter().filter(is_claim).map(|change| (change.job, change.epoch)).collect();
    for (seen, facts) in claimed {
        if !claims.insert((seen.job, seen.epoch)) {
            let text = format!("epoch {} was given to two claims", seen.epoch);
            report.add(Invariant::EpochMonotone, seen.job, text);
        }
        if !committed.remove(&(seen.job, seen.epoch)) {
            let text = format!("was handed out under epoch {} without a claim", seen.epoch);
            report.add(Invariant::LegalPath, seen.job, text);
        }
        let stored = book.jobs.get(&seen.job).and_then(JobBook::sure_facts);
        if stored.is_some_and(|stored| stored.fingerprint != facts.fingerprint) {
            report.add(Invariant::NoLostAck, seen.job, "came back as another job".to_owned());
        }
    }
    for (job, epoch) in committed {
        report.add(Invariant::LegalPath, job, format!("was claimed under epoch {epoch} and not handed out"));
    }
}

/// Nobody gets what was not asked for.
fn wanted(wants: &[Want], claimed: &[(Seen, Facts)], report: &mut Report) {
    let mut lanes: BTreeMap<_, (u64, Vec<&Want>)> = BTreeMap::new();
    for (_, facts) in claimed {
        lanes.entry(facts.lane()).or_default().0 += 1;
    }
    for (lane, (_, asked)) in &mut lanes {
        asked.extend(wants.iter().filter(|want| want.is_of(lane)));
    }
    for (lane, (got, asked)) in &lanes {
        let most: u64 = asked.iter().map(|want| u64::from(want.n)).sum();
        if *got > most {
            let text = format!(
                "a claim got {got} jobs of queue {} of {}, asked for {most}",
                lane.queue, lane.tenant
            );
            report.add(Invariant::QueueOrder, None, text);
        }
    }
    for (seen, facts) in claimed {
        let asked = lanes.get(&facts.lane()).map(|(_, asked)| asked).filter(|asked| !asked.is_empty());
        if asked.is_some_and(|asked| !asked.iter().any(|want| want.covers(facts.priority))) {
            report.add(Invariant::QueueOrder, seen.job, "was claimed at a level not asked for".to_owned());
        }
    }
}
