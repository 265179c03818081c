//! What must hold of every store at every rest, whatever a property did.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use super::env::Env;
use crate::error::Result;
use crate::id::{JobId, Name, Tenant};
use crate::job::{Epoch, Job, JobSummary, State, next};
use crate::store::{Change, ChangeLog, Consistency, Counts, Cursor, Query, QueueCounts, QueueQuery, Scope};

/// How many pages a list of the suite has at most: without an end, a list is wrong.
const PAGES_MAX: usize = 10_000;

/// How many queues a page of their counts has at most.
const QUEUES_PER_PAGE: usize = 3;

/// Counts the jobs of each queue that has any, in the order of tenant and queue.
pub(super) fn recounted<'j>(jobs: impl IntoIterator<Item = &'j Job>) -> Vec<QueueCounts> {
    let mut counts: BTreeMap<(Tenant, Name), Counts> = BTreeMap::new();
    for job in jobs {
        let of = counts.entry((job.tenant.clone(), job.spec.queue().clone())).or_default();
        of.moved(None, Some(job.state));
    }
    counts.into_iter().map(|((tenant, queue), counts)| QueueCounts { tenant, queue, counts }).collect()
}

impl Env {
    /// Compares everything that the store tells of itself.
    pub(super) async fn audit(&self) {
        let wrong = self.store().verify_indexes().await.expect("verify_indexes");
        assert!(wrong.is_empty(), "{wrong:#?}");
        let jobs = self.all_jobs().await;
        self.audit_counts(&jobs).await;
        self.audit_limits(&jobs).await;
        self.audit_changes(&jobs).await;
    }

    /// Reads every job, by pages.
    pub(super) async fn all_jobs(&self) -> Vec<Job> {
        let listed = self.list(&Scope::All, Query::new().oldest_first().limit(Query::LIMIT_MAX)).await;
        let ids = listed.iter().map(|job| job.id).collect();
        let found = self.store().get_many(&Scope::All, ids, Consistency::Latest).await.expect("get");
        assert!(found.iter().all(Option::is_some), "a job that is listed can be read");
        found.into_iter().flatten().collect()
    }

    /// Reads a list, by pages.
    pub(super) async fn list(&self, scope: &Scope, mut query: Query) -> Vec<JobSummary> {
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.store().query(scope, query.clone()).await.expect("query");
            assert!(page.jobs.len() <= query.limit, "at most the limit");
            found.extend(page.jobs);
            match page.next {
                Some(next) => query.after = Some(next),
                None => return found,
            }
        }
        panic!("the list does not end: {query:?}");
    }

    async fn audit_counts(&self, jobs: &[Job]) {
        let mut by_tenant: BTreeMap<Tenant, Counts> = BTreeMap::new();
        let mut all = Counts::default();
        for job in jobs {
            all.moved(None, Some(job.state));
            by_tenant.entry(job.tenant.clone()).or_default().moved(None, Some(job.state));
        }
        assert_eq!(self.store().counts(&Scope::All).await.expect("counts"), all, "the counts of all");
        assert_eq!(self.queues_counted(&Scope::All).await, recounted(jobs), "the counts of queues");
        for (tenant, counts) in by_tenant {
            let told = self.store().counts(&Scope::Tenant(tenant.clone())).await.expect("counts");
            assert_eq!(told, counts, "the counts of {tenant}");
        }
    }

    /// Reads the counts of every queue of a scope, by pages.
    pub(super) async fn queues_counted(&self, scope: &Scope) -> Vec<QueueCounts> {
        let mut counted: Vec<QueueCounts> = Vec::new();
        loop {
            let mut query = QueueQuery::new().limit(QUEUES_PER_PAGE);
            if let Some(last) = counted.last() {
                query = query.after(last);
            }
            let page = self.store().queue_counts(scope, query).await.expect("queue_counts");
            let is_last = page.len() < QUEUES_PER_PAGE;
            counted.extend(page);
            if is_last {
                return counted;
            }
        }
    }

    async fn audit_limits(&self, jobs: &[Job]) {
        let leased = || jobs.iter().filter(|job| job.state.is_leased());
        for told in self.store().limits(&Scope::All).await.expect("limits") {
            let of = told.limit.of;
            let used = leased().filter(|job| of.counts(&job.tenant, &job.spec)).count();
            assert_eq!(told.in_use as usize, used, "the use of {of}");
        }
    }

    async fn audit_changes(&self, jobs: &[Job]) {
        let log = self.change_log(&Scope::All).await;
        let mut heard = self.ear.heard();
        let queues: HashMap<JobId, &Name> = jobs.iter().map(|job| (job.id, job.spec.queue())).collect();
        for change in &heard {
            let (told, queue) = (change.queue.as_ref(), queues.get(&change.job));
            assert!(
                told.is_none() || queue.is_none_or(|queue| told == Some(*queue)),
                "the queue of {change:?}"
            );
        }
        heard.retain(|change| self.seen.change_log.records(change));
        let gone = heard.len().checked_sub(log.len()).expect("the sinks are told all that is recorded");
        assert!(gone == 0 || self.seen.pruned, "the sinks are told nothing else");
        let (heard, logged) = (self.in_order(heard), self.in_order(log.iter().collect()));
        if self.store().capabilities().spans_tenants {
            assert!(heard[gone..].iter().eq(logged), "the sinks are told the same, in the same order");
        } else {
            // Each shard prunes for itself, so what is gone need not be the oldest.
            let mut heard = heard.iter();
            let found = logged.into_iter().all(|change| heard.any(|told| told == change));
            assert!(found, "the sinks are told the same, in the same order tenant by tenant");
        }
        if self.seen.change_log != ChangeLog::All {
            return;
        }
        legal(&log, self.seen.pruned);
        let mut last: HashMap<JobId, &Change> = HashMap::new();
        last.extend(log.iter().map(|change| (change.job, change)));
        for job in jobs {
            if let Some(change) = last.get(&job.id) {
                assert_eq!(**change, Change::of(job, change.from), "the last change tells the job");
            } else {
                assert!(self.seen.pruned, "every job has changes");
            }
        }
        if !self.seen.pruned && !self.seen.unordered {
            let fired = |change: &Change| change.from.is_none() && self.seen.fired.contains(&change.job);
            let told: Vec<Change> = log.into_iter().filter(|change| !fired(change)).collect();
            let (told, seen) = (self.in_order(told), self.in_order(self.seen.changes.clone()));
            assert_eq!(told, seen, "the log has the changes of the replies, in their order");
        }
    }

    /// Brings changes into an order in which logs can be compared: as they are, or, where tenants share no order, tenant
    /// by tenant.
    pub(super) fn in_order<C: Borrow<Change>>(&self, mut changes: Vec<C>) -> Vec<C> {
        if !self.store().capabilities().spans_tenants {
            changes.sort_by(|a, b| a.borrow().tenant.cmp(&b.borrow().tenant));
        }
        changes
    }

    /// Reads all changes of a scope that are kept.
    pub(super) async fn change_log(&self, scope: &Scope) -> Vec<Change> {
        self.changes_after(scope, None).await.expect("changes")
    }

    /// Reads all changes of a scope after a cursor, by pages.
    pub(super) async fn changes_after(
        &self,
        scope: &Scope,
        mut after: Option<Cursor>,
    ) -> Result<Vec<Change>> {
        let end = self.store().changes_end().await?;
        let mut changes = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.store().changes(scope, after.clone(), 500).await?;
            assert!(page.changes.len() <= 500, "at most the limit");
            changes.extend(page.changes);
            if page.next == end {
                return Ok(changes);
            }
            after = Some(page.next);
        }
        panic!("no page gives back the cursor of the end");
    }
}

/// Every job walks a path of the table: each version once, in order, from where the last one led, its epochs never
/// falling and rising with each claim.
fn legal(log: &[Change], cut: bool) {
    let mut at: HashMap<JobId, (u32, State, Epoch)> = HashMap::new();
    for change in log {
        let before = at.insert(change.job, (change.version, change.to, change.epoch));
        match (before, change.from) {
            (None, None) => assert_eq!(change.version, 1, "{change:?}"),
            (None, Some(_)) => assert!(cut, "the first change of a job is its submission: {change:?}"),
            (Some((version, state, epoch)), Some(from)) => {
                assert_eq!((change.version, from), (version + 1, state), "{change:?}");
                assert_eq!(next(from, change.cause), Some(change.to), "{change:?}");
                let claimed = change.to == State::Scheduled;
                assert!(change.epoch >= epoch && (!claimed || change.epoch > epoch), "{change:?}");
            }
            // An id that was pruned can be submitted anew.
            (Some(_), None) => assert!(cut, "submitted twice: {change:?}"),
        }
    }
}
