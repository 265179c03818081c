//! Work that runs makes room for more urgent work.

use std::cmp::Reverse;

use hodei_core::JobId;
use hodei_core::gateway::StopCause;
use hodei_core::job::{Finish, Outcome, Priority};
use hodei_core::store::Move;

use super::placement::{Asked, WorkerId};
use super::scheduler::Scheduler;

/// On how many workers room is looked for at a time.
const LOOKED_AT: usize = 32;

/// Jobs to stop, the least urgent first, and of those the one that came last.
type Victims = Vec<(Priority, Reverse<JobId>)>;

impl Scheduler {
    /// Stops as few of the least urgent jobs of one worker as make room for a job that found none, when all of them
    /// are far enough below it; or none at all. What is being stopped already counts as free.
    ///
    /// Of the workers that are looked at it is the one whose most urgent job to stop is the least urgent, and then that which
    /// stops the fewest; all are looked at in turn. If a worker is held for the job, it is that one from now on.
    ///
    /// The agents stop them as they do when somebody cancels: with their grace. They come back at no cost. Levels are
    /// those that the jobs were born with: waiting raises a job in the order, and gives it no right to stop others, or two
    /// of one level would stop each other for ever.
    pub(super) fn preempt(&mut self, asked: Asked, born: Priority) {
        let highest = self.highest_below(born).filter(|_| self.fleet.gang_size(asked.class) == 1);
        let Some(highest) = highest.filter(|highest| self.fleet.runs_any(*highest)) else { return };
        let held =
            self.fleet.held().filter(|(class, _)| *class == asked.class).map(|(_, worker)| (0, worker));
        let others = self.fleet.lowest(asked.class, highest, LOOKED_AT);
        let mut best: Option<(Option<Priority>, usize, WorkerId, Victims)> = None;
        for (level, worker) in held.into_iter().chain(others) {
            let (level, least) = (Priority::new(level).ok(), best.as_ref().map(|best| (best.0, best.1)));
            if least.is_some_and(|least| least <= (level, 1)) {
                continue;
            }
            let Some(victims) = self.victims(worker, asked, highest) else { continue };
            let cost = (victims.last().map(|(level, _)| *level), victims.len());
            if least.is_none_or(|least| cost < least) {
                best = Some((cost.0, cost.1, worker, victims));
            }
        }
        let Some((_, _, worker, victims)) = best else { return };
        self.fleet.make_room(asked.class, worker);
        let session = self.names.get(&worker).and_then(|name| self.sessions.get_mut(name));
        let Some(session) = session else { return };
        for (_, Reverse(job)) in &victims {
            session.stop(*job, StopCause::Cancelled);
            if let Some(assigned) = session.assigned.get_mut(job) {
                assigned.preempted = true;
            }
        }
    }

    /// Whose end makes room on a worker; nothing where there is none even if all end that are far enough below.
    fn victims(&self, worker: WorkerId, asked: Asked, highest: Priority) -> Option<Victims> {
        let session = self.names.get(&worker).and_then(|name| self.sessions.get(name))?;
        let (mut freed, mut victims) = (Vec::new(), Vec::new());
        for (job, assigned) in &session.assigned {
            let level = assigned.job.spec.priority();
            if assigned.preempted {
                freed.push(assigned.class);
            } else if assigned.stop.is_none()
                && level <= highest
                && !self.fleet.seeks(asked.class, assigned.class)
            {
                victims.push((level, Reverse(*job), assigned.class));
            }
        }
        victims.sort_unstable_by_key(|(level, job, _)| (*level, *job));
        let before = freed.len();
        freed.extend(victims.iter().map(|(_, _, class)| *class));
        if !self.fleet.would_fit(worker, asked.class, &freed) {
            return None;
        }
        let enough = (before..freed.len()).find(|n| self.fleet.would_fit(worker, asked.class, &freed[..*n]));
        freed.truncate(enough.unwrap_or(freed.len()));
        victims.truncate(freed.len() - before);
        // Whose end makes no difference goes on: the most urgent first.
        for at in (0..victims.len()).rev() {
            let class = freed.remove(before + at);
            if self.fleet.would_fit(worker, asked.class, &freed) {
                victims.remove(at);
            } else {
                freed.insert(before + at, class);
            }
        }
        Some(victims.into_iter().map(|(level, job, _)| (level, job)).collect())
    }

    /// Whether any job that runs here would make room for one of a level.
    pub(super) fn could_preempt(&self, level: Priority) -> bool {
        self.highest_below(level).is_some_and(|highest| self.fleet.runs_any(highest))
    }

    /// The highest level that is far enough below another one.
    fn highest_below(&self, level: Priority) -> Option<Priority> {
        let gap = self.config.preempt?.max(1);
        level.level().checked_sub(gap).and_then(|highest| Priority::new(highest).ok())
    }
}

/// What the end of a run means that was stopped to make room: a run that had ended of itself has ended.
pub(super) fn ended(step: Move) -> Move {
    match step {
        Move::Finished(finish) if is_stopped(&finish) => Move::Preempted,
        other => other,
    }
}

fn is_stopped(finish: &Finish) -> bool {
    matches!(finish.outcome, Outcome::Cancelled)
}
