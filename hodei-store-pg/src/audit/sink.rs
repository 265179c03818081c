//! The trail as its users see it.

use std::sync::Arc;

use async_trait::async_trait;
use hodei_core::security::{AuditRecord, AuditSink};
use hodei_core::{Error, ErrorKind, Result};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::chain::Keys;
use super::checkpoint::Checkpoint;
use super::config::{self, PgAuditBuilder};
use super::public::AuditPublicKey;
use super::schema;
use super::verify::{self, AuditReport};
use super::writer::{Order, Writer};
use crate::error::{failed, unconnected};

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
/// let (note, public) = (audit.checkpoint().await?.to_string(), audit.public_key().to_string());
/// # let _ = (note, public);
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
    /// Begins to describe a trail, whose rows are sealed and whose checkpoints are signed with `key`: 32 random bytes that
    /// stay outside of the database, with those who write.
    pub fn builder(url: impl Into<String>, key: [u8; 32]) -> PgAuditBuilder {
        PgAuditBuilder::new(url.into(), &key)
    }

    pub(super) fn start(config: &PgAuditBuilder, keys: Keys, pool: PgPool) -> Self {
        let (orders, inbox) = mpsc::channel(config.queue);
        let writer = Writer::new(config, keys.clone(), pool.clone());
        let writer = Mutex::new(Some(tokio::spawn(writer.run(inbox))));
        Self(Arc::new(Inner { orders, writer, pool, keys }))
    }

    /// Returns the key that checkpoints of this trail can be told by, to be given to whoever shall not write.
    #[must_use]
    pub fn public_key(&self) -> AuditPublicKey {
        self.0.keys.public()
    }

    /// Signs how far the trail is, writes that down beside the rows, and returns it to be kept elsewhere.
    ///
    /// # Errors
    ///
    /// Those of the server; `Corrupt` where the last row was not written with the key of this trail; `Unavailable` after
    /// [`PgAudit::close`].
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped may have written a checkpoint or not.
    pub async fn checkpoint(&self) -> Result<Checkpoint> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Sign(reply), answer).await
    }

    /// Reads the whole trail and holds it to its links and seals, to the checkpoints beside it, and to those that were `kept`
    /// elsewhere. Rows that are added meanwhile are not looked at.
    ///
    /// # Errors
    ///
    /// Those of the server. What is wrong with the trail is no error but the report's finding.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing and may be dropped at any point.
    pub async fn verify(&self, kept: &[Checkpoint]) -> Result<AuditReport> {
        let mut connection = self.0.pool.acquire().await.map_err(failed(verify::OP))?;
        verify::verify(&mut connection, &self.public_key(), Some(&self.0.keys), kept).await
    }

    /// As [`PgAudit::verify`], for who has the public key alone and may read the tables; no trail is opened for it, and
    /// nothing is made.
    ///
    /// What it says holds up to [`AuditReport::signed`], the last row that a checkpoint counts: what was changed before that
    /// is found, and where the links were made anew behind it the finding is the first checkpoint that they do not meet,
    /// not the row. Who can write to the database could have made up the rows behind it. Checkpoints that were `kept`
    /// elsewhere count as those beside the rows do, which might have been removed.
    ///
    /// # Errors
    ///
    /// Those of the server; `Config` for a url that is none; `NotFound` where there is no trail.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing and may be dropped at any point.
    pub async fn verify_public(url: &str, key: &AuditPublicKey, kept: &[Checkpoint]) -> Result<AuditReport> {
        let options = config::options(url)?;
        let mut connection = PgConnection::connect_with(&options).await.map_err(unconnected(verify::OP))?;
        schema::check(&mut connection).await?;
        let report = verify::verify(&mut connection, key, None, kept).await?;
        // What it found stands, whether or not the server hears the end.
        drop(connection.close().await);
        Ok(report)
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
