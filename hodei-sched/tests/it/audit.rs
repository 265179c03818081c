//! What is asked for through the handle is written down: by whom, of what; and what becomes of it while that cannot be done.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hodei_core::job::{JobSpec, NewJob};
use hodei_core::security::{AuditRecord, AuditSink};
use hodei_core::store::{Limit, LimitOf, Scope, SubmitOptions};
use hodei_core::{Error, ErrorKind, JobId, Name, Result, Tenant};
use hodei_sched::machine::Policy;
use hodei_sched::{AuditPolicy, Orchestrator};
use tokio::sync::Semaphore;

/// A trail in memory, which refuses as often as it is told to, and takes nothing before it may.
#[derive(Debug)]
struct Book {
    records: Mutex<Vec<AuditRecord>>,
    refuses: Mutex<Vec<ErrorKind>>,
    may: Semaphore,
}

impl Book {
    fn new(may: usize) -> Arc<Self> {
        let (records, refuses) = (Mutex::default(), Mutex::default());
        Arc::new(Self { records, refuses, may: Semaphore::new(may) })
    }

    fn open() -> Arc<Self> {
        Self::new(Semaphore::MAX_PERMITS)
    }

    fn refuse(&self, kinds: &[ErrorKind]) {
        locked(&self.refuses).extend(kinds);
    }

    /// Who did what to what.
    fn told(&self) -> Vec<String> {
        let records = locked(&self.records);
        let told =
            |record: &AuditRecord| format!("{}: {}: {}", record.actor(), record.action(), record.subject());
        records.iter().map(told).collect()
    }

    fn details(&self) -> Vec<String> {
        locked(&self.records).iter().map(|record| record.detail().to_owned()).collect()
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl AuditSink for Book {
    async fn append(&self, records: Vec<AuditRecord>) -> Result<()> {
        self.may.acquire().await.expect("it is never closed").forget();
        let refused = locked(&self.refuses).pop();
        match refused {
            Some(kind) => Err(Error::new(kind, "audit.append")),
            None => {
                locked(&self.records).extend(records);
                Ok(())
            }
        }
    }
}

async fn node(book: &Arc<Book>, policy: AuditPolicy) -> Orchestrator {
    let node = Orchestrator::builder().node("one").audit(Arc::clone(book) as Arc<dyn AuditSink>, policy);
    node.start().await.expect("the node starts")
}

fn job() -> NewJob {
    NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"))
}

#[tokio::test]
async fn every_request_of_an_actor_leaves_its_record() {
    let book = Book::open();
    let hodei = node(&book, AuditPolicy::Refuse).await;
    let ana = hodei.acting_as("ana").expect("a name");
    let (tenant, mail) = (Tenant::default(), Name::literal("mail"));
    let id = ana.submit(job()).await.expect("submitted");
    let two = vec![job(), job()];
    let ids: Vec<JobId> = two.iter().map(|job| job.id).collect();
    hodei.submit_many(two, SubmitOptions::each()).await.expect("submitted");
    ana.cancel(id).await.expect("cancelled");
    ana.redrive(&Scope::All, vec![id]).await.expect("redriven");
    ana.set_limit(Limit::key(tenant.clone(), mail.clone(), 3)).await.expect("set");
    ana.remove_limit(&LimitOf::Key(tenant.clone(), mail.clone())).await.expect("removed");
    ana.pause_queue(&tenant, &mail).await.expect("paused");
    ana.resume_queue(&tenant, &mail).await.expect("resumed");
    ana.set_policy(Policy::default()).await.expect("set");
    let expected = [
        format!("ana: job.submit: job {id}"),
        "node one: job.submit: 2 jobs".to_owned(),
        format!("ana: job.cancel: job {id}"),
        format!("ana: job.redrive: job {id}"),
        "ana: limit.set: limit of key mail of default".to_owned(),
        "ana: limit.remove: limit of key mail of default".to_owned(),
        "ana: queue.pause: queue mail".to_owned(),
        "ana: queue.resume: queue mail".to_owned(),
        "ana: policy.set: node".to_owned(),
    ];
    assert_eq!(book.told(), expected);
    let details = book.details();
    assert_eq!(details[1], format!("queues default; jobs {}, {}", ids[0], ids[1]));
    assert_eq!(details[4], "max 3");
    hodei.get(id).await.expect("reading is nobody's business");
    assert_eq!(book.told().len(), expected.len());
    assert_eq!(hodei.acting_as("").expect_err("nobody").kind(), ErrorKind::Invalid);
    hodei.shutdown().await;
}

#[cfg(feature = "cron")]
#[tokio::test]
async fn schedules_are_written_down_when_they_change() {
    use hodei_sched::cron::{CronJob, CronRule};

    let book = Book::open();
    let hodei = node(&book, AuditPolicy::Refuse).await;
    let schedules = hodei.acting_as("ana").expect("a name").schedules();
    let (tenant, name) = (Tenant::default(), Name::literal("nightly"));
    let spec = JobSpec::command(["true"]).build().expect("a valid spec");
    let nightly = CronJob::new("nightly", CronRule::new("0 3 * * *"), spec);
    schedules.set(nightly.clone()).await.expect("set");
    schedules.set(nightly).await.expect("set as it was");
    schedules.pause(&tenant, &name).await.expect("paused");
    schedules.remove(&tenant, &name).await.expect("removed");
    let changes =
        ["set", "pause", "remove"].map(|action| format!("ana: schedule.{action}: schedule nightly"));
    assert_eq!(book.told(), changes);
    hodei.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_written_down_is_refused_and_not_done() {
    let book = Book::open();
    let hodei = node(&book, AuditPolicy::Refuse).await;
    let first = hodei.submit(job()).await.expect("submitted");
    let second = job();
    let id = second.id;
    book.refuse(&[ErrorKind::Unavailable, ErrorKind::Unavailable]);
    assert_eq!(hodei.submit(second).await.expect_err("no trail").kind(), ErrorKind::Unavailable);
    assert_eq!(hodei.get(id).await.expect_err("it was not stored").kind(), ErrorKind::NotFound);
    assert_eq!(hodei.cancel(first).await.expect_err("no trail").kind(), ErrorKind::Unavailable);
    assert!(!hodei.get(first).await.expect("it is there").state.is_terminal());
    hodei.cancel(first).await.expect("the trail is back");
    assert_eq!(book.told().len(), 2);
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_trail_that_is_written_behind_holds_nobody_up_and_tells_of_its_gaps() {
    let book = Book::new(0);
    let hodei = node(&book, AuditPolicy::GoOn { waiting: 4 }).await;
    for _ in 0..20 {
        hodei.submit(job()).await.expect("it goes on");
    }
    assert_eq!(book.told(), Vec::<String>::new(), "nothing is written yet");
    // What is refused for now is written later.
    book.refuse(&[ErrorKind::Unavailable]);
    book.may.add_permits(100);
    hodei.shutdown().await;
    let told = book.told();
    let written = told.iter().filter(|told| told.contains("job.submit")).count();
    let gap = told.iter().position(|told| told.contains("audit.gap")).expect("the gap is told");
    let missing = book.details()[gap].split(' ').next().and_then(|n| n.parse::<usize>().ok());
    assert_eq!(missing, Some(20 - written));
    assert!((4..10).contains(&written), "what waits is bounded: {written}");
}
