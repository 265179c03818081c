//! I16: a call that is kept to one tenant neither shows nor touches another's.

use std::collections::HashMap;

use super::super::call::{Call, Reply};
use super::super::report::{Invariant, Report};
use super::book::{Book, Span};
use crate::id::{JobId, Tenant};
use crate::store::{CancelReply, Redriven};

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let mut jobs: HashMap<&Tenant, u64> = HashMap::new();
    for id in book.jobs.keys() {
        if let Some(tenant) = book.tenant(*id) {
            *jobs.entry(tenant).or_default() += 1;
        }
    }
    for span in &book.spans {
        let Some(reply) = span.reply() else { continue };
        if let Some(tenant) = span.call.scope() {
            let foreign = shown(book, span.call, reply).into_iter().find(|(_, owner)| *owner != tenant);
            if let Some((job, owner)) = foreign {
                let text = format!("a call for {tenant} reached what is of {owner}: {}", name(span.call));
                report.add(Invariant::TenantIsolation, job, text);
            }
            counted(book, span, reply, jobs.get(tenant).copied().unwrap_or(0), report);
        }
        claimed(span, reply, report);
    }
}

/// Whose is what a reply shows or touches.
fn shown<'r>(book: &Book<'r>, call: &'r Call, reply: &'r Reply) -> Vec<(Option<JobId>, &'r Tenant)> {
    // Of a job that a reply admits to know.
    let admitted = |job: &JobId, known: bool| {
        if known { book.tenant(*job).map(|tenant| (Some(*job), tenant)) } else { None }
    };
    let mut shown: Vec<_> =
        reply.committed().iter().map(|change| (Some(change.job), &change.tenant)).collect();
    match (call, reply) {
        (_, Reply::Jobs { jobs }) => {
            shown.extend(jobs.iter().flatten().map(|seen| (Some(seen.job), &seen.tenant)));
        }
        (_, Reply::Listed { jobs }) => shown.extend(jobs.iter().map(|seen| (Some(seen.job), &seen.tenant))),
        (_, Reply::Changes { changes }) => {
            shown.extend(changes.iter().map(|change| (Some(change.job), &change.tenant)));
        }
        (_, Reply::Tenants { tenants }) => shown.extend(tenants.iter().map(|tenant| (None, tenant))),
        (_, Reply::Limits { limits }) => {
            shown.extend(limits.iter().filter_map(|limit| Some((None, limit.of.tenant()?))));
        }
        (_, Reply::QueueCounts { counted }) => shown.extend(counted.iter().map(|of| (None, &of.tenant))),
        (Call::Outputs { jobs, .. }, Reply::Outputs { known }) => {
            shown.extend(jobs.iter().zip(known).filter_map(|(job, known)| admitted(job, *known)));
        }
        (Call::RequestCancel { jobs, .. }, Reply::Cancelled { replies, .. }) => {
            let known = jobs.iter().zip(replies);
            shown.extend(known.filter_map(|(job, reply)| admitted(job, *reply != CancelReply::NotFound)));
        }
        (Call::Redrive { jobs, .. }, Reply::Redriven { replies, .. }) => {
            let known = jobs.iter().zip(replies);
            shown.extend(known.filter_map(|(job, reply)| admitted(job, *reply != Redriven::NotFound)));
        }
        _ => {}
    }
    shown
}

/// A count for a tenant is of no more jobs than it has.
fn counted(book: &Book<'_>, span: &Span<'_>, reply: &Reply, jobs: u64, report: &mut Report) {
    let Reply::Counts { counts } = reply else { return };
    let judged = book.log().is_some() && book.last().is_some_and(|survey| survey.began > span.end);
    let total: u64 = counts.iter().sum();
    if judged && total > jobs {
        let text = format!("a call for one tenant counted {total} jobs, it has {jobs}");
        report.add(Invariant::TenantIsolation, None, text);
    }
}

/// What is claimed is of a tenant whose lane was asked for.
fn claimed(span: &Span<'_>, reply: &Reply, report: &mut Report) {
    let (Call::Exchange { wants, .. }, Reply::Exchanged { claimed, .. }) = (span.call, reply) else { return };
    for (seen, _) in claimed.iter().filter(|(seen, _)| !wants.iter().any(|want| want.tenant == seen.tenant)) {
        let text = format!("was claimed out of a lane that is not of {}", seen.tenant);
        report.add(Invariant::TenantIsolation, seen.job, text);
    }
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::RequestCancel { .. } => "request_cancel",
        Call::Redrive { .. } => "redrive",
        Call::GetMany { .. } => "get_many",
        Call::Query { .. } => "query",
        Call::Outputs { .. } => "outputs",
        Call::QueueCounts { .. } => "queue_counts",
        Call::Changes { .. } => "changes",
        Call::Queues { .. } => "queues",
        Call::Limits { .. } => "limits",
        Call::Schedules { .. } => "schedules",
        _ => "another verb",
    }
}
