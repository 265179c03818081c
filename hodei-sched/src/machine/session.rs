//! What the machine knows of a connected agent.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Assignment, Desired, Offer, Peer, RunningJob, Stop, StopCause};
use hodei_core::job::{Epoch, Job};
use hodei_core::map::{IdState, JobMap};
use hodei_core::store::{Claimed, Input};
use hodei_core::{JobId, Timestamp};

use super::placement::{Fleet, WorkerId};
use super::scheduler::Ticket;
use crate::queue::ClassId;

/// A job that a session has.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) job: Arc<Job>,
    pub(super) inputs: Arc<[Input]>,
    /// What was set aside for it, and since when.
    pub(super) class: ClassId,
    pub(super) since: Timestamp,
    /// The memory of it, in bytes.
    pub(super) memory: u64,
    /// Whether a reply has named the job: from then on the agent may run it, whether or not it says so.
    pub(super) told: bool,
    /// What the agent was told to stop it for.
    pub(super) stop: Option<StopCause>,
    /// Whether it was told to stop in favour of a more urgent job, or because one of its workers was lost.
    pub(super) preempted: bool,
    /// Where else it has room, of a gang.
    pub(super) gang: Option<Box<Gang>>,
}

/// The workers beside its own on which a job has room.
#[derive(Debug)]
pub(super) struct Gang {
    pub(super) others: Vec<WorkerId>,
    /// What the agent is told of them.
    pub(super) beside: Arc<[Peer]>,
}

impl Assigned {
    /// Frees what was set aside for it on others than its own worker.
    pub(super) fn leave_others(&mut self, fleet: &mut Fleet) {
        for worker in self.gang.take().map(|gang| gang.others).unwrap_or_default() {
            fleet.release(worker, self.class);
        }
    }
}

/// A connected agent, in one of its lives.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) incarnation: u64,
    pub(super) seq: u64,
    pub(super) offer: Arc<Offer>,
    pub(super) draining: bool,
    pub(super) last_sync: Timestamp,
    /// The call that waits for news, and since when one does: it may have taken the place of another.
    pub(super) waiter: Option<Ticket>,
    pub(super) waits_since: Timestamp,
    /// Reports up to this number have arrived.
    pub(super) received: u64,
    pub(super) assigned: JobMap<Assigned>,
    /// The worker in the fleet.
    pub(super) worker: WorkerId,
    /// Assigned and not said yet.
    unsent: Vec<JobId>,
    /// Said in a reply that the agent has not confirmed.
    unseen: VecDeque<(u64, Vec<JobId>)>,
    /// Said in a reply that the agent has confirmed just now.
    confirmed: Vec<JobId>,
    /// What it is to stop, until it runs that no more: its own, and what it runs and has no lease for. Each reply names all
    /// of it: whichever the agent takes in, it runs nothing on that it should not.
    stops: BTreeMap<(JobId, Epoch), StopCause>,
    /// Whether there is one that was not said yet, or was said in a reply that was lost.
    stops_unsaid: bool,
    /// Reports whose transitions are not durable, in order.
    outstanding: VecDeque<u64>,
    told_acked: u64,
    /// The number of the last reply, and whether the agent calls again without having taken it in.
    number: u64,
    lost: bool,
    /// Whether it was given out to be changed since calls were answered.
    pub(super) touched: bool,
    /// Before when nothing is due of it, as is noted of all sessions in order.
    pub(super) due: Option<Timestamp>,
}

impl Session {
    /// Begins with an agent that has taken in the replies up to `seen`, of whatever node: the next one is a later one.
    pub(super) fn new(
        incarnation: u64,
        offer: Arc<Offer>,
        worker: WorkerId,
        seen: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            incarnation,
            seq: 0,
            offer,
            worker,
            draining: false,
            last_sync: now,
            waiter: None,
            waits_since: now,
            received: 0,
            assigned: JobMap::default(),
            unsent: Vec::new(),
            unseen: VecDeque::new(),
            confirmed: Vec::new(),
            stops: BTreeMap::new(),
            stops_unsaid: false,
            outstanding: VecDeque::new(),
            told_acked: 0,
            number: seen,
            lost: false,
            touched: false,
            due: None,
        }
    }

    /// When its call has waited long enough, or it has been silent too long.
    pub(super) fn is_due(&self, next_sync: Duration, ttl: Duration) -> Timestamp {
        match self.waiter {
            Some(_) => self.waits_since.saturating_add(next_sync),
            None => self.last_sync.saturating_add(ttl),
        }
    }

    /// The jobs that it has, by id: what is decided over them does not depend on how they are kept.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        let mut jobs: Vec<JobId> = self.assigned.keys().copied().collect();
        jobs.sort_unstable();
        jobs
    }

    /// Notes a job for the next reply. Room has been set aside for it.
    pub(super) fn assign(&mut self, claimed: Claimed, class: ClassId, since: Timestamp, fleet: &mut Fleet) {
        let Claimed { job, inputs } = claimed;
        // The agent stops a run of an older epoch by itself, and reports nothing of it.
        if let Some(older) = self.assigned.get(&job.id).map(|assigned| assigned.job.epoch) {
            self.strays(job.id, older, fleet);
            // It may be noted already: for the first time, or to be said again.
            self.unsent.retain(|unsent| *unsent != job.id);
        }
        self.unsent.push(job.id);
        // It has a lease for that run again.
        self.stops.remove(&(job.id, job.epoch));
        fleet.keep_strays(self.worker, |run| *run != (job.id, job.epoch));
        let memory = fleet.memory(class);
        let (told, preempted) = (false, false);
        fleet.runs(self.worker, job.spec.priority());
        self.assigned.insert(
            job.id,
            Assigned { job, inputs, class, since, memory, told, stop: None, preempted, gang: None },
        );
    }

    /// Notes where else room has been set aside for a job that was assigned just now.
    pub(super) fn join(&mut self, job: JobId, gang: Gang) {
        if let Some(assigned) = self.assigned.get_mut(&job) {
            assigned.gang = Some(Box::new(gang));
        }
    }

    /// Has a job give up a worker that is gone, and stops it: it comes back at no cost.
    pub(super) fn lacks(&mut self, job: JobId, gone: WorkerId) -> bool {
        let Some(assigned) = self.assigned.get_mut(&job) else { return false };
        let Some(gang) = &mut assigned.gang else { return false };
        let before = gang.others.len();
        gang.others.retain(|worker| *worker != gone);
        if gang.others.len() == before {
            return false;
        }
        if assigned.stop.is_none() {
            self.stop(job, StopCause::Cancelled);
            if let Some(assigned) = self.assigned.get_mut(&job) {
                assigned.preempted = true;
            }
        }
        true
    }

    /// Ends an assignment and frees what had been set aside, unless it is of another epoch.
    pub(super) fn release(&mut self, job: JobId, epoch: Epoch, fleet: &mut Fleet) -> Option<Assigned> {
        if self.assigned.get(&job)?.job.epoch != epoch {
            return None;
        }
        let mut assigned = self.assigned.remove(&job)?;
        self.stops.remove(&(job, epoch));
        fleet.release(self.worker, assigned.class);
        fleet.runs_no_more(self.worker, assigned.job.spec.priority());
        assigned.leave_others(fleet);
        fleet.discount(assigned.class);
        Some(assigned)
    }

    /// Ends an assignment whose job comes again: until the run has ended that the agent was told of, that takes its room, of a
    /// gang on all of its workers.
    fn strays(&mut self, job: JobId, epoch: Epoch, fleet: &mut Fleet) {
        let gang = self.assigned.get(&job).and_then(|assigned| assigned.gang.as_ref());
        let others = gang.map_or_else(Vec::new, |gang| gang.others.clone());
        if let Some(older) = self.release(job, epoch, fleet).filter(|older| older.told) {
            fleet.strays(self.worker, (job, epoch), &older.job.tenant, older.class, &others);
        }
    }

    /// Takes an assignment back of which the agent has not been told.
    pub(super) fn withdraw(&mut self, job: JobId, fleet: &mut Fleet) -> Option<Assigned> {
        let assigned = self.assigned.get(&job).filter(|assigned| !assigned.told)?;
        let epoch = assigned.job.epoch;
        self.unsent.retain(|unsent| *unsent != job);
        self.release(job, epoch, fleet)
    }

    /// Tells the agent to stop a run whose lease was lost; one of a later epoch goes on.
    pub(super) fn stop_run(&mut self, job: JobId, epoch: Epoch) {
        if self.assigned.get(&job).is_some_and(|assigned| assigned.job.epoch == epoch) {
            self.stop(job, StopCause::LeaseLost);
        }
    }

    /// Tells the agent to stop a job.
    pub(super) fn stop(&mut self, job: JobId, why: StopCause) {
        let Some(assigned) = self.assigned.get_mut(&job) else { return };
        let told = assigned.stop.is_some_and(|told| told == why || told == StopCause::LeaseLost);
        if told {
            // Somebody cancels what was only to make room: that is its end.
            assigned.preempted = false;
            return;
        }
        assigned.stop = Some(why);
        // Whoever is stopped for good makes room for nobody: he has his own end.
        assigned.preempted = false;
        self.stops.insert((job, assigned.job.epoch), why);
        self.stops_unsaid = true;
    }

    /// Tells the agent to stop what it runs and has no lease for, in order.
    pub(super) fn disown(&mut self, unknown: &[(JobId, Epoch)]) {
        let assigned = &self.assigned;
        let ours = |job: &JobId, epoch: Epoch| assigned.get(job).is_some_and(|held| held.job.epoch == epoch);
        self.stops.retain(|run, _| ours(&run.0, run.1) || unknown.binary_search(run).is_ok());
        for run in unknown {
            self.stops_unsaid |= self.stops.insert(*run, StopCause::LeaseLost).is_none();
        }
    }

    /// Takes in which replies the agent has seen; what an unseen one said is said again.
    ///
    /// It may have seen more than were sent from here: those of another node, or of this one before it forgot the
    /// session. Then it has seen none of these, and takes in only what has a higher number.
    pub(super) fn confirm(&mut self, seen: u64) {
        let elsewhere = seen > self.number;
        self.number = self.number.max(seen);
        self.lost = self.number > seen;
        while let Some((number, jobs)) = self.unseen.pop_front() {
            if elsewhere || number > seen {
                self.say_again(jobs);
                self.stops_unsaid = true;
            } else {
                self.confirmed.extend(jobs);
            }
        }
    }

    /// Says again what the agent should have taken in and neither runs nor has reported: another reply had that number.
    /// To be called when its reports have been taken in.
    pub(super) fn miss(&mut self, running: &[RunningJob]) {
        let epoch = |job: &JobId| self.assigned.get(job).map(|assigned| assigned.job.epoch);
        let held: Vec<(JobId, Epoch)> =
            self.confirmed.drain(..).filter_map(|job| Some((job, epoch(&job)?))).collect();
        if held.is_empty() {
            return;
        }
        let mut running: Vec<(JobId, Epoch)> = running.iter().map(|run| (run.job, run.epoch)).collect();
        running.sort_unstable();
        let missing = held.into_iter().filter(|job| running.binary_search(job).is_err());
        self.say_again(missing.map(|(job, _)| job).collect());
    }

    /// Notes jobs for the next reply that others have named, those that are still its own, and each once.
    fn say_again(&mut self, jobs: Vec<JobId>) {
        let mut noted: HashSet<JobId, IdState> = self.unsent.iter().copied().collect();
        let ours = jobs.into_iter().filter(|job| self.assigned.contains_key(job));
        self.unsent.extend(ours.filter(|job| noted.insert(*job)));
    }

    /// Notes a report whose transition is on its way to the store.
    pub(super) fn expect(&mut self, report: u64) {
        self.outstanding.push_back(report);
    }

    /// Notes that the transition of a report is durable.
    pub(super) fn settled(&mut self, report: u64) {
        // Later ones may be durable before earlier ones; most come in order, and that one is in front.
        if self.outstanding.front() == Some(&report) {
            self.outstanding.pop_front();
        } else if let Ok(at) = self.outstanding.binary_search(&report) {
            self.outstanding.remove(at);
        }
    }

    /// Reports up to this number are durable.
    fn acked(&self) -> u64 {
        self.outstanding.front().map_or(self.received, |first| first - 1)
    }

    /// Whether a reply would tell the agent something: if nothing else, that its node is there, when it has lost the reply
    /// that said so and would wait for the next as long again.
    pub(super) fn has_news(&self, fleet: &Fleet) -> bool {
        let assigns =
            !fleet.is_crowded(self.worker) && self.unsent.iter().any(|job| self.may_begin(*job, fleet));
        self.lost || assigns || self.has_unsaid_stops() || self.acked() > self.told_acked
    }

    /// Whether none of the other workers of a gang has more to run than there is room for. A gang has room on all of its workers
    /// or does not begin.
    fn may_begin(&self, job: JobId, fleet: &Fleet) -> bool {
        let gang = self.assigned.get(&job).and_then(|assigned| assigned.gang.as_ref());
        gang.is_none_or(|gang| !gang.others.iter().any(|other| fleet.is_crowded(*other)))
    }

    /// Takes what may begin of what is assigned and not said. While the agent runs more than there is room for, that is nothing.
    fn take_unsent(&mut self, fleet: &Fleet) -> Vec<JobId> {
        if fleet.is_crowded(self.worker) {
            return Vec::new();
        }
        let unsent = std::mem::take(&mut self.unsent);
        let (begins, waits) = unsent.into_iter().partition(|job| self.may_begin(*job, fleet));
        self.unsent = waits;
        begins
    }

    /// Whether there is something to stop of which the agent was not told.
    fn has_unsaid_stops(&self) -> bool {
        self.stops_unsaid && !self.stops.is_empty()
    }

    /// Whether the agent runs nothing, and has heard that all it reported is durable.
    pub(super) fn is_done(&self, fleet: &Fleet) -> bool {
        let runs_nothing = self.assigned.is_empty() && self.stops.is_empty();
        runs_nothing && self.outstanding.is_empty() && !self.has_news(fleet)
    }

    /// Says everything that the agent should know now.
    pub(super) fn desired(&mut self, next_sync: Duration, alone: Duration, fleet: &Fleet) -> Desired {
        self.number += 1;
        let jobs = self.take_unsent(fleet);
        let mut assign = Vec::with_capacity(jobs.len());
        for job in &jobs {
            if let Some(assigned) = self.assigned.get_mut(job) {
                assigned.told = true;
                let inputs = Arc::clone(&assigned.inputs);
                let beside = assigned.gang.as_ref().map(|gang| Arc::clone(&gang.beside));
                let (job, memory) = (Arc::clone(&assigned.job), assigned.memory);
                assign.push(Assignment { job, inputs, beside, memory });
            }
        }
        let stops = self.stops.iter().map(|((job, epoch), why)| Stop { job: *job, epoch: *epoch, why: *why });
        let stop: Vec<Stop> = stops.collect();
        self.stops_unsaid = false;
        if !jobs.is_empty() || !stop.is_empty() {
            self.unseen.push_back((self.number, jobs));
        }
        self.lost = false;
        self.told_acked = self.acked();
        Desired {
            number: self.number,
            assign,
            stop,
            received: self.received,
            acked: self.told_acked,
            next_sync,
            answers: self.seq,
            alone: Some(alone),
        }
    }
}
