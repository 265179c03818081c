//! Opening a store over its shards, and putting in those that come later.

use std::sync::Arc;

use super::super::{Capabilities, JobStore, LimitOf, Scope, Shard};
use super::map::{SHARDS_MAX, ShardMap};
use super::seat::Seat;
use super::store::{Failure, ShardedStore};
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::{JobId, Name, Tenant};
use crate::time::SystemClock;

const OPEN: &str = "sharded.open";
const JOIN: &str = "sharded.join";
const GIVE_UP: &str = "sharded.give_up";

/// A shard, or the error with which it did not open.
type Opened = Result<Arc<dyn Shard>>;

/// What becomes of an opening at which a shard is absent.
#[derive(Clone, Copy, PartialEq)]
enum Absent {
    Refused,
    Awaited,
}

impl ShardedStore {
    /// Opens a store over shards, the home first. They must be given in the same order every time; new ones may be added
    /// behind the others, and have no slot until one is moved to them. The home may be a store that was in use alone:
    /// then every slot is there at first.
    ///
    /// # Errors
    ///
    /// `Config`: there is no shard or there are more than 64, fewer than the map has, one is in another's place or
    /// of another store, an empty store is in the place of one, or one that is not the home holds jobs or settings of its own
    /// already. Those of the shards.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave some shards marked as this store's; opening again marks the others.
    pub async fn open(shards: Vec<Arc<dyn Shard>>) -> Result<Self> {
        Self::begin(shards.into_iter().map(Ok).collect(), Absent::Refused).await
    }

    /// Opens a store over the shards that are there: in the place of each of the others stands the error with which it did
    /// not open. A shard that fails while it is looked at is absent as well. Absent shards fail until they
    /// [join](Self::join); the module says what that means.
    ///
    /// The home must be there, and at the first opening of all every shard.
    ///
    /// # Errors
    ///
    /// As [`ShardedStore::open`]: a shard that is there and does not fit is refused. That of the home, and at the first
    /// opening that of the first absent shard.
    ///
    /// # Cancel safety
    ///
    /// As [`ShardedStore::open`].
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn open(home: hodei_core::store::MemoryStore) -> hodei_core::Result<()> {
    /// use std::sync::Arc;
    ///
    /// use hodei_core::Result;
    /// use hodei_core::store::{MemoryStore, Shard, ShardedStore};
    ///
    /// # fn open_file(n: usize) -> Result<Arc<dyn Shard>> { Ok(Arc::new(MemoryStore::new())) }
    /// let store = ShardedStore::open_present((0..4).map(open_file).collect()).await?;
    /// // From time to time:
    /// for shard in store.absent() {
    ///     if let Ok(file) = open_file(shard) {
    ///         store.join(shard, file).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open_present(shards: Vec<Result<Arc<dyn Shard>>>) -> Result<Self> {
        Self::begin(shards, Absent::Awaited).await
    }

    /// Puts a shard in that was absent at the opening. It answers when this returns.
    ///
    /// # Errors
    ///
    /// `Invalid`: there is no such place. `Conflict`: the shard is there already. `Config`: it is another shard or of
    /// another store, or none where there was one that was not [given up](Self::give_up), holds jobs or settings without being
    /// one, or offers less than the store has promised. Those of the shard and of the home: call again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the shard marked as this store's, and the map knowing of it; call again.
    pub async fn join(&self, shard: usize, store: Arc<dyn Shard>) -> Result<()> {
        let Some(seat) = self.shards().get(shard) else {
            let fault = Fault::new("shard", "no_such_shard").limit(self.shards().len() as u64);
            return Err(Error::invalid(JOIN, vec![fault]));
        };
        let taken = || Error::new(ErrorKind::Conflict, JOIN).with("shard", shard);
        if seat.taken().is_some() {
            return Err(taken());
        }
        if !offers(store.capabilities(), self.capabilities()) {
            return Err(misfit(JOIN, shard, "offers", "less than the others"));
        }
        if is_strange(&*store).await.map_err(|error| error.with("shard", shard))? {
            return Err(misfit(JOIN, shard, "holds", "jobs or settings"));
        }
        // Its slots may have moved meanwhile, by another process.
        self.renew(&self.map()).await?;
        let marked = mark(&*store, &self.map(), shard).await;
        if let Some(found) = marked.map_err(|error| error.with("shard", shard))? {
            return Err(misfit(JOIN, shard, "mark", found));
        }
        self.widen(shard + 1).await?;
        self.note_marks(&[shard]).await?;
        if !self.seat(shard, &store) {
            return Err(taken());
        }
        self.forget_failure(shard);
        self.joined().ring();
        Ok(())
    }

    /// Gives up an absent shard for good, with all that it holds: an empty store may [join](Self::join) in its place, and it
    /// may not any more, should it be found again. A store without a mark is refused there else, since it is more likely a
    /// wrong path than a new disk. What the tenants of its slots had is gone then; whoever follows the log of changes begins
    /// anew.
    ///
    /// # Errors
    ///
    /// `Invalid`: there is no such place. `Conflict`: the shard is there. Those of the home: call again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the shard given up, or not.
    pub async fn give_up(&self, shard: usize) -> Result<()> {
        let Some(seat) = self.shards().get(shard) else {
            let fault = Fault::new("shard", "no_such_shard").limit(self.shards().len() as u64);
            return Err(Error::invalid(GIVE_UP, vec![fault]));
        };
        if seat.taken().is_some() {
            return Err(Error::new(ErrorKind::Conflict, GIVE_UP).with("shard", shard));
        }
        self.renew(&self.map()).await?;
        while self.map().is_marked(shard) {
            self.change_map(|map| map.give_up(shard)).await?;
        }
        Ok(())
    }

    /// Returns the numbers of the shards that are absent.
    #[must_use]
    pub fn absent(&self) -> Vec<usize> {
        let seats = self.shards().iter().enumerate();
        seats.filter(|(_, seat)| seat.taken().is_none()).map(|(n, _)| n).collect()
    }

    async fn begin(shards: Vec<Opened>, absent: Absent) -> Result<Self> {
        let count = shards.len();
        let given = u16::try_from(count).ok().filter(|n| (1..=SHARDS_MAX).contains(&usize::from(*n)));
        let mut shards = shards.into_iter();
        let (Some(given), Some(home)) = (given, shards.next()) else {
            let error = Error::new(ErrorKind::Config, OPEN).with("shards", count);
            return Err(error.with("shards_max", SHARDS_MAX));
        };
        let home = home.map_err(|error| error.with("shard", 0))?;
        let mut others: Vec<Opened> = shards.collect();
        refuse_strangers(&mut others).await?;
        if absent == Absent::Refused || home.note(&ShardMap::note_name()).await?.is_none() {
            others = all_there(others)?;
        }
        if count > 1 && home.limits(&Scope::All).await?.iter().any(|row| row.limit.of == LimitOf::All) {
            // Nobody could hold it over several shards.
            return Err(misfit(OPEN, 0, "holds", "a limit of all"));
        }
        let map = first_map(&*home, given).await?;
        if given < map.shards {
            let error = Error::new(ErrorKind::Config, OPEN).with("shards", given);
            return Err(error.with("shards_of_map", map.shards));
        }
        mark_each(&*home, &mut others, &map).await?;
        if absent == Absent::Refused {
            others = all_there(others)?;
        }
        // What nobody has seen yet is noted when it joins.
        let there = others.iter().enumerate().filter(|(_, other)| other.is_ok()).map(|(n, _)| n + 1);
        let there: Vec<usize> = std::iter::once(0).chain(there).collect();
        let seen = there.last().map_or(1, |last| last + 1);
        let places = std::iter::once(Ok(home)).chain(others);
        let (seats, failures) = places.map(seat_of).unzip();
        let store = Self::over(seats, failures, map);
        store.widen(seen).await?;
        store.note_marks(&there).await?;
        Ok(store)
    }

    /// Notes that the shards of some places are marked.
    async fn note_marks(&self, places: &[usize]) -> Result<()> {
        while places.iter().any(|place| !self.map().is_marked(*place)) {
            self.change_map(|map| places.iter().for_each(|place| map.set_marked(*place))).await?;
        }
        Ok(())
    }

    /// Notes that there are at least so many shards.
    async fn widen(&self, count: usize) -> Result<()> {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        while self.map().shards < count {
            self.change_map(|map| map.shards = map.shards.max(count)).await?;
        }
        Ok(())
    }
}

/// Makes the error of a store that cannot be the shard of a place.
fn misfit(op: &'static str, place: usize, key: &'static str, found: &'static str) -> Error {
    Error::new(ErrorKind::Config, op).with("shard", place).with(key, found)
}

/// Fails with the error of the first shard that is absent, of those behind the home.
fn all_there(others: Vec<Opened>) -> Result<Vec<Opened>> {
    let named = |(n, opened): (usize, Opened)| opened.map(Ok).map_err(|error| error.with("shard", n + 1));
    others.into_iter().enumerate().map(named).collect()
}

/// Makes the place of a shard, and notes how it failed.
fn seat_of(opened: Opened) -> (Seat, Failure) {
    match opened {
        Ok(shard) => (Seat::of(shard), None),
        Err(error) => (Seat::vacant(&error), Some((error.kind(), error.to_string()))),
    }
}

/// Says whether a shard that joins offers all that the store has promised.
const fn offers(own: Capabilities, promised: Capabilities) -> bool {
    let Capabilities { durable, exclusive, spans_tenants: _, limits_all: _, rates } = promised;
    (own.durable || !durable) && (own.exclusive || !exclusive) && (own.rates || !rates)
}

/// Looks whether a shard that is none yet holds something; one that fails is absent.
async fn refuse_strangers(others: &mut [Opened]) -> Result<()> {
    for (n, place) in others.iter_mut().enumerate() {
        let Ok(shard) = place else { continue };
        match is_strange(&**shard).await {
            Ok(false) => {}
            Ok(true) => return Err(misfit(OPEN, n + 1, "holds", "jobs or settings")),
            Err(error) => *place = Err(error),
        }
    }
    Ok(())
}

/// Marks the shards in their places; one that fails, but for the home, is absent.
async fn mark_each(home: &dyn Shard, others: &mut [Opened], map: &ShardMap) -> Result<()> {
    let marked = mark(home, map, 0).await;
    if let Some(found) = marked.map_err(|error| error.with("shard", 0))? {
        return Err(misfit(OPEN, 0, "mark", found));
    }
    for (n, place) in others.iter_mut().enumerate() {
        let Ok(shard) = place else { continue };
        match mark(&**shard, map, n + 1).await {
            Ok(None) => {}
            Ok(Some(found)) => return Err(misfit(OPEN, n + 1, "mark", found)),
            Err(error) => *place = Err(error),
        }
    }
    Ok(())
}

/// Reads the map, or writes the first one.
async fn first_map(home: &dyn Shard, shards: u16) -> Result<ShardMap> {
    let name = ShardMap::note_name();
    if home.note(&name).await?.is_none() {
        // As good as random, and different for every store that is made.
        let cluster = *JobId::mint(&Tenant::default(), &SystemClock).as_bytes();
        // What the home holds already stays where it is; the other shards are added behind it.
        let shards = if holds_something(home).await? { 1 } else { shards };
        home.put_note(&name, 0, ShardMap::spread(cluster, shards).encode()).await?;
    }
    let note = home.note(&name).await?;
    ShardMap::decode(&note.ok_or_else(|| Error::new(ErrorKind::Corrupt, OPEN))?)
}

/// Says whether a store has jobs, or settings for them.
async fn holds_something(shard: &dyn Shard) -> Result<bool> {
    Ok(shard.counts(&Scope::All).await?.total() > 0
        || !shard.queues(&Scope::All).await?.is_empty()
        || !shard.limits(&Scope::All).await?.is_empty()
        || !shard.schedules(&Scope::All).await?.is_empty())
}

/// Says whether a store that is no shard yet has something already.
async fn is_strange(shard: &dyn Shard) -> Result<bool> {
    Ok(shard.note(&mark_name()).await?.is_none() && holds_something(shard).await?)
}

fn mark_name() -> Name {
    Name::literal("hodei.shard")
}

/// Marks a store as the shard of a place, unless it is marked. Where it is not that shard, says what its mark is.
async fn mark(shard: &dyn Shard, map: &ShardMap, place: usize) -> Result<Option<&'static str>> {
    const ANOTHER: Option<&str> = Some("another");
    let (name, mark) = (mark_name(), map.mark_of(place));
    if let Some(note) = shard.note(&name).await? {
        return Ok(if note.value == mark { None } else { ANOTHER });
    }
    if map.is_marked(place) {
        return Ok(Some("none"));
    }
    let written = shard.put_note(&name, 0, mark.clone()).await?;
    let fits = written || shard.note(&name).await?.is_some_and(|note| note.value == mark);
    Ok(if fits { None } else { ANOTHER })
}
