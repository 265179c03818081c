//! The scheduler's state and its verbs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Desired, SessionState};
use hodei_core::job::{Epoch, Lease, Priority};
use hodei_core::map::JobMap;
use hodei_core::store::{Claimed, Exchange, Exchanged, Lanes, Move, Transition};
use hodei_core::{Error, ErrorKind, JobId, Name, Timestamp};

use super::behind::Behind;
use super::buffer::Buffer;
use super::follow::Follow;
use super::learned::Learned;
use super::look::Look;
use super::memory::Memory;
use super::picks::Head;
use super::placement::{Fleet, Rule, WorkerId};
use super::rivals::Rivals;
use super::sessions::Sessions;
use super::snapshot::Claims;
use super::standby::Lately;
use super::turns::Turns;
use super::unstarted::Pace;
use crate::balance::{Balancer, LeastLoaded};
use crate::queue::Ageing;

/// Names a call that waits for its reply.
pub type Ticket = u64;

/// The figures that the machine goes by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SchedulerConfig {
    /// How many jobs are claimed beyond what is free now, at most: 4,096. How many really are follows how fast jobs
    /// end.
    ///
    /// A job that becomes ready is not overtaken by less urgent ones that were claimed before, but for those that begin within
    /// the next 100 ms: so often the store is looked at, and what was claimed waits for its answer, up to 100 ms and up to a
    /// ninth of the time.
    ///
    /// Tenants of a level share by their weights, the queues of a tenant by theirs, and so do the pipelines of a queue
    /// ([`Share`](hodei_core::job::Share)). Where slots come free one by one, nobody is more than two jobs and one for
    /// each slot behind an ideal that serves all of them at once.
    pub prefetch_max: u32,
    /// How many transitions go into one exchange at most: 4,096.
    pub batch_max: usize,
    /// How long a session may be silent before its jobs are taken back: 6 s. Seven eighths of it must be more than twice
    /// [`next_sync`](Self::next_sync): so long after a call it may be before the agent hears of its node again, which answered
    /// that one late and lets the next one wait. An agent that does not hear of it in time ends what it runs.
    pub session_ttl: Duration,
    /// How long a call of an agent waits for news: 2 s.
    pub next_sync: Duration,
    /// How often the store is asked although no wake-up came, while it has ready or delayed work: 1 s.
    pub poll_interval: Duration,
    /// How often it is asked while it has none that is known here: 5 min. Every store wakes those that wait for it.
    pub idle_poll: Duration,
    /// After how long without work a node that leads nothing lets its life end, so that it sends no heartbeats; the next job
    /// begins another one: 10 s.
    pub rest_after: Duration,
    /// How long a node that gave itself up, because it heard of no heartbeat, waits before it begins another life, which ends
    /// the old one for the store at once: an eighth of its time to live, which the builder sets. Its agents have ended by then
    /// what they ran, and nobody takes that before.
    pub fence_margin: Duration,
    /// The first wait after a failed exchange, or of a transition that a part of the store did not take; doubled up
    /// to 64 times: 50 ms.
    pub retry_wait: Duration,
    /// How many owners may die under a job, nodes and agents alike, before it fails for good: 3.
    pub lost_max: u16,
    /// How long what was claimed ahead waits for a slot before it goes back to the store, where another node may take it: 3 s. As
    /// many jobs stay as began within that time. It costs a job no attempt, but a token of its rates with each claim.
    pub claim_wait: Duration,
    /// When jobs that wait rise: by a level after each minute. That bounds how long a job waits behind more urgent ones, be they
    /// of other lanes or of its own: it begins within [`Ageing::bound`], a quarter of [`Ageing::every`] in which the store is not
    /// asked what has risen, the run that is under way then, and its turn among those who have risen as far. Of those of its own
    /// lane and level that came before it one begins at first, then two, four, and so on, and what was claimed ahead in between.
    pub ageing: Option<Ageing>,
    /// Which of the workers that have room gets a job: the one with the most free slots.
    pub balancer: Box<dyn Balancer>,
    /// Whether a worker is kept for the most urgent job that found no room, so that smaller ones do not take all room
    /// before it for ever: yes.
    ///
    /// Others run there meanwhile where they take nothing that it needs and lacks, or where they have ended before those for
    /// which it waits. How long a run takes is known by its limit, else by what was said of it, else by what nineteen in twenty
    /// of such runs have taken on this node, which promises nothing.
    pub backfill: bool,
    /// Whether work that runs is stopped, with its agent's grace, where more urgent work finds no room: when it is at
    /// least so many levels above. Never, unless it is set.
    pub preempt: Option<u8>,
    /// How many times the memory that it asks for a job is given at most where that was not enough: 16. 1 gives nobody more.
    ///
    /// A job whose last run ended with [`FailureClass::OutOfMemory`](hodei_core::job::FailureClass::OutOfMemory) asks for twice
    /// what that run had. A job of a kind of which a run needed more begins with what was needed: with twice as much as it asks
    /// for, four times, and so on, but no more than a connected worker has that could run it. A kind is a queue and a name, over
    /// all tenants; commands without a name are of none. What the last run had is told by its failure, which the store keeps;
    /// what a kind needed this node remembers of the last 64 runs, and forgets when it ends. A job that asks for no memory is
    /// given none. How often a job may fail is for its retry policy to say.
    pub memory_growth: u32,
}

/// What may be changed while the node runs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Policy {
    /// Where the jobs of a queue run, whoever's they are; anywhere, unless it is said here.
    pub rules: BTreeMap<Name, Rule>,
}

impl Policy {
    /// Has the jobs of a queue run where a rule says.
    #[must_use]
    pub fn rule(mut self, queue: Name, rule: Rule) -> Self {
        self.rules.insert(queue, rule);
        self
    }
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            prefetch_max: 4_096,
            batch_max: 4_096,
            session_ttl: Duration::from_secs(6),
            next_sync: Duration::from_secs(2),
            poll_interval: Duration::from_secs(1),
            idle_poll: Duration::from_secs(300),
            rest_after: Duration::from_secs(10),
            fence_margin: Duration::from_millis(750),
            retry_wait: Duration::from_millis(50),
            lost_max: 3,
            claim_wait: Duration::from_secs(3),
            ageing: Some(Ageing { every: Duration::from_secs(60), ceiling: Priority::MAX }),
            balancer: Box::new(LeastLoaded),
            backfill: true,
            preempt: None,
            memory_growth: 16,
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
    /// Somebody asked for the end of jobs that run, or they were cancelled before they started: under these epochs or
    /// lower ones.
    Cancelled(Vec<(JobId, Epoch)>),
    /// Until when nobody takes from a lease what it holds, as a heartbeat told; nothing when it was given up.
    Beaten(Lease, Option<Timestamp>),
    /// The node is registered anew, after it had been given up, and lives until then unless a heartbeat prolongs it; or
    /// it could not be, and this is its old lease.
    Registered(Lease, Timestamp),
    /// No more work is taken; what is claimed and not assigned goes back.
    Drain,
    /// As [`Input::Drain`], and every session is gone: what it ran goes back, at no cost to the job.
    Abandon,
    /// Somebody has claimed with a submission what [`Scheduler::standby`] said; the store's answer follows as
    /// [`Input::Exchanged`].
    Claiming,
    /// The policy has changed. Where jobs run that wait here already stays as it was decided.
    Policy(Box<Policy>),
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Effect {
    /// Ask the store for the lanes with ready work.
    AskLanes {
        /// With each level at which they have any.
        every_level: bool,
    },
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
    /// Whether it is of no interest where the job has begun: somebody else has it then.
    pub(super) unless_begun: bool,
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
    pub(super) sessions: Sessions,
    pub(super) buffer: Buffer,
    /// What the last exchange claimed, on its way into the buffer: the next exchange is asked for first.
    pub(super) arrived: Vec<Claimed>,
    pub(super) outgoing: VecDeque<Outgoing>,
    /// What a part of the store did not take, by the time before which it is not told again.
    pub(super) later: BTreeMap<Timestamp, Vec<Outgoing>>,
    /// The transitions of the exchange under way.
    pub(super) sent: Vec<Outgoing>,
    /// The jobs that were cancelled while claims were under way, which may bring them.
    pub(super) unwanted: JobMap<Epoch>,
    pub(super) fleet: Fleet,
    /// The names of the workers in the fleet.
    pub(super) names: HashMap<WorkerId, Name>,
    /// The jobs that have room on several workers, by the worker that runs each.
    pub(super) gangs: BTreeMap<JobId, Name>,
    /// The rules of queues.
    pub(super) rules: BTreeMap<Name, u32>,
    /// When to look at the lanes again: rates let more through, or one was found empty.
    pub(super) look_due: Option<Timestamp>,
    /// How many claims in a row have brought nothing.
    pub(super) vain: u32,
    /// The lanes with ready work, less what was asked of them since.
    pub(super) heads: Vec<Head>,
    /// How many jobs the exchange under way asks for.
    pub(super) asked: usize,
    /// What else takes from the lanes.
    pub(super) rivals: Rivals,
    /// What becomes ready by the ends that the store is told of next.
    pub(super) follow: Follow,
    /// What is claimed with its submission.
    pub(super) lately: Lately,
    /// How many were asked for and came in all.
    pub(super) claims: Claims,
    /// What other dispatchers have that the store may still take for ours.
    pub(super) lent: JobMap<Epoch>,
    /// What runs here under the lease of another dispatcher, until its first report.
    pub(super) borrowed: JobMap<Epoch>,
    /// Whether another dispatcher was asked for jobs and has not answered.
    pub(super) awaits_loan: bool,
    /// What was lent before another dispatcher died, and when it goes back.
    pub(super) bereaved: JobMap<Epoch>,
    pub(super) bereaved_at: Option<Timestamp>,
    /// Not before when another dispatcher is asked again.
    pub(super) ask_again_at: Timestamp,
    pub(super) lanes_stale: bool,
    /// Whether all that a lane showed has been asked for since.
    pub(super) emptied: bool,
    pub(super) leases_unknown: bool,
    /// When to ask again what is held, although the answer was heard, and how long that wait was.
    pub(super) doubt: Option<(Timestamp, Duration)>,
    pub(super) owner_lost: bool,
    /// Until when the node's life is known to last; nothing while no heartbeat has told.
    pub(super) alive_until: Option<Timestamp>,
    /// Not before when another life begins.
    pub(super) register_at: Timestamp,
    /// Whether it may rest, whether it does, and when it was seen last that it could not.
    pub(super) may_rest: bool,
    pub(super) rests: bool,
    pub(super) busy_at: Timestamp,
    pub(super) next_due: Option<Timestamp>,
    /// How often in a row the store told of a time that had passed here.
    pub(super) early: u32,
    pub(super) last_ask: Timestamp,
    pub(super) store: Store,
    /// Failed calls in a row, and not before when the next one is made.
    pub(super) failures: u32,
    pub(super) retry_at: Timestamp,
    pub(super) draining: bool,
    pub(super) ended_lately: u32,
    /// How fast what waits here is handed out.
    pub(super) pace: Pace,
    /// How long runs take.
    pub(super) learned: Learned,
    /// How much memory they need.
    pub(super) memory: Memory,
    /// Whose turn it is among the tenants of a level, their queues and the pipelines of these.
    pub(super) turns: Turns,
    pub(super) look: Look,
    /// What waits behind more urgent jobs of its own lane.
    pub(super) behind: Behind,
    pub(super) effects: VecDeque<Effect>,
}

impl Scheduler {
    /// Makes the machine of a registered node.
    #[must_use]
    pub fn new(config: SchedulerConfig, owner: Lease, now: Timestamp) -> Self {
        let mut fleet = Fleet::new();
        if config.preempt.is_some() {
            fleet.note_levels();
        }
        Self {
            buffer: Buffer::new(config.ageing),
            sessions: Sessions::new(config.next_sync, config.session_ttl),
            config,
            owner,
            arrived: Vec::new(),
            outgoing: VecDeque::new(),
            later: BTreeMap::new(),
            sent: Vec::new(),
            unwanted: JobMap::default(),
            fleet,
            names: HashMap::new(),
            gangs: BTreeMap::new(),
            rules: BTreeMap::new(),
            look_due: None,
            vain: 0,
            heads: Vec::new(),
            asked: 0,
            rivals: Rivals::default(),
            follow: Follow::default(),
            lately: Lately::default(),
            claims: Claims::default(),
            lent: JobMap::default(),
            borrowed: JobMap::default(),
            awaits_loan: false,
            bereaved: JobMap::default(),
            bereaved_at: None,
            ask_again_at: now,
            lanes_stale: true,
            emptied: false,
            leases_unknown: false,
            doubt: None,
            owner_lost: false,
            alive_until: None,
            register_at: now,
            may_rest: false,
            rests: false,
            busy_at: now,
            next_due: None,
            early: 0,
            last_ask: now,
            store: Store::Idle,
            failures: 0,
            retry_at: now,
            draining: false,
            ended_lately: 0,
            pace: Pace::new(now),
            learned: Learned::default(),
            memory: Memory::default(),
            turns: Turns::default(),
            look: Look::new(now),
            behind: Behind::default(),
            effects: VecDeque::new(),
        }
    }

    /// Takes in what happened. Call [`Scheduler::poll_effect`] afterwards until it returns nothing.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        self.take_in(now);
        match input {
            Input::Synced(state, ticket) => self.synced(*state, ticket, now),
            Input::Woken => (self.lanes_stale, self.vain) = (true, 0),
            Input::Lanes(lanes) => self.lanes(lanes, now),
            Input::Exchanged(exchanged) => self.exchanged(exchanged, now),
            Input::Leases(leases) => self.leases(leases, now),
            Input::Cancelled(jobs) => self.cancelled(&jobs),
            Input::Beaten(lease, until) => self.beaten(&lease, until),
            Input::Registered(lease, until) => self.registered(lease, until, now),
            Input::Drain => self.drain(),
            Input::Abandon => {
                self.drain();
                let sessions: Vec<Name> = self.sessions.iter().map(|(name, _)| name.clone()).collect();
                let end = |name| self.end_session(name, &Move::Preempted, ErrorKind::Unavailable);
                sessions.iter().for_each(end);
            }
            Input::Claiming => self.claiming(),
            Input::Policy(policy) => self.set_policy(*policy),
            Input::Tick => {}
        }
        self.buffer.advance(now);
        self.fence(now);
        self.reclaim(now);
        self.expire(now);
    }

    fn set_policy(&mut self, policy: Policy) {
        self.forget_lanes(|_| true);
        for (queue, number) in &self.rules {
            if !policy.rules.contains_key(queue) {
                self.fleet.set_rule(*number, Rule::anywhere());
            }
        }
        for (queue, rule) in policy.rules {
            match self.rules.get(&queue) {
                Some(number) => self.fleet.set_rule(*number, rule),
                None => {
                    let number = self.fleet.add_rule(rule);
                    self.rules.insert(queue, number);
                }
            }
        }
        self.lanes_stale = true;
        self.shed();
    }

    /// Returns the next thing to do; call it until it returns nothing.
    #[must_use]
    pub fn poll_effect(&mut self, now: Timestamp) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        self.note_look(now);
        if !self.arrived.is_empty() {
            // The store works on the next batch while this one is handed out.
            self.ask_store(now);
            self.take_in(now);
        }
        if !self.looks_first(now) {
            self.assign(now);
        }
        self.return_unstarted(now);
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
            Store::Idle if self.must_register() && self.failures > 0 => self.register_at.max(self.retry_at),
            Store::Idle if self.must_register() => self.register_at,
            Store::Idle if self.failures > 0 => self.retry_at,
            Store::Idle => {
                let ask = self.last_ask.saturating_add(self.patience());
                let again = self.later.keys().next().copied();
                let doubt = self.doubt.map(|(at, _)| at);
                let due = [self.next_due, self.look_due, again, doubt, self.look_at()];
                due.into_iter().flatten().fold(ask, Timestamp::min)
            }
        };
        at = self.buffer.next_due().map_or(at, |due| due.min(at));
        at = [self.fence_at(), self.rest_at(), self.bereaved_at, self.look.until(), self.unstarted_at()]
            .into_iter()
            .chain([self.sessions.next_due()])
            .flatten()
            .fold(at, Timestamp::min);
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

    /// Which of its lives a worker is in that is connected, and what it offers.
    #[must_use]
    pub fn worker(&self, name: &Name) -> Option<(u64, &Arc<hodei_core::gateway::Offer>)> {
        self.sessions.get(name).map(|session| (session.incarnation, &session.offer))
    }

    /// Takes the names of the workers that came or went since this was asked, in order; the first time, of all that are
    /// connected. Whoever follows them looks at each change once, however many there are.
    pub fn take_comings_and_goings(&mut self) -> Vec<Name> {
        self.sessions.take_changed()
    }
}
