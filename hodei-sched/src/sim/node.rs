//! A node: its dispatchers, its heartbeat and its duties, in virtual time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hodei_core::codec::Codecs;
use hodei_core::gateway::SessionState;
use hodei_core::job::Lease;
use hodei_core::store::{Coordination, JobStore, Retention, Served, Store};
use hodei_core::{Clock, ErrorKind, ManualClock, OwnerId, Timestamp};
use tokio::sync::watch;

use super::agent::AgentModel;
use super::bug::Bug;
use super::desk::{Desk, Dispatcher, STEP};
use super::door::Door;
use super::options::Faults;
use super::random::Random;
use super::task::{Done, Of};
use super::world::{Caller, Event, World};
use crate::cron::Duty;
use crate::driver::{Common, Shared, life};
use crate::herald::Herald;
use crate::machine::{Input, Policy, worker_key};
use crate::maintain::{Duties, Heard, Lead, Maintenance, beat};
use crate::queue::seats;
use crate::settled::Waiters;

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
    pub(super) pace: Arc<ManualClock>,
    /// How far its wall clock is off, in microseconds.
    pub(super) off: i64,
    /// What its wall clock showed when it started, and when that was.
    began: (Timestamp, Timestamp),
}

/// A node that is up.
#[derive(Debug)]
pub(super) struct Live {
    /// Its dispatchers, but for those that have died or ended.
    pub(super) desks: Vec<Option<Dispatcher>>,
    /// What all of them, the dead ones too, share with the rest of the node.
    shared: Vec<Arc<Shared>>,
    pub(super) draining: bool,
    /// Whether one has died since the last heartbeat.
    died: bool,
    /// The duty as the last heartbeat found it.
    lead: Lead,
    /// The duties, while it is not busy with them.
    duties: Option<Duties>,
    /// The duty of firing, likewise.
    cron: Option<Duty>,
}

impl Live {
    /// The seats of the dispatchers that are at work.
    pub(super) fn seats(&self) -> impl Iterator<Item = usize> + '_ {
        self.desks.iter().enumerate().filter(|(_, desk)| desk.is_some()).map(|(seat, _)| seat)
    }
}

/// A node that has registered its dispatchers.
pub(super) struct Ready {
    desks: Vec<(Arc<Shared>, Lease, Timestamp)>,
    duties: Duties,
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
        let name = node.owner.name().to_string();
        let (ttl, dispatchers) = (self.options.ttl, self.options.dispatchers.max(1));
        // The first one has the name of the node.
        let owners: Vec<OwnerId> = std::iter::once(node.owner.clone())
            .chain((1..dispatchers).map(|seat| named(&format!("{name}.{seat}"))))
            .collect();
        let clocks = (Arc::clone(&node.wall), Arc::clone(&node.pace));
        let up = async move { Done::Up(start(&door, owners, ttl, clocks, config).await) };
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

    pub(super) fn drain_node(&mut self, n: usize) {
        let life = self.nodes[n].life;
        let Some(live) = self.nodes[n].up.as_mut().filter(|live| !live.draining) else { return };
        live.draining = true;
        let seats: Vec<usize> = live.seats().collect();
        self.tell(format_args!("node-{n}: drains"));
        for seat in seats {
            self.give(Desk { node: n, life, seat }, Input::Drain);
        }
    }

    /// Hands the call of an agent to the dispatcher that it falls to, as the engine's gateway does.
    pub(super) fn synced(&mut self, n: usize, life: u64, from: Caller, state: Box<SessionState>) {
        let node = &self.nodes[n];
        let Some(live) = node.up.as_ref().filter(|_| node.life == life) else { return };
        let key = worker_key(&state.worker);
        let place = |of: usize| usize::try_from(key % of.max(1) as u64).unwrap_or(0);
        let seat = place(live.desks.len());
        let living: Vec<usize> = live.seats().collect();
        let seat = if living.contains(&seat) { Some(seat) } else { living.get(place(living.len())).copied() };
        match seat {
            Some(seat) => self.called(Desk { node: n, life, seat }, from, self.as_offered(state)),
            None => self.reply(n, from, Err(ErrorKind::Unavailable)),
        }
    }

    /// What a node takes an agent's offer for.
    fn as_offered(&self, mut state: Box<SessionState>) -> Box<SessionState> {
        if self.options.bug == Some(Bug::OfferMisread) {
            let mut offer = (*state.offer).clone();
            offer.slots *= 2;
            offer.capacity = offer.capacity.checked_add(&offer.capacity).unwrap_or(offer.capacity);
            state.offer = Arc::new(offer);
        }
        state
    }

    /// A dispatcher dies of a panic, unless it is the last one of its node; the others go on.
    pub(super) fn dispatcher_dies(&mut self, desk: Desk) {
        let Some(live) = &mut self.nodes[desk.node].up else { return };
        if live.seats().count() < 2 {
            return;
        }
        live.died = true;
        let dead = live.desks[desk.seat].take();
        live.shared[desk.seat].died.store(true, Ordering::Release);
        self.tell(format_args!("node-{}/{}: dies", desk.node, desk.seat));
        for caller in dead.into_iter().flat_map(Dispatcher::into_callers) {
            self.reply(desk.node, caller, Err(ErrorKind::Unavailable));
        }
    }

    /// A dispatcher has drained, and the node with the last of them.
    pub(super) fn desk_ends(&mut self, desk: Desk) {
        let door = Arc::clone(&self.door);
        let Some(live) = &mut self.nodes[desk.node].up else { return };
        live.desks[desk.seat] = None;
        if live.seats().next().is_some() {
            return;
        }
        let leases: Vec<Lease> = live.shared.iter().map(|shared| shared.lease.borrow().clone()).collect();
        let retire = async move {
            for lease in leases {
                // A node that cannot say goodbye expires.
                let _ = door.retire(&lease).await;
            }
            Done::Retired
        };
        self.spawn(Of::Node { node: desk.node, life: desk.life }, Box::pin(retire));
    }

    pub(super) fn node_done(&mut self, n: usize, done: Done) {
        match done {
            Done::Up(Ok(ready)) => self.is_up(n, ready),
            Done::Up(Err(error)) => {
                self.tell(format_args!("node-{n}: cannot start, {:?}", error.kind()));
                self.after(BOOT_AGAIN, Event::Boot { node: n });
            }
            Done::Beaten(seats, heard, lead) => self.beaten(n, &seats, heard, lead),
            Done::Led(duties, prunes) => self.led(n, duties, prunes),
            Done::Kept(duties) => self.kept(n, duties),
            Done::Fired(cron, wait) => self.fired(n, cron, wait),
            Done::Retired => {
                self.tell(format_args!("node-{n}: ends"));
                self.nodes[n].life += 1;
                self.nodes[n].up = None;
                let wait = self.chance.millis(10, 3_000);
                self.after(wait, Event::Boot { node: n });
            }
            Done::Input(_) | Done::Acted => {}
        }
    }

    fn is_up(&mut self, n: usize, Ready { desks, duties }: Ready) {
        self.set_clocks(n);
        let life = self.nodes[n].life;
        let now = self.nodes[n].pace.now();
        let policy = self.policy.clone();
        let mut seats: Vec<_> = seats(desks.len()).into_iter().map(Some).collect();
        if desks.len() == 1 {
            // Nobody to share with.
            seats = vec![None];
        }
        let shared: Vec<_> = desks.iter().map(|(shared, ..)| Arc::clone(shared)).collect();
        let (mut dispatchers, mut lives) = (Vec::new(), Vec::new());
        for ((shared, lease, until), seat) in desks.into_iter().zip(seats) {
            self.tell(format_args!("node-{n}/{}: is up as {}", dispatchers.len(), lease.incarnation));
            let mut dispatcher = Dispatcher::new(&self.options, shared, lease.clone(), seat, now);
            dispatcher.machine.handle(Input::Policy(Box::new(policy.clone())), now);
            dispatchers.push(Some(dispatcher));
            lives.push((lease, until));
        }
        let cron = Some(Duty::of(shared.clone()));
        let lead = Lead::under(duties.term.clone());
        let duties = Some(duties);
        self.nodes[n].up =
            Some(Live { desks: dispatchers, shared, draining: false, died: false, lead, duties, cron });
        for (seat, (lease, until)) in lives.into_iter().enumerate() {
            let input = if self.is_careless() { Input::Tick } else { Input::Beaten(lease, Some(until)) };
            self.give(Desk { node: n, life, seat }, input);
        }
        self.after(self.options.beat, Event::Beat { node: n, life });
        self.after(self.options.beat, Event::Lead { node: n, life });
        self.after(Duration::ZERO, Event::Cron { node: n, life });
    }

    /// Whether nodes think that they live for ever: a planted bug.
    fn is_careless(&self) -> bool {
        matches!(self.options.bug, Some(Bug::NoNodeFence | Bug::DeafNode))
    }

    /// Has all nodes go by a policy from now on.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.tell(format_args!("client: sets a policy of {} rules", policy.rules.len()));
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            let Some(live) = &self.nodes[node].up else { continue };
            let seats: Vec<usize> = live.seats().collect();
            for seat in seats {
                self.give(Desk { node, life, seat }, Input::Policy(Box::new(policy.clone())));
            }
        }
        self.policy = policy;
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
        let seats: Vec<usize> = live.seats().collect();
        let died = std::mem::take(&mut live.died);
        let shared: Vec<_> = seats.iter().map(|seat| Arc::clone(&live.shared[*seat])).collect();
        let mut lead = live.lead.clone();
        if died {
            self.bereave(n, life, &seats);
        }
        let beat = async move {
            let heard = beat(&shared, &mut lead).await;
            Done::Beaten(seats, heard, lead)
        };
        self.spawn(Of::Node { node: n, life }, Box::pin(beat));
    }

    /// Tells the dispatchers of a node that another one has died.
    fn bereave(&mut self, n: usize, life: u64, seats: &[usize]) {
        self.set_clocks(n);
        let now = self.nodes[n].pace.now();
        for seat in seats {
            let desk = Desk { node: n, life, seat: *seat };
            if let Some(dispatcher) = self.dispatcher(desk) {
                dispatcher.machine.bereave(now);
            }
            self.give(desk, Input::Tick);
        }
    }

    fn beaten(&mut self, n: usize, seats: &[usize], heard: Vec<Heard>, lead: Lead) {
        let life = self.nodes[n].life;
        let Some(live) = &mut self.nodes[n].up else { return };
        live.lead = lead;
        let deaf = self.options.bug == Some(Bug::DeafNode);
        let mut cancelled = Vec::new();
        for Heard { dispatcher, lease, until, cancel, may_rest } in heard {
            cancelled.extend(cancel);
            let Some(seat) = seats.get(dispatcher) else { continue };
            let desk = Desk { node: n, life, seat: *seat };
            if let Some(dispatcher) = self.dispatcher(desk) {
                dispatcher.machine.let_rest(may_rest);
            }
            let told = if until.is_some() { !self.is_careless() } else { !deaf };
            if told {
                self.give(desk, Input::Beaten(lease, until));
            }
        }
        for seat in seats.iter().filter(|_| !cancelled.is_empty()) {
            // Whichever has it: what was lent is with another one than the store says.
            self.give(Desk { node: n, life, seat: *seat }, Input::Cancelled(cancelled.clone()));
        }
        self.after(self.options.beat, Event::Beat { node: n, life });
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
        let (shared, lead) = (Arc::clone(&live.shared[0]), live.lead.clone());
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
            return self.kept(n, duties);
        }
        let shared = Arc::clone(&live.shared[0]);
        let mut duties = duties;
        let keep = async move {
            let pruned = duties.prune(&shared).await;
            duties.unfinished = pruned.is_ok_and(|pruned| pruned.more);
            Done::Kept(duties)
        };
        self.spawn(Of::Node { node: n, life }, Box::pin(keep));
    }

    fn kept(&mut self, n: usize, duties: Duties) {
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
    owners: Vec<OwnerId>,
    ttl: Duration,
    (clock, pace): (Arc<ManualClock>, Arc<ManualClock>),
    config: Maintenance,
) -> hodei_core::Result<Ready> {
    let herald = Arc::new(Herald { waiters: Waiters::default(), bus: None });
    let feed = Arc::new(door.feed(Arc::<Herald>::clone(&herald)));
    let common = Common {
        feed,
        herald,
        store: Arc::<Door>::clone(door) as Arc<dyn Store>,
        clock: clock as Arc<dyn Clock>,
        pace: Arc::<ManualClock>::clone(&pace) as Arc<dyn Clock>,
        served: Served::default(),
        codecs: Codecs::default(),
        ttl,
        failure: Arc::new(watch::Sender::new(None)),
    };
    let mut desks = Vec::with_capacity(owners.len());
    for owner in owners {
        let until = pace.now().saturating_add(life(ttl));
        let lease = door.register(&owner, ttl).await?;
        let shared = common.dispatcher(owner, lease.clone());
        desks.push((Arc::new(shared), lease, until));
    }
    let duties = Duties::recover(&desks[0].0, config).await?;
    Ok(Ready { desks, duties })
}
