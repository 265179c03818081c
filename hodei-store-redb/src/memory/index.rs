//! The index as of the last commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hodei_core::job::{Epoch, Lease, Priority, State};
use hodei_core::map::{IdState, JobSet};
use hodei_core::store::{Counts, Lane, QueueTally, Scope};
use hodei_core::text::Texts;
use hodei_core::{JobId, Result, Tenant, Timestamp};

use super::delta::{Delta, Step};
use super::lane::{LaneState, Place, Waiting};
use super::rates::Rates;
use super::slots::Slots;
use super::standing::{Standing, place_of};
use super::uncounted::Uncounted;
use super::wide::Wide;
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::key;
use crate::reader::Snapshot;
use crate::rows::{Rows, Span};
use crate::table::{META_COUNTING, META_FLOOR, META_INCARNATION, META_MOVED, Tab};

/// Which limit: a tenant and a key.
pub(crate) type LimitKey = (Tenant, Box<str>);

/// The lists of a tenant's open jobs: by state, in the order of their creation.
pub(super) type Lists = BTreeMap<State, BTreeSet<(Timestamp, JobId)>>;

/// How many delayed jobs come into their lanes in one go. Whoever asks for lanes is told that more are due, and asks again.
const PROMOTE_MAX: usize = 10_000;

/// Returns the limits of keys that jobs with these count against.
pub(crate) fn limits_of(tenant: &Tenant, keys: &Texts) -> impl Iterator<Item = LimitKey> {
    keys.iter().map(|key| (tenant.clone(), key.into()))
}

/// What is kept in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// By tenant.
    pub(crate) counts: BTreeMap<Tenant, Counts>,
    /// By tenant and queue.
    pub(crate) queues: QueueTally,
    /// By tenant: those that no queue's count has yet.
    pub(crate) uncounted: BTreeMap<Tenant, Counts>,
    /// Which jobs those are; nothing in a file that is counted.
    pub(crate) counting: Option<Uncounted>,
    /// How many jobs of all tenants are in each state.
    pub(crate) all: [u64; State::ALL.len()],
    /// Pending jobs that are not as they were born: each has a row of what moves.
    pub(super) moved: JobSet,
    /// How many there are, those out of sight included.
    pub(crate) moved_rows: u64,
    /// Where pending jobs wait.
    pub(crate) lanes: HashMap<Lane, LaneState, IdState>,
    /// Pending jobs whose time has not come, with their lanes.
    pub(super) due: BTreeMap<(Timestamp, JobId), (Lane, Place, Waiting)>,
    /// Pending jobs that fail unless they are claimed in time.
    pub(crate) deadlines: BTreeSet<(Timestamp, JobId)>,
    pub(super) lists: BTreeMap<Tenant, Lists>,
    /// What each owner holds.
    pub(crate) leases: BTreeMap<Lease, BTreeSet<JobId>>,
    /// Running jobs that somebody asked to stop, by owner.
    pub(crate) cancels: BTreeMap<Lease, BTreeMap<JobId, Epoch>>,
    /// How many leased jobs count against a limit, set or not; never zero.
    pub(crate) in_use: HashMap<LimitKey, u64, IdState>,
    /// The limits that are wider than a key.
    pub(crate) wide: Wide,
    /// The rates of limits.
    pub(crate) rates: Rates,
    /// How many open jobs each row of [`Tab::Open`] still names; never zero.
    pub(crate) batches: BTreeMap<u64, u32>,
    /// The number of the next such row.
    pub(crate) next_batch: u64,
    /// The number of the next change.
    pub(crate) next_change: u64,
    /// The number of the first change that is kept.
    pub(crate) floor: u64,
    /// The last incarnation that was given out.
    pub(crate) incarnation: u64,
    /// Where the next pruning of jobs goes on in [`Tab::Ended`].
    pub(crate) prune_from: Vec<u8>,
    /// Which slots are not open.
    pub(crate) slots: Slots,
    /// No id of a job is higher.
    pub(crate) highest: Option<JobId>,
    /// What the clock said last.
    pub(crate) seen: Option<Timestamp>,
    /// The latest that it ever said: what was due by then is ready.
    pub(crate) latest: Option<Timestamp>,
}

pub(super) fn add(number: u64, change: i64) -> u64 {
    number.saturating_add_signed(change)
}

impl Index {
    /// Returns the counts of a tenant with what a transaction changes of them.
    pub(crate) fn counts_with(&self, tenant: &Tenant, delta: &[i64; State::ALL.len()]) -> Counts {
        let now = self.counts.get(tenant).copied().unwrap_or_default();
        Counts::from_numbers(State::ALL.map(|state| add(now.of(state), delta[state as usize])))
    }

    /// Returns how many jobs there are.
    pub(crate) fn total(&self) -> u64 {
        self.all.iter().sum()
    }

    /// Returns how many jobs of a scope are in each state.
    pub(crate) fn counts_of(&self, scope: &Scope) -> Counts {
        match scope {
            Scope::Tenant(tenant) => self.counts.get(tenant).copied().unwrap_or_default(),
            Scope::All => Counts::from_numbers(self.all),
        }
    }

    /// Returns the list of a tenant's open jobs in a state.
    pub(crate) fn list(&self, tenant: &Tenant, state: State) -> Option<&BTreeSet<(Timestamp, JobId)>> {
        self.lists.get(tenant)?.get(&state)
    }

    /// Says whether a job that is as it was born is known as such.
    pub(crate) fn confirms(&self, head: &Head) -> bool {
        let job = &head.job;
        let list = self.list(&job.tenant, State::Pending);
        list.is_some_and(|list| list.contains(&(job.created_at, job.id))) && !self.moved.contains(&job.id)
    }

    /// Moves delayed jobs whose time has come into their lanes, at most [`PROMOTE_MAX`], and says whether more are due.
    pub(crate) fn promote(&mut self, now: Timestamp) -> bool {
        for _ in 0..PROMOTE_MAX {
            let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) else {
                return false;
            };
            let (lane, place, waiting) = first.remove();
            if let Some(lane) = self.lanes.get_mut(&lane) {
                lane.waiting -= 1;
                lane.insert(place, waiting);
            }
        }
        true
    }

    /// Says whether a pending job waits for its time.
    pub(crate) fn delays(&self) -> bool {
        !self.due.is_empty()
    }

    /// Returns when the next delayed job becomes ready, where a transaction has changed so much.
    pub(crate) fn next_due(&self, delta: &Delta) -> Option<Timestamp> {
        let stays = |((at, id), _): (&(Timestamp, JobId), _)| (!delta.has_left(*id)).then_some(*at);
        let first = self.due.iter().find_map(stays);
        [first, delta.first_due()].into_iter().flatten().min()
    }

    /// Returns the first jobs of a lane that can be claimed, behind a place and of at least a level, at most so many,
    /// where a transaction has changed so much.
    pub(crate) fn candidates(
        &self,
        delta: &Delta,
        lane: &Lane,
        floor: Priority,
        after: Option<Place>,
        most: usize,
    ) -> Vec<(Place, Waiting)> {
        let stays = |(place, _): &(Place, Waiting)| !delta.has_left(place.id);
        let stored = self.lanes.get(lane).map(|lane| lane.behind(after).filter(stays));
        let mut stored = stored.into_iter().flatten().peekable();
        let behind = |(place, _): &(&Place, &Waiting)| after.is_none_or(|after| **place > after);
        let added = delta.added(lane).map(|lane| lane.iter().filter(behind));
        let mut added = added.into_iter().flatten().map(|(place, waiting)| (*place, *waiting)).peekable();
        let mut found = Vec::new();
        while found.len() < most {
            let from_added = match (stored.peek(), added.peek()) {
                (Some(stored), Some(added)) => added.0 < stored.0,
                (stored, _) => stored.is_none(),
            };
            let next = if from_added { added.next() } else { stored.next() };
            match next.filter(|(place, _)| place.is_at_least(floor)) {
                Some(next) => found.push(next),
                None => break,
            }
        }
        found
    }

    /// Returns the first jobs of a lane behind a place that are as they were born, at most so many.
    pub(crate) fn first_newborn(&self, lane: &Lane, after: Place, most: usize) -> Vec<JobId> {
        let waiting = self.lanes.get(lane).into_iter().flat_map(|lane| lane.behind(Some(after))).take(most);
        waiting.filter(|(_, waiting)| waiting.newborn).map(|(place, _)| place.id).collect()
    }

    /// Takes over what a committed transaction changed.
    pub(crate) fn apply(&mut self, delta: &Delta) {
        for (tenant, change) in &delta.counts {
            let counts = self.counts_with(tenant, change);
            self.all.iter_mut().zip(change).for_each(|(all, change)| *all = add(*all, *change));
            if counts.total() == 0 {
                self.counts.remove(tenant);
            } else {
                self.counts.insert(tenant.clone(), counts);
            }
        }
        self.apply_queues(&delta.queues);
        self.apply_uncounted(&delta.uncounted);
        for (lane, request) in &delta.new_lanes {
            self.know(lane, request);
        }
        self.next_batch += delta.opened.len().div_ceil(super::BATCH) as u64;
        let mut lane = None;
        delta.steps.iter().for_each(|step| self.step(step, delta.now, &mut lane));
        for (key, change) in &delta.in_use {
            let uses = add(self.in_use.get(key).copied().unwrap_or(0), *change);
            if uses == 0 {
                self.in_use.remove(key);
            } else {
                self.in_use.insert(key.clone(), uses);
            }
        }
        self.wide.apply(&delta.wide);
        self.rates.apply(&delta.rates);
        if delta.forget_idle {
            self.lanes.retain(|_, lane| !lane.is_idle());
        }
        if let Some(from) = &delta.prune_from {
            self.prune_from.clone_from(from);
        }
        self.apply_slots(delta);
        self.moved_rows = add(self.moved_rows, delta.moved_rows);
        self.seen = delta.seen.or(self.seen);
        self.latest = self.latest.max(delta.seen);
        self.next_change += delta.changes;
        self.floor = delta.floor.unwrap_or(self.floor);
        self.incarnation = delta.incarnation.unwrap_or(self.incarnation);
    }

    pub(super) fn know(&mut self, lane: &Lane, request: &Arc<hodei_core::job::Request>) {
        if !self.lanes.contains_key(lane) {
            self.lanes.insert(lane.clone(), LaneState::new(Arc::clone(request)));
        }
    }

    /// Takes over a step; `lane` is that of the step before, which most have too.
    fn step(&mut self, Step { was, head }: &Step, now: Timestamp, lane: &mut Option<Lane>) {
        let job = &head.job;
        if was.is_none() {
            self.highest = self.highest.max(Some(job.id));
        }
        let was = was.as_ref();
        self.step_list(was, head);
        if head.waits_again() {
            self.moved.insert(job.id);
        } else if was.is_some_and(Standing::waits_again) {
            self.moved.remove(&job.id);
        }
        self.step_place(was, head, now, lane);
        self.step_lease(was, head);
        let (before, after) = (was.filter(|was| was.is_open()).map(|was| was.batch), head.open_batch());
        if before != after {
            if let Some(before) = before {
                match self.batches.get_mut(&before) {
                    Some(left) if *left > 1 => *left -= 1,
                    _ => drop(self.batches.remove(&before)),
                }
            }
            if let Some(after) = after {
                *self.batches.entry(after).or_default() += 1;
            }
        }
    }

    fn step_list(&mut self, was: Option<&Standing>, head: &Head) {
        let job = &head.job;
        let before = was.filter(|was| was.is_open()).map(|was| was.state);
        let after = Some(job.state).filter(|state| !state.is_terminal());
        if before == after {
            return;
        }
        if !self.lists.contains_key(&job.tenant) {
            self.lists.insert(job.tenant.clone(), Lists::new());
        }
        let Some(lists) = self.lists.get_mut(&job.tenant) else { return };
        if let Some(before) = before
            && let Some(list) = lists.get_mut(&before)
        {
            list.remove(&(job.created_at, job.id));
            if list.is_empty() {
                lists.remove(&before);
            }
        }
        match after {
            Some(after) => {
                lists.entry(after).or_default().insert((job.created_at, job.id));
            }
            None if lists.is_empty() => drop(self.lists.remove(&job.tenant)),
            None => {}
        }
    }

    fn step_place(&mut self, was: Option<&Standing>, head: &Head, now: Timestamp, last: &mut Option<Lane>) {
        let id = head.job.id;
        let (before, after) = (was.and_then(|was| was.place(head)), place_of(head));
        if let Some(at) = was.and_then(Standing::deadline) {
            self.deadlines.remove(&(at, id));
        }
        if before.is_none() && after.is_none() {
            return;
        }
        let lane = match last {
            Some(last) if head.is_in(last) => last,
            _ => last.insert(head.lane()),
        };
        let Some(of) = self.lanes.get_mut(lane) else { return };
        if let Some(place) = before
            && !of.remove(&place)
            && self.due.remove(&(place.eligible_at, id)).is_some()
        {
            of.waiting -= 1;
        }
        let Some((place, waiting)) = after else { return };
        if let Some(at) = waiting.deadline {
            self.deadlines.insert((at, id));
        }
        if place.eligible_at <= now {
            of.insert(place, waiting);
        } else {
            of.waiting += 1;
            self.due.insert((place.eligible_at, id), (lane.clone(), place, waiting));
        }
    }

    pub(super) fn step_lease(&mut self, was: Option<&Standing>, head: &Head) {
        let job = &head.job;
        let before = was.and_then(|was| was.lease.as_ref());
        if before != job.lease.as_ref() {
            if let Some(lease) = before
                && let Some(held) = self.leases.get_mut(lease)
            {
                held.remove(&job.id);
                if held.is_empty() {
                    self.leases.remove(lease);
                }
            }
            if let Some(lease) = &job.lease {
                match self.leases.get_mut(lease) {
                    Some(held) => held.insert(job.id),
                    None => self.leases.insert(lease.clone(), BTreeSet::from([job.id])).is_none(),
                };
            }
        }
        if let Some(lease) = before.filter(|_| was.is_some_and(|was| was.cancel_requested))
            && let Some(asked) = self.cancels.get_mut(lease)
        {
            asked.remove(&job.id);
            if asked.is_empty() {
                self.cancels.remove(lease);
            }
        }
        if let Some(lease) = job.lease.as_ref().filter(|_| job.cancel_requested) {
            self.cancels.entry(lease.clone()).or_default().insert(job.id, job.epoch);
        }
    }

    /// Reads the index from the rows, with another reader of them where there is one.
    pub(crate) fn read(rows: &mut impl Rows, ahead: Option<Snapshot<'_>>, now: Timestamp) -> Result<Self> {
        let mut index = Self::default();
        let counting = rows.read(Tab::Meta, META_COUNTING, Uncounted::read)?;
        index.counting = counting;
        rows.scan(Tab::Counts, Span::ALL, |key, row| {
            let (tenant, queue, counts) = codec::counted(key, row)?;
            index.all.iter_mut().zip(State::ALL).for_each(|(all, state)| *all += counts.of(state));
            match queue {
                Some(queue) => index.queues.set(&tenant, &queue, counts),
                None if counting.is_some() => drop(index.uncounted.insert(tenant.clone(), counts)),
                None => return Err(corrupt("index.read", "a count of no queue")),
            }
            let of_tenant = index.counts.entry(tenant).or_default();
            *of_tenant = of_tenant.plus(counts);
            Ok(true)
        })?;
        index.floor = rows.read(Tab::Meta, META_FLOOR, codec::number)?.unwrap_or(1);
        index.incarnation = rows.read(Tab::Meta, META_INCARNATION, codec::number)?.unwrap_or(0);
        index.next_change = next_change(rows)?.unwrap_or(index.floor).max(index.floor);
        index.highest = rows.at_or_before(Tab::Born, &[u8::MAX; 16], |key, _| {
            key::last_id(key).ok_or_else(|| corrupt("index.read", "a short key"))
        })?;
        let mut slots_from = 0;
        rows.scan(Tab::Slots, Span::ALL, |key, row| {
            let slot = key::slot_of(key).ok_or_else(|| corrupt("index.read", "a bad slot"))?;
            let moving = codec::slot(row)?;
            slots_from = moving.from.max(slots_from);
            index.slots.set(slot, moving);
            Ok(true)
        })?;
        index.wide = Wide::read(rows, &index.slots, None)?;
        index.rates = Rates::read(rows, &index.slots, None)?;
        index.read_open(rows, ahead, now)?;
        // What comes of a slot is looked for from where it began, also where all that was named before has ended.
        index.next_batch = index.next_batch.max(slots_from);
        // A file that was not opened since this is counted says nothing of it.
        let moved = rows.read(Tab::Meta, META_MOVED, codec::number)?;
        index.check_counts(moved)?;
        Ok(index)
    }

    /// Holds what was found open to what was counted: a job whose row was lost would be found as it was born.
    fn check_counts(&self, moved: Option<u64>) -> Result<()> {
        let open = || State::ALL.into_iter().filter(|state| !state.is_terminal());
        let agrees = |(tenant, counts): (&Tenant, &Counts)| {
            let found = |state| self.list(tenant, state).map_or(0, |list| list.len() as u64);
            open().all(|state| counts.of(state) == found(state))
        };
        let counted = self.lists.keys().all(|tenant| self.counts.contains_key(tenant));
        let as_often = moved.is_none_or(|moved| moved == self.moved_rows);
        if counted && as_often && self.counts.iter().all(agrees) {
            Ok(())
        } else {
            Err(corrupt("index.read", "other open jobs than were counted"))
        }
    }

    /// Takes over what an older index remembers and the rows do not say: what is behind everything that was ever there.
    pub(crate) fn remember(&mut self, older: &Self) {
        self.next_batch = self.next_batch.max(older.next_batch);
        self.highest = self.highest.max(older.highest);
        self.prune_from.clone_from(&older.prune_from);
        (self.seen, self.latest) = (older.seen, older.latest);
    }
}

/// Returns the number that follows that of the last change.
fn next_change(rows: &mut impl Rows) -> Result<Option<u64>> {
    rows.at_or_before(Tab::Changes, &key::sequence(u64::MAX), |key, row| {
        let first = key::sequence_of(key).ok_or_else(|| corrupt("index.read", "a short key"))?;
        let next = first.checked_add(codec::changes(row)?.len() as u64);
        next.ok_or_else(|| corrupt("index.read", "a number too high"))
    })
}

#[cfg(test)]
mod tests {
    use hodei_core::job::{JobSpec, NewJob, rules};

    use super::*;

    #[test]
    fn a_job_that_has_moved_is_not_confirmed_as_it_was_born() {
        let new = NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"));
        let born = Head::of(rules::admit(new, Timestamp::EPOCH).0, 1);
        let mut index = Index::default();
        let take = |index: &mut Index, was: Option<&Head>, head: &Head| {
            let mut delta = Delta::default();
            delta.steps.push(Box::new(Step { was: was.map(Standing::of), head: head.clone() }));
            index.apply(&delta);
        };
        take(&mut index, None, &born);
        assert!(index.confirms(&born));
        let mut back = born.clone();
        (back.job.version, back.job.attempt) = (4, 1);
        take(&mut index, Some(&born), &back);
        assert!(!index.confirms(&born), "its row was lost, it was not born again");
        let mut held = back.clone();
        held.job.state = State::Running;
        take(&mut index, Some(&back), &held);
        assert!(index.moved.is_empty());
    }
}
