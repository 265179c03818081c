//! Work that runs makes room for more urgent work.

use std::cmp::Reverse;

use hodei_core::JobId;
use hodei_core::gateway::StopCause;
use hodei_core::job::{Finish, Outcome, Priority};
use hodei_core::store::Move;

use super::placement::Asked;
use super::scheduler::Scheduler;

impl Scheduler {
    /// Stops as few of the least urgent jobs of one worker as make room for a job that found none, when all of them
    /// are far enough below it; or none at all. What is being stopped already counts as free.
    ///
    /// The agents stop them as they do when somebody cancels: with their grace. They come back at no cost. Levels are
    /// those that the jobs were born with: waiting raises a job in the order, and gives it no right to stop others, or two
    /// of one level would stop each other for ever.
    pub(super) fn preempt(&mut self, asked: Asked, born: Priority) {
        let Some(gap) = self.config.preempt.filter(|_| self.fleet.gang_size(asked.class) == 1) else {
            return;
        };
        let held = self.fleet.held().filter(|(class, _)| *class == asked.class).map(|(_, worker)| worker);
        let Some(worker) = held.or_else(|| self.fleet.nearest(asked.class)) else { return };
        let Some(session) = self.names.get(&worker).and_then(|name| self.sessions.get_mut(name)) else {
            return;
        };
        let mut freed = Vec::new();
        let mut victims: Vec<(Priority, Reverse<JobId>)> = Vec::new();
        for (job, assigned) in &session.assigned {
            let level = assigned.job.spec.priority();
            if assigned.preempted {
                freed.push(assigned.class);
            } else if assigned.stop.is_none()
                && below(level, born, gap)
                && !self.fleet.seeks(asked.class, assigned.class)
            {
                victims.push((level, Reverse(*job)));
            }
        }
        // The least urgent first, and of those the one that came last.
        victims.sort_unstable();
        let (before, mut stopped) = (freed.len(), 0);
        while !self.fleet.would_fit(worker, asked.class, &freed) {
            let Some((_, Reverse(job))) = victims.get(stopped) else { return };
            freed.extend(session.assigned.get(job).map(|assigned| assigned.class));
            stopped += 1;
        }
        victims.truncate(stopped);
        // Whose end makes no difference goes on: the most urgent first.
        for at in (0..victims.len()).rev() {
            let class = freed.remove(before + at);
            if self.fleet.would_fit(worker, asked.class, &freed) {
                victims.remove(at);
            } else {
                freed.insert(before + at, class);
            }
        }
        for (_, Reverse(job)) in &victims {
            session.stop(*job, StopCause::Cancelled);
            if let Some(assigned) = session.assigned.get_mut(job) {
                assigned.preempted = true;
            }
        }
    }

    /// Whether any job that runs here would make room for one of a level.
    pub(super) fn could_preempt(&self, level: Priority) -> bool {
        let Some(gap) = self.config.preempt else { return false };
        let running = self.sessions.values().flat_map(|session| session.assigned.values());
        running.into_iter().any(|assigned| below(assigned.job.spec.priority(), level, gap))
    }
}

fn below(level: Priority, urgent: Priority, gap: u8) -> bool {
    level.level().saturating_add(gap.max(1)) <= urgent.level()
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
