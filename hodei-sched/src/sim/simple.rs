//! The agent model that comes with the simulator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hodei_core::gateway::{
    Assignment, Desired, News, Offer, Report, RunningJob, SessionState, Stop, StopCause,
};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Name, Timestamp};

use super::agent::{Action, AgentModel};

/// The least that an agent must do: run each epoch once, stop what it is told to stop, say what ended until that is
/// durable, end what it runs when it hears nothing of its node for too long, and begin nothing that came too late, nor
/// with another answer than one to its last call. It tells of every start at once and forgets no epoch.
#[derive(Debug)]
pub struct SimpleAgent {
    worker: Name,
    incarnation: u64,
    offer: Arc<Offer>,
    seq: u64,
    seen: u64,
    running: BTreeMap<JobId, Epoch>,
    /// What it runs, what is ending under an older epoch too, and what it says of that.
    room: BTreeMap<(JobId, Epoch), RunningJob>,
    asked: Option<u64>,
    /// The highest epoch seen of each job.
    epochs: BTreeMap<JobId, Epoch>,
    reports: VecDeque<Report>,
    next_report: u64,
    received: u64,
    now: Timestamp,
    /// When each call was made that may still be answered.
    calls: BTreeMap<u64, Timestamp>,
    alone_until: Option<Timestamp>,
    /// What it ended because it heard nothing.
    given_up: BTreeMap<JobId, Epoch>,
}

impl SimpleAgent {
    fn assigned(&mut self, assignment: Assignment, holds: bool, actions: &mut Vec<Action>) {
        let (job, epoch) = (assignment.job.id, assignment.job.epoch);
        if self.epochs.get(&job).is_some_and(|highest| *highest >= epoch) {
            return;
        }
        self.epochs.insert(job, epoch);
        if let Some(older) = self.running.remove(&job) {
            actions.push(Action::Stop(Stop { job, epoch: older, why: StopCause::LeaseLost }));
        }
        if !holds || self.room.len() >= self.offer.slots as usize {
            return self.report(job, epoch, News::Returned);
        }
        self.running.insert(job, epoch);
        self.room.insert((job, epoch), RunningJob::of(&assignment));
        self.report(job, epoch, News::Started);
        actions.push(Action::Start(assignment));
    }

    fn report(&mut self, job: JobId, epoch: Epoch, news: News) {
        self.reports.push_back(Report { number: self.next_report, job, epoch, news });
        self.next_report += 1;
    }
}

impl AgentModel for SimpleAgent {
    fn new(worker: Name, incarnation: u64, offer: Arc<Offer>) -> Self {
        Self {
            worker,
            incarnation,
            offer,
            seq: 0,
            seen: 0,
            running: BTreeMap::new(),
            room: BTreeMap::new(),
            asked: None,
            epochs: BTreeMap::new(),
            reports: VecDeque::new(),
            next_report: 1,
            received: 0,
            now: Timestamp::EPOCH,
            calls: BTreeMap::new(),
            alone_until: None,
            given_up: BTreeMap::new(),
        }
    }

    fn desired(&mut self, desired: Desired, now: Timestamp) -> Vec<Action> {
        self.now = now;
        if desired.number <= self.seen || self.asked != Some(desired.answers) {
            return Vec::new();
        }
        self.asked = None;
        self.seen = desired.number;
        self.calls = self.calls.split_off(&desired.answers);
        let until = self
            .calls
            .get(&desired.answers)
            .zip(desired.alone)
            .map(|(made, alone)| made.saturating_add(alone));
        self.alone_until = self.alone_until.max(until);
        // Else somebody else may have by now what it brings.
        let holds = desired.alone.is_none() || until.is_some_and(|until| until > now);
        self.received = desired.received;
        while self.reports.front().is_some_and(|report| report.number <= desired.acked) {
            self.reports.pop_front();
        }
        let mut actions = Vec::new();
        for assignment in desired.assign {
            let (job, epoch) = (assignment.job.id, assignment.job.epoch);
            let stays = !desired.stop.iter().any(|stop| (stop.job, stop.epoch) == (job, epoch));
            self.assigned(assignment, holds && stays, &mut actions);
        }
        let runs = |stop: &Stop| self.running.get(&stop.job) == Some(&stop.epoch);
        actions.extend(desired.stop.into_iter().filter(runs).map(Action::Stop));
        actions
    }

    fn ended(&mut self, job: JobId, epoch: Epoch, news: News) {
        self.room.remove(&(job, epoch));
        if self.running.get(&job) == Some(&epoch) {
            self.running.remove(&job);
            let given_up = self.given_up.remove(&job) == Some(epoch);
            self.report(job, epoch, if given_up { News::Returned } else { news });
        }
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        self.now = now;
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.alone_until = None;
        self.given_up.clone_from(&self.running);
        let stop = |(job, epoch): (&JobId, &Epoch)| {
            Action::Stop(Stop { job: *job, epoch: *epoch, why: StopCause::LeaseLost })
        };
        self.running.iter().map(stop).collect()
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.alone_until.filter(|_| !self.running.is_empty())
    }

    fn state(&mut self) -> SessionState {
        self.seq += 1;
        self.calls.insert(self.seq, self.now);
        self.asked = Some(self.seq);
        let unsaid = self.reports.partition_point(|report| report.number <= self.received);
        SessionState {
            worker: self.worker.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            seen: self.seen,
            offer: Arc::clone(&self.offer),
            running: self.room.values().cloned().collect(),
            reports: self.reports.iter().skip(unsaid).cloned().collect(),
            draining: false,
        }
    }

    fn reconnect(&mut self) {
        self.received = self.reports.front().map_or(self.received, |first| first.number - 1);
    }
}
