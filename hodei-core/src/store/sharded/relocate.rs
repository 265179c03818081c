//! Moving slots.

use std::collections::BTreeSet;

use super::super::{Relocate, Shard, SlotRow};
use super::map::{Relocation, ShardMap};
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
    /// its way to another shard. `Full`: the target has no room; give the move up. Those of the shards: call again.
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
                Some(relocation) if relocation.to != target => {
                    let error = Error::new(ErrorKind::Conflict, OP).with("slot", slot.number());
                    return Err(error.with("to", relocation.to));
                }
                Some(relocation) => return self.carry_on(*relocation).await,
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
    /// As [`ShardedStore::move_slot`]; those that follow are still half done.
    ///
    /// # Cancel safety
    ///
    /// As [`ShardedStore::move_slot`].
    pub async fn resume_moves(&self) -> Result<usize> {
        let _mover = self.mover();
        self.renew(&self.map()).await?;
        let moves = self.map().moves.clone();
        for relocation in &moves {
            self.carry_on(*relocation).await?;
        }
        Ok(moves.len())
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
            let map = self.map();
            let on_the_way = map.move_of(slot).filter(|relocation| relocation.switched.is_none()).copied();
            let Some(relocation) = on_the_way else {
                return Err(Error::new(ErrorKind::Conflict, OP).with("slot", slot.number()));
            };
            // A mover that is late cannot switch any more: the map has another version, and no such move.
            if self.change_map(|map| map.give_up(slot)).await? {
                return self.stay(&map, relocation).await;
            }
        }
    }

    /// Opens a slot where it was. What the target has of it is forgotten by the next move, and now if it answers.
    async fn stay(&self, map: &ShardMap, relocation: Relocation) -> Result<()> {
        let (slot, number) = (relocation.slot, relocation.number);
        let (from, to) = (map.shard_of(slot), usize::from(relocation.to));
        // One number higher, so that what the late mover still asks for is refused.
        self.ask_one(from, self.mover_of(from)?.open_slot(slot, number + 1)).await?;
        let _ = self.ask_one(to, self.mover_of(to)?.close_slot(slot, number + 1, BATCH)).await;
        Ok(())
    }

    fn mover_of(&self, shard: usize) -> Result<&dyn Relocate> {
        let cannot =
            || Error::new(ErrorKind::Config, OP).with("shard", shard).with("relocate", "not_offered");
        Shard::relocate(&*self.shards()[shard]).ok_or_else(cannot)
    }

    /// Takes a move from wherever it is to its end. Every step can be made again.
    async fn carry_on(&self, mut relocation: Relocation) -> Result<()> {
        let slot = relocation.slot;
        while relocation.switched.is_none() {
            let sealed = match self.copy(&relocation).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    // Another process may have made this move meanwhile.
                    self.renew(&self.map()).await?;
                    match self.map().move_of(slot) {
                        Some(known) if *known == relocation => return Err(error),
                        Some(known) if known.number == relocation.number => relocation = *known,
                        _ => return self.other_mover(slot, &relocation),
                    }
                    continue;
                }
                copied => copied?,
            };
            self.change_map(|map| {
                // Not a move that was given up meanwhile, and another one begun.
                if map.move_of(slot) == Some(&relocation) {
                    map.switch(slot, sealed);
                }
            })
            .await?;
            match self.map().move_of(slot) {
                Some(known) if known.number == relocation.number => relocation = *known,
                _ => return self.other_mover(slot, &relocation),
            }
        }
        self.switch(&relocation).await?;
        loop {
            let map = self.map();
            if map.move_of(slot).is_none_or(|known| known.number != relocation.number) {
                return Ok(());
            }
            self.change_map(|map| map.arrive(slot)).await?;
        }
    }

    /// Says how a move ended that another process has ended.
    fn other_mover(&self, slot: Slot, relocation: &Relocation) -> Result<()> {
        if self.map().shard_of(slot) == usize::from(relocation.to) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, OP).with("slot", slot.number()).with("move", "given_up"))
    }

    /// Seals the slot and copies its rows; returns the source's time.
    async fn copy(&self, relocation: &Relocation) -> Result<Timestamp> {
        let Relocation { slot, number, .. } = *relocation;
        let (from, to) = (self.map().shard_of(slot), usize::from(relocation.to));
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
                return Ok(sealed);
            }
        }
    }

    /// Tells the target of the owners whose jobs come, so that nobody is taken for dead there.
    async fn introduce(&self, to: usize, rows: &[SlotRow]) -> Result<()> {
        let lease = |row: &SlotRow| match row {
            SlotRow::Job { job, .. } => job.lease.clone(),
            SlotRow::Queue(_) | SlotRow::Limit(_) | SlotRow::Schedule(_) => None,
        };
        let owners: BTreeSet<Lease> = rows.iter().filter_map(lease).collect();
        for owner in &owners {
            self.teach_owner(to, owner).await?;
        }
        Ok(())
    }

    /// Closes the source, then opens the target.
    async fn switch(&self, relocation: &Relocation) -> Result<()> {
        let Relocation { slot, number, .. } = *relocation;
        let (from, to) = (self.map().shard_of(slot), usize::from(relocation.to));
        if from == to {
            return Ok(());
        }
        let (source, target) = (self.mover_of(from)?, self.mover_of(to)?);
        while self.ask_one(from, source.close_slot(slot, number, BATCH)).await? {}
        self.ask_one(to, target.open_slot(slot, number)).await
    }
}
