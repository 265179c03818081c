//! Blobs that no job and no schedule names any more go.
//!
//! The node that leads the maintenance lists blobs that have been there for long, strikes out those that are named, and
//! removes the rest. Schedules are read before jobs: what one fires meanwhile names what it names. Whoever is about to name a
//! blob puts it, or has it kept, before; that begins its age anew, and a blob whose age has begun anew since it was listed is
//! not removed. So it does no harm that a leader dies in the middle, stands still and goes on when another leads, or that a
//! job is submitted behind the place where the jobs are read.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use hodei_core::blob::BlobStore;
use hodei_core::job::{Job, Output, Payload};
use hodei_core::store::{Consistency, Cursor, Query, Scope};
use hodei_core::{JobId, Result, Tenant, Timestamp};

use crate::driver::Shared;

/// How old a blob is before it may go: longer than anybody takes between encoding arguments and submitting them, a report of
/// an agent that has lost its node included.
const AGE_MIN: Duration = Duration::from_secs(24 * 3_600);
/// How many blobs one sweep looks for at most; the next one goes on behind them.
const CANDIDATES_MAX: usize = 65_536;
/// How many blobs are listed, and how many jobs are read, at once.
const PAGE: usize = 500;
/// How long after a sweep is over the next one begins.
const EVERY: Duration = Duration::from_secs(3_600);

/// The sweeping, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Not before when the next sweep begins, in the machine's time.
    next: Option<Timestamp>,
    /// Which of the blob stores it is at.
    store: usize,
    at: Place,
    /// What may go: by key, which putting it was that was listed.
    candidates: HashMap<Arc<str>, u64>,
    /// Behind which blob the next sweep of this store goes on.
    behind: Option<Arc<str>>,
}

/// What comes next.
#[derive(Debug, Default)]
enum Place {
    /// Listing blobs behind one.
    #[default]
    Blobs,
    Schedules,
    /// Reading jobs from behind a place in their list.
    Jobs(Option<Cursor>),
    Removing,
}

impl Sweep {
    /// Does a small part of the work, and says whether there is more to do now. What fails is begun anew at the next sweep:
    /// nothing is removed unless every job could be read.
    pub(crate) async fn step(&mut self, shared: &Shared) -> bool {
        let stores = shared.blobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stores: Vec<Arc<dyn BlobStore>> = stores.iter().filter_map(Weak::upgrade).collect();
        let now = shared.pace.now();
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        let Some(blobs) = stores.get(self.store) else {
            *self = Self { next: Some(now.saturating_add(EVERY)), ..Self::default() };
            return false;
        };
        if self.part(shared, &**blobs).await.is_err() {
            *self = Self { next: Some(now.saturating_add(EVERY)), ..Self::default() };
        }
        self.next.is_none()
    }

    async fn part(&mut self, shared: &Shared, blobs: &dyn BlobStore) -> Result<()> {
        match std::mem::take(&mut self.at) {
            Place::Blobs => {
                let listed = blobs.list(self.behind.as_deref(), PAGE).await?;
                let more = listed.len() == PAGE;
                self.behind = listed.last().map(|last| Arc::clone(&last.key)).filter(|_| more);
                let old = listed.into_iter().filter(|blob| blob.age >= AGE_MIN);
                self.candidates.extend(old.map(|blob| (blob.key, blob.stamp)));
                let enough = !more || self.candidates.len() + PAGE > CANDIDATES_MAX;
                if enough && self.candidates.is_empty() {
                    self.go_on();
                } else if enough {
                    self.at = Place::Schedules;
                }
            }
            Place::Schedules => {
                for row in shared.store.schedules(&Scope::All).await? {
                    self.names(shared, &row.tenant, row.spec.payload()).await?;
                }
                self.at = Place::Jobs(None);
            }
            Place::Jobs(after) => {
                let mut query = Query::new().oldest_first().limit(PAGE);
                query.after = after;
                let page = shared.store.query(&Scope::All, query).await?;
                let ids: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
                if !ids.is_empty() {
                    let jobs = shared.store.get_many(&Scope::All, ids, Consistency::Latest).await?;
                    for job in jobs.into_iter().flatten() {
                        self.job(shared, &job).await?;
                    }
                }
                self.at = page.next.map_or(Place::Removing, |next| Place::Jobs(Some(next)));
            }
            Place::Removing => {
                let some: Vec<Arc<str>> = self.candidates.keys().take(PAGE).cloned().collect();
                for key in some {
                    if let Some(stamp) = self.candidates.remove(&key) {
                        blobs.remove_unchanged(&key, stamp).await?;
                    }
                }
                if self.candidates.is_empty() {
                    self.go_on();
                } else {
                    self.at = Place::Removing;
                }
            }
        }
        Ok(())
    }

    /// Goes on with the next blobs of this store, or with the next store.
    fn go_on(&mut self) {
        self.store += usize::from(self.behind.is_none());
        self.at = Place::Blobs;
    }

    /// Strikes out what a job names: its arguments, its output, its artifacts.
    async fn job(&mut self, shared: &Shared, job: &Job) -> Result<()> {
        self.names(shared, &job.tenant, job.spec.payload()).await?;
        if let Some(Output::Blob(blob)) = job.output() {
            self.candidates.remove(&blob.key);
        }
        for artifact in
            job.settled.iter().flat_map(|settled| &settled.manifest).flat_map(|manifest| &manifest.artifacts)
        {
            self.candidates.remove(&artifact.blob.key);
        }
        Ok(())
    }

    async fn names(&mut self, shared: &Shared, tenant: &Tenant, payload: &Payload) -> Result<()> {
        if let Some(blob) = shared.codecs.blob_of(tenant, payload).await? {
            self.candidates.remove(&blob.key);
        }
        Ok(())
    }
}
