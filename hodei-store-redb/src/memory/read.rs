//! Reading what is open, and making the index of it in one go.

use std::collections::{BTreeSet, HashMap};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use hodei_core::job::State;
use hodei_core::map::IdState;
use hodei_core::store::Lane;
use hodei_core::{Error, JobId, Result, Slot, Tenant, Timestamp};

use super::index::{Index, limits_of};
use super::lane::{Place, Waiting};
use super::standing::place_of;
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::key;
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::table::Tab;

/// How many open jobs are looked up in one go: what is known of them half-way stays in the cache of the processor, and is small
/// enough for the allocator to keep.
const READ_MAX: usize = 256;

/// How many pages of them are read ahead of whoever takes them in.
const PAGES_AHEAD: usize = 16;

/// For how many jobs another thread is worth its while.
const MANY: usize = 4_096;

/// The jobs of a tenant in a state, by their creation.
type List = (Tenant, State, Vec<(Timestamp, JobId)>);

/// The lists and lanes, as their jobs are read: sorted at the end, each becomes a tree at once. Jobs of one list and lane
/// mostly come together, so they are looked for only where they change.
#[derive(Default)]
struct Bulk {
    lists: Vec<List>,
    lanes: Vec<(Lane, Vec<(Place, Waiting)>)>,
    list_of: HashMap<(Tenant, State), usize, IdState>,
    lane_of: HashMap<Lane, usize, IdState>,
    /// The list and the lane of the last job.
    list: usize,
    lane: usize,
    /// The last row that names open jobs, and how many of them.
    batch: (u64, u32),
}

impl Bulk {
    fn list(&mut self, head: &Head) -> &mut Vec<(Timestamp, JobId)> {
        let job = &head.job;
        let same =
            self.lists.get(self.list).is_some_and(|(of, state, _)| (of, *state) == (&job.tenant, job.state));
        if !same {
            let next = self.lists.len();
            self.list = *self.list_of.entry((job.tenant.clone(), job.state)).or_insert(next);
            if self.list == next {
                self.lists.push((job.tenant.clone(), job.state, Vec::new()));
            }
        }
        &mut self.lists[self.list].2
    }

    /// Finds the lane of a job, and says whether no job of it came before.
    fn find_lane(&mut self, head: &Head) -> bool {
        if self.lanes.get(self.lane).is_some_and(|(lane, _)| head.is_in(lane)) {
            return false;
        }
        let (lane, next) = (head.lane(), self.lanes.len());
        self.lane = *self.lane_of.entry(lane.clone()).or_insert(next);
        let is_new = self.lane == next;
        if is_new {
            self.lanes.push((lane, Vec::new()));
        }
        is_new
    }
}

/// Open jobs, each with the number of the row that names it, in the order of their ids.
type Named = Vec<(JobId, u64)>;

/// What moves of them, where they are there.
type Page = Vec<Option<Head>>;

/// Reads which jobs are open, of one slot or of all, as rows from a number on name them, a page at a time.
struct Pages {
    from: u64,
    only: Option<Slot>,
}

impl Pages {
    /// Reads the next page; nothing when there is none.
    fn next(&mut self, rows: &mut impl Rows) -> Result<Option<Named>> {
        let mut named = Named::new();
        let (mut last, begin) = (None, key::sequence(self.from));
        rows.scan(Tab::Open, (Some(&begin[..]), None).into(), |key, row| {
            let batch = key::sequence_of(key).ok_or_else(|| corrupt("index.read", "a short key"))?;
            last = Some(batch);
            let ids = codec::ids(row)?.into_iter();
            let wanted = ids.filter(|id| self.only.is_none_or(|only| only == id.slot()));
            named.extend(wanted.map(|id| (id, batch)));
            Ok(named.len() < READ_MAX)
        })?;
        let Some(last) = last else { return Ok(None) };
        // A number that nothing can follow was never given out, and the next page would be the first again.
        self.from = last.checked_add(1).ok_or_else(|| corrupt("index.read", "a number too high"))?;
        named.sort_unstable();
        // A job that was opened twice in one transaction is named twice.
        named.dedup();
        Ok(Some(named))
    }

    /// Reads the next two pages, and of the second what moves of its jobs: half of what there is to read.
    fn next_two(&mut self, rows: &mut impl Rows) -> Result<Option<Two>> {
        let Some(first) = self.next(rows)? else { return Ok(None) };
        let second = self.next(rows)?.unwrap_or_default();
        let read = page(rows, &second)?;
        Ok(Some((first, second, read)))
    }
}

/// Two pages, of which the second is read.
type Two = (Named, Named, Page);

/// Reads what moves of the jobs of a page.
fn page(rows: &mut impl Rows, named: &[(JobId, u64)]) -> Result<Page> {
    let ids: Vec<JobId> = named.iter().map(|(id, _)| *id).collect();
    rows.heads(&ids)
}

impl Index {
    /// Reads what is open of one slot, as rows from a number on name it. Nothing of it is known yet.
    pub(super) fn read_slot(
        &mut self,
        rows: &mut impl Rows,
        now: Timestamp,
        from: u64,
        slot: Slot,
    ) -> Result<()> {
        self.read_here(rows, Pages { from, only: Some(slot) }, now).map(drop)
    }

    /// Reads all pages, and returns from where on nothing follows.
    fn read_here(&mut self, rows: &mut impl Rows, mut pages: Pages, now: Timestamp) -> Result<u64> {
        let mut bulk = Bulk::default();
        while let Some(named) = pages.next(rows)? {
            let read = page(rows, &named)?;
            self.read_page(rows, &mut bulk, &named, read, now)?;
        }
        self.take_in(bulk);
        Ok(pages.from)
    }

    /// Reads what is open. Nothing is known of it yet. Where there is another reader of the same rows, it reads which jobs are
    /// open and half of them, on a thread of its own.
    pub(super) fn read_open(
        &mut self,
        rows: &mut impl Rows,
        ahead: Option<Snapshot<'_>>,
        now: Timestamp,
    ) -> Result<()> {
        let mut pages = Pages { from: 0, only: None };
        let Some(mut ahead) = ahead else {
            self.next_batch = self.read_here(rows, pages, now)?;
            return Ok(());
        };
        let mut bulk = Bulk::default();
        self.next_batch = std::thread::scope(|threads| {
            let (sender, read) = sync_channel(PAGES_AHEAD);
            let reading = threads.spawn(move || {
                while let Some(two) = pages.next_two(&mut ahead).transpose() {
                    let is_last = two.is_err();
                    // Whoever takes in may have failed.
                    if sender.send(two).is_err() || is_last {
                        break;
                    }
                }
                pages.from
            });
            for two in read {
                let (first, second, read) = two?;
                let here = page(rows, &first)?;
                self.read_page(rows, &mut bulk, &first, here, now)?;
                self.read_page(rows, &mut bulk, &second, read, now)?;
            }
            // A panic of the database there is one here.
            Ok::<_, Error>(reading.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        self.take_in(bulk);
        Ok(())
    }

    fn read_page(
        &mut self,
        rows: &mut impl Rows,
        bulk: &mut Bulk,
        named: &[(JobId, u64)],
        read: Page,
        now: Timestamp,
    ) -> Result<()> {
        for (head, (_, batch)) in read.into_iter().zip(named) {
            // What has ended is still named until its whole batch has; what went round again is named elsewhere too.
            if let Some(head) = head.filter(|head| head.open_batch() == Some(*batch)) {
                self.read_job(rows, bulk, &head, now)?;
            }
        }
        Ok(())
    }

    fn read_job(&mut self, rows: &mut impl Rows, bulk: &mut Bulk, head: &Head, now: Timestamp) -> Result<()> {
        let job = &head.job;
        self.moved_rows += u64::from(head.waits_again());
        if bulk.batch.0 == head.batch {
            bulk.batch.1 += 1;
        } else {
            let before = std::mem::replace(&mut bulk.batch, (head.batch, 1));
            self.name(before);
        }
        if self.slots.hides(|| job.id.slot()) {
            return Ok(());
        }
        bulk.list(head).push((job.created_at, job.id));
        if head.waits_again() {
            self.moved.insert(job.id);
        }
        if job.lease.is_some() {
            for of in limits_of(&job.tenant, &head.limit_keys) {
                *self.in_use.entry(of).or_default() += 1;
            }
            self.wide.count(head);
        }
        self.step_lease(None, head);
        let Some((place, waiting)) = place_of(head) else { return Ok(()) };
        if bulk.find_lane(head) {
            let request = rows.fixed(job.id)?.spec.request();
            self.know(&head.lane(), &Arc::new(request));
        }
        if let Some(at) = waiting.deadline {
            self.deadlines.insert((at, job.id));
        }
        let (lane, ready) = &mut bulk.lanes[bulk.lane];
        // What had to wait for nothing is ready, though the clock be set back since it came.
        if place.eligible_at <= now.max(job.moved_at) {
            ready.push((place, waiting));
        } else if let Some(of) = self.lanes.get_mut(lane) {
            of.waiting += 1;
            self.due.insert((place.eligible_at, job.id), (lane.clone(), place, waiting));
        }
        Ok(())
    }

    /// Notes that a row names open jobs.
    fn name(&mut self, (batch, jobs): (u64, u32)) {
        if jobs > 0 {
            *self.batches.entry(batch).or_default() += jobs;
        }
    }

    fn take_in(&mut self, bulk: Bulk) {
        self.name(bulk.batch);
        let Bulk { lists, lanes, .. } = bulk;
        let few = lists.iter().map(|(_, _, list)| list.len()).sum::<usize>() < MANY;
        let sorted =
            move || lists.into_iter().map(|(tenant, state, list)| (tenant, state, BTreeSet::from_iter(list)));
        let lists: Vec<_> = if few {
            self.fill(lanes);
            sorted().collect()
        } else {
            // Each takes as long as the other.
            std::thread::scope(|threads| {
                let lists = threads.spawn(|| sorted().collect());
                self.fill(lanes);
                lists.join().unwrap_or_else(|panic| resume_unwind(panic))
            })
        };
        for (tenant, state, list) in lists {
            self.lists.entry(tenant).or_default().insert(state, list);
        }
    }

    fn fill(&mut self, lanes: Vec<(Lane, Vec<(Place, Waiting)>)>) {
        for (lane, ready) in lanes {
            if let Some(of) = self.lanes.get_mut(&lane) {
                of.fill(ready);
            }
        }
    }
}
