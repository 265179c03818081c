//! The engine's own futures, polled by hand.

use std::time::Duration;

use hodei_core::Timestamp;

use super::agent::AgentModel;
use super::bug::Bug;
use super::desk::Desk;
use super::door::{BoxFuture, Late, Pass, Want};
use super::network::{Fate, Place};
use super::node::Ready;
use super::world::{Event, World};
use crate::cron::Duty;
use crate::machine::Input;
use crate::maintain::{Duties, Heard, Lead};

/// What a future came to.
pub(super) enum Done {
    /// A node is up, or could not get up.
    Up(hodei_core::Result<Ready>),
    /// The store answered the machine.
    Input(Input),
    /// The heartbeat of dispatchers is over: their seats, and what they hear.
    Beaten(Vec<usize>, Vec<Heard>, Lead),
    Led(Duties, bool),
    /// The leader has pruned.
    Kept(Duties),
    /// A node has looked at the schedules, and when it is to look again.
    Fired(Duty, hodei_core::Result<Duration>),
    /// A node has said goodbye.
    Retired,
    /// A client has its answer.
    Acted,
}

/// Whose a future is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Node { node: usize, life: u64 },
    Desk(Desk),
    Client,
}

struct Task {
    future: BoxFuture<Done>,
    of: Of,
    want: Want,
}

/// The futures under way, by number. One that waits has exactly one event that lets it go on.
#[derive(Default)]
pub(super) struct Tasks {
    slots: Vec<Option<Task>>,
    free: Vec<usize>,
}

impl Tasks {
    fn add(&mut self, task: Task) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(task);
                slot
            }
            None => {
                self.slots.push(Some(task));
                self.slots.len() - 1
            }
        }
    }

    fn take(&mut self, slot: usize) -> Option<Task> {
        let task = self.slots.get_mut(slot)?.take();
        self.free.push(slot);
        task
    }
}

impl Of {
    /// The node, and which of its lives.
    fn node(self) -> Option<(usize, u64)> {
        match self {
            Self::Node { node, life } | Self::Desk(Desk { node, life, .. }) => Some((node, life)),
            Self::Client => None,
        }
    }
}

impl<A: AgentModel> World<A> {
    /// Begins a future.
    pub(super) fn spawn(&mut self, of: Of, mut future: BoxFuture<Done>) {
        match self.door.poll(&mut future, None) {
            Ok(done) => self.done(of, done),
            Err(want) => self.waits(Task { future, of, want }),
        }
    }

    fn is_alive(&mut self, of: Of) -> bool {
        match of {
            Of::Client => true,
            Of::Node { node, life } => self.nodes[node].life == life,
            Of::Desk(desk) => self.dispatcher(desk).is_some(),
        }
    }

    /// Until when whoever waits for a future stands still.
    fn stands_still(&self, of: Of) -> Timestamp {
        match of {
            Of::Client => Timestamp::EPOCH,
            Of::Node { node, .. } => self.nodes[node].frozen,
            Of::Desk(desk) => self.still(desk),
        }
    }

    /// Decides when a future goes on, and how.
    fn waits(&mut self, task: Task) {
        let place = task.of.node().map_or(Place::Client, |(node, _)| Place::Node(node));
        let faults = self.faults();
        let (at, pass) = match task.want {
            Want::Call(verb) => match self.network.call(
                place,
                matches!(verb, "submit" | "exchange"),
                self.now,
                &faults,
                &mut self.chance,
            ) {
                Fate::Arrives(at) => (at, Pass::Go),
                Fate::Late(at) => (at, Pass::Late),
                Fate::Refused(at) => (at, Pass::Fail(hodei_core::ErrorKind::Unavailable)),
            },
            Want::Answer(_) => {
                let (at, comes) = self.network.answer(place, self.now, &faults, &mut self.chance);
                (at, if comes { Pass::Go } else { Pass::Fail(hodei_core::ErrorKind::Indeterminate) })
            }
            Want::Pause(time) => (self.now.saturating_add(time), Pass::Go),
        };
        let task = self.tasks.add(task);
        self.at(at, Event::Goes { task, pass });
    }

    /// Lets a future go on.
    pub(super) fn goes(&mut self, slot: usize, pass: Pass) {
        let Some(mut task) = self.tasks.take(slot) else { return };
        let arrives = matches!(task.want, Want::Call(_)) && pass == Pass::Go;
        // What is on its way to the store arrives there, whatever has become of who sent it.
        if !arrives {
            if !self.is_alive(task.of) {
                return;
            }
            let at = self.stands_still(task.of);
            if at > self.now {
                let task = self.tasks.add(task);
                return self.at(at, Event::Goes { task, pass });
            }
        }
        if let Some((node, _)) = task.of.node() {
            self.set_clocks(node);
            if arrives {
                self.plant_clock(node, task.want);
            }
        }
        let polled = self.door.poll(&mut task.future, Some(pass));
        if let Some(late) = self.door.take_late() {
            let wait = self.chance.millis(1, 8_000);
            self.after(wait, Event::Late(Box::new(late)));
        }
        if arrives {
            self.clock_back();
            self.took_place(task.of, task.want);
        } else {
            self.failed(task.of, task.want, pass);
        }
        match polled {
            Ok(done) if self.is_alive(task.of) => self.done(task.of, done),
            Err(want) if self.is_alive(task.of) => {
                task.want = want;
                self.waits(task);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// A call has been carried out: what it did is noted, and whoever waits is woken.
    fn took_place(&mut self, of: Of, want: Want) {
        self.figures.calls += 1;
        match of {
            Of::Node { node, .. } => self.tell(format_args!("store: {want} of node-{node}")),
            Of::Desk(Desk { node, seat, .. }) => {
                self.tell(format_args!("store: {want} of node-{node}/{seat}"))
            }
            Of::Client => self.tell(format_args!("store: {want} of a client")),
        }
        self.watch.caller = of.node();
        self.history_take();
        self.watch.caller = None;
        self.hear();
    }

    /// A call happens that everybody has given up.
    pub(super) fn late(&mut self, late: Late) {
        let verb = late.verb();
        self.door.happens(late);
        self.figures.calls += 1;
        self.tell(format_args!("store: {verb}, late"));
        self.history_take();
        self.hear();
    }

    fn failed(&mut self, of: Of, want: Want, pass: Pass) {
        if pass != Pass::Go {
            self.figures.failed_calls += 1;
            self.tell(format_args!("{of:?}: {want} failed, {pass:?}"));
        }
    }

    /// Where that is the planted bug, the store judges lives by the clock of who asks.
    fn plant_clock(&mut self, node: usize, want: Want) {
        let judges = match self.options.bug {
            Some(Bug::LeaseByNodeClock) => matches!(want, Want::Call("reap" | "beat" | "round")),
            Some(Bug::CronByNodeClock) => want == Want::Call("now"),
            _ => false,
        };
        if judges {
            self.clock.set(self.wall(node));
        }
    }

    fn clock_back(&mut self) {
        self.clock.set(self.now);
    }

    fn done(&mut self, of: Of, done: Done) {
        match (of, done) {
            (Of::Desk(desk), Done::Input(input)) => self.desk_done(desk, input),
            (Of::Node { node, .. } | Of::Desk(Desk { node, .. }), done) => self.node_done(node, done),
            (Of::Client, _) => self.acting -= 1,
        }
    }
}
