//! A dispatcher of a node: the engine's machine, and a loop around it in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use hodei_core::gateway::{Desired, SessionState};
use hodei_core::job::{JobSpec, Lease, NewJob};
use hodei_core::store::{Claimed, Exchanged};
use hodei_core::{Clock, ErrorKind, Timestamp};

use super::agent::AgentModel;
use super::bug::Bug;
use super::company::Company;
use super::network::Place;
use super::options::Options;
use super::task::{Done, Of};
use super::world::{Caller, Event, World};
use crate::driver::{Shared, ask, life};
use crate::lending::{show_surplus, take_parcel};
use crate::machine::{Effect, Input, Scheduler, SchedulerConfig, Ticket};
use crate::queue::{Parcel, Seat};

/// How long a dispatcher takes over what came in together.
pub(super) const STEP: Duration = Duration::from_micros(50);

/// Which dispatcher of which node, in one of the node's lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Desk {
    pub(super) node: usize,
    pub(super) life: u64,
    pub(super) seat: usize,
}

/// A dispatcher at work.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Scheduler,
    /// Its place among those of the node, where there are several.
    seat: Option<Seat<Claimed>>,
    inbox: Vec<Input>,
    /// Whether it has been told to look into its inbox.
    called: bool,
    replies: BTreeMap<Ticket, Caller>,
    next_ticket: Ticket,
    tick: Timestamp,
    /// Whether a call of its machine is under way, and whether that claims with a submission.
    asking: bool,
    along: bool,
    /// Where it has placed the jobs that say where they may run.
    company: Company,
    /// Until when its thread stands still, while the others go on.
    pub(super) stalled: Timestamp,
}

impl Dispatcher {
    pub(super) fn new(
        options: &Options,
        shared: Arc<Shared>,
        lease: Lease,
        seat: Option<Seat<Claimed>>,
        now: Timestamp,
    ) -> Self {
        let fence_margin = options.ttl - life(options.ttl);
        let config = SchedulerConfig { fence_margin, ..options.scheduler.clone() };
        Self {
            machine: Scheduler::new(config, lease, now),
            shared,
            seat,
            inbox: Vec::new(),
            called: false,
            replies: BTreeMap::new(),
            next_ticket: 0,
            tick: Timestamp::EPOCH,
            asking: false,
            along: false,
            company: Company::default(),
            stalled: Timestamp::EPOCH,
        }
    }

    /// The calls that it has not answered.
    pub(super) fn into_callers(self) -> impl Iterator<Item = Caller> {
        self.replies.into_values()
    }

    fn has_parcel(&self) -> bool {
        let cx = Context::from_waker(Waker::noop());
        self.seat.as_ref().is_some_and(|seat| seat.poll_parcel(&cx).is_ready())
    }
}

impl<A: AgentModel> World<A> {
    pub(super) fn dispatcher(&mut self, desk: Desk) -> Option<&mut Dispatcher> {
        let node = self.nodes.get_mut(desk.node).filter(|node| node.life == desk.life)?;
        node.up.as_mut()?.desks.get_mut(desk.seat)?.as_mut()
    }

    /// Until when a dispatcher stands still, be it with its node.
    pub(super) fn still(&self, desk: Desk) -> Timestamp {
        let node = &self.nodes[desk.node];
        let dispatcher = node.up.as_ref().and_then(|live| live.desks.get(desk.seat)?.as_ref());
        dispatcher.map_or(node.frozen, |dispatcher| dispatcher.stalled.max(node.frozen))
    }

    /// Wakes a dispatcher: the store has rung.
    pub(super) fn woken(&mut self, desk: Desk, at: Timestamp) {
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        dispatcher.inbox.push(Input::Woken);
        if !std::mem::replace(&mut dispatcher.called, true) {
            self.at(at, Event::Step(desk));
        }
    }

    pub(super) fn give(&mut self, desk: Desk, input: Input) {
        let at = self.now.saturating_add(STEP);
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        dispatcher.inbox.push(input);
        if !std::mem::replace(&mut dispatcher.called, true) {
            self.at(at, Event::Step(desk));
        }
    }

    pub(super) fn desk_tick(&mut self, desk: Desk, at: Timestamp) {
        if self.dispatcher(desk).is_some_and(|dispatcher| dispatcher.tick == at) {
            self.give(desk, Input::Tick);
        }
    }

    /// A call of an agent has come to a dispatcher.
    pub(super) fn called(&mut self, desk: Desk, from: Caller, state: Box<SessionState>) {
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        dispatcher.next_ticket += 1;
        let ticket = dispatcher.next_ticket;
        dispatcher.replies.insert(ticket, from);
        self.give(desk, Input::Synced(state, ticket));
    }

    pub(super) fn step_event(&mut self, desk: Desk) {
        let until = self.still(desk);
        if self.dispatcher(desk).is_none() {
            return;
        }
        if until > self.now {
            return self.at(until, Event::Step(desk));
        }
        self.set_clocks(desk.node);
        let now = self.nodes[desk.node].pace.now();
        self.parcels(desk, now);
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        dispatcher.called = false;
        for input in std::mem::take(&mut dispatcher.inbox) {
            dispatcher.machine.handle(input, now);
        }
        dispatcher.company.before(&dispatcher.machine);
        self.figures.steps += 1;
        while let Some(effect) =
            self.dispatcher(desk).and_then(|dispatcher| dispatcher.machine.poll_effect(now))
        {
            self.carry_out(desk, effect);
        }
        self.places(desk);
        self.shows(desk, now);
        self.desk_rests(desk, now);
    }

    /// What a dispatcher has placed is where it may be.
    fn places(&mut self, desk: Desk) {
        let Some(dispatcher) = self.dispatcher(desk).filter(|dispatcher| !dispatcher.company.is_empty())
        else {
            return;
        };
        let wrong = dispatcher.company.wrong(&dispatcher.machine);
        for wrong in wrong {
            self.watch.find(format!("placement: node-{} places a job {wrong}", desk.node));
        }
    }

    /// Shows the others what a dispatcher has left over, and whether it rests; whoever has a parcel looks at it.
    fn shows(&mut self, desk: Desk, now: Timestamp) {
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        let rests = dispatcher.machine.rests();
        let begins = rests && !dispatcher.shared.rests.swap(rests, Ordering::AcqRel);
        dispatcher.shared.rests.store(rests, Ordering::Release);
        if let Some(seat) = &mut dispatcher.seat {
            show_surplus(&mut dispatcher.machine, seat, now);
        }
        if begins {
            self.figures.rests += 1;
            self.tell(format_args!("node-{}/{}: rests", desk.node, desk.seat));
        }
        let Some(live) = &self.nodes[desk.node].up else { return };
        for seat in 0..live.desks.len() {
            let other = Desk { seat, ..desk };
            if self.dispatcher(other).is_some_and(|dispatcher| dispatcher.has_parcel()) {
                self.give(other, Input::Tick);
            }
        }
    }

    /// Answers other dispatchers, and takes in what they lend.
    fn parcels(&mut self, desk: Desk, now: Timestamp) {
        while let Some((parcel, bug)) = self.next_parcel(desk) {
            if let Parcel::Given(from, jobs) = &parcel
                && !jobs.is_empty()
            {
                let n = jobs.len();
                self.figures.lent += n as u64;
                self.tell(format_args!("node-{}/{}: is lent {n} jobs by {from}", desk.node, desk.seat));
            }
            let Some(dispatcher) = self.dispatcher(desk) else { return };
            let Dispatcher { machine, seat: Some(seat), company, .. } = dispatcher else { return };
            if let Parcel::Given(_, jobs) = &parcel {
                company.learn(jobs);
            }
            match (bug, parcel) {
                (Some(Bug::LentTwice), Parcel::Asked(by, room)) => {
                    let lent = machine.lend(room);
                    let kept = lent.clone();
                    seat.give(by, lent);
                    machine.unlend(kept, now);
                }
                (Some(Bug::LentReclaimed), parcel @ Parcel::Asked(..)) => {
                    take_parcel(machine, seat, parcel, now);
                    machine.bereave(Timestamp::EPOCH);
                }
                (_, parcel) => take_parcel(machine, seat, parcel, now),
            }
        }
    }

    fn next_parcel(&mut self, desk: Desk) -> Option<(Parcel<Claimed>, Option<Bug>)> {
        let bug = self.options.bug;
        let seat = self.dispatcher(desk)?.seat.as_mut()?;
        seat.take().map(|parcel| (parcel, bug))
    }

    /// Sets the timer of a dispatcher, or lets it go when it has drained.
    fn desk_rests(&mut self, desk: Desk, now: Timestamp) {
        let draining = self.nodes[desk.node].up.as_ref().is_some_and(|live| live.draining);
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        if draining && dispatcher.machine.is_idle() && !dispatcher.asking {
            return self.desk_ends(desk);
        }
        let wait = dispatcher.machine.poll_timeout().saturating_since(now).max(STEP);
        let tick = dispatcher.tick;
        let at = self.now.saturating_add(wait);
        if tick <= self.now || at < tick {
            if let Some(dispatcher) = self.dispatcher(desk) {
                dispatcher.tick = at;
            }
            self.at(at, Event::Tick { desk, at });
        }
    }

    fn carry_out(&mut self, desk: Desk, effect: Effect) {
        let forgets = self.options.bug == Some(Bug::ForgottenClaims);
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        match effect {
            Effect::Reply(ticket, reply) => {
                if let Some(to) = dispatcher.replies.remove(&ticket) {
                    self.reply(desk.node, to, reply);
                }
            }
            question => {
                dispatcher.asking = true;
                if forgets && matches!(question, Effect::AskLeases) {
                    return self.desk_done(desk, Input::Leases(Ok(Vec::new())));
                }
                let lanes = matches!(question, Effect::AskLanes { .. });
                let ask = ask(Arc::clone(&dispatcher.shared), question);
                if lanes {
                    self.watch.asked(desk, self.now);
                }
                let ask = async move { Done::Input(ask.await) };
                self.spawn(Of::Desk(desk), Box::pin(ask));
            }
        }
    }

    pub(super) fn reply(&mut self, n: usize, to: Caller, reply: Result<Box<Desired>, ErrorKind>) {
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

    /// The store has answered a dispatcher.
    pub(super) fn desk_done(&mut self, desk: Desk, mut input: Input) {
        let bug = self.options.bug;
        let Some(dispatcher) = self.dispatcher(desk) else { return };
        dispatcher.asking = false;
        match &mut input {
            Input::Exchanged(Ok(Exchanged { claimed, .. })) | Input::Leases(Ok(claimed)) => {
                dispatcher.company.learn(claimed);
                if bug == Some(Bug::CompanyUnread) {
                    claimed.iter_mut().for_each(anywhere);
                }
            }
            _ => {}
        }
        let along = std::mem::take(&mut dispatcher.along);
        if matches!(bug, Some(Bug::NoNodeFence | Bug::DeafNode))
            && let Input::Registered(_, until) = &mut input
        {
            *until = Timestamp::MAX;
        }
        if bug == Some(Bug::DeafNode)
            && let Input::Exchanged(Ok(exchanged)) = &mut input
        {
            exchanged.owner_lost = false;
        }
        if let Input::Exchanged(Ok(exchanged)) = &input
            && along
        {
            self.figures.along += exchanged.claimed.len() as u64;
        }
        self.give(desk, input);
    }

    /// Has a dispatcher that waits for work claim what is submitted now, as one does for its own process. Half of the
    /// submissions come from elsewhere; and the store is a network away here, so a claim may come there before its submission.
    pub(super) fn claims_along(&mut self, jobs: &[NewJob]) {
        let turn = jobs.first().map_or(0, |job| usize::from(job.id.as_bytes()[15]));
        if turn.is_multiple_of(2) {
            return;
        }
        let (nodes, seats) = (self.nodes.len(), self.options.dispatchers.max(1));
        for n in 0..nodes * seats {
            let n = (turn / 2 + n) % (nodes * seats);
            let node = n / seats;
            let desk = Desk { node, life: self.nodes[node].life, seat: n % seats };
            if self.still(desk) <= self.now && self.claims_for(desk, jobs) {
                return;
            }
        }
    }

    /// Makes the claim for a dispatcher, if it has nothing to do and room for the jobs.
    fn claims_for(&mut self, desk: Desk, jobs: &[NewJob]) -> bool {
        self.set_clocks(desk.node);
        let now = self.nodes[desk.node].pace.now();
        let Some(dispatcher) = self.dispatcher(desk).filter(|desk| !desk.asking && !desk.called) else {
            return false;
        };
        let standby = dispatcher.machine.standby(now);
        let Some(exchange) = standby.and_then(|standby| standby.exchange(jobs, now)) else { return false };
        dispatcher.machine.handle(Input::Claiming, now);
        (dispatcher.asking, dispatcher.along) = (true, true);
        let ask = ask(Arc::clone(&dispatcher.shared), Effect::Exchange(Box::new(exchange)));
        self.tell(format_args!("node-{}/{}: claims with a submission", desk.node, desk.seat));
        self.spawn(Of::Desk(desk), Box::pin(async move { Done::Input(ask.await) }));
        true
    }
}

/// Takes out what a job says of its place.
fn anywhere(claimed: &mut Claimed) {
    let spec = &claimed.job.spec;
    let mut parts = spec.parts().clone();
    parts.resources = parts.resources.of_worker();
    if parts.resources != spec.parts().resources {
        let plain = JobSpec::restore(parts, spec.class(), spec.fingerprint());
        let class = plain.request().class();
        let plain = JobSpec::restore(plain.parts().clone(), class, plain.fingerprint());
        Arc::make_mut(&mut claimed.job).spec = Arc::new(plain);
    }
}
