//! Limits, and what counts against them.

use std::collections::BTreeSet;
use std::sync::Arc;

use hodei_core::job::{Request, State};
use hodei_core::store::{Lane, LaneRoom, Limit, LimitOf};
use hodei_core::{JobId, Result, Tenant};

use super::work::Work;
use crate::codec;
use crate::key;
use crate::memory::{Index, LimitKey, Step, limits_of, wide_room};
use crate::rows::Rows;
use crate::table::Tab;

/// Sets a limit.
pub(crate) fn set_limit(work: &mut Work<'_, '_>, limit: &Limit) -> Result<()> {
    limit.check()?;
    work.slots.writable("store.set_limit", limit.of.tenant().map(Tenant::slot).into_iter())?;
    work.set_rate(limit);
    if let LimitOf::Queue(tenant, queue) = &limit.of
        && !work.is_counted(&limit.of)
    {
        let uses = work.leased_in(|lane| lane.tenant == *tenant && lane.queue == *queue)?;
        work.delta.wide.queues.insert((tenant.clone(), queue.clone()), uses);
    }
    if !matches!(limit.of, LimitOf::Key(..)) {
        work.delta.wide.set.insert(limit.of.clone(), Some(limit.max));
        work.has_wide = true;
    }
    work.delta.ring = true;
    work.put(Tab::Limits, &key::limit(&limit.of), &codec::limit_row(limit)?)
}

/// Removes a limit.
pub(crate) fn remove_limit(work: &mut Work<'_, '_>, of: &LimitOf) -> Result<bool> {
    work.slots.writable("store.remove_limit", of.tenant().map(Tenant::slot).into_iter())?;
    let was = work.remove(Tab::Limits, &key::limit(of))?;
    if was && !matches!(of, LimitOf::Key(..)) {
        work.delta.wide.set.insert(of.clone(), None);
    }
    work.remove_rate(of);
    work.delta.ring |= was;
    Ok(was)
}

impl Work<'_, '_> {
    /// Returns how many jobs of a lane its limits let through; `u64::MAX` without limits.
    pub(super) fn room(&mut self, lane: &Lane, request: &Request) -> Result<u64> {
        let mut room = LaneRoom::unlimited(request.resources.token_count(), self.now);
        room.hold(self.wide_room(lane));
        for of in limits_of(&lane.tenant, &request.limit_keys) {
            if let Some(limit) = self.limit(&of)? {
                room.hold(u64::from(limit.max).saturating_sub(self.uses(&of)));
            }
        }
        self.pace(lane, request, &mut room);
        Ok(room.jobs())
    }

    /// Returns what the jobs of a lane ask for; nothing when there is no such lane.
    pub(super) fn request(&self, lane: &Lane) -> Option<Arc<Request>> {
        let new = self.delta.new_lanes.get(lane).map(Arc::clone);
        new.or_else(|| self.look(|index| index.lanes.get(lane).map(|lane| Arc::clone(&lane.request))))
    }

    /// Returns how many leased jobs count against the limit of a key, those of this transaction included.
    fn uses(&self, of: &LimitKey) -> u64 {
        let committed = self.look(|index| index.in_use.get(of).copied().unwrap_or(0));
        committed.saturating_add_signed(self.delta.uses(of))
    }

    fn wide_room(&self, lane: &Lane) -> u64 {
        if !self.has_wide {
            return u64::MAX;
        }
        wide_room(lane, |of| self.wide_max(of), |of| self.wide_use(of))
    }

    /// Returns how much a wide limit lets through, as this transaction has left it.
    fn wide_max(&self, of: &LimitOf) -> Option<u32> {
        match self.delta.wide.set.get(of) {
            Some(set) => *set,
            None => self.look(|index| index.wide.max(of)),
        }
    }

    /// Returns how many leased jobs count against a wide limit, those of this transaction included.
    fn wide_use(&self, of: &LimitOf) -> u64 {
        let leased = |counts: &[i64; State::ALL.len()]| {
            counts[State::Scheduled as usize] + counts[State::Running as usize]
        };
        let changed = match of {
            LimitOf::All => self.delta.counts.values().map(leased).sum(),
            LimitOf::Tenant(tenant) => self.delta.counts.get(tenant).map_or(0, leased),
            LimitOf::Queue(tenant, queue) => {
                let changed = self.delta.wide.queues.get(&(tenant.clone(), queue.clone()));
                changed.copied().unwrap_or(0)
            }
            LimitOf::Key(..) => 0,
        };
        self.look(|index| index.wide_use(of)).saturating_add_signed(changed)
    }

    /// Says whether the uses of a queue are counted: it has a limit, or had one when the transaction began.
    fn is_counted(&self, of: &LimitOf) -> bool {
        self.delta.wide.set.contains_key(of) || self.look(|index| index.wide.max(of).is_some())
    }

    /// Counts the leased jobs of lanes, as this transaction has left them.
    fn leased_in(&mut self, is_in: impl Fn(&Lane) -> bool) -> Result<i64> {
        // What is written out is not counted again.
        self.write_out()?;
        let committed = |index: &Index| index.leases.values().flatten().copied().collect();
        let mut held: BTreeSet<JobId> = self.look(committed);
        held.extend(self.delta.steps.iter().map(|step| step.head.job.id));
        let mut count = 0;
        for id in held {
            let leased = self.current(id)?.filter(|head| head.job.lease.is_some());
            count += i64::from(leased.is_some_and(|head| is_in(&head.lane())));
        }
        Ok(count)
    }

    /// Counts a job that came into a lease or lost it, where there are wide limits.
    pub(super) fn count_wide(&mut self, step: &Step) {
        let Step { was, head } = step;
        let before = was.as_ref().is_some_and(|was| was.lease.is_some());
        let change = i64::from(head.job.lease.is_some()) - i64::from(before);
        if change == 0 {
            return;
        }
        let limits = LimitOf::wide(&head.job.tenant, &head.queue);
        if self.is_counted(&limits[2]) {
            let uses = &mut self.delta.wide.queues;
            *uses.entry((head.job.tenant.clone(), head.queue.clone())).or_default() += change;
        }
        // A full limit that has room again lets lanes through.
        self.delta.ring |= change < 0 && limits.iter().any(|of| self.wide_max(of).is_some());
    }
}
