//! Who is alive, and who leads.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::id::{JobId, Name, OwnerId};
use crate::job::{Epoch, Lease};
use crate::time::Timestamp;

/// The shortest life that an owner may ask for.
pub const OWNER_TTL_MIN: Duration = Duration::from_millis(10);

/// Leadership of one duty, fenced: a write under an old term is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The duty.
    pub duty: Name,
    /// The fencing number, higher with every taking.
    pub number: u64,
    /// Who leads.
    pub holder: Lease,
}

/// What an owner learns from its heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Whether the owner still counts as alive; if not, its leases are lost.
    pub alive: bool,
    /// The running jobs it holds that somebody asked to stop.
    pub cancel: Vec<(JobId, Epoch)>,
}

/// An owner that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// Who it is, in which of its lives.
    pub lease: Lease,
    /// Until when it lives unless it beats.
    pub until: Timestamp,
    /// The duties that it leads, by name.
    pub duties: Vec<Name>,
}

/// What a node asks at each of its heartbeats.
#[derive(Clone, Debug)]
pub struct Round {
    /// The owners that go on living; the first of them takes the duty.
    pub owners: Vec<Lease>,
    /// How long they live on, and how long the term lasts.
    pub ttl: Duration,
    /// The duty to be led.
    pub duty: Name,
    /// The term under which the caller leads it so far.
    pub term: Option<Term>,
}

/// What a node learns at each of its heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rounded {
    /// What each owner learns, in the order in which they were asked for.
    pub beats: Vec<Beat>,
    /// The term under which the caller leads from now on; `None` where somebody else does.
    pub term: Option<Term>,
    /// Whether somebody is known to lead. A store that does not look says no, also of the caller.
    pub led: bool,
    /// Whether a [`reap`](super::JobStore::reap) may find something. A store that does not look says so of every term.
    pub reapable: bool,
    /// Whether there may be schedules. A store that does not look says so.
    pub scheduled: bool,
}

/// Makes a [`round`](Coordination::round) of the verbs that it stands for.
///
/// # Errors
///
/// Those of the verbs. What was done before the one that failed is done.
///
/// # Cancel safety
///
/// A dropped call may have done some of the verbs; the next round does them again.
pub async fn round_by_verbs<S: Coordination + ?Sized>(store: &S, round: Round) -> Result<Rounded> {
    let Round { owners, ttl, duty, term } = round;
    let first = owners.first().cloned();
    let beats = store.beat(owners, ttl).await?;
    let kept = match &term {
        Some(term) => store.keep_term(term, ttl).await?,
        None => false,
    };
    let term = match first {
        _ if kept => term,
        Some(first) => store.take_term(&duty, &first, ttl).await?,
        None => None,
    };
    Ok(Rounded { beats, reapable: term.is_some(), term, led: false, scheduled: true })
}

/// Owners and terms.
///
/// # Cancel safety
///
/// A dropped write is as one before whose reply the node crashed: it may have happened, whole. Reads may be dropped at
/// any point.
#[async_trait]
pub trait Coordination: Send + Sync + fmt::Debug {
    /// Registers an owner for a while and returns the lease to act under.
    ///
    /// # Behavior
    ///
    /// The incarnation is higher than every one before. Whatever an older incarnation still holds is lost and is
    /// taken back by the next [`reap`](super::JobStore::reap). After a crash before the reply: register again.
    ///
    /// # Errors
    ///
    /// `Invalid`: `ttl: too_small` below [`OWNER_TTL_MIN`] (the limit of the fault is in milliseconds).
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease>;

    /// Prolongs the lives of several owners at once, and says for each whether it is alive and what it must cancel.
    ///
    /// # Behavior
    ///
    /// One write for all, however many jobs they hold. An owner whose life has ended stays dead.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>>;

    /// Ends an owner's life and the terms that it leads, also those that it took in an earlier life. What it still holds is
    /// lost. Idempotent, and nothing to a later incarnation.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn retire(&self, owner: &Lease) -> Result<()>;

    /// Takes a duty that nobody leads; `None` while somebody does, be it the caller.
    ///
    /// # Behavior
    ///
    /// A term lives by its own `ttl`, not by the life of its holder's row; only [`retire`](Self::retire) ends both.
    /// A number is never given out twice.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>>;

    /// Keeps a term for a while longer; `false` when it is over.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool>;

    /// Prolongs the lives of owners, and keeps a term or takes the duty, in one call.
    ///
    /// # Behavior
    ///
    /// As [`beat`](Self::beat), then [`keep_term`](Self::keep_term) where there is a term, then
    /// [`take_term`](Self::take_term) for the first owner where none is kept. It need not be one transaction. After a
    /// failure whatever was led before may still be, and every write under it says so. Without owners and a term it is
    /// the question whether anybody leads.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn round(&self, round: Round) -> Result<Rounded> {
        round_by_verbs(self, round).await
    }

    /// Lists who is alive, by name, and what he leads.
    ///
    /// # Behavior
    ///
    /// A reading, for people: who is on the list may have died when the reply is there. A node that has nothing to do and
    /// leads nothing may let its life end, and is on the list again when it works.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn owners(&self) -> Result<Vec<Living>>;

    /// Tells the time by which the store rules leases, eligibility and deadlines.
    ///
    /// # Behavior
    ///
    /// A reading, not a promise: the clock may have gone on, or have been set, when the reply is there.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn now(&self) -> Result<Timestamp>;
}

const _: fn(&dyn Coordination) = |_| ();
