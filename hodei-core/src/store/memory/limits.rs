//! Limits, and what counts against them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::LimitOf;
use crate::id::{Name, Tenant};
use crate::job::Job;

/// The limits that somebody set. Of tenants and of the whole store the counts by state tell how much is used; the use of queues
/// and keys is counted here, only where they have a limit.
#[derive(Debug, Default)]
pub(super) struct Limits {
    set: BTreeMap<LimitOf, u32>,
    queues: BTreeMap<(Tenant, Name), u64>,
    keys: BTreeMap<(Tenant, Name), u64>,
}

impl Limits {
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(super) fn max(&self, of: &LimitOf) -> Option<u32> {
        self.set.get(of).copied()
    }

    /// Goes through the limits in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&LimitOf, u32)> {
        self.set.iter().map(|(of, max)| (of, *max))
    }

    /// How many leased jobs count against the limit of a queue or a key.
    pub(super) fn in_use(&self, of: &LimitOf) -> u64 {
        let used = match of {
            LimitOf::All | LimitOf::Tenant(_) => None,
            LimitOf::Queue(tenant, queue) => self.queues.get(&(tenant.clone(), queue.clone())),
            LimitOf::Key(tenant, key) => self.keys.get(&(tenant.clone(), key.clone())),
        };
        used.copied().unwrap_or(0)
    }

    /// Sets a limit, or removes it, where these jobs are leased; says whether there was one.
    pub(super) fn set<'j>(
        &mut self,
        of: LimitOf,
        max: Option<u32>,
        leased: impl Iterator<Item = &'j Arc<Job>>,
    ) -> bool {
        let was = self.set.contains_key(&of);
        let counted = match &of {
            LimitOf::All | LimitOf::Tenant(_) => None,
            LimitOf::Queue(tenant, queue) => Some((&mut self.queues, (tenant.clone(), queue.clone()))),
            LimitOf::Key(tenant, key) => Some((&mut self.keys, (tenant.clone(), key.clone()))),
        };
        match (counted, max) {
            (Some((uses, name)), Some(_)) if !was => {
                let used = leased.filter(|job| of.counts(&job.tenant, &job.spec)).count();
                uses.insert(name, used as u64);
            }
            (Some((uses, name)), None) => drop(uses.remove(&name)),
            _ => {}
        }
        match max {
            Some(max) => drop(self.set.insert(of, max)),
            None => drop(self.set.remove(&of)),
        }
        was
    }

    /// Keeps those limits only.
    pub(super) fn retain(&mut self, keep: impl Fn(&LimitOf) -> bool) {
        self.set.retain(|of, _| keep(of));
        let Self { set, queues, keys } = self;
        let queue = |(tenant, name): &(Tenant, Name)| LimitOf::Queue(tenant.clone(), name.clone());
        let key = |(tenant, name): &(Tenant, Name)| LimitOf::Key(tenant.clone(), name.clone());
        queues.retain(|of, _| set.contains_key(&queue(of)));
        keys.retain(|of, _| set.contains_key(&key(of)));
    }

    /// Counts a job that is leased now.
    pub(super) fn begin(&mut self, job: &Job) {
        self.counted(job, |used| *used += 1);
    }

    /// Counts a job that is leased no longer; says whether a limit has more room for it.
    pub(super) fn end(&mut self, job: &Job) -> bool {
        let counted = self.counted(job, |used| *used = used.saturating_sub(1));
        let wide = || {
            self.set.contains_key(&LimitOf::All)
                || self.set.contains_key(&LimitOf::Tenant(job.tenant.clone()))
        };
        counted || (!self.set.is_empty() && wide())
    }

    fn counted(&mut self, job: &Job, count: impl Fn(&mut u64)) -> bool {
        let mut counted = false;
        if !self.queues.is_empty()
            && let Some(used) = self.queues.get_mut(&(job.tenant.clone(), job.spec.queue().clone()))
        {
            count(used);
            counted = true;
        }
        if !self.keys.is_empty() {
            for key in job.spec.limit_keys().iter().filter_map(|key| Name::new(key).ok()) {
                if let Some(used) = self.keys.get_mut(&(job.tenant.clone(), key)) {
                    count(used);
                    counted = true;
                }
            }
        }
        counted
    }
}
