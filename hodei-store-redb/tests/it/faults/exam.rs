//! Holds a store on damaged bytes to what it knew before: right, or an error that says so.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;
use hodei_core::job::{Job, JobSummary, Priority, State};
use hodei_core::store::{
    Applied, Claimed, Consistency, Coordination as _, Exchange, JobStore as _, Lane, LimitUse, Pick,
    Policies as _, Query, Scope, Served, Transition,
};
use hodei_core::{Error, ErrorKind, JobId, OwnerId, Result};
use hodei_store_redb::RedbStore;

use crate::env::{Everything, TTL, done};

/// Which errors tell of damage.
pub(crate) const TOLD: [ErrorKind; 3] = [ErrorKind::Corrupt, ErrorKind::Io, ErrorKind::SchemaTooNew];

/// Asserts that an error tells of damage.
pub(crate) fn tells(error: &Error) {
    assert!(TOLD.contains(&error.kind()), "{error:?}");
}

/// What was found out of a damaged file that opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Errors that told of it.
    pub(crate) told: usize,
    /// Things that were there before and are not to be seen, without an error.
    pub(crate) hidden: usize,
}

/// Asks a store for everything.
pub(crate) struct Exam<'e> {
    store: &'e RedbStore,
    before: &'e Everything,
    jobs: BTreeMap<JobId, &'e Job>,
    found: Found,
}

impl<'e> Exam<'e> {
    /// Reads everything, then claims and settles, then reads the jobs again.
    pub(crate) async fn hold(store: &'e RedbStore, before: &'e Everything) -> Found {
        let jobs = before.jobs.iter().map(|job| (job.id, job)).collect();
        let mut exam = Self { store, before, jobs, found: Found::default() };
        exam.read_lists().await;
        exam.read_jobs(&BTreeSet::new()).await;
        exam.read_policies().await;
        exam.read_changes().await;
        let moved = exam.claim_and_settle().await;
        exam.read_jobs(&moved).await;
        let contradictions = store.verify_indexes().await;
        if let Some(wrong) = exam.noted(contradictions) {
            exam.found.told += usize::from(!wrong.is_empty());
        }
        exam.found
    }

    /// Takes what was answered; an error must tell of damage.
    fn noted<T>(&mut self, answer: Result<T>) -> Option<T> {
        answer.inspect_err(tells).inspect_err(|_| self.found.told += 1).ok()
    }

    /// Counts what is missing of what was there; there may be nothing that was not.
    fn part<T: PartialEq + std::fmt::Debug>(&mut self, found: &[T], whole: &[T]) {
        let mut rest = whole.iter();
        for one in found {
            assert!(rest.any(|known| known == one), "{one:?} was not there, or not in this place");
        }
        self.found.hidden += whole.len() - found.len();
    }

    async fn read_lists(&mut self) {
        let query = Query::new().oldest_first().limit(7);
        let listed: Result<Vec<Vec<JobSummary>>> = self.store.stream(&Scope::All, query).try_collect().await;
        if let Some(listed) = self.noted(listed) {
            let whole: Vec<JobSummary> = self.before.jobs.iter().map(Job::summary).collect();
            self.part(&listed.concat(), &whole);
        }
        let counts = self.store.counts(&Scope::All).await;
        if let Some(counts) = self.noted(counts) {
            // A row of counts may be hidden as any other.
            self.found.hidden += usize::from(counts != self.before.counts);
        }
        let lanes = self.store.lanes(&Served::default()).await;
        if let Some(mut lanes) = self.noted(lanes) {
            lanes.heads.sort_by(|a, b| a.lane.cmp(&b.lane));
            for head in &lanes.heads {
                // Where what is leased is hidden, a limit seems free, and its lane shows.
                let known = self.before.jobs.iter().find(|job| Lane::of(job) == head.lane);
                let known = known.unwrap_or_else(|| panic!("{head:?} is the lane of no job"));
                assert_eq!(*head.request, known.spec.request());
                self.found.hidden += usize::from(!self.before.lanes.contains(head));
            }
            self.found.hidden += usize::from(lanes.heads.len() != self.before.lanes.len());
        }
    }

    /// Reads all jobs, each by itself where that is told to be damaged; those that moved are others by right.
    async fn read_jobs(&mut self, moved: &BTreeSet<JobId>) {
        let jobs: Vec<&Job> = self.before.jobs.iter().filter(|job| !moved.contains(&job.id)).collect();
        for some in jobs.chunks(30) {
            if !self.read_some(some).await {
                for job in some {
                    self.read_some(&[job]).await;
                }
            }
        }
    }

    /// Reads some jobs with their outputs, and says whether they could be read.
    async fn read_some(&mut self, jobs: &[&Job]) -> bool {
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let read = self.store.get_many(&Scope::All, ids.clone(), Consistency::Latest).await;
        let outputs = self.store.outputs(&Scope::All, ids).await;
        let (read, outputs) = (self.noted(read), self.noted(outputs));
        for (found, job) in read.iter().flatten().zip(jobs) {
            assert!(found.as_ref().is_none_or(|found| found == *job), "{found:?} is not {job:?}");
            self.found.hidden += usize::from(found.is_none());
        }
        for (found, job) in outputs.iter().flatten().zip(jobs) {
            assert!(found.is_none() || found.as_ref() == job.output(), "{found:?} of {job:?}");
            self.found.hidden += usize::from(found.is_none() && job.output().is_some());
        }
        read.is_some() && outputs.is_some()
    }

    async fn read_policies(&mut self) {
        let (store, before) = (self.store, self.before);
        if let Some(queues) = self.noted(store.queues(&Scope::All).await) {
            self.part(&queues, &before.queues);
        }
        if let Some(limits) = self.noted(store.limits(&Scope::All).await) {
            let limit = |of: &LimitUse| of.limit.clone();
            let (found, known): (Vec<_>, Vec<_>) =
                (limits.iter().map(limit).collect(), before.limits.iter().map(limit).collect());
            self.part(&found, &known);
            // What is in use is counted from rows that may be hidden.
            self.found.hidden += usize::from(limits != before.limits);
        }
        if let Some(schedules) = self.noted(store.schedules(&Scope::All).await) {
            self.part(&schedules, &before.schedules);
        }
    }

    async fn read_changes(&mut self) {
        let (mut changes, mut cursor) = (Vec::new(), None);
        // A page more than there were pages: a log without end would be no answer.
        for _ in 0..=self.before.changes.len() / 10 + 1 {
            let page = self.store.changes(&Scope::All, cursor, 10).await;
            let Some(page) = self.noted(page) else { return };
            cursor = Some(page.next);
            if page.changes.is_empty() {
                break;
            }
            changes.extend(page.changes);
        }
        self.part(&changes, &self.before.changes.clone());
    }

    /// Claims whatever there is and ends it; returns what may have moved.
    async fn claim_and_settle(&mut self) -> BTreeSet<JobId> {
        // The end of a run moves its children, which are blocked.
        let may_move =
            self.before.jobs.iter().filter(|job| matches!(job.state, State::Pending | State::Blocked));
        let moved: BTreeSet<JobId> = may_move.map(|job| job.id).collect();
        let owner = self.store.register(&OwnerId::new("examiner").expect("a name"), TTL).await;
        let Some(owner) = self.noted(owner) else { return moved };
        let lanes: BTreeSet<Lane> = self.before.jobs.iter().map(Lane::of).collect();
        let picks = lanes
            .into_iter()
            .map(|lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: 9 })
            .collect();
        let exchange = Exchange { owner: owner.clone(), transitions: Vec::new(), picks };
        let Some(claimed) = self.noted(self.store.exchange(exchange).await) else { return moved };
        claimed.claimed.iter().for_each(|of| self.is_as_claimed(of));
        let end = |of: &Claimed| Transition { job: of.job.id, epoch: of.job.epoch, step: done() };
        let transitions: Vec<Transition> = claimed.claimed.iter().map(end).collect();
        let all = transitions.len();
        let exchange = Exchange { owner, transitions, picks: Vec::new() };
        if let Some(settled) = self.noted(self.store.exchange(exchange).await) {
            assert_eq!(settled.applied, vec![Applied::Done; all]);
        }
        moved
    }

    /// What is claimed was ready, and is what was submitted.
    fn is_as_claimed(&self, of: &Claimed) {
        let known = self.jobs.get(&of.job.id).expect("it was there");
        assert_eq!(known.state, State::Pending, "{:?} was not ready", of.job);
        assert_eq!(
            (&of.job.spec, &of.job.tenant, &of.job.parents),
            (&known.spec, &known.tenant, &known.parents)
        );
        assert_eq!(of.job.version, known.version + 1);
        assert_eq!(of.job.epoch, known.epoch.next());
    }
}
