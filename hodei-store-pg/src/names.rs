//! The numbers that rows have in the place of names. They never change on one course of history of a server, so what was
//! read once is remembered with the connections to that.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use hodei_core::job::{JobSpec, Lease, Request, RequestClass};
use hodei_core::store::{Lane, Pick};
use hodei_core::{OwnerId, Result, Tenant};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::ask;
use crate::codec::{damaged, name_of, request_bytes, request_of};
use crate::error::failed;
use crate::pool::Conn;
use crate::server::Home;

const OP: &str = "store.names";

/// How many of each kind are remembered; beyond it all of the kind are forgotten.
const MOST: usize = 65_536;

/// A lane, and what its row says.
#[derive(Debug)]
pub(crate) struct LaneRow {
    pub(crate) no: i32,
    pub(crate) tenant_no: i32,
    pub(crate) lane: Lane,
    pub(crate) request: Arc<Request>,
    /// The rows of the limits that its jobs count against.
    pub(crate) limits: Vec<i32>,
}

/// What was read of names and numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    lanes: Table<Lane, Arc<LaneRow>>,
    lane_rows: Table<i32, Arc<LaneRow>>,
    tenants: Table<Tenant, i32>,
    tenant_names: Table<i32, Tenant>,
    owners: Table<i32, Lease>,
}

/// What is remembered where the server is at home.
#[derive(Debug, Default)]
pub(crate) struct Latest(Mutex<(Option<Home>, Arc<Names>)>);

impl Latest {
    /// Returns what is remembered of a course of history: nothing at first of one that is new. Who still has a connection to
    /// another one goes on with what was remembered there.
    pub(crate) fn at(&self, home: Home) -> Arc<Names> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.0 != Some(home) {
            *latest = (Some(home), Arc::default());
        }
        Arc::clone(&latest.1)
    }

    /// Says whether a course of history is another one than that which was met last.
    pub(crate) fn is_other(&self, home: Home) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.is_some_and(|last| last != home)
    }

    /// Returns what is remembered of the one that was met last.
    pub(crate) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

/// In how many parts a table is locked: readers of a small machine rarely meet in one of them, and a larger one gains little more.
const PARTS: usize = 16;

/// What every caller looks up and few write: readers do not wait for each other, nor for a writer of another part.
#[derive(Debug)]
struct Table<K: Hash + Eq, V>(DashMap<K, V>);

impl<K: Hash + Eq, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(DashMap::with_shard_amount(PARTS))
    }
}

impl<K: Hash + Eq, V: Clone> Table<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).map(|value| value.clone())
    }

    /// Remembers a value. Callers that come at once may each put one more than [`MOST`].
    fn put(&self, key: K, value: V) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key, value);
    }
}

impl<V: Clone> Table<i32, V> {
    /// Returns what is remembered of some numbers, and the others.
    fn among(&self, nos: &[i32]) -> (HashMap<i32, V>, Vec<i32>) {
        let (mut known, mut unknown) = (HashMap::with_capacity(nos.len()), Vec::new());
        for no in nos {
            match self.get(no) {
                Some(value) => drop(known.insert(*no, value)),
                None => unknown.push(*no),
            }
        }
        (known, unknown)
    }
}

impl Names {
    /// Returns the lane of a spec where its row was read before.
    pub(crate) fn known_lane(&self, lane: &Lane) -> Option<Arc<LaneRow>> {
        self.lanes.get(lane)
    }

    /// Says whether the lanes of picks are known to have no limits.
    pub(crate) fn are_free(&self, picks: &[Pick]) -> bool {
        picks.iter().all(|pick| self.lanes.get(&pick.lane).is_some_and(|lane| lane.limits.is_empty()))
    }

    /// Returns the rows of lanes that were made before; nothing for others. Reads what is not known.
    pub(crate) async fn find_lane(
        &self,
        conn: &mut PgConnection,
        lane: &Lane,
    ) -> Result<Option<Arc<LaneRow>>> {
        if let Some(known) = self.lanes.get(lane) {
            return Ok(Some(known));
        }
        let no: Option<i32> = ask::scalar(
            "SELECT l.no FROM hodei.lane l JOIN hodei.tenant t ON t.no = l.tenant
             WHERE t.name = $1 AND l.queue = $2 AND l.class = $3",
        )
        .bind(lane.tenant.as_str())
        .bind(lane.queue.as_str())
        .bind(lane.class.number().cast_signed())
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed(OP))?;
        match no {
            Some(no) => Ok(self.load_lanes(conn, &[no]).await?.remove(&no)),
            None => Ok(None),
        }
    }

    /// Makes the row of a spec's lane, unless it is known, and commits it: a number that was rolled back must not be
    /// remembered. It is `Full` where its tenant has as many lanes as it may, if that is to be minded.
    pub(crate) async fn make_lane(
        &self,
        conn: &mut Conn,
        tenant: &Tenant,
        spec: &JobSpec,
        most: Option<u32>,
    ) -> Result<Arc<LaneRow>> {
        let lane = Lane { tenant: tenant.clone(), queue: spec.queue().clone(), class: spec.class() };
        if let Some(known) = self.lanes.get(&lane) {
            return Ok(known);
        }
        let keys: Vec<&str> = spec.limit_keys().iter().collect();
        let no: i32 = ask::scalar("SELECT lane_no FROM hodei.lane_no($1, $2, $3, $4, $5, $6, $7)")
            .bind(tenant.as_str())
            .bind(lane.queue.as_str())
            .bind(lane.class.number().cast_signed())
            .bind(request_bytes(&spec.request()))
            .bind(keys)
            .bind(most.map(i64::from))
            .bind(i64::from(spec.resources().token_count()))
            .fetch_one(&mut **conn)
            .await
            .map_err(failed(OP))?;
        conn.made().await.map_err(failed(OP))?;
        let made = self.load_lanes(conn, &[no]).await?.remove(&no);
        made.ok_or_else(|| damaged("a lane without a row"))
    }

    /// Returns the rows of lanes; reads those that are not known. What is returned does not depend on what is remembered.
    pub(crate) async fn load_lanes(
        &self,
        conn: &mut PgConnection,
        nos: &[i32],
    ) -> Result<HashMap<i32, Arc<LaneRow>>> {
        let (mut known, unknown) = self.lane_rows.among(nos);
        if unknown.is_empty() {
            return Ok(known);
        }
        let rows = ask::query(
            "SELECT l.no, l.tenant, t.name, l.queue, l.class, l.request, l.limits
             FROM hodei.lane l JOIN hodei.tenant t ON t.no = l.tenant WHERE l.no = ANY ($1)",
        )
        .bind(&unknown)
        .fetch_all(conn)
        .await
        .map_err(failed(OP))?;
        for row in &rows {
            let lane = self.remember_lane(row)?;
            known.insert(lane.no, lane);
        }
        Ok(known)
    }

    fn remember_lane(&self, row: &PgRow) -> Result<Arc<LaneRow>> {
        let (tenant_no, tenant): (i32, Tenant) =
            (column(row, 1)?, Tenant::from(name_of(column::<&str>(row, 2)?)?));
        let queue = name_of(column::<&str>(row, 3)?)?;
        let class = RequestClass::from_number(column::<i64>(row, 4)?.cast_unsigned());
        let lane = LaneRow {
            no: column(row, 0)?,
            tenant_no,
            lane: Lane { tenant: tenant.clone(), queue, class },
            request: Arc::new(request_of(column::<&[u8]>(row, 5)?)?),
            limits: column::<Option<Vec<i32>>>(row, 6)?.unwrap_or_default(),
        };
        let lane = Arc::new(lane);
        self.tenants.put(tenant.clone(), tenant_no);
        self.tenant_names.put(tenant_no, tenant);
        self.lanes.put(lane.lane.clone(), Arc::clone(&lane));
        self.lane_rows.put(lane.no, Arc::clone(&lane));
        Ok(lane)
    }

    /// Returns the number of a tenant, if it has one.
    pub(crate) async fn find_tenant(&self, conn: &mut PgConnection, tenant: &Tenant) -> Result<Option<i32>> {
        if let Some(known) = self.tenants.get(tenant) {
            return Ok(Some(known));
        }
        let no: Option<i32> = ask::scalar("SELECT no FROM hodei.tenant WHERE name = $1")
            .bind(tenant.as_str())
            .fetch_optional(conn)
            .await
            .map_err(failed(OP))?;
        if let Some(no) = no {
            self.tenants.put(tenant.clone(), no);
            self.tenant_names.put(no, tenant.clone());
        }
        Ok(no)
    }

    /// Returns the number of a tenant, which is made, and committed, where there is none.
    pub(crate) async fn make_tenant(&self, conn: &mut Conn, tenant: &Tenant) -> Result<i32> {
        if let Some(known) = self.tenants.get(tenant) {
            return Ok(known);
        }
        let no: i32 = ask::scalar("SELECT hodei.tenant_no($1)")
            .bind(tenant.as_str())
            .fetch_one(&mut **conn)
            .await
            .map_err(failed(OP))?;
        conn.made().await.map_err(failed(OP))?;
        self.tenants.put(tenant.clone(), no);
        self.tenant_names.put(no, tenant.clone());
        Ok(no)
    }

    /// Returns the names of tenants; reads those that are not known.
    pub(crate) async fn load_tenants(
        &self,
        conn: &mut PgConnection,
        nos: &[i32],
    ) -> Result<HashMap<i32, Tenant>> {
        let (mut known, unknown) = self.tenant_names.among(nos);
        if unknown.is_empty() {
            return Ok(known);
        }
        let rows = ask::query("SELECT no, name FROM hodei.tenant WHERE no = ANY ($1)")
            .bind(&unknown)
            .fetch_all(conn)
            .await
            .map_err(failed(OP))?;
        for row in &rows {
            let (no, tenant): (i32, Tenant) =
                (column(row, 0)?, Tenant::from(name_of(column::<&str>(row, 1)?)?));
            self.tenants.put(tenant.clone(), no);
            self.tenant_names.put(no, tenant.clone());
            known.insert(no, tenant);
        }
        Ok(known)
    }

    /// Returns the lives of owners; reads those that are not known.
    pub(crate) async fn load_owners(
        &self,
        conn: &mut PgConnection,
        nos: &[i32],
    ) -> Result<HashMap<i32, Lease>> {
        let (mut known, unknown) = self.owners.among(nos);
        if unknown.is_empty() {
            return Ok(known);
        }
        let rows = ask::query("SELECT no, name, incarnation FROM hodei.owner WHERE no = ANY ($1)")
            .bind(&unknown)
            .fetch_all(conn)
            .await
            .map_err(failed(OP))?;
        for row in &rows {
            let owner = OwnerId::from(name_of(column::<&str>(row, 1)?)?);
            let incarnation = column::<i64>(row, 2)?.cast_unsigned();
            let (no, life): (i32, Lease) = (column(row, 0)?, Lease { owner, incarnation });
            self.owners.put(no, life.clone());
            known.insert(no, life);
        }
        Ok(known)
    }
}

/// Reads a column.
pub(crate) fn column<'r, T>(row: &'r PgRow, n: usize) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(n).map_err(failed("row.decode"))
}
