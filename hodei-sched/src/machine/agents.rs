//! The scheduler's dealings with agents: their calls, what they are given, and how they are lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use hodei_core::gateway::{Report, SessionState, StopCause};
use hodei_core::job::{Epoch, Job};
use hodei_core::store::{Move, Transition};
use hodei_core::{ErrorKind, JobId, Name, Timestamp};

use super::picks::Room;
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
            Session::new(state.incarnation, Arc::clone(&state.offer), state.seen, now)
        });
        if state.seq <= session.seq {
            // Overtaken on the way: the later call has said more.
            return self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Cancelled)));
        }
        session.seq = state.seq;
        session.last_sync = now;
        let leaves = state.draining && !session.draining;
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
                .map(|_| Move::Started { lease: None })
        } else {
            session.release(report.job, report.epoch).and_then(|assigned| {
                (assigned.stop != Some(StopCause::LeaseLost)).then(|| verdict(&assigned.job, report.news))
            })
        };
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
        if self.leases_unknown || matches!(self.store, Store::Exchange | Store::Leases) {
            self.unwanted.extend(jobs);
        }
        for job in jobs {
            // Nobody was told of it: the store has cancelled it under us, or will when we give it back.
            let mut untold = self.buffer.remove(*job).map(|claimed| claimed.job);
            for session in self.sessions.values_mut() {
                match session.withdraw(*job) {
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
        let sessions = &self.sessions;
        let shed = self.buffer.shed(|request| sessions.values().any(|session| session.could_run(request)));
        shed.iter().for_each(|claimed| self.give_back(&claimed.job));
    }

    pub(super) fn give_back(&mut self, job: &Job) {
        let transition = Transition { job: job.id, epoch: job.epoch, step: Move::Returned };
        self.outgoing.push_back(Outgoing { transition, report: None, refused: 0 });
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        let mut untold: Vec<Arc<Job>> = self.buffer.drain().into_iter().map(|claimed| claimed.job).collect();
        for session in self.sessions.values_mut() {
            let jobs = session.jobs().into_iter();
            untold.extend(jobs.filter_map(|job| session.withdraw(job)).map(|assigned| assigned.job));
        }
        untold.iter().for_each(|job| self.give_back(job));
    }

    /// Hands what is claimed to sessions: the one with the most free slots that has room.
    pub(super) fn assign(&mut self) {
        if self.buffer.is_empty() || self.sessions.is_empty() {
            return;
        }
        let sessions = &mut self.sessions;
        let mut chosen: Vec<Name> = Vec::new();
        let mut room: BTreeMap<&Name, Room> =
            sessions.iter().map(|(name, session)| (name, Room::of(std::iter::once(session)))).collect();
        let taken = self.buffer.assign(|request| {
            let best = room
                .iter_mut()
                .filter(|(name, _)| sessions[**name].room_for(request) > 0)
                .max_by_key(|(_, room)| room.slots());
            let Some((name, room)) = best else { return false };
            if room.take(&[&sessions[*name]], request, 1) == 0 {
                return false;
            }
            chosen.push((*name).clone());
            true
        });
        for (claimed, name) in taken.into_iter().zip(chosen) {
            if let Some(session) = sessions.get_mut(&name) {
                session.assign(claimed);
            }
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
        if let Some(ticket) = session.waiter {
            self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Conflict)));
        }
        let mut lost: Vec<Assigned> = session.assigned.into_values().collect();
        lost.sort_unstable_by_key(|assigned| assigned.job.id);
        for assigned in lost {
            let step = if assigned.told { told.clone() } else { Move::Returned };
            let transition = Transition { job: assigned.job.id, epoch: assigned.job.epoch, step };
            self.outgoing.push_back(Outgoing { transition, report: None, refused: 0 });
        }
        self.shed();
    }
}
