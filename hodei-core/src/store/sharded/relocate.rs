//! Moving slots.

use std::collections::BTreeSet;

use super::super::{Cursor, Relocate, Shard, SlotRow};
use super::map::{Relocation, Step};
use super::store::ShardedStore;
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::Slot;
use crate::job::Lease;
use crate::time::Timestamp;

/// How many rows are copied or removed at a time: 500.
const BATCH: usize = 500;
const OP: &str = "sharded.move_slot";

impl ShardedStore {
    /// Moves a slot to a shard, with all jobs and policies of its tenants; or finishes a move of it that a crash left
    /// half done. Returns when the slot is there.
    ///
    /// Writes to the slot are `Unavailable` meanwhile; the time is that of reading and writing its rows once. The order
    /// of the steps, and what a crash between them leaves, is in the module's table.
    ///
    /// # Errors
    ///
    /// `Invalid`: there is no such shard. `Config`: one of the two shards cannot move slots. `Conflict`: the slot is on
    /// its way to another shard. `Full`: the target has no room; give the move up. `Unavailable`: one of the two shards is
    /// absent, and nothing has begun. Those of the shards: call again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the move where it was, as a crash does: call again, or give it up.
    pub async fn move_slot(&self, slot: Slot, to: usize) -> Result<()> {
        let target = u16::try_from(to).ok().filter(|_| to < self.shards().len());
        let Some(target) = target else {
            let fault = Fault::new("to", "no_such_shard").limit(self.shards().len() as u64);
            return Err(Error::invalid(OP, vec![fault]));
        };
        let _mover = self.mover();
        self.renew(&self.map()).await?;
        loop {
            let map = self.map();
            match map.move_of(slot) {
                Some(relocation) if relocation.is_decided() => self.carry_on(relocation.clone()).await?,
                Some(relocation) if relocation.to != target => {
                    let error = Error::new(ErrorKind::Conflict, OP).with("slot", slot.number());
                    return Err(error.with("to", relocation.to));
                }
                Some(relocation) => return self.carry_on(relocation.clone()).await,
                None if map.shard_of(slot) == to => return Ok(()),
                None => {
                    self.mover_of(map.shard_of(slot))?;
                    self.mover_of(to)?;
                    self.change_map(|map| map.begin(slot, target)).await?;
                }
            }
        }
    }

    /// Finishes every move that a crash left half done, and returns how many there were.
    ///
    /// # Errors
    ///
    /// As [`ShardedStore::move_slot`], the first one: every other move was taken as far as it goes.
    ///
    /// # Cancel safety
    ///
    /// As [`ShardedStore::move_slot`].
    pub async fn resume_moves(&self) -> Result<usize> {
        let _mover = self.mover();
        self.renew(&self.map()).await?;
        let moves = self.map().moves.clone();
        let mut failure = None;
        for relocation in &moves {
            // A shard that does not answer holds up its own moves alone.
            let made = self.carry_on(relocation.clone()).await;
            failure = failure.or_else(|| made.err());
        }
        failure.map_or(Ok(moves.len()), Err)
    }

    /// Gives up a move that has not come to its switch: the slot stays where it is, and is open again.
    ///
    /// # Errors
    ///
    /// `Conflict`: there is no such move, or no way back any more. Those of the source; the target is not needed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the move where it was.
    pub async fn give_up_move(&self, slot: Slot) -> Result<()> {
        const OP: &str = "sharded.give_up_move";
        let _mover = self.mover();
        self.renew(&self.map()).await?;
        loop {
            let relocation = self.map().move_of(slot).cloned();
            match relocation.map(|relocation| (relocation.step.clone(), relocation)) {
                Some((Step::Staying, relocation)) => return self.carry_on(relocation).await,
                Some((Step::Copying, relocation)) => {
                    self.change_map(|map| map.take_step(&relocation, Step::Staying)).await?;
                }
                Some((Step::Switching(..) | Step::Clearing(_), _)) | None => {
                    return Err(Error::new(ErrorKind::Conflict, OP).with("slot", slot.number()));
                }
            }
        }
    }

    /// Opens a slot where it was. What the target has of it is forgotten by the next move, and now if it answers.
    async fn stay(&self, from: usize, relocation: &Relocation) -> Result<()> {
        let (slot, to) = (relocation.slot, usize::from(relocation.to));
        // One number higher, so that what a late mover still asks for is refused.
        let number = relocation.number + 1;
        self.ask_one(from, self.mover_of(from)?.open_slot(slot, number)).await?;
        if let Ok(target) = self.mover_of(to) {
            let _ = self.ask_one(to, target.close_slot(slot, number, BATCH)).await;
        }
        Ok(())
    }

    fn mover_of(&self, shard: usize) -> Result<&dyn Relocate> {
        let cannot =
            || Error::new(ErrorKind::Config, OP).with("shard", shard).with("relocate", "not_offered");
        self.shards()[shard].answers(OP).map_err(|error| error.with("shard", shard))?;
        Shard::relocate(&*self.shards()[shard]).ok_or_else(cannot)
    }

    /// Takes a move from wherever it is to its end. Every step can be made again, and by several processes at once: what
    /// counts is the map, and a shard refuses what comes late.
    async fn carry_on(&self, mut relocation: Relocation) -> Result<()> {
        let slot = relocation.slot;
        let meant = relocation.clone();
        loop {
            let map = self.map();
            match map.move_of(slot) {
                Some(known) if known.number == meant.number => relocation = known.clone(),
                _ if meant.is_decided() || map.shard_of(slot) == usize::from(meant.to) => {
                    return Ok(());
                }
                // Another process has given it up, or has moved the slot on.
                _ => return Err(Error::new(ErrorKind::Conflict, OP).with("slot", slot.number())),
            }
            let from = map.shard_of(slot);
            let made = match &relocation.step {
                Step::Copying => self.copy(from, &relocation).await.map(Some),
                Step::Switching(..) => self.switch(from, &relocation).await.map(|()| None),
                Step::Staying => self.stay(from, &relocation).await.map(|()| None),
                Step::Clearing(left) => self.clear(usize::from(*left), &relocation).await.map(|()| None),
            };
            match made {
                Ok(Some((sealed, since))) => {
                    let step = Step::Switching(sealed, Some(since));
                    self.change_map(|map| map.take_step(&relocation, step)).await?;
                }
                Ok(None) => {
                    self.change_map(|map| map.go_on(&relocation)).await?;
                }
                // A shard that refuses may know of a later step than this process.
                Err(error) if error.kind() == ErrorKind::Conflict && self.renew(&map).await? => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Seals the slot and copies its rows; returns the source's time, and behind which place of the target's log the
    /// changes will be that are made there.
    async fn copy(&self, from: usize, relocation: &Relocation) -> Result<(Timestamp, Cursor)> {
        let Relocation { slot, number, .. } = *relocation;
        let to = usize::from(relocation.to);
        let (source, target) = (self.mover_of(from)?, self.mover_of(to)?);
        let sealed = self.ask_one(from, source.seal_slot(slot, number)).await?;
        // Also when there is no row: the slot must be arriving to be opened.
        self.ask_one(to, target.import_slot(slot, number, Vec::new())).await?;
        let mut after = None;
        loop {
            let batch = self.ask_one(from, source.export_slot(slot, number, after, BATCH)).await?;
            self.introduce(to, &batch.rows).await?;
            self.ask_one(to, target.import_slot(slot, number, batch.rows)).await?;
            after = batch.next;
            if after.is_none() {
                // Nobody writes to the slot there before it is opened.
                let end = self.ask_one(to, self.shards()[to].changes_end()).await?;
                return Ok((sealed, end));
            }
        }
    }

    /// Tells the target of the owners whose jobs come, so that nobody is taken for dead there.
    async fn introduce(&self, to: usize, rows: &[SlotRow]) -> Result<()> {
        let lease = |row: &SlotRow| match row {
            SlotRow::Job { job, .. } => job.lease.clone(),
            SlotRow::Queue(_) | SlotRow::Limit(..) | SlotRow::Schedule(_) => None,
        };
        let owners: BTreeSet<Lease> = rows.iter().filter_map(lease).collect();
        for owner in &owners {
            self.teach_owner(to, owner).await?;
        }
        Ok(())
    }

    /// Closes the source, then opens the target: until both are done the slot is in neither, and who reads over all
    /// shards waits. The rows in the source are removed later.
    async fn switch(&self, from: usize, relocation: &Relocation) -> Result<()> {
        let Relocation { slot, number, .. } = *relocation;
        let to = usize::from(relocation.to);
        let (source, target) = (self.mover_of(from)?, self.mover_of(to)?);
        self.ask_one(from, source.close_slot(slot, number, 0)).await?;
        self.ask_one(to, target.open_slot(slot, number)).await
    }

    /// Removes the rows of a slot that has arrived from the shard that it left.
    async fn clear(&self, left: usize, relocation: &Relocation) -> Result<()> {
        let (slot, number, source) = (relocation.slot, relocation.number, self.mover_of(left)?);
        while self.ask_one(left, source.close_slot(slot, number, BATCH)).await? {}
        Ok(())
    }
}
