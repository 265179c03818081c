//! Several stores as one.
//!
//! A job's id carries the slot of its tenant, and the map says in which shard a slot is; so each tenant is in one
//! shard, and what happens within a tenant happens in one transaction of one store. The map is a note in the first
//! shard, the home, and is known by its version.
//!
//! ```text
//!                 ┌─ the map: slot → shard ─┐      moves under way, former shards of a slot
//!  verb ──────────┤ route, split or scatter ├──▶ shard 0 (home: map, incarnations, terms)
//!                 └─ merge in order ────────┘──▶ shard 1 … n (adopt owners and terms, fence locally)
//! ```
//!
//! # What holds across shards
//!
//! - **One tenant, one transaction.** An atomic batch is of one tenant. A batch over several shards is a batch in each.
//! - **The change log is in order tenant by tenant**, across a move of its slot too. Between shards it follows their
//!   clocks. A cursor is the vector of the shards' cursors. Changes do not move with their slot: who has read them would
//!   read them again, and who is about to would miss them. Each shard prunes its own log.
//! - **The log of one tenant has no gap.** It is whole while every shard in which the slot was keeps its part. The map
//!   notes where in the log of a shard each stay begins: whoever begins without a cursor is told of nothing before the
//!   last stay that has lost changes, and whoever goes on gets `CursorExpired` where what would follow is gone. Of the
//!   log over all tenants, read without a cursor, each shard gives what it keeps: of a slot that has moved changes in
//!   the middle may be missing there, where the shard that it came to has pruned more than the one it left. A cursor is
//!   good for the scope of its list.
//! - **The log of one tenant is read from every shard that the map knows its slot was in**, also from one that has pruned
//!   all that it had of it, for it is that shard that says so. While one of them does not answer, the tenant's `changes`
//!   are `Unavailable`, with a cursor too; everything else of the tenant goes on where its slot is. Only
//!   [`give_up`](ShardedStore::give_up), and an empty store that joins in the place of the lost one, end that: whoever
//!   begins then is told of what the later shards have.
//! - **Lists are in the order asked for**, by (created at, id) over all shards. A cursor is the last place listed and
//!   the vector of the shards' cursors. When slots have moved since, each shard is read again from where its last job
//!   was listed.
//! - **Bounds of a store are bounds of each shard**: the jobs kept and the changes kept.
//! - **Limits are of a tenant, a queue or a key.** One of the whole store no shard could hold: it is refused as `Config`
//!   where there are several, and so is the opening of several whose home has one.
//!
//! # When a shard fails
//!
//! A verb that needs only other shards goes on. An answer is never silently partial: a read over all shards fails, and
//! the error names the shard (`shard`). Verbs that are repeated anyway do what they can:
//!
//! - `exchange` settles and claims in the shards that answer. Transitions of the others are
//!   [`Applied::Unavailable`](super::Applied::Unavailable): perhaps made, to be told again. So it is when no
//!   shard answers; only where all of them fail for good does it fail. A claim whose reply was lost comes with a later
//!   exchange of its owner, once the shard answers again and wherever the slot is then, among what the owner holds
//!   there unstarted ([`Exchanged::reclaimed`](super::Exchanged::reclaimed)).
//! - `lanes` leaves out the lanes of a failed shard, from which nobody can claim.
//! - `reap` and `prune` tell what they did; when a shard failed there is `more`, and a call that did nothing fails. Each call
//!   begins with another shard, and the limit is for all together.
//! - `register`, `beat`, `take_term` and `keep_term` need only the home. The others learn of owners and terms as they
//!   answer again: whenever a shard calls an owner or a term lost, the home is asked, and if it knows better the shard
//!   adopts it for the time that is left. An owner whose life ended in a shard is dead there, and so everywhere. What a
//!   failed shard would have an owner cancel comes with a later beat. `retire` tells every shard and fails when one did
//!   not hear it; there the life ends with its time.
//! - `submit`, `request_cancel`, `redrive` fail, and what was done in other shards stands: repeat them.
//!
//! [`ShardedStore::failures`](ShardedStore::failures) tells how each shard failed last.
//!
//! # When a shard is absent
//!
//! [`ShardedStore::open`] wants every shard. [`ShardedStore::open_present`] takes those that are there, the home among them, and
//! for each of the others the error with which it did not open; [`ShardedStore::join`] puts one in when it has. Until then
//! it is a shard that fails: every verb of it is `Unavailable`, says why (`absent`), and all that stands above holds.
//!
//! - What is checked at the opening is checked of a late shard before its first answer: that it is the shard of this store in
//!   this place, and holds nothing where there was none. It must also offer what the store has promised, its capabilities. One
//!   that does not fit is refused, and its place stays free.
//! - The map knows which shards bear their mark: an empty store in the place of one, as on a path that is not mounted, is
//!   refused. Where the shard is lost for good, [`ShardedStore::give_up`] says so.
//! - The map is read again before a shard joins, for its slots may have moved meanwhile by other processes. Slots are moved
//!   neither to an absent shard nor from it. A move that was under way stays where it is, and those of other shards are
//!   resumed. It can be given up where only the target is absent.
//! - Owners and terms that it missed it learns of as any shard does that did not answer: an owner that outlived its time there is
//!   dead. Sinks hear it from its first commit on, and whoever waits for wake-ups is woken when it joins.
//! - The places count from the beginning: in cursors, in `changes` and in the map. Only of a new one, which the map does not
//!   have, it is noted when it joins.
//! - The first opening of all spreads the slots, and needs every shard: nobody is given to one that nobody has seen.
//!
//! # How a slot moves
//!
//! | step | done | after a crash here |
//! |---|---|---|
//! | 1 | the map notes the move and its number | nothing has happened; [`resume`](ShardedStore::resume_moves) goes on with 2 |
//! | 2 | the source seals the slot: writes are refused, reads go on | as 1 |
//! | 3 | all rows are copied to where no verb of the target sees them | as 1: copying begins anew, rows replace themselves |
//! | 4 | the map notes the switch: no way back | the slot is in neither shard; resume goes on with 5 |
//! | 5 | the source closes the slot: its rows are seen by nobody | as 4 |
//! | 6 | the target opens the slot | as 4 |
//! | 7 | the map has the slot in the target | the slot is there; resume goes on with 8 |
//! | 8 | the source forgets the rows, so many at a time, and the map the move | done |
//!
//! Writes to the slot are `Unavailable` from 2 to 7. Reads over all shards are made again when the map has changed
//! meanwhile, so each job is seen once; between 4 and 7, which is a commit in each of the two shards, they wait for the
//! mover, or fail when it is not in this process. Through an old map a write reaches a shard in which the slot is closed, is refused there, and the map is
//! read again.

mod changes;
mod coordination;
mod cursor;
mod exchange;
mod feed;
mod jobs;
mod lists;
mod map;
mod open;
mod policies;
mod relocate;
mod seat;
mod store;
mod upkeep;
mod verify;
mod wakeups;

pub use store::ShardedStore;
