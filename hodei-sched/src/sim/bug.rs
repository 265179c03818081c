//! The bugs that can be planted, to see whether the simulator finds them.

use std::fmt;
use std::str::FromStr;

/// A defect that engines of this kind have had, put into the models of a simulation. The engine's own code has none of
/// these switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Bug {
    /// The store applies whatever is reported of a leased job, under whichever epoch.
    NoFence,
    /// The store looks at the state alone: whoever says that a running job has ended is believed.
    StateOnlySettle,
    /// The store answers what came too late as if it had been made.
    StaleIsDone,
    /// The store acknowledges submissions before they are durable.
    AckBeforeDurable,
    /// A claim does not raise the epoch.
    NoEpochBump,
    /// A job that is lost with its owner has an attempt less.
    AttemptBurntOnLoss,
    /// The store answers heartbeats that it does not write.
    RenewalNotDurable,
    /// The store lets anybody reap, whoever leads.
    ReapWithoutTerm,
    /// A child counts a parent's end twice.
    DoubleUnblock,
    /// The store forgets that somebody asked for the end of a running job.
    LostCancel,
    /// What a run spawns is written in a transaction of its own, after the one of its end.
    SpawnOutsideSettle,
    /// A job that is taken back from a dead owner stays counted against its limits.
    LimitLeakOnReap,
    /// Claims do not look at limits.
    LimitIgnored,
    /// A fire time can fire twice.
    FireTwice,
    /// What a schedule fires goes by the clock of the node that leads.
    CronByNodeClock,
    /// The store notes when a schedule fired instead of what for: times in between are taken for fired.
    FiredByClock,
    /// A subscriber loses events and is not told.
    SilentDrop,
    /// Lives of owners are judged by the clock of whichever node asks.
    LeaseByNodeClock,
    /// An agent says the end of a run once, and never again.
    LostReport,
    /// An agent begins a run whenever it is told to, be it for the second time.
    NoGrantDedupe,
    /// An agent goes on with a run whose lease is lost.
    NoSelfFence,
    /// An agent goes on with its runs however long it has not heard of its node.
    NoAgentFence,
    /// A node that cannot beat goes on as if it lived.
    NoNodeFence,
    /// A node does not hear that it was given up.
    DeafNode,
    /// The timers of a node run by its wall clock.
    WallClockTimers,
    /// After a lost reply a node does not ask what it holds.
    ForgottenClaims,
    /// A dispatcher keeps what it has lent to another one.
    LentTwice,
    /// A dispatcher takes back what it has lent while the other one is at work on it.
    LentReclaimed,
    /// A job that was stopped to make room has an attempt less.
    PreemptionCosts,
    /// A job that was stopped to make room has ended.
    PreemptionEnds,
    /// A node takes a worker to have twice the room that it has, whichever balancer asks.
    OfferMisread,
    /// At a heartbeat everybody is told that he leads, under the term of whoever does.
    LeadsWithoutTerm,
    /// What is spent of rates is forgotten when owners are reaped.
    RateRefilled,
    /// The store takes in more of a tenant than may be open.
    OpenIgnored,
    /// The lanes do not tell where their jobs say that they run, nor beside whom.
    PlaceUnread,
    /// Claims take the most urgent of a lane, also where what has waited behind it is asked for.
    CeilingIgnored,
    /// An agent does not say what its runs take.
    RunsUnweighed,
    /// A dispatcher does not know where the jobs that it has claimed say that they run, nor beside whom.
    CompanyUnread,
    /// The end of a run is committed without what it says of its logs.
    ManifestLost,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 39] = [
        Self::NoFence,
        Self::StateOnlySettle,
        Self::StaleIsDone,
        Self::AckBeforeDurable,
        Self::NoEpochBump,
        Self::AttemptBurntOnLoss,
        Self::RenewalNotDurable,
        Self::ReapWithoutTerm,
        Self::DoubleUnblock,
        Self::LostCancel,
        Self::SpawnOutsideSettle,
        Self::LimitLeakOnReap,
        Self::LimitIgnored,
        Self::FireTwice,
        Self::CronByNodeClock,
        Self::FiredByClock,
        Self::SilentDrop,
        Self::LeaseByNodeClock,
        Self::LostReport,
        Self::NoGrantDedupe,
        Self::NoSelfFence,
        Self::NoAgentFence,
        Self::NoNodeFence,
        Self::DeafNode,
        Self::WallClockTimers,
        Self::ForgottenClaims,
        Self::LentTwice,
        Self::LentReclaimed,
        Self::PreemptionCosts,
        Self::PreemptionEnds,
        Self::OfferMisread,
        Self::LeadsWithoutTerm,
        Self::RateRefilled,
        Self::OpenIgnored,
        Self::PlaceUnread,
        Self::CeilingIgnored,
        Self::RunsUnweighed,
        Self::CompanyUnread,
        Self::ManifestLost,
    ];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Bug {
    type Err = hodei_core::Error;

    /// Takes the name of the variant.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|bug| bug.to_string() == text).ok_or_else(|| {
            hodei_core::Error::new(hodei_core::ErrorKind::NotFound, "sim.bug").with("name", text)
        })
    }
}
