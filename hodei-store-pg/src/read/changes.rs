//! The change log, below the horizon.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::store::{Change, ChangePage, Cursor, Scope};
use hodei_core::{Error, ErrorKind, Fault, Result, Tenant, Timestamp};
use sqlx::postgres::PgRow;

use crate::ask;
use crate::codec::{damaged, read_changes};
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::record::distinct;

const OP: &str = "store.changes";

/// How many rows of the log a page looks at at most.
const ROWS_MAX: usize = 1_000;
/// How often a reader that comes to the end looks again where there is more that is not complete yet: transactions that
/// begin earlier mostly end within milliseconds, and many are of another kind.
pub(crate) const LOOKS: u32 = 20;
/// How long it waits in between.
pub(crate) const LOOK: Duration = Duration::from_millis(1);

/// Whether something is committed that stands behind the horizon, which is asked for once: it may fall while it is read.
macro_rules! horizon {
    () => {
        "WITH z AS MATERIALIZED (SELECT hodei.horizon() AS h), \
         b AS (SELECT EXISTS (SELECT 1 FROM hodei.change WHERE pos >= (SELECT h FROM z)) AS more) "
    };
}

/// A place in the log: so many changes of the row (pos, no) are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pos: i64,
    no: i64,
    skip: i32,
}

impl Place {
    fn cursor(self) -> Cursor {
        let mut bytes = Vec::with_capacity(20);
        bytes.extend_from_slice(&self.pos.to_be_bytes());
        bytes.extend_from_slice(&self.no.to_be_bytes());
        bytes.extend_from_slice(&self.skip.to_be_bytes());
        Cursor::from_bytes(bytes)
    }

    fn of(cursor: &Cursor) -> Result<Self> {
        let bad = || Error::invalid("store.cursor", vec![Fault::new("cursor", "not_of_this_list")]);
        let bytes: &[u8; 20] = cursor.as_bytes().try_into().map_err(|_| bad())?;
        let (pos, rest) = bytes.split_first_chunk::<8>().ok_or_else(bad)?;
        let (no, skip) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
        let skip = skip.try_into().map_err(|_| bad())?;
        Ok(Self {
            pos: i64::from_be_bytes(*pos),
            no: i64::from_be_bytes(*no),
            skip: i32::from_be_bytes(skip),
        })
    }

    fn at(row: &PgRow, first: usize) -> Result<Option<Self>> {
        match column::<Option<i64>>(row, first)? {
            Some(pos) => Ok(Some(Self { pos, no: column(row, first + 1)?, skip: column(row, first + 2)? })),
            None => Ok(None),
        }
    }
}

impl Inner {
    /// Reads what other processes have recorded after a place; of the end of the log only where it is. Says how far that
    /// is, and whether there may be more.
    pub(crate) async fn foreign(
        self: &Arc<Self>,
        after: Option<Place>,
    ) -> Result<(Vec<Change>, Place, bool)> {
        let Some(after) = after else {
            let end = Place::of(&self.changes_end().await?)?;
            return Ok((Vec::new(), end, false));
        };
        let (rows, tenants) = reading!(self, OP, conn => {
            self.trip();
            let rows = ask::query(concat!(
                horizon!(),
                "SELECT c.pos, c.no, c.n, c.at, c.node, c.tenant, c.body, b.more FROM b LEFT JOIN LATERAL (
                     SELECT pos, no, n, at, node, tenant, body FROM hodei.change
                     WHERE pos >= $1 AND (pos, no) > ($1, $2) AND pos < (SELECT h FROM z) ORDER BY pos, no LIMIT $3
                 ) c ON true ORDER BY c.pos, c.no"
            ))
            .bind(after.pos)
            .bind(after.no)
            .bind(i64::try_from(ROWS_MAX).unwrap_or(i64::MAX))
            .fetch_all(&mut *conn)
            .await
            .map_err(failed(OP))?;
            let mut tenants: Vec<i32> = Vec::new();
            for row in &rows {
                tenants.extend(column::<Option<i32>>(row, 5)?);
            }
            let tenants = conn.names().load_tenants(&mut conn, &distinct(tenants)).await?;
            Ok((rows, tenants))
        })?;
        let (mut changes, mut place, mut more) = (Vec::new(), after, rows.len() == ROWS_MAX);
        for row in &rows {
            more |= column::<bool>(row, 7)?;
            let Some(found) = Place::at(row, 0)? else { continue };
            place = found;
            if column::<i64>(row, 4)? != self.node {
                let tenant = tenants.get(&column(row, 5)?);
                let tenant = tenant.ok_or_else(|| damaged("a tenant without a row"))?;
                let at = Timestamp::from_micros(column(row, 3)?);
                changes.extend(read_changes(column(row, 6)?, tenant, at)?);
            }
        }
        Ok((changes, place, more))
    }

    pub(crate) async fn changes_end(self: &Arc<Self>) -> Result<Cursor> {
        let mut looks = 0;
        loop {
            looks += 1;
            let row = reading!(self, OP, conn => {
                self.trip();
                ask::query(concat!(
                    horizon!(),
                    "SELECT f.pos, f.no, f.skip, e.pos, e.no, e.n, b.more FROM b, hodei.change_floor f
                     LEFT JOIN LATERAL (
                         SELECT pos, no, n FROM hodei.change WHERE pos < (SELECT h FROM z)
                         ORDER BY pos DESC, no DESC LIMIT 1
                     ) e ON true"
                ))
                .fetch_one(&mut *conn)
                .await
                .map_err(failed(OP))
            })?;
            if looks == LOOKS || !column::<bool>(&row, 6)? {
                return Ok(Place::at(&row, 0)?.max(Place::at(&row, 3)?).unwrap_or_default().cursor());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) async fn changes(
        self: &Arc<Self>,
        scope: &Scope,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<ChangePage> {
        if limit == 0 {
            return Err(Error::invalid(OP, vec![Fault::new("limit", "zero")]));
        }
        let after = after.map(Place::of).transpose()?;
        let most = limit.min(ROWS_MAX).saturating_add(1);
        let mut looks = 0;
        let (rows, tenants) = loop {
            looks += 1;
            let (rows, tenants) = self.log_rows(scope, after, most).await?;
            let more = rows.first().map(|row| column::<bool>(row, 11)).transpose()?;
            if looks == LOOKS || rows.len() >= most || more != Some(true) {
                break (rows, tenants);
            }
            tokio::time::sleep(LOOK).await;
        };
        let first = rows.first().ok_or_else(|| damaged("a log without a floor"))?;
        let floor = Place::at(first, 0)?.unwrap_or_default();
        let end = Place::at(first, 3)?.unwrap_or_default().max(floor);
        let from = after.unwrap_or(floor);
        if from < floor {
            return Err(Error::new(ErrorKind::CursorExpired, OP));
        }
        let (mut changes, mut next) = (Vec::new(), from);
        let mut found = 0;
        for row in &rows {
            let Some(pos) = column::<Option<i64>>(row, 6)? else { continue };
            found += 1;
            let at = Place { pos, no: column(row, 7)?, skip: 0 };
            let tenant = tenants.get(&column(row, 9)?).ok_or_else(|| damaged("a tenant without a row"))?;
            let all = read_changes(column(row, 10)?, tenant, Timestamp::from_micros(column(row, 8)?))?;
            let behind = if (from.pos, from.no) == (at.pos, at.no) { from.skip } else { 0 };
            let behind = usize::try_from(behind).unwrap_or_default();
            let room = limit - changes.len();
            let taken = all.len().saturating_sub(behind).min(room);
            changes.extend(all.into_iter().skip(behind).take(taken));
            if taken > 0 {
                next = Place { skip: i32::try_from(behind + taken).unwrap_or(i32::MAX), ..at };
            }
            if changes.len() == limit {
                return Ok(ChangePage { changes, next: next.cursor() });
            }
        }
        // Everything that is there was seen, be it another tenant's.
        if found < most {
            next = next.max(end);
        }
        Ok(ChangePage { changes, next: next.cursor() })
    }

    /// Reads the floor, the end, and rows after a place, in one snapshot; a row of the reply at least.
    async fn log_rows(
        self: &Arc<Self>,
        scope: &Scope,
        after: Option<Place>,
        most: usize,
    ) -> Result<(Vec<PgRow>, HashMap<i32, Tenant>)> {
        let from = after.unwrap_or(Place { pos: i64::MIN, no: 0, skip: 0 });
        reading!(self, OP, scope, conn => {
            let tenant = match scope {
                Scope::All => None,
                // Of a tenant that is not known there are no changes.
                Scope::Tenant(tenant) => Some(conn.names().find_tenant(&mut conn, tenant).await?.unwrap_or(0)),
            };
            self.trip();
            let rows = ask::query(concat!(
                horizon!(),
                "SELECT f.pos, f.no, f.skip, e.pos, e.no, e.n, c.pos, c.no, c.at, c.tenant, c.body, b.more
                 FROM b, hodei.change_floor f LEFT JOIN LATERAL (
                     SELECT pos, no, n FROM hodei.change WHERE pos < (SELECT h FROM z)
                     ORDER BY pos DESC, no DESC LIMIT 1
                 ) e ON true LEFT JOIN LATERAL (
                     SELECT pos, no, at, tenant, body FROM hodei.change
                     WHERE pos >= greatest($1, f.pos) AND (pos, no) >= (greatest($1, f.pos), CASE WHEN $1 > f.pos THEN $2
                             WHEN $1 = f.pos THEN greatest($2, f.no) ELSE f.no END)
                         AND pos < (SELECT h FROM z) AND ($4::int4 IS NULL OR tenant = $4)
                     ORDER BY pos, no LIMIT $3
                 ) c ON true ORDER BY c.pos, c.no"
            ))
            .bind(from.pos)
            .bind(from.no)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .bind(tenant)
            .fetch_all(&mut *conn)
            .await
            .map_err(failed(OP))?;
            self.read(rows.len());
            let mut tenants: Vec<i32> = Vec::new();
            for row in &rows {
                tenants.extend(column::<Option<i32>>(row, 9)?);
            }
            let tenants = conn.names().load_tenants(&mut conn, &distinct(tenants)).await?;
            Ok((rows, tenants))
        })
    }
}
