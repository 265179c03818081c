//! The agent model that comes with the simulator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hodei_core::gateway::{Assignment, Desired, News, Offer, Report, RunningJob, SessionState};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Name, Timestamp};

use super::agent::{Action, AgentModel};

/// The least that an agent must do: run each epoch once, stop what it is told to stop, and say what ended until that
/// is durable. It tells of every start at once and forgets no epoch.
#[derive(Debug)]
pub struct SimpleAgent {
    worker: Name,
    incarnation: u64,
    offer: Arc<Offer>,
    seq: u64,
    seen: u64,
    running: BTreeMap<JobId, Epoch>,
    /// The highest epoch seen of each job.
    epochs: BTreeMap<JobId, Epoch>,
    reports: VecDeque<Report>,
    next_report: u64,
    received: u64,
}

impl SimpleAgent {
    fn assigned(&mut self, assignment: Assignment, actions: &mut Vec<Action>) {
        let (job, epoch) = (assignment.job.id, assignment.job.epoch);
        if self.epochs.get(&job).is_some_and(|highest| *highest >= epoch) {
            return;
        }
        self.epochs.insert(job, epoch);
        if let Some(older) = self.running.remove(&job) {
            let why = hodei_core::gateway::StopCause::LeaseLost;
            actions.push(Action::Stop(hodei_core::gateway::Stop { job, epoch: older, why }));
        }
        if self.running.len() >= self.offer.slots as usize {
            return self.report(job, epoch, News::Returned);
        }
        self.running.insert(job, epoch);
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
            epochs: BTreeMap::new(),
            reports: VecDeque::new(),
            next_report: 1,
            received: 0,
        }
    }

    fn desired(&mut self, desired: Desired, _: Timestamp) -> Vec<Action> {
        if desired.number <= self.seen {
            return Vec::new();
        }
        self.seen = desired.number;
        self.received = desired.received;
        while self.reports.front().is_some_and(|report| report.number <= desired.acked) {
            self.reports.pop_front();
        }
        let mut actions = Vec::new();
        desired.assign.into_iter().for_each(|assignment| self.assigned(assignment, &mut actions));
        let runs = |stop: &hodei_core::gateway::Stop| self.running.get(&stop.job) == Some(&stop.epoch);
        actions.extend(desired.stop.into_iter().filter(runs).map(Action::Stop));
        actions
    }

    fn ended(&mut self, job: JobId, epoch: Epoch, news: News) {
        if self.running.get(&job) == Some(&epoch) {
            self.running.remove(&job);
            self.report(job, epoch, news);
        }
    }

    fn tick(&mut self, _: Timestamp) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    fn state(&mut self) -> SessionState {
        self.seq += 1;
        let running = self.running.iter();
        let unsaid = self.reports.partition_point(|report| report.number <= self.received);
        SessionState {
            worker: self.worker.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            seen: self.seen,
            offer: Arc::clone(&self.offer),
            running: running
                .map(|(job, epoch)| RunningJob { job: *job, epoch: *epoch, progress: None })
                .collect(),
            reports: self.reports.iter().skip(unsaid).cloned().collect(),
            draining: false,
        }
    }

    fn reconnect(&mut self) {
        self.received = self.reports.front().map_or(self.received, |first| first.number - 1);
    }
}
