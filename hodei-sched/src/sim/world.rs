//! The loop: the next thing that happens, in virtual time, until nothing is left to do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Desired, SessionState};
use hodei_core::job::Epoch;
use hodei_core::store::{MemoryStore, Scope};
use hodei_core::testkit::history::{History, Recorder, RecordingStore};
use hodei_core::{Clock, ErrorKind, JobId, ManualClock, Timestamp};

use super::agent::AgentModel;
use super::bug::Bug;
use super::desk::Desk;
use super::door::{Door, Late, Pass, at_once};
use super::host::Host;
use super::listener::Listener;
use super::network::{Network, Place};
use super::node::Node;
use super::options::{Mode, Options};
use super::outcome::{Figures, Outcome};
use super::planted::Planted;
use super::random::Random;
use super::task::Tasks;
use super::trace::Trace;
use super::watch::Watch;
use super::workload::{Mint, Scene, Workload};
use crate::machine::Policy;

/// When simulated time begins: in 2001, so that ids which the store mints itself sort behind those of the simulation.
const BEGIN: Timestamp = Timestamp::from_micros(1_000_000_000_000_000);

/// How long schedules are watched after the faults, and after how long of it each of their times must fire.
const WATCHED: Duration = Duration::from_secs(40);
const SETTLED: Duration = Duration::from_secs(15);

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A future goes on.
    Goes { task: usize, pass: Pass },
    /// A call happens after everybody has given it up.
    Late(Box<Late>),
    /// A dispatcher takes in what has come.
    Step(Desk),
    /// A dispatcher's timer.
    Tick { desk: Desk, at: Timestamp },
    /// A node is due to say that it is alive.
    Beat { node: usize, life: u64 },
    /// A node is due to do what it owes where it leads.
    Lead { node: usize, life: u64 },
    /// A node is due to look at the schedules.
    Cron { node: usize, life: u64 },
    /// A node starts.
    Boot { node: usize },
    /// A call of an agent reaches a node.
    Synced { node: usize, life: u64, from: Caller, state: Box<SessionState> },
    /// A node's reply reaches an agent.
    Replied { agent: usize, life: u64, call: u64, reply: Result<Box<Desired>, ErrorKind> },
    /// An agent has waited long enough for a reply.
    Silent { agent: usize, life: u64, call: u64 },
    /// An agent's timer.
    AgentTick { agent: usize, life: u64, at: Timestamp },
    /// An agent calls, after its wait.
    Call { agent: usize, life: u64, call: u64 },
    /// A run ends.
    RunEnds { agent: usize, life: u64, job: JobId, epoch: Epoch, serial: u64 },
    /// An agent starts.
    AgentBoot { agent: usize },
    /// A client acts.
    Act,
    /// One of the greater faults.
    Trouble,
    /// Faults are over.
    Heal,
    /// The workload takes back what holds work up.
    Relent,
}

/// A call of an agent, in one of its lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) agent: usize,
    pub(super) life: u64,
    pub(super) call: u64,
}

struct Scheduled {
    at: Timestamp,
    seq: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// Everything there is.
pub(super) struct World<A> {
    pub(super) options: Options,
    pub(super) now: Timestamp,
    seq: u64,
    heap: BinaryHeap<Reverse<Scheduled>>,
    /// The store's clock: the time itself.
    pub(super) clock: Arc<ManualClock>,
    pub(super) door: Arc<Door>,
    pub(super) history: History,
    pub(super) tasks: Tasks,
    pub(super) nodes: Vec<Node>,
    pub(super) hosts: Vec<Host<A>>,
    pub(super) network: Network,
    pub(super) chance: Random,
    pub(super) load_chance: Random,
    pub(super) mint: Mint,
    pub(super) load: Box<dyn Workload>,
    /// What nodes go by that start.
    pub(super) policy: Policy,
    /// The act that a client does next.
    pub(super) act: Option<super::workload::Act>,
    /// Acts under way.
    pub(super) acting: usize,
    pub(super) said_all: bool,
    pub(super) trace: Trace,
    pub(super) watch: Watch,
    pub(super) figures: Figures,
    pub(super) healed: bool,
    /// Since when.
    pub(super) healed_at: Option<Timestamp>,
    /// Jobs that have not ended.
    pub(super) open: i64,
    pub(super) listener: Option<Arc<Listener>>,
    wakeups: hodei_core::store::Wakeups,
}

impl<A: AgentModel> World<A> {
    pub(super) fn new(options: Options, load: Box<dyn Workload>) -> Self {
        let clock = Arc::new(ManualClock::at(BEGIN));
        let open_max = options.tenant_max_open.filter(|_| options.bug != Some(Bug::OpenIgnored));
        let inner = MemoryStore::builder()
            .clock(Arc::<ManualClock>::clone(&clock))
            .tenant_max_open(open_max.unwrap_or(u64::MAX))
            .build();
        let planted = Planted::new(inner, Arc::clone(&clock), options.bug);
        let door = Door::new(RecordingStore::new(planted, Recorder::new()), Arc::clone(&clock), &options);
        let mut chance = Random::of_seed(options.seed);
        let nodes = (0..options.nodes).map(|n| Node::new(n, &mut chance, &options.faults)).collect();
        let hosts = (0..options.agents).map(|n| Host::new(n, options.slots, options.nodes)).collect();
        let wakeups = hodei_core::store::JobStore::wakeups(&*door);
        let mut world = Self {
            now: BEGIN,
            seq: 0,
            heap: BinaryHeap::new(),
            clock,
            history: History::new(),
            tasks: Tasks::default(),
            nodes,
            hosts,
            network: Network::new(),
            load_chance: chance.fork(),
            mint: Mint::new(chance.fork()),
            chance,
            load,
            policy: Policy::default(),
            act: None,
            acting: 0,
            said_all: false,
            trace: Trace::new(options.tail),
            watch: Watch::default(),
            figures: Figures::default(),
            healed: false,
            healed_at: None,
            open: 0,
            listener: None,
            wakeups,
            door,
            options,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        if self.options.listen {
            let silent = self.options.bug == Some(Bug::SilentDrop);
            self.listener = Some(Listener::listen(&self.door, silent));
        }
        (0..self.nodes.len()).for_each(|node| self.at(self.now, Event::Boot { node }));
        (0..self.hosts.len()).for_each(|agent| self.at(self.now, Event::AgentBoot { agent }));
        self.next_act();
        self.next_trouble();
        if self.options.mode == Mode::Liveness {
            self.after(self.options.trouble, Event::Heal);
        }
    }

    /// Lets something happen at a time.
    pub(super) fn at(&mut self, at: Timestamp, event: Event) {
        self.seq += 1;
        self.heap.push(Reverse(Scheduled { at: at.max(self.now), seq: self.seq, event }));
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now.saturating_add(wait), event);
    }

    /// The faults that there are now.
    pub(super) fn faults(&self) -> super::options::Faults {
        if self.healed { super::options::Faults::none() } else { self.options.faults.clone() }
    }

    pub(super) fn scene(&mut self) -> (&mut dyn Workload, Scene<'_>) {
        let scene = Scene { now: self.now, random: &mut self.load_chance, mint: &mut self.mint };
        (&mut *self.load, scene)
    }

    /// Adds a line to the trace.
    pub(super) fn tell(&mut self, text: std::fmt::Arguments<'_>) {
        let since = self.now.saturating_since(BEGIN);
        self.trace.line(format_args!("{:>4}.{:06} {text}", since.as_secs(), since.subsec_micros()));
    }

    /// Runs to the end and judges what happened.
    pub(super) fn run(mut self) -> Outcome {
        let most = self.options.trouble.saturating_add(self.options.bound);
        let mut end = BEGIN.saturating_add(most);
        while let Some(Reverse(Scheduled { at, event, .. })) = self.heap.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.clock.set(at);
            self.figures.events += 1;
            self.happen(event);
            if self.is_over() {
                break;
            }
            if !self.said_all {
                // What clients say after long silences has its time, too.
                end = end.max(self.now.saturating_add(self.options.bound));
            }
        }
        self.judge()
    }

    fn is_over(&self) -> bool {
        let calm = self.healed || self.options.mode == Mode::Safety;
        // Schedules are watched for a while in calm: then each of their times fires.
        let fires = self.watch.has_schedules()
            && self.healed_at.is_some_and(|at| self.now < at.saturating_add(WATCHED));
        calm && self.said_all && self.acting == 0 && self.open == 0 && !fires
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Goes { task, pass } => self.goes(task, pass),
            Event::Late(late) => self.late(*late),
            Event::Step(desk) => self.step_event(desk),
            Event::Tick { desk, at } => self.desk_tick(desk, at),
            Event::Beat { node, life } => self.beat(node, life),
            Event::Lead { node, life } => self.lead(node, life),
            Event::Cron { node, life } => self.cron(node, life),
            Event::Boot { node } => self.boot(node),
            Event::Synced { node, life, from, state } => self.synced(node, life, from, state),
            Event::Replied { agent, life, call, reply } => self.replied(agent, life, call, reply),
            Event::Silent { agent, life, call } => self.silent(agent, life, call),
            Event::AgentTick { agent, life, at } => self.agent_tick(agent, life, at),
            Event::Call { agent, life, call } => self.call_now(agent, life, call),
            Event::RunEnds { agent, life, job, epoch, serial } => {
                self.run_ends(agent, life, (job, epoch), serial);
            }
            Event::AgentBoot { agent } => self.agent_boot(agent),
            Event::Act => self.client_acts(),
            Event::Trouble => self.trouble(),
            Event::Heal => self.heal(),
            Event::Relent => self.relent(),
        }
    }

    /// Hears whether the store has rung, and tells the nodes; a ring is a hint, and hints get lost.
    pub(super) fn hear(&mut self) {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if self.wakeups.as_mut().poll_next(&mut cx).is_pending() {
            return;
        }
        let faults = self.faults();
        for node in 0..self.nodes.len() {
            let (route, life) = ((Place::Store, Place::Node(node)), self.nodes[node].life);
            for seat in 0..self.options.dispatchers.max(1) {
                let [first, _] = self.network.send(route, self.now, &faults, &mut self.chance);
                if let Some(at) = first {
                    self.woken(Desk { node, life, seat }, at);
                }
            }
        }
    }

    /// Judges the history, and what else was seen.
    fn judge(mut self) -> Outcome {
        // Whatever is still under way is over now.
        for host in 0..self.hosts.len() {
            self.runs_die(host);
        }
        let survey = at_once(self.door.store().survey());
        if let Err(error) = survey {
            self.watch.find(format!("the store could not be read: {error}"));
        }
        self.history_take();
        let indexes = at_once(hodei_core::store::JobStore::verify_indexes(self.door.store().inner()));
        for wrong in indexes.unwrap_or_default().into_iter().take(3) {
            self.watch.find(format!("an index is wrong: {wrong}"));
        }
        if self.options.mode == Mode::Liveness && (self.open != 0 || self.acting != 0 || !self.said_all) {
            let counts = at_once(hodei_core::store::JobStore::counts(self.door.store().inner(), &Scope::All));
            self.watch.find(format!(
                "I18 liveness: {:?} after the faults {} jobs have not ended and {} acts of clients, {counts:?}",
                self.options.bound, self.open, self.acting
            ));
            self.tell_how_nodes_stand();
        }
        if let Some(healed) = self.healed_at {
            self.watch.fired_in_calm(healed.saturating_add(SETTLED), self.now);
        }
        self.figures.virtual_time = self.now.saturating_since(BEGIN);
        if self.healed {
            self.figures.recovery = self.figures.virtual_time.saturating_sub(self.options.trouble);
        }
        Outcome::of(self.options, self.history, self.watch, self.figures, self.trace)
    }

    /// Why does nothing go on?
    fn tell_how_nodes_stand(&mut self) {
        let lives = self.nodes.iter().enumerate().filter_map(|(n, node)| Some((n, node.up.as_ref()?)));
        let desks = lives.flat_map(|(n, live)| live.desks.iter().flatten().map(move |desk| (n, desk)));
        let told: Vec<String> =
            desks.map(|(n, desk)| format!("node-{n}: {:?}", desk.machine.snapshot())).collect();
        told.iter().for_each(|text| self.tell(format_args!("{text}")));
    }

    /// Takes in what was recorded since, and tells the trace and the workload.
    pub(super) fn history_take(&mut self) {
        let entries = self.door.store().recorder().take();
        for entry in entries {
            self.noted(&entry);
            self.history.push(entry);
        }
    }

    /// What a node's wall clock shows.
    pub(super) fn wall(&self, node: usize) -> Timestamp {
        self.nodes[node].wall.now()
    }
}
