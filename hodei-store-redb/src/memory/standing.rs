//! What of a job decides where it stands.

use hodei_core::Timestamp;
use hodei_core::job::{Lease, State};

use super::lane::{Place, Waiting};
use crate::codec::Head;

/// What of a job decides where it stands in the index.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) state: State,
    eligible_at: Timestamp,
    deadline: Option<Timestamp>,
    pub(crate) lease: Option<Lease>,
    pub(crate) cancel_requested: bool,
    /// Whether nothing had happened to it: it had no row of what moves.
    pub(crate) newborn: bool,
    /// The row that names it while it is open.
    pub(crate) batch: u64,
}

impl Standing {
    pub(crate) fn of(head: &Head) -> Self {
        let job = &head.job;
        Self {
            state: job.state,
            eligible_at: job.eligible_at,
            deadline: job.deadline,
            lease: job.lease.clone(),
            cancel_requested: job.cancel_requested,
            newborn: head.is_newborn(),
            batch: head.batch,
        }
    }

    /// Says whether the job has not ended.
    pub(crate) fn is_open(&self) -> bool {
        !self.state.is_terminal()
    }

    /// Says whether the job waited to be claimed, and had moved before.
    pub(crate) fn waits_again(&self) -> bool {
        self.state == State::Pending && !self.newborn
    }

    /// Returns where the job of a head waited to be claimed, if it did.
    pub(crate) fn place(&self, head: &Head) -> Option<Place> {
        (self.state == State::Pending).then(|| Place::new(head.priority, self.eligible_at, head.job.id))
    }

    /// Returns when the job had to be claimed, where it waited for that.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.deadline.filter(|_| self.state == State::Pending)
    }
}

/// Returns where the job of a head waits to be claimed, if it does, and what is to be known of it there.
pub(crate) fn place_of(head: &Head) -> Option<(Place, Waiting)> {
    let job = &head.job;
    let waiting = Waiting { deadline: job.deadline, newborn: head.is_newborn() };
    (job.state == State::Pending).then(|| (Place::new(head.priority, job.eligible_at, job.id), waiting))
}
