//! What is asked for through the handle, written to an audit trail: by whom, when, of what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hodei_core::job::NewJob;
use hodei_core::security::{AuditRecord, AuditSink};
use hodei_core::store::Scope;
use hodei_core::{Clock, ErrorKind, JobId, Name, Result, Tenant};
use tokio::sync::{mpsc, oneshot};

use super::handle::Orchestrator;

/// So many jobs of a request are named by their ids, and so many queues.
const IDS_NAMED: usize = 64;
pub(super) const QUEUES_NAMED: usize = 16;
/// So many records are written at once behind the requests.
const BATCH: usize = 256;
/// How long a writer waits after a failure, at first and at most.
const WAIT_FIRST: Duration = Duration::from_millis(50);
const WAIT_LAST: Duration = Duration::from_secs(5);
/// How long a node that ends waits for what is to be written.
const END: Duration = Duration::from_secs(5);

/// What becomes of a request while the trail cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditPolicy {
    /// It is refused: a request is carried out when its record is durable, so nothing is done that the trail does not have. What
    /// fails afterwards has its record all the same.
    #[default]
    Refuse,
    /// It is carried out, and written down behind. At most so many records wait; what finds no room, and what the trail refuses
    /// for good, is counted, and the count written down as `audit.gap` behind those that waited.
    GoOn {
        /// How many records wait at most; at least one.
        waiting: usize,
    },
}

/// Something that is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) action: &'static str,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) subject: String,
    pub(crate) detail: String,
}

impl Asked {
    pub(crate) fn new(action: &'static str, tenant: Option<&Tenant>, subject: impl Into<String>) -> Self {
        Self { action, tenant: tenant.cloned(), subject: subject.into(), detail: String::new() }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// Writes down what somebody asks for.
#[derive(Clone, Debug)]
pub(crate) struct Auditor {
    trail: Arc<Trail>,
    actor: Arc<str>,
}

/// The trail of a node.
#[derive(Debug)]
struct Trail {
    clock: Arc<dyn Clock>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Before(Arc<dyn AuditSink>),
    Behind { orders: mpsc::Sender<Order>, missed: Arc<AtomicU64> },
}

#[derive(Debug)]
enum Order {
    Add(AuditRecord),
    /// Everything before has been written.
    Told(oneshot::Sender<()>),
}

impl Auditor {
    /// Begins to write for a node, which is the actor unless somebody else is named. What is to be spawned comes with it.
    pub(super) fn start(
        sink: Arc<dyn AuditSink>,
        policy: AuditPolicy,
        clock: Arc<dyn Clock>,
        node: &str,
    ) -> (Self, Option<impl Future<Output = ()> + Send + use<>>) {
        let actor: Arc<str> = format!("node {node}").into();
        let (way, writer) = match policy {
            AuditPolicy::Refuse => (Way::Before(sink), None),
            AuditPolicy::GoOn { waiting } => {
                let (orders, inbox) = mpsc::channel(waiting.max(1));
                let missed = Arc::new(AtomicU64::new(0));
                let (clock, actor) = (Arc::clone(&clock), Arc::clone(&actor));
                let writer = Writer { sink, clock, actor, missed: Arc::clone(&missed) };
                (Way::Behind { orders, missed }, Some(writer.run(inbox)))
            }
        };
        (Self { trail: Arc::new(Trail { clock, way }), actor }, writer)
    }

    /// Writes down what is asked for, or sees to it that it is.
    pub(crate) async fn note(&self, asked: Vec<Asked>) -> Result<()> {
        let at = self.trail.clock.now();
        let record = |Asked { action, tenant, subject, detail }| {
            let record = AuditRecord::new(at, &*self.actor, Name::literal(action));
            let record = record.subject(subject).detail(detail);
            tenant.into_iter().fold(record, |record, tenant| record.tenant(tenant)).build()
        };
        let records = asked.into_iter().map(record);
        match &self.trail.way {
            Way::Before(sink) => sink.append(records.collect::<Result<_>>()?).await,
            Way::Behind { orders, missed } => {
                for record in records {
                    let sent = record.ok().and_then(|record| orders.try_send(Order::Add(record)).ok());
                    // Relaxed: it is a count, and orders nothing.
                    missed.fetch_add(u64::from(sent.is_none()), Ordering::Relaxed);
                }
                Ok(())
            }
        }
    }

    /// Waits until everything is written, for a while.
    pub(super) async fn end(&self) {
        let Way::Behind { orders, .. } = &self.trail.way else { return };
        let (told, written) = oneshot::channel();
        let end = async {
            if orders.send(Order::Told(told)).await.is_ok() {
                // A writer that is gone writes nothing more.
                let _ = written.await;
            }
        };
        let _ = tokio::time::timeout(END, end).await;
    }
}

/// Writes records behind the requests.
struct Writer {
    sink: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    actor: Arc<str>,
    missed: Arc<AtomicU64>,
}

impl Writer {
    async fn run(self, mut inbox: mpsc::Receiver<Order>) {
        let (mut orders, mut told) = (Vec::with_capacity(BATCH), Vec::new());
        while inbox.recv_many(&mut orders, BATCH).await > 0 {
            let mut records = Vec::with_capacity(orders.len() + 1);
            for order in orders.drain(..) {
                match order {
                    Order::Add(record) => records.push(record),
                    Order::Told(reply) => told.push(reply),
                }
            }
            let missed = self.missed.swap(0, Ordering::Relaxed);
            if missed > 0 {
                let gap = AuditRecord::new(self.clock.now(), &*self.actor, Name::literal("audit.gap"));
                let gap = gap.subject("audit trail").detail(format!("{missed} records are missing here"));
                records.extend(gap.build());
            }
            if !records.is_empty() && !self.write(&records).await {
                let lost = missed + records.len() as u64 - u64::from(missed > 0);
                self.missed.fetch_add(lost, Ordering::Relaxed);
            }
            for reply in told.drain(..) {
                // Whoever asked may have gone.
                let _ = oneshot::Sender::send(reply, ());
            }
        }
    }

    /// Writes records, however long that takes; `false` when they are refused for good.
    async fn write(&self, records: &[AuditRecord]) -> bool {
        let mut wait = WAIT_FIRST;
        loop {
            match self.sink.append(records.to_vec()).await {
                Ok(()) => return true,
                // Perhaps they are there: a trail bears a repetition better than a gap.
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::Indeterminate => {}
                Err(_) => return false,
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_LAST);
        }
    }
}

impl Orchestrator {
    /// Returns a handle for what somebody asks for: the trail names him as the actor. Without a trail
    /// ([`OrchestratorBuilder::audit`](super::OrchestratorBuilder::audit)) it is the same handle.
    ///
    /// # Errors
    ///
    /// `Invalid` for a name that no record takes: empty, with a NUL, or longer than
    /// [`AUDIT_NAME_MAX`](hodei_core::security::AUDIT_NAME_MAX).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// use hodei_core::security::NoAudit;
    /// use hodei_core::{Name, Tenant};
    /// use hodei_sched::{AuditPolicy, Orchestrator};
    ///
    /// // In production a trail that lasts, as `PgAudit` of `hodei-store-pg`.
    /// let hodei = Orchestrator::builder().audit(Arc::new(NoAudit), AuditPolicy::Refuse).start().await?;
    /// hodei.acting_as("ana@example.org")?.pause_queue(&Tenant::default(), &Name::new("mail")?).await?;
    /// # hodei.shutdown().await;
    /// # Ok::<(), hodei_core::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn acting_as(&self, actor: impl Into<Arc<str>>) -> Result<Self> {
        let actor = actor.into();
        AuditRecord::new(hodei_core::Timestamp::EPOCH, &*actor, Name::literal("any")).build()?;
        Ok(self.with_auditor(|auditor| Auditor { actor, ..auditor }))
    }

    /// Writes down what is asked for, before it is carried out.
    pub(super) async fn note(&self, asked: impl FnOnce() -> Vec<Asked> + Send) -> Result<()> {
        match self.auditor() {
            Some(auditor) => auditor.note(asked()).await,
            None => Ok(()),
        }
    }
}

/// What is said of a submission: one record for each tenant.
pub(super) fn submitted(jobs: &[NewJob]) -> Vec<Asked> {
    let mut tenants: BTreeMap<&Tenant, Vec<&NewJob>> = BTreeMap::new();
    for job in jobs {
        tenants.entry(&job.tenant).or_default().push(job);
    }
    let asked = |(tenant, jobs): (&Tenant, Vec<&NewJob>)| {
        let mut queues: Vec<&str> = jobs.iter().map(|job| job.spec.queue().as_str()).collect();
        queues.sort_unstable();
        queues.dedup();
        let all = queues.len();
        queues.truncate(QUEUES_NAMED);
        let of = if all > queues.len() { format!(" and {} more", all - queues.len()) } else { String::new() };
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let detail = format!("queues {}{of}; {}", queues.join(", "), named(&ids));
        Asked::new("job.submit", Some(tenant), subject(&ids)).detail(detail)
    };
    tenants.into_iter().map(asked).collect()
}

/// What is said of a request about jobs of a scope.
pub(super) fn about(action: &'static str, scope: &Scope, jobs: &[JobId]) -> Vec<Asked> {
    let tenant = match scope {
        Scope::Tenant(tenant) => Some(tenant),
        Scope::All => None,
    };
    vec![Asked::new(action, tenant, subject(jobs)).detail(named(jobs))]
}

fn subject(jobs: &[JobId]) -> String {
    match jobs {
        [job] => format!("job {job}"),
        jobs => format!("{} jobs", jobs.len()),
    }
}

fn named(jobs: &[JobId]) -> String {
    let ids: Vec<String> = jobs.iter().take(IDS_NAMED).map(ToString::to_string).collect();
    let more = jobs.len() - ids.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("jobs {}{more}", ids.join(", "))
}
