//! A node: the engine's machine and duties, and a loop around them in virtual time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hodei_core::codec::Codecs;
use hodei_core::gateway::{Desired, SessionState};
use hodei_core::job::Lease;
use hodei_core::store::{Coordination, JobStore, Retention, Served, Store};
use hodei_core::{Clock, ErrorKind, ManualClock, OwnerId, Timestamp};
use tokio::sync::watch;

use super::agent::AgentModel;
use super::bug::Bug;
use super::door::Door;
use super::network::Place;
use super::options::Faults;
use super::random::Random;
use super::task::{Done, Of};
use super::world::{Caller, Event, World};
use crate::cron::Duty;
use crate::driver::{Shared, ask, life};
use crate::herald::Herald;
use crate::machine::{Effect, Input, Scheduler, SchedulerConfig, Ticket};
use crate::maintain::{Duties, Heard, Lead, Maintenance, beat};
use crate::settled::Waiters;

/// How long a node takes over what came in together.
const STEP: Duration = Duration::from_micros(50);
/// After how long a node that could not start is started again.
const BOOT_AGAIN: Duration = Duration::from_secs(1);

/// A node, whether it is up or not.
#[derive(Debug)]
pub(super) struct Node {
    /// Which of its lives it is in; a dead one has none, until it starts.
    pub(super) life: u64,
    pub(super) up: Option<Live>,
    /// Until when it stands still.
    pub(super) frozen: Timestamp,
    owner: OwnerId,
    pub(super) wall: Arc<ManualClock>,
    pace: Arc<ManualClock>,
    /// How far its wall clock is off, in microseconds.
    pub(super) off: i64,
    /// What its wall clock showed when it started, and when that was.
    began: (Timestamp, Timestamp),
}

/// A node that is up.
#[derive(Debug)]
pub(super) struct Live {
    shared: Arc<Shared>,
    machine: Scheduler,
    inbox: Vec<Input>,
    /// Whether it has been told to look into its inbox.
    called: bool,
    replies: BTreeMap<Ticket, Caller>,
    next_ticket: Ticket,
    tick: Timestamp,
    /// Whether a call of its machine is under way.
    asking: bool,
    draining: bool,
    /// The duty as the last heartbeat found it.
    lead: Lead,
    /// The duties, while it is not busy with them.
    duties: Option<Duties>,
    /// The duty of firing, likewise.
    cron: Option<Duty>,
}

impl Node {
    pub(super) fn new(n: usize, chance: &mut Random, faults: &Faults) -> Self {
        let wrong = faults.clocks && chance.chance(700);
        let off = if wrong { chance.below(600_000_000).cast_signed() - 300_000_000 } else { 0 };
        Self {
            life: 0,
            up: None,
            frozen: Timestamp::EPOCH,
            owner: named(&format!("node-{n}")),
            wall: Arc::new(ManualClock::default()),
            pace: Arc::new(ManualClock::default()),
            off,
            began: (Timestamp::EPOCH, Timestamp::EPOCH),
        }
    }
}

/// An owner; a name made here has no character that names may not have.
fn named(name: &str) -> OwnerId {
    OwnerId::new(name).unwrap_or_else(|_| OwnerId::from(hodei_core::Name::literal("node")))
}

impl<A: AgentModel> World<A> {
    /// Sets the clocks of a node to what they show now.
    pub(super) fn set_clocks(&mut self, n: usize) {
        let by_wall = self.options.bug == Some(Bug::WallClockTimers);
        let node = &mut self.nodes[n];
        let wall = Timestamp::from_micros(self.now.as_micros() + node.off);
        node.wall.set(wall);
        let (began, at) = node.began;
        let pace = began.saturating_add(self.now.saturating_since(at));
        node.pace.set(if by_wall { wall } else { pace });
    }

    pub(super) fn boot(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.up.is_some() {
            return;
        }
        node.life += 1;
        let life = node.life;
        if !self.options.named {
            node.owner = named(&format!("node-{n}.{life}"));
        }
        node.began = (Timestamp::from_micros(self.now.as_micros() + node.off), self.now);
        self.set_clocks(n);
        self.tell(format_args!("node-{n}: starts, life {life}"));
        let node = &self.nodes[n];
        let config = Maintenance {
            beat: self.options.beat,
            lost_max: self.options.scheduler.lost_max,
            retention: Retention::default(),
        };
        let door = Arc::clone(&self.door);
        let (owner, ttl) = (node.owner.clone(), self.options.ttl);
        let clocks = (Arc::clone(&node.wall), Arc::clone(&node.pace));
        let up = async move { Done::Up(start(&door, owner, ttl, clocks, config).await) };
        self.spawn(Of::Node { node: n, life }, Box::pin(up));
    }

    /// A node dies. What it has on its way to the store arrives there all the same.
    pub(super) fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.life += 1;
        node.up = None;
        node.frozen = Timestamp::EPOCH;
        self.tell(format_args!("node-{n}: dies"));
    }

    /// Wakes a node.
    pub(super) fn woken(&mut self, n: usize, at: Timestamp) {
        let life = self.nodes[n].life;
        if let Some(live) = &mut self.nodes[n].up {
            live.inbox.push(Input::Woken);
            if !std::mem::replace(&mut live.called, true) {
                self.at(at, Event::Step { node: n, life });
            }
        }
    }

    fn give(&mut self, n: usize, input: Input) {
        let life = self.nodes[n].life;
        let at = self.now.saturating_add(STEP);
        if let Some(live) = &mut self.nodes[n].up {
            live.inbox.push(input);
            if !std::mem::replace(&mut live.called, true) {
                self.at(at, Event::Step { node: n, life });
            }
        }
    }

    pub(super) fn drain_node(&mut self, n: usize) {
        if let Some(live) = self.nodes[n].up.as_mut().filter(|live| !live.draining) {
            live.draining = true;
            self.tell(format_args!("node-{n}: drains"));
            self.give(n, Input::Drain);
        }
    }

    pub(super) fn node_tick(&mut self, n: usize, life: u64, at: Timestamp) {
        let node = &self.nodes[n];
        if node.life == life && node.up.as_ref().is_some_and(|live| live.tick == at) {
            self.give(n, Input::Tick);
        }
    }

    pub(super) fn synced(&mut self, n: usize, life: u64, from: Caller, state: Box<SessionState>) {
        let node = &mut self.nodes[n];
        if node.life != life {
            return;
        }
        let Some(live) = &mut node.up else { return };
        live.next_ticket += 1;
        let ticket = live.next_ticket;
        live.replies.insert(ticket, from);
        self.give(n, Input::Synced(state, ticket));
    }

    pub(super) fn step_event(&mut self, n: usize, life: u64) {
        let node = &self.nodes[n];
        if node.life != life {
            return;
        }
        if node.frozen > self.now {
            return self.at(node.frozen, Event::Step { node: n, life });
        }
        self.set_clocks(n);
        let now = self.nodes[n].pace.now();
        let Some(live) = &mut self.nodes[n].up else { return };
        live.called = false;
        for input in std::mem::take(&mut live.inbox) {
            live.machine.handle(input, now);
        }
        self.figures.steps += 1;
        while let Some(effect) = self.nodes[n].up.as_mut().and_then(|live| live.machine.poll_effect(now)) {
            self.carry_out(n, effect);
        }
        if let Some(live) = &self.nodes[n].up {
            live.shared.rests.store(live.machine.rests(), Ordering::Release);
        }
        self.node_rests(n, now);
    }

    /// Sets the timer of a node, or lets it go when it has drained.
    fn node_rests(&mut self, n: usize, now: Timestamp) {
        let life = self.nodes[n].life;
        let door = Arc::clone(&self.door);
        let Some(live) = &mut self.nodes[n].up else { return };
        if live.draining && live.machine.is_idle() && !live.asking {
            let lease = live.shared.lease.borrow().clone();
            let retire = async move {
                // A node that cannot say goodbye expires.
                let _ = door.retire(&lease).await;
                Done::Retired
            };
            live.asking = true;
            return self.spawn(Of::Node { node: n, life }, Box::pin(retire));
        }
        let wait = live.machine.poll_timeout().saturating_since(now).max(STEP);
        let at = self.now.saturating_add(wait);
        if live.tick <= self.now || at < live.tick {
            live.tick = at;
            self.at(at, Event::Tick { node: n, life, at });
        }
    }

    fn carry_out(&mut self, n: usize, effect: Effect) {
        let life = self.nodes[n].life;
        let Some(live) = &mut self.nodes[n].up else { return };
        match effect {
            Effect::Reply(ticket, reply) => {
                if let Some(to) = live.replies.remove(&ticket) {
                    self.reply(n, to, reply);
                }
            }
            question => {
                live.asking = true;
                let forgets = self.options.bug == Some(Bug::ForgottenClaims);
                if forgets && matches!(question, Effect::AskLeases) {
                    return self.node_done(n, Done::Input(Input::Leases(Ok(Vec::new()))));
                }
                if matches!(question, Effect::AskLanes) {
                    self.watch.asked(n, self.now);
                }
                let ask = ask(Arc::clone(&live.shared), question);
                let ask = async move { Done::Input(ask.await) };
                self.spawn(Of::Node { node: n, life }, Box::pin(ask));
            }
        }
    }

    fn reply(&mut self, n: usize, to: Caller, reply: Result<Box<Desired>, ErrorKind>) {
        let Caller { agent, life, call } = to;
        let faults = self.faults();
        let route = (Place::Node(n), Place::Agent(agent));
        let [first, again] = self.network.send(route, self.now, &faults, &mut self.chance);
        if let Some(at) = again {
            self.at(at, Event::Replied { agent, life, call, reply: reply.clone() });
        }
        if let Some(at) = first {
            self.at(at, Event::Replied { agent, life, call, reply });
        }
    }

    pub(super) fn node_done(&mut self, n: usize, done: Done) {
        match done {
            Done::Up(Ok((shared, lease, until, duties))) => self.is_up(n, shared, (lease, until), duties),
            Done::Up(Err(error)) => {
                self.tell(format_args!("node-{n}: cannot start, {:?}", error.kind()));
                self.after(BOOT_AGAIN, Event::Boot { node: n });
            }
            Done::Input(mut input) => {
                if let Some(live) = &mut self.nodes[n].up {
                    live.asking = false;
                }
                if matches!(self.options.bug, Some(Bug::NoNodeFence | Bug::DeafNode))
                    && let Input::Registered(_, until) = &mut input
                {
                    *until = Timestamp::MAX;
                }
                if self.options.bug == Some(Bug::DeafNode)
                    && let Input::Exchanged(Ok(exchanged)) = &mut input
                {
                    exchanged.owner_lost = false;
                }
                self.give(n, input);
            }
            Done::Beaten(heard, lead) => self.beaten(n, heard, lead),
            Done::Led(duties, prunes) => self.led(n, duties, prunes),
            Done::Kept(duties) => self.rests(n, duties),
            Done::Fired(cron, wait) => self.fired(n, cron, wait),
            Done::Retired => {
                self.tell(format_args!("node-{n}: ends"));
                self.nodes[n].life += 1;
                self.nodes[n].up = None;
                let wait = self.chance.millis(10, 3_000);
                self.after(wait, Event::Boot { node: n });
            }
            Done::Acted => {}
        }
    }

    fn is_up(&mut self, n: usize, shared: Arc<Shared>, (lease, until): (Lease, Timestamp), duties: Duties) {
        self.set_clocks(n);
        let life = self.nodes[n].life;
        let now = self.nodes[n].pace.now();
        self.tell(format_args!("node-{n}: is up as {}", lease.incarnation));
        let cron = Duty::of(Arc::clone(&shared));
        let fence_margin = self.options.ttl - crate::driver::life(self.options.ttl);
        let config = SchedulerConfig { fence_margin, ..self.options.scheduler.clone() };
        let live = Live {
            machine: Scheduler::new(config, lease.clone(), now),
            shared,
            inbox: Vec::new(),
            called: false,
            replies: BTreeMap::new(),
            next_ticket: 0,
            tick: Timestamp::EPOCH,
            asking: false,
            draining: false,
            lead: Lead::under(duties.term.clone()),
            duties: Some(duties),
            cron: Some(cron),
        };
        self.nodes[n].up = Some(live);
        let careless = matches!(self.options.bug, Some(Bug::NoNodeFence | Bug::DeafNode));
        self.give(n, if careless { Input::Tick } else { Input::Beaten(lease, Some(until)) });
        self.after(self.options.beat, Event::Beat { node: n, life });
        self.after(self.options.beat, Event::Lead { node: n, life });
        self.after(Duration::ZERO, Event::Cron { node: n, life });
    }

    /// Beats for a node; a beat that is late begins when the one before is over.
    pub(super) fn beat(&mut self, n: usize, life: u64) {
        let node = &mut self.nodes[n];
        if node.life != life {
            return;
        }
        if node.frozen > self.now {
            let at = node.frozen;
            return self.at(at, Event::Beat { node: n, life });
        }
        let Some(live) = &mut node.up else { return };
        let shared = Arc::clone(&live.shared);
        let mut lead = live.lead.clone();
        let beat = async move {
            let heard = beat(&[shared], &mut lead).await;
            Done::Beaten(heard, lead)
        };
        self.spawn(Of::Node { node: n, life }, Box::pin(beat));
    }

    fn beaten(&mut self, n: usize, heard: Vec<Heard>, lead: Lead) {
        if let Some(live) = &mut self.nodes[n].up {
            live.lead = lead;
        }
        let deaf = self.options.bug == Some(Bug::DeafNode);
        let careless = matches!(self.options.bug, Some(Bug::NoNodeFence | Bug::DeafNode));
        for Heard { lease, until, cancel, may_rest, .. } in heard {
            if let Some(live) = &mut self.nodes[n].up {
                live.machine.let_rest(may_rest);
            }
            let told = if until.is_some() { !careless } else { !deaf };
            if told {
                self.give(n, Input::Beaten(lease, until));
            }
            if !cancel.is_empty() {
                self.give(n, Input::Cancelled(cancel));
            }
        }
        let life = self.nodes[n].life;
        if self.nodes[n].up.is_some() {
            self.after(self.options.beat, Event::Beat { node: n, life });
        }
    }

    /// Does what a node that leads does at each beat, beside beating.
    pub(super) fn lead(&mut self, n: usize, life: u64) {
        let node = &mut self.nodes[n];
        if node.life != life {
            return;
        }
        if node.frozen > self.now {
            let at = node.frozen;
            return self.at(at, Event::Lead { node: n, life });
        }
        let Some(live) = &mut node.up else { return };
        let Some(mut duties) = live.duties.take() else { return };
        let (shared, lead) = (Arc::clone(&live.shared), live.lead.clone());
        let lead = async move {
            let prunes = duties.lead(&shared, &lead).await;
            Done::Led(duties, prunes)
        };
        self.spawn(Of::Node { node: n, life }, Box::pin(lead));
    }

    /// Looks at the schedules as a node does, and fires what is due where it leads.
    pub(super) fn cron(&mut self, n: usize, life: u64) {
        let node = &mut self.nodes[n];
        if node.life != life {
            return;
        }
        if node.frozen > self.now {
            let at = node.frozen;
            return self.at(at, Event::Cron { node: n, life });
        }
        let Some(mut cron) = node.up.as_mut().and_then(|live| live.cron.take()) else { return };
        let round = async move {
            let wait = cron.round_in_turn().await;
            Done::Fired(cron, wait)
        };
        self.spawn(Of::Node { node: n, life }, Box::pin(round));
    }

    fn fired(&mut self, n: usize, cron: Duty, wait: hodei_core::Result<Duration>) {
        let (life, beat) = (self.nodes[n].life, self.options.beat);
        if let Some(live) = &mut self.nodes[n].up {
            live.cron = Some(cron);
            // What failed is tried again, at the latest after a beat.
            self.after(wait.unwrap_or(beat).min(beat).max(STEP), Event::Cron { node: n, life });
        }
    }

    /// The leader prunes.
    fn led(&mut self, n: usize, duties: Duties, prunes: bool) {
        let life = self.nodes[n].life;
        let Some(live) = &self.nodes[n].up else { return };
        if !prunes {
            return self.rests(n, duties);
        }
        let shared = Arc::clone(&live.shared);
        let mut duties = duties;
        let keep = async move {
            let pruned = duties.prune(&shared).await;
            duties.unfinished = pruned.is_ok_and(|pruned| pruned.more);
            Done::Kept(duties)
        };
        self.spawn(Of::Node { node: n, life }, Box::pin(keep));
    }

    fn rests(&mut self, n: usize, duties: Duties) {
        let life = self.nodes[n].life;
        if let Some(live) = &mut self.nodes[n].up {
            let wait = if duties.behind { Duration::ZERO } else { self.options.beat };
            live.duties = Some(duties);
            self.after(wait, Event::Lead { node: n, life });
        }
    }
}

/// Starts a node as the builder of the orchestrator does.
async fn start(
    door: &Arc<Door>,
    owner: OwnerId,
    ttl: Duration,
    (clock, pace): (Arc<ManualClock>, Arc<ManualClock>),
    config: Maintenance,
) -> hodei_core::Result<(Arc<Shared>, Lease, Timestamp, Duties)> {
    let until = pace.now().saturating_add(life(ttl));
    let lease = door.register(&owner, ttl).await?;
    let herald = Arc::new(Herald { waiters: Waiters::default(), bus: None });
    let shared = Arc::new(Shared {
        _feed: Arc::new(door.feed(Arc::<Herald>::clone(&herald))),
        herald,
        store: Arc::<Door>::clone(door) as Arc<dyn Store>,
        clock,
        pace,
        served: Served::default(),
        owner,
        ttl,
        codecs: Codecs::default(),
        workers: Mutex::default(),
        logs: Mutex::default(),
        checkpoints: Mutex::default(),
        blobs: Mutex::default(),
        rests: AtomicBool::new(false),
        died: AtomicBool::new(false),
        lease: watch::Sender::new(lease.clone()),
        failure: Arc::new(watch::Sender::new(None)),
    });
    let duties = Duties::recover(&shared, config).await?;
    Ok((shared, lease, until, duties))
}
