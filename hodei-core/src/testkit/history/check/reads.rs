//! I1, I4 and I19 in what was read: nothing that was told is gone later, and opening the store again changes nothing.

use std::collections::HashMap;

use super::super::call::{Call, Reply};
use super::super::facts::Seen;
use super::super::report::{Invariant, Report};
use super::book::{Book, Moment, Span, SurveyBook};
use crate::id::{JobId, Tenant};
use crate::store::{Change, Fired};

/// The least that a later read must show.
#[derive(Clone, Copy, Default)]
struct Told {
    version: u32,
    /// Where it was told.
    at: usize,
}

/// The history as it is gone through.
#[derive(Default)]
struct Sweep {
    told: HashMap<JobId, Told>,
    /// What had been told of the jobs of a read when it was begun.
    floors: HashMap<usize, Vec<Told>>,
    restarted: usize,
}

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let mut sweep = Sweep::default();
    for (at, moment) in book.moments() {
        match moment {
            Moment::Begun(n) => sweep.begun(n, book.spans[n].call),
            Moment::Ended(n) => sweep.answered(book, n, report),
            Moment::Acknowledged(job) => sweep.tell(job, 1, at),
            Moment::Restarted => sweep.restarted = at,
            Moment::Surveyed(n) => sweep.surveyed(book, &book.surveys[n], report),
        }
    }
    logs_grow(book, report);
    recoveries(book, report);
}

impl Sweep {
    fn tell(&mut self, job: JobId, version: u32, at: usize) {
        let told = self.told.entry(job).or_default();
        if version > told.version {
            *told = Told { version, at };
        }
    }

    fn begun(&mut self, n: usize, call: &Call) {
        if let Call::GetMany { jobs, latest: true, .. } = call {
            let floors = jobs.iter().map(|job| self.told.get(job).copied().unwrap_or_default());
            self.floors.insert(n, floors.collect());
        }
    }

    fn answered(&mut self, book: &Book<'_>, n: usize, report: &mut Report) {
        let span = &book.spans[n];
        let Some(reply) = span.reply() else { return };
        for change in reply.committed() {
            self.tell(change.job, change.version, span.end);
        }
        match reply {
            Reply::Submitted { replies, .. } => {
                let stored = replies.iter().filter_map(|reply| reply.stored());
                stored.for_each(|job| self.tell(job, 1, span.end));
            }
            Reply::Fired { fired: Fired::New(job) } => self.tell(*job, 1, span.end),
            Reply::Jobs { jobs } => {
                self.read(book, n, jobs, report);
                for seen in jobs.iter().flatten() {
                    as_made(book, seen, span.end, report);
                    self.tell(seen.job, seen.version, span.end);
                }
            }
            Reply::Listed { jobs } => jobs.iter().for_each(|seen| as_made(book, seen, span.end, report)),
            Reply::Changes { changes } => {
                changes.iter().for_each(|change| self.tell(change.job, change.version, span.end));
            }
            _ => {}
        }
    }

    /// Holds a read by id to what had been told before it was begun.
    fn read(&mut self, book: &Book<'_>, n: usize, shown: &[Option<Seen>], report: &mut Report) {
        let span = &book.spans[n];
        let (Call::GetMany { jobs, scope, .. }, Some(floors)) = (span.call, self.floors.remove(&n)) else {
            return;
        };
        for ((job, shown), told) in jobs.iter().zip(shown).zip(floors) {
            match shown {
                Some(seen) if seen.job != *job => {
                    report.add(Invariant::LegalPath, *job, format!("was asked for, and {} shown", seen.job));
                }
                Some(seen) => self.no_older(seen.job, seen.version, told, report),
                None if told.version > 0
                    && covers(book, scope.as_ref(), *job)
                    && !book.may_be_pruned(*job) =>
                {
                    let text = format!("was told of with version {} and is not found", told.version);
                    report.add(Invariant::NoLostAck, *job, text);
                }
                None => {}
            }
        }
    }

    fn no_older(&self, job: JobId, version: u32, told: Told, report: &mut Report) {
        if version < told.version {
            let text = format!("is shown with version {version} after {}", told.version);
            let lost =
                if told.at < self.restarted { Invariant::RecoveryIdempotent } else { Invariant::LegalPath };
            report.add(lost, job, text);
        }
    }

    fn surveyed(&mut self, book: &Book<'_>, survey: &SurveyBook<'_>, report: &mut Report) {
        let held = survey.held.as_ref().map(|held| held.iter().map(|seen| (seen.job, seen.version)));
        let shown: HashMap<JobId, u32> = match held {
            Some(held) => held.collect(),
            None => survey.changes.iter().map(|change| (change.job, change.version)).collect(),
        };
        let mut told: Vec<_> = self.told.iter().map(|(job, told)| (*job, *told)).collect();
        told.sort_unstable_by_key(|(job, _)| *job);
        let mut gone = 0;
        for (job, told) in told {
            match shown.get(&job) {
                Some(version) => self.no_older(job, *version, told, report),
                None if book.may_be_pruned(job) => gone += 1,
                // The log of a history of changes alone is judged with the submissions.
                None if survey.held.is_some() => {
                    let text = format!("was told of with version {} and is not held", told.version);
                    report.add(Invariant::NoLostAck, job, text);
                }
                None => {}
            }
        }
        if survey.held.is_some() && book.pruned_jobs.is_some_and(|pruned| gone > pruned) {
            let text = format!("{gone} ended jobs are not held, {:?} were pruned", book.pruned_jobs);
            report.add(Invariant::NoLostAck, None, text);
        }
        for seen in survey.held.iter().flatten() {
            as_made(book, seen, survey.began, report);
            self.tell(seen.job, seen.version, survey.began);
        }
    }
}

/// Whether a job is in the scope of a read, as far as that is known.
fn covers(book: &Book<'_>, scope: Option<&Tenant>, job: JobId) -> bool {
    scope.is_none() || scope == book.tenant(job)
}

/// A read shows a job as the transition to that version left it.
fn as_made(book: &Book<'_>, seen: &Seen, at: usize, report: &mut Report) {
    let made = book.jobs.get(&seen.job).and_then(|job| job.change(seen.version));
    let later = book.log().is_some() && book.last().is_some_and(|survey| survey.began >= at);
    if made.map_or(later, |change| !seen.is_after(change)) {
        let text = format!("is shown as {seen:?}, made was {made:?}");
        report.add(Invariant::LegalPath, seen.job, text);
    }
}

/// Each survey's log is the beginning of the last one's.
fn logs_grow(book: &Book<'_>, report: &mut Report) {
    let Some(last) = book.log() else { return };
    for survey in &book.surveys {
        let differs = |(old, new): (&&Change, &&Change)| old != new;
        let differs = survey.changes.iter().zip(last).position(differs);
        let place = differs.or_else(|| (survey.changes.len() > last.len()).then_some(last.len()));
        if let Some(place) = place {
            let text = format!("line {place} of the change log was read otherwise before");
            report.add(Invariant::RecoveryIdempotent, survey.changes[place].job, text);
        }
    }
}

/// Between two surveys with nothing but restarts in between, nothing changes.
fn recoveries(book: &Book<'_>, report: &mut Report) {
    for pair in book.surveys.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let first = book.spans.partition_point(|span| span.at < before.began);
        let mut between = book.spans[first..].iter().take_while(|span| span.at < after.ended);
        let moved = between.any(|span: &Span<'_>| span.call.moves_jobs());
        if moved || !before.quiet || !after.quiet {
            continue;
        }
        if before.held.is_some() && after.held.is_some() && before.held != after.held {
            let (old, new) = (before.held.iter().flatten(), after.held.iter().flatten());
            let other = old.clone().zip(new.clone()).find(|(old, new)| old != new).map(|(old, _)| old.job);
            let text = format!("the {} jobs held before are not the {} after", old.count(), new.count());
            report.add(Invariant::RecoveryIdempotent, other, text);
        }
        if before.changes.len() != after.changes.len() && book.log().is_some() {
            let text = format!("{} changes became {}", before.changes.len(), after.changes.len());
            report.add(Invariant::RecoveryIdempotent, None, text);
        }
        if before.counts.is_some() && after.counts.is_some() && before.counts != after.counts {
            let text = format!("the counts {:?} became {:?}", before.counts, after.counts);
            report.add(Invariant::RecoveryIdempotent, None, text);
        }
        if before.queues.is_some() && after.queues.is_some() && before.queues != after.queues {
            let text = format!("the counts of queues {:?} became {:?}", before.queues, after.queues);
            report.add(Invariant::RecoveryIdempotent, None, text);
        }
    }
}
