//! What moves while a read goes on that is to be of one commit.
//!
//! A job without a row of its moves is as it was born, or has lost that row. The index knows which, as of the last commit;
//! a read of an older view cannot ask it about jobs that have moved since. So a commit notes for such a read which jobs
//! moved for the first time: as of its view they were as they were born, and the read need not begin anew for them.

use std::sync::{Arc, Mutex, Weak};

use hodei_core::JobId;
use hodei_core::map::JobSet;

use crate::inner::Committed;
use crate::memory::{Delta, Step};
use crate::reader::View;
use crate::sync::lock;

/// Which jobs have moved for the first time since a view was taken. Looked at while the last commit is locked, else it could
/// be of another than the index.
#[derive(Debug)]
pub(crate) struct Since {
    /// Of which jobs it is noted, in order, so that it takes no more room than what was asked for; of all where nothing is
    /// named.
    of: Option<Vec<JobId>>,
    moved: Mutex<JobSet>,
}

impl Since {
    /// Says whether a job has moved for the first time since.
    pub(crate) fn has_moved(&self, id: JobId) -> bool {
        lock(&self.moved).contains(&id)
    }

    fn note(&self, delta: &Delta) {
        let is_first = |step: &Step| step.was.as_ref().is_some_and(|was| was.newborn);
        let asked = |id: &JobId| self.of.as_ref().is_none_or(|of| of.binary_search(id).is_ok());
        let moved =
            delta.steps.iter().filter(|step| is_first(step)).map(|step| step.head.job.id).filter(asked);
        lock(&self.moved).extend(moved);
    }
}

/// The reads for which it is noted what moves. After the index was read anew nothing more is noted for those before: they
/// come upon what they do not know, and begin anew.
#[derive(Debug, Default)]
pub(crate) struct Watch(Vec<Weak<Since>>);

impl Watch {
    /// Notes what a commit moved.
    pub(crate) fn note(&mut self, delta: &Delta) {
        self.0.retain(|since| since.upgrade().inspect(|since| since.note(delta)).is_some());
    }
}

impl Committed {
    /// Returns the view of the last commit, and from now on what moves of some jobs, in order, or of all.
    pub(crate) fn pin(&mut self, of: Option<Vec<JobId>>) -> (Arc<View>, Arc<Since>) {
        let since = Arc::new(Since { of, moved: Mutex::default() });
        self.watch.0.push(Arc::downgrade(&since));
        (Arc::clone(&self.view), since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hodei_core::job::{Job, JobSpec, Lease, NewJob, Priority, State};
    use hodei_core::store::{Exchange, JobStore as _, Lane, Pick, Scope, SubmitOptions};
    use hodei_core::{OwnerId, Result};

    use super::*;
    use crate::inner::Inner;
    use crate::query::{self, Asked};
    use crate::reader::{INLINE_ROWS, Snapshot};
    use crate::{RedbStore, txn};

    const JOBS: usize = 400;

    struct Env {
        _folder: tempfile::TempDir,
        store: RedbStore,
        owner: Lease,
        asked: Vec<Asked>,
    }

    impl Env {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = RedbStore::open(folder.path().join("jobs.redb")).unwrap();
            let job = || NewJob::new(JobSpec::command(["true"]).build().unwrap());
            let jobs: Vec<_> = (0..JOBS).map(|_| job()).collect();
            let mut asked: Vec<Asked> = jobs.iter().map(|job| job.id).zip(0..).collect();
            asked.sort_unstable();
            store.submit(jobs, SubmitOptions::each()).await.unwrap();
            let node = OwnerId::new("node").unwrap();
            let register = |work: &mut txn::Work<'_, '_>| txn::register(work, &node, Duration::from_secs(60));
            let owner = store.inner().alone(register).unwrap();
            Self { _folder: folder, store, owner, asked }
        }

        fn ids(&self) -> Vec<JobId> {
            self.asked.iter().map(|(id, _)| *id).collect()
        }

        fn read(&self, pinned: (Arc<View>, Arc<Since>)) -> (Vec<State>, bool) {
            let mut rows = Snapshot::of(self.store.inner(), Arc::clone(&pinned.0));
            rows.go_by(pinned);
            (states(query::jobs(&mut rows, &Scope::All, &self.asked)).unwrap(), rows.moved_on())
        }
    }

    fn claim(inner: &Inner, owner: &Lease, n: u32) {
        let lane: Lane = lock(&inner.committed).index.lanes.keys().next().cloned().unwrap();
        let picks = vec![Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n }];
        let exchange = Exchange { owner: owner.clone(), transitions: Vec::new(), picks };
        let done = inner.alone(|work| txn::exchange(work, &exchange)).unwrap();
        assert_eq!(done.claimed.len(), n as usize);
    }

    fn states(jobs: Result<Vec<(usize, Job)>>) -> Result<Vec<State>> {
        jobs.map(|jobs| jobs.into_iter().map(|(_, job)| job.state).collect())
    }

    /// A read of many jobs, of which some were claimed in each of its tries, was given up after 32 of them.
    #[tokio::test]
    async fn a_read_of_jobs_that_are_claimed_meanwhile_begins_anew_once() {
        const EACH: u32 = 12;
        let env = Env::new().await;
        let (ids, asked, owner) = (env.ids(), env.asked.clone(), env.owner.clone());
        let inner = Arc::clone(env.store.inner());
        let read = move |rows: &mut Snapshot<'_>| {
            let mut tries = 0;
            let all = rows.of_one_commit(
                || Some(ids.clone()),
                |rows| {
                    tries += 1;
                    claim(&inner, &owner, EACH);
                    states(query::jobs(rows, &Scope::All, &asked))
                },
            )?;
            Ok((all, tries))
        };
        let (all, tries) = env.store.read("store.test", INLINE_ROWS + 1, read).await.unwrap();
        let waiting = all.iter().filter(|state| **state == State::Pending).count();
        assert_eq!((all.len(), waiting, tries), (JOBS, JOBS - EACH as usize, 2), "of one commit");
    }

    #[tokio::test]
    async fn what_was_asked_for_is_noted_until_the_index_is_read_anew() {
        let env = Env::new().await;
        let inner = env.store.inner();
        let pin = |of| lock(&inner.committed).pin(of);
        let (asked, all, others) = (pin(Some(env.ids())), pin(None), pin(Some(Vec::new())));
        claim(inner, &env.owner, 5);
        let unmoved = vec![State::Pending; JOBS];
        assert_eq!(env.read(asked), (unmoved.clone(), false));
        assert_eq!(env.read(all), (unmoved, false));
        assert!(env.read(others).1, "it is not known of what nobody asked for");
        let before = pin(None);
        inner.rebuild().unwrap();
        claim(inner, &env.owner, 5);
        assert!(env.read(before).1, "what came after that is not noted");
        assert_eq!(lock(&inner.committed).watch.0.len(), 0, "and nobody is kept");
    }
}
