//! Reading ahead: what will most likely be claimed next is decoded while nobody waits for it.
//!
//! Whoever claims takes the first jobs of a lane, and comes back for those behind them when they have ended. What is
//! behind them is brought into [`Recent`](crate::recent::Recent) meanwhile, so that its claim reads and decodes
//! nothing. Where a commit claimed many, a thread of its own reads while that is committed; where it claimed few, which
//! is not worth waking a thread for, the writer does between the answer and the next call.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use hodei_core::store::Lane;
use hodei_core::{JobId, Result};

use crate::codec::{self, Head};
use crate::error::guarded;
use crate::inner::Inner;
use crate::memory::{Delta, Place, Step};
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// How many lanes are read ahead of a commit at most.
const LANES_MAX: usize = 4;

/// How many jobs are decoded before somebody looks again whether there is something better to do.
const TOGETHER: usize = 32;

/// How many jobs a commit has to claim for the thread to be woken.
const MANY: usize = 2 * TOGETHER;

/// A lane from which a commit claims.
#[derive(Debug)]
struct Claimed {
    lane: Lane,
    /// The last place from which it claims.
    last: Place,
    /// How many jobs.
    jobs: usize,
}

/// What is to be read.
#[derive(Debug, Default)]
struct Wanted {
    lanes: Vec<Claimed>,
    /// Jobs that are read next, the first at the end.
    ids: Vec<JobId>,
}

impl Wanted {
    /// Returns what follows in the lanes from which a commit claims.
    fn behind(delta: &Delta) -> Self {
        let mut lanes: Vec<Claimed> = Vec::new();
        for Step { was, head } in delta.steps.iter().map(|step| &**step) {
            let newborn = was.as_ref().filter(|was| was.newborn && head.job.lease.is_some());
            let Some(place) = newborn.and_then(|was| was.place(head)) else { continue };
            match lanes.iter().position(|claimed| head.is_in(&claimed.lane)) {
                Some(known) => {
                    let Claimed { last, jobs, .. } = &mut lanes[known];
                    (*last, *jobs) = ((*last).max(place), *jobs + 1);
                }
                None if lanes.len() < LANES_MAX => {
                    lanes.push(Claimed { lane: head.lane(), last: place, jobs: 1 });
                }
                None => {}
            }
        }
        Self { lanes, ids: Vec::new() }
    }

    fn jobs(&self) -> usize {
        self.lanes.iter().map(|claimed| claimed.jobs).sum()
    }

    /// Reads some of it, and says whether there was something to read. What cannot be read is left to its claim.
    fn read_some(&mut self, inner: &Inner) -> bool {
        if self.ids.is_empty() {
            let Some(claimed) = self.lanes.pop() else { return false };
            self.ids = unknown_behind(inner, &claimed);
            return true;
        }
        let mut some = self.ids.split_off(self.ids.len().saturating_sub(TOGETHER));
        some.sort_unstable();
        if guarded("store.ahead", || read(inner, &some)).is_err() {
            *self = Self::default();
        }
        true
    }
}

/// The reading of what commits will claim next.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// What the writer reads itself.
    own: Wanted,
    /// The way to the thread.
    orders: SyncSender<Wanted>,
}

impl Ahead {
    /// Starts the thread; it ends with this.
    pub(crate) fn start(inner: &Arc<Inner>) -> Result<(Self, JoinHandle<()>)> {
        let (orders, received) = sync_channel(1);
        let inner = Arc::clone(inner);
        let thread = crate::sync::thread("hodei-redb-ahead", move || serve(&inner, &received))?;
        Ok((Self { own: Wanted::default(), orders }, thread))
    }

    /// Begins anew, with what a transaction claims that is about to be committed.
    pub(crate) fn begin(&mut self, delta: &Delta) {
        let wanted = Wanted::behind(delta);
        self.own = Wanted::default();
        if wanted.jobs() < MANY {
            self.own = wanted;
        } else {
            // Where it is still behind with the one before, there is nothing to be gained by another.
            drop(self.orders.try_send(wanted));
        }
    }

    /// Reads some of what the writer reads itself, and says whether there was something to read.
    pub(crate) fn read_some(&mut self, inner: &Inner) -> bool {
        self.own.read_some(inner)
    }
}

/// Reads what is ordered, the last order only, until nobody is left to order.
fn serve(inner: &Inner, orders: &Receiver<Wanted>) {
    while let Ok(mut wanted) = orders.recv() {
        loop {
            wanted = orders.try_recv().unwrap_or(wanted);
            if !wanted.read_some(inner) {
                break;
            }
        }
    }
}

/// Returns the next jobs of a lane that are as they were born and not remembered, the first at the end.
fn unknown_behind(inner: &Inner, Claimed { lane, last, jobs }: &Claimed) -> Vec<JobId> {
    let newborn = lock(&inner.committed).index.first_newborn(lane, *last, *jobs);
    let mut ids = lock(&inner.recent).unknown(newborn);
    ids.reverse();
    ids
}

fn read(inner: &Inner, ids: &[JobId]) -> Result<()> {
    // Before the view is taken: what goes away later is not in doubt.
    let departures = lock(&inner.recent).departures();
    let view = Arc::clone(&lock(&inner.view));
    let mut rows = Snapshot::first(view, &inner.stats, &inner.specs);
    let mut names = std::mem::take(rows.names());
    let mut read: Vec<Head> = Vec::with_capacity(ids.len());
    rows.seek(Tab::Born, ids.iter().map(|id| &id.as_bytes()[..]), |number, row| {
        // Not those that the writer knows, whom nobody should hold up.
        let (head, fixed) = codec::born(ids[number], row, &mut names, |spec| inner.specs.get(spec))?;
        inner.specs.keep(&fixed.spec, row.len());
        let batch = head.batch;
        read.push(Head::of(head.full(fixed, None), batch));
        Ok(())
    })?;
    let mut gone = Vec::new();
    lock(&inner.recent).bring_all(read, departures, &mut gone);
    drop(gone);
    Ok(())
}

#[cfg(test)]
mod tests {
    use hodei_core::job::{JobSpec, Lease, NewJob, Priority, rules};
    use hodei_core::store::{Coordination as _, JobStore as _, SubmitOptions};
    use hodei_core::{Clock as _, OwnerId, SystemClock};

    use super::*;
    use crate::RedbStore;
    use crate::memory::Standing;

    const ALL: usize = 400;

    fn jobs(n: usize) -> Vec<NewJob> {
        let spec = |n| JobSpec::command([format!("job-{n}")]).build().unwrap();
        (0..n).map(|n| NewJob::new(spec(n))).collect()
    }

    /// A step that claims a job as it was born.
    fn claim(new: NewJob, lease: &Lease) -> Box<Step> {
        let now = SystemClock.now();
        let mut head = Head::of(rules::admit(new, now).0, 1);
        let was = Some(Standing::of(&head));
        rules::claim(&mut head.job, lease.clone(), now).expect("it can be claimed");
        Box::new(Step { was, head })
    }

    #[tokio::test]
    async fn what_follows_in_a_lane_is_brought_as_it_was_born() {
        let folder = tempfile::tempdir().unwrap();
        // More than are kept as they come.
        let store = RedbStore::builder(folder.path().join("jobs.redb")).recent_jobs(ALL / 2).open().unwrap();
        let jobs = jobs(ALL);
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        store.submit(jobs.clone(), SubmitOptions::each()).await.unwrap();
        let inner = store.inner();
        assert_eq!(lock(&inner.recent).unknown(ids.clone()).len(), ALL / 2, "none is known");
        let lane = inner.committed.lock().unwrap().index.lanes.keys().next().unwrap().clone();
        let order = Wanted {
            lanes: vec![Claimed { lane, last: Place::before(Priority::MAX), jobs: 100 }],
            ids: Vec::new(),
        };
        let (orders, received) = sync_channel(1);
        orders.send(order).unwrap();
        drop(orders);
        serve(inner, &received);
        let mut recent = lock(&inner.recent);
        for (new, id) in jobs.iter().zip(&ids).take(100) {
            let born = recent.born(*id).expect("it was brought");
            assert_eq!((born.head.job.id, &born.head.job.spec), (*id, &new.spec));
        }
        assert!(recent.born(ids[100]).is_none(), "no more than were asked for");
    }

    #[tokio::test]
    async fn a_thread_is_woken_for_many_and_the_writer_reads_what_follows_few() {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::open(folder.path().join("jobs.redb")).unwrap();
        let lease =
            store.register(&OwnerId::new("one").unwrap(), std::time::Duration::from_secs(9)).await.unwrap();
        let (orders, received) = sync_channel(1);
        let mut ahead = Ahead { own: Wanted::default(), orders };
        let mut delta = Delta::default();
        let new = jobs(MANY);
        let last = new.iter().map(|job| job.id).max();
        delta.steps = new.into_iter().map(|new| claim(new, &lease)).collect();
        ahead.begin(&delta);
        let ordered = received.try_recv().expect("an order");
        assert_eq!((ordered.jobs(), ahead.own.jobs()), (MANY, 0));
        assert_eq!(
            ordered.lanes.iter().map(|claimed| claimed.last.id).max(),
            last,
            "what follows is behind the last"
        );
        delta.steps.truncate(MANY - 1);
        ahead.begin(&delta);
        assert!(received.try_recv().is_err());
        assert_eq!(ahead.own.jobs(), MANY - 1);
    }
}
