//! Jobs by id, and what owners hold.

use std::sync::Arc;

use hodei_core::job::{Job, Lease, Output, State};
use hodei_core::store::{Claimed, Scope};
use hodei_core::{JobId, Result, Timestamp};
use uuid::Uuid;

use crate::ask;
use crate::codec::name_of;
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::pool::Conn;
use crate::record::{Record, id_of, in_order, record_columns, records, settled_of, uuids};
use crate::verbs::inputs_of;

impl Inner {
    /// Reads records by id, in no order, in one snapshot.
    pub(crate) async fn read_records(
        &self,
        op: &'static str,
        conn: &mut Conn,
        ids: Vec<Uuid>,
    ) -> Result<Vec<Record>> {
        self.trip();
        let sql =
            concat!("SELECT ", record_columns!(), " FROM hodei.places($1) p JOIN hodei.job j ON j.id = p.id");
        let rows = ask::query(sql).bind(ids).fetch_all(&mut **conn).await.map_err(failed(op))?;
        self.read(rows.len());
        records(&conn.names(), conn, &rows).await
    }

    pub(crate) async fn get_many(self: &Arc<Self>, scope: &Scope, ids: &[JobId]) -> Result<Vec<Option<Job>>> {
        const OP: &str = "store.get_many";
        let found = reading!(self, OP, scope, conn => self.read_records(OP, &mut conn, uuids(ids)).await)?;
        let covered = |record: Record| Some(record.job).filter(|job| scope.covers(&job.tenant));
        Ok(in_order(found, ids).into_iter().map(|record| record.and_then(covered)).collect())
    }

    pub(crate) async fn outputs(
        self: &Arc<Self>,
        scope: &Scope,
        ids: &[JobId],
    ) -> Result<Vec<Option<Output>>> {
        const OP: &str = "store.outputs";
        let rows = reading!(self, OP, scope, conn => {
            self.trip();
            ask::query(
                "SELECT d.id, d.settled, t.name FROM unnest($1::uuid[]) u (id) JOIN hodei.done d ON d.id = u.id
                 JOIN hodei.tenant t ON t.no = d.tenant WHERE d.state = 4",
            )
            .bind(uuids(ids))
            .fetch_all(&mut *conn)
            .await
            .map_err(failed(OP))
        })?;
        self.read(rows.len());
        let mut found = std::collections::HashMap::new();
        for row in &rows {
            let tenant = name_of(column::<&str>(row, 2)?)?.into();
            let bytes: Option<&[u8]> = column(row, 1)?;
            let settled = settled_of(State::Succeeded, Timestamp::from_micros(0), bytes)?;
            if let Some(settled) = settled.filter(|_| scope.covers(&tenant)) {
                found.insert(id_of(column(row, 0)?), settled.output);
            }
        }
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    pub(crate) async fn leases_of(self: &Arc<Self>, owner: &Lease) -> Result<Vec<Claimed>> {
        const OP: &str = "store.leases_of";
        reading!(self, OP, conn => {
            self.trip();
            let ids: Vec<Uuid> = ask::scalar(
                "SELECT l.id FROM hodei.owner o JOIN hodei.leased l ON l.holder = o.no
                 WHERE o.name = $1 AND o.incarnation = $2 ORDER BY l.id",
            )
            .bind(owner.owner.name().as_str())
            .bind(owner.incarnation.cast_signed())
            .fetch_all(&mut *conn)
            .await
            .map_err(failed(OP))?;
            let order: Vec<JobId> = ids.iter().copied().map(id_of).collect();
            let found = self.read_records(OP, &mut conn, ids).await?;
            let held = in_order(found, &order).into_iter().flatten().map(|record| record.job);
            let held = held.filter(|job| job.lease.as_ref() == Some(owner)).map(Arc::new).collect();
            inputs_of(&mut conn, held).await
        })
    }
}
