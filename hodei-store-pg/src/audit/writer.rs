//! The one writer of a trail in this process: it takes what waits as one batch, so that callers share a commit.
//!
//! Writers of several nodes take turns by a lock of the database for the length of a transaction. The primary key stands
//! behind it: two rows cannot have one number, whoever writes them.

use std::time::Duration;

use hodei_core::security::AuditRecord;
use hodei_core::{Error, ErrorKind, Result, Timestamp};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::chain::{Hash, Keys, ROOT, Texts, link, same};
use super::checkpoint::Checkpoint;
use super::config::PgAuditBuilder;
use crate::error::{Stage, of};

const OP: &str = "audit.append";

/// The lock of all writers: an arbitrary number that nobody else uses.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8240973105528143301)";

const HEAD: &str = "SELECT seq, link, seal FROM hodei_audit.record ORDER BY seq DESC LIMIT 1";

const ADD: &str = "INSERT INTO hodei_audit.record (seq, at, tenant, actor, action, subject, detail, link, seal)
    SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
        $9::bytea[])";

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";

const SIGN: &str = "INSERT INTO hodei_audit.checkpoint (count, at, head, signature) VALUES ($1, $2, $3, $4)
    ON CONFLICT (count) DO NOTHING";

/// What the writer is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Add records.
    Add(Vec<AuditRecord>, oneshot::Sender<Result<()>>),
    /// Write a checkpoint.
    Sign(oneshot::Sender<Result<Checkpoint>>),
    /// Do what came before, and end.
    End,
}

/// What is done in one transaction.
#[derive(Default)]
struct Batch {
    records: Vec<AuditRecord>,
    added: Vec<oneshot::Sender<Result<()>>>,
    signed: Vec<oneshot::Sender<Result<Checkpoint>>>,
    last: bool,
}

/// The last row: its number and its link.
#[derive(Clone, Copy)]
struct Head {
    seq: i64,
    link: Hash,
}

/// Why nothing was written.
enum Halt {
    Server(sqlx::Error),
    /// The last row was not written with these keys. A row behind it would carry on what was made up, and a checkpoint would
    /// sign for it.
    Altered(i64),
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Self {
        Self::Server(error)
    }
}

pub(super) struct Writer {
    keys: Keys,
    pool: PgPool,
    checkpoint_every: i64,
    batch_max: usize,
    timeout: Duration,
}

impl Writer {
    pub(super) fn new(config: &PgAuditBuilder, keys: Keys, pool: PgPool) -> Self {
        Self {
            keys,
            pool,
            checkpoint_every: i64::try_from(config.checkpoint_every).unwrap_or(i64::MAX),
            batch_max: config.batch_max,
            timeout: config.timeout,
        }
    }

    /// Writes until it is told to end, or until nobody can tell it anything any more.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<Order>) {
        while let Some(first) = inbox.recv().await {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(order) = next {
                batch.take(order);
                let full = batch.last || batch.records.len() >= self.batch_max;
                next = if full { None } else { inbox.try_recv().ok() };
            }
            let last = batch.last;
            self.answer(batch).await;
            if last {
                return;
            }
        }
    }

    async fn answer(&self, batch: Batch) {
        if batch.added.is_empty() && batch.signed.is_empty() {
            return;
        }
        let mut stage = Stage::Before;
        let written = self.write(&batch.records, !batch.signed.is_empty(), &mut stage);
        let done = match tokio::time::timeout(self.timeout, written).await {
            Ok(done) => done.map_err(|halt| match halt {
                Halt::Server(error) => of(OP, stage, error),
                Halt::Altered(row) => Error::new(ErrorKind::Corrupt, OP).with("row", row),
            }),
            Err(_) if stage == Stage::Commit => Err(Error::new(ErrorKind::Indeterminate, OP)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, OP)),
        };
        // Who no longer waits is told nothing.
        match done {
            Ok(checkpoint) => {
                batch.added.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
                for reply in batch.signed {
                    let missing = || Error::new(ErrorKind::Bug, OP);
                    let _ = reply.send(checkpoint.ok_or_else(missing));
                }
            }
            Err(error) => {
                batch.added.into_iter().for_each(|reply| drop(reply.send(Err(again(&error)))));
                batch.signed.into_iter().for_each(|reply| drop(reply.send(Err(again(&error)))));
            }
        }
    }

    /// Adds records behind the last row, and a checkpoint where one is due or wanted; all of it or nothing.
    async fn write(
        &self,
        records: &[AuditRecord],
        wanted: bool,
        stage: &mut Stage,
    ) -> Result<Option<Checkpoint>, Halt> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(LOCK).execute(&mut *tx).await?;
        let before = self.head(&mut tx).await?;
        let after = self.add(&mut tx, before, records).await?;
        let due = after.seq / self.checkpoint_every > before.seq / self.checkpoint_every;
        let checkpoint = if wanted || due { Some(self.sign(&mut tx, after).await?) } else { None };
        *stage = Stage::Commit;
        tx.commit().await?;
        Ok(checkpoint)
    }

    /// The last row, which a writer with these keys wrote: as its seal is over its link, and that stands for all rows before,
    /// nobody else can have put it there.
    async fn head(&self, connection: &mut PgConnection) -> Result<Head, Halt> {
        let last: Option<(i64, Vec<u8>, Vec<u8>)> = sqlx::query_as(HEAD).fetch_optional(connection).await?;
        let Some((seq, link, seal)) = last else { return Ok(Head { seq: 0, link: ROOT }) };
        match (Hash::try_from(link), Hash::try_from(seal)) {
            (Ok(link), Ok(seal)) if same(&self.keys.seal(seq, &link), &seal) => Ok(Head { seq, link }),
            _ => Err(Halt::Altered(seq)),
        }
    }

    async fn add(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        mut head: Head,
        records: &[AuditRecord],
    ) -> Result<Head, sqlx::Error> {
        if records.is_empty() {
            return Ok(head);
        }
        let (mut seqs, mut links, mut seals) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            head.seq += 1;
            head.link = link(&head.link, head.seq, record.at(), texts_of(record));
            seqs.push(head.seq);
            links.push(head.link.to_vec());
            seals.push(self.keys.seal(head.seq, &head.link).to_vec());
        }
        let column = |text: fn(&AuditRecord) -> &str| records.iter().map(text).collect::<Vec<&str>>();
        let tenants: Vec<Option<&str>> =
            records.iter().map(|record| record.tenant().map(hodei_core::Tenant::as_str)).collect();
        sqlx::query(ADD)
            .bind(seqs)
            .bind(records.iter().map(|record| record.at().as_micros()).collect::<Vec<i64>>())
            .bind(tenants)
            .bind(column(AuditRecord::actor))
            .bind(column(|record| record.action().as_str()))
            .bind(column(AuditRecord::subject))
            .bind(column(AuditRecord::detail))
            .bind(links)
            .bind(seals)
            .execute(&mut **tx)
            .await?;
        Ok(head)
    }

    async fn sign(&self, tx: &mut Transaction<'_, Postgres>, head: Head) -> Result<Checkpoint, sqlx::Error> {
        let at: i64 = sqlx::query_scalar(NOW).fetch_one(&mut **tx).await?;
        let made = Checkpoint::new(&self.keys, head.seq, Timestamp::from_micros(at), head.link);
        let insert =
            sqlx::query(SIGN).bind(made.count).bind(at).bind(&made.head[..]).bind(&made.signature[..]);
        insert.execute(&mut **tx).await?;
        Ok(made)
    }
}

impl Batch {
    fn take(&mut self, order: Order) {
        match order {
            Order::Add(records, reply) => {
                self.records.extend(records);
                self.added.push(reply);
            }
            Order::Sign(reply) => self.signed.push(reply),
            Order::End => self.last = true,
        }
    }
}

pub(super) fn texts_of(record: &AuditRecord) -> Texts<'_> {
    Texts {
        tenant: record.tenant().map(hodei_core::Tenant::as_str),
        actor: record.actor(),
        action: record.action().as_str(),
        subject: record.subject(),
        detail: record.detail(),
    }
}

/// The same error for another caller.
fn again(error: &Error) -> Error {
    let made = Error::new(error.kind(), OP).source_error(error.to_string());
    match error.retry_delay() {
        Some(delay) => made.retry_after(delay),
        None => made,
    }
}
