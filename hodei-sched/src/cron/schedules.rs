//! The handle by which an application sets schedules and looks at them.

use std::sync::Arc;

use hodei_core::codec::Codecs;
use hodei_core::job::JobSpec;
use hodei_core::store::{Schedule, Scope, Store};
use hodei_core::{Error, ErrorKind, Fault, Name, Result, Tenant, Timestamp};

use super::duty::Bell;
use super::rule::{CronRule, Kept};
use crate::orchestrator::{Asked, Auditor};

/// A schedule as an application writes it down: a name, a rule, and what is submitted each time.
#[derive(Clone, Debug)]
pub struct CronJob {
    tenant: Tenant,
    name: String,
    rule: CronRule,
    spec: Arc<JobSpec>,
}

impl CronJob {
    /// Makes a schedule of the default tenant.
    #[must_use]
    pub fn new(name: impl Into<String>, rule: CronRule, spec: impl Into<Arc<JobSpec>>) -> Self {
        Self { tenant: Tenant::default(), name: name.into(), rule, spec: spec.into() }
    }

    /// Sets whose schedule it is.
    #[must_use]
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = tenant;
        self
    }

    /// Returns whose it is, what it is called, and when it fires.
    #[cfg(feature = "sim")]
    pub(crate) fn told(&self) -> (&Tenant, &str, &CronRule) {
        (&self.tenant, &self.name, &self.rule)
    }

    /// Returns what is wrong with it, with its name before each field.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let wrong = self.rule.compile().err();
        let rule = wrong.iter().flat_map(Error::faults).cloned();
        let all = Name::fault("name", &self.name).into_iter().chain(rule);
        let named = |mut fault: Fault| {
            fault.field = format!("cron.{}.{}", self.name, fault.field);
            fault
        };
        all.map(named).collect()
    }
}

/// A schedule as it is kept, and what comes of it.
#[derive(Debug)]
pub struct Listed {
    /// The row.
    pub schedule: Schedule,
    /// The rule, or why this node cannot read it and fires nothing.
    pub rule: Result<CronRule>,
    /// Whether it is paused.
    pub paused: bool,
    /// The next time of its rule after the store's now, jitter left aside; nothing while it is paused.
    pub next: Option<Timestamp>,
}

/// The schedules of a store, and the means to change them while nodes run.
///
/// What is set is fired by whichever node leads the duty `cron`: from the next moment where this node leads, and within
/// a heartbeat where another does. A fire time gives one job however many nodes there are and whatever their clocks
/// show; handlers read it with [`Schedule::of_key`] out of the job's unique key. The clock that rules is the store's:
/// while it is set back nothing fires until it has come to where it was, and a leap forward fires what the rule says of
/// missed times.
#[derive(Clone, Debug)]
pub struct Schedules {
    store: Arc<dyn Store>,
    codecs: Codecs,
    bell: Bell,
    /// Who asks, where that is written down.
    auditor: Option<Auditor>,
}

impl Schedules {
    pub(crate) fn new(store: Arc<dyn Store>, codecs: Codecs, bell: Bell, auditor: Option<Auditor>) -> Self {
        Self { store, codecs, bell, auditor }
    }

    /// Sets a schedule, in the place of the one that has its name.
    ///
    /// A rule that is set again as it was goes on where it was, and so makes up for the time when no node ran: an
    /// application sets its schedules at every start. A new rule, or one that has changed, fires only what comes from
    /// now on. Whether it is paused stays as it was.
    ///
    /// # Errors
    ///
    /// `Invalid`: as [`CronRule::upcoming`], `cron: never_fires` where no time will come, and the name's faults; else
    /// what the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have set it; setting it again does no harm.
    pub async fn set(&self, job: CronJob) -> Result<()> {
        let times = job.rule.compile()?;
        let name = Name::new(&job.name)?;
        let now = self.store.now().await?;
        if times.next_after(now).is_none() {
            return Err(Error::invalid("schedules.set", vec![Fault::new("cron", "never_fires")]));
        }
        let old = self.find(&job.tenant, &name).await?;
        let kept = old.as_ref().and_then(|old| Kept::read(&old.rule).ok());
        let kept = match kept {
            Some(kept) if kept.rule == job.rule => Kept { since: kept.since.or(Some(now)), ..kept },
            kept => Kept { rule: job.rule, paused: kept.is_some_and(|kept| kept.paused), since: Some(now) },
        };
        let rule: Arc<str> = kept.text().into();
        let spec = self.codecs.encode_spec(&job.tenant, &job.spec).await?;
        if old.is_some_and(|old| old.rule == rule && old.spec == spec) {
            return Ok(());
        }
        self.note("schedule.set", &job.tenant, &name, &rule).await?;
        self.write(Schedule { tenant: job.tenant, name, rule, spec, last_fired: None }).await
    }

    /// Removes a schedule; `false` when there was none. Jobs that it submitted stay.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have removed it; removing it again does no harm.
    pub async fn remove(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.note("schedule.remove", tenant, name, "").await?;
        self.store.remove_schedule(tenant, name).await
    }

    /// Lets a schedule fire nothing until it is resumed. Idempotent.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such schedule, `Invalid` when its rule is not understood; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have paused it; pausing it again does no harm.
    pub async fn pause(&self, tenant: &Tenant, name: &Name) -> Result<()> {
        self.change("schedule.pause", tenant, name, |kept, _| kept.paused = true).await
    }

    /// Lets a schedule fire again, from now on: what came while it was paused is left out. Idempotent.
    ///
    /// # Errors
    ///
    /// As [`Schedules::pause`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have resumed it; resuming it again does no harm.
    pub async fn resume(&self, tenant: &Tenant, name: &Name) -> Result<()> {
        let resume = |kept: &mut Kept, now| {
            if std::mem::take(&mut kept.paused) {
                kept.since = Some(now);
            }
        };
        self.change("schedule.resume", tenant, name, resume).await
    }

    /// Lists the schedules of a scope, by tenant and name.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn list(&self, scope: &Scope) -> Result<Vec<Listed>> {
        let now = self.store.now().await?;
        let rows = self.store.schedules(scope).await?;
        let listed = rows.into_iter().map(|schedule| {
            let read = Kept::read(&schedule.rule).and_then(|kept| Ok((kept.rule.compile()?, kept)));
            match read {
                Ok((times, kept)) => {
                    let next = if kept.paused { None } else { times.next_after(now) };
                    Listed { schedule, rule: Ok(kept.rule), paused: kept.paused, next }
                }
                Err(error) => Listed { schedule, rule: Err(error), paused: false, next: None },
            }
        });
        Ok(listed.collect())
    }

    async fn find(&self, tenant: &Tenant, name: &Name) -> Result<Option<Schedule>> {
        let rows = self.store.schedules(&Scope::Tenant(tenant.clone())).await?;
        Ok(rows.into_iter().find(|row| row.name == *name))
    }

    async fn change(
        &self,
        action: &'static str,
        tenant: &Tenant,
        name: &Name,
        change: impl FnOnce(&mut Kept, Timestamp) + Send,
    ) -> Result<()> {
        let now = self.store.now().await?;
        let missing = || Error::new(ErrorKind::NotFound, "schedules.change").with("schedule", name);
        let row = self.find(tenant, name).await?.ok_or_else(missing)?;
        let before = Kept::read(&row.rule)?;
        let mut after = before.clone();
        change(&mut after, now);
        if after == before {
            return Ok(());
        }
        self.note(action, tenant, name, "").await?;
        self.write(Schedule { rule: after.text().into(), ..row }).await
    }

    /// Writes down what is asked for, before it is carried out.
    async fn note(&self, action: &'static str, tenant: &Tenant, name: &Name, detail: &str) -> Result<()> {
        let Some(auditor) = &self.auditor else { return Ok(()) };
        let asked = Asked::new(action, Some(tenant), format!("schedule {name}")).detail(detail);
        auditor.note(vec![asked]).await
    }

    async fn write(&self, schedule: Schedule) -> Result<()> {
        self.store.set_schedule(schedule).await?;
        self.bell.notify_one();
        Ok(())
    }
}
