//! What a file of the schema of today is made by: calls of every kind, under ids that are always the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::checkpoint::CheckpointStore;
use hodei_core::job::{
    Epoch, Failure, FailureClass, Finish, JobSpecBuilder, Lease, NewJob, Output, Parent, Priority, Requires,
};
use hodei_core::store::{
    Applied, Claimed, JobStore, Limit, Move, Policies, QueuePolicy, Rate, Relocate, Schedule, Scope,
};
use hodei_core::{Clock, JobId, ManualClock, Name, PipelineId, Tenant};
use hodei_store_redb::RedbStore;

use crate::env::{Env, claim, job_of, owner, report, spec, submit, tenant};

const MINUTE: Duration = Duration::from_secs(60);

/// The id of the job of a number.
pub(crate) fn id(tenant: &Tenant, number: u64) -> JobId {
    JobId::from_parts(0x7fff_0000_0000 + number, tenant.slot(), number)
}

fn job(tenant: &Tenant, number: u64, spec: JobSpecBuilder) -> NewJob {
    job_of(tenant, spec.name(format!("job-{number}"))).id(id(tenant, number))
}

fn after(tenant: &Tenant, number: u64, requires: Requires) -> [Parent; 1] {
    [Parent { id: id(tenant, number), requires }]
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Settings of every kind.
async fn settings(store: &RedbStore, own: &Tenant) {
    let policy = QueuePolicy { tenant: own.clone(), queue: name("slow"), paused: true, weight: 3 };
    store.set_queue(policy).await.expect("set_queue");
    let rate = Rate::new(10, MINUTE).burst(4);
    for limit in [
        Limit::all(900),
        Limit::tenant(own.clone(), 800),
        Limit::queue(own.clone(), name("default"), 700),
        Limit::key(own.clone(), name("db"), 2),
        Limit::key(own.clone(), name("paced"), 50).rate(rate),
    ] {
        store.set_limit(limit).await.expect("set_limit");
    }
    let spec = Arc::new(spec().name("nightly").build().expect("a valid spec"));
    let schedule = Schedule {
        tenant: own.clone(),
        name: name("nightly"),
        rule: "@daily".into(),
        spec,
        last_fired: None,
    };
    store.set_schedule(schedule).await.expect("set_schedule");
}

/// Jobs of every shape.
async fn jobs(store: &RedbStore, clock: &ManualClock, own: &Tenant, other: &Tenant) {
    let level = |level| Priority::new(level).expect("a level");
    let limited = || spec().limited_by("db");
    submit(store, (1..=8).map(|n| job(own, n, spec().priority(level(50)))).collect()).await;
    clock.advance(MINUTE);
    let later = clock.now().saturating_add(MINUTE * 10);
    let pipeline = PipelineId::from_bytes([7; 16]);
    submit(
        store,
        vec![
            job(own, 9, limited()),
            job(own, 10, limited()),
            job(own, 11, limited()),
            job(own, 12, spec().limited_by("paced")),
            job(own, 13, spec().queue("slow")),
            job(own, 14, spec()).run_at(later),
            job(own, 15, spec()).deadline(later),
            job(own, 16, spec()).unique("once"),
            job(own, 17, spec().sequence("line")),
            job(own, 18, spec().sequence("line")),
            job(own, 19, spec()).in_pipeline(pipeline),
            job(own, 20, spec()).in_pipeline(pipeline).after(after(own, 19, Requires::Success)),
            job(own, 21, spec()).in_pipeline(pipeline).after(after(own, 1, Requires::Ended)),
            job(own, 22, spec()).after(after(own, 2, Requires::Failure)),
        ],
    )
    .await;
    submit(store, (30..=33).map(|n| job(other, n, spec().env("PADDING", "x".repeat(900)))).collect()).await;
}

/// How runs go on and end.
async fn runs(store: &RedbStore, clock: &ManualClock, node: &Lease) {
    let held = claim(store, node, 8).await;
    let of = |number: u64| -> &Claimed {
        let wanted = id(&Tenant::default(), number);
        held.iter().find(|of| of.job.id == wanted).expect("it is claimed")
    };
    let failure = || Failure::new(FailureClass::Error, "it broke");
    let mut good = Finish::succeeded(Output::Inline(Bytes::from_static(b"42")));
    good.spawn = vec![job(&Tenant::default(), 40, spec().queue("spawned"))];
    clock.advance(MINUTE);
    for (number, step) in [
        (1, Move::Started { lease: None }),
        (1, Move::Finished(Box::new(good))),
        (2, Move::Finished(Box::new(Finish::failed(failure())))),
        (3, Move::Retried { failure: failure(), wait: MINUTE, manifest: None }),
        (4, Move::Snoozed { wait: MINUTE }),
        (5, Move::Returned),
        (6, Move::Started { lease: None }),
        (7, Move::Lost { lost_max: 3 }),
        (9, Move::Started { lease: None }),
    ] {
        let job = &of(number).job;
        let applied = report(store, node, (job.id, job.epoch), step).await;
        assert_eq!(applied, Applied::Done, "job {number}");
    }
}

/// Tells the story to a new store, and leaves a slot on its way out of the file and one on its way in.
pub(crate) async fn tell(store: &RedbStore, clock: &ManualClock) {
    let (own, other) = (Tenant::default(), tenant("b"));
    settings(store, &own).await;
    jobs(store, clock, &own, &other).await;
    let node = owner(store, "node").await;
    runs(store, clock, &node).await;
    store.save(&own, id(&own, 10), Epoch::from_number(2), Bytes::from_static(b"half")).await.expect("save");
    let asked = vec![id(&own, 6), id(&own, 14), id(&other, 30)];
    store.request_cancel(&Scope::All, asked).await.expect("cancel");
    store.redrive(&Scope::All, vec![id(&own, 2)]).await.expect("redrive");
    let (leaves, comes, away) = (tenant("leaves"), tenant("comes"), Env::new());
    submit(store, vec![job(&leaves, 50, spec()), job(&leaves, 51, spec())]).await;
    store.seal_slot(leaves.slot(), 1).await.expect("seal");
    let source = away.open();
    submit(&source, vec![job(&comes, 60, spec()), job(&comes, 61, spec().queue("q"))]).await;
    source.seal_slot(comes.slot(), 1).await.expect("seal");
    let rows = source.export_slot(comes.slot(), 1, None, 100).await.expect("export").rows;
    store.import_slot(comes.slot(), 1, rows).await.expect("import");
}
