//! What can be done to a store.

use std::fmt;
use std::time::Duration;

use crate::id::{JobId, Name, OwnerId, Tenant};
use crate::job::{Lease, NewJob};
use crate::store::{
    Exchange, Limit, LimitOf, Query, QueuePolicy, Retention, Schedule, Scope, SubmitOptions, Term,
};
use crate::time::Timestamp;

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Submit(Vec<Brief>, SubmitOptions),
    Exchange(Exchange),
    Cancel(Scope, Vec<JobId>),
    Redrive(Scope, Vec<JobId>),
    Register(OwnerId, Duration),
    Beat(Vec<Lease>, Duration),
    Retire(Lease),
    TakeTerm(Name, Lease, Duration),
    KeepTerm(Term, Duration),
    Reap(Term, usize),
    Fire(Term, Tenant, Name, Timestamp),
    Prune(Term, Retention, usize),
    SetQueue(QueuePolicy),
    SetLimit(Limit),
    RemoveLimit(LimitOf),
    SetSchedule(Schedule),
    RemoveSchedule(Tenant, Name),
    List(Scope, Query),
    Advance(Duration),
    Reopen,
}

/// A job whose text tells only what matters to a store.
#[derive(Clone)]
pub(super) struct Brief(pub(super) NewJob);

impl fmt::Debug for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NewJob { id, tenant, spec, run_at, deadline, unique, parents, pipeline } = &self.0;
        write!(f, "{id} of {tenant} in {} at {}", spec.queue(), spec.priority().level())?;
        if spec.limit_keys().iter().next().is_some() {
            write!(f, " limited by {:?}", spec.limit_keys())?;
        }
        for (what, at) in [("not before", run_at), ("not after", deadline)] {
            if let Some(at) = at {
                write!(f, " {what} {at}")?;
            }
        }
        if let Some(key) = unique {
            write!(f, " key {key}")?;
        }
        if let Some(pipeline) = pipeline {
            write!(f, " pipeline {pipeline}")?;
        }
        parents.iter().try_for_each(|parent| write!(f, " {:?} of {}", parent.requires, parent.id))
    }
}
