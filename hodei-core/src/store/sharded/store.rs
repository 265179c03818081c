//! The shards, the map, and how they are reached.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use event_listener::Event;

use super::super::{Feed, Scope, Shard, WakeupSignal, is_slot_closed, slot_closed, together};
use super::feed::Relay;
use super::map::ShardMap;
use super::seat::Seat;
use super::upkeep::Turns;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Slot, Tenant};
use crate::job::Lease;

/// How often a read is made again because slots moved meanwhile: 16.
pub(super) const READ_TRIES: usize = 16;

/// What a shard was asked.
pub(super) type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Whose claims are unknown in which shard, since which map.
pub(super) type Doubts = BTreeMap<(usize, Lease), Arc<ShardMap>>;

/// How a shard failed since it last answered.
pub(super) type Failure = Option<(ErrorKind, String)>;

/// Several stores as one. Cloning shares it.
///
/// See the module for what holds across shards, what happens when one fails, and how a slot moves.
///
/// # Performance
///
/// A verb of one tenant is a verb of one shard. Over all tenants each shard is asked side by side, and the home once more
/// for the version of the map. A page of a list reads up to about twice its limit over all shards together; a page of
/// changes up to its limit from each.
///
/// # Examples
///
/// ```
/// # async fn open() -> hodei_core::Result<()> {
/// use std::sync::Arc;
///
/// use hodei_core::Tenant;
/// use hodei_core::store::{MemoryStore, ShardedStore};
///
/// let store = ShardedStore::open(vec![Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())]).await?;
/// store.move_slot(Tenant::default().slot(), 1).await?;
/// assert_eq!(store.shard_of(&Tenant::default()), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ShardedStore(Arc<Inner>);

pub(super) struct Inner {
    seats: Vec<Seat>,
    /// Rings when a shard has joined.
    joined: WakeupSignal,
    /// The map as this process knows it; a std mutex, held for a look.
    map: Mutex<Arc<ShardMap>>,
    /// How each shard failed since it last answered.
    failures: Vec<Mutex<Failure>>,
    /// The owners whose claims from a shard are unknown, because a reply was lost, and the map at that time.
    doubts: Mutex<Doubts>,
    /// How many moves this process makes just now, and what tells of their steps.
    movers: Mutex<usize>,
    moved: Event,
    /// With which shard whatever goes round begins next.
    turns: Turns,
    /// Who is told what the shards commit, and what keeps them telling; empty until somebody asks.
    relay: Arc<Relay>,
    ears: Mutex<Vec<Feed>>,
}

impl fmt::Debug for ShardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.map();
        f.debug_struct("ShardedStore")
            .field("shards", &self.0.seats)
            .field("version", &map.version)
            .field("moves", &map.moves)
            .finish_non_exhaustive()
    }
}

impl ShardedStore {
    /// Returns the number of the shard in which a tenant is.
    #[must_use]
    pub fn shard_of(&self, tenant: &Tenant) -> usize {
        self.map().shard_of(tenant.slot())
    }

    /// Returns how each shard failed since it last answered; nothing for those that answer. One that is absent has
    /// failed as it did at the opening, until somebody asks it.
    #[must_use]
    pub fn failures(&self) -> Vec<Option<(ErrorKind, String)>> {
        self.0.failures.iter().map(|failure| locked(failure).clone()).collect()
    }

    /// Makes the store over seats, whose first one is taken, as a map has it.
    pub(super) fn over(seats: Vec<Seat>, failures: Vec<Failure>, map: ShardMap) -> Self {
        Self(Arc::new(Inner {
            seats,
            joined: WakeupSignal::new(),
            map: Mutex::new(Arc::new(map)),
            failures: failures.into_iter().map(Mutex::new).collect(),
            doubts: Mutex::default(),
            movers: Mutex::default(),
            moved: Event::new(),
            turns: Turns::default(),
            relay: Arc::default(),
            ears: Mutex::default(),
        }))
    }

    /// Returns what answers in each place: the shard, or a stand-in while it is absent.
    pub(super) fn shards(&self) -> &[Seat] {
        &self.0.seats
    }

    pub(super) fn home(&self) -> &dyn Shard {
        &*self.0.seats[0]
    }

    /// Returns what rings when a shard has joined.
    pub(super) fn joined(&self) -> &WakeupSignal {
        &self.0.joined
    }

    /// Refers to the store without keeping its shards.
    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn upgrade(store: &Weak<Inner>) -> Option<Self> {
        store.upgrade().map(Self)
    }

    /// Forgets how a shard failed.
    pub(super) fn forget_failure(&self, shard: usize) {
        *locked(&self.0.failures[shard]) = None;
    }

    pub(super) fn map(&self) -> Arc<ShardMap> {
        Arc::clone(&locked(&self.0.map))
    }

    /// Reads the map in the home, and says whether it is another than this one.
    pub(super) async fn renew(&self, known: &ShardMap) -> Result<bool> {
        let name = ShardMap::note_name();
        let note = self.ask_one(0, self.home().note(&name)).await?;
        let note =
            note.ok_or_else(|| Error::new(ErrorKind::Corrupt, "sharded.map").with("map", "missing"))?;
        if note.version > self.map().version {
            let map = ShardMap::decode(&note)?;
            let (shards, of_map) = (self.shards().len(), map.shards);
            if shards < usize::from(of_map) {
                // Another process has added some: slots may be where this one has no place.
                let error = Error::new(ErrorKind::Config, "sharded.map").with("shards", shards);
                return Err(error.with("shards_of_map", of_map));
            }
            self.set_map(map);
        }
        Ok(note.version != known.version)
    }

    /// Writes the map with a change, unless somebody else has written meanwhile; says whether it did. Either way the
    /// map is new.
    pub(super) async fn change_map(&self, change: impl FnOnce(&mut ShardMap) + Send) -> Result<bool> {
        let mut map = ShardMap::clone(&self.map());
        change(&mut map);
        let name = ShardMap::note_name();
        if self.ask_one(0, self.home().put_note(&name, map.version, map.encode())).await? {
            map.version += 1;
            self.set_map(map);
            return Ok(true);
        }
        self.renew(&map).await?;
        Ok(false)
    }

    fn set_map(&self, map: ShardMap) {
        let mut known = locked(&self.0.map);
        if known.version < map.version {
            *known = Arc::new(map);
            drop(known);
            self.0.moved.notify(usize::MAX);
        }
    }

    /// Asks one shard, and notes how it failed.
    pub(super) async fn ask_one<T>(&self, shard: usize, asked: Asked<'_, T>) -> Result<T> {
        let answer = asked.await;
        self.heard(shard, answer)
    }

    /// Asks several shards side by side; the answers come in the order of the questions.
    pub(super) async fn ask<T: Send>(&self, asked: Vec<(usize, Asked<'_, T>)>) -> Vec<(usize, Result<T>)> {
        let (shards, futures): (Vec<usize>, Vec<_>) = asked.into_iter().unzip();
        let answers = together(futures).await;
        shards.into_iter().zip(answers).map(|(shard, answer)| (shard, self.heard(shard, answer))).collect()
    }

    /// Asks every shard, and fails when one does.
    pub(super) async fn ask_all<'a, T: Send>(
        &'a self,
        ask: impl Fn(&'a dyn Shard) -> Asked<'a, T>,
    ) -> Result<Vec<T>> {
        let asked = self.shards().iter().enumerate().map(|(n, shard)| (n, ask(&**shard))).collect();
        self.ask(asked).await.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Notes how a shard answered, and names it in the error.
    fn heard<T>(&self, shard: usize, answer: Result<T>) -> Result<T> {
        let failed = |error: &Error| {
            let says_no =
                matches!(error.kind(), ErrorKind::Invalid | ErrorKind::CursorExpired | ErrorKind::Conflict);
            !says_no && !is_slot_closed(error)
        };
        let failure = answer.as_ref().err().filter(|error| failed(error));
        *locked(&self.0.failures[shard]) = failure.map(|error| (error.kind(), error.to_string()));
        answer.map_err(|error| error.with("shard", shard))
    }

    /// After a refusal because of a slot, reads the map again, so that the caller's next try finds the slot.
    pub(super) async fn refused<T>(&self, map: &ShardMap, error: Error) -> Result<T> {
        if is_slot_closed(&error) {
            self.renew(map).await?;
        }
        Err(error)
    }

    /// Reads from every shard, again when slots moved meanwhile: each row is seen once.
    pub(super) async fn read_all<'a, T: Send>(
        &'a self,
        op: &'static str,
        ask: impl Fn(&'a dyn Shard) -> Asked<'a, T> + Sync,
    ) -> Result<Vec<T>> {
        for _ in 0..READ_TRIES {
            let map = self.still(op).await?;
            let read = self.ask_all(&ask).await?;
            if self.is_still(&map).await? {
                return Ok(read);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, op).with("map", "changing"))
    }

    /// Whether no slot has moved since a map.
    pub(super) async fn is_still(&self, map: &ShardMap) -> Result<bool> {
        Ok(!self.renew(map).await? || map.reads_as(&self.map()))
    }

    /// Reads from the shard of a slot, again when the slot has moved.
    pub(super) async fn read_slot<'a, T>(
        &'a self,
        slot: Slot,
        ask: impl Fn(&'a dyn Shard) -> Asked<'a, T> + Sync,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            let map = self.map();
            let shard = map.shard_of(slot);
            match self.ask_one(shard, ask(&*self.shards()[shard])).await {
                Err(error) if self.moved_on(&map, &error, &mut tries).await? => {}
                answer => return answer,
            }
        }
    }

    /// Says whether a read that was refused because of a slot is worth another try: the map has changed, or will by the
    /// mover of this process.
    pub(super) async fn moved_on(&self, map: &ShardMap, error: &Error, tries: &mut usize) -> Result<bool> {
        *tries += 1;
        if !is_slot_closed(error) || *tries > READ_TRIES {
            return Ok(false);
        }
        Ok(self.renew(map).await? || self.switched(map).await)
    }

    /// Returns the map when every slot is in a shard; waits for the mover of this process.
    pub(super) async fn still(&self, op: &'static str) -> Result<Arc<ShardMap>> {
        for _ in 0..READ_TRIES {
            let map = self.map();
            let Some(slot) = map.switching() else { return Ok(map) };
            if !self.switched(&map).await && !self.renew(&map).await? {
                return Err(slot_closed(op, slot));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, op).with("map", "changing"))
    }

    /// Waits until the map is another than this one; `false` when nobody in this process is about to change it.
    async fn switched(&self, map: &ShardMap) -> bool {
        loop {
            // Listen first, then look: a change in between is not missed.
            let listener = self.0.moved.listen();
            if self.map().version != map.version {
                return true;
            }
            if *locked(&self.0.movers) == 0 {
                return false;
            }
            listener.await;
        }
    }

    /// Counts a mover of this process for as long as it is held.
    pub(super) fn mover(&self) -> Mover<'_> {
        *locked(&self.0.movers) += 1;
        Mover(self)
    }

    pub(super) fn relay(&self) -> (&Arc<Relay>, MutexGuard<'_, Vec<Feed>>) {
        (&self.0.relay, locked(&self.0.ears))
    }

    pub(super) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    pub(super) fn doubts(&self) -> MutexGuard<'_, Doubts> {
        locked(&self.0.doubts)
    }
}

/// A move that this process makes.
pub(super) struct Mover<'a>(&'a ShardedStore);

impl Drop for Mover<'_> {
    fn drop(&mut self) {
        *locked(&self.0.0.movers) -= 1;
        self.0.0.moved.notify(usize::MAX);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the slot that a scope names.
pub(super) fn slot_of(scope: &Scope) -> Option<Slot> {
    match scope {
        Scope::All => None,
        Scope::Tenant(tenant) => Some(tenant.slot()),
    }
}
