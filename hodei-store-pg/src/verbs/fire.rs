//! Schedules.

use std::sync::Arc;

use async_trait::async_trait;
use hodei_core::store::{Fired, Schedule, Submitted, Term};
use hodei_core::{Name, Result, Tenant, Timestamp};

use super::terms::leads;
use crate::ask;
use crate::codec::spec_of;
use crate::error::failed;
use crate::inner::Inner;
use crate::pool::Conn;
use crate::work::{Verb, Work};

const OP: &str = "store.fire";

/// Submits the job of a schedule for a fire time.
#[derive(Debug)]
pub(crate) struct Fire {
    pub(crate) term: Term,
    pub(crate) tenant: Tenant,
    pub(crate) schedule: Name,
    pub(crate) at: Timestamp,
}

#[async_trait]
impl Verb for Fire {
    type Reply = Fired;

    async fn prepare(&mut self, inner: &Inner, conn: &mut Conn) -> Result<()> {
        inner.trip();
        let spec: Option<Vec<u8>> = ask::scalar(
            "SELECT s.spec FROM hodei.schedule s JOIN hodei.tenant t ON t.no = s.tenant
             WHERE t.name = $1 AND s.name = $2",
        )
        .bind(self.tenant.as_str())
        .bind(self.schedule.as_str())
        .fetch_optional(&mut **conn)
        .await
        .map_err(failed(OP))?;
        if let Some(spec) = spec {
            conn.names().make_lane(conn, &self.tenant, &spec_of(&spec)?, None).await?;
        }
        Ok(())
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Fired> {
        if !leads(work, &self.term).await? {
            return Ok(Fired::TermLost);
        }
        work.inner().trip();
        let row: Option<(Option<i64>, Vec<u8>)> = ask::rows(
            "SELECT s.last_fired, s.spec FROM hodei.schedule s JOIN hodei.tenant t ON t.no = s.tenant
             WHERE t.name = $1 AND s.name = $2 FOR UPDATE OF s",
        )
        .bind(self.tenant.as_str())
        .bind(self.schedule.as_str())
        .fetch_optional(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        let Some((last, spec)) = row else { return Ok(Fired::NotFound) };
        if last.is_some_and(|last| last >= self.at.as_micros()) {
            return Ok(Fired::Already);
        }
        work.inner().trip();
        ask::query(
            "UPDATE hodei.schedule s SET last_fired = $3 FROM hodei.tenant t
             WHERE t.no = s.tenant AND t.name = $1 AND s.name = $2",
        )
        .bind(self.tenant.as_str())
        .bind(self.schedule.as_str())
        .bind(self.at.as_micros())
        .execute(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        let (tenant, name) = (self.tenant.clone(), self.schedule.clone());
        let schedule =
            Schedule { tenant, name, rule: "".into(), spec: Arc::new(spec_of(&spec)?), last_fired: None };
        Ok(match work.submit_inside(&[schedule.job(self.at)]).await?.first() {
            Some(Submitted::New(id)) => Fired::New(*id),
            _ => Fired::Already,
        })
    }
}
