//! The scheduler's state and its verbs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Desired, SessionState};
use hodei_core::job::Lease;
use hodei_core::map::JobSet;
use hodei_core::store::{Claimed, Exchange, Exchanged, LaneHead, Lanes, Move, Transition};
use hodei_core::{Error, ErrorKind, JobId, Name, Timestamp};

use super::buffer::Buffer;
use super::session::Session;

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
    /// The first wait after a failed exchange, or of a transition that a part of the store did not take; doubled up
    /// to 64 times: 50 ms.
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
pub(super) struct Outgoing {
    pub(super) transition: Transition,
    pub(super) report: Option<(Name, u64, u64)>,
    /// How often the part of the store that it belongs to did not take it.
    pub(super) refused: u32,
}

/// What the machine waits for from the store; one call at a time, so that the next batch collects meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Store {
    Idle,
    Lanes,
    Exchange,
    Leases,
    Register,
}

/// Decides what is claimed, what runs where, and what is reported.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) config: SchedulerConfig,
    pub(super) owner: Lease,
    pub(super) sessions: BTreeMap<Name, Session>,
    pub(super) buffer: Buffer,
    /// What the last exchange claimed, on its way into the buffer: the next exchange is asked for first.
    pub(super) arrived: Vec<Claimed>,
    pub(super) outgoing: VecDeque<Outgoing>,
    /// What a part of the store did not take, by the time before which it is not told again.
    pub(super) later: BTreeMap<Timestamp, Vec<Outgoing>>,
    /// The transitions of the exchange under way.
    pub(super) sent: Vec<Outgoing>,
    /// The jobs that were cancelled while claims were under way, which may bring them.
    pub(super) unwanted: JobSet,
    /// The lanes with ready work, less what was asked of them since.
    pub(super) heads: Vec<LaneHead>,
    /// How many jobs the exchange under way asks for.
    pub(super) asked: usize,
    pub(super) lanes_stale: bool,
    pub(super) leases_unknown: bool,
    pub(super) owner_lost: bool,
    pub(super) next_due: Option<Timestamp>,
    pub(super) last_ask: Timestamp,
    pub(super) store: Store,
    /// Failed calls in a row, and not before when the next one is made.
    pub(super) failures: u32,
    pub(super) retry_at: Timestamp,
    pub(super) draining: bool,
    pub(super) ended_lately: u32,
    pub(super) turn: usize,
    pub(super) effects: VecDeque<Effect>,
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
            arrived: Vec::new(),
            outgoing: VecDeque::new(),
            later: BTreeMap::new(),
            sent: Vec::new(),
            unwanted: JobSet::default(),
            heads: Vec::new(),
            asked: 0,
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
        self.take_in();
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
        if !self.arrived.is_empty() {
            // The store works on the next batch while this one is handed out.
            self.ask_store(now);
            self.take_in();
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
                let again = self.later.keys().next().copied();
                ask.min(self.next_due.unwrap_or(ask)).min(again.unwrap_or(ask))
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
            && self.later.is_empty()
            && self.sent.is_empty()
            && self.sessions.values().all(|session| session.assigned.is_empty())
    }

    /// Goes through the connected workers: their names, which of their lives it is, and what they offer.
    pub fn workers(&self) -> impl Iterator<Item = (&Name, u64, &Arc<hodei_core::gateway::Offer>)> {
        self.sessions.iter().map(|(name, session)| (name, session.incarnation, &session.offer))
    }
}
