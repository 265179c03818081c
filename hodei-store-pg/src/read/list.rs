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
const EXAMINED_MAX: u64 = 10_000;
/// How many jobs are looked at for each that is asked for, where nobody knows how many of them are wanted.
const EXAMINED: u64 = 16;
/// Up to how many jobs of a state are looked for by their state.
const FEW: u64 = 20_000;
/// How many times cheaper it has to be to look through all jobs: those of a state may lie together, far away.
const CHEAPER: u64 = 4;

/// The place of a job in a list.
type Key = (i64, Uuid);

/// What a statement found: the places of jobs that may be in the list, in its order, and how far it looked.
struct Found {
    keys: Vec<Key>,
    /// The last job that was looked at, where there may be more behind it.
    last: Option<Key>,
}

/// Where the jobs of a list are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Among those of a pipeline.
    Pipeline,
    /// Where the jobs of a state are.
    Place(State),
    /// Among all of the tenant, or of everybody; so many are looked at.
    Walk(u64),
}

impl Way {
    /// Chooses between looking at all jobs of a state and looking through all jobs for them, by how many there are: of the
    /// state in the scope and in all, and of any in the scope.
    fn to(wanted: u64, of_scope: u64, of_all: u64, total: u64, state: State) -> Self {
        let walk = wanted.saturating_mul(total.max(of_scope) / of_scope.max(1)).min(total);
        let few = of_all <= FEW && walk.saturating_mul(CHEAPER) >= of_all;
        if few && state != State::Succeeded {
            return Self::Place(state);
        }
        Self::Walk((2 * walk).clamp(2 * wanted, EXAMINED_MAX.max(2 * wanted)))
    }
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

/// The statements for a way: oldest first, newest first.
fn statements(way: Way) -> (&'static str, &'static str) {
    match way {
        // What succeeded is looked up by its id alone.
        Way::Walk(_) | Way::Place(State::Succeeded) => (
            "SELECT * FROM hodei.listed(false, $1, $2, $3, $4, $5, $6, CASE WHEN $7::uuid IS NULL THEN $8::int2 END)",
            "SELECT * FROM hodei.listed(true, $1, $2, $3, $4, $5, $6, CASE WHEN $7::uuid IS NULL THEN $8::int2 END)",
        ),
        Way::Pipeline => both!("hodei.job j", "j.pipeline = $7 AND ($8::int2 IS NULL OR true)"),
        Way::Place(State::Blocked) => both!(
            "hodei.blocked p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND ($8::int2 IS NOT NULL)"
        ),
        Way::Place(State::Pending) => both!(
            "(SELECT id FROM hodei.ready UNION ALL SELECT id FROM hodei.delayed) p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND ($8::int2 IS NOT NULL)"
        ),
        Way::Place(State::Scheduled | State::Running) => {
            both!(
                "hodei.leased p JOIN hodei.job j ON j.id = p.id",
                "($7::uuid IS NULL) AND $8::int2 = CASE WHEN p.running THEN 3 ELSE 2 END"
            )
        }
        Way::Place(State::Failed) => both!(
            "hodei.done p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND p.state = 5 AND ($8::int2 IS NOT NULL)"
        ),
        Way::Place(State::Cancelled) => both!(
            "hodei.done p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND p.state = 6 AND ($8::int2 IS NOT NULL)"
        ),
    }
}

impl Inner {
    pub(crate) async fn query(self: &Arc<Self>, scope: &Scope, query: &Query) -> Result<Page> {
        if query.limit == 0 || query.limit > Query::LIMIT_MAX {
            let fault = Fault::new("limit", "out_of_range").limit(Query::LIMIT_MAX as u64);
            return Err(Error::invalid(OP, vec![fault]));
        }
        let after = query.after.as_ref().map(key_of).transpose()?;
        let Some(way) = self.way(scope, query).await? else {
            return Ok(Page { jobs: Vec::new(), next: None });
        };
        reading!(self, OP, scope, conn => {
            let found = self.keys(&mut conn, scope, query, after, way).await?;
            self.page(&mut conn, scope, query, found).await
        })
    }

    /// Finds out where the jobs of a list are to be looked for; nowhere, where there are none.
    async fn way(self: &Arc<Self>, scope: &Scope, query: &Query) -> Result<Option<Way>> {
        if query.pipeline.is_some() {
            return Ok(Some(Way::Pipeline));
        }
        // One more than asked for, to know whether there are more.
        let wanted = query.limit as u64 + 1;
        let by_name = query.queue.is_some() || query.name.is_some();
        let Some(state) = query.state else {
            let each = if by_name { EXAMINED } else { 1 };
            return Ok(Some(Way::Walk((wanted * each).min(EXAMINED_MAX.max(wanted)))));
        };
        let counts = self.counts(scope).await?;
        let of_scope = counts.of(state);
        if of_scope == 0 {
            return Ok(None);
        }
        let of_all = match scope {
            Scope::All => of_scope,
            Scope::Tenant(_) => self.counts(&Scope::All).await?.of(state).max(of_scope),
        };
        let wanted = if by_name { (wanted * EXAMINED).min(EXAMINED_MAX / 2).max(wanted) } else { wanted };
        Ok(Some(Way::to(wanted, of_scope, of_all, counts.total(), state)))
    }

    /// Finds jobs that may be in the list.
    async fn keys(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        query: &Query,
        after: Option<Key>,
        way: Way,
    ) -> Result<Found> {
        let (oldest, newest) = statements(way);
        let (sql, start) = match query.order {
            Order::OldestFirst => (oldest, (i64::MIN, Uuid::nil())),
            Order::NewestFirst => (newest, (i64::MAX, Uuid::max())),
        };
        let (at, id) = after.unwrap_or(start);
        let filtered = !matches!(scope, Scope::All) || query.queue.is_some() || query.name.is_some();
        let wanted = query.limit as u64 + 1;
        let examined = match way {
            Way::Walk(n) => n,
            Way::Pipeline if query.state.is_some() => wanted * EXAMINED,
            Way::Pipeline | Way::Place(_) if filtered => wanted * EXAMINED,
            Way::Pipeline | Way::Place(_) => wanted,
        };
        let examined = i64::try_from(examined.min(EXAMINED_MAX.max(2 * wanted))).unwrap_or(i64::MAX);
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
        for keys in found.keys.chunks(query.limit.saturating_add(1)) {
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
