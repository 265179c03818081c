//! Reading what a transaction needs, and locking it.

use hodei_core::{JobId, Result, Timestamp};
use sqlx::Row;
use uuid::Uuid;

use super::transaction::{Entry, Place, Work};
use crate::ask;
use crate::error::failed;
use crate::names::column;
use crate::record::{id_of, record_columns, records, uuids};

const OP: &str = "store.load";

/// The statement that reads what a function has taken.
macro_rules! taken {
    ($taken:literal) => {
        concat!(
            "SELECT ",
            record_columns!(),
            ", hodei.now() FROM ",
            $taken,
            " p JOIN hodei.job j ON j.id = p.id"
        )
    };
}

impl Work<'_> {
    /// Reads the store's time. The moves of this transaction are made then.
    pub(crate) async fn look_at_the_clock(&mut self) -> Result<()> {
        self.inner.trip();
        let now: i64 =
            ask::scalar("SELECT hodei.now()").fetch_one(&mut *self.conn).await.map_err(failed(OP))?;
        self.now = self.now.max(Timestamp::from_micros(now));
        Ok(())
    }

    /// Loads jobs and locks them where they are, unless that was done before. Their leases go on.
    pub(crate) async fn load(&mut self, ids: &[JobId]) -> Result<()> {
        self.take(ids, None).await
    }

    /// As [`Work::load`], of jobs whose leases may end, where lanes are claimed from afterwards: the limits that all of them
    /// count against are locked first. Called once, and before any other job is locked, so that nobody waits in a circle.
    pub(crate) async fn load_with_limits(&mut self, ids: &[JobId], lanes: &[i32]) -> Result<()> {
        self.take(ids, Some(lanes)).await
    }

    async fn take(&mut self, ids: &[JobId], lanes: Option<&[i32]>) -> Result<()> {
        let mut wanted: Vec<JobId> = ids
            .iter()
            .copied()
            .filter(|id| !self.entries.contains_key(id) && !self.missing.contains(id))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        self.inner.trip();
        let query = match lanes {
            None => ask::query(taken!("hodei.take($1)")).bind(uuids(&wanted)),
            Some(lanes) => {
                ask::query(taken!("hodei.take_with_limits($1, $2)")).bind(uuids(&wanted)).bind(lanes)
            }
        };
        let rows = query.fetch_all(&mut *self.conn).await.map_err(failed(OP))?;
        self.inner.read(rows.len());
        for row in &rows {
            self.now = self.now.max(Timestamp::from_micros(column(row, 24)?));
        }
        for record in records(&self.at.names, &mut *self.conn, &rows).await? {
            let job = record.job;
            let place = Place::of(&job, record.delayed);
            let entry =
                Entry { before: Some(place), lane: record.lane, holder: record.holder, changed: false, job };
            self.entries.insert(entry.job.id, entry);
        }
        self.missing.extend(wanted.into_iter().filter(|id| !self.entries.contains_key(id)));
        Ok(())
    }

    /// Reads who waits for jobs, and loads and locks those who were not told of them.
    pub(crate) async fn load_children(&mut self, parents: &[JobId]) -> Result<()> {
        let wanted = self.edges.unread(parents);
        if wanted.is_empty() {
            return Ok(());
        }
        self.inner.trip();
        let rows =
            ask::query("SELECT parent, child, told FROM hodei.edge WHERE parent = ANY ($1) ORDER BY 1, 2")
                .bind(uuids(&wanted))
                .fetch_all(&mut *self.conn)
                .await
                .map_err(failed(OP))?;
        self.edges.set_read(wanted);
        let mut untold = Vec::new();
        for row in &rows {
            let (parent, child) = (id_of(column::<Uuid>(row, 0)?), id_of(column::<Uuid>(row, 1)?));
            let told = row.try_get(2).map_err(failed(OP))?;
            self.edges.found(parent, child, told);
            if !told {
                untold.push(child);
            }
        }
        self.load(&untold).await
    }
}
