//! The states of a job and the one table of moves between them.

use serde::{Deserialize, Serialize};

/// Where a job is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum State {
    /// Waits for its parents.
    Blocked = 0,
    /// Waits for its time and for a worker.
    Pending = 1,
    /// Leased, not started.
    Scheduled = 2,
    /// Leased and started.
    Running = 3,
    /// Ended well.
    Succeeded = 4,
    /// Ended badly; with its attempts spent it is the dead letter.
    Failed = 5,
    /// Ended because somebody asked.
    Cancelled = 6,
}

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Blocked,
        Self::Pending,
        Self::Scheduled,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Says whether nothing but a redrive leads out of it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Says whether an owner holds the job.
    #[must_use]
    pub const fn is_leased(self) -> bool {
        matches!(self, Self::Scheduled | Self::Running)
    }

    /// Returns the state of a number, as stored rows keep it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// Returns the name in capitals-free prose: `succeeded`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a job moved: the reason that each recorded transition carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Cause {
    /// It was submitted. Creates the job; moves nothing.
    Submitted = 0,
    /// Its last needed parent settled well.
    ParentsSettled = 1,
    /// A needed parent failed.
    ParentFailed = 2,
    /// A needed parent was cancelled.
    Skipped = 3,
    /// An owner leased it.
    Claimed = 4,
    /// A run began.
    Started = 5,
    /// The run ended well.
    Succeeded = 6,
    /// The run ended badly and no attempt is left.
    Failed = 7,
    /// The run ended badly and another attempt follows.
    Retried = 8,
    /// The handler asked to be called again later.
    Snoozed = 9,
    /// The owner gave it back before it started.
    Returned = 10,
    /// The owner stopped the run in favour of another job.
    Preempted = 11,
    /// The owner died.
    Lost = 12,
    /// The owner died once too often.
    LostTooOften = 13,
    /// Somebody cancelled it.
    Cancelled = 14,
    /// Its deadline passed before it was claimed.
    DeadlinePassed = 15,
    /// Somebody sent it round again.
    Redriven = 16,
}

impl Cause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Submitted,
        Self::ParentsSettled,
        Self::ParentFailed,
        Self::Skipped,
        Self::Claimed,
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::Retried,
        Self::Snoozed,
        Self::Returned,
        Self::Preempted,
        Self::Lost,
        Self::LostTooOften,
        Self::Cancelled,
        Self::DeadlinePassed,
        Self::Redriven,
    ];

    /// Returns the cause of a number, as stored rows keep it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }
}

/// The table of moves: for each state and cause the state that follows, if the move is legal.
pub type Transitions = [[Option<State>; Cause::ALL.len()]; State::ALL.len()];

/// Every legal move. What is not here cannot happen.
static TABLE: Transitions = table();

const MOVES: &[(State, Cause, State)] = {
    use {Cause as C, State as S};
    &[
        (S::Blocked, C::ParentsSettled, S::Pending),
        (S::Blocked, C::ParentFailed, S::Failed),
        (S::Blocked, C::Skipped, S::Cancelled),
        (S::Blocked, C::Cancelled, S::Cancelled),
        (S::Pending, C::Claimed, S::Scheduled),
        (S::Pending, C::Cancelled, S::Cancelled),
        (S::Pending, C::DeadlinePassed, S::Failed),
        (S::Scheduled, C::Started, S::Running),
        (S::Scheduled, C::Succeeded, S::Succeeded),
        (S::Scheduled, C::Failed, S::Failed),
        (S::Scheduled, C::Retried, S::Pending),
        (S::Scheduled, C::Snoozed, S::Pending),
        (S::Scheduled, C::Returned, S::Pending),
        (S::Scheduled, C::Preempted, S::Pending),
        (S::Scheduled, C::Lost, S::Pending),
        (S::Scheduled, C::LostTooOften, S::Failed),
        (S::Scheduled, C::Cancelled, S::Cancelled),
        (S::Running, C::Succeeded, S::Succeeded),
        (S::Running, C::Failed, S::Failed),
        (S::Running, C::Retried, S::Pending),
        (S::Running, C::Snoozed, S::Pending),
        (S::Running, C::Preempted, S::Pending),
        (S::Running, C::Lost, S::Pending),
        (S::Running, C::LostTooOften, S::Failed),
        (S::Running, C::Cancelled, S::Cancelled),
        (S::Failed, C::Redriven, S::Pending),
        (S::Cancelled, C::Redriven, S::Pending),
    ]
};

const fn table() -> Transitions {
    let mut table = [[None; Cause::ALL.len()]; State::ALL.len()];
    let mut n = 0;
    while n < MOVES.len() {
        let (from, cause, to) = MOVES[n];
        table[from as usize][cause as usize] = Some(to);
        n += 1;
    }
    table
}

/// Returns the state that follows a cause, or `None` where the move is illegal.
#[must_use]
pub fn next(state: State, cause: Cause) -> Option<State> {
    TABLE[state as usize][cause as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the design, written a second time: from each state, where it may lead.
    fn may_lead_to(from: State) -> &'static [State] {
        use State::*;
        match from {
            Blocked => &[Pending, Failed, Cancelled],
            Pending => &[Scheduled, Failed, Cancelled],
            Scheduled => &[Pending, Running, Succeeded, Failed, Cancelled],
            Running => &[Pending, Succeeded, Failed, Cancelled],
            Succeeded => &[],
            Failed | Cancelled => &[Pending],
        }
    }

    #[test]
    fn the_table_is_the_design() {
        for from in State::ALL {
            let mut reached: Vec<State> = Cause::ALL.iter().filter_map(|&cause| next(from, cause)).collect();
            reached.sort();
            reached.dedup();
            assert_eq!(reached, may_lead_to(from), "from {from:?}");
        }
    }

    #[test]
    fn only_a_redrive_leaves_a_terminal_state() {
        for from in State::ALL.into_iter().filter(|state| state.is_terminal()) {
            for cause in Cause::ALL.into_iter().filter(|cause| *cause != Cause::Redriven) {
                assert_eq!(next(from, cause), None, "{from:?} {cause:?}");
            }
        }
    }

    #[test]
    fn numbers_come_back() {
        for (n, state) in State::ALL.into_iter().enumerate() {
            assert_eq!((State::from_number(state as u8), state as usize), (Some(state), n));
        }
        for (n, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!((Cause::from_number(cause as u8), cause as usize), (Some(cause), n));
        }
        assert_eq!((State::from_number(7), Cause::from_number(17)), (None, None));
    }
}
