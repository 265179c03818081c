//! What is done to a pipeline as a whole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use hodei_core::job::{Job, NewJob, Parent, State};
use hodei_core::store::{Consistency, Query, Scope, SubmitOptions, Submitted};
use hodei_core::{Error, ErrorKind, JobId, PipelineId, Result, SystemClock};

use super::handle::Orchestrator;

/// What the unique keys of resumed steps begin with.
const RESUMED: &str = "resumed/";

impl Orchestrator {
    /// Asks for the end of every step of a pipeline that has not ended, and returns how many were asked.
    ///
    /// Steps that wait are cancelled at once; those that run, and those that were added by a step which truly ended
    /// meanwhile, are asked until none is left that was not. Wait for their ends with [`Orchestrator::wait_pipeline`].
    ///
    /// # Errors
    ///
    /// `NotFound` when no step is known in scope; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have asked some; asking again does no harm.
    pub async fn cancel_pipeline(&self, scope: &Scope, pipeline: PipelineId) -> Result<u64> {
        let (mut known, mut asked) = (false, HashSet::new());
        loop {
            let mut open = Vec::new();
            let mut query = Some(Query::new().pipeline(pipeline).oldest_first().limit(Query::LIMIT_MAX));
            while let Some(next) = query.take() {
                let page = self.query(scope, next.clone()).await?;
                known |= !page.jobs.is_empty();
                let left = page.jobs.iter().filter(|job| !job.state.is_terminal() && !job.cancel_requested);
                // One that was asked and is open again is asked again: it was given back meanwhile.
                open.extend(left.map(|job| job.id));
                query = page.next.map(|cursor| next.after(cursor));
            }
            if !known {
                return Err(missing("orchestrator.cancel_pipeline", pipeline));
            }
            if open.is_empty() {
                return Ok(asked.len() as u64);
            }
            asked.extend(open.iter().copied());
            self.cancel_many(scope, open).await?;
        }
    }

    /// Repeats what a pipeline has not done: the steps that did not succeed, and those that came after them, as a new
    /// pipeline whose id is returned. Steps that succeeded are not run again; what they gave back is there.
    ///
    /// The old pipeline stays as it ended. Resuming it again returns the pipeline that it was resumed as, for as long as
    /// that is kept; to repeat what that one has not done, resume that one.
    ///
    /// # Errors
    ///
    /// `NotFound` when no step is known in scope, `Illegal` while a step is open and when every step succeeded; else what
    /// the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have resumed it; the next one tells.
    pub async fn resume_pipeline(&self, scope: &Scope, pipeline: PipelineId) -> Result<PipelineId> {
        let op = "orchestrator.resume_pipeline";
        let steps = self.steps_of(scope, pipeline).await?;
        let Some(first) = steps.first() else { return Err(missing(op, pipeline)) };
        let illegal = |why| Error::new(ErrorKind::Illegal, op).with("pipeline", pipeline).with("why", why);
        if steps.iter().any(|step| !step.state.is_terminal()) {
            return Err(illegal("a step has not ended"));
        }
        let new = PipelineId::mint(&first.tenant, &SystemClock);
        let jobs = again(&steps, new);
        if jobs.is_empty() {
            return Err(illegal("every step succeeded"));
        }
        let replies = self.submit_again(jobs, SubmitOptions::atomic()).await?;
        let taken = replies.iter().find_map(|reply| match reply {
            Submitted::Conflict(id) => Some(*id),
            _ => None,
        });
        match taken {
            Some(id) => {
                self.get(id).await?.pipeline.ok_or_else(|| illegal("another job has the key of a step"))
            }
            None if replies.iter().all(|reply| reply.stored().is_some()) => Ok(new),
            None => Err(illegal("a step was refused")),
        }
    }

    async fn steps_of(&self, scope: &Scope, pipeline: PipelineId) -> Result<Vec<Job>> {
        let mut steps = Vec::new();
        let mut query = Some(Query::new().pipeline(pipeline).oldest_first().limit(Query::LIMIT_MAX));
        while let Some(next) = query.take() {
            let page = self.query(scope, next.clone()).await?;
            let ids = page.jobs.iter().map(|job| job.id).collect();
            let jobs = self.store().get_many(scope, ids, Consistency::Latest).await?;
            steps.extend(jobs.into_iter().flatten());
            query = page.next.map(|cursor| next.after(cursor));
        }
        Ok(steps)
    }
}

fn missing(op: &'static str, pipeline: PipelineId) -> Error {
    Error::new(ErrorKind::NotFound, op).with("pipeline", pipeline)
}

/// Makes the jobs that repeat what was not done, parents before children. In time that grows with steps and edges.
fn again(steps: &[Job], pipeline: PipelineId) -> Vec<NewJob> {
    let mut children: HashMap<JobId, Vec<usize>> = HashMap::new();
    for (n, step) in steps.iter().enumerate() {
        for parent in step.asked_parents() {
            children.entry(parent.id).or_default().push(n);
        }
    }
    let below = |step: &Job| children.get(&step.id).into_iter().flatten().copied();
    let mut repeat: Vec<bool> = steps.iter().map(|step| step.state != State::Succeeded).collect();
    let mut reached: VecDeque<usize> = (0..steps.len()).filter(|n| repeat[*n]).collect();
    while let Some(n) = reached.pop_front() {
        for child in below(&steps[n]) {
            if !std::mem::replace(&mut repeat[child], true) {
                reached.push_back(child);
            }
        }
    }
    let mut ids: HashMap<JobId, JobId> = HashMap::new();
    let repeated: HashSet<JobId> =
        steps.iter().zip(&repeat).filter(|(_, r)| **r).map(|(step, _)| step.id).collect();
    let waits = |step: &Job| step.asked_parents().filter(|parent| repeated.contains(&parent.id)).count();
    let mut waits: Vec<usize> = steps.iter().map(waits).collect();
    let mut ready: VecDeque<usize> = (0..steps.len()).filter(|n| repeat[*n] && waits[*n] == 0).collect();
    let mut jobs = Vec::with_capacity(repeated.len());
    while let Some(n) = ready.pop_front() {
        let step = &steps[n];
        let renewed = |parent: Parent| Parent { id: *ids.get(&parent.id).unwrap_or(&parent.id), ..parent };
        let job = NewJob::of(step.tenant.clone(), Arc::clone(&step.spec))
            .after(step.asked_parents().map(renewed))
            .in_pipeline(pipeline)
            .unique(format!("{RESUMED}{}", step.id));
        ids.insert(step.id, job.id);
        jobs.push(job);
        for child in below(step) {
            waits[child] -= 1;
            if waits[child] == 0 {
                ready.push_back(child);
            }
        }
    }
    jobs
}
