//! What people ask a node for is in a trail in PostgreSQL, sealed row by row.

use std::sync::Arc;

use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::SubmitOptions;
use hodei_core::{ErrorKind, Name, Tenant};
use hodei_sched::{AuditPolicy, Orchestrator};
use hodei_store_pg::PgAudit;
use hodei_test_servers::Postgres;

fn jobs(n: usize) -> Vec<NewJob> {
    (0..n).map(|_| NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_in_a_sound_trail_and_refused_once_it_is_closed() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let audit = PgAudit::builder(database.url(), [3; 32]).connect().await.expect("the trail opens");
    let sink = Arc::new(audit.clone());
    let hodei = Orchestrator::builder().audit(sink, AuditPolicy::Refuse).start().await.expect("it starts");
    let ana = hodei.acting_as("ana@example.org").expect("a name");
    ana.submit_many(jobs(3), SubmitOptions::each()).await.expect("submitted");
    ana.pause_queue(&Tenant::default(), &Name::literal("mail")).await.expect("paused");
    let report = audit.verify(&[]).await.expect("it is read");
    assert!(report.is_sound(), "{report}");
    let rows = "SELECT string_agg(actor || ' ' || action || ' ' || subject, '; ' ORDER BY seq) FROM hodei_audit.record";
    let rows = postgres.sql(database.name(), rows).expect("rows");
    assert_eq!(rows, "ana@example.org job.submit 3 jobs; ana@example.org queue.pause queue mail");
    audit.close().await;
    let late = jobs(1);
    let id = late[0].id;
    let refused =
        ana.submit_many(late, SubmitOptions::each()).await.expect_err("nothing is written any more");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(hodei.get(id).await.expect_err("it was not stored").kind(), ErrorKind::NotFound);
    hodei.shutdown().await;
}
