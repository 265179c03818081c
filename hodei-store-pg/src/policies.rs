//! Queues, limits and schedules.

use std::sync::Arc;

use async_trait::async_trait;
use hodei_core::store::{Limit, LimitOf, LimitUse, Policies, QueuePolicy, Schedule, Scope};
use hodei_core::{Error, ErrorKind, Fault, Name, Result, Tenant, Timestamp};
use sqlx::postgres::PgRow;

use crate::ask;
use crate::codec::{damaged, name_of, spec_bytes, spec_of};
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::pool::Conn;
use crate::store::PgStore;
use crate::work::{Verb, Work};

const OP: &str = "store.policies";

/// What is set.
#[derive(Debug)]
enum Setting {
    Queue(QueuePolicy),
    /// A key, and how many at most; nothing to remove the limit.
    Limit(Tenant, Name, Option<u32>),
    Schedule(Schedule),
    NoSchedule(Tenant, Name),
}

impl Setting {
    fn tenant(&self) -> &Tenant {
        match self {
            Self::Queue(policy) => &policy.tenant,
            Self::Limit(tenant, ..) => tenant,
            Self::Schedule(schedule) => &schedule.tenant,
            Self::NoSchedule(tenant, _) => tenant,
        }
    }
}

#[async_trait]
impl Verb for Setting {
    type Reply = bool;

    async fn prepare(&mut self, inner: &Inner, conn: &mut Conn) -> Result<()> {
        inner.names.make_tenant(conn, self.tenant()).await?;
        Ok(())
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<bool> {
        work.readied = matches!(self, Self::Queue(_) | Self::Limit(..));
        work.rows += 1;
        let inner = Arc::clone(work.inner());
        inner.trip();
        // It was made before, and committed.
        let tenant = inner.names.find_tenant(&mut *work.conn, self.tenant()).await?;
        let tenant = tenant.ok_or_else(|| damaged("a tenant without a row"))?;
        let query = match self {
            Self::Queue(policy) => ask::query(
                "INSERT INTO hodei.queue (tenant, queue, paused, weight) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tenant, queue) DO UPDATE SET paused = excluded.paused, weight = excluded.weight",
            )
            .bind(tenant)
            .bind(policy.queue.as_str().to_owned())
            .bind(policy.paused)
            .bind(i64::from(policy.weight)),
            Self::Limit(_, key, Some(max)) => ask::query(
                "INSERT INTO hodei.usage (tenant, key, most) VALUES ($1, $2, $3)
                 ON CONFLICT (tenant, key) DO UPDATE SET most = excluded.most",
            )
            .bind(tenant)
            .bind(key.as_str().to_owned())
            .bind(i64::from(*max)),
            // The row stays: it counts what is leased.
            Self::Limit(_, key, None) => ask::query(
                "UPDATE hodei.usage SET most = NULL WHERE tenant = $1 AND key = $2 AND most IS NOT NULL",
            )
            .bind(tenant)
            .bind(key.as_str().to_owned()),
            Self::Schedule(schedule) => ask::query(
                "INSERT INTO hodei.schedule (tenant, name, rule, spec) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tenant, name) DO UPDATE SET rule = excluded.rule, spec = excluded.spec",
            )
            .bind(tenant)
            .bind(schedule.name.as_str().to_owned())
            .bind(schedule.rule.to_string())
            .bind(spec_bytes(&schedule.spec)),
            Self::NoSchedule(_, name) => {
                ask::query("DELETE FROM hodei.schedule WHERE tenant = $1 AND name = $2")
                    .bind(tenant)
                    .bind(name.as_str().to_owned())
            }
        };
        let done = query.execute(&mut *work.conn).await.map_err(failed(OP))?;
        Ok(done.rows_affected() > 0)
    }
}

/// The name of a tenant in scope; nothing for everybody.
pub(crate) fn tenant_name(scope: &Scope) -> Option<String> {
    match scope {
        Scope::All => None,
        Scope::Tenant(tenant) => Some(tenant.as_str().to_owned()),
    }
}

impl Inner {
    /// Reads rows of a scope; the statement takes the tenant's name, or NULL for everybody's.
    async fn listed(self: &Arc<Self>, sql: &'static str, scope: &Scope) -> Result<Vec<PgRow>> {
        let tenant = tenant_name(scope);
        reading!(self, OP, scope, conn => {
            self.trip();
            ask::query(sql).bind(&tenant).fetch_all(&mut *conn).await.map_err(failed(OP))
        })
    }
}

fn tenant_at(row: &PgRow, n: usize) -> Result<Tenant> {
    Ok(Tenant::from(name_of(column::<&str>(row, n)?)?))
}

fn number(row: &PgRow, n: usize) -> Result<u32> {
    Ok(u32::try_from(column::<i64>(row, n)?).unwrap_or_default())
}

#[async_trait]
impl Policies for PgStore {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        if policy.weight == 0 {
            return Err(Error::invalid("store.set_queue", vec![Fault::new("weight", "zero")]));
        }
        self.inner().write("store.set_queue", Setting::Queue(policy)).await?;
        Ok(())
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        let rows = self
            .inner()
            .listed(
                "SELECT t.name, q.queue, q.paused, q.weight FROM hodei.queue q JOIN hodei.tenant t ON t.no = q.tenant
                 WHERE $1::text IS NULL OR t.name = $1 ORDER BY 1, 2",
                scope,
            )
            .await?;
        rows.iter()
            .map(|row| {
                let (tenant, queue) = (tenant_at(row, 0)?, name_of(column::<&str>(row, 1)?)?);
                Ok(QueuePolicy { tenant, queue, paused: column(row, 2)?, weight: number(row, 3)? })
            })
            .collect()
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        let LimitOf::Key(tenant, key) = limit.of else {
            return Err(Error::new(ErrorKind::Config, "store.set_limit").with("of", limit.of));
        };
        self.inner().write("store.set_limit", Setting::Limit(tenant, key, Some(limit.max))).await?;
        Ok(())
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        let LimitOf::Key(tenant, key) = of else { return Ok(false) };
        let setting = Setting::Limit(tenant.clone(), key.clone(), None);
        Ok(self.inner().write("store.remove_limit", setting).await?.0)
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        let rows = self
            .inner()
            .listed(
                "SELECT t.name, u.key, u.most, u.in_use FROM hodei.usage u JOIN hodei.tenant t ON t.no = u.tenant
                 WHERE u.most IS NOT NULL AND ($1::text IS NULL OR t.name = $1) ORDER BY 1, 2",
                scope,
            )
            .await?;
        rows.iter()
            .map(|row| {
                let (tenant, key) = (tenant_at(row, 0)?, name_of(column::<&str>(row, 1)?)?);
                let limit = Limit::key(tenant, key, number(row, 2)?);
                Ok(LimitUse { limit, in_use: number(row, 3)? })
            })
            .collect()
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        self.inner().write("store.set_schedule", Setting::Schedule(schedule)).await?;
        Ok(())
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        let setting = Setting::NoSchedule(tenant.clone(), name.clone());
        Ok(self.inner().write("store.remove_schedule", setting).await?.0)
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        let rows = self
            .inner()
            .listed(
                "SELECT t.name, s.name, s.rule, s.spec, s.last_fired
                 FROM hodei.schedule s JOIN hodei.tenant t ON t.no = s.tenant
                 WHERE $1::text IS NULL OR t.name = $1 ORDER BY 1, 2",
                scope,
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Schedule {
                    tenant: tenant_at(row, 0)?,
                    name: name_of(column::<&str>(row, 1)?)?,
                    rule: Arc::from(column::<&str>(row, 2)?),
                    spec: Arc::new(spec_of(column::<&[u8]>(row, 3)?)?),
                    last_fired: column::<Option<i64>>(row, 4)?.map(Timestamp::from_micros),
                })
            })
            .collect()
    }
}
