//! What an end makes ready is claimed by the exchange that settles it.
//!
//! A store applies what is reported before it claims. So where nothing else is ready, what waited for a job that has ended is
//! had with its end: it waits for one commit instead of two. It is looked for where it mostly is: in the lane of the step that
//! has ended, and in the lanes of its queue in which the run left jobs behind.

use std::sync::Arc;

use hodei_core::Tenant;
use hodei_core::job::{Job, JobSpec, NewJob, Priority};
use hodei_core::store::{Lane, Move, Pick};

use super::placement::Room;
use super::scheduler::Scheduler;
use crate::queue::ClassId;

/// In so many lanes is looked at most.
const LANES_MAX: usize = 4;
/// So many jobs are claimed from each at most; the lanes tell of more.
const JOBS_MAX: u32 = 16;
/// After so many claims that brought nothing only one of [`SELDOM`] is made: what comes next lies elsewhere.
const VAIN_MAX: u32 = 4;
const SELDOM: u32 = 16;

/// Where something may become ready by the ends that the store has not been told of.
#[derive(Debug, Default)]
pub(super) struct Follow {
    /// Whose, and what is like it.
    like: Vec<(Tenant, Arc<JobSpec>)>,
    /// How many of these claims in a row have brought nothing, or were not made for that.
    vain: u32,
    /// Whether the exchange under way has such claims.
    asks: bool,
    /// Whether they brought something, and the lanes were not looked at since: there may be what is more urgent.
    is_blind: bool,
}

impl Follow {
    /// Takes in what is told of a job that ran.
    pub(super) fn note(&mut self, job: &Job, step: &Move) {
        let Move::Finished(finish) = step else { return };
        if job.pipeline.is_some() || job.spec.sequence().is_some() {
            self.add(&job.tenant, &job.spec);
        }
        // Those of other queues may be for other nodes.
        let is_near = |new: &&NewJob| {
            new.run_at.is_none() && new.parents.is_empty() && new.spec.queue() == job.spec.queue()
        };
        for new in finish.spawn.iter().take(JOBS_MAX as usize).filter(is_near) {
            self.add(&new.tenant, &new.spec);
        }
    }

    fn add(&mut self, tenant: &Tenant, spec: &Arc<JobSpec>) {
        let same = |(of, like): &(Tenant, Arc<JobSpec>)| {
            of == tenant
                && (Arc::ptr_eq(like, spec) || (like.class() == spec.class() && like.queue() == spec.queue()))
        };
        if self.like.len() < LANES_MAX && !self.like.iter().any(same) {
            self.like.push((tenant.clone(), Arc::clone(spec)));
        }
    }

    /// Whether such claims bring something often enough.
    fn pays(&mut self) -> bool {
        if self.vain < VAIN_MAX {
            return true;
        }
        self.vain = self.vain.wrapping_add(1).max(VAIN_MAX);
        self.vain.is_multiple_of(SELDOM)
    }

    /// The exchange is over, and has claimed so many jobs; nobody knows how many where it failed.
    pub(super) fn over(&mut self, claimed: Option<usize>) {
        if std::mem::take(&mut self.asks)
            && let Some(claimed) = claimed
        {
            self.vain = if claimed > 0 { 0 } else { self.vain.saturating_add(1) };
            self.is_blind = claimed > 0;
        }
    }

    /// Whether what came has not been held against what else is ready.
    pub(super) fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Something else has come that was not held against what else is ready.
    pub(super) fn came_blindly(&mut self) {
        self.is_blind = true;
    }

    /// The store is asked for its lanes.
    pub(super) fn looks(&mut self) {
        self.is_blind = false;
    }
}

impl Scheduler {
    /// What to claim of what becomes ready by the ends that are told now.
    pub(super) fn follow(&mut self) -> Vec<Pick> {
        let like = std::mem::take(&mut self.follow.like);
        let nothing_waits = self.buffer.is_empty() && self.arrived.is_empty() && self.look_due.is_none();
        let nothing_ready = self.heads.is_empty() && !self.lanes_stale;
        if like.is_empty() || !nothing_ready || !nothing_waits || !self.wants_work() || !self.follow.pays() {
            return Vec::new();
        }
        let mut lanes: Vec<(Lane, ClassId, Priority)> = Vec::with_capacity(like.len());
        for (tenant, spec) in like {
            let rule = self.rules.get(spec.queue()).copied().unwrap_or(0);
            let class = self.fleet.class_of(&tenant, spec.class(), rule, || Arc::new(spec.request()));
            self.fleet.count(class);
            let lane = Lane { tenant, queue: spec.queue().clone(), class: spec.class() };
            lanes.push((lane, class, spec.priority()));
        }
        let mut room = Room::of(&self.fleet);
        let mut picks: Vec<Pick> = Vec::with_capacity(lanes.len());
        for (lane, class, level) in &lanes {
            let n = room.take(*class, *level, JOBS_MAX);
            if n > 0 {
                picks.push(Pick { lane: lane.clone(), floor: Priority::MIN, ceiling: Priority::MAX, n });
            }
        }
        lanes.iter().for_each(|(_, class, _)| self.fleet.discount(*class));
        self.follow.asks = !picks.is_empty();
        picks
    }
}
