//! The only loop of a dispatcher: collect what happened, let the machine decide, carry it out, sleep.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use hodei_core::blob::BlobStore;
use hodei_core::checkpoint::CheckpointStore;
use hodei_core::codec::Codecs;
use hodei_core::event::{Event, WorkerEvent};
use hodei_core::gateway::{Desired, Offer, SessionState};
use hodei_core::job::{Epoch, Job, Lease};
use hodei_core::log::LogStore;
use hodei_core::store::{Claimed, Exchanged, Feed, Lanes, Served, Store, Wakeups};
use hodei_core::turn::give_way;
use hodei_core::{Clock, Error, ErrorKind, JobId, Name, OwnerId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use crate::herald::Herald;
use crate::lending::{parcel, show_surplus, take_parcel};
use crate::machine::{Effect, Input, Policy, Scheduler, Snapshot, Ticket, Why};
use crate::queue::Seat;
use crate::standby::{Claiming, Post};

/// How many messages are taken in before the machine decides.
const COLLECT_MAX: usize = 1_024;
/// An exchange of at most so many jobs is tried in the driver's own task, before it gets one of its own.
const LIGHT_MAX: usize = 64;
/// So many answers in a row are taken without letting other tasks have the thread.
const IN_A_ROW_MAX: u32 = 16;

/// For how long after it asked the store to prolong its life a dispatcher goes on without another beat: a little less than
/// the store waits, so that its agents have ended what they run by then.
pub(crate) fn life(ttl: Duration) -> Duration {
    ttl - ttl / 8
}

/// The answer to an agent's call.
pub(crate) type SyncReply = oneshot::Sender<Result<Desired, Error>>;

/// What reaches the driver from outside.
#[derive(Debug)]
pub(crate) enum Message {
    Sync(Box<SessionState>, SyncReply),
    /// A claim that was made with a submission.
    Claiming(Claiming),
    /// Jobs whose end somebody wants, under these epochs or lower ones.
    Cancelled(Vec<(JobId, Epoch)>),
    /// Until when a lease of ours holds, as a heartbeat told; nothing when it was given up. And whether it may rest.
    Beaten(Lease, Option<Timestamp>, bool),
    /// Another dispatcher of the node has died.
    Bereaved,
    /// What holds from now on.
    Policy(Box<Policy>),
    /// Why a job that is ready has no worker yet.
    Why(Box<Job>, oneshot::Sender<Option<Why>>),
    /// How everything stands.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Take no more work and end when what runs has ended.
    Drain,
    /// Take no more work and give back at once what runs: its agents have stopped it.
    Abandon,
}

/// The machine's time: that of the clock when it was made, and since then what has really passed. A clock that is set
/// neither ends sessions early nor holds calls back.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Timestamp,
    at: tokio::time::Instant,
}

impl Pace {
    pub(crate) fn from(clock: &dyn Clock) -> Self {
        Self { began: clock.now(), at: tokio::time::Instant::now() }
    }
}

impl Clock for Pace {
    fn now(&self) -> Timestamp {
        self.began.saturating_add(self.at.elapsed())
    }
}

/// A worker connected now, in one of its lives.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) name: Name,
    pub(crate) incarnation: u64,
    pub(crate) offer: Arc<Offer>,
}

/// What the parts of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) herald: Arc<Herald>,
    /// As long as the node lives, the store tells the herald what it commits.
    pub(crate) _feed: Arc<Feed>,
    /// The time of day.
    pub(crate) clock: Arc<dyn Clock>,
    /// The machine's time.
    pub(crate) pace: Arc<dyn Clock>,
    pub(crate) served: Served,
    /// What encodes the arguments of handlers before they are stored.
    pub(crate) codecs: Codecs,
    pub(crate) owner: OwnerId,
    pub(crate) ttl: Duration,
    /// What whoever submits may claim for the dispatcher.
    pub(crate) post: Post,
    /// The workers connected now, by name; a std mutex, held for a copy.
    pub(crate) workers: Mutex<BTreeMap<Name, Worker>>,
    /// The logs that go with their jobs, as long as somebody has them; a std mutex, held for a copy.
    pub(crate) logs: Mutex<Vec<Weak<dyn LogStore>>>,
    /// The checkpoints that go with their jobs, as the logs do.
    pub(crate) checkpoints: Mutex<Vec<Weak<dyn CheckpointStore>>>,
    /// The blobs that go when nobody names them any more, as long as somebody has them; a std mutex, held for a copy.
    pub(crate) blobs: Mutex<Vec<Weak<dyn BlobStore>>>,
    /// The lease under which the node acts now; the maintenance beats for it.
    pub(crate) lease: watch::Sender<Lease>,
    /// Whether the dispatcher lives no longer because it holds nothing, and begins a new life when there is work.
    pub(crate) rests: AtomicBool,
    /// Whether the dispatcher has died of a panic.
    pub(crate) died: AtomicBool,
    /// Whether a duty is led in its name beside the maintenance: then it lives.
    pub(crate) leads: AtomicBool,
    /// How the store refuses for good, as long as it does, or which dispatcher has died.
    pub(crate) failure: Arc<watch::Sender<Option<(ErrorKind, String)>>>,
}

/// What the dispatchers of a node have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) herald: Arc<Herald>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pace: Arc<dyn Clock>,
    pub(crate) served: Served,
    pub(crate) codecs: Codecs,
    pub(crate) ttl: Duration,
    pub(crate) failure: Arc<watch::Sender<Option<(ErrorKind, String)>>>,
}

impl Common {
    /// What a dispatcher begins with.
    pub(crate) fn dispatcher(&self, owner: OwnerId, lease: Lease) -> Shared {
        Shared {
            store: Arc::clone(&self.store),
            herald: Arc::clone(&self.herald),
            _feed: Arc::clone(&self.feed),
            clock: Arc::clone(&self.clock),
            pace: Arc::clone(&self.pace),
            served: self.served.clone(),
            codecs: self.codecs.clone(),
            owner,
            ttl: self.ttl,
            post: Post::new(self.store.wakeups()),
            workers: Mutex::default(),
            logs: Mutex::default(),
            checkpoints: Mutex::default(),
            blobs: Mutex::default(),
            lease: watch::Sender::new(lease),
            rests: AtomicBool::new(false),
            died: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            failure: Arc::clone(&self.failure),
        }
    }
}

impl Shared {
    /// Turns a time of the store into the machine's: what is due in a minute by the clock is due in a minute.
    fn due(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        let shift = self.shift();
        at.map(|at| shifted(at, shift))
    }

    /// How much later the machine's time is than the store's, in microseconds.
    fn shift(&self) -> i64 {
        let (clock, pace) = (self.clock.now(), self.pace.now());
        pace.as_micros().saturating_sub(clock.as_micros())
    }

    /// Until when, in the machine's time, nobody takes anything from a lease whose life the store prolongs from now on.
    pub(crate) fn lives_until(&self) -> Timestamp {
        // The store begins to count when the call has reached it, and that is later.
        self.pace.now().saturating_add(life(self.ttl))
    }

    /// Notes whether the store refuses for good.
    fn health(&self, answer: &Input) {
        let error = match answer {
            Input::Lanes(answer) => answer.as_ref().err(),
            Input::Exchanged(answer) => answer.as_ref().err(),
            Input::Leases(answer) => answer.as_ref().err(),
            _ => return,
        };
        let error = error.filter(|error| !error.is_retryable());
        // What a bug has done does not pass.
        let passes = self.failure.borrow().as_ref().is_some_and(|(kind, _)| *kind != ErrorKind::Bug);
        if error.is_some() || passes {
            self.failure.send_replace(error.map(|error| (error.kind(), error.to_string())));
        }
    }
}

/// Drives the machine until it is told to drain and everything has ended, or until nobody holds its channel.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) machine: Scheduler,
    pub(crate) messages: mpsc::Receiver<Message>,
    pub(crate) wakeups: Wakeups,
    replies: HashMap<Ticket, SyncReply>,
    next_ticket: Ticket,
    /// The call of the store under way, at most one. In a task of its own, so that agents whose calls were just
    /// answered begin their runs on another thread meanwhile; it ends with the driver.
    call: JoinSet<Input>,
    /// The call under way, where it is of few jobs and has not been answered at once: polled by the driver, which its answer
    /// wakes without another task in between.
    light: Option<Pin<Box<dyn Future<Output = Input> + Send>>>,
    /// The answer to a call that needed no task.
    answer: Option<Input>,
    /// How many such answers came one after the other.
    in_a_row: u32,
    /// Whether the store takes calls in the order in which they are begun.
    in_order: bool,
    /// Whether whoever submits may claim.
    stands_by: bool,
    /// Whether somebody has claimed, and the claim is on its way here.
    awaits_claim: bool,
    draining: bool,
    /// The place among the dispatchers of the node, where there are several.
    seat: Option<Seat<Claimed>>,
}

/// A driver that dies of a panic, in a store or in a balancer, says so: nobody else would know.
impl Drop for Driver {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Release: whoever sees it sees that the channel is closed, or will be.
            self.shared.died.store(true, Ordering::Release);
            let text = format!("the dispatcher {} has died", self.shared.owner.name());
            self.shared.failure.send_replace(Some((ErrorKind::Bug, text)));
        }
    }
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        machine: Scheduler,
        messages: mpsc::Receiver<Message>,
        seat: Option<Seat<Claimed>>,
    ) -> Self {
        let wakeups = shared.store.wakeups();
        // One process, and one order: a claim that is begun behind a submission finds it.
        let in_order = shared.store.capabilities().exclusive;
        Self {
            shared,
            machine,
            messages,
            wakeups,
            replies: HashMap::new(),
            next_ticket: 0,
            call: JoinSet::new(),
            light: None,
            answer: None,
            in_a_row: 0,
            in_order,
            stands_by: false,
            awaits_claim: false,
            draining: false,
            seat,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let now = self.shared.pace.now();
            let (mut light, mut answered) = (None, 0);
            while let Some(effect) = self.machine.poll_effect(now) {
                if self.is_light(&effect) {
                    // When everybody has his answer.
                    light = Some(effect);
                } else {
                    answered += u32::from(matches!(effect, Effect::Reply(..)));
                    self.carry_out(effect);
                }
            }
            // Release: a beat that sees it awake sees its new lease.
            self.shared.rests.store(self.machine.rests(), Ordering::Release);
            self.show_workers();
            if let Some(seat) = &mut self.seat {
                show_surplus(&mut self.machine, seat, now);
            }
            if let Some(question) = light {
                if answered == 1 && matches!(question, Effect::AskLanes { .. }) {
                    // What a lone agent was just told does not wait behind a look at what else there is.
                    give_way().await;
                }
                self.try_at_once(question).await;
            }
            if self.draining && self.machine.is_idle() && !self.is_asking() {
                return;
            }
            self.stand_by(now);
            let input = self.next_input(now).await;
            let Some(input) = input else { return };
            let now = self.shared.pace.now();
            self.stand_down(now);
            self.machine.handle(input, now);
            self.collect(now);
        }
    }

    /// Whether the store has been asked something, and its answer is not taken in.
    fn is_asking(&self) -> bool {
        !self.call.is_empty() || self.light.is_some() || self.answer.is_some() || self.awaits_claim
    }

    /// Lets whoever submits claim, where the machine waits for work.
    fn stand_by(&mut self, now: Timestamp) {
        if !self.in_order || self.is_asking() {
            return;
        }
        if let Some(standby) = self.machine.standby(now) {
            self.shared.post.open(standby);
            self.stands_by = true;
        }
    }

    /// Lets nobody claim any more, before anything is told to the machine; tells it first when somebody has claimed.
    fn stand_down(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.stands_by) && self.shared.post.close() {
            self.awaits_claim = true;
            self.machine.handle(Input::Claiming, now);
        }
    }

    /// Waits for the first thing to happen; nothing when the last handle is gone.
    async fn next_input(&mut self, now: Timestamp) -> Option<Input> {
        if let Some(answer) = self.answer.take() {
            self.in_a_row += 1;
            self.shared.health(&answer);
            return Some(answer);
        }
        self.in_a_row = 0;
        let patience = self.machine.poll_timeout().saturating_since(now);
        tokio::select! {
            message = self.messages.recv() => message.map(|message| self.input(message)),
            Some(input) = self.call.join_next() => {
                let input = answered(input);
                self.shared.health(&input);
                Some(input)
            }
            input = under_way(&mut self.light) => {
                self.light = None;
                self.shared.health(&input);
                Some(input)
            }
            _ = self.wakeups.next() => {
                // Nobody claims any more before it is forgotten that it rang.
                self.stand_down(now);
                self.shared.post.heard();
                Some(Input::Woken)
            }
            () = parcel(self.seat.as_ref()) => {
                self.parcels(now);
                Some(Input::Tick)
            }
            () = tokio::time::sleep(patience) => Some(Input::Tick),
        }
    }

    /// Answers other dispatchers, and takes in what they lend.
    fn parcels(&mut self, now: Timestamp) {
        self.stand_down(now);
        let Some(seat) = &mut self.seat else { return };
        while let Some(parcel) = seat.take() {
            take_parcel(&mut self.machine, seat, parcel, now);
        }
    }

    /// Takes in what else has happened already, so that the machine decides over a batch.
    fn collect(&mut self, now: Timestamp) {
        for _ in 0..COLLECT_MAX {
            let Ok(message) = self.messages.try_recv() else { return };
            let input = self.input(message);
            self.machine.handle(input, now);
        }
    }

    fn input(&mut self, message: Message) -> Input {
        self.stand_down(self.shared.pace.now());
        match message {
            Message::Claiming(Claiming(call)) => {
                self.awaits_claim = false;
                self.light = Some(call);
                Input::Tick
            }
            Message::Sync(state, reply) => {
                self.next_ticket += 1;
                self.replies.insert(self.next_ticket, reply);
                Input::Synced(state, self.next_ticket)
            }
            Message::Cancelled(jobs) => Input::Cancelled(jobs),
            Message::Beaten(lease, until, may_rest) => {
                self.machine.let_rest(may_rest);
                Input::Beaten(lease, until)
            }
            Message::Bereaved => {
                self.machine.bereave(self.shared.pace.now());
                Input::Tick
            }
            Message::Policy(policy) => Input::Policy(policy),
            Message::Why(job, reply) => {
                // Whoever asked and went has no use for the answer.
                let _ = reply.send(self.machine.why(&job));
                Input::Tick
            }
            Message::Snapshot(reply) => {
                let _ = reply.send(self.machine.snapshot());
                Input::Tick
            }
            Message::Drain => {
                self.draining = true;
                Input::Drain
            }
            Message::Abandon => {
                self.draining = true;
                Input::Abandon
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let shared = Arc::clone(&self.shared);
        match effect {
            Effect::Reply(ticket, desired) => {
                if let Some(reply) = self.replies.remove(&ticket) {
                    let desired =
                        desired.map(|desired| *desired).map_err(|kind| Error::new(kind, "gateway.sync"));
                    // An agent that hung up repeats its call, and is told again.
                    let _ = reply.send(desired);
                }
            }
            question => {
                self.call.spawn(ask(shared, question));
            }
        }
    }

    /// Whether the store may answer within the time that a task of its own would cost.
    fn is_light(&self, effect: &Effect) -> bool {
        let few = match effect {
            Effect::Reply(..) => return false,
            Effect::Exchange(exchange) => {
                let asked = exchange.picks.iter().map(|pick| pick.n as usize);
                exchange.transitions.len() + asked.sum::<usize>() <= LIGHT_MAX
            }
            Effect::AskLanes { .. } | Effect::AskLeases | Effect::Register => true,
        };
        few && self.in_a_row < IN_A_ROW_MAX
    }

    /// Asks the store, and takes its answer when it has it at once; else it is waited for with all else.
    async fn try_at_once(&mut self, question: Effect) {
        let mut call = Box::pin(ask(Arc::clone(&self.shared), question));
        match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            Poll::Ready(answer) => self.answer = Some(answer),
            Poll::Pending => self.light = Some(call),
        }
    }

    /// Shows who is connected to those who explain, and tells the bus who came and went.
    fn show_workers(&mut self) {
        let changed = self.machine.take_comings_and_goings();
        if changed.is_empty() {
            return;
        }
        let (mut gone, mut came) = (Vec::new(), Vec::new());
        let mut shown = self.shared.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for name in changed {
            let now = self.machine.worker(&name).map(|(incarnation, offer)| Worker {
                name: name.clone(),
                incarnation,
                offer: Arc::clone(offer),
            });
            let before = match &now {
                Some(worker) => shown.insert(name, worker.clone()),
                None => shown.remove(&name),
            };
            let life = |worker: &Option<Worker>| worker.as_ref().map(|worker| worker.incarnation);
            if life(&before) != life(&now) {
                gone.extend(before);
                came.extend(now);
            }
        }
        drop(shown);
        let Some(bus) = &self.shared.herald.bus else { return };
        let at = self.shared.clock.now();
        let event = |worker: Worker, connected| {
            let Worker { name: worker, incarnation, .. } = worker;
            Event::Worker(WorkerEvent { worker, incarnation, at, connected })
        };
        let gone = gone.into_iter().map(|worker| event(worker, false));
        let events: Vec<Event> = gone.chain(came.into_iter().map(|worker| event(worker, true))).collect();
        bus.publish_or_gap(&events);
    }
}

/// Waits for the answer to a call; for ever, where there is none.
///
/// # Cancel safety
///
/// Cancel safe: the call goes on when it is waited for again.
async fn under_way(call: &mut Option<Pin<Box<dyn Future<Output = Input> + Send>>>) -> Input {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

fn shifted(at: Timestamp, shift: i64) -> Timestamp {
    Timestamp::from_micros(at.as_micros().saturating_add(shift))
}

/// Asks the store what the machine wants to know of it, and returns the answer. Waits for nothing but the store, so that
/// any loop can drive it.
pub(crate) async fn ask(shared: Arc<Shared>, question: Effect) -> Input {
    match question {
        Effect::AskLanes { every_level } => {
            let lanes = match every_level {
                true => shared.store.lanes(&Served { every_level, ..shared.served.clone() }).await,
                false => shared.store.lanes(&shared.served).await,
            };
            Input::Lanes(lanes.map(|mut lanes| {
                let shift = shared.shift();
                lanes.heads.iter_mut().for_each(|head| head.eligible_at = shifted(head.eligible_at, shift));
                let shifted = |at: Option<Timestamp>| at.map(|at| shifted(at, shift));
                Lanes { next_due: shifted(lanes.next_due), opens_at: shifted(lanes.opens_at), ..lanes }
            }))
        }
        Effect::Exchange(exchange) => {
            let done = shared.store.exchange(*exchange).await;
            Input::Exchanged(done.map(|done| Exchanged { next_due: shared.due(done.next_due), ..done }))
        }
        Effect::AskLeases => {
            let lease = shared.lease.borrow().clone();
            Input::Leases(shared.store.leases_of(&lease).await)
        }
        Effect::Register => {
            let until = shared.lives_until();
            if let Ok(lease) = shared.store.register(&shared.owner, shared.ttl).await {
                shared.lease.send_replace(lease);
            }
            let lease = shared.lease.borrow().clone();
            Input::Registered(lease, until)
        }
        // Not a question; the loop answers the call itself.
        Effect::Reply(..) => Input::Tick,
    }
}

/// Returns what the store answered. A store that panics takes the driver with it.
fn answered(answer: Result<Input, JoinError>) -> Input {
    match answer {
        Ok(input) => input,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody else can cancel it: the runtime shuts down.
            Err(_) => Input::Tick,
        },
    }
}
