//! The store as a shard of several.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::job::Lease;
use hodei_core::store::{Cursor, Note, Relocate, Shard, SlotBatch, SlotRow, Term};
use hodei_core::{Name, Result, Slot, Timestamp};

use crate::codec::{self, OwnerRow, TermRow};
use crate::query;
use crate::rows::Rows;
use crate::store::RedbStore;
use crate::table::Tab;
use crate::txn;

/// How many jobs that an earlier, abandoned move has left are removed in one transaction.
const CLEARED: usize = 1_000;

#[async_trait]
impl Shard for RedbStore {
    async fn note(&self, name: &Name) -> Result<Option<Note>> {
        let name = name.clone();
        self.read("store.note", 1, move |rows| rows.read(Tab::Notes, name.as_str().as_bytes(), codec::note))
            .await
    }

    async fn put_note(&self, name: &Name, expected: u64, value: Bytes) -> Result<bool> {
        let name = name.clone();
        self.write("store.put_note", 1, move |work| txn::put_note(work, &name, expected, &value)).await
    }

    async fn owner_life(&self, owner: &Lease) -> Result<Option<Duration>> {
        let (owner, now) = (owner.clone(), self.now());
        self.read("store.owner_life", 1, move |rows| {
            let key = owner.owner.name().as_str().as_bytes();
            let row: Option<OwnerRow> = rows.read(Tab::Owners, key, |row| codec::decode(row))?;
            let row = row.filter(|row| row.incarnation == owner.incarnation);
            Ok(row.and_then(|row| left(row.expires_at, now)))
        })
        .await
    }

    async fn adopt_owner(&self, owner: &Lease, ttl: Duration) -> Result<bool> {
        let owner = owner.clone();
        self.write("store.adopt_owner", 1, move |work| txn::adopt_owner(work, &owner, ttl)).await
    }

    async fn term_life(&self, term: &Term) -> Result<Option<Duration>> {
        let (term, now) = (term.clone(), self.now());
        self.read("store.term_life", 1, move |rows| {
            let ends = rows.read(Tab::Terms, term.duty.as_str().as_bytes(), |row| {
                let row: TermRow<'_> = codec::decode(row)?;
                let same = row.number == term.number
                    && row.owner == term.holder.owner.name().as_str()
                    && row.incarnation == term.holder.incarnation;
                Ok(same.then_some(row.expires_at))
            })?;
            Ok(ends.flatten().and_then(|at| left(at, now)))
        })
        .await
    }

    async fn adopt_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        let term = term.clone();
        self.write("store.adopt_term", 1, move |work| txn::adopt_term(work, &term, ttl)).await
    }

    fn relocate(&self) -> Option<&dyn Relocate> {
        Some(self)
    }
}

/// Returns how long it is until a time that has not come.
fn left(until: i64, now: Timestamp) -> Option<Duration> {
    let until = Timestamp::from_micros(until);
    (until > now).then(|| until.saturating_since(now))
}

/// Where a slot is, is a row, and what changes it has a commit of its own: whatever else is in a transaction sees it as
/// it was committed. Rows that come are stored in their places, out of sight; opening the slot reads what is open of
/// it into memory. Rows that go are out of sight with the first commit, and removed by those that follow. A file of an older
/// schema is counted to its end before: what comes and goes is counted by queue.
#[async_trait]
impl Relocate for RedbStore {
    async fn seal_slot(&self, slot: Slot, number: u64) -> Result<Timestamp> {
        // One thread commits and tells the sinks: what was committed before was told before this began.
        self.alone("store.seal_slot", move |work| txn::seal_slot(work, slot, number)).await
    }

    async fn export_slot(
        &self,
        slot: Slot,
        number: u64,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<SlotBatch> {
        let inner = Arc::clone(self.inner());
        let rows = limit.saturating_mul(4).saturating_add(crate::reader::INLINE_ROWS);
        self.read("store.export_slot", rows, move |rows| {
            query::export_slot(rows, &inner, (slot, number), after.as_ref(), limit)
        })
        .await
    }

    async fn import_slot(&self, slot: Slot, number: u64, rows: Vec<SlotRow>) -> Result<()> {
        self.counted().await?;
        let (max_jobs, rows) = (self.inner().config.room.jobs, Arc::new(rows));
        loop {
            let rows = Arc::clone(&rows);
            let import =
                move |work: &mut txn::Work<'_, '_>| txn::import_slot(work, slot, number, &rows, max_jobs);
            if self.alone("store.import_slot", import).await? {
                return Ok(());
            }
            self.alone("store.import_slot", move |work| txn::close_slot(work, slot, number)).await?;
            while self.alone("store.import_slot", move |work| txn::clear_slot(work, slot, CLEARED)).await? {}
        }
    }

    async fn close_slot(&self, slot: Slot, number: u64, limit: usize) -> Result<bool> {
        self.counted().await?;
        self.alone("store.close_slot", move |work| txn::close_slot(work, slot, number)).await?;
        if limit == 0 {
            return Ok(true);
        }
        self.alone("store.close_slot", move |work| txn::clear_slot(work, slot, limit)).await
    }

    async fn open_slot(&self, slot: Slot, number: u64) -> Result<()> {
        self.counted().await?;
        self.alone("store.open_slot", move |work| txn::open_slot(work, slot, number)).await
    }
}
