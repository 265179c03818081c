//! A history, indexed: its calls with their replies, the path of each job, the surveys.

use std::collections::{BTreeMap, HashMap};

use super::super::call::{Call, Reply};
use super::super::entry::{Entry, LimitSeen, QueueSeen};
use super::super::facts::{Facts, Seen};
use super::super::report::Figures;
use crate::id::{JobId, Tenant};
use crate::store::{Applied, Change, Fired, Submitted};

/// A call, from the entry that began it to the one that ended it.
#[derive(Debug)]
pub(super) struct Span<'h> {
    /// Where it was begun.
    pub(super) at: usize,
    /// Where it ended; beyond the last entry while it is open.
    pub(super) end: usize,
    pub(super) call: &'h Call,
    pub(super) ending: Ending<'h>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending<'h> {
    /// With this answer.
    Returned(&'h Reply),
    /// It did not happen.
    Failed,
    /// It may have happened.
    Unknown,
}

impl<'h> Span<'h> {
    pub(super) fn reply(&self) -> Option<&'h Reply> {
        match self.ending {
            Ending::Returned(reply) => Some(reply),
            Ending::Failed | Ending::Unknown => None,
        }
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.ending == Ending::Unknown
    }
}

/// What is known of one job.
#[derive(Debug, Default)]
pub(super) struct JobBook<'h> {
    /// The different submissions that may be the stored one.
    candidates: Vec<&'h Facts>,
    /// The submission that is the stored one.
    stored: Option<&'h Facts>,
    /// What the change log of the last survey has of it, in the order of the log.
    pub(super) logged: Vec<&'h Change>,
    /// What replies said of it, with the place of the call in [`Book::spans`].
    pub(super) announced: Vec<(&'h Change, usize)>,
    /// Its transitions by version, each once, out of the log and else out of replies.
    pub(super) path: Vec<&'h Change>,
    /// Whether some submission may have stored it.
    pub(super) submitted: bool,
    /// Where its first acknowledgement is noted.
    pub(super) acknowledged: Option<usize>,
}

impl<'h> JobBook<'h> {
    /// The facts of the stored submission, as far as they are known.
    pub(super) fn facts(&self) -> Option<&'h Facts> {
        let only = || self.candidates.first().filter(|_| self.candidates.len() == 1).copied();
        self.stored.or_else(only)
    }

    /// The facts that are beyond doubt.
    pub(super) fn sure_facts(&self) -> Option<&'h Facts> {
        self.stored
    }

    fn perhaps(&mut self, facts: &'h Facts) {
        self.submitted = true;
        if self.candidates.iter().all(|known| known.fingerprint != facts.fingerprint) {
            self.candidates.push(facts);
        }
    }

    fn surely(&mut self, facts: &'h Facts) {
        self.submitted = true;
        self.stored.get_or_insert(facts);
    }

    /// What a claim showed settles which of several submissions it is. The submission says more: a record does not
    /// know the time to run.
    fn shown(&mut self, facts: &'h Facts) {
        let mut same = self.candidates.iter().filter(|known| known.fingerprint == facts.fingerprint);
        self.stored = self.stored.or_else(|| same.next().copied()).or(Some(facts));
    }

    fn acknowledge(&mut self, at: usize) {
        self.submitted = true;
        self.acknowledged = Some(self.acknowledged.map_or(at, |first| first.min(at)));
    }

    /// Its transition to a version.
    pub(super) fn change(&self, version: u32) -> Option<&'h Change> {
        let place = self.path.binary_search_by_key(&version, |change| change.version);
        place.ok().map(|place| self.path[place])
    }
}

/// A whole reading of the store.
#[derive(Debug, Default)]
pub(super) struct SurveyBook<'h> {
    pub(super) began: usize,
    pub(super) ended: usize,
    pub(super) changes: Vec<&'h Change>,
    /// Every job that was held; nothing where only the log was read.
    pub(super) held: Option<Vec<&'h Seen>>,
    pub(super) counts: Option<&'h [u64]>,
    pub(super) queues: Option<&'h [QueueSeen]>,
    pub(super) limits: &'h [LimitSeen],
    /// Whether no call that moves jobs was under way.
    pub(super) quiet: bool,
}

/// Something to look at when a history is gone through in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The call of this place in [`Book::spans`] is begun.
    Begun(usize),
    /// It is answered.
    Ended(usize),
    /// The survey of this place in [`Book::surveys`] is made.
    Surveyed(usize),
    /// A submission is acknowledged to somebody else.
    Acknowledged(JobId),
    /// The process has died.
    Restarted,
}

/// A history, indexed.
#[derive(Debug, Default)]
pub(super) struct Book<'h> {
    pub(super) entries: &'h [Entry],
    /// The calls in the order of their beginnings.
    pub(super) spans: Vec<Span<'h>>,
    /// By id, so that reports of one history are the same each time.
    pub(super) jobs: BTreeMap<JobId, JobBook<'h>>,
    /// Which call announced which version of a job.
    makers: HashMap<(JobId, u32), usize>,
    /// The complete surveys in their order.
    pub(super) surveys: Vec<SurveyBook<'h>>,
    /// Whether submissions are recorded, so that a job nobody submitted can be told.
    pub(super) knows_submissions: bool,
    /// How many jobs were pruned; nothing where that is not known.
    pub(super) pruned_jobs: Option<u64>,
    /// Whether changes were or may have been pruned.
    pruned_changes: bool,
}

impl<'h> Book<'h> {
    /// Indexes a history.
    pub(super) fn of(entries: &'h [Entry]) -> Self {
        let mut book = Self { entries, pruned_jobs: Some(0), ..Self::default() };
        book.read_calls();
        book.read_surveys();
        for at in 0..book.spans.len() {
            book.read_reply(at);
        }
        book.read_claims();
        for (at, entry) in entries.iter().enumerate() {
            match entry {
                Entry::Attempted { job } => {
                    book.knows_submissions = true;
                    book.job_mut(job.job).perhaps(job);
                }
                Entry::Acknowledged { job } => book.job_mut(*job).acknowledge(at),
                _ => {}
            }
        }
        book.walk_paths();
        book
    }

    /// The change log as the last survey read it, where it is whole.
    pub(super) fn log(&self) -> Option<&[&'h Change]> {
        self.last().filter(|_| !self.pruned_changes).map(|survey| survey.changes.as_slice())
    }

    /// The last complete survey.
    pub(super) fn last(&self) -> Option<&SurveyBook<'h>> {
        self.surveys.last()
    }

    /// Whether a call that moves jobs, and of which nobody knows whether it did, is in the history.
    pub(super) fn is_in_doubt(&self) -> bool {
        let unavailable = |reply: &Reply| match reply {
            Reply::Exchanged { applied, partial, .. } => *partial || applied.contains(&Applied::Unavailable),
            Reply::Reaped { partial, .. } => *partial,
            _ => false,
        };
        self.spans
            .iter()
            .any(|span| span.is_unknown() && span.call.moves_jobs() || span.reply().is_some_and(unavailable))
    }

    /// Whether a job that was not found may have been pruned.
    pub(super) fn may_be_pruned(&self, job: JobId) -> bool {
        let ended = |job: &JobBook<'_>| job.path.last().is_some_and(|last| last.to.is_terminal());
        self.pruned_jobs != Some(0) && self.jobs.get(&job).is_some_and(ended)
    }

    pub(super) fn facts(&self, job: JobId) -> Option<&'h Facts> {
        self.jobs.get(&job).and_then(JobBook::facts)
    }

    /// Whose a job is.
    pub(super) fn tenant(&self, job: JobId) -> Option<&'h Tenant> {
        let job = self.jobs.get(&job)?;
        job.path.first().map(|change| &change.tenant).or_else(|| job.facts().map(|facts| &facts.tenant))
    }

    /// The call that announced a transition.
    pub(super) fn made_by(&self, change: &Change) -> Option<&Span<'h>> {
        self.makers.get(&(change.job, change.version)).map(|span| &self.spans[*span])
    }

    /// The moments of the history with their places in it.
    pub(super) fn moments(&self) -> Vec<(usize, Moment)> {
        let begun = self.spans.iter().enumerate().map(|(n, span)| (span.at, Moment::Begun(n)));
        let answered = self.spans.iter().enumerate().filter(|(_, span)| span.reply().is_some());
        let ended = answered.map(|(n, span)| (span.end, Moment::Ended(n)));
        let surveys = self.surveys.iter().enumerate().map(|(n, survey)| (survey.began, Moment::Surveyed(n)));
        let others = self.entries.iter().enumerate().filter_map(|(at, entry)| match entry {
            Entry::Acknowledged { job } => Some((at, Moment::Acknowledged(*job))),
            Entry::Restarted => Some((at, Moment::Restarted)),
            _ => None,
        });
        let mut moments: Vec<_> = begun.chain(ended).chain(surveys).chain(others).collect();
        moments.sort_unstable_by_key(|(at, _)| *at);
        moments
    }

    pub(super) fn figures(&self) -> Figures {
        let count = |is: fn(&Entry) -> bool| self.entries.iter().filter(|entry| is(entry)).count() as u64;
        Figures {
            entries: self.entries.len() as u64,
            calls: self.spans.len() as u64,
            unknown: self.spans.iter().filter(|span| span.is_unknown()).count() as u64,
            jobs: self.jobs.values().filter(|job| !job.path.is_empty()).count() as u64,
            acknowledged: self.jobs.values().filter(|job| job.acknowledged.is_some()).count() as u64,
            transitions: self.jobs.values().map(|job| job.path.len() as u64).sum(),
            runs: count(|entry| matches!(entry, Entry::RunBegan { .. })),
            ..Figures::default()
        }
    }

    fn job_mut(&mut self, job: JobId) -> &mut JobBook<'h> {
        self.jobs.entry(job).or_default()
    }

    fn read_calls(&mut self) {
        let mut open: HashMap<u64, usize> = HashMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            let (call, ending) = match entry {
                Entry::Called { call, what } => {
                    open.insert(*call, self.spans.len());
                    let span = Span { at, end: usize::MAX, call: what, ending: Ending::Unknown };
                    self.spans.push(span);
                    continue;
                }
                Entry::Restarted => {
                    // What the dead process had under way cannot happen any more.
                    open.drain().for_each(|(_, span)| self.spans[span].end = at);
                    continue;
                }
                Entry::Returned { call, reply } => (call, Ending::Returned(reply)),
                Entry::Failed { call, unknown: false, .. } => (call, Ending::Failed),
                Entry::Failed { call, unknown: true, .. } => (call, Ending::Unknown),
                _ => continue,
            };
            if let Some(span) = open.remove(call) {
                (self.spans[span].end, self.spans[span].ending) = (at, ending);
            }
        }
    }

    fn read_surveys(&mut self) {
        let mut reading = SurveyBook::default();
        let mut seen = Vec::new();
        let (mut begun, mut busy_until) = (0, 0);
        for (at, entry) in self.entries.iter().enumerate() {
            match entry {
                Entry::SurveyBegan => {
                    reading = SurveyBook { began: at, ..SurveyBook::default() };
                    seen.clear();
                }
                Entry::Logged { change } => reading.changes.push(change),
                Entry::Held { seen: job } => seen.push(job),
                Entry::SurveyEnded { held, counts, queues, limits } => {
                    let mut survey = std::mem::take(&mut reading);
                    survey.ended = at;
                    survey.held = held.map(|_| std::mem::take(&mut seen));
                    survey.counts = counts.as_deref();
                    survey.queues = queues.as_deref();
                    survey.limits = limits;
                    while let Some(span) = self.spans.get(begun).filter(|span| span.at < at) {
                        begun += 1;
                        if span.call.moves_jobs() {
                            busy_until = busy_until.max(span.end);
                        }
                    }
                    survey.quiet = busy_until < survey.began;
                    self.surveys.push(survey);
                }
                _ => {}
            }
        }
    }

    fn read_reply(&mut self, at: usize) {
        let Span { call, ending, end, .. } = self.spans[at];
        if let Ending::Returned(reply) = ending {
            for change in reply.committed() {
                self.job_mut(change.job).announced.push((change, at));
                self.makers.entry((change.job, change.version)).or_insert(at);
            }
        }
        match (call, ending) {
            (Call::Submit { jobs, .. }, ending) => {
                self.knows_submissions = true;
                self.read_submission(jobs, ending, end);
            }
            (Call::Exchange { steps, .. }, Ending::Returned(Reply::Exchanged { applied, .. })) => {
                for (step, applied) in steps.iter().zip(applied) {
                    if matches!(applied, Applied::Done | Applied::AlreadyApplied | Applied::Unavailable) {
                        step.spawn.iter().for_each(|facts| self.job_mut(facts.job).perhaps(facts));
                    }
                }
            }
            (Call::Exchange { steps, .. }, Ending::Unknown) => {
                let spawned = steps.iter().flat_map(|step| &step.spawn);
                spawned.for_each(|facts| self.job_mut(facts.job).perhaps(facts));
            }
            (Call::Fire { .. }, Ending::Returned(Reply::Fired { fired: Fired::New(job) })) => {
                self.job_mut(*job).acknowledge(end);
            }
            (Call::Prune { keep, .. }, Ending::Returned(Reply::Pruned { jobs, changes, partial, .. })) => {
                self.pruned_jobs = self.pruned_jobs.map(|pruned| pruned + jobs);
                self.pruned_changes |= *changes > 0;
                if *partial {
                    self.may_have_pruned(*keep);
                }
            }
            (Call::Prune { keep, .. }, Ending::Unknown) => self.may_have_pruned(*keep),
            _ => {}
        }
    }

    fn may_have_pruned(&mut self, keep: u64) {
        self.pruned_jobs = None;
        // A log that is shorter than what was to be kept was never cut.
        let logged = self.surveys.last().map_or(0, |survey| survey.changes.len() as u64);
        self.pruned_changes |= logged >= keep;
    }

    fn read_submission(&mut self, jobs: &'h [Facts], ending: Ending<'h>, end: usize) {
        match ending {
            Ending::Returned(Reply::Submitted { replies, .. }) => {
                for (facts, reply) in jobs.iter().zip(replies) {
                    if let Some(stored) = reply.stored() {
                        self.job_mut(stored).acknowledge(end);
                    }
                    if let Submitted::New(job) = reply {
                        self.job_mut(*job).surely(facts);
                    }
                }
            }
            Ending::Unknown => jobs.iter().for_each(|facts| self.job_mut(facts.job).perhaps(facts)),
            Ending::Returned(_) | Ending::Failed => {}
        }
    }

    /// Claims show what was stored; read last, since they settle what submissions left in doubt.
    fn read_claims(&mut self) {
        for at in 0..self.spans.len() {
            if let Some(Reply::Exchanged { claimed, .. }) = self.spans[at].reply() {
                claimed.iter().for_each(|(seen, facts)| self.job_mut(seen.job).shown(facts));
            }
        }
    }

    fn walk_paths(&mut self) {
        let log = self.surveys.last().map(|survey| survey.changes.clone());
        for change in log.unwrap_or_default() {
            self.job_mut(change.job).logged.push(change);
        }
        for job in self.jobs.values_mut() {
            job.path =
                job.logged.iter().copied().chain(job.announced.iter().map(|(change, _)| *change)).collect();
            // Stable: of two with one version the log's comes first and stays.
            job.path.sort_by_key(|change| change.version);
            job.path.dedup_by_key(|change| change.version);
        }
    }
}
