//! The agent's side of the session with its node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{
    Assignment, Desired, News, Offer, Report, RunningJob, SessionState, Stop, StopCause,
};
use hodei_core::job::{Epoch, Outcome};
use hodei_core::map::JobMap;
use hodei_core::{JobId, Name, Timestamp};

/// How many jobs' highest epochs are remembered, so that a repeated assignment is told apart.
const REMEMBERED: usize = 65_536;
/// How many calls that are not answered yet are remembered with the time when they were made.
const CALLS_REMEMBERED: usize = 64;
/// A run that lasts longer than this is reported as started; a shorter one only as ended.
const STARTED_AFTER: Duration = Duration::from_millis(10);

/// What the driver is to do.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Begin a run.
    Start(Assignment),
    /// End a run.
    Stop(Stop),
}

/// Slots held, epochs seen, reports not acknowledged.
///
/// Its driver tells it what happened and carries out what [`Machine::desired`] and [`Machine::tick`] return;
/// [`Machine::state`] is what it says to its node next. Calling [`Machine::tick`] too often does no harm.
///
/// An agent that hears nothing of its node for as long as that said ([`Desired::alone`]) ends what it runs, for somebody else
/// may be about to run it, and gives it back with the next call that gets through. What an answer brings that was on its way
/// for that long it gives back at once.
///
/// It takes in one answer to the last call that it made, and no other. So whoever answers knows from the call all that runs
/// here, also where another node had the agent before, whose answers may still be on their way.
#[derive(Debug)]
pub struct Machine {
    worker: Name,
    incarnation: u64,
    seq: u64,
    seen: u64,
    offer: Arc<Offer>,
    running: JobMap<Held>,
    /// Runs that were stopped because their job came again under a higher epoch, and have not ended yet. Nothing more is said
    /// of them but that they take room.
    outdated: Vec<(JobId, Held)>,
    /// Runs in the order of their beginning that may have to be reported as started.
    young: VecDeque<(Timestamp, JobId, Epoch)>,
    reports: VecDeque<Report>,
    next_report: u64,
    received: u64,
    epochs: JobMap<Epoch>,
    remembered: VecDeque<JobId>,
    draining: bool,
    /// The call that is not answered yet.
    asked: Option<u64>,
    /// The time, as far as it was told; nothing is counted from a call that was made before.
    now: Timestamp,
    /// The calls that may still be answered, and when each was made.
    calls: VecDeque<(u64, Timestamp)>,
    /// When what runs is ended, unless the node answers before.
    alone_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Held {
    epoch: Epoch,
    /// Whether it was ended because nothing was heard of the node.
    fenced: bool,
    /// What the node is told of, with how far it is.
    given: Assignment,
    progress: Option<(u32, u32)>,
}

impl Machine {
    /// Begins a life of the agent; its incarnation is higher than every one before.
    #[must_use]
    pub fn new(worker: Name, incarnation: u64, offer: Arc<Offer>) -> Self {
        Self {
            worker,
            incarnation,
            seq: 0,
            seen: 0,
            offer,
            running: JobMap::default(),
            outdated: Vec::new(),
            young: VecDeque::new(),
            reports: VecDeque::new(),
            next_report: 1,
            received: 0,
            epochs: JobMap::default(),
            remembered: VecDeque::new(),
            draining: false,
            asked: None,
            now: Timestamp::EPOCH,
            calls: VecDeque::new(),
            alone_until: None,
        }
    }

    /// Takes in what the node wants, and returns what to do about it.
    pub fn desired(&mut self, desired: Desired, now: Timestamp) -> Vec<Effect> {
        self.now = self.now.max(now);
        if desired.number <= self.seen || self.asked != Some(desired.answers) {
            return Vec::new();
        }
        self.asked = None;
        self.seen = desired.number;
        let holds = self.answered(desired.answers, desired.alone);
        // A node that has received less than we knew has forgotten the session: the rest is said again.
        self.received = desired.received;
        while self.reports.front().is_some_and(|report| report.number <= desired.acked) {
            self.reports.pop_front();
        }
        let mut effects = Vec::new();
        let mut stops: Vec<(JobId, Epoch)> = desired.stop.iter().map(|stop| (stop.job, stop.epoch)).collect();
        stops.sort_unstable();
        for assignment in desired.assign {
            // What is to be stopped at once is not begun: somebody else may have it by now.
            let stays = stops.binary_search(&(assignment.job.id, assignment.job.epoch)).is_err();
            self.assigned(assignment, holds && stays, &mut effects);
        }
        for stop in desired.stop {
            if self.running.get(&stop.job).is_some_and(|held| held.epoch == stop.epoch) {
                effects.push(Effect::Stop(stop));
            }
        }
        effects
    }

    /// Notes how long the node lets the agent run on alone, counted from the call that it answered, and says whether that is
    /// still to come: what the node gave with an answer that was on its way for longer, somebody else may have by now.
    fn answered(&mut self, call: u64, alone: Option<Duration>) -> bool {
        while self.calls.front().is_some_and(|(seq, _)| *seq < call) {
            self.calls.pop_front();
        }
        let Some(alone) = alone else {
            self.alone_until = None;
            return true;
        };
        let made = self.calls.front().filter(|(seq, _)| *seq == call).map(|(_, made)| *made);
        let until = made.map(|made| made.saturating_add(alone));
        self.alone_until = self.alone_until.max(until);
        until.is_some_and(|until| until > self.now)
    }

    /// When what runs is ended, unless the node answers before; nothing while nothing runs that could be ended.
    #[must_use]
    pub fn fence_at(&self) -> Option<Timestamp> {
        self.alone_until.filter(|_| !self.running.is_empty())
    }

    fn assigned(&mut self, assignment: Assignment, holds: bool, effects: &mut Vec<Effect>) {
        let (job, epoch) = (assignment.job.id, assignment.job.epoch);
        if self.epochs.get(&job).is_some_and(|highest| *highest >= epoch) {
            // Said twice: it runs, or it ran and the report is on its way.
            return;
        }
        self.remember(job, epoch);
        if let Some(stale) = self.running.remove(&job) {
            // The lease was lost meanwhile, and came back to us under another epoch.
            effects.push(Effect::Stop(Stop { job, epoch: stale.epoch, why: StopCause::LeaseLost }));
            self.outdated.push((job, stale));
        }
        let slots_used = self.running.len() + self.outdated.len();
        if !holds || self.draining || slots_used >= self.offer.slots as usize {
            self.report(job, epoch, News::Returned);
            return;
        }
        let given = assignment.clone();
        self.running.insert(job, Held { epoch, fenced: false, given, progress: None });
        self.young.push_back((self.now, job, epoch));
        effects.push(Effect::Start(assignment));
    }

    fn remember(&mut self, job: JobId, epoch: Epoch) {
        if self.epochs.insert(job, epoch).is_none() {
            self.remembered.push_back(job);
        }
        // What runs is never forgotten; beside it there is always something that may be.
        for _ in 0..=self.running.len() {
            if self.remembered.len() <= REMEMBERED {
                return;
            }
            match self.remembered.pop_front() {
                Some(oldest) if self.running.contains_key(&oldest) => self.remembered.push_back(oldest),
                Some(oldest) => drop(self.epochs.remove(&oldest)),
                None => return,
            }
        }
    }

    /// Takes in how a run ended.
    pub fn ended(&mut self, job: JobId, epoch: Epoch, news: News) {
        self.outdated.retain(|(of, held)| *of != job || held.epoch != epoch);
        let Some(held) = self.running.get(&job).filter(|held| held.epoch == epoch) else { return };
        let own =
            held.fenced && !matches!(&news, News::Ended(finish) if finish.outcome == Outcome::Succeeded);
        self.running.remove(&job);
        // How it ended is our own doing: where nobody has taken it over yet, somebody is to run it.
        self.report(job, epoch, if own { News::Returned } else { news });
    }

    /// Takes in how far a run is.
    pub fn progress(&mut self, job: JobId, epoch: Epoch, done: u32, total: u32) {
        if let Some(held) = self.running.get_mut(&job).filter(|held| held.epoch == epoch) {
            held.progress = Some((done, total));
        }
    }

    /// Takes no more work.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Says whether nothing runs and everything that ended has been acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.outdated.is_empty() && self.reports.is_empty()
    }

    /// Notes the runs that have lasted long enough to be reported as started, and returns those to end because nothing was
    /// heard of the node for too long.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.young_grow_up();
        if self.fence_at().is_none_or(|at| at > self.now) {
            return Vec::new();
        }
        self.alone_until = None;
        let mut ended = Vec::new();
        for (job, held) in self.running.iter_mut().filter(|(_, held)| !held.fenced) {
            held.fenced = true;
            ended.push(Stop { job: *job, epoch: held.epoch, why: StopCause::LeaseLost });
        }
        ended.sort_unstable_by_key(|stop| stop.job);
        ended.into_iter().map(Effect::Stop).collect()
    }

    fn young_grow_up(&mut self) {
        let now = self.now;
        while let Some((at, job, epoch)) = self.young.front().copied() {
            let runs = self.running.get(&job).is_some_and(|held| held.epoch == epoch);
            if runs && at.saturating_add(STARTED_AFTER) > now {
                return;
            }
            self.young.pop_front();
            if runs {
                self.report(job, epoch, News::Started);
            }
        }
    }

    /// When to call [`Machine::tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let started = self.young.front().map(|(at, ..)| at.saturating_add(STARTED_AFTER));
        [started, self.fence_at()].into_iter().flatten().min()
    }

    /// The node does not know what it had received: everything that it has not made durable is said again.
    pub fn reconnect(&mut self) {
        self.received = self.reports.front().map_or(self.received, |first| first.number - 1);
    }

    /// What the next call says.
    pub fn state(&mut self) -> SessionState {
        self.seq += 1;
        if self.calls.len() == CALLS_REMEMBERED {
            self.calls.pop_front();
        }
        if self.now > Timestamp::EPOCH {
            self.calls.push_back((self.seq, self.now));
        }
        self.asked = Some(self.seq);
        let outdated = self.outdated.iter().map(|(_, held)| held);
        let told = |held: &Held| RunningJob { progress: held.progress, ..RunningJob::of(&held.given) };
        let running = self.running.values().chain(outdated).map(told);
        let unsaid = self.reports.partition_point(|report| report.number <= self.received);
        SessionState {
            worker: self.worker.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            seen: self.seen,
            offer: Arc::clone(&self.offer),
            running: running.collect(),
            reports: self.reports.iter().skip(unsaid).cloned().collect(),
            draining: self.draining,
        }
    }

    fn report(&mut self, job: JobId, epoch: Epoch, news: News) {
        self.reports.push_back(Report { number: self.next_report, job, epoch, news });
        self.next_report += 1;
    }
}

#[cfg(test)]
mod tests {
    use hodei_core::Tenant;
    use hodei_core::gateway::Peer;
    use hodei_core::job::{JobSpec, NewJob, Resources, Runs, rules};

    use super::*;

    fn machine(slots: u32) -> Machine {
        let offer = Offer {
            runs: vec![Runs::Command],
            capacity: Resources::none(),
            slots,
            labels: hodei_core::text::TextMap::default(),
        };
        Machine::new(Name::literal("w"), 1, Arc::new(offer))
    }

    fn assignment(ticket: u64, epoch: u64) -> Assignment {
        let mut new = NewJob::new(JobSpec::command(["true"]).build().unwrap());
        new.id = JobId::from_parts(ticket, Tenant::default().slot(), 0);
        let (mut job, _) = rules::admit(new, Timestamp::EPOCH);
        job.epoch = Epoch::from_number(epoch);
        Assignment { job: Arc::new(job), inputs: Arc::from([]), beside: None, memory: 0 }
    }

    /// Takes in an answer to a call that is made for it.
    fn answer(machine: &mut Machine, desired: Desired) -> Vec<Effect> {
        machine.seq += 1;
        let answers = machine.seq;
        machine.asked = Some(answers);
        machine.desired(Desired { answers, ..desired }, Timestamp::EPOCH)
    }

    fn assign(machine: &mut Machine, number: u64, ticket: u64, epoch: u64) -> usize {
        let desired = Desired { number, assign: vec![assignment(ticket, epoch)], ..Desired::default() };
        answer(machine, desired).len()
    }

    #[test]
    fn an_epoch_runs_once() {
        let mut machine = machine(8);
        assert_eq!(assign(&mut machine, 1, 1, 1), 1);
        assert_eq!(assign(&mut machine, 2, 1, 1), 0);
        let job = assignment(1, 1).job.id;
        machine.ended(job, Epoch::from_number(1), News::Returned);
        assert_eq!(assign(&mut machine, 3, 1, 1), 0);
        assert_eq!(assign(&mut machine, 4, 1, 2), 1);
    }

    #[test]
    fn reports_are_said_until_they_are_received_and_kept_until_they_are_acked() {
        let mut machine = machine(8);
        assign(&mut machine, 1, 1, 1);
        machine.ended(assignment(1, 1).job.id, Epoch::from_number(1), News::Returned);
        assert_eq!(machine.state().reports.len(), 1);
        assert_eq!(machine.state().reports.len(), 1);
        answer(&mut machine, Desired { number: 2, received: 1, ..Desired::default() });
        assert_eq!((machine.state().reports.len(), machine.is_idle()), (0, false));
        machine.reconnect();
        assert_eq!(machine.state().reports.len(), 1);
        answer(&mut machine, Desired { number: 3, received: 1, acked: 1, ..Desired::default() });
        assert!(machine.is_idle());
    }

    #[test]
    fn a_node_that_forgot_what_it_had_received_is_told_again() {
        let mut machine = machine(8);
        assign(&mut machine, 1, 1, 1);
        machine.ended(assignment(1, 1).job.id, Epoch::from_number(1), News::Returned);
        answer(&mut machine, Desired { number: 2, received: 1, ..Desired::default() });
        assert_eq!(machine.state().reports.len(), 0);
        answer(&mut machine, Desired { number: 3, received: 0, ..Desired::default() });
        assert_eq!(machine.state().reports.len(), 1);
    }

    #[test]
    fn a_run_is_stopped_when_its_job_comes_again_under_a_higher_epoch() {
        let mut machine = machine(2);
        assign(&mut machine, 1, 1, 1);
        let again = Desired { number: 2, assign: vec![assignment(1, 2)], ..Desired::default() };
        let effects = answer(&mut machine, again);
        let (job, epoch) = (assignment(1, 1).job.id, Epoch::from_number(1));
        let stop = Effect::Stop(Stop { job, epoch, why: StopCause::LeaseLost });
        assert_eq!(effects, [stop, Effect::Start(assignment(1, 2))]);
        assert_eq!(machine.state().running.len(), 2, "both take room");
        assert_eq!(assign(&mut machine, 3, 2, 1), 0, "there are two slots");
        answer(&mut machine, Desired { number: 4, received: 1, acked: 1, ..Desired::default() });
        machine.ended(job, epoch, News::Returned);
        assert_eq!(
            (machine.state().reports.len(), machine.state().running.len()),
            (0, 1),
            "its end is no news"
        );
    }

    #[test]
    fn what_an_answer_brings_that_was_too_long_on_its_way_is_not_begun() {
        let mut machine = machine(8);
        let _ = machine.tick(Timestamp::from_micros(1));
        let alone = Some(Duration::from_secs(5));
        let answer = |answers, ticket| Desired {
            number: ticket,
            assign: vec![assignment(ticket, 1)],
            answers,
            alone,
            ..Desired::default()
        };
        let call = machine.state().seq;
        let in_time = machine.desired(answer(call, 1), Timestamp::from_micros(5_000_000));
        assert_eq!(in_time, [Effect::Start(assignment(1, 1))]);
        let call = machine.state().seq;
        let late = machine.desired(answer(call, 2), Timestamp::from_micros(10_000_000));
        assert_eq!(late, []);
        let reports = machine.state().reports;
        let told: Vec<_> = reports.iter().map(|report| (report.job, &report.news)).collect();
        assert_eq!(told, [(assignment(2, 1).job.id, &News::Returned)]);
    }

    #[test]
    fn what_is_stopped_with_the_answer_that_brings_it_is_not_begun() {
        let mut machine = machine(8);
        let (job, epoch) = (assignment(1, 1).job.id, Epoch::from_number(1));
        let stop = Stop { job, epoch, why: StopCause::LeaseLost };
        let assign = vec![assignment(1, 1), assignment(2, 1)];
        let both = Desired { number: 1, assign, stop: vec![stop], ..Desired::default() };
        assert_eq!(answer(&mut machine, both), [Effect::Start(assignment(2, 1))]);
        let told: Vec<_> =
            machine.state().reports.into_iter().map(|report| (report.job, report.news)).collect();
        assert_eq!(told, [(job, News::Returned)]);
    }

    #[test]
    fn an_old_reply_changes_nothing() {
        let mut machine = machine(8);
        assign(&mut machine, 5, 1, 1);
        assert_eq!(assign(&mut machine, 5, 2, 1), 0);
        assert_eq!(assign(&mut machine, 4, 3, 1), 0);
        assert_eq!(machine.state().running.len(), 1);
    }

    #[test]
    fn one_answer_to_the_last_call_is_taken_in() {
        let mut machine = machine(8);
        let told = |number, answers| Desired {
            number,
            answers,
            assign: vec![assignment(number, 1)],
            ..Desired::default()
        };
        let (first, second) = (machine.state().seq, machine.state().seq);
        let mut begins = |number, call| machine.desired(told(number, call), Timestamp::EPOCH).len();
        assert_eq!(begins(9, first), 0, "another node may have been called since");
        assert_eq!(begins(1, second), 1);
        assert_eq!(begins(2, second), 0, "of another session, which cannot know of the first");
        let state = machine.state();
        assert_eq!((state.seen, state.running.len()), (1, 1));
    }

    #[test]
    fn what_runs_is_told_with_what_was_set_aside_for_it() {
        let mut machine = machine(8);
        let mut given = assignment(1, 1);
        let asks = Resources::none().cpu_millis(500).memory(1 << 20).custom(Name::literal("licence"), 1);
        let spec =
            JobSpec::command(["true"]).queue("mail").group("loud").resources(asks.clone()).build().unwrap();
        let place = spec.placement();
        Arc::make_mut(&mut given.job).spec = Arc::new(spec);
        given.memory = 1 << 21;
        let peer = Peer { worker: Name::literal("other"), labels: Default::default() };
        given.beside = Some([peer].into());
        answer(&mut machine, Desired { number: 1, assign: vec![given], ..Desired::default() });
        let told = &machine.state().running[0];
        assert_eq!(told.resources.of_worker(), asks.memory(1 << 21));
        assert_eq!((told.resources.placement(), told.queue.as_str()), (place, "mail"));
        assert_eq!(told.beside.as_ref().map(|beside| beside[0].worker.as_str()), Some("other"));
    }

    #[test]
    fn only_the_run_that_is_named_is_stopped() {
        let mut machine = machine(8);
        assign(&mut machine, 1, 1, 2);
        let stop = |epoch, why| Stop { job: assignment(1, 1).job.id, epoch: Epoch::from_number(epoch), why };
        let (stale, own) = (stop(1, StopCause::LeaseLost), stop(2, StopCause::Cancelled));
        let desired = Desired { number: 2, stop: vec![stale, own], ..Desired::default() };
        assert_eq!(answer(&mut machine, desired), [Effect::Stop(own)]);
    }

    #[test]
    fn progress_is_of_the_run_under_its_epoch() {
        let mut machine = machine(8);
        assign(&mut machine, 1, 1, 2);
        let job = assignment(1, 1).job.id;
        machine.progress(job, Epoch::from_number(1), 9, 9);
        assert_eq!(machine.state().running[0].progress, None);
        machine.progress(job, Epoch::from_number(2), 3, 7);
        assert_eq!(machine.state().running[0].progress, Some((3, 7)));
    }

    #[test]
    fn the_memory_of_epochs_is_bounded_and_keeps_what_runs() {
        let mut machine = machine(1);
        assign(&mut machine, 1, 0, 1);
        // One runs; the others find no slot, and are returned.
        let many = u64::try_from(REMEMBERED).unwrap() + 10;
        for n in 1..many {
            assign(&mut machine, n + 1, n, 1);
        }
        assert!(machine.epochs.len() <= REMEMBERED && machine.remembered.len() <= REMEMBERED);
        assert_eq!(assign(&mut machine, many + 1, 0, 1), 0, "it is known that it runs");
    }

    #[test]
    fn work_beyond_the_slots_and_while_draining_goes_back() {
        let mut machine = machine(1);
        assert_eq!((assign(&mut machine, 1, 1, 1), assign(&mut machine, 2, 2, 1)), (1, 0));
        machine.drain();
        assert_eq!(assign(&mut machine, 3, 3, 1), 0);
        let returned = machine.state().reports;
        assert!(returned.iter().all(|report| report.news == News::Returned) && returned.len() == 2);
    }

    #[test]
    fn only_a_long_run_is_reported_as_started() {
        let mut machine = machine(2);
        assign(&mut machine, 1, 1, 1);
        assign(&mut machine, 2, 2, 1);
        machine.ended(assignment(1, 1).job.id, Epoch::from_number(1), News::Returned);
        machine.tick(Timestamp::EPOCH.saturating_add(STARTED_AFTER));
        let started: Vec<_> =
            machine.state().reports.into_iter().filter(|report| report.news == News::Started).collect();
        assert_eq!(started.iter().map(|report| report.job).collect::<Vec<_>>(), [assignment(2, 1).job.id]);
        assert_eq!(machine.poll_timeout(), None);
    }
}
