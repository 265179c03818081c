//! The numbers that rows have in the place of names. They never change, so what was read once is remembered.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use hodei_core::job::{JobSpec, Lease, Request, RequestClass};
use hodei_core::store::Lane;
use hodei_core::{OwnerId, Result, Tenant};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::ask;
use crate::codec::{name_of, request_bytes, request_of};
use crate::error::failed;
use crate::pool::Conn;

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

#[derive(Debug)]
struct Table<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: std::hash::Hash + Eq, V: Clone> Table<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: K, value: V) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MOST {
            table.clear();
        }
        table.insert(key, value);
    }
}

impl Names {
    /// Returns the lane of a spec where its row was read before.
    pub(crate) fn known_lane(&self, lane: &Lane) -> Option<Arc<LaneRow>> {
        self.lanes.get(lane)
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
            Some(no) => {
                self.load_lanes(conn, &[no]).await?;
                Ok(self.lane_rows.get(&no))
            }
            None => Ok(None),
        }
    }

    /// Makes the row of a spec's lane, unless it is known, and commits it: a number that was rolled back must not be
    /// remembered.
    pub(crate) async fn make_lane(
        &self,
        conn: &mut Conn,
        tenant: &Tenant,
        spec: &JobSpec,
    ) -> Result<Arc<LaneRow>> {
        let lane = Lane { tenant: tenant.clone(), queue: spec.queue().clone(), class: spec.class() };
        if let Some(known) = self.lanes.get(&lane) {
            return Ok(known);
        }
        let keys: Vec<&str> = spec.limit_keys().iter().collect();
        let no: i32 = ask::scalar("SELECT lane_no FROM hodei.lane_no($1, $2, $3, $4, $5)")
            .bind(tenant.as_str())
            .bind(lane.queue.as_str())
            .bind(lane.class.number().cast_signed())
            .bind(request_bytes(&spec.request()))
            .bind(keys)
            .fetch_one(&mut **conn)
            .await
            .map_err(failed(OP))?;
        conn.made().await.map_err(failed(OP))?;
        self.load_lanes(conn, &[no]).await?;
        self.lanes.get(&lane).ok_or_else(|| crate::codec::damaged("a lane without a row"))
    }

    /// Returns a lane whose row was loaded.
    pub(crate) fn lane(&self, no: i32) -> Option<Arc<LaneRow>> {
        self.lane_rows.get(&no)
    }

    /// Reads the rows of lanes that are not known.
    pub(crate) async fn load_lanes(&self, conn: &mut PgConnection, nos: &[i32]) -> Result<()> {
        let unknown: Vec<i32> = nos.iter().copied().filter(|no| self.lane_rows.get(no).is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let rows = ask::query(
            "SELECT l.no, l.tenant, t.name, l.queue, l.class, l.request, l.limits
             FROM hodei.lane l JOIN hodei.tenant t ON t.no = l.tenant WHERE l.no = ANY ($1)",
        )
        .bind(&unknown)
        .fetch_all(conn)
        .await
        .map_err(failed(OP))?;
        rows.iter().try_for_each(|row| self.remember_lane(row))
    }

    fn remember_lane(&self, row: &PgRow) -> Result<()> {
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
        self.lane_rows.put(lane.no, lane);
        Ok(())
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

    /// Returns a tenant whose number was loaded.
    pub(crate) fn tenant(&self, no: i32) -> Option<Tenant> {
        self.tenant_names.get(&no)
    }

    /// Reads the names of tenants that are not known.
    pub(crate) async fn load_tenants(&self, conn: &mut PgConnection, nos: &[i32]) -> Result<()> {
        let unknown: Vec<i32> =
            nos.iter().copied().filter(|no| self.tenant_names.get(no).is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
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
            self.tenant_names.put(no, tenant);
        }
        Ok(())
    }

    /// Returns a life of an owner whose number was loaded.
    pub(crate) fn owner(&self, no: i32) -> Option<Lease> {
        self.owners.get(&no)
    }

    /// Reads the lives of owners that are not known.
    pub(crate) async fn load_owners(&self, conn: &mut PgConnection, nos: &[i32]) -> Result<()> {
        let unknown: Vec<i32> = nos.iter().copied().filter(|no| self.owners.get(no).is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let rows = ask::query("SELECT no, name, incarnation FROM hodei.owner WHERE no = ANY ($1)")
            .bind(&unknown)
            .fetch_all(conn)
            .await
            .map_err(failed(OP))?;
        for row in &rows {
            let owner = OwnerId::from(name_of(column::<&str>(row, 1)?)?);
            let incarnation = column::<i64>(row, 2)?.cast_unsigned();
            self.owners.put(column(row, 0)?, Lease { owner, incarnation });
        }
        Ok(())
    }
}

/// Reads a column.
pub(crate) fn column<'r, T>(row: &'r PgRow, n: usize) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(n).map_err(failed("row.decode"))
}
