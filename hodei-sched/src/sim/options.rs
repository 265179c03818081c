//! What a simulation is of.

use std::time::Duration;

use hodei_core::job::Priority;

use super::bug::Bug;
use super::random::Random;
use crate::balance::{Balancer, ConsistentHash, Fit, LeastLoaded, ResourceAware, RoundRobin, TwoChoices};
use crate::machine::SchedulerConfig;
use crate::queue::Ageing;

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
    /// A dispatcher of a node dies of a panic, and the others go on.
    pub dispatcher_deaths: bool,
    /// A dispatcher of a node stands still for a while, and the others go on.
    pub stalls: bool,
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
            dispatcher_deaths: false,
            stalls: false,
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
            dispatcher_deaths: true,
            stalls: true,
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
            // These are drawn with the dispatchers.
            dispatcher_deaths: false,
            stalls: false,
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
    /// How many dispatchers a node has, which lend each other jobs.
    pub dispatchers: usize,
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
    /// Whether the store looks when it answers a heartbeat: in one call it prolongs lives, keeps the duty and says who leads and what
    /// there is to do, so that nodes may rest. Else a heartbeat is several calls, and nobody rests.
    pub looks: bool,
    /// How many jobs of a tenant may be open at once; no bound, unless it is said here.
    pub tenant_max_open: Option<u64>,
    /// Whether a node starts again under the name that it had. That ends its earlier life at once, so it stands for a node whose
    /// agents are in its process: they die with it. Else each life has a name of its own, and the earlier one ends by time.
    pub named: bool,
    /// Whether half of the runs last for up to some seconds, in whichever seed: much is under way when something goes wrong then.
    pub lasting: bool,
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
            dispatchers: 1,
            agents: 2,
            slots: 8,
            faults: Faults::none(),
            mode: Mode::Liveness,
            trouble: Duration::ZERO,
            bound: Duration::from_secs(600),
            scheduler: SchedulerConfig::default(),
            beat: Duration::from_secs(2),
            ttl: Duration::from_secs(6),
            looks: false,
            tenant_max_open: None,
            named: false,
            lasting: false,
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
        options.draw(&mut random);
        options
    }

    /// Draws how nodes work: dispatchers beside each other, a balancer, preemption, rest, ageing, and how much tenants may have open.
    fn draw(&mut self, random: &mut Random) {
        if random.chance(400) {
            self.dispatchers = 2 + random.place(2);
            (self.faults.dispatcher_deaths, self.faults.stalls) = (random.chance(400), random.chance(500));
        }
        let seed = random.bits();
        let balancers: [Box<dyn Balancer>; 6] = [
            Box::new(LeastLoaded),
            Box::new(RoundRobin::new()),
            Box::new(ResourceAware::new(Fit::Tightest).sample(2)),
            Box::new(ResourceAware::new(Fit::Loosest)),
            Box::new(ConsistentHash::new()),
            Box::new(TwoChoices::seeded(seed)),
        ];
        if let Some(balancer) = random.pick(&balancers) {
            self.scheduler.balancer = balancer.another();
        }
        if random.chance(400) {
            self.scheduler.preempt = Some(1 + u8::try_from(random.below(24)).unwrap_or(0));
        }
        self.looks = random.chance(400);
        if self.looks {
            self.scheduler.rest_after = random.millis(500, 6_000);
        }
        self.tenant_max_open = random.chance(200).then(|| 4 + random.below(60));
        self.scheduler.memory_growth = random.pick(&[1, 2, 16]).copied().unwrap_or(16);
        if random.chance(400) {
            // Within the time that a simulation lasts.
            self.scheduler.ageing = Some(Ageing { every: random.millis(20, 2_000), ceiling: Priority::MAX });
        }
    }

    /// Plants a bug, and switches on the faults without which it cannot show.
    #[must_use]
    pub fn bug(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        // Stores are asked more often although nothing is known of work, so that what hangs is told from what waits, sooner.
        self.scheduler.idle_poll = Duration::from_secs(20);
        self.bound = self.bound.min(Duration::from_secs(90));
        match bug {
            Bug::WallClockTimers => {
                let apart = Duration::from_millis(700);
                self.faults = Faults { clocks: true, outages: true, apart, ..Faults::none() };
                (self.mode, self.bound) = (Mode::Liveness, Duration::from_secs(90));
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
                self.agents = self.agents.max(3);
                let apart = Duration::from_secs(1);
                self.faults = Faults { partitions: true, roaming: true, apart, ..Faults::none() };
                // More runs last longer than a node waits for their agent.
                self.scheduler.session_ttl = Duration::from_secs(2);
                self.scheduler.next_sync = Duration::from_millis(600);
            }
            Bug::NoNodeFence => {
                self.nodes = self.nodes.max(2);
                self.agents = self.agents.max(2);
                // Nodes are cut off from the store while their agents hear of them: what else goes wrong ends runs as well.
                let apart = Duration::from_secs(1);
                self.faults = Faults { partitions: true, apart, ..Faults::none() };
                self.trouble = self.trouble.max(Duration::from_secs(30));
                (self.beat, self.ttl) = (Duration::from_secs(1), Duration::from_secs(3));
            }
            _ => self.inside(bug),
        }
        self
    }

    /// What it takes for bugs that are within a node to show.
    fn inside(&mut self, bug: Bug) {
        match bug {
            Bug::LentTwice | Bug::LentReclaimed => {
                (self.dispatchers, self.agents) = (3, self.agents.max(4));
                (self.faults.stalls, self.faults.dispatcher_deaths) = (true, false);
            }
            Bug::PreemptionCosts | Bug::PreemptionEnds => {
                (self.nodes, self.agents, self.slots) = (1, 1, self.slots.min(3));
                self.scheduler.preempt = Some(1);
            }
            Bug::LeadsWithoutTerm => (self.looks, self.nodes) = (true, self.nodes.max(2)),
            Bug::OpenIgnored => self.tenant_max_open = Some(4),
            Bug::RunsUnweighed | Bug::NoSelfFence => {
                // Agents go to another dispatcher while they run something, and have more slots than memory.
                (self.nodes, self.dispatchers, self.slots) = (2, 3, 12);
                self.agents = self.agents.clamp(1, 2);
                let apart = Duration::from_millis(400);
                let (dispatcher_deaths, node_crashes) = (true, true);
                self.faults =
                    Faults { dispatcher_deaths, node_crashes, roaming: true, apart, ..Faults::none() };
                (self.named, self.lasting) = (false, true);
                self.trouble = self.trouble.max(Duration::from_secs(20));
            }
            Bug::PlaceUnread | Bug::CompanyUnread => self.agents = self.agents.max(2),
            Bug::CeilingIgnored => {
                (self.nodes, self.agents, self.slots) = (1, 1, 1);
                self.scheduler.ageing =
                    Some(Ageing { every: Duration::from_millis(20), ceiling: Priority::MAX });
            }
            _ => {}
        }
    }

    /// Keeps the last lines of the trace.
    #[must_use]
    pub fn tail(mut self, lines: usize) -> Self {
        self.tail = lines;
        self
    }
}
