//! What schedules fire: each time of the rule once, in order, not before it is due; and which times are left out.

use std::collections::BTreeMap;

use hodei_core::{Name, Tenant, Timestamp};

use super::watch::Watch;
use crate::cron::{CronJob, CronRule, Times};

/// How many times that were left out are looked at.
const LEFT_OUT_MAX: usize = 2_000;
/// How late a time may fire while nothing is wrong.
const LATE: std::time::Duration = std::time::Duration::from_secs(5);

/// A schedule, and what it has fired.
#[derive(Debug)]
pub(super) struct Fires {
    rule: CronRule,
    times: Times,
    /// When the store first had it.
    set_at: Option<Timestamp>,
    fired: Vec<Timestamp>,
}

/// The schedules of a simulation.
pub(super) type Schedules = BTreeMap<(Tenant, Name), Fires>;

impl Fires {
    /// When a time is due that comes behind others: none before those.
    fn due(&self, schedule: &Name, at: Timestamp, behind: Timestamp) -> Timestamp {
        at.saturating_add(self.rule.delay(schedule.as_str(), at)).max(behind)
    }

    /// Says what is wrong with a firing at a time of the store.
    fn wrong(&self, schedule: &Name, at: Timestamp, now: Timestamp) -> Option<String> {
        let just_before = Timestamp::from_micros(at.as_micros() - 1);
        if self.times.next_after(just_before) != Some(at) {
            return Some(format!("fired for {at}, which its rule does not name"));
        }
        if self.due(schedule, at, at) > now {
            return Some(format!("fired for {at} at {now}, before that is due"));
        }
        if self.fired.last().is_some_and(|last| *last >= at) {
            return Some(format!("fired for {at} again, or out of order"));
        }
        let since = self.fired.last().copied().or(self.set_at)?;
        let mut behind = if self.fired.is_empty() { since } else { self.due(schedule, since, since) };
        let between =
            std::iter::successors(self.times.next_after(since), |last| self.times.next_after(*last));
        for left_out in between.take_while(|time| *time < at).take(LEFT_OUT_MAX) {
            behind = self.due(schedule, left_out, behind);
            if behind.saturating_add(self.rule.patience()) >= now {
                return Some(format!("left {left_out} out at {now}, which was not missed"));
            }
        }
        None
    }
}

impl Watch {
    /// Notes a schedule that a client is about to set.
    pub(super) fn scheduled(&mut self, job: &CronJob) {
        let (tenant, name, rule) = job.told();
        if let (Ok(name), Ok(times)) = (Name::new(name), rule.compile()) {
            let fires = Fires { rule: rule.clone(), times, set_at: None, fired: Vec::new() };
            self.schedules.insert((tenant.clone(), name), fires);
        }
    }

    pub(super) fn has_schedules(&self) -> bool {
        !self.schedules.is_empty()
    }

    /// Notes that the store has a schedule.
    pub(super) fn was_set(&mut self, tenant: &Tenant, schedule: &Name, now: Timestamp) {
        if let Some(fires) = self.schedules.get_mut(&(tenant.clone(), schedule.clone())) {
            fires.set_at.get_or_insert(now);
        }
    }

    /// Notes that a schedule has fired.
    pub(super) fn fired(&mut self, tenant: &Tenant, schedule: &Name, at: Timestamp, now: Timestamp) {
        let Some(fires) = self.schedules.get_mut(&(tenant.clone(), schedule.clone())) else { return };
        let wrong = fires.wrong(schedule, at, now);
        fires.fired.push(at);
        if let Some(wrong) = wrong {
            self.find(format!("I15: {schedule} {wrong}"));
        }
    }

    /// In calm every time fires.
    pub(super) fn fired_in_calm(&mut self, since: Timestamp, until: Timestamp) {
        let mut missing = Vec::new();
        for ((_, schedule), fires) in self.schedules.iter().filter(|(_, fires)| fires.set_at.is_some()) {
            let mut behind = since;
            let times =
                std::iter::successors(fires.times.next_after(since), |last| fires.times.next_after(*last));
            for time in times.take_while(|time| *time < until).take(LEFT_OUT_MAX) {
                behind = fires.due(schedule, time, behind);
                if behind.saturating_add(LATE) < until && !fires.fired.contains(&time) {
                    missing.push(format!("I15: {schedule} did not fire for {time}, with nothing in its way"));
                }
            }
        }
        missing.into_iter().for_each(|text| self.find(text));
    }
}
