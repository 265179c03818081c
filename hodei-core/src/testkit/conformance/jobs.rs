//! The jobs that the properties submit, and what is reported of them.

use std::time::Duration;

use bytes::Bytes;

use crate::id::{JobId, Name, Tenant};
use crate::job::{
    Failure, FailureClass, Finish, JobSpec, JobSpecBuilder, NewJob, Output, Parent, Priority, Requires,
    RetryPolicy,
};
use crate::store::{Claimed, Move, Scope, Transition};

/// A second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// An hour.
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// How often owners may die under a job in the suite.
pub(super) const LOST_MAX: u16 = 3;

/// Begins the spec of a job without wishes.
pub(super) fn spec() -> JobSpecBuilder {
    JobSpec::command(["true"]).name("job").retry(RetryPolicy::attempts(5))
}

/// Makes a job of the default tenant.
pub(super) fn job() -> NewJob {
    job_of(spec())
}

/// Makes a job of the default tenant with a spec.
pub(super) fn job_of(spec: JobSpecBuilder) -> NewJob {
    job_for(&Tenant::default(), spec)
}

/// Makes a job of a tenant with a spec.
pub(super) fn job_for(tenant: &Tenant, spec: JobSpecBuilder) -> NewJob {
    NewJob::of(tenant.clone(), spec.build().expect("the suite's specs are valid"))
}

/// Makes a job of the default tenant at a level.
pub(super) fn urgent(level: u8) -> NewJob {
    job_of(spec().priority(priority(level)))
}

pub(super) fn priority(level: u8) -> Priority {
    Priority::new(level).expect("the suite's levels are below 64")
}

/// The other tenant.
pub(super) fn acme() -> Tenant {
    Tenant::new("acme").expect("a name")
}

pub(super) fn own() -> Scope {
    Scope::Tenant(Tenant::default())
}

pub(super) fn foreign() -> Scope {
    Scope::Tenant(acme())
}

pub(super) fn name(text: &'static str) -> Name {
    Name::literal(text)
}

/// An id that nobody has.
pub(super) fn nobody() -> JobId {
    job().id
}

/// Parents that must succeed.
pub(super) fn needs(parents: &[JobId]) -> Vec<Parent> {
    parents.iter().map(|id| Parent { id: *id, requires: Requires::Success }).collect()
}

/// Parents that must end.
pub(super) fn outlives(parents: &[JobId]) -> Vec<Parent> {
    parents.iter().map(|id| Parent { id: *id, requires: Requires::Ended }).collect()
}

/// Parents that must fail.
pub(super) fn after_failure_of(parents: &[JobId]) -> Vec<Parent> {
    parents.iter().map(|id| Parent { id: *id, requires: Requires::Failure }).collect()
}

pub(super) fn output(text: &'static str) -> Output {
    Output::Inline(Bytes::from_static(text.as_bytes()))
}

pub(super) fn failure() -> Failure {
    Failure::new(FailureClass::Error, "it broke")
}

pub(super) fn started() -> Move {
    Move::Started { lease: None }
}

pub(super) fn succeeded() -> Move {
    succeeded_with(output("fine"))
}

pub(super) fn succeeded_with(output: Output) -> Move {
    Move::Finished(Box::new(Finish::succeeded(output)))
}

pub(super) fn failed() -> Move {
    Move::Finished(Box::new(Finish::failed(failure())))
}

pub(super) fn cancelled() -> Move {
    Move::Finished(Box::new(Finish::cancelled()))
}

pub(super) fn retried(wait: Duration) -> Move {
    Move::Retried { failure: failure(), wait, manifest: None }
}

pub(super) fn snoozed(wait: Duration) -> Move {
    Move::Snoozed { wait }
}

/// A run that ended well and submits more.
pub(super) fn spawning(spawn: Vec<NewJob>) -> Move {
    let mut finish = Finish::succeeded(output("fine"));
    finish.spawn = spawn;
    Move::Finished(Box::new(finish))
}

/// What an owner reports of a job it claimed.
pub(super) fn of(claimed: &Claimed, step: Move) -> Transition {
    Transition { job: claimed.job.id, epoch: claimed.job.epoch, step }
}

/// The ids of claimed jobs, in their order.
pub(super) fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|claimed| claimed.job.id).collect()
}
