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

/// Owners and terms.
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

    /// Ends an owner's life and the terms that it leads. What it still holds is lost. Idempotent, and nothing to a
    /// later incarnation.
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
