//! Limits, and what counts against them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Limit, LimitOf, Rate, Spent};
use crate::id::{Name, Tenant};
use crate::job::Job;
use crate::time::Timestamp;

/// What a limit lets through, and what is spent of its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) max: u32,
    pub(super) rate: Option<Rate>,
    pub(super) spent: Spent,
}

impl Set {
    /// The limit of these jobs.
    pub(super) fn limit(&self, of: &LimitOf) -> Limit {
        Limit { of: of.clone(), max: self.max, rate: self.rate }
    }
}

/// The limits that somebody set. Of tenants and of the whole store the counts by state tell how much is used; the use of queues
/// and keys is counted here, only where they have a limit.
#[derive(Debug, Default)]
pub(super) struct Limits {
    set: BTreeMap<LimitOf, Set>,
    /// How many of them have a rate.
    paced: usize,
    queues: BTreeMap<(Tenant, Name), u64>,
    keys: BTreeMap<(Tenant, Name), u64>,
}

impl Limits {
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(super) fn get(&self, of: &LimitOf) -> Option<&Set> {
        self.set.get(of)
    }

    /// Goes through the limits in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&LimitOf, &Set)> {
        self.set.iter()
    }

    /// Whether claims take tokens.
    pub(super) fn are_paced(&self) -> bool {
        self.paced > 0
    }

    /// Takes the tokens of claimed jobs that take so many each.
    pub(super) fn spend(&mut self, of: &LimitOf, jobs: u64, each: u32, now: Timestamp) {
        if let Some(set) = self.set.get_mut(of)
            && let Some(rate) = set.rate
        {
            set.spent = rate.claim(set.spent, jobs, each, now);
        }
    }

    /// Has a limit of before go on under a rate.
    pub(super) fn repaced(&self, of: &LimitOf, rate: Option<Rate>, now: Timestamp) -> Spent {
        let before = self.set.get(of).and_then(|set| Some((set.rate?, set.spent)));
        match (before, rate) {
            (Some((before, spent)), Some(rate)) => rate.instead_of(&before, spent, now),
            _ => Spent::default(),
        }
    }

    /// Takes what is spent of rates for that of a clock that was set back by so much.
    pub(super) fn bring_back(&mut self, by: Duration) {
        self.set.values_mut().for_each(|set| set.spent = set.spent.brought_back(by));
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
        set: Option<Set>,
        leased: impl Iterator<Item = &'j Arc<Job>>,
    ) -> bool {
        let was = self.set.contains_key(&of);
        let counted = match &of {
            LimitOf::All | LimitOf::Tenant(_) => None,
            LimitOf::Queue(tenant, queue) => Some((&mut self.queues, (tenant.clone(), queue.clone()))),
            LimitOf::Key(tenant, key) => Some((&mut self.keys, (tenant.clone(), key.clone()))),
        };
        match (counted, set) {
            (Some((uses, name)), Some(_)) if !was => {
                let used = leased.filter(|job| of.counts(&job.tenant, &job.spec)).count();
                uses.insert(name, used as u64);
            }
            (Some((uses, name)), None) => drop(uses.remove(&name)),
            _ => {}
        }
        let before = match set {
            Some(set) => self.set.insert(of, set),
            None => self.set.remove(&of),
        };
        self.paced += usize::from(set.is_some_and(|set| set.rate.is_some()));
        self.paced -= usize::from(before.is_some_and(|set| set.rate.is_some()));
        was
    }

    /// Keeps those limits only.
    pub(super) fn retain(&mut self, keep: impl Fn(&LimitOf) -> bool) {
        self.set.retain(|of, _| keep(of));
        self.paced = self.set.values().filter(|set| set.rate.is_some()).count();
        let Self { set, queues, keys, .. } = self;
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
