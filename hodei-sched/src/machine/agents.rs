//! The scheduler's dealings with agents: their calls, what they are given, and how they are lost.

use std::collections::HashMap;
use std::sync::Arc;

use hodei_core::gateway::{News, Peer, Report, RunningJob, SessionState, StopCause};
use hodei_core::job::{Epoch, Job, Outcome};
use hodei_core::map::JobMap;
use hodei_core::store::{Move, Transition};
use hodei_core::{ErrorKind, JobId, Name, Timestamp};

use super::backfill::foresee;
use super::fence::alone;
use super::placement::{Found, WorkerId};
use super::preempt;
use super::scheduler::{Effect, Outgoing, Scheduler, Store, Ticket};
use super::session::{Assigned, Gang};
use super::sessions::Sessions;
use super::verdict::verdict;

/// So many gangs are noted before it is looked whether they still run.
const GANGS_SWEPT: usize = 1_024;

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
        let session = self.sessions.of_caller(&state, now, || {
            // What nobody could run before it may run.
            self.lanes_stale = true;
            let worker = self.fleet.join(&state.offer, worker_key(&state.worker));
            self.names.insert(worker, state.worker.clone());
            worker
        });
        if state.seq <= session.seq {
            // Overtaken on the way: the later call has said more.
            return self.effects.push_back(Effect::Reply(ticket, Err(ErrorKind::Cancelled)));
        }
        session.seq = state.seq;
        session.last_sync = now;
        if session.waiter.is_none() {
            session.waits_since = now;
        }
        let leaves = state.draining && !session.draining;
        if session.draining != state.draining {
            self.fleet.set_draining(session.worker, state.draining);
        }
        session.draining = state.draining;
        if let Some(old) = session.waiter.replace(ticket) {
            self.effects.push_back(Effect::Reply(old, Err(ErrorKind::Cancelled)));
        }
        session.confirm(state.seen);
        let ours = |run: &RunningJob| {
            session.assigned.get(&run.job).is_some_and(|assigned| assigned.job.epoch == run.epoch)
        };
        let strays: Vec<&RunningJob> = state.running.iter().filter(|run| !ours(run)).collect();
        // What it runs is what it says: it takes in no answer but one to this call.
        let mut unknown: Vec<(JobId, Epoch)> = strays.iter().map(|run| (run.job, run.epoch)).collect();
        unknown.sort_unstable();
        self.fleet.keep_strays(session.worker, |run| unknown.binary_search(run).is_ok());
        session.disown(&unknown);
        let worker = session.worker;
        strays.into_iter().for_each(|run| self.stray(worker, run));
        for report in state.reports {
            self.report(&state.worker, report, now);
        }
        if let Some(session) = self.sessions.get_mut(&state.worker) {
            session.miss(&state.running);
        }
        if leaves {
            self.shed();
        }
    }

    /// Keeps room for what a worker runs without having been told to by us, and for it on others of its gang.
    fn stray(&mut self, worker: WorkerId, run: &RunningJob) {
        let peers = run.beside.iter().flat_map(|beside| beside.iter());
        let beside = peers.filter_map(|peer| self.sessions.get(&peer.worker)).map(|session| session.worker);
        let mut beside: Vec<WorkerId> = beside.filter(|other| *other != worker).collect();
        // Nobody has room for it twice, whatever its agent says.
        beside.sort_unstable();
        beside.dedup();
        let found = Found {
            run: (run.job, run.epoch),
            tenant: &run.tenant,
            resources: &run.resources,
            rule: self.rules.get(&run.queue).copied().unwrap_or(0),
            beside: &beside,
        };
        self.fleet.add_stray(worker, &found);
    }

    /// Takes a report in once; what it says of a job that is no longer this session's is forgotten.
    fn report(&mut self, worker: &Name, report: Report, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(worker) else { return };
        if report.number <= session.received {
            return;
        }
        session.received = report.number;
        let started = matches!(report.news, News::Started);
        let step = if started {
            session
                .assigned
                .get_mut(&report.job)
                .filter(|assigned| assigned.job.epoch == report.epoch)
                // The lease of what was borrowed moves to us with this: to the one that we have when it is told.
                .map(|_| Move::Started {
                    lease: self.borrowed.contains_key(&report.job).then(|| self.owner.clone()),
                })
        } else {
            session.release(report.job, report.epoch, &mut self.fleet).and_then(|assigned| {
                if succeeded(&report.news) {
                    self.learned.ended(&assigned.job.spec, now.saturating_since(assigned.since));
                }
                self.memory.ended(&assigned.job.spec, assigned.memory, &report.news);
                let told = (assigned.stop != Some(StopCause::LeaseLost))
                    .then(|| verdict(&assigned.job, assigned.memory, report.news));
                if let Some(step) = &told {
                    self.follow.note(&assigned.job, step);
                }
                if assigned.preempted { told.map(preempt::ended) } else { told }
            })
        };
        let Some(step) = step else {
            if !started {
                self.borrowed.remove(&report.job);
            }
            return;
        };
        if !started {
            self.gangs.remove(&report.job);
        }
        session.expect(report.number);
        let incarnation = session.incarnation;
        self.ended_lately += u32::from(!started);
        self.outgoing.push_back(Outgoing {
            transition: Transition { job: report.job, epoch: report.epoch, step },
            report: Some((worker.clone(), incarnation, report.number)),
            refused: 0,
            unless_begun: false,
        });
    }

    /// Takes in whose end somebody wants. A run of a later epoch than was meant goes on.
    pub(super) fn cancelled(&mut self, jobs: &[(JobId, Epoch)]) {
        if self.awaits_loan || self.leases_unknown || matches!(self.store, Store::Exchange | Store::Leases) {
            for (job, epoch) in jobs {
                let told = self.unwanted.entry(*job).or_insert(*epoch);
                *told = (*told).max(*epoch);
            }
        }
        for (job, epoch) in jobs {
            // Nobody was told of it: the store has cancelled it under us, or will when we give it back.
            let waits = self.buffer.epoch_of(*job).is_some_and(|waits| waits <= *epoch);
            let untold = if waits { self.unbuffer(*job) } else { None };
            untold.iter().for_each(|job| self.give_back(job));
        }
        for (at, worker) in self.runs_of(jobs) {
            let Some(session) = self.sessions.get_mut(&worker) else { continue };
            let (job, _) = jobs[at];
            match session.withdraw(job, &mut self.fleet) {
                Some(assigned) => self.give_back(&assigned.job),
                None => session.stop(job, StopCause::Cancelled),
            }
        }
    }

    /// Finds who has runs of these epochs or of lower ones: the place of each in the list, and the worker, in order. Looks at
    /// no more of a session than it has, nor than there are in the list.
    fn runs_of(&self, jobs: &[(JobId, Epoch)]) -> Vec<(usize, Name)> {
        let mut places: JobMap<usize> = JobMap::default();
        places.extend(jobs.iter().enumerate().map(|(at, (job, _))| (*job, at)));
        let mut found = Vec::new();
        for (name, session) in self.sessions.iter() {
            let meant = |at: &usize| {
                let (job, epoch) = jobs[*at];
                session.assigned.get(&job).is_some_and(|assigned| assigned.job.epoch <= epoch)
            };
            let known: Vec<usize> = if session.assigned.len() < places.len() {
                session.assigned.keys().filter_map(|job| places.get(job).copied()).filter(meant).collect()
            } else {
                places.values().copied().filter(meant).collect()
            };
            found.extend(known.into_iter().map(|at| (at, name.clone())));
        }
        found.sort_unstable();
        found
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
        self.outgoing.push_back(Outgoing { transition, report: None, refused: 0, unless_begun: false });
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
    pub(super) fn assign(&mut self, now: Timestamp) {
        if self.buffer.is_empty() || self.sessions.is_empty() {
            return;
        }
        let (fleet, buffer) = (&mut self.fleet, &mut self.buffer);
        if fleet.held().is_some_and(|(class, _)| !buffer.waits(class)) {
            fleet.unhold();
        }
        let (mut refused, mut gangs) = (None, Vec::new());
        let learned = &self.learned;
        loop {
            let held = fleet.held();
            foresee(fleet, buffer, &self.heads, &self.names, &self.sessions, learned, now);
            // Of each class there may be one that ends in time.
            fleet.expect_end(Some(now));
            buffer.let_go(|class, level| fleet.may_have_room(class, level));
            let mut reserved = held;
            if self.config.backfill
                && held.is_none()
                && let Some((class, level)) = buffer.held_back()
            {
                // Whoever was kept room for has it, or its worker is gone: it is the next one's turn.
                fleet.hold(class, level);
                reserved = fleet.held();
                foresee(fleet, buffer, &self.heads, &self.names, &self.sessions, learned, now);
            }
            while let Some(asked) = buffer.next() {
                if reserved.is_some() {
                    let lasts = buffer.spec().and_then(|spec| self.learned.lasts(spec));
                    fleet.expect_end(lasts.map(|lasts| now.saturating_add(lasts)));
                }
                let Some(worker) = fleet.place(asked, &mut *self.config.balancer) else {
                    let born = buffer.spec().map_or(asked.level, |spec| spec.priority());
                    refused.get_or_insert((asked, born));
                    buffer.hold(asked.class);
                    if self.config.backfill {
                        fleet.hold(asked.class, asked.level);
                        if fleet.held() != reserved {
                            reserved = fleet.held();
                            foresee(fleet, buffer, &self.heads, &self.names, &self.sessions, learned, now);
                        }
                    }
                    continue;
                };
                let others = fleet.others();
                let gang = (!others.is_empty()).then(|| gang(others, &self.names, &self.sessions));
                let Some(name) = self.names.get(&worker) else { break };
                if let Some((session, waiting)) = self.sessions.get_mut(name).zip(buffer.pop()) {
                    let job = waiting.claimed.job.id;
                    self.pace.begins();
                    session.assign(waiting.claimed, waiting.class, now, fleet);
                    if let Some(gang) = gang {
                        session.join(job, gang);
                        gangs.push((job, name.clone()));
                    }
                }
            }
            // Where a worker is not kept any more there may be room for others, and where somebody has come, for who seeks him.
            let has_come = fleet.take_joined() && refused.is_some();
            if !has_come && (held.is_none() || fleet.held() == held) {
                break;
            }
        }
        self.note_gangs(gangs);
        if let Some((asked, born)) = refused {
            self.preempt(asked, born);
        }
    }

    /// Notes which worker runs jobs that have room on others too. Those that have ended without a report are forgotten
    /// whenever there are twice as many.
    fn note_gangs(&mut self, gangs: Vec<(JobId, Name)>) {
        for (job, host) in gangs {
            self.gangs.insert(job, host);
            if self.gangs.len() >= GANGS_SWEPT && self.gangs.len().is_power_of_two() {
                let sessions = &self.sessions;
                let runs = |job: &JobId, host: &Name| {
                    sessions.get(host).is_some_and(|session| session.assigned.contains_key(job))
                };
                self.gangs.retain(|job, host| runs(job, host));
            }
        }
    }

    /// Stops what had room on a worker that is gone, beside its own.
    fn gangs_lack(&mut self, gone: WorkerId) {
        let sessions = &mut self.sessions;
        self.gangs.retain(|job, host| {
            let session = sessions.get_mut(host).filter(|session| session.assigned.contains_key(job));
            session.is_some_and(|session| !session.lacks(*job, gone))
        });
    }

    /// Answers the calls of sessions for which there is news. An agent of which a node that ends wants nothing more is let go,
    /// to another one.
    pub(super) fn reply(&mut self) {
        let (next_sync, ttl, alive_until) =
            (self.config.next_sync, self.config.session_ttl, self.alive_until);
        let relieved = self.fleet.take_relieved();
        for worker in &relieved {
            let name = self.names.get(worker);
            name.and_then(|name| self.sessions.get_mut(name));
        }
        // Gangs with room there may begin on their own workers.
        for host in self.gangs.values().filter(|_| !relieved.is_empty()) {
            self.sessions.get_mut(host);
        }
        for name in self.sessions.take_touched() {
            let Some(session) = self.sessions.get(&name).filter(|session| session.waiter.is_some()) else {
                continue;
            };
            if self.draining && session.is_done(&self.fleet) {
                self.end_session(&name, &Move::Returned, ErrorKind::Unavailable);
            } else if session.has_news(&self.fleet)
                && let Some(session) = self.sessions.get_mut(&name)
                && let Some(ticket) = session.waiter.take()
            {
                let called = session.last_sync;
                let alone = alone(called, called, ttl, alive_until);
                let desired = session.desired(next_sync, alone, &self.fleet);
                self.effects.push_back(Effect::Reply(ticket, Ok(Box::new(desired))));
            }
        }
    }

    /// Takes back what those had who have been silent too long, and answers calls that have waited long enough.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let (next_sync, ttl, alive_until) =
            (self.config.next_sync, self.config.session_ttl, self.alive_until);
        let (mut silent, mut waiting) = (Vec::new(), Vec::new());
        for name in self.sessions.overdue(now) {
            let waits = self.sessions.get(&name).is_some_and(|session| session.waiter.is_some());
            if waits { waiting.push(name) } else { silent.push(name) }
        }
        silent.iter().for_each(|name| self.lose_session(name));
        for name in waiting {
            let Some(session) = self.sessions.get_mut(&name) else { continue };
            let Some(ticket) = session.waiter.take() else { continue };
            let called = std::mem::replace(&mut session.last_sync, now);
            let alone = alone(called, now, ttl, alive_until);
            let desired = session.desired(next_sync, alone, &self.fleet);
            self.effects.push_back(Effect::Reply(ticket, Ok(Box::new(desired))));
        }
    }

    /// Ends the session of an agent that died, or that nobody hears of any more.
    fn lose_session(&mut self, name: &Name) {
        self.end_session(name, &Move::Lost { lost_max: self.config.lost_max }, ErrorKind::Conflict);
    }

    /// Takes back what a session had: unstarted the jobs of which the agent was never told, the others as `told` says. Its call
    /// is answered with an error.
    pub(super) fn end_session(&mut self, name: &Name, told: &Move, why: ErrorKind) {
        let Some(session) = self.sessions.remove(name) else { return };
        self.fleet.leave(session.worker);
        self.names.remove(&session.worker);
        self.gangs_lack(session.worker);
        if let Some(ticket) = session.waiter {
            self.effects.push_back(Effect::Reply(ticket, Err(why)));
        }
        let mut lost: Vec<Assigned> = session.assigned.into_values().collect();
        lost.sort_unstable_by_key(|assigned| assigned.job.id);
        for mut assigned in lost {
            assigned.leave_others(&mut self.fleet);
            self.fleet.discount(assigned.class);
            self.borrowed.remove(&assigned.job.id);
            let step = if assigned.told { told.clone() } else { Move::Returned };
            let transition = Transition { job: assigned.job.id, epoch: assigned.job.epoch, step };
            self.outgoing.push_back(Outgoing { transition, report: None, refused: 0, unless_begun: false });
        }
        self.shed();
    }
}

/// Whether a run has ended well.
fn succeeded(news: &News) -> bool {
    matches!(news, News::Ended(finish) if finish.outcome == Outcome::Succeeded)
}

/// The workers on which a job has room beside its own, and what it is told of them.
fn gang(others: Vec<WorkerId>, names: &HashMap<WorkerId, Name>, sessions: &Sessions) -> Gang {
    let peer = |worker: &WorkerId| {
        let name = names.get(worker)?;
        Some(Peer { worker: name.clone(), labels: sessions.get(name)?.offer.labels.clone() })
    };
    let beside = others.iter().filter_map(peer).collect();
    Gang { others, beside }
}

/// A number of a worker that is the same whenever it comes (FNV-1a).
pub(crate) fn worker_key(name: &Name) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, add)
}
