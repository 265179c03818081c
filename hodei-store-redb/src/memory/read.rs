//! Reading what is open, and making the index of it in one go.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hodei_core::job::State;
use hodei_core::map::IdState;
use hodei_core::store::Lane;
use hodei_core::{JobId, Result, Slot, Tenant, Timestamp};

use super::index::{Index, limits_of};
use super::lane::{Place, Waiting};
use super::standing::place_of;
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::key;
use crate::rows::Rows;
use crate::table::Tab;

/// How many open jobs are looked up in one go: what is known of them half-way stays in the cache of the processor.
const READ_MAX: usize = 1_024;

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

impl Index {
    /// Reads what is open, of one slot or of all, as rows from a number on name it, so many jobs at a time. Nothing of it is
    /// known yet.
    pub(super) fn read_open(
        &mut self,
        rows: &mut impl Rows,
        now: Timestamp,
        mut from: u64,
        only: Option<Slot>,
    ) -> Result<()> {
        let mut bulk = Bulk::default();
        loop {
            let mut named: Vec<(JobId, u64)> = Vec::new();
            let (mut last, begin) = (None, key::sequence(from));
            rows.scan(Tab::Open, (Some(&begin[..]), None).into(), |key, row| {
                let batch = key::sequence_of(key).ok_or_else(|| corrupt("index.read", "a short key"))?;
                last = Some(batch);
                let ids = codec::ids(row)?.into_iter();
                let wanted = ids.filter(|id| only.is_none_or(|only| only == id.slot()));
                named.extend(wanted.map(|id| (id, batch)));
                Ok(named.len() < READ_MAX)
            })?;
            let Some(last) = last else { break };
            // A number that nothing can follow was never given out, and the next page would be the first again.
            from = last.checked_add(1).ok_or_else(|| corrupt("index.read", "a number too high"))?;
            self.next_batch = from;
            named.sort_unstable();
            // A job that was opened twice in one transaction is named twice.
            named.dedup();
            let ids: Vec<JobId> = named.iter().map(|(id, _)| *id).collect();
            for (head, (_, batch)) in rows.heads(&ids)?.into_iter().zip(named) {
                // What has ended is still named until its whole batch has; what went round again is named elsewhere too.
                if let Some(head) = head.filter(|head| head.open_batch() == Some(batch)) {
                    self.read_job(rows, &mut bulk, &head, now)?;
                }
            }
        }
        self.take_in(bulk);
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
        if place.eligible_at <= now {
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
        for (tenant, state, mut list) in bulk.lists {
            list.sort_unstable();
            self.lists.entry(tenant).or_default().insert(state, BTreeSet::from_iter(list));
        }
        for (lane, ready) in bulk.lanes {
            if let Some(of) = self.lanes.get_mut(&lane) {
                of.fill(ready);
            }
        }
    }
}
