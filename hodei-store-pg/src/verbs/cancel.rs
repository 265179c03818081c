//! Asking for ends, and sending round again.

use std::sync::Arc;

use async_trait::async_trait;
use hodei_core::job::{Held, Job, State, rules};
use hodei_core::store::{CancelReply, Redriven, Scope};
use hodei_core::{JobId, Result, Tenant};

use crate::inner::walled;
use crate::work::{Keys, Verb, Work};

/// Asks for the end of jobs.
#[derive(Debug)]
pub(crate) struct Cancel {
    pub(crate) scope: Scope,
    pub(crate) jobs: Vec<JobId>,
}

#[async_trait]
impl Verb for Cancel {
    type Reply = Vec<CancelReply>;

    fn tenant(&self) -> Option<&Tenant> {
        walled(&self.scope)
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Vec<CancelReply>> {
        work.load_with_limits(&self.jobs, &[]).await?;
        work.load_children(&self.jobs).await?;
        let mut replies = Vec::with_capacity(self.jobs.len());
        for id in &self.jobs {
            replies.push(cancel_one(&self.scope, *id, work).await?);
        }
        Ok(replies)
    }
}

async fn cancel_one(scope: &Scope, id: JobId, work: &mut Work<'_>) -> Result<CancelReply> {
    if !work.job(id).is_some_and(|job| scope.covers(&job.tenant)) {
        return Ok(CancelReply::NotFound);
    }
    let now = work.now;
    let reply = work.update(id, |job| rules::cancel(job, now)).unwrap_or(CancelReply::NotFound);
    match reply {
        CancelReply::Cancelled => work.cascade(id).await?,
        // The owner has to look at what it must stop.
        CancelReply::Requested => work.readied = true,
        CancelReply::AlreadyTerminal | CancelReply::NotFound => {}
    }
    Ok(reply)
}

/// Sends jobs round again.
#[derive(Debug)]
pub(crate) struct Redrive {
    pub(crate) scope: Scope,
    pub(crate) jobs: Vec<JobId>,
}

#[async_trait]
impl Verb for Redrive {
    type Reply = Vec<Redriven>;

    fn tenant(&self) -> Option<&Tenant> {
        walled(&self.scope)
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Vec<Redriven>> {
        let lasts = work.hold_sequences_of(&self.jobs).await?;
        work.load(&[&self.jobs[..], &lasts].concat()).await?;
        // What their ends freed; other keys are held as ever.
        let freed = self.jobs.iter().filter_map(|id| work.job(*id)).filter_map(freed_key);
        let mut keys = work.key_holders(freed.collect()).await?;
        let mut replies = Vec::with_capacity(self.jobs.len());
        for id in &self.jobs {
            replies.push(redrive_one(&self.scope, *id, &mut keys, work).await?);
        }
        Ok(replies)
    }
}

/// The key that the end of a job freed, and that it takes when it goes round again.
fn freed_key(job: &Job) -> Option<(Tenant, Arc<str>)> {
    let freed = |key: &&Arc<str>| job.held_key().is_none() && Held::of(key).is_taken_again();
    let key = job.unique.as_ref().filter(freed)?;
    Some((job.tenant.clone(), Arc::clone(key)))
}

async fn redrive_one(scope: &Scope, id: JobId, keys: &mut Keys, work: &mut Work<'_>) -> Result<Redriven> {
    let Some(job) = work.job(id).filter(|job| scope.covers(&job.tenant)) else {
        return Ok(Redriven::NotFound);
    };
    if matches!(job.state, State::Failed | State::Cancelled) && !work.goes_last(id).await? {
        return Ok(Redriven::OutOfTurn);
    }
    let key = work.job(id).filter(|job| job.state != State::Succeeded).and_then(freed_key);
    if let Some(key) = key {
        if let Some(holder) = keys.get(&key) {
            return Ok(Redriven::KeyTaken(*holder));
        }
        keys.insert(key, id);
    }
    let now = work.now;
    let reply = work.update(id, |job| match rules::redrive(job, now) {
        Some(change) => (Redriven::Done, Some(change)),
        None if job.state == State::Succeeded => (Redriven::Succeeded, None),
        None => (Redriven::NotTerminal, None),
    });
    Ok(reply.unwrap_or(Redriven::NotFound))
}
