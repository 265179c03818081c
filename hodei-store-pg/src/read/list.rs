//! Lists of jobs, by the time of their creation.

use std::sync::Arc;

use hodei_core::job::State;
use hodei_core::store::{Cursor, Order, Page, Query, Scope};
use hodei_core::{Error, ErrorKind, Fault, JobId, Result, Timestamp};
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
/// How many jobs are looked at for a page where another way is tried after that.
const FIRST: u64 = 2_000;
/// How many times as many jobs are looked at where those before were too few.
const MORE: u64 = 4;
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
    /// How many were looked at.
    looked: u64,
}

/// Where the jobs of a list are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Among those of a pipeline.
    Pipeline,
    /// By an index of where the jobs of a state are, in the order of their births.
    Births(State),
    /// Where the jobs of a state are: all of them are looked at.
    Place(State),
    /// Among all of the tenant, or of everybody; so many are looked at.
    Walk(u64),
}

impl Way {
    /// Chooses between looking at all jobs of a state and looking through all jobs for them, by how many there are: of the
    /// state in the scope, where it is looked for, and of any state in the scope. What is found in no time, if they lie as
    /// close together everywhere, comes first, and the other way where they do not.
    fn to(wanted: u64, of_scope: u64, of_all: u64, total: u64, state: State) -> Vec<Self> {
        let walk = wanted.saturating_mul(total.max(of_scope) / of_scope.max(1)).min(total);
        let some = Self::Walk((2 * walk).clamp(2 * wanted, EXAMINED_MAX.max(2 * wanted)));
        match of_all <= FEW {
            true if walk.saturating_mul(CHEAPER) >= of_all => vec![Self::Place(state)],
            true => vec![some, Self::Place(state)],
            false => vec![some],
        }
    }

    /// The way to a list that needs no look at how many jobs there are.
    fn known(query: &Query) -> Option<Self> {
        match (query.pipeline, query.state) {
            (Some(_), _) => Some(Self::Pipeline),
            (None, Some(state @ (State::Blocked | State::Pending | State::Failed | State::Cancelled))) => {
                Some(Self::Births(state))
            }
            (None, _) => None,
        }
    }

    /// How many jobs are looked at first.
    fn examined(self, scope: &Scope, query: &Query) -> u64 {
        // One more than asked for, to know whether there are more.
        let wanted = query.limit as u64 + 1;
        let by_name = query.queue.is_some() || query.name.is_some();
        let filtered = by_name || !matches!(scope, Scope::All);
        let each = match self {
            Self::Walk(n) => return n.min(EXAMINED_MAX.max(2 * wanted)),
            Self::Births(_) if by_name => EXAMINED,
            Self::Births(_) => 1,
            Self::Pipeline if query.state.is_some() => EXAMINED,
            Self::Pipeline | Self::Place(_) if filtered => EXAMINED,
            Self::Pipeline | Self::Place(_) => 1,
        };
        (wanted * each).min(EXAMINED_MAX.max(2 * wanted))
    }
}

/// One statement for each order. `$1`, `$2`: the place to go on from; `$3`: how many are looked at; `$4` to `$6`:
/// tenant, queue, name; `$7`: pipeline; `$8`: state.
macro_rules! listed {
    ($from:literal, $where:literal, $wanted:literal, $compare:literal, $order:literal) => {
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
                     AND ($6::text IS NULL OR raw.name = $6)",
            $wanted,
            "
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
        both!($from, $where, "")
    };
    ($from:literal, $where:literal, $wanted:literal) => {
        (listed!($from, $where, $wanted, ">", "ASC"), listed!($from, $where, $wanted, "<", "DESC"))
    };
}

/// The statements for a way: oldest first, newest first.
fn statements(way: Way) -> (&'static str, &'static str) {
    match way {
        Way::Births(_) => (
            "SELECT * FROM hodei.listed_in(false, $1, $2, $3, $4, $5, $6, CASE WHEN $7::uuid IS NULL THEN $8::int2 END)",
            "SELECT * FROM hodei.listed_in(true, $1, $2, $3, $4, $5, $6, CASE WHEN $7::uuid IS NULL THEN $8::int2 END)",
        ),
        Way::Walk(_) => (
            "SELECT * FROM hodei.listed(false, $1, $2, $3, $4, $5, $6, CASE WHEN $7::uuid IS NULL THEN $8::int2 END)",
            "SELECT * FROM hodei.listed(true, $1, $2, $3, $4, $5, $6, CASE WHEN $7::uuid IS NULL THEN $8::int2 END)",
        ),
        Way::Pipeline => both!(
            "hodei.job j",
            "j.pipeline = $7",
            " AND ($8::int2 IS NULL OR $8 = coalesce((SELECT d.state FROM hodei.done d WHERE d.id = raw.id),
                 (SELECT CASE WHEN h.running THEN 3 ELSE 2 END FROM hodei.leased h WHERE h.id = raw.id),
                 (SELECT 0 FROM hodei.blocked b WHERE b.id = raw.id), 1))"
        ),
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
        Way::Place(State::Succeeded) => both!(
            "hodei.done p JOIN hodei.job j ON j.id = p.id",
            "($7::uuid IS NULL) AND p.state = 4 AND ($8::int2 IS NOT NULL)"
        ),
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
        if let Some(way) = Way::known(query) {
            let page = reading!(self, OP, scope, conn => self.gathered(&mut conn, scope, query, after, way, EXAMINED_MAX).await)?;
            if let Some(page) = page {
                return Ok(page);
            }
        }
        let ways = self.ways(scope, query).await?;
        let (mut page, mut left) = (Page { jobs: Vec::new(), next: None }, ways.len());
        for way in ways {
            left -= 1;
            let most = if left > 0 { FIRST } else { EXAMINED_MAX };
            page = reading!(self, OP, scope, conn => {
                self.gathered(&mut conn, scope, query, after, way, most).await
            })?
            .ok_or_else(|| Error::new(ErrorKind::Bug, OP).with("way", format!("{way:?}")))?;
            if page.jobs.len() == query.limit || page.next.is_none() {
                break;
            }
        }
        Ok(page)
    }

    /// Finds out where the jobs of a list are to be looked for by how many there are, one after the other where a page is not
    /// full; nowhere, where there are none.
    async fn ways(self: &Arc<Self>, scope: &Scope, query: &Query) -> Result<Vec<Way>> {
        // One more than asked for, to know whether there are more.
        let wanted = query.limit as u64 + 1;
        let by_name = query.queue.is_some() || query.name.is_some();
        let Some(state) = query.state else {
            let each = if by_name { EXAMINED } else { 1 };
            return Ok(vec![Way::Walk((wanted * each).min(EXAMINED_MAX.max(wanted)))]);
        };
        let counts = self.counts(scope).await?;
        let of_scope = counts.of(state);
        if of_scope == 0 {
            return Ok(Vec::new());
        }
        let all = match scope {
            Scope::All => counts,
            Scope::Tenant(_) => self.counts(&Scope::All).await?,
        };
        // What succeeded has no place for itself.
        let of_all = match state {
            State::Succeeded => {
                State::ALL.iter().filter(|state| state.is_terminal()).map(|state| all.of(*state)).sum()
            }
            _ => all.of(state),
        };
        let of_all = of_all.max(of_scope);
        let wanted = if by_name { (wanted * EXAMINED).min(EXAMINED_MAX / 2).max(wanted) } else { wanted };
        Ok(Way::to(wanted, of_scope, of_all, counts.total(), state))
    }

    /// Reads a page; nothing where it cannot be read this way. Where too few of the jobs that are looked at are in the list,
    /// several times as many are looked at next, until they are as many as a page may look at.
    async fn gathered(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        query: &Query,
        mut after: Option<Key>,
        way: Way,
        most: u64,
    ) -> Result<Option<Page>> {
        let mut examined = way.examined(scope, query);
        let mut left = most.max(examined);
        let mut page = Page { jobs: Vec::new(), next: None };
        loop {
            let Some(found) = self.keys(conn, scope, query, after, way, examined.min(left)).await? else {
                return Ok(None);
            };
            let (looked, last) = (found.looked, found.last);
            let full = self.fill(conn, scope, query, found, &mut page).await?;
            left = left.saturating_sub(looked);
            // By an index it is soon known whether there is one more.
            let enough = page.jobs.len() == query.limit && !matches!(way, Way::Births(_));
            if full || enough || last.is_none() || left == 0 {
                return Ok(Some(page));
            }
            (after, examined) = (last, examined.saturating_mul(MORE));
        }
    }

    /// Finds jobs that may be in the list; nothing where they cannot be found this way.
    async fn keys(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        query: &Query,
        after: Option<Key>,
        way: Way,
        examined: u64,
    ) -> Result<Option<Found>> {
        let (oldest, newest) = statements(way);
        let (sql, start) = match query.order {
            Order::OldestFirst => (oldest, (i64::MIN, Uuid::nil())),
            Order::NewestFirst => (newest, (i64::MAX, Uuid::max())),
        };
        let (at, id) = after.unwrap_or(start);
        let examined = i64::try_from(examined).unwrap_or(i64::MAX);
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
            let (Some(at), Some(id)) = (column(row, 0)?, column(row, 1)?) else { return Ok(None) };
            let key = (at, id);
            last = Some(key);
            if column(row, 2)? {
                keys.push(key);
            }
        }
        let more = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= examined;
        Ok(Some(Found { keys, last: last.filter(|_| more), looked: rows.len() as u64 }))
    }

    /// Reads the jobs that were found, as far as the page reaches, and says whether there is one beyond it.
    async fn fill(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        query: &Query,
        found: Found,
        page: &mut Page,
    ) -> Result<bool> {
        let mut last = None;
        for keys in found.keys.chunks(query.limit.saturating_add(1)) {
            let ids: Vec<JobId> = keys.iter().map(|key| id_of(key.1)).collect();
            let records = self.read_records(OP, conn, keys.iter().map(|key| key.1).collect()).await?;
            for (key, record) in keys.iter().zip(in_order(records, &ids)) {
                if page.jobs.len() == query.limit {
                    // Or behind what was looked at before.
                    page.next = last.map(cursor_of).or_else(|| page.next.take());
                    return Ok(true);
                }
                last = Some(*key);
                let summary = record.map(|record| record.job.summary());
                page.jobs.extend(summary.filter(|job| scope.covers(&job.tenant) && query.matches(job)));
            }
        }
        page.next = found.last.map(cursor_of);
        Ok(false)
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
