//! Many jobs, and what follows when they have ended.

use super::spec::{Pipeline, PipelineLimits, Step};
use crate::error::{Error, Fault, Result};
use crate::id::Tenant;
use crate::job::JobSpecBuilder;

/// Many jobs that do not know each other, with callbacks for when all of them have ended: a pipeline of two levels.
///
/// Jobs are named by their place, `item-0` and so on; the callbacks `on-success`, `on-failure` and `on-complete`.
///
/// ```
/// use hodei_core::job::JobSpec;
/// use hodei_core::pipeline::Batch;
///
/// let batch = Batch::new("mails")
///     .jobs((0..100).map(|n| JobSpec::command(["send", &n.to_string()])))
///     .on_success(JobSpec::command(["tell", "all sent"]))
///     .on_failure(JobSpec::command(["tell", "look at the dead letters"]))
///     .build()?;
/// assert_eq!(batch.jobs().len(), 102);
/// # Ok::<(), hodei_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a batch does nothing until it is built and submitted"]
pub struct Batch {
    name: String,
    tenant: Tenant,
    weight: u32,
    jobs: Vec<JobSpecBuilder>,
    on_success: Option<JobSpecBuilder>,
    on_failure: Option<JobSpecBuilder>,
    on_complete: Option<JobSpecBuilder>,
}

impl Batch {
    /// Begins a batch of the default tenant.
    pub fn new(name: impl Into<String>) -> Self {
        let (on_success, on_failure, on_complete) = (None, None, None);
        Self {
            name: name.into(),
            tenant: Tenant::default(),
            weight: 1,
            jobs: Vec::new(),
            on_success,
            on_failure,
            on_complete,
        }
    }

    /// Sets whose batch it is.
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = tenant;
        self
    }

    /// Sets what it weighs, as [`PipelineBuilder::weight`](super::PipelineBuilder::weight). Default: 1.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Adds jobs.
    pub fn jobs(mut self, jobs: impl IntoIterator<Item = JobSpecBuilder>) -> Self {
        self.jobs.extend(jobs);
        self
    }

    /// Runs when every job has succeeded.
    pub fn on_success(mut self, job: JobSpecBuilder) -> Self {
        self.on_success = Some(job);
        self
    }

    /// Runs as soon as the first job that does not succeed has failed for good, and never when it was cancelled. It waits
    /// for the end of the callback for success, which therefore must be there: it runs too where every job has succeeded and
    /// that callback itself has failed for good.
    pub fn on_failure(mut self, job: JobSpecBuilder) -> Self {
        self.on_failure = Some(job);
        self
    }

    /// Runs when every job has ended, no matter how.
    pub fn on_complete(mut self, job: JobSpecBuilder) -> Self {
        self.on_complete = Some(job);
        self
    }

    /// Checks everything against the default limits, 10,000 jobs among them, and makes the pipeline to submit.
    ///
    /// # Errors
    ///
    /// As [`Batch::build_within`].
    pub fn build(self) -> Result<Pipeline> {
        self.build_within(&PipelineLimits::default())
    }

    /// Checks everything against the limits given and makes the pipeline to submit.
    ///
    /// # Errors
    ///
    /// `Invalid`: `jobs: empty`, `on_failure: without_on_success`; else as
    /// [`PipelineBuilder::build_within`](super::PipelineBuilder::build_within).
    pub fn build_within(self, limits: &PipelineLimits) -> Result<Pipeline> {
        let mut faults = Vec::new();
        if self.jobs.is_empty() {
            faults.push(Fault::new("jobs", "empty"));
        }
        if self.on_failure.is_some() && self.on_success.is_none() {
            faults.push(Fault::new("on_failure", "without_on_success"));
        }
        if !faults.is_empty() {
            return Err(Error::invalid("batch.build", faults));
        }
        let names: Vec<String> = (0..self.jobs.len()).map(|n| format!("item-{n}")).collect();
        let mut pipeline = Pipeline::builder(self.name).tenant(self.tenant).weight(self.weight);
        for (name, job) in names.iter().zip(self.jobs) {
            pipeline = pipeline.step(Step::new(name, job));
        }
        if let Some(job) = self.on_success {
            pipeline = pipeline.step(names.iter().fold(Step::new("on-success", job), Step::needs));
        }
        if let Some(job) = self.on_complete {
            pipeline = pipeline.step(names.iter().fold(Step::new("on-complete", job), Step::needs_end_of));
        }
        if let Some(job) = self.on_failure {
            pipeline = pipeline.step(Step::new("on-failure", job).needs_failure_of("on-success"));
        }
        pipeline.build_within(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;

    fn job() -> JobSpecBuilder {
        JobSpec::command(["true"])
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (batch, expected) in [
            (Batch::new("b"), "jobs: empty"),
            (Batch::new("b").jobs([job()]).on_failure(job()), "on_failure: without_on_success"),
            (Batch::new("b/").jobs([job()]), "name: bad_char: b/"),
            (Batch::new("b").jobs([job()]).weight(0), "weight: zero"),
        ] {
            assert_eq!(batch.build().unwrap_err().faults()[0].to_string(), expected);
        }
    }

    #[test]
    fn callbacks_wait_for_all() {
        let batch = Batch::new("b").jobs([job(), job(), job()]);
        let batch = batch.on_complete(job()).on_success(job()).on_failure(job()).build().unwrap();
        let waits = |name: &str| {
            let found = batch.jobs().iter().find(|job| job.spec.name().as_str() == name);
            found.map(|job| job.parents.len())
        };
        assert_eq!((batch.jobs().len(), waits("item-2")), (6, Some(0)));
        assert_eq!(
            [waits("on-success"), waits("on-complete"), waits("on-failure")],
            [Some(3), Some(3), Some(1)]
        );
    }
}
