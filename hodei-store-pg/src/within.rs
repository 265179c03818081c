//! Submitting and settling inside a transaction of the host application.

use std::sync::Arc;

use hodei_core::job::NewJob;
use hodei_core::store::{Applied, SubmitOptions, Submitted, Transition};
use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnection;

use crate::ask;
use crate::error::{RETRY_AFTER, failed};
use crate::listen::CHANNEL;
use crate::server;
use crate::store::PgStore;
use crate::verbs::{Settle, Submit};
use crate::work::{Verb, Work};

/// How often it is tried again where somebody else was in the way.
const ATTEMPTS: u32 = 4;

impl PgStore {
    /// Stores jobs in a transaction of the caller: they are there when it commits, and not when it does not.
    ///
    /// The replies are those of [`JobStore::submit`](hodei_core::store::JobStore::submit), as they will be if the
    /// transaction commits. It must be one of `READ COMMITTED`, in the database of the store; what it does not see of
    /// others waits for its end where ids, unique keys or parents are the same. Sinks and wake-ups come by way of the
    /// change log, in this process as in every other; they are not given where nothing is recorded.
    ///
    /// # Errors
    ///
    /// As `submit`. The transaction is as it was before the call then, and can go on, unless its connection is lost.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: roll the transaction back.
    pub async fn submit_in(
        &self,
        transaction: &mut PgConnection,
        jobs: Vec<NewJob>,
        options: SubmitOptions,
    ) -> Result<Vec<Submitted>> {
        self.within("store.submit_in", transaction, Submit { jobs, options }).await
    }

    /// Applies transitions in a transaction of the caller: what a run has done in the database and its end become true
    /// together, or neither does.
    ///
    /// Each is fenced by its epoch, as in an exchange: with [`Applied::LeaseLost`] somebody else runs the job by now,
    /// and the caller should roll back what this run has done. So it is for all of them after a standby took over, until this
    /// store has registered an owner there. As [`PgStore::submit_in`] in all else.
    ///
    /// Until the caller commits it holds the rows of all limits that the jobs count against, and whoever claims or ends
    /// under one of them waits for it: settle last, and commit at once.
    ///
    /// # Errors
    ///
    /// As those of an exchange.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: roll the transaction back.
    pub async fn settle_in(
        &self,
        transaction: &mut PgConnection,
        transitions: Vec<Transition>,
    ) -> Result<Vec<Applied>> {
        self.within("store.settle_in", transaction, Settle(transitions)).await
    }

    async fn within<V: Verb>(
        &self,
        op: &'static str,
        conn: &mut PgConnection,
        mut verb: V,
    ) -> Result<V::Reply> {
        let inner = self.inner();
        // On a connection of its own: the numbers of lanes are remembered, whatever becomes of the transaction.
        let mut own = inner.pools.verbs.acquire(op).await?;
        inner.in_time(op, verb.prepare(inner, &mut own)).await?;
        let at = own.at();
        own.clean().await.map_err(failed(op))?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            inner.trip();
            let found = server::save(&mut *conn).await.map_err(failed(op))?;
            let mut work = Work::new(Arc::clone(inner), at.clone(), &mut *conn).told_by_the_log();
            let done = async {
                if found != Some(at.home) {
                    let elsewhere =
                        Error::new(ErrorKind::Unavailable, op).with("server", "not that of the store");
                    return Err(elsewhere.retry_after(RETRY_AFTER));
                }
                let reply = verb.run(&mut work).await?;
                work.flush().await?;
                Ok(reply)
            };
            let done = inner.in_time(op, done).await;
            let (readied, changed) = (work.readied, !work.segments.is_empty());
            inner.trip();
            match done {
                Ok(reply) => {
                    if readied || changed {
                        // Sent by the server when the transaction commits.
                        ask::query("SELECT pg_notify($1, $2)")
                            .bind(CHANNEL)
                            .bind(if readied { "ready 0" } else { "change 0" })
                            .execute(&mut *conn)
                            .await
                            .map_err(failed(op))?;
                    }
                    sqlx::raw_sql("RELEASE SAVEPOINT hodei").execute(&mut *conn).await.map_err(failed(op))?;
                    return Ok(reply);
                }
                Err(error) => {
                    let back = "ROLLBACK TO SAVEPOINT hodei; RELEASE SAVEPOINT hodei";
                    sqlx::raw_sql(back).execute(&mut *conn).await.map_err(failed(op))?;
                    if error.kind() != ErrorKind::Locked || attempt == ATTEMPTS {
                        return Err(error);
                    }
                    inner.make_way(&error).await;
                }
            }
        }
    }
}
