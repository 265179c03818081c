//! The wrapper itself.

use std::future::Future;

use super::super::call::{Call, Reply};
use super::super::log::Survey;
use super::super::recorder::Recorder;
use crate::error::Result;
use crate::id::JobId;
use crate::store::{Consistency, QueueCounts, QueueQuery, Scope, Store};

/// How many rows one read of a survey asks for.
const PAGE: usize = 1_000;

/// A store that forwards every verb to another and notes the call before and the reply after.
///
/// A call whose future is dropped has no reply in the history: it may have happened.
#[derive(Debug)]
pub struct RecordingStore<S> {
    pub(super) inner: S,
    pub(super) recorder: Recorder,
}

impl<S> RecordingStore<S> {
    /// Wraps a store.
    #[must_use]
    pub const fn new(inner: S, recorder: Recorder) -> Self {
        Self { inner, recorder }
    }

    /// Returns the store inside. What is asked of it is not recorded.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Gives the store inside back.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Returns the recorder.
    #[must_use]
    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

impl<S: Sync> RecordingStore<S> {
    /// Awaits a verb between the two notes.
    pub(super) async fn noted<R: Send>(
        &self,
        call: Call,
        verb: impl Future<Output = Result<R>> + Send,
        reply: impl FnOnce(&R) -> Reply + Send,
    ) -> Result<R> {
        let call = self.recorder.called(call);
        let result = verb.await;
        self.recorder.ended(call, result.as_ref().map(reply));
        result
    }
}

impl<S: Store> RecordingStore<S> {
    /// Reads the whole store and notes it: the change log, every job that the log or the lists name, the counts and
    /// the limits. To be called when nothing else is under way; the store should record all changes.
    ///
    /// # Errors
    ///
    /// Those of the store; then nothing was noted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future notes nothing.
    pub async fn survey(&self) -> Result<()> {
        let mut survey = Survey::default();
        let mut cursor = None;
        loop {
            let page = self.inner.changes(&Scope::All, cursor, PAGE).await?;
            if page.changes.is_empty() {
                break;
            }
            survey.changes.extend(page.changes);
            cursor = Some(page.next);
        }
        survey.jobs = Some(self.held(&survey).await?);
        survey.counts = Some(self.inner.counts(&Scope::All).await?);
        survey.queues = Some(self.queues_counted().await?);
        survey.limits = self.inner.limits(&Scope::All).await?;
        self.recorder.surveyed(survey);
        Ok(())
    }

    /// Reads the counts of every queue, by pages.
    async fn queues_counted(&self) -> Result<Vec<QueueCounts>> {
        let mut counted: Vec<QueueCounts> = Vec::new();
        loop {
            let mut query = QueueQuery::new().limit(PAGE);
            if let Some(last) = counted.last() {
                query = query.after(last);
            }
            let page = self.inner.queue_counts(&Scope::All, query).await?;
            let is_last = page.len() < PAGE;
            counted.extend(page);
            if is_last {
                return Ok(counted);
            }
        }
    }

    /// Reads every job that the log or a list names, in the order of the ids.
    async fn held(&self, survey: &Survey) -> Result<Vec<crate::job::Job>> {
        let mut ids: Vec<JobId> = survey.changes.iter().map(|change| change.job).collect();
        let mut query = crate::store::Query::new().oldest_first().limit(PAGE);
        loop {
            let page = self.inner.query(&Scope::All, query.clone()).await?;
            ids.extend(page.jobs.iter().map(|job| job.id));
            let Some(next) = page.next else { break };
            query = query.after(next);
        }
        ids.sort_unstable();
        ids.dedup();
        let mut held = Vec::with_capacity(ids.len());
        for ids in ids.chunks(PAGE) {
            let jobs = self.inner.get_many(&Scope::All, ids.to_vec(), Consistency::Latest).await?;
            held.extend(jobs.into_iter().flatten());
        }
        Ok(held)
    }
}
