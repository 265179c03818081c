//! An agent in its place: the model, the calls it makes and the runs it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Assignment, Desired, News, Offer, StopCause};
use hodei_core::job::{Epoch, Finish, Lease, LogEnd, Manifest, Placement, Resources, Runs, Stream};
use hodei_core::testkit::history::{Entry, LogSeen};
use hodei_core::text::TextMap;
use hodei_core::{ErrorKind, JobId, Name, OwnerId, Tenant, Timestamp};

use super::agent::{Action, AgentModel};
use super::bug::Bug;
use super::mixed::MEMORY_MAX;
use super::network::Place;
use super::workload::RunPlan;
use super::world::{Caller, Event, World};

/// The first wait after a failed call, doubled up to 32 times.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long an agent waits for a reply that does not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how many failed calls an agent tries another node, where agents do so.
const ROAM_AFTER: u32 = 3;

/// An agent, whether it is up or not.
#[derive(Debug)]
pub(super) struct Host<A> {
    worker: Name,
    offer: Arc<Offer>,
    pub(super) life: u64,
    pub(super) up: Option<Busy<A>>,
    /// Until when it stands still.
    pub(super) frozen: Timestamp,
    /// Until when it stood still at the latest, whether or not it was healed: so long its own timers are late.
    pub(super) late: Timestamp,
    /// The node that it calls.
    pub(super) home: usize,
}

/// An agent that is up.
#[derive(Debug)]
pub(super) struct Busy<A> {
    model: A,
    call: u64,
    /// Whether the call under way carries reports: then it is awaited.
    carries: bool,
    failures: u32,
    runs: BTreeMap<(JobId, Epoch), Run>,
    /// Runs that ended while a call was awaited.
    ended: Vec<(JobId, Epoch, News)>,
    tick: Timestamp,
    /// The number of the last reply that was taken in.
    seen: u64,
    /// The number of the last call that is not answered, as the model counts them.
    asked: Option<u64>,
}

#[derive(Debug)]
struct Run {
    /// The number of the event that ends it.
    serial: u64,
    stopping: bool,
    news: News,
    resources: Resources,
    tenant: Tenant,
    place: Placement,
}

/// The zones that agents are in by turns: the first agent is in the first one.
pub(super) const ZONES: [&str; 2] = ["north", "south"];

impl<A> Host<A> {
    pub(super) fn new(n: usize, slots: u32, nodes: usize) -> Self {
        let capacity = Resources::none().cpu_millis(4_000).memory(MEMORY_MAX * 2).gpus(0);
        let labels = TextMap::new([("zone", ZONES[n % ZONES.len()])]).unwrap_or_default();
        let offer = Offer { runs: vec![Runs::Command], capacity, slots, labels };
        Self {
            // A name made here has no character that names may not have.
            worker: Name::new(format!("agent-{n}")).unwrap_or_else(|_| Name::literal("agent")),
            offer: Arc::new(offer),
            life: 0,
            up: None,
            frozen: Timestamp::EPOCH,
            late: Timestamp::EPOCH,
            home: n % nodes.max(1),
        }
    }
}

impl<A: AgentModel> World<A> {
    pub(super) fn agent_boot(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        if host.up.is_some() {
            return;
        }
        host.life += 1;
        let mut model = A::new(host.worker.clone(), host.life, Arc::clone(&host.offer));
        // It has nothing to end yet.
        let _ = model.tick(self.now);
        host.up = Some(Busy {
            model,
            call: 0,
            carries: false,
            failures: 0,
            runs: BTreeMap::new(),
            ended: Vec::new(),
            tick: Timestamp::EPOCH,
            seen: 0,
            asked: None,
        });
        let life = host.life;
        self.tell(format_args!("agent-{n}: starts, life {life}"));
        self.begin_call(n);
    }

    /// An agent dies, and everything that it runs dies with it.
    pub(super) fn agent_dies(&mut self, n: usize) {
        self.tell(format_args!("agent-{n}: dies"));
        self.runs_die(n);
        self.hosts[n].up = None;
        self.hosts[n].frozen = Timestamp::EPOCH;
    }

    /// Every run of an agent is over, and nobody is told.
    pub(super) fn runs_die(&mut self, n: usize) {
        let Some(busy) = &mut self.hosts[n].up else { return };
        for (job, epoch) in std::mem::take(&mut busy.runs).into_keys() {
            self.history.push(Entry::RunEnded { job, epoch });
        }
    }

    /// Says what there is to say, at once or after the wait that failures ask for.
    fn begin_call(&mut self, n: usize) {
        let life = self.hosts[n].life;
        let Some(busy) = &mut self.hosts[n].up else { return };
        busy.call += 1;
        let (call, failures) = (busy.call, busy.failures);
        if failures == 0 {
            return self.call_now(n, life, call);
        }
        self.after(BACKOFF * (1 << failures.min(5)), Event::Call { agent: n, life, call });
    }

    pub(super) fn call_now(&mut self, n: usize, life: u64, call: u64) {
        let bug = self.options.bug;
        let host = &mut self.hosts[n];
        let Some(busy) = host.up.as_mut().filter(|busy| host.life == life && busy.call == call) else {
            return;
        };
        if host.frozen > self.now {
            let at = host.frozen;
            return self.at(at, Event::Call { agent: n, life, call });
        }
        let mut state = busy.model.state();
        if bug == Some(Bug::LostReport) {
            state.reports.retain(|report| report.number % 16 != 7);
        }
        if bug == Some(Bug::RunsUnweighed) {
            state.running.iter_mut().for_each(|run| run.resources = Resources::none());
        }
        busy.carries = !state.reports.is_empty();
        busy.asked = Some(state.seq);
        let home = host.home;
        let faults = self.faults();
        let route = (Place::Agent(n), Place::Node(home));
        let arrivals = self.network.send(route, self.now, &faults, &mut self.chance);
        let up = self.nodes[home].life;
        let from = Caller { agent: n, life, call };
        let [first, again] = arrivals;
        if let Some(at) = again {
            let state = Box::new(state.clone());
            self.at(at, Event::Synced { node: home, life: up, from, state });
        }
        if let Some(at) = first {
            self.at(at, Event::Synced { node: home, life: up, from, state: Box::new(state) });
        }
        self.after(PATIENCE, Event::Silent { agent: n, life, call });
    }

    /// No reply came.
    pub(super) fn silent(&mut self, n: usize, life: u64, call: u64) {
        let host = &self.hosts[n];
        if host.life != life || host.up.as_ref().is_none_or(|busy| busy.call != call) {
            return;
        }
        if host.frozen > self.now {
            return self.at(host.frozen, Event::Silent { agent: n, life, call });
        }
        self.call_failed(n);
    }

    fn call_failed(&mut self, n: usize) {
        let roams = self.faults().roaming || self.healed && self.options.faults.roaming;
        let nodes = self.nodes.len();
        let host = &mut self.hosts[n];
        let Some(busy) = &mut host.up else { return };
        busy.failures += 1;
        busy.model.reconnect();
        if roams && busy.failures.is_multiple_of(ROAM_AFTER) {
            host.home = (host.home + 1) % nodes;
        }
        self.collect(n);
        self.begin_call(n);
    }

    pub(super) fn replied(&mut self, n: usize, life: u64, call: u64, reply: Result<Box<Desired>, ErrorKind>) {
        let host = &mut self.hosts[n];
        let Some(busy) = host.up.as_mut().filter(|_| host.life == life) else { return };
        if host.frozen > self.now {
            let at = host.frozen;
            return self.at(at, Event::Replied { agent: n, life, call, reply });
        }
        let awaited = busy.call == call;
        match reply {
            Ok(desired) => {
                // A reply that nobody waits for any more may still come: it must do no harm.
                self.wants(n, *desired);
                if awaited {
                    self.answered(n);
                }
            }
            Err(_) if !awaited => {}
            Err(ErrorKind::Cancelled) => self.answered(n),
            Err(ErrorKind::Conflict) => {
                self.agent_dies(n);
                let wait = self.chance.millis(100, 2_000);
                self.after(wait, Event::AgentBoot { agent: n });
            }
            Err(_) => self.call_failed(n),
        }
    }

    /// The call under way is over, and the next one begins.
    fn answered(&mut self, n: usize) {
        if let Some(busy) = &mut self.hosts[n].up {
            busy.failures = 0;
        }
        self.collect(n);
        self.begin_call(n);
    }

    /// Takes in what ended while a call was awaited.
    fn collect(&mut self, n: usize) {
        let Some(busy) = &mut self.hosts[n].up else { return };
        for (job, epoch, news) in std::mem::take(&mut busy.ended) {
            busy.model.ended(job, epoch, news);
        }
        busy.carries = false;
        self.time_passes(n);
    }

    /// Tells the model the time, and stops what it ends.
    fn time_passes(&mut self, n: usize) {
        let now = self.now;
        let Some(busy) = &mut self.hosts[n].up else { return };
        let mut actions = busy.model.tick(now);
        if self.options.bug == Some(Bug::NoAgentFence) {
            actions.clear();
        }
        for action in actions {
            if let Action::Stop(stop) = action {
                self.stops(n, (stop.job, stop.epoch), stop.why);
            }
        }
        self.set_agent_tick(n);
    }

    fn set_agent_tick(&mut self, n: usize) {
        let (now, life) = (self.now, self.hosts[n].life);
        let Some(busy) = &mut self.hosts[n].up else { return };
        let Some(at) = busy.model.poll_timeout() else { return };
        let at = at.max(now.saturating_add(Duration::from_micros(1)));
        if busy.tick <= now || at < busy.tick {
            busy.tick = at;
            self.at(at, Event::AgentTick { agent: n, life, at });
        }
    }

    pub(super) fn agent_tick(&mut self, n: usize, life: u64, at: Timestamp) {
        let host = &self.hosts[n];
        let Some(busy) = host.up.as_ref().filter(|busy| host.life == life && busy.tick == at) else { return };
        if host.frozen > self.now {
            return self.at(host.frozen, Event::AgentTick { agent: n, life, at });
        }
        if busy.carries {
            // The call is awaited, but what must not run on ends.
            self.time_passes(n);
        } else {
            self.collect(n);
            self.begin_call(n);
        }
    }

    /// Takes in what a node wants.
    fn wants(&mut self, n: usize, desired: Desired) {
        let now = self.now;
        let bug = self.options.bug;
        let Some(busy) = &mut self.hosts[n].up else { return };
        // Another answer than one to its last call is nothing to an agent.
        let fresh = desired.number > busy.seen && busy.asked == Some(desired.answers);
        if fresh {
            (busy.seen, busy.asked) = (desired.number, None);
        }
        let stops = desired.stop.clone();
        let assigned = desired.assign.len();
        let (number, received, acked) = (desired.number, desired.received, desired.acked);
        let repeats = if bug == Some(Bug::NoGrantDedupe) { desired.assign.clone() } else { Vec::new() };
        let mut actions = busy.model.desired(desired, now);
        if bug == Some(Bug::NoSelfFence) {
            actions
                .retain(|action| !matches!(action, Action::Stop(stop) if stop.why == StopCause::LeaseLost));
        }
        for assignment in repeats {
            let key = (assignment.job.id, assignment.job.epoch);
            let told = |action: &Action| matches!(action, Action::Start(start) if start.job.id == key.0);
            if !busy.runs.contains_key(&key) && !actions.iter().any(told) {
                actions.push(Action::Start(assignment));
            }
        }
        self.tell(format_args!(
            "agent-{n}: reply {number}, {assigned} to run, {} to stop, received {received}, acked {acked}",
            stops.len()
        ));
        for action in actions {
            match action {
                Action::Start(assignment) => self.starts(n, &assignment),
                Action::Stop(stop) => self.stops(n, (stop.job, stop.epoch), stop.why),
            }
        }
        let Some(busy) = &self.hosts[n].up else { return };
        for stop in stops.iter().filter(|_| fresh) {
            if busy.runs.get(&(stop.job, stop.epoch)).is_some_and(|run| !run.stopping) {
                let name = self.trace.name(stop.job);
                self.watch
                    .find(format!("I7: agent-{n} was told to stop j{name} and goes on, {:?}", stop.why));
            }
        }
        self.capacity(n);
        self.set_agent_tick(n);
    }

    fn starts(&mut self, n: usize, assignment: &Assignment) {
        let (job, epoch) = (assignment.job.id, assignment.job.epoch);
        let (load, mut scene) = self.scene();
        let mut plan = load.run(assignment, &mut scene);
        let name = self.trace.name(job);
        self.tell(format_args!("agent-{n}: runs j{name} e{epoch} for {:?}", plan.lasts));
        self.runs_alone(n, job);
        let written = writes_log(assignment, &mut plan);
        let host = &mut self.hosts[n];
        let life = host.life;
        let owner = Lease { owner: OwnerId::from(host.worker.clone()), incarnation: life };
        self.history.push(Entry::RunBegan { job, epoch, owner });
        written.into_iter().for_each(|entry| self.history.push(entry));
        self.figures.runs += 1;
        let serial = self.figures.runs;
        let (spec, tenant) = (&assignment.job.spec, assignment.job.tenant.clone());
        let mut resources = spec.resources().clone();
        resources.memory = assignment.memory;
        let place = spec.placement().unwrap_or_default();
        let unmet = place.required().iter().find(|selector| !selector.applies(&host.offer.labels));
        if let Some(unmet) = unmet {
            self.watch.find(format!("placement: agent-{n} begins j{name}, which requires that {unmet}"));
        }
        if let Some(busy) = &mut host.up {
            let run = Run { serial, stopping: false, news: plan.news, resources, tenant, place };
            busy.runs.insert((job, epoch), run);
        }
        self.after(plan.lasts, Event::RunEnds { agent: n, life, job, epoch, serial });
    }

    /// Nobody else is at work on a job that begins to run. Whoever stands still cannot know better, nor end what he runs.
    fn runs_alone(&mut self, n: usize, job: JobId) {
        let now = self.now;
        let others = self.hosts.iter().enumerate().filter(|(other, host)| *other != n && host.late < now);
        let works = |busy: &Busy<A>| busy.runs.iter().any(|((of, _), run)| *of == job && !run.stopping);
        let other =
            others.filter(|(_, host)| host.up.as_ref().is_some_and(works)).map(|(other, _)| other).next();
        if let Some(other) = other {
            let name = self.trace.name(job);
            self.watch.find(format!("I7: agent-{n} begins j{name}, which agent-{other} still runs"));
        }
    }

    fn stops(&mut self, n: usize, (job, epoch): (JobId, Epoch), why: StopCause) {
        let grace = self.chance.millis(1, 200);
        let life = self.hosts[n].life;
        let Some(run) = self.hosts[n].up.as_mut().and_then(|busy| busy.runs.get_mut(&(job, epoch))) else {
            return;
        };
        if std::mem::replace(&mut run.stopping, true) {
            return;
        }
        run.news = News::Ended(Box::new(Finish::cancelled()));
        self.figures.stops += 1;
        run.serial = u64::MAX - self.figures.stops;
        let serial = run.serial;
        let name = self.trace.name(job);
        self.tell(format_args!("agent-{n}: stops j{name} e{epoch}, {why:?}"));
        self.after(grace, Event::RunEnds { agent: n, life, job, epoch, serial });
    }

    pub(super) fn run_ends(&mut self, n: usize, life: u64, (job, epoch): (JobId, Epoch), serial: u64) {
        let host = &mut self.hosts[n];
        let Some(busy) = host.up.as_mut().filter(|_| host.life == life) else { return };
        if busy.runs.get(&(job, epoch)).is_none_or(|run| run.serial != serial) {
            return;
        }
        if host.frozen > self.now {
            let at = host.frozen;
            return self.at(at, Event::RunEnds { agent: n, life, job, epoch, serial });
        }
        let Some(run) = busy.runs.remove(&(job, epoch)) else { return };
        busy.ended.push((job, epoch, run.news));
        let waits = busy.carries;
        self.history.push(Entry::RunEnded { job, epoch });
        let name = self.trace.name(job);
        self.tell(format_args!("agent-{n}: ends j{name} e{epoch}"));
        if !waits {
            self.collect(n);
            self.begin_call(n);
        }
    }

    /// What runs never needs more than there is, what was told to stop and has not ended yet too.
    fn capacity(&mut self, n: usize) {
        let host = &self.hosts[n];
        let Some(busy) = &host.up else { return };
        let running: Vec<&Run> = busy.runs.values().collect();
        let sum = |sum: Option<Resources>, run: &&Run| sum?.checked_add(&run.resources);
        let needs = running.iter().fold(Some(Resources::none()), sum);
        let fits = needs.is_some_and(|needs| needs.fits(&host.offer.capacity));
        if !fits || running.len() > host.offer.slots as usize {
            let text = format!("I11: agent-{n} runs {} jobs, more than it has room for", running.len());
            self.watch.find(text);
        }
        let shunned = running.iter().enumerate().find_map(|(at, one)| {
            let others =
                running.iter().enumerate().filter(|(other, run)| *other != at && run.tenant == one.tenant);
            let is_of =
                |group: &&String| others.clone().any(|(_, other)| other.place.groups().contains(group));
            one.place.groups_apart().iter().find(is_of)
        });
        if let Some(group) = shunned {
            let text = format!(
                "placement: agent-{n} runs a job of group {group} beside one that is kept apart from it"
            );
            self.watch.find(text);
        }
    }
}

/// One run of four writes to its log, of which a part has no room; how it ends says how much.
fn writes_log(assignment: &Assignment, plan: &mut RunPlan) -> Option<Entry> {
    let (job, epoch, stream) = (assignment.job.id, assignment.job.epoch, Stream::Stdout);
    let News::Ended(finish) = &mut plan.news else { return None };
    let turn = job.as_bytes()[15];
    if !turn.is_multiple_of(4) {
        return None;
    }
    let bytes = format!("epoch {epoch} of job {job}\n").into_bytes();
    let all = bytes.len() as u64;
    let dropped = all.min(u64::from(turn) / 4);
    let logs = vec![LogEnd { stream, kept: all - dropped, dropped, crc32: 0 }];
    finish.manifest = Some(Arc::new(Manifest { logs, artifacts: Vec::new() }));
    Some(Entry::LogWritten { log: LogSeen { job, epoch, stream }, bytes })
}
