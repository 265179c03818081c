//! The trail as its users see it.

use std::sync::Arc;

use async_trait::async_trait;
use hodei_core::security::{AuditRecord, AuditSink};
use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::chain::Keys;
use super::checkpoint::Checkpoint;
use super::config::PgAuditBuilder;
use super::verify::{self, AuditReport};
use super::writer::{Order, Writer};

/// An audit trail in PostgreSQL. Cloning shares it; several nodes may write to one trail at once.
///
/// ```no_run
/// # async fn open(key: [u8; 32], kept: &str) -> hodei_core::Result<()> {
/// use hodei_core::security::{AuditRecord, AuditSink};
/// use hodei_core::{Clock, Name, SystemClock};
///
/// let audit = hodei_store_pg::PgAudit::builder("postgres://hodei@localhost/audit", key).connect().await?;
/// let record = AuditRecord::new(SystemClock.now(), "ana", Name::literal("queue.pause")).subject("mail").build()?;
/// audit.append(vec![record]).await?;
/// let note = audit.checkpoint().await?.to_string();
/// # let _ = note;
/// // Some other day, with a note that was kept elsewhere:
/// let report = audit.verify(&[kept.parse()?]).await?;
/// assert!(report.is_sound(), "{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PgAudit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    orders: mpsc::Sender<Order>,
    /// The writer, until it is waited for. A lock of tokio: it is held while waiting for its end.
    writer: Mutex<Option<JoinHandle<()>>>,
    pool: PgPool,
    keys: Keys,
}

impl PgAudit {
    /// Begins to describe a trail, whose rows are sealed with `key`: 32 random bytes that stay outside of the database.
    pub fn builder(url: impl Into<String>, key: [u8; 32]) -> PgAuditBuilder {
        PgAuditBuilder::new(url.into(), &key)
    }

    pub(super) fn start(config: &PgAuditBuilder, keys: Keys, pool: PgPool) -> Self {
        let (orders, inbox) = mpsc::channel(config.queue);
        let writer = Writer::new(config, keys.clone(), pool.clone());
        let writer = Mutex::new(Some(tokio::spawn(writer.run(inbox))));
        Self(Arc::new(Inner { orders, writer, pool, keys }))
    }

    /// Seals how far the trail is, writes that down beside the rows, and returns it to be kept elsewhere.
    ///
    /// # Errors
    ///
    /// Those of the server; `Unavailable` after [`PgAudit::close`].
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped may have written a checkpoint or not.
    pub async fn checkpoint(&self) -> Result<Checkpoint> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Seal(reply), answer).await
    }

    /// Reads the whole trail and holds it to its seals, to the checkpoints beside it, and to those that were `kept` elsewhere.
    /// Rows that are added meanwhile are not looked at.
    ///
    /// # Errors
    ///
    /// Those of the server. What is wrong with the trail is no error but the report's finding.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing and may be dropped at any point.
    pub async fn verify(&self, kept: &[Checkpoint]) -> Result<AuditReport> {
        verify::verify(&self.0.pool, &self.0.keys, kept).await
    }

    /// Writes what waits, and closes the connections. Further calls fail; a second call does nothing.
    ///
    /// # Cancel safety
    ///
    /// What waits is written even if the call is dropped.
    pub async fn close(&self) {
        let mut writer = self.0.writer.lock().await;
        if self.0.orders.send(Order::End).await.is_ok()
            && let Some(writer) = writer.as_mut()
        {
            // A writer that panicked has ended too.
            let _ = writer.await;
        }
        *writer = None;
        self.0.pool.close().await;
    }

    async fn order<R>(&self, order: Order, answer: oneshot::Receiver<Result<R>>) -> Result<R> {
        let closed = |_| Error::new(ErrorKind::Unavailable, "audit.append").with("trail", "closed");
        self.0.orders.send(order).await.map_err(|_| ()).map_err(closed)?;
        answer.await.map_err(|_| ()).map_err(closed)?
    }
}

#[async_trait]
impl AuditSink for PgAudit {
    async fn append(&self, records: Vec<AuditRecord>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.order(Order::Add(records, reply), answer).await
    }
}
