//! Lists of jobs, by the time of their creation.

use std::sync::Arc;

use hodei_core::job::{JobSummary, State};
use hodei_core::store::{Cursor, Order, Page, Query, Scope};
use hodei_core::{Error, Fault, JobId, Result, Timestamp};
use uuid::Uuid;

use crate::ask;
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::pool::Conn;
use crate::record::{id_of, in_order, uuid_of};

const OP: &str = "store.query";

/// How many jobs a page looks at at most before it is returned short.
const EXAMINED_MAX: i64 = 10_000;
/// Up to how many jobs of a state are looked for by their state, and not among all.
const FEW: u64 = 20_000;

/// The place of a job in a list.
type Key = (i64, Uuid);

/// What a statement found: the places of jobs that may be in the list, in its order, and how far it looked.
struct Found {
    keys: Vec<Key>,
    /// The last job that was looked at, where there may be more behind it.
    last: Option<Key>,
}

/// One statement for each order. `$1`, `$2`: the place to go on from; `$3`: how many are looked at; `$4` to `$6`:
/// tenant, queue, name; `$7`: pipeline; `$8`: state.
macro_rules! listed {
    ($from:literal, $where:literal, $compare:literal, $order:literal) => {
        concat!(
            "WITH raw AS MATERIALIZED (SELECT j.id, j.created_at, j.tenant, j.lane, j.name FROM ",
            $from,
            " WHERE (j.created_at, j.id) ",
            $compare,
            " ($1, $2) AND ",
            $where,
            " ORDER BY j.created_at ",
            $order,
            ", j.id ",
            $order,
            " LIMIT $3)
             SELECT raw.created_at, raw.id,
                 ($4::text IS NULL OR t.name = $4) AND ($5::text IS NULL OR l.queue = $5)
                     AND ($6::text IS NULL OR raw.name = $6)
             FROM raw JOIN hodei.lane l ON l.no = raw.lane JOIN hodei.tenant t ON t.no = raw.tenant
             ORDER BY raw.created_at ",
            $order,
            ", raw.id ",
            $order
        )
    };
}

macro_rules! both {
    ($from:literal, $where:literal) => {
        (listed!($from, $where, ">", "ASC"), listed!($from, $where, "<", "DESC"))
    };
}

/// The statements for a query: oldest first, newest first.
fn statements(query: &Query, few: bool) -> (&'static str, &'static str) {
    let all = both!("hodei.job j", "($7::uuid IS NULL) AND ($8::int2 IS NULL OR true)");
    if query.pipeline.is_some() {
        return both!("hodei.job j", "j.pipeline = $7 AND ($8::int2 IS NULL OR true)");
    }
    match query.state.filter(|_| few) {
        Some(State::Blocked) => both!(
            "hodei.blocked p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND ($8::int2 IS NOT NULL)"
        ),
        Some(State::Pending) => both!(
            "(SELECT id FROM hodei.ready UNION ALL SELECT id FROM hodei.delayed) p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND ($8::int2 IS NOT NULL)"
        ),
        Some(State::Scheduled | State::Running) => {
            both!(
                "hodei.leased p JOIN hodei.job j ON j.id = p.id",
                "($7::uuid IS NULL) AND $8::int2 = CASE WHEN p.running THEN 3 ELSE 2 END"
            )
        }
        Some(State::Failed) => both!(
            "hodei.done p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND p.state = 5 AND ($8::int2 IS NOT NULL)"
        ),
        Some(State::Cancelled) => both!(
            "hodei.done p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND p.state = 6 AND ($8::int2 IS NOT NULL)"
        ),
        Some(State::Succeeded) | None => all,
    }
}

impl Inner {
    pub(crate) async fn query(self: &Arc<Self>, scope: &Scope, query: &Query) -> Result<Page> {
        if query.limit == 0 || query.limit > Query::LIMIT_MAX {
            let fault = Fault::new("limit", "out_of_range").limit(Query::LIMIT_MAX as u64);
            return Err(Error::invalid(OP, vec![fault]));
        }
        let after = query.after.as_ref().map(key_of).transpose()?;
        let few = match query.state {
            Some(state) if query.pipeline.is_none() => {
                let count = self.counts(scope).await?.of(state);
                if count == 0 {
                    return Ok(Page { jobs: Vec::new(), next: None });
                }
                count <= FEW && *scope == Scope::All || self.counts(&Scope::All).await?.of(state) <= FEW
            }
            _ => false,
        };
        reading!(self, OP, scope, conn => {
            let found = self.keys(&mut conn, scope, query, after, few).await?;
            self.page(&mut conn, scope, query, found).await
        })
    }

    /// Finds jobs that may be in the list.
    async fn keys(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        query: &Query,
        after: Option<Key>,
        few: bool,
    ) -> Result<Found> {
        let (oldest, newest) = statements(query, few);
        let (sql, start) = match query.order {
            Order::OldestFirst => (oldest, (i64::MIN, Uuid::nil())),
            Order::NewestFirst => (newest, (i64::MAX, Uuid::max())),
        };
        let (at, id) = after.unwrap_or(start);
        let filtered = !matches!(scope, Scope::All) || query.queue.is_some() || query.name.is_some();
        let filtered = filtered || (query.state.is_some() && !few);
        let wanted = i64::try_from(query.limit).unwrap_or(EXAMINED_MAX).saturating_add(1);
        let examined = if filtered { wanted.saturating_mul(16).min(EXAMINED_MAX) } else { wanted };
        self.trip();
        let rows = ask::query(sql)
            .bind(at)
            .bind(id)
            .bind(examined)
            .bind(crate::policies::tenant_name(scope))
            .bind(query.queue.as_ref().map(|name| name.as_str().to_owned()))
            .bind(query.name.as_ref().map(|name| name.as_str().to_owned()))
            .bind(query.pipeline.map(|id| Uuid::from_bytes(*id.as_bytes())))
            .bind(query.state.map(|state| state as i16))
            .fetch_all(&mut **conn)
            .await
            .map_err(failed(OP))?;
        self.read(rows.len());
        let (mut keys, mut last) = (Vec::new(), None);
        for row in &rows {
            let key = (column(row, 0)?, column(row, 1)?);
            last = Some(key);
            if column(row, 2)? {
                keys.push(key);
            }
        }
        let more = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= examined;
        Ok(Found { keys, last: last.filter(|_| more) })
    }

    /// Reads the jobs that were found, as far as the page reaches.
    async fn page(&self, conn: &mut Conn, scope: &Scope, query: &Query, found: Found) -> Result<Page> {
        let mut jobs: Vec<JobSummary> = Vec::new();
        let mut last = None;
        let size = if query.state.is_some() { found.keys.len() } else { query.limit.saturating_add(1) };
        for keys in found.keys.chunks(size.clamp(1, Query::LIMIT_MAX)) {
            let ids: Vec<JobId> = keys.iter().map(|key| id_of(key.1)).collect();
            let records = self.read_records(OP, conn, keys.iter().map(|key| key.1).collect()).await?;
            for (key, record) in keys.iter().zip(in_order(records, &ids)) {
                if jobs.len() == query.limit {
                    return Ok(Page { jobs, next: last.map(cursor_of) });
                }
                last = Some(*key);
                let summary = record.map(|record| record.job.summary());
                jobs.extend(summary.filter(|job| scope.covers(&job.tenant) && query.matches(job)));
            }
        }
        Ok(Page { jobs, next: found.last.map(cursor_of) })
    }
}

fn cursor_of((at, id): Key) -> Cursor {
    let mut bytes = at.to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    Cursor::from_bytes(bytes)
}

fn key_of(cursor: &Cursor) -> Result<Key> {
    let parts = cursor.as_bytes().split_first_chunk::<8>();
    let key = parts
        .and_then(|(at, id)| Some((Timestamp::from_micros(i64::from_be_bytes(*at)), id.try_into().ok()?)));
    let bad = || Error::invalid("store.cursor", vec![Fault::new("cursor", "not_of_this_list")]);
    key.map(|(at, id)| (at.as_micros(), uuid_of(JobId::from_bytes(id)))).ok_or_else(bad)
}
