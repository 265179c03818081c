//! A transaction that writes: rows, the index rows that follow them, and what the index in memory will take over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use hodei_core::job::{Priority, State, rules};
use hodei_core::store::{Change, ChangeLog, Lane};
use hodei_core::text::Texts;
use hodei_core::{Clock, JobId, Result, Timestamp};
use redb::{ReadableTable, Table, WriteTransaction};

use crate::codec::{self, Head};
use crate::error::{corrupt, failed};
use crate::index::{Delta, Index, LaneState, LimitKey};
use crate::key;
use crate::recent::Recent;
use crate::rows::{Rows, Span};
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
    /// How many jobs the store takes.
    pub(crate) max_jobs: u64,
    /// Jobs that were submitted lately.
    pub(crate) recent: &'a Mutex<Recent>,
}

/// A transaction: its tables, opened as they are needed, and what it will have changed.
pub(crate) struct Work<'a, 'txn> {
    txn: &'txn WriteTransaction,
    tables: [Option<Open<'txn>>; Tab::ALL.len()],
    pub(crate) context: &'a Context<'a>,
    pub(super) next_change: u64,
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
        mut take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut read = 0;
        for row in self.table(tab)?.range::<&[u8]>(span.bounds()).map_err(failed("store.scan"))? {
            let (key, value) = row.map_err(failed("store.scan"))?;
            read += 1;
            if !take(key.value(), value.value())? {
                break;
            }
        }
        self.tally.read += read;
        Ok(())
    }
}

impl<'a, 'txn> Work<'a, 'txn> {
    /// Begins.
    pub(crate) fn new(txn: &'txn WriteTransaction, context: &'a Context<'a>) -> Self {
        Self {
            txn,
            tables: [const { None }; Tab::ALL.len()],
            context,
            next_change: lock(context.index).next_change,
            delta: Delta::default(),
            tally: Tally::default(),
            now: context.clock.now(),
        }
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

    /// Writes the counts that changed; at the end, once for all verbs.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let rows: Vec<_> = {
            let index = lock(self.context.index);
            let counts = |(tenant, delta): (&hodei_core::Tenant, _)| {
                (tenant.clone(), index.counts_with(tenant, delta))
            };
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

    /// Records a change.
    pub(super) fn record(&mut self, change: &Change) -> Result<()> {
        if self.context.changes.records(change) {
            self.put(Tab::Changes, &key::sequence(self.next_change), &codec::change_row(change)?)?;
            self.next_change += 1;
            self.delta.changes += 1;
        }
        Ok(())
    }

    pub(super) fn put_head(&mut self, head: &Head) -> Result<()> {
        let row = codec::head_row(head)?;
        self.put(Tab::Heads, head.job.id.as_bytes(), &row)
    }

    /// Writes a job that moved from what it was, with every index row that the move touches.
    pub(super) fn save(&mut self, was: &Was, head: &Head, change: Option<&Change>) -> Result<()> {
        let job = &head.job;
        self.put_head(head)?;
        if let Some(settled) = &job.settled {
            self.put(Tab::Ends, job.id.as_bytes(), &codec::end_row(settled)?)?;
        }
        if was.state != job.state {
            self.remove(Tab::ByState, &key::by_state(&job.tenant, was.state, job.created_at, job.id))?;
            self.put(Tab::ByState, &key::by_state(&job.tenant, job.state, job.created_at, job.id), &[])?;
            self.delta.moved(&job.tenant, Some(was.state), Some(job.state));
            if was.state == State::Pending {
                self.leave_lane(was, head)?;
            }
            if job.state == State::Pending {
                self.enter_lane(head, None)?;
            }
        }
        self.save_lease(was, head)?;
        change.map_or(Ok(()), |change| self.record(change))
    }

    fn save_lease(&mut self, was: &Was, head: &Head) -> Result<()> {
        let job = &head.job;
        if was.lease != job.lease {
            if let Some(lease) = &was.lease {
                self.remove(Tab::Leases, &key::lease(lease, job.id))?;
            }
            if let Some(lease) = &job.lease {
                self.put(Tab::Leases, &key::lease(lease, job.id), &[])?;
            }
        }
        match (was.lease.is_some(), job.lease.is_some()) {
            (false, true) => self.delta.uses(&job.tenant, &head.limit_keys, 1),
            (true, false) => self.delta.uses(&job.tenant, &head.limit_keys, -1),
            _ => {}
        }
        if let (true, false, Some(lease)) = (was.cancel_requested, job.cancel_requested, &was.lease) {
            self.remove(Tab::Cancels, &key::lease(lease, job.id))?;
        }
        if let (false, true, Some(lease)) = (was.cancel_requested, job.cancel_requested, &job.lease) {
            let row = codec::number_row(job.epoch.number())?;
            self.put(Tab::Cancels, &key::lease(lease, job.id), &row)?;
            self.delta.ring = true;
        }
        Ok(())
    }

    /// Puts a pending job where it waits: in its lane, or with those whose time has not come.
    pub(super) fn enter_lane(
        &mut self,
        head: &Head,
        request: Option<&Arc<hodei_core::job::JobSpec>>,
    ) -> Result<()> {
        let job = &head.job;
        let lane = key::lane(job.tenant.as_str(), head.queue.as_str(), head.class.number());
        self.know_lane(&lane, head, request)?;
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

    fn leave_lane(&mut self, was: &Was, head: &Head) -> Result<()> {
        let job = &head.job;
        let lane = key::lane(job.tenant.as_str(), head.queue.as_str(), head.class.number());
        if let Some(deadline) = was.deadline {
            self.remove(Tab::Deadlines, &key::at(deadline, job.id))?;
        }
        let ready = key::ready(lane.clone(), head.priority, was.eligible_at, job.id);
        if self.remove(Tab::Ready, &ready)? {
            self.delta.ready(&lane, head.priority, -1);
        } else if self.remove(Tab::Due, &key::at(was.eligible_at, job.id))? {
            self.delta.waiting(&lane, -1);
        } else {
            return Err(corrupt("store.lane", "a pending job outside its lane").with("job", job.id));
        }
        Ok(())
    }

    /// Writes what a lane asks of a worker, unless it is known.
    fn know_lane(
        &mut self,
        lane: &[u8],
        head: &Head,
        spec: Option<&Arc<hodei_core::job::JobSpec>>,
    ) -> Result<()> {
        let gone = self.delta.gone_lanes.iter().position(|gone| gone == lane);
        let known = gone.is_none()
            && (self.delta.new_lanes.contains_key(lane) || lock(self.context.index).lanes.contains_key(lane));
        if known {
            return Ok(());
        }
        let request = match spec {
            Some(spec) => spec.request(),
            None => self.fixed(head.job.id)?.spec.request(),
        };
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

    /// Returns how many leased jobs count against a limit, those of this transaction included.
    pub(super) fn uses(&self, of: &LimitKey) -> u64 {
        let committed = lock(self.context.index).in_use.get(of).copied().unwrap_or(0);
        committed.saturating_add_signed(self.delta.in_use.get(of).copied().unwrap_or(0))
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
                let change = rules::parent_settled(&mut head.job, requires, state, self.now);
                match change {
                    Some(change) => {
                        self.save(&was, &head, Some(&change))?;
                        if head.job.state.is_terminal() {
                            to_tell.push_back((child, head.job.state));
                        }
                        changes.push(change);
                    }
                    None if head.job.waits_for != was.waits_for => self.put_head(&head)?,
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Writes a transition, and tells the children when it was the last.
    pub(super) fn transit(
        &mut self,
        was: &Was,
        head: &Head,
        change: Change,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        self.save(was, head, Some(&change))?;
        changes.push(change);
        if head.job.state.is_terminal() {
            self.cascade((head.job.id, head.job.state), changes)?;
        }
        Ok(())
    }
}

/// What of a job decides which index rows it had.
pub(super) struct Was {
    pub(super) state: State,
    pub(super) eligible_at: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    pub(super) lease: Option<hodei_core::job::Lease>,
    pub(super) cancel_requested: bool,
    pub(super) waits_for: u32,
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
            waits_for: job.waits_for,
        }
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
