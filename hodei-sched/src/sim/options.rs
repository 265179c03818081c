//! What a simulation is of.

use std::time::Duration;

use super::bug::Bug;
use super::random::Random;
use crate::machine::SchedulerConfig;

/// How a simulation ends, and what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Faults go on to the end; nothing may ever go wrong, though little may get done.
    Safety,
    /// After a while faults stop; then everything must end within a bound of virtual time.
    Liveness,
}

/// What goes wrong, and how often. Chances are in a thousand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// A message between node and agent is lost.
    pub drop: u32,
    /// A message between node and agent comes twice.
    pub duplicate: u32,
    /// A message is held up for up to three seconds, so that later ones overtake it.
    pub delay: u32,
    /// A call of the store is refused before anything has happened.
    pub refuse: u32,
    /// A call of the store happens and its reply is lost.
    pub lose_reply: u32,
    /// A submission or an exchange happens up to eight seconds after its caller was told that nobody knows.
    pub late: u32,
    /// A call of the store is on its way for up to ten seconds.
    pub slow_call: u32,
    /// For a while nothing passes in one direction between two of them.
    pub partitions: bool,
    /// Nodes die, and others take over.
    pub node_crashes: bool,
    /// Nodes stop in an orderly way and start again.
    pub node_drains: bool,
    /// Agents die with everything that they run.
    pub agent_crashes: bool,
    /// Nodes and agents stand still for a while and go on as if nothing had been.
    pub freezes: bool,
    /// The wall clocks of nodes are wrong, and jump.
    pub clocks: bool,
    /// For a while the store answers nobody.
    pub outages: bool,
    /// Agents go over to another node when theirs does not answer.
    pub roaming: bool,
    /// How long it is from one of the greater faults to the next, on average.
    pub apart: Duration,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            drop: 0,
            duplicate: 0,
            delay: 0,
            refuse: 0,
            lose_reply: 0,
            late: 0,
            slow_call: 0,
            partitions: false,
            node_crashes: false,
            node_drains: false,
            agent_crashes: false,
            freezes: false,
            clocks: false,
            outages: false,
            roaming: false,
            apart: Duration::from_secs(2),
        }
    }

    /// Everything goes wrong.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            drop: 30,
            duplicate: 30,
            delay: 30,
            refuse: 20,
            lose_reply: 30,
            late: 15,
            slow_call: 10,
            partitions: true,
            node_crashes: true,
            node_drains: true,
            agent_crashes: true,
            freezes: true,
            clocks: true,
            outages: true,
            roaming: true,
            apart: Duration::from_secs(2),
        }
    }

    /// Draws a swarm's share: each kind is there in half of the seeds, so that no kind hides another.
    #[must_use]
    pub fn swarm(random: &mut Random) -> Self {
        let all = Self::all();
        let rate = |random: &mut Random, most: u32| {
            if random.chance(500) {
                1 + u32::try_from(random.below(u64::from(most) * 2)).unwrap_or(0)
            } else {
                0
            }
        };
        Self {
            drop: rate(random, all.drop),
            duplicate: rate(random, all.duplicate),
            delay: rate(random, all.delay),
            refuse: rate(random, all.refuse),
            lose_reply: rate(random, all.lose_reply),
            late: rate(random, all.late),
            slow_call: rate(random, all.slow_call),
            partitions: random.chance(500),
            node_crashes: random.chance(500),
            node_drains: random.chance(300),
            agent_crashes: random.chance(500),
            freezes: random.chance(500),
            clocks: random.chance(500),
            outages: random.chance(300),
            roaming: random.chance(500),
            apart: random.millis(500, 4_000),
        }
    }
}

/// What a simulation is of. The same options give the same trace, byte for byte.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What decides everything that is left to chance.
    pub seed: u64,
    /// How many nodes share the store.
    pub nodes: usize,
    /// How many agents there are.
    pub agents: usize,
    /// How many jobs an agent runs at once.
    pub slots: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// How it ends.
    pub mode: Mode,
    /// How long faults go on, in liveness mode.
    pub trouble: Duration,
    /// How long it may last after that, or in all, in virtual time.
    pub bound: Duration,
    /// The figures that the schedulers go by.
    pub scheduler: SchedulerConfig,
    /// How often a node says that it is alive.
    pub beat: Duration,
    /// After how long of silence it counts as dead.
    pub ttl: Duration,
    /// Whether a node starts again under the name that it had. That ends its earlier life at once, so it stands for a node whose
    /// agents are in its process: they die with it. Else each life has a name of its own, and the earlier one ends by time.
    pub named: bool,
    /// Whether a subscriber listens to every change.
    pub listen: bool,
    /// The bug to plant in the models.
    pub bug: Option<Bug>,
    /// How many lines of the trace are kept to be shown.
    pub tail: usize,
}

impl Options {
    /// One node and two agents, without faults.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            nodes: 1,
            agents: 2,
            slots: 8,
            faults: Faults::none(),
            mode: Mode::Liveness,
            trouble: Duration::ZERO,
            bound: Duration::from_secs(600),
            scheduler: SchedulerConfig::default(),
            beat: Duration::from_secs(2),
            ttl: Duration::from_secs(6),
            named: false,
            listen: false,
            bug: None,
            tail: 0,
        }
    }

    /// A size and a set of faults as the seed draws them, every second seed in liveness mode.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut random = Random::of_seed(seed ^ 0x7377_6172_6d00);
        let mode = if seed.is_multiple_of(2) { Mode::Liveness } else { Mode::Safety };
        let mut options = Self {
            nodes: 1 + random.place(3),
            agents: 1 + random.place(5),
            slots: 1 + u32::try_from(random.below(12)).unwrap_or(0),
            faults: Faults::swarm(&mut random),
            mode,
            trouble: random.millis(5_000, 40_000),
            bound: Duration::from_secs(if mode == Mode::Liveness { 600 } else { 20 }),
            listen: random.chance(200),
            ..Self::calm(seed)
        };
        // Agents that go over to other nodes are not in the process of any.
        options.named = !options.faults.roaming && random.chance(500);
        options
    }

    /// Plants a bug, and switches on the faults without which it cannot show.
    #[must_use]
    pub fn bug(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        match bug {
            Bug::WallClockTimers => {
                self.faults.clocks = true;
                self.faults.outages = true;
                self.mode = Mode::Liveness;
            }
            Bug::NoFence | Bug::StateOnlySettle => {
                // What is told late meets the next run.
                self.nodes = self.nodes.max(2);
                self.agents = self.agents.max(2);
                self.faults.late = self.faults.late.max(30);
                self.faults.slow_call = self.faults.slow_call.max(20);
            }
            Bug::LeaseByNodeClock | Bug::CronByNodeClock => self.faults.clocks = true,
            Bug::FireTwice => self.faults.lose_reply = self.faults.lose_reply.max(20),
            Bug::AckBeforeDurable | Bug::SpawnOutsideSettle => self.faults.outages = true,
            Bug::ForgottenClaims => self.faults.lose_reply = self.faults.lose_reply.max(20),
            Bug::NoGrantDedupe => self.faults.duplicate = self.faults.duplicate.max(20),
            Bug::ReapWithoutTerm => {
                self.nodes = self.nodes.max(2);
                self.faults.slow_call = self.faults.slow_call.max(20);
            }
            Bug::SilentDrop => self.listen = true,
            Bug::NoAgentFence => {
                self.nodes = self.nodes.max(2);
                self.agents = self.agents.max(2);
                self.faults.partitions = true;
            }
            Bug::NoNodeFence => {
                self.nodes = self.nodes.max(2);
                self.agents = self.agents.max(2);
                // Nodes are cut off from the store while their agents hear of them: what else goes wrong ends runs as well.
                self.faults = Faults { partitions: true, ..Faults::none() };
                self.trouble = self.trouble.max(Duration::from_secs(30));
                (self.beat, self.ttl) = (Duration::from_secs(1), Duration::from_secs(3));
            }
            _ => {}
        }
        self
    }

    /// Keeps the last lines of the trace.
    #[must_use]
    pub fn tail(mut self, lines: usize) -> Self {
        self.tail = lines;
        self
    }
}
