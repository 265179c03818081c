//! The scheduler's state and its three verbs.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Desired, Report, SessionState, StopCause};
use hodei_core::job::{Epoch, Job, Lease};
use hodei_core::store::{Applied, Claimed, Exchange, Exchanged, LaneHead, Lanes, Move, Transition};
use hodei_core::{Error, ErrorKind, JobId, Name, Timestamp};

use super::buffer::Buffer;
use super::picks::{self, Room};
use super::session::Session;
use super::verdict::verdict;

/// Names a call that waits for its reply.
pub type Ticket = u64;

/// The figures that the machine goes by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SchedulerConfig {
    /// How many jobs are claimed beyond what is free now, at most: 4,096. How many really are follows how fast jobs
    /// end.
    pub prefetch_max: u32,
    /// How many transitions go into one exchange at most: 4,096.
    pub batch_max: usize,
    /// How long a session may be silent before its jobs are taken back: 6 s.
    pub session_ttl: Duration,
    /// How long a call of an agent waits for news: 2 s.
    pub next_sync: Duration,
    /// How often the store is asked although no wake-up came: 1 s.
    pub poll_interval: Duration,
    /// The first wait after a failed exchange, doubled up to 64 times: 50 ms.
    pub retry_wait: Duration,
    /// How many owners may die under a job, nodes and agents alike, before it fails for good: 3.
    pub lost_max: u16,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            prefetch_max: 4_096,
            batch_max: 4_096,
            session_ttl: Duration::from_secs(6),
            next_sync: Duration::from_secs(2),
            poll_interval: Duration::from_secs(1),
            retry_wait: Duration::from_millis(50),
            lost_max: 3,
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// An agent calls; the ticket names the reply it waits for.
    Synced(Box<SessionState>, Ticket),
    /// The store says that there may be something to do.
    Woken,
    /// The store answered [`Effect::AskLanes`].
    Lanes(Result<Lanes, Error>),
    /// The store answered [`Effect::Exchange`].
    Exchanged(Result<Exchanged, Error>),
    /// The store answered [`Effect::AskLeases`].
    Leases(Result<Vec<Claimed>, Error>),
    /// Somebody asked for the end of jobs that run, or they were cancelled before they started.
    Cancelled(Vec<JobId>),
    /// The node is registered anew, after it had been given up.
    Registered(Lease),
    /// No more work is taken; what is claimed and not assigned goes back.
    Drain,
    /// As [`Input::Drain`], and every session is gone: what it ran goes back, at no cost to the job.
    Abandon,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Effect {
    /// Ask the store for the lanes with ready work.
    AskLanes,
    /// Settle and claim.
    Exchange(Box<Exchange>),
    /// Ask the store what this node holds, after a reply was lost.
    AskLeases,
    /// Register the node anew: it was given up.
    Register,
    /// Answer a call.
    Reply(Ticket, Result<Box<Desired>, ErrorKind>),
}

/// A transition on its way to the store, and the report it came from.
#[derive(Debug)]
struct Outgoing {
    transition: Transition,
    report: Option<(Name, u64, u64)>,
}

/// What the machine waits for from the store; one call at a time, so that the next batch collects meanwhile.
#[derive(Debug, PartialEq, Eq)]
enum Store {
    Idle,
    Lanes,
    Exchange,
    Leases,
    Register,
}

/// Decides what is claimed, what runs where, and what is reported.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    owner: Lease,
    sessions: BTreeMap<Name, Session>,
    buffer: Buffer,
    outgoing: VecDeque<Outgoing>,
    /// The transitions of the exchange under way.
    sent: Vec<Outgoing>,
    /// The jobs that were cancelled while claims were under way, which may bring them.
    unwanted: HashSet<JobId>,
    heads: Vec<LaneHead>,
    lanes_stale: bool,
    leases_unknown: bool,
    owner_lost: bool,
    next_due: Option<Timestamp>,
    last_ask: Timestamp,
    store: Store,
    /// Failed calls in a row, and not before when the next one is made.
    failures: u32,
    retry_at: Timestamp,
    draining: bool,
    ended_lately: u32,
    turn: usize,
    effects: VecDeque<Effect>,
}

impl Scheduler {
    /// Makes the machine of a registered node.
    #[must_use]
    pub fn new(config: SchedulerConfig, owner: Lease, now: Timestamp) -> Self {
        Self {
            config,
            owner,
            sessions: BTreeMap::new(),
            buffer: Buffer::default(),
            outgoing: VecDeque::new(),
            sent: Vec::new(),
            unwanted: HashSet::new(),
            heads: Vec::new(),
            lanes_stale: true,
            leases_unknown: false,
            owner_lost: false,
            next_due: None,
            last_ask: now,
            store: Store::Idle,
            failures: 0,
            retry_at: now,
            draining: false,
            ended_lately: 0,
            turn: 0,
            effects: VecDeque::new(),
        }
    }

    /// Takes in what happened. Call [`Scheduler::poll_effect`] afterwards until it returns nothing.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Synced(state, ticket) => self.synced(*state, ticket, now),
            Input::Woken => self.lanes_stale = true,
            Input::Lanes(lanes) => self.lanes(lanes, now),
            Input::Exchanged(exchanged) => self.exchanged(exchanged, now),
            Input::Leases(leases) => self.leases(leases, now),
            Input::Cancelled(jobs) => self.cancelled(&jobs),
            Input::Registered(lease) => self.registered(lease, now),
            Input::Drain => self.drain(),
            Input::Abandon => {
                self.drain();
                let sessions: Vec<Name> = self.sessions.keys().cloned().collect();
                sessions.iter().for_each(|session| self.end_session(session, &Move::Preempted));
            }
            Input::Tick => {}
        }
        self.expire_sessions(now);
        self.expire_waiters(now);
    }

    /// Returns the next thing to do; call it until it returns nothing.
    #[must_use]
    pub fn poll_effect(&mut self, now: Timestamp) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        self.assign();
        self.reply();
        self.ask_store(now);
        self.effects.pop_front()
    }

    /// Returns when to call [`Scheduler::handle`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        let mut at = match self.store {
            // The answer will come by itself.
            Store::Lanes | Store::Exchange | Store::Leases | Store::Register => Timestamp::MAX,
            Store::Idle if self.failures > 0 => self.retry_at,
            Store::Idle => {
                let ask = self.last_ask.saturating_add(self.config.poll_interval);
                self.next_due.map_or(ask, |due| due.min(ask))
            }
        };
        for session in self.sessions.values() {
            let patience =
                if session.waiter.is_some() { self.config.next_sync } else { self.config.session_ttl };
            at = at.min(session.last_sync.saturating_add(patience));
        }
        at
    }

    /// Says whether a drain is over: nothing is claimed, nothing runs, everything is settled.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty()
            && self.outgoing.is_empty()
            && self.sent.is_empty()
            && self.sessions.values().all(|session| session.assigned.is_empty())
    }

    /// Goes through the offers of the connected workers.
    pub fn offers(&self) -> impl Iterator<Item = (&Name, &Arc<hodei_core::gateway::Offer>)> {
        self.sessions.iter().map(|(name, session)| (name, &session.offer))
    }

    fn synced(&mut self, state: SessionState, ticket: Ticket, now: Timestamp) {
        if let Some(known) = self.sessions.get(&state.worker).map(|session| session.incarnation) {
            if known > state.incarnation {
                return self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Conflict)));
            }
            if known < state.incarnation {
                self.lose_session(&state.worker);
            }
        }
        let session = self.sessions.entry(state.worker.clone()).or_insert_with(|| {
            // What nobody could run before it may run.
            self.lanes_stale = true;
            Session::new(state.incarnation, Arc::clone(&state.offer), state.seen, now)
        });
        if state.seq <= session.seq {
            // Overtaken on the way: the later call has said more.
            return self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Cancelled)));
        }
        session.seq = state.seq;
        session.last_sync = now;
        let leaves = state.draining && !session.draining;
        session.draining = state.draining;
        if let Some(old) = session.waiter.replace(ticket) {
            self.effects.push_back(Effect::Reply(old, Err(ErrorKind::Cancelled)));
        }
        session.confirm(state.seen);
        let unknown: Vec<(JobId, Epoch)> = state
            .running
            .iter()
            .filter(|running| {
                session.assigned.get(&running.job).is_none_or(|assigned| assigned.job.epoch != running.epoch)
            })
            .map(|running| (running.job, running.epoch))
            .collect();
        session.disown(unknown);
        for report in state.reports {
            self.report(&state.worker, report);
        }
        if leaves {
            self.shed();
        }
    }

    /// Takes a report in once; what it says of a job that is no longer this session's is forgotten.
    fn report(&mut self, worker: &Name, report: Report) {
        let Some(session) = self.sessions.get_mut(worker) else { return };
        if report.number <= session.received {
            return;
        }
        session.received = report.number;
        let started = matches!(report.news, hodei_core::gateway::News::Started);
        let step = if started {
            session
                .assigned
                .get_mut(&report.job)
                .filter(|assigned| assigned.job.epoch == report.epoch)
                .map(|_| Move::Started { lease: None })
        } else {
            session.release(report.job, report.epoch).and_then(|assigned| {
                (assigned.stop != Some(StopCause::LeaseLost)).then(|| verdict(&assigned.job, report.news))
            })
        };
        let Some(step) = step else { return };
        session.expect(report.number);
        let incarnation = session.incarnation;
        self.ended_lately += u32::from(!started);
        self.outgoing.push_back(Outgoing {
            transition: Transition { job: report.job, epoch: report.epoch, step },
            report: Some((worker.clone(), incarnation, report.number)),
        });
    }

    fn cancelled(&mut self, jobs: &[JobId]) {
        if self.leases_unknown || matches!(self.store, Store::Exchange | Store::Leases) {
            self.unwanted.extend(jobs);
        }
        for job in jobs {
            // Nobody was told of it: the store has cancelled it under us, or will when we give it back.
            let mut untold = self.buffer.remove(*job).map(|claimed| claimed.job);
            for session in self.sessions.values_mut() {
                match session.withdraw(*job) {
                    Some(assigned) => untold = Some(assigned.job),
                    None => session.stop(*job, StopCause::Cancelled),
                }
            }
            if let Some(job) = untold {
                self.give_back(&job);
            }
        }
    }

    /// Gives back what no connected worker could run any more: another node's may, and here it would only be in the
    /// way.
    fn shed(&mut self) {
        let sessions = &self.sessions;
        let shed = self.buffer.shed(|request| sessions.values().any(|session| session.could_run(request)));
        shed.iter().for_each(|claimed| self.give_back(&claimed.job));
    }

    fn give_back(&mut self, job: &Job) {
        let transition = Transition { job: job.id, epoch: job.epoch, step: Move::Returned };
        self.outgoing.push_back(Outgoing { transition, report: None });
    }

    fn drain(&mut self) {
        self.draining = true;
        let mut untold: Vec<Arc<Job>> = self.buffer.drain().into_iter().map(|claimed| claimed.job).collect();
        for session in self.sessions.values_mut() {
            let jobs: Vec<JobId> = session.assigned.keys().copied().collect();
            untold.extend(
                jobs.into_iter().filter_map(|job| session.withdraw(job)).map(|assigned| assigned.job),
            );
        }
        untold.iter().for_each(|job| self.give_back(job));
    }

    fn lanes(&mut self, lanes: Result<Lanes, Error>, now: Timestamp) {
        self.store = Store::Idle;
        match lanes {
            Ok(lanes) => {
                self.failures = 0;
                self.heads = lanes.heads;
                self.next_due = lanes.next_due;
                self.turn = self.turn.wrapping_add(1);
                picks::order(&mut self.heads, self.turn);
            }
            Err(_) => self.failed(now),
        }
    }

    fn failed(&mut self, now: Timestamp) {
        let doublings = self.failures.min(6);
        self.failures += 1;
        self.retry_at = now.saturating_add(self.config.retry_wait * (1 << doublings));
        self.lanes_stale = true;
    }

    fn exchanged(&mut self, exchanged: Result<Exchanged, Error>, now: Timestamp) {
        self.store = Store::Idle;
        let sent = std::mem::take(&mut self.sent);
        let Ok(exchanged) = exchanged else {
            // Perhaps it was applied. The transitions can be repeated; for the claims we ask.
            for outgoing in sent.into_iter().rev() {
                self.outgoing.push_front(outgoing);
            }
            self.leases_unknown = true;
            return self.failed(now);
        };
        self.failures = 0;
        let unavailable = exchanged.applied.contains(&Applied::Unavailable);
        for (outgoing, applied) in sent.into_iter().zip(exchanged.applied) {
            if applied == Applied::Unavailable {
                // Told again behind the others, so that what one part of the store does not take holds up nobody.
                self.outgoing.push_back(outgoing);
            } else {
                self.settled(outgoing, applied);
            }
        }
        if unavailable {
            self.failed(now);
        }
        self.next_due = exchanged.next_due;
        if exchanged.owner_lost {
            return self.lose_owner();
        }
        // There may be more behind what was claimed.
        self.lanes_stale |= !exchanged.claimed.is_empty();
        exchanged.claimed.into_iter().for_each(|claimed| self.claimed(claimed));
        for claimed in exchanged.reclaimed {
            if !self.knows(&claimed.job) {
                self.claimed(claimed);
            }
        }
        self.unwanted.clear();
        self.shed();
    }

    fn claimed(&mut self, claimed: Claimed) {
        if self.draining || self.unwanted.contains(&claimed.job.id) {
            self.give_back(&claimed.job);
        } else {
            self.buffer.push(claimed);
        }
    }

    fn settled(&mut self, outgoing: Outgoing, applied: Applied) {
        let Some((worker, incarnation, report)) = outgoing.report else { return };
        let Some(session) = self.sessions.get_mut(&worker).filter(|s| s.incarnation == incarnation) else {
            return;
        };
        session.settled(report);
        if matches!(applied, Applied::LeaseLost { .. } | Applied::NotFound) {
            session.stop(outgoing.transition.job, StopCause::LeaseLost);
        }
    }

    /// Whether a claim is here already, or on its way back.
    fn knows(&self, job: &Job) -> bool {
        let (id, epoch) = (job.id, job.epoch);
        let has = |session: &Session| session.assigned.get(&id).is_some_and(|of| of.job.epoch == epoch);
        let told = |outgoing: &Outgoing| (outgoing.transition.job, outgoing.transition.epoch) == (id, epoch);
        self.buffer.contains(id, epoch) || self.sessions.values().any(has) || self.outgoing.iter().any(told)
    }

    fn leases(&mut self, leases: Result<Vec<Claimed>, Error>, now: Timestamp) {
        self.store = Store::Idle;
        let Ok(leases) = leases else { return self.failed(now) };
        self.failures = 0;
        self.leases_unknown = false;
        for claimed in leases {
            if !self.knows(&claimed.job) {
                self.claimed(claimed);
            }
        }
        self.unwanted.clear();
        self.shed();
    }

    /// The node was given up: whatever it holds is somebody else's now.
    fn lose_owner(&mut self) {
        self.owner_lost = true;
        self.buffer.drain();
        for session in self.sessions.values_mut() {
            let jobs: Vec<JobId> = session.assigned.keys().copied().collect();
            for job in jobs {
                if session.withdraw(job).is_none() {
                    session.stop(job, StopCause::LeaseLost);
                }
            }
        }
    }

    fn registered(&mut self, lease: Lease, now: Timestamp) {
        self.store = Store::Idle;
        if self.owner == lease {
            return self.failed(now);
        }
        self.owner = lease;
        self.owner_lost = false;
        self.lanes_stale = true;
    }

    /// Hands what is claimed to sessions: the one with the most free slots that has room.
    fn assign(&mut self) {
        if self.buffer.is_empty() || self.sessions.is_empty() {
            return;
        }
        let sessions = &mut self.sessions;
        let mut chosen: Vec<Name> = Vec::new();
        let mut room: BTreeMap<&Name, Room> =
            sessions.iter().map(|(name, session)| (name, Room::of(std::iter::once(session)))).collect();
        let taken = self.buffer.assign(|request| {
            let best = room
                .iter_mut()
                .filter(|(name, _)| sessions[**name].room_for(request) > 0)
                .max_by_key(|(_, room)| room.slots());
            let Some((name, room)) = best else { return false };
            if room.take(&[&sessions[*name]], request, 1) == 0 {
                return false;
            }
            chosen.push((*name).clone());
            true
        });
        for (claimed, name) in taken.into_iter().zip(chosen) {
            if let Some(session) = sessions.get_mut(&name) {
                session.assign(claimed);
            }
        }
    }

    /// Answers the calls of sessions for which there is news.
    fn reply(&mut self) {
        for session in self.sessions.values_mut() {
            if session.has_news()
                && let Some(ticket) = session.waiter.take()
            {
                let desired = session.desired(self.config.next_sync);
                self.effects.push_back(Effect::Reply(ticket, Ok(Box::new(desired))));
            }
        }
    }

    /// Answers calls that have waited long enough.
    fn expire_waiters(&mut self, now: Timestamp) {
        let next_sync = self.config.next_sync;
        for session in self.sessions.values_mut() {
            if session.waiter.is_some()
                && now >= session.last_sync.saturating_add(next_sync)
                && let Some(ticket) = session.waiter.take()
            {
                session.last_sync = now;
                let desired = session.desired(next_sync);
                self.effects.push_back(Effect::Reply(ticket, Ok(Box::new(desired))));
            }
        }
    }

    fn expire_sessions(&mut self, now: Timestamp) {
        let ttl = self.config.session_ttl;
        let silent = |(name, session): (&Name, &Session)| {
            (session.waiter.is_none() && now >= session.last_sync.saturating_add(ttl)).then(|| name.clone())
        };
        let dead: Vec<Name> = self.sessions.iter().filter_map(silent).collect();
        for name in dead {
            self.lose_session(&name);
        }
    }

    /// Ends the session of an agent that died, or that nobody hears of any more.
    fn lose_session(&mut self, name: &Name) {
        self.end_session(name, &Move::Lost { lost_max: self.config.lost_max });
    }

    /// Takes back what a session had: unstarted the jobs of which the agent was never told, the others as `told` says.
    fn end_session(&mut self, name: &Name, told: &Move) {
        let Some(session) = self.sessions.remove(name) else { return };
        if let Some(ticket) = session.waiter {
            self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Conflict)));
        }
        for assigned in session.assigned.into_values() {
            let step = if assigned.told { told.clone() } else { Move::Returned };
            let transition = Transition { job: assigned.job.id, epoch: assigned.job.epoch, step };
            self.outgoing.push_back(Outgoing { transition, report: None });
        }
        self.shed();
    }

    /// Calls the store when there is something to say or to fetch, and no call under way.
    fn ask_store(&mut self, now: Timestamp) {
        if self.store != Store::Idle || (self.failures > 0 && now < self.retry_at) {
            return;
        }
        let due = self.next_due.is_some_and(|due| due <= now);
        let long_ago = now >= self.last_ask.saturating_add(self.config.poll_interval);
        if due || long_ago {
            self.lanes_stale = true;
            self.last_ask = now;
            self.next_due = self.next_due.filter(|due| *due > now);
        }
        let (store, effect) = if self.owner_lost {
            (Store::Register, Effect::Register)
        } else if self.leases_unknown {
            (Store::Leases, Effect::AskLeases)
        } else if self.lanes_stale && self.wants_work() {
            self.lanes_stale = false;
            self.last_ask = now;
            (Store::Lanes, Effect::AskLanes)
        } else {
            match self.exchange() {
                Some(exchange) => (Store::Exchange, Effect::Exchange(Box::new(exchange))),
                None => {
                    // Nothing is left of what had failed.
                    self.failures = 0;
                    return;
                }
            }
        };
        self.store = store;
        self.effects.push_back(effect);
    }

    fn wants_work(&self) -> bool {
        let slots = self.sessions.values().fold(self.ahead(), |n, s| n.saturating_add(s.open_slots()));
        !self.draining && !self.sessions.is_empty() && self.buffer.len() < slots as usize
    }

    /// How many jobs to claim for slots that are about to become free: as many as ended during the last exchange.
    fn ahead(&self) -> u32 {
        self.ended_lately.saturating_mul(2).min(self.config.prefetch_max)
    }

    fn exchange(&mut self) -> Option<Exchange> {
        let picks = if self.heads.is_empty() || !self.wants_work() { Vec::new() } else { self.picks() };
        if self.outgoing.is_empty() && picks.is_empty() {
            return None;
        }
        self.heads.clear();
        self.ended_lately /= 2;
        let n = self.outgoing.len().min(self.config.batch_max);
        self.sent = self.outgoing.drain(..n).collect();
        let transitions = self.sent.iter().map(|outgoing| outgoing.transition.clone()).collect();
        Some(Exchange { owner: self.owner.clone(), transitions, picks })
    }

    fn picks(&self) -> Vec<hodei_core::store::Pick> {
        let sessions: Vec<&Session> = self.sessions.values().collect();
        let mut room = Room::of(sessions.iter().copied());
        let mut waiting = 0_u32;
        for (request, n) in self.buffer.waiting() {
            waiting += n - room.take(&sessions, request, n);
        }
        picks::decide(&self.heads, &sessions, &mut room, self.ahead().saturating_sub(waiting))
    }
}
