//! A transaction that writes: rows, the index rows that follow them, and what the index in memory will take over.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use hodei_core::job::{Lease, Priority, State, rules};
use hodei_core::store::{Change, ChangeLog, Counts, Feeds, Lane};
use hodei_core::text::Texts;
use hodei_core::{Clock, JobId, Result, Tenant, Timestamp};
use redb::{ReadableTable, Table, WriteTransaction};

use super::submit::Room;
use crate::codec::{self, Fixed, Head};
use crate::error::{corrupt, failed};
use crate::index::{Delta, Index, LaneState, LimitKey};
use crate::key;
use crate::recent::Recent;
use crate::rows::{self, Rows, Span};
use crate::stats::Tally;
use crate::sync::lock;
use crate::table::Tab;

type Open<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// What the writer lends to every transaction.
pub(crate) struct Context<'a> {
    /// As of the last commit.
    pub(crate) index: &'a Mutex<Index>,
    /// The store's clock.
    pub(crate) clock: &'a dyn Clock,
    /// Which changes are recorded.
    pub(crate) changes: ChangeLog,
    /// Who is told what is committed.
    pub(crate) feeds: &'a Feeds,
    /// How many jobs the store takes.
    pub(crate) room: Room,
    /// Jobs that were submitted lately.
    pub(crate) recent: &'a Mutex<Recent>,
}

/// A transaction: its tables, opened as they are needed, and what it will have changed.
pub(crate) struct Work<'a, 'txn> {
    txn: &'txn WriteTransaction,
    tables: [Option<Open<'txn>>; Tab::ALL.len()],
    pub(crate) context: &'a Context<'a>,
    pub(super) next_change: u64,
    /// Changes whose rows are still to be written, up to `next_change`.
    log: Vec<Change>,
    /// Jobs whose rows are still to be written.
    moved: HashMap<JobId, Moved>,
    /// What the index will take over.
    pub(crate) delta: Delta,
    /// What was read and written.
    pub(crate) tally: Tally,
    /// Now, on the store's clock.
    pub(crate) now: Timestamp,
}

impl Rows for Work<'_, '_> {
    fn read<R>(&mut self, tab: Tab, key: &[u8], take: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        self.tally.read += 1;
        let row = self.table(tab)?.get(key).map_err(failed("store.read"))?;
        row.map(|row| take(row.value())).transpose()
    }

    fn scan(
        &mut self,
        tab: Tab,
        span: Span<'_>,
        take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let read = rows::scan(self.table(tab)?, span, take)?;
        self.tally.read += read;
        Ok(())
    }

    fn at_or_before<R>(
        &mut self,
        tab: Tab,
        key: &[u8],
        take: impl FnOnce(&[u8], &[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        self.tally.read += 1;
        rows::at_or_before(self.table(tab)?, key, take)
    }

    fn head(&mut self, id: JobId) -> Result<Option<Head>> {
        if let Some(moved) = self.moved.get(&id) {
            return Ok(Some(moved.head.clone()));
        }
        self.read(Tab::Heads, id.as_bytes(), |bytes| codec::head(id, bytes))
    }

    fn fixed(&mut self, id: JobId) -> Result<Fixed> {
        let recent = self.context.recent;
        let fixed =
            self.read(Tab::Specs, id.as_bytes(), |row| codec::fixed(row, |spec| lock(recent).spec(spec)))?;
        let fixed = fixed.ok_or_else(|| corrupt("row.read", "a job without its spec").with("job", id))?;
        lock(recent).know(&fixed.spec);
        Ok(fixed)
    }
}

/// How many changes share a row.
const CHANGES_PER_ROW: usize = 32;

/// A job that moved, and what it was before; nothing when it is new.
struct Moved {
    was: Option<Was>,
    head: Head,
}

impl<'a, 'txn> Work<'a, 'txn> {
    /// Begins.
    pub(crate) fn new(txn: &'txn WriteTransaction, context: &'a Context<'a>) -> Self {
        Self {
            txn,
            tables: [const { None }; Tab::ALL.len()],
            context,
            next_change: lock(context.index).next_change,
            log: Vec::new(),
            moved: HashMap::new(),
            delta: Delta::default(),
            tally: Tally::default(),
            now: context.clock.now(),
        }
    }

    /// Tells what has been done so far; another mark means that a verb has left something behind.
    pub(crate) fn mark(&self) -> (u64, u64, usize) {
        (self.tally.written, self.next_change, self.moved.len())
    }

    /// Looks at the clock, before each verb.
    pub(crate) fn tick(&mut self) {
        self.now = self.context.clock.now();
    }

    fn table(&mut self, tab: Tab) -> Result<&mut Open<'txn>> {
        let place = &mut self.tables[tab.number()];
        if place.is_none() {
            *place = Some(self.txn.open_table(tab.definition()).map_err(failed("store.table"))?);
        }
        place.as_mut().ok_or_else(|| corrupt("store.table", "no table"))
    }

    pub(super) fn put(&mut self, tab: Tab, key: &[u8], row: &[u8]) -> Result<()> {
        self.tally.written += 1;
        self.tally.bytes += (key.len() + row.len()) as u64;
        self.table(tab)?.insert(key, row).map_err(failed("store.write"))?;
        Ok(())
    }

    /// Removes a row, and says whether there was one.
    pub(super) fn remove(&mut self, tab: Tab, key: &[u8]) -> Result<bool> {
        let there = self.table(tab)?.remove(key).map_err(failed("store.write"))?.is_some();
        self.tally.written += u64::from(there);
        Ok(there)
    }

    /// Notes a change: it will be recorded, published and counted.
    pub(super) fn note(&mut self, change: Change, changes: &mut Vec<Change>) {
        self.delta.moved(&change.tenant, change.from, Some(change.to));
        if self.context.changes.records(&change) {
            self.log.push(change.clone());
            self.next_change += 1;
            self.delta.changes += 1;
        }
        if !self.context.feeds.is_empty() {
            self.delta.committed.push(change.clone());
        }
        changes.push(change);
    }

    /// Keeps a job as it is now until its rows are written.
    pub(super) fn keep(&mut self, was: Option<Was>, head: Head) {
        match self.moved.entry(head.job.id) {
            Entry::Occupied(mut before) => before.get_mut().head = head,
            Entry::Vacant(place) => {
                place.insert(Moved { was, head });
            }
        }
    }

    /// Makes a transition, and tells the children when it was the last.
    pub(super) fn transit(
        &mut self,
        was: Was,
        head: Head,
        change: Change,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let job = &head.job;
        let told = (job.state.is_terminal() && head.has_children).then_some((job.id, job.state));
        self.note(change, changes);
        self.keep(Some(was), head);
        told.map_or(Ok(()), |settled| self.cascade(settled, changes))
    }

    /// Tells the children of jobs that have settled, and their children in turn.
    fn cascade(&mut self, settled: (JobId, State), changes: &mut Vec<Change>) -> Result<()> {
        let mut to_tell = VecDeque::from([settled]);
        while let Some((parent, state)) = to_tell.pop_front() {
            let mut children = Vec::new();
            self.scan_prefix(Tab::Children, parent.as_bytes(), |key, row| {
                let (requires, told) = codec::edge(row)?;
                if !told {
                    let child = key::last_id(key).ok_or_else(|| corrupt("store.children", "a short key"))?;
                    children.push((child, requires));
                }
                Ok(true)
            })?;
            for (child, requires) in children {
                self.put(Tab::Children, &key::child(parent, child), &codec::edge_row(requires, true)?)?;
                let Some(mut head) = self.head(child)? else { continue };
                let was = Was::of(&head);
                let waited_for = head.job.waits_for;
                let change = rules::parent_settled(&mut head.job, requires, state, self.now);
                if change.is_none() && head.job.waits_for == waited_for {
                    continue;
                }
                if head.job.state.is_terminal() && head.has_children {
                    to_tell.push_back((child, head.job.state));
                }
                self.keep(Some(was), head);
                change.into_iter().for_each(|change| self.note(change, changes));
            }
        }
        Ok(())
    }

    /// Writes the rows of the jobs that moved, with every index row that their moves touch; table by table, in the
    /// order of the ids, so that neighbouring rows are written one after the other.
    ///
    /// A job that moved more than once since the last time costs what it would have cost moving once.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        let mut moved: Vec<Moved> = self.moved.drain().map(|(_, moved)| moved).collect();
        moved.sort_unstable_by_key(|moved| moved.head.job.id);
        for Moved { head, .. } in &mut moved {
            self.write_head(head)?;
        }
        for Moved { was, head } in &moved {
            self.write_state(was.as_ref(), head)?;
        }
        for Moved { was, head } in &moved {
            self.write_place(was.as_ref(), head)?;
        }
        for Moved { was, head } in &moved {
            self.write_lease(was.as_ref(), head)?;
        }
        Ok(())
    }

    /// Says whether every change so far has its row.
    pub(super) fn nothing_to_log(&self) -> bool {
        self.log.is_empty()
    }

    /// Writes what a transaction writes once for all verbs: the changes, and the counts.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let log = std::mem::take(&mut self.log);
        let mut number = self.next_change - log.len() as u64;
        for changes in log.chunks(CHANGES_PER_ROW) {
            self.put(Tab::Changes, &key::sequence(number), &codec::changes_row(changes)?)?;
            number += changes.len() as u64;
        }
        let rows: Vec<_> = {
            let index = lock(self.context.index);
            let counts = |(tenant, delta): (&Tenant, _)| (tenant.clone(), index.counts_with(tenant, delta));
            self.delta.counts.iter().map(counts).collect()
        };
        for (tenant, counts) in rows {
            let key = key::tenant_prefix(&tenant);
            if counts.total() == 0 {
                self.remove(Tab::Counts, &key)?;
            } else {
                self.put(Tab::Counts, &key, &codec::counts_row(&tenant, &counts)?)?;
            }
        }
        Ok(())
    }

    fn write_head(&mut self, head: &mut Head) -> Result<()> {
        let id = head.job.id;
        if let Some(settled) = head.job.settled.clone() {
            let had_end = head.has_end;
            head.has_end = head.plain_end().as_ref() != Some(&settled);
            if head.has_end {
                self.put(Tab::Ends, id.as_bytes(), &codec::end_row(&settled)?)?;
            } else if had_end {
                self.remove(Tab::Ends, id.as_bytes())?;
            }
        }
        self.put(Tab::Heads, id.as_bytes(), &codec::head_row(head)?)
    }

    fn write_state(&mut self, was: Option<&Was>, head: &Head) -> Result<()> {
        let job = &head.job;
        let before = was.map(|was| was.state);
        if before == Some(job.state) {
            return Ok(());
        }
        if let Some(before) = before {
            self.remove(Tab::ByState, &key::by_state(&job.tenant, before, job.created_at, job.id))?;
        }
        self.put(Tab::ByState, &key::by_state(&job.tenant, job.state, job.created_at, job.id), &[])
    }

    /// Moves a job between its lane and those that do not wait in one.
    fn write_place(&mut self, was: Option<&Was>, head: &Head) -> Result<()> {
        let before = was.and_then(Was::place);
        let after = Was::of(head).place();
        if before == after {
            return Ok(());
        }
        if let Some((eligible_at, deadline)) = before {
            self.leave_lane(head, eligible_at, deadline)?;
        }
        if after.is_some() { self.enter_lane(head) } else { Ok(()) }
    }

    fn write_lease(&mut self, was: Option<&Was>, head: &Head) -> Result<()> {
        let job = &head.job;
        let before = was.and_then(|was| was.lease.as_ref());
        if before != job.lease.as_ref() {
            if let Some(lease) = before {
                self.remove(Tab::Leases, &key::lease(lease, job.id))?;
            }
            if let Some(lease) = &job.lease {
                self.put(Tab::Leases, &key::lease(lease, job.id), &[])?;
            }
        }
        match (before.is_some(), job.lease.is_some()) {
            (false, true) => self.delta.uses(&job.tenant, &head.limit_keys, 1),
            (true, false) => self.delta.uses(&job.tenant, &head.limit_keys, -1),
            _ => {}
        }
        let asked_before = was.is_some_and(|was| was.cancel_requested);
        if let (true, false, Some(lease)) = (asked_before, job.cancel_requested, before) {
            self.remove(Tab::Cancels, &key::lease(lease, job.id))?;
        }
        if let (false, true, Some(lease)) = (asked_before, job.cancel_requested, &job.lease) {
            let row = codec::number_row(job.epoch.number())?;
            self.put(Tab::Cancels, &key::lease(lease, job.id), &row)?;
            self.delta.ring = true;
        }
        Ok(())
    }

    /// Puts a pending job where it waits: in its lane, or with those whose time has not come.
    fn enter_lane(&mut self, head: &Head) -> Result<()> {
        let job = &head.job;
        let lane = key::lane(job.tenant.as_str(), head.queue.as_str(), head.class.number());
        self.know_lane(&lane, head)?;
        if let Some(deadline) = job.deadline {
            self.put(Tab::Deadlines, &key::at(deadline, job.id), &[])?;
        }
        let ready = key::ready(lane.clone(), head.priority, job.eligible_at, job.id);
        if job.eligible_at <= self.now {
            self.delta.ready(&lane, head.priority, 1);
            self.put(Tab::Ready, &ready, &[])
        } else {
            self.delta.waiting(&lane, 1);
            self.put(Tab::Due, &key::at(job.eligible_at, job.id), &codec::place_row(&ready)?)
        }
    }

    fn leave_lane(&mut self, head: &Head, eligible_at: Timestamp, deadline: Option<Timestamp>) -> Result<()> {
        let job = &head.job;
        let lane = key::lane(job.tenant.as_str(), head.queue.as_str(), head.class.number());
        if let Some(deadline) = deadline {
            self.remove(Tab::Deadlines, &key::at(deadline, job.id))?;
        }
        let ready = key::ready(lane.clone(), head.priority, eligible_at, job.id);
        if self.remove(Tab::Ready, &ready)? {
            self.delta.ready(&lane, head.priority, -1);
        } else if self.remove(Tab::Due, &key::at(eligible_at, job.id))? {
            self.delta.waiting(&lane, -1);
        } else {
            return Err(corrupt("store.lane", "a pending job outside its lane").with("job", job.id));
        }
        Ok(())
    }

    /// Writes what a lane asks of a worker, unless it is known.
    fn know_lane(&mut self, lane: &[u8], head: &Head) -> Result<()> {
        let gone = self.delta.gone_lanes.iter().position(|gone| gone == lane);
        let known = gone.is_none()
            && (self.delta.new_lanes.contains_key(lane) || lock(self.context.index).lanes.contains_key(lane));
        if known {
            return Ok(());
        }
        let request = self.fixed(head.job.id)?.spec.request();
        let of = Lane { tenant: head.job.tenant.clone(), queue: head.queue.clone(), class: head.class };
        self.put(Tab::Lanes, lane, &codec::lane_row(&of, &request)?)?;
        if let Some(gone) = gone {
            // It stays in the index, with nothing in it.
            self.delta.gone_lanes.swap_remove(gone);
            return Ok(());
        }
        let state = LaneState { lane: of, request: Arc::new(request), levels: BTreeMap::new(), waiting: 0 };
        self.delta.new_lanes.insert(lane.to_vec(), state);
        Ok(())
    }

    /// Returns the keys of the limits that hold a lane back; nothing when there is no such lane.
    pub(super) fn limit_keys(&self, lane: &[u8]) -> Option<Texts> {
        let new = self.delta.new_lanes.get(lane).map(|lane| lane.request.limit_keys.clone());
        new.or_else(|| lock(self.context.index).lanes.get(lane).map(|lane| lane.request.limit_keys.clone()))
    }

    /// Returns how many unsettled jobs a tenant has, those of this transaction included.
    pub(super) fn open_jobs(&self, tenant: &Tenant) -> u64 {
        let index = lock(self.context.index);
        match self.delta.counts.get(tenant) {
            Some(delta) => index.counts_with(tenant, delta).open(),
            None => index.counts.get(tenant).map_or(0, Counts::open),
        }
    }

    /// Returns how many leased jobs count against a limit, those of this transaction included.
    pub(super) fn uses(&self, of: &LimitKey) -> u64 {
        let committed = lock(self.context.index).in_use.get(of).copied().unwrap_or(0);
        committed.saturating_add_signed(self.delta.in_use.get(of).copied().unwrap_or(0))
    }
}

/// What of a job decides which index rows it had.
pub(super) struct Was {
    state: State,
    eligible_at: Timestamp,
    deadline: Option<Timestamp>,
    lease: Option<Lease>,
    cancel_requested: bool,
}

impl Was {
    pub(super) fn of(head: &Head) -> Self {
        let job = &head.job;
        Self {
            state: job.state,
            eligible_at: job.eligible_at,
            deadline: job.deadline,
            lease: job.lease.clone(),
            cancel_requested: job.cancel_requested,
        }
    }

    /// Returns where it waited to be claimed, if it did.
    fn place(&self) -> Option<(Timestamp, Option<Timestamp>)> {
        (self.state == State::Pending).then_some((self.eligible_at, self.deadline))
    }
}

/// Returns the first row's time of a table that is ordered by it.
pub(super) fn first_time(work: &mut Work<'_, '_>, tab: Tab) -> Result<Option<Timestamp>> {
    let mut first = None;
    work.scan(tab, Span::ALL, |key, _| {
        first = key::last_time(key);
        Ok(false)
    })?;
    Ok(first)
}

/// The level below which a pick takes nothing, as the last byte of a lane's prefix.
pub(super) const fn floor_byte(floor: Priority) -> u8 {
    Priority::MAX.level() - floor.level()
}
