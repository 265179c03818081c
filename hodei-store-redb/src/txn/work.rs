//! A transaction that writes: rows, the index rows that follow them, and what the index in memory will take over.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use hodei_core::job::{Requires, State, rules};
use hodei_core::map::JobMap;
use hodei_core::store::{Change, ChangeLog, Counts, Lane};
use hodei_core::{Clock, JobId, Name, Result, Tenant, Timestamp};
use redb::{ReadableTable, Table, WriteTransaction};

use super::append::Appends;
use super::submit::{Room, had_turn};
use crate::codec::{self, Fixed, Head, Names};
use crate::error::{corrupt, failed};
use crate::inner::Committed;
use crate::key;
use crate::memory::{BATCH, Delta, Index, Slots, Standing, Step, Uncounted};
use crate::recent::Recent;
use crate::rows::{self, Rows, Span};
use crate::stats::Tally;
use crate::sync::lock;
use crate::table::{META_MOVED, Tab};

type Open<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// What the writer lends to every transaction.
pub(crate) struct Context<'a> {
    /// As of the last commit.
    pub(crate) committed: &'a Mutex<Committed>,
    /// The store's clock.
    pub(crate) clock: &'a dyn Clock,
    /// Which changes are recorded.
    pub(crate) changes: ChangeLog,
    /// How many jobs the store takes.
    pub(crate) room: Room,
    /// Jobs that were submitted lately.
    pub(crate) recent: &'a Mutex<Recent>,
}

/// A transaction: its tables, opened as they are needed, and what it will have changed.
pub(crate) struct Work<'a, 'txn> {
    pub(super) txn: &'txn WriteTransaction,
    tables: [Option<Open<'txn>>; Tab::ALL.len()],
    pub(crate) context: &'a Context<'a>,
    pub(super) next_change: u64,
    /// Changes whose rows are still to be written, up to `next_change`.
    log: Vec<Change>,
    /// Jobs whose rows are still to be written.
    moved: JobMap<Box<Step>>,
    names: Names,
    /// The room in which rows are sealed.
    sealed: Vec<u8>,
    /// New rows that are written together, by table.
    appends: [Appends; Tab::ALL.len()],
    /// How many changes were noted.
    noted: u64,
    /// The highest id that was stored in this transaction.
    highest: Option<JobId>,
    /// The number of the first row of [`Tab::Open`] that it may write.
    first_batch: u64,
    /// Whether there is a limit that is wider than a key, or was when the transaction began.
    pub(super) has_wide: bool,
    /// Which jobs are still to be counted by queue.
    pub(super) counting: Option<Uncounted>,
    /// The lane that was last found to be known.
    known_lane: Option<Lane>,
    /// Whether it has the room of the steps that nobody needs any more.
    has_spare: bool,
    /// What the index will take over.
    pub(crate) delta: Delta,
    /// What was read and written.
    pub(crate) tally: Tally,
    /// Now, on the store's clock.
    pub(crate) now: Timestamp,
    /// Which slots are not open. What changes that has a transaction of its own.
    pub(crate) slots: Slots,
}

impl Rows for Work<'_, '_> {
    fn read<R>(&mut self, tab: Tab, key: &[u8], take: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        self.tally.read += 1;
        self.meet(tab, key)?;
        let row = self.table(tab)?.get(key).map_err(failed("store.read"))?;
        row.map(|row| take(codec::unseal(tab, key, row.value())?)).transpose()
    }

    fn scan(
        &mut self,
        tab: Tab,
        span: Span<'_>,
        take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let read = rows::scan(self.whole(tab)?, tab, span, take)?;
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
        rows::at_or_before(self.whole(tab)?, tab, key, take)
    }

    fn seek<'k>(
        &mut self,
        tab: Tab,
        keys: impl Iterator<Item = &'k [u8]>,
        take: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let read = rows::seek(self.whole(tab)?, tab, keys, take)?;
        self.tally.read += read;
        Ok(())
    }

    fn confirm(&mut self, head: Head) -> Result<Head> {
        let id = head.job.id;
        let known = self.look(|index| index.confirms(&head)) || self.delta.opened.contains(&id);
        // What is out of sight is not known as anything.
        if known || self.slots.hides(|| id.slot()) {
            Ok(head)
        } else {
            Err(corrupt("row.read", "a job whose moves are lost").with("job", id))
        }
    }

    fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    fn fixed(&mut self, id: JobId) -> Result<Fixed> {
        let recent = self.context.recent;
        let mut names = std::mem::take(self.names());
        let known = |row: &[u8]| codec::fixed(row, &mut names, |spec| lock(recent).spec(spec));
        let fixed = self.read(Tab::Born, id.as_bytes(), known)?;
        *self.names() = names;
        let fixed = fixed.ok_or_else(|| corrupt("row.read", "a job without its spec").with("job", id))?;
        lock(recent).know(&fixed.spec);
        Ok(fixed)
    }
}

/// How many changes share a row.
const CHANGES_PER_ROW: usize = 32;

impl<'a, 'txn> Work<'a, 'txn> {
    /// Begins.
    pub(crate) fn new(txn: &'txn WriteTransaction, context: &'a Context<'a>) -> Self {
        let (next_change, first_batch, has_wide, slots, counting, seen) = {
            let index = &lock(context.committed).index;
            (
                index.next_change,
                index.next_batch,
                !index.wide.is_empty(),
                index.slots.clone(),
                index.counting,
                index.seen,
            )
        };
        let mut delta = Delta::default();
        delta.seen = seen;
        Self {
            txn,
            tables: [const { None }; Tab::ALL.len()],
            context,
            next_change,
            first_batch,
            has_wide,
            counting,
            known_lane: None,
            has_spare: false,
            log: Vec::new(),
            moved: JobMap::default(),
            names: Names::default(),
            sealed: Vec::new(),
            appends: std::array::from_fn(|_| Appends::default()),
            noted: 0,
            highest: None,
            delta,
            tally: Tally::default(),
            now: context.clock.now(),
            slots,
        }
    }

    /// Tells what has been done so far; another mark means that a verb has left something behind.
    pub(crate) fn mark(&self) -> (u64, u64, usize, usize) {
        (self.tally.written, self.noted, self.delta.opened.len(), self.moved.len())
    }

    /// Makes room for so many jobs that will move.
    pub(super) fn expect(&mut self, jobs: usize) {
        self.moved.reserve(jobs);
    }

    fn table(&mut self, tab: Tab) -> Result<&mut Open<'txn>> {
        let place = &mut self.tables[tab.number()];
        if place.is_none() {
            *place = Some(self.txn.open_table(tab.definition()).map_err(failed("store.table"))?);
        }
        place.as_mut().ok_or_else(|| corrupt("store.table", "no table"))
    }

    /// Opens a table, with all that was appended to it.
    fn whole(&mut self, tab: Tab) -> Result<&mut Open<'txn>> {
        if !self.appends[tab.number()].is_empty() {
            let mut appends = std::mem::take(&mut self.appends[tab.number()]);
            appends.write(self.table(tab)?)?;
            self.appends[tab.number()] = appends;
        }
        self.table(tab)
    }

    /// Writes what was appended to a table, where a key may be among it.
    fn meet(&mut self, tab: Tab, key: &[u8]) -> Result<()> {
        if self.appends[tab.number()].may_have(key) {
            self.whole(tab)?;
        }
        Ok(())
    }

    /// Takes a row whose key is most likely new: it is written with others of its table, before anybody looks for it.
    pub(super) fn append(
        &mut self,
        tab: Tab,
        key: &[u8],
        make: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if !self.appends[tab.number()].has_room_for(key) {
            self.whole(tab)?;
        }
        let bytes = self.appends[tab.number()].take(tab, key, make)?;
        self.tally.written += 1;
        self.tally.bytes += bytes as u64;
        Ok(())
    }

    pub(crate) fn put(&mut self, tab: Tab, key: &[u8], row: &[u8]) -> Result<()> {
        self.write(tab, key, |into| {
            into.extend_from_slice(row);
            Ok(())
        })
    }

    /// Writes a row as it is made. The rows of indexes are empty and stay so.
    pub(super) fn write(
        &mut self,
        tab: Tab,
        key: &[u8],
        make: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.clear();
        make(&mut sealed)?;
        if !sealed.is_empty() {
            codec::bind(tab, key, &mut sealed);
        }
        self.tally.written += 1;
        self.tally.bytes += (key.len() + sealed.len()) as u64;
        self.meet(tab, key)?;
        self.table(tab)?.insert(key, sealed.as_slice()).map_err(failed("store.write"))?;
        self.sealed = sealed;
        Ok(())
    }

    /// Removes a row, and says whether there was one.
    pub(super) fn remove(&mut self, tab: Tab, key: &[u8]) -> Result<bool> {
        self.meet(tab, key)?;
        let there = self.table(tab)?.remove(key).map_err(failed("store.write"))?.is_some();
        self.tally.written += u64::from(there);
        Ok(there)
    }

    /// Notes a change of a job of a queue: it will be recorded, told and counted. Most changes are made of a record whose
    /// spec was not read, so they do not know the queue themselves.
    pub(super) fn note(&mut self, change: Change, queue: &Name, changes: &mut Vec<Change>) {
        let change = Change { queue: Some(queue.clone()), ..change };
        self.noted += 1;
        let of = self.queue_counting(change.job, queue);
        self.delta.moved(&change.tenant, of, change.from, Some(change.to));
        if self.context.changes.records(&change) {
            self.log.push(change.clone());
            self.next_change += 1;
            self.delta.changes += 1;
        }
        if self.context.changes != ChangeLog::All {
            self.delta.committed.push(change.clone());
        }
        changes.push(change);
    }

    /// Looks at what is in memory, as of the last commit.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Index) -> R) -> R {
        look(&lock(self.context.committed).index)
    }

    /// Reads what moves of a job, as this transaction has left it.
    pub(super) fn current(&mut self, id: JobId) -> Result<Option<Head>> {
        if let Some(moved) = self.moved.get(&id) {
            return Ok(Some(moved.head.clone()));
        }
        let held = lock(self.context.recent).held(id);
        match held {
            Some(step) => Ok(Some(step.head)),
            None => self.head(id),
        }
    }

    /// Reads what moves of a job in order to move it: a step from where it stands now.
    pub(super) fn step(&mut self, id: JobId) -> Result<Option<Box<Step>>> {
        let step = match self.moved.get(&id) {
            Some(moved) => Some(moved.clone()),
            None => lock(self.context.recent).held(id),
        };
        if let Some(mut step) = step {
            step.was = Some(Standing::of(&step.head));
            return Ok(Some(step));
        }
        Ok(self.head(id)?.map(|head| self.boxed(Some(Standing::of(&head)), head)))
    }

    /// Makes a step.
    pub(super) fn boxed(&mut self, was: Option<Standing>, head: Head) -> Box<Step> {
        if !self.has_spare {
            self.delta.spare = lock(self.context.recent).lend();
            self.has_spare = true;
        }
        self.delta.spare.boxed(Step { was, head })
    }

    /// Keeps a job as it is now until its rows are written.
    pub(super) fn keep(&mut self, was: Option<Standing>, head: Head) {
        let step = self.boxed(was, head);
        self.keep_step(step);
    }

    /// Keeps a job as it is now until its rows are written.
    pub(super) fn keep_step(&mut self, step: Box<Step>) {
        match self.moved.entry(step.head.job.id) {
            // Where it stood before the first of its steps is what counts.
            Entry::Occupied(mut before) => before.get_mut().head = step.head,
            Entry::Vacant(place) => {
                place.insert(step);
            }
        }
    }

    /// Returns an id that no stored job's is above.
    pub(super) fn highest(&self) -> Option<JobId> {
        self.look(|index| index.highest).max(self.highest)
    }

    /// Notes that a job was stored.
    pub(super) fn rise(&mut self, id: JobId) {
        self.highest = self.highest.max(Some(id));
    }

    /// Returns the batch of the next job that is opened, and names it there.
    pub(super) fn open(&mut self, id: JobId) -> u64 {
        let number = (self.delta.opened.len() / BATCH) as u64;
        self.delta.opened.push(id);
        self.first_batch + number
    }

    /// Makes a transition, and tells the children when it was the last.
    pub(super) fn transit(
        &mut self,
        was: Standing,
        head: Head,
        change: Change,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let step = self.boxed(Some(was), head);
        self.go(step, change, changes)
    }

    /// As [`Work::transit`], where there is a step already.
    pub(super) fn go(&mut self, step: Box<Step>, change: Change, changes: &mut Vec<Change>) -> Result<()> {
        let (job, has_children) = (&step.head.job, step.head.has_children);
        let told = (job.state.is_terminal() && has_children).then_some((job.id, job.state));
        self.free_key(&step.head)?;
        self.note(change, &step.head.queue, changes);
        self.keep_step(step);
        told.map_or(Ok(()), |settled| self.cascade(settled, changes))
    }

    /// Tells the children of jobs that have settled, and their children in turn.
    fn cascade(&mut self, settled: (JobId, State), changes: &mut Vec<Change>) -> Result<()> {
        let mut to_tell = VecDeque::from([settled]);
        while let Some((parent, state)) = to_tell.pop_front() {
            let (mut children, mut in_turn) = (Vec::new(), false);
            self.scan_prefix(Tab::Children, parent.as_bytes(), |key, row| {
                let (requires, told) = codec::edge(row)?;
                if !told {
                    let child = key::last_id(key).ok_or_else(|| corrupt("store.children", "a short key"))?;
                    children.push((child, requires));
                    in_turn |= requires.is_turn();
                }
                Ok(true)
            })?;
            if in_turn && !had_turn(self, parent)? {
                // Those behind it are told when its turn comes.
                children.retain(|(_, requires): &(JobId, Requires)| !requires.is_turn());
            }
            for (child, requires) in children {
                self.put(Tab::Children, &key::child(parent, child), &codec::edge_row(requires, true)?)?;
                let Some(mut head) = self.current(child)? else { continue };
                if requires.is_turn() && head.job.state.is_terminal() {
                    // It ended while it waited for its turn, which goes on to the next one.
                    to_tell.push_back((child, head.job.state));
                    continue;
                }
                let was = Standing::of(&head);
                let waited_for = head.job.waits_for;
                let change = rules::parent_settled(&mut head.job, requires, state, self.now);
                if change.is_none() && head.job.waits_for == waited_for {
                    continue;
                }
                if head.job.state.is_terminal() && head.has_children {
                    to_tell.push_back((child, head.job.state));
                }
                self.free_key(&head)?;
                change.into_iter().for_each(|change| self.note(change, &head.queue, changes));
                self.keep(Some(was), head);
            }
        }
        Ok(())
    }

    /// Writes the rows of the jobs that moved, table by table, in the order of the ids, so that neighbouring rows are
    /// written one after the other.
    ///
    /// A job that moved more than once since the last time costs what it would have cost moving once.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        if self.moved.is_empty() {
            return Ok(());
        }
        // The ids beside the boxes: sorting need not look into them.
        let mut moved: Vec<(JobId, Box<Step>)> = self.moved.drain().collect();
        moved.sort_unstable_by_key(|(id, _)| *id);
        // What is remembered of them is no longer so.
        let was_leased = |step: &Step| step.was.as_ref().is_some_and(|was| was.lease.is_some());
        let leased = moved.iter().filter(|(_, step)| was_leased(step)).map(|(id, _)| *id);
        lock(self.context.recent).lose(leased);
        for (_, step) in &mut moved {
            let is_first = step.was.as_ref().is_none_or(|was| was.newborn);
            self.write_head(step.was.is_none(), is_first, &mut step.head)?;
        }
        for (_, step) in &moved {
            self.write_ended(step.was.as_ref(), &step.head)?;
        }
        for (_, step) in moved.iter().filter(|(_, step)| step.head.job.state == State::Pending) {
            self.know_lane(&step.head)?;
        }
        if self.has_wide {
            moved.iter().for_each(|(_, step)| self.count_wide(step));
        }
        self.delta.take(moved.into_iter().map(|(_, step)| step));
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
        if self.context.changes == ChangeLog::All {
            // What is recorded is all that is told.
            self.delta.committed.extend(log);
        }
        self.flush_counts()?;
        if self.delta.moved_rows != 0 {
            let moved = self.look(|index| index.moved_rows).saturating_add_signed(self.delta.moved_rows);
            self.put(Tab::Meta, META_MOVED, &codec::number_row(moved)?)?;
        }
        self.flush_rates()?;
        self.flush_batches()?;
        for tab in Tab::ALL {
            if !self.appends[tab.number()].is_empty() {
                self.whole(*tab)?;
            }
        }
        Ok(())
    }

    /// Writes which jobs were opened, and removes the rows whose jobs have all ended.
    fn flush_batches(&mut self) -> Result<()> {
        let opened = std::mem::take(&mut self.delta.opened);
        let mut closed = std::mem::take(&mut self.delta.closed);
        let first = self.look(|index| index.next_batch);
        for (number, ids) in (first..).zip(opened.chunks(BATCH)) {
            let ended = closed.get(&number).map_or(0, |ended| *ended as usize);
            if ended < ids.len() {
                self.put(Tab::Open, &key::sequence(number), &codec::ids_row(ids)?)?;
            }
        }
        closed.retain(|number, _| *number < first);
        let over = |index: &Index| -> Vec<u64> {
            let over = |(number, ended): &(&u64, &u32)| index.batches.get(*number) == Some(*ended);
            closed.iter().filter(over).map(|(number, _)| *number).collect()
        };
        for number in self.look(over) {
            self.remove(Tab::Open, &key::sequence(number))?;
        }
        (self.delta.opened, self.delta.closed) = (opened, closed);
        Ok(())
    }

    /// Writes what moves of a job, unless it is new and as it was born; and how it ended. `is_first` says that there most
    /// likely is no such row.
    pub(super) fn write_head(&mut self, is_new: bool, is_first: bool, head: &mut Head) -> Result<()> {
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
        if is_new && head.is_newborn() {
            return Ok(());
        }
        if is_first {
            self.append(Tab::Heads, id.as_bytes(), |into| codec::head_row(head, into))
        } else {
            self.write(Tab::Heads, id.as_bytes(), |into| codec::head_row(head, into))
        }
    }

    /// Lists what has ended, and takes what goes round again off the list.
    pub(super) fn write_ended(&mut self, was: Option<&Standing>, head: &Head) -> Result<()> {
        let job = &head.job;
        let before = was.map(|was| was.state).filter(|state| state.is_terminal());
        let after = Some(job.state).filter(|state| state.is_terminal());
        if before == after {
            return Ok(());
        }
        if let Some(before) = before {
            self.remove(Tab::Ended, &key::ended(&job.tenant, before, job.created_at, job.id))?;
        }
        match after {
            Some(after) => {
                let key = key::ended(&job.tenant, after, job.created_at, job.id);
                self.append(Tab::Ended, &key, |_| Ok(()))
            }
            None => Ok(()),
        }
    }

    /// Notes what a lane asks of a worker, unless it is known.
    fn know_lane(&mut self, head: &Head) -> Result<()> {
        if self.known_lane.as_ref().is_some_and(|lane| head.is_in(lane)) {
            return Ok(());
        }
        let lane = head.lane();
        if !self.delta.new_lanes.contains_key(&lane) && !self.look(|index| index.lanes.contains_key(&lane)) {
            let request = Arc::new(self.fixed(head.job.id)?.spec.request());
            self.delta.new_lanes.insert(lane.clone(), request);
        }
        self.known_lane = Some(lane);
        Ok(())
    }

    /// Returns how many jobs of a tenant are in a state, as this transaction has left it.
    pub(super) fn count_of(&self, tenant: &Tenant, state: State) -> u64 {
        let change = self.delta.counts.get(tenant).map_or(0, |delta| delta[state as usize]);
        let committed = self.look(|index| index.counts.get(tenant).map_or(0, |counts| counts.of(state)));
        committed.saturating_add_signed(change)
    }

    /// Returns how many unsettled jobs a tenant has, those of this transaction included.
    pub(super) fn open_jobs(&self, tenant: &Tenant) -> u64 {
        self.look(|index| match self.delta.counts.get(tenant) {
            Some(delta) => index.counts_with(tenant, delta).open(),
            None => index.counts.get(tenant).map_or(0, Counts::open),
        })
    }
}
