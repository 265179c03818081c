//! Queues, limits and schedules.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::store::{Limit, LimitOf, LimitUse, Policies, QueuePolicy, Rate, Schedule, Scope, Spent};
use hodei_core::text::Texts;
use hodei_core::{Error, Fault, Name, Result, Tenant, Timestamp};
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

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
    Limit(Limit),
    NoLimit(LimitOf),
    Schedule(Schedule),
    NoSchedule(Tenant, Name),
}

impl Setting {
    /// Whose it is; nothing for everybody's.
    fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Queue(policy) => Some(&policy.tenant),
            Self::Limit(limit) => limit.of.tenant(),
            Self::NoLimit(of) => of.tenant(),
            Self::Schedule(schedule) => Some(&schedule.tenant),
            Self::NoSchedule(tenant, _) => Some(tenant),
        }
    }
}

#[async_trait]
impl Verb for Setting {
    type Reply = bool;

    async fn prepare(&mut self, _: &Inner, conn: &mut Conn) -> Result<()> {
        if let Some(tenant) = self.tenant() {
            conn.names().make_tenant(conn, tenant).await?;
        }
        Ok(())
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<bool> {
        work.readied = matches!(self, Self::Queue(_) | Self::Limit(_) | Self::NoLimit(_));
        work.rows += 1;
        let inner = Arc::clone(work.inner());
        inner.trip();
        let tenant = match self.tenant() {
            // It was made before, and committed.
            Some(tenant) => {
                let no = work.at.names.find_tenant(&mut *work.conn, tenant).await?;
                no.ok_or_else(|| damaged("a tenant without a row"))?
            }
            None => ALL,
        };
        let query = match self {
            Self::Queue(policy) => ask::query(
                "INSERT INTO hodei.queue (tenant, queue, paused, weight) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tenant, queue) DO UPDATE SET paused = excluded.paused, weight = excluded.weight",
            )
            .bind(tenant)
            .bind(policy.queue.as_str().to_owned())
            .bind(policy.paused)
            .bind(i64::from(policy.weight)),
            Self::Limit(Limit { of, max, .. }) => limit(tenant, of, Some(*max)),
            Self::NoLimit(of) => limit(tenant, of, None),
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
        // The row of the limit is locked now: whoever claims waits.
        match self {
            Self::Limit(limit) => pace(work, tenant, &limit.of, limit.rate).await?,
            Self::NoLimit(of) => pace(work, tenant, of, None).await?,
            Self::Queue(_) | Self::Schedule(_) | Self::NoSchedule(..) => {}
        }
        Ok(done.rows_affected() > 0)
    }
}

/// The number that stands for all tenants in the rows of limits.
const ALL: i32 = 0;

/// The statement that sets a limit or removes it.
fn limit(tenant: i32, of: &LimitOf, max: Option<u32>) -> Query<'static, Postgres, PgArguments> {
    let queue = match of {
        LimitOf::All | LimitOf::Tenant(_) => String::new(),
        LimitOf::Queue(_, queue) => queue.as_str().to_owned(),
        LimitOf::Key(_, key) => {
            let query = match max {
                Some(_) => ask::query(
                    "INSERT INTO hodei.usage (tenant, key, most) VALUES ($1, $2, $3)
                     ON CONFLICT (tenant, key) DO UPDATE SET most = excluded.most",
                ),
                // The row stays: it counts what is leased.
                None => ask::query(
                    "UPDATE hodei.usage SET most = $3 WHERE tenant = $1 AND key = $2 AND most IS NOT NULL",
                ),
            };
            return query.bind(tenant).bind(key.as_str().to_owned()).bind(max.map(i64::from));
        }
    };
    match max {
        Some(max) => {
            ask::query("SELECT hodei.set_wide($1, $2, $3)").bind(tenant).bind(queue).bind(i64::from(max))
        }
        None => {
            ask::query("DELETE FROM hodei.wide WHERE tenant = $1 AND queue = $2").bind(tenant).bind(queue)
        }
    }
}

/// Gives a limit its rate, or takes it away; what is spent stays spent.
async fn pace(work: &mut Work<'_>, tenant: i32, of: &LimitOf, rate: Option<Rate>) -> Result<()> {
    let (name, find, put) = match of {
        LimitOf::Key(_, key) => (
            key.as_str(),
            "SELECT tokens, per, burst, hodei.full_by(full_at, spent_at, n.now), n.now
             FROM hodei.usage, hodei.now() n (now) WHERE tenant = $1 AND key = $2",
            "UPDATE hodei.usage SET tokens = $3, per = $4, burst = $5, gap = $6, full_at = $7, spent_at = $8
             WHERE tenant = $1 AND key = $2",
        ),
        wide => (
            if let LimitOf::Queue(_, queue) = wide { queue.as_str() } else { "" },
            "SELECT tokens, per, burst, hodei.full_by(full_at, spent_at, n.now), n.now
             FROM hodei.wide, hodei.now() n (now) WHERE tenant = $1 AND queue = $2",
            "UPDATE hodei.wide SET tokens = $3, per = $4, burst = $5, gap = $6, full_at = $7, spent_at = $8
             WHERE tenant = $1 AND queue = $2",
        ),
    };
    work.inner().trip();
    let row = ask::query(find).bind(tenant).bind(name).fetch_optional(&mut *work.conn).await;
    // One that was removed may have no row any more.
    let Some(row) = row.map_err(failed(OP))? else { return Ok(()) };
    let (before, now) = (rate_of(&row, 0)?, Timestamp::from_micros(column(&row, 4)?));
    let spent =
        |rate: Rate| before.map_or_else(Spent::default, |(of, spent)| rate.instead_of(&of, spent, now));
    let after = rate.map(|rate| (rate, spent(rate)));
    if before == after {
        return Ok(());
    }
    let nanos = |rate: Rate| i64::try_from(rate.per.as_nanos()).unwrap_or(i64::MAX);
    work.inner().trip();
    let set = ask::query(put)
        .bind(tenant)
        .bind(name)
        .bind(rate.map(|rate| i64::from(rate.tokens)))
        .bind(rate.map(nanos))
        .bind(rate.map(|rate| i64::from(rate.burst)))
        .bind(rate.map(|rate| rate.gap()))
        .bind(after.map(|(_, spent)| spent.as_nanos()))
        .bind(after.map(|_| now.as_micros()));
    set.execute(&mut *work.conn).await.map_err(failed(OP)).map(drop)
}

/// Reads a rate, and what is spent of it, from four columns; nothing where they are absent.
fn rate_of(row: &PgRow, n: usize) -> Result<Option<(Rate, Spent)>> {
    let Some(tokens) = column::<Option<i64>>(row, n)? else { return Ok(None) };
    let bad = |_| damaged("a bad rate");
    let per = Duration::from_nanos(u64::try_from(column::<i64>(row, n + 1)?).map_err(bad)?);
    let burst = u32::try_from(column::<i64>(row, n + 2)?).map_err(bad)?;
    let rate = Rate::new(u32::try_from(tokens).map_err(bad)?, per).burst(burst);
    Ok(Some((rate, Spent::until_nanos(column(row, n + 3)?))))
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

fn queue_policy(row: &PgRow) -> Result<QueuePolicy> {
    let (tenant, queue) = (tenant_at(row, 0)?, name_of(column::<&str>(row, 1)?)?);
    Ok(QueuePolicy { tenant, queue, paused: column(row, 2)?, weight: number(row, 3)? })
}

fn limit_use(row: &PgRow) -> Result<LimitUse> {
    let at = |n| column::<Option<&str>>(row, n)?.map(name_of).transpose();
    let of = match (at(0)?.map(Tenant::from), at(1)?, at(2)?) {
        (None, ..) => LimitOf::All,
        (Some(tenant), Some(queue), _) => LimitOf::Queue(tenant, queue),
        (Some(tenant), None, Some(key)) => LimitOf::Key(tenant, key),
        (Some(tenant), None, None) => LimitOf::Tenant(tenant),
    };
    let (rate, spent) = rate_of(row, 5)?.unzip();
    let limit = Limit { of, max: number(row, 3)?, rate };
    Ok(LimitUse { limit, in_use: number(row, 4)?, spent: spent.unwrap_or_default() })
}

fn limit_uses(rows: &[PgRow]) -> Result<Vec<LimitUse>> {
    let mut uses = rows.iter().map(limit_use).collect::<Result<Vec<_>>>()?;
    uses.sort_unstable_by(|a, b| a.limit.of.cmp(&b.limit.of));
    Ok(uses)
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
        rows.iter().map(queue_policy).collect()
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        let (inner, scope) = (self.inner(), &Scope::Tenant(tenant.clone()));
        let row = reading!(inner, OP, scope, conn => {
            inner.trip();
            let query = ask::query(
                "SELECT t.name, q.queue, q.paused, q.weight FROM hodei.tenant t JOIN hodei.queue q ON q.tenant = t.no
                 WHERE t.name = $1 AND q.queue = $2",
            );
            query.bind(tenant.as_str()).bind(queue.as_str()).fetch_optional(&mut *conn).await.map_err(failed(OP))
        });
        row?.as_ref().map(queue_policy).transpose()
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        limit.check()?;
        self.inner().write("store.set_limit", Setting::Limit(limit)).await?;
        Ok(())
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        Ok(self.inner().write("store.remove_limit", Setting::NoLimit(of.clone())).await?.0)
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        let rows = self
            .inner()
            .listed(
                "SELECT t.name, NULL, u.key, u.most,
                     u.in_use - coalesce((SELECT sum(f.n)::int8 FROM hodei.freed f WHERE f.no = u.no), 0),
                     u.tokens, u.per, u.burst, u.full_at
                     FROM hodei.usage u JOIN hodei.tenant t ON t.no = u.tenant
                     WHERE u.most IS NOT NULL AND ($1::text IS NULL OR t.name = $1)
                 UNION ALL
                     SELECT t.name, nullif(w.queue, ''), NULL, w.most, w.in_use, w.tokens, w.per, w.burst, w.full_at
                     FROM hodei.wide w LEFT JOIN hodei.tenant t ON t.no = w.tenant
                     WHERE $1::text IS NULL OR w.tenant = 0 OR t.name = $1",
                scope,
            )
            .await?;
        limit_uses(&rows)
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        let keys: Vec<&str> = keys.iter().collect();
        let (inner, scope) = (self.inner(), &Scope::Tenant(tenant.clone()));
        let rows = reading!(inner, OP, scope, conn => {
            inner.trip();
            let query = ask::query(
                "SELECT t.name, NULL, u.key, u.most,
                     u.in_use - coalesce((SELECT sum(f.n)::int8 FROM hodei.freed f WHERE f.no = u.no), 0),
                     u.tokens, u.per, u.burst, u.full_at
                     FROM hodei.tenant t JOIN hodei.usage u ON u.tenant = t.no
                     WHERE t.name = $1 AND u.key = ANY ($3) AND u.most IS NOT NULL
                 UNION ALL
                     SELECT t.name, nullif(w.queue, ''), NULL, w.most, w.in_use, w.tokens, w.per, w.burst, w.full_at
                     FROM hodei.wide w LEFT JOIN hodei.tenant t ON t.no = w.tenant
                     WHERE w.queue IN ('', $2) AND (w.tenant = 0 OR t.name = $1)",
            );
            query.bind(tenant.as_str()).bind(queue.as_str()).bind(&keys).fetch_all(&mut *conn).await.map_err(failed(OP))
        });
        limit_uses(&rows?)
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
