//! The scheduler's dealings with agents: their calls, what they are given, and how they are lost.

use std::sync::Arc;

use hodei_core::gateway::{Report, SessionState, StopCause};
use hodei_core::job::{Epoch, Job};
use hodei_core::store::{Move, Transition};
use hodei_core::{ErrorKind, JobId, Name, Timestamp};

use super::preempt;
use super::scheduler::{Effect, Outgoing, Scheduler, Store, Ticket};
use super::session::{Assigned, Session};
use super::verdict::verdict;

impl Scheduler {
    pub(super) fn synced(&mut self, state: SessionState, ticket: Ticket, now: Timestamp) {
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
            let worker = self.fleet.join(&state.offer, worker_key(&state.worker));
            self.names.insert(worker, state.worker.clone());
            Session::new(state.incarnation, Arc::clone(&state.offer), worker, state.seen, now)
        });
        if state.seq <= session.seq {
            // Overtaken on the way: the later call has said more.
            return self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Cancelled)));
        }
        session.seq = state.seq;
        session.last_sync = now;
        let leaves = state.draining && !session.draining;
        if session.draining != state.draining {
            self.fleet.set_draining(session.worker, state.draining);
        }
        session.draining = state.draining;
        if let Some(old) = session.waiter.replace(ticket) {
            self.effects.push_back(Effect::Reply(old, Err(ErrorKind::Cancelled)));
        }
        session.confirm(state.seen);
        let mut unknown: Vec<(JobId, Epoch)> = state
            .running
            .iter()
            .filter(|running| {
                session.assigned.get(&running.job).is_none_or(|assigned| assigned.job.epoch != running.epoch)
            })
            .map(|running| (running.job, running.epoch))
            .collect();
        unknown.sort_unstable();
        session.disown(unknown);
        for report in state.reports {
            self.report(&state.worker, report);
        }
        if let Some(session) = self.sessions.get_mut(&state.worker) {
            session.miss(&state.running);
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
                // The lease of what was borrowed moves to us with this.
                .map(|_| Move::Started {
                    lease: self.borrowed.remove(&report.job).map(|_| self.owner.clone()),
                })
        } else {
            session.release(report.job, report.epoch, &mut self.fleet).and_then(|assigned| {
                let told = (assigned.stop != Some(StopCause::LeaseLost))
                    .then(|| verdict(&assigned.job, report.news));
                if assigned.preempted { told.map(preempt::ended) } else { told }
            })
        };
        if !started {
            self.borrowed.remove(&report.job);
        }
        let Some(step) = step else { return };
        session.expect(report.number);
        let incarnation = session.incarnation;
        self.ended_lately += u32::from(!started);
        self.outgoing.push_back(Outgoing {
            transition: Transition { job: report.job, epoch: report.epoch, step },
            report: Some((worker.clone(), incarnation, report.number)),
            refused: 0,
        });
    }

    pub(super) fn cancelled(&mut self, jobs: &[JobId]) {
        if self.awaits_loan || self.leases_unknown || matches!(self.store, Store::Exchange | Store::Leases) {
            self.unwanted.extend(jobs);
        }
        for job in jobs {
            // Nobody was told of it: the store has cancelled it under us, or will when we give it back.
            let mut untold = self.unbuffer(*job);
            for session in self.sessions.values_mut() {
                match session.withdraw(*job, &mut self.fleet) {
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
    pub(super) fn shed(&mut self) {
        let fleet = &self.fleet;
        for waiting in self.buffer.shed(|class| fleet.is_able(class)) {
            self.fleet.discount(waiting.class);
            self.give_back(&waiting.claimed.job);
        }
    }

    /// Takes a job that waits for a session.
    fn unbuffer(&mut self, job: JobId) -> Option<Arc<Job>> {
        let waiting = self.buffer.remove(job)?;
        self.fleet.discount(waiting.class);
        Some(waiting.claimed.job)
    }

    /// Takes all jobs that wait for a session.
    pub(super) fn empty_buffer(&mut self) -> Vec<Arc<Job>> {
        let all = self.buffer.drain();
        all.iter().for_each(|waiting| self.fleet.discount(waiting.class));
        self.fleet.unhold();
        all.into_iter().map(|waiting| waiting.claimed.job).collect()
    }

    pub(super) fn give_back(&mut self, job: &Job) {
        self.borrowed.remove(&job.id);
        let transition = Transition { job: job.id, epoch: job.epoch, step: Move::Returned };
        self.outgoing.push_back(Outgoing { transition, report: None, refused: 0 });
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        let mut untold = self.empty_buffer();
        for session in self.sessions.values_mut() {
            let jobs = session.jobs().into_iter();
            let fleet = &mut self.fleet;
            untold.extend(jobs.filter_map(|job| session.withdraw(job, fleet)).map(|assigned| assigned.job));
        }
        untold.iter().for_each(|job| self.give_back(job));
    }

    /// Hands what is claimed to sessions, in order, to the workers that the balancer chooses.
    pub(super) fn assign(&mut self) {
        if self.buffer.is_empty() || self.sessions.is_empty() {
            return;
        }
        let (fleet, buffer) = (&mut self.fleet, &mut self.buffer);
        if fleet.held().is_some_and(|(class, _)| !buffer.waits(class)) {
            fleet.unhold();
        }
        let mut refused = None;
        loop {
            buffer.let_go(|class, level| fleet.may_have_room(class, level));
            let held = fleet.held();
            while let Some(asked) = buffer.next() {
                let Some(worker) = fleet.place(asked, &mut *self.config.balancer) else {
                    refused.get_or_insert(asked);
                    buffer.hold(asked.class);
                    if self.config.backfill {
                        fleet.hold(asked.class, asked.level);
                    }
                    continue;
                };
                let session = self.names.get(&worker).and_then(|name| self.sessions.get_mut(name));
                if let Some((session, waiting)) = session.zip(buffer.pop()) {
                    session.assign(waiting.claimed, waiting.class, fleet);
                }
            }
            // Where a worker is not kept any more there may be room for others.
            if held.is_none() || fleet.held() == held {
                break;
            }
        }
        if let Some(asked) = refused {
            self.preempt(asked);
        }
    }

    /// Answers the calls of sessions for which there is news.
    pub(super) fn reply(&mut self) {
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
    pub(super) fn expire_waiters(&mut self, now: Timestamp) {
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

    pub(super) fn expire_sessions(&mut self, now: Timestamp) {
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
    pub(super) fn end_session(&mut self, name: &Name, told: &Move) {
        let Some(session) = self.sessions.remove(name) else { return };
        self.fleet.leave(session.worker);
        self.names.remove(&session.worker);
        if let Some(ticket) = session.waiter {
            self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Conflict)));
        }
        let mut lost: Vec<Assigned> = session.assigned.into_values().collect();
        lost.sort_unstable_by_key(|assigned| assigned.job.id);
        for assigned in lost {
            self.fleet.discount(assigned.class);
            self.borrowed.remove(&assigned.job.id);
            let step = if assigned.told { told.clone() } else { Move::Returned };
            let transition = Transition { job: assigned.job.id, epoch: assigned.job.epoch, step };
            self.outgoing.push_back(Outgoing { transition, report: None, refused: 0 });
        }
        self.shed();
    }
}

/// A number of a worker that is the same whenever it comes (FNV-1a).
pub(crate) fn worker_key(name: &Name) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, add)
}
