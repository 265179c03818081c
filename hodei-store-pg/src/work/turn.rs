//! Sequences: whose turn comes behind whose.

use hodei_core::job::{JobSpec, NewJob, rules};
use hodei_core::{JobId, Result, Tenant};
use uuid::Uuid;

use super::transaction::Work;
use crate::ask;
use crate::codec::damaged;
use crate::error::failed;
use crate::names::column;
use crate::record::{id_of, record_columns, records, uuid_of, uuids};

const OP: &str = "store.sequence";

/// The sequence of a job, if it is in one.
fn key_of(tenant: &Tenant, spec: &JobSpec) -> Option<(Tenant, String)> {
    spec.sequence().map(|key| (tenant.clone(), key.to_owned()))
}

impl Work<'_> {
    /// Holds the rows of the sequences that jobs are to be in, and returns the last job of each. To be done before any job
    /// is locked: whoever holds the last one and submits behind it would wait in a circle.
    pub(crate) async fn hold_sequences(&mut self, jobs: impl Iterator<Item = &NewJob>) -> Result<Vec<JobId>> {
        self.hold(jobs.filter_map(|job| key_of(&job.tenant, &job.spec)).collect()).await
    }

    /// As [`Work::hold_sequences`], of jobs that are stored.
    pub(crate) async fn hold_sequences_of(&mut self, jobs: &[JobId]) -> Result<Vec<JobId>> {
        self.inner.trip();
        let sql =
            concat!("SELECT ", record_columns!(), " FROM hodei.places($1) p JOIN hodei.job j ON j.id = p.id");
        let rows = ask::query(sql).bind(uuids(jobs)).fetch_all(&mut *self.conn).await.map_err(failed(OP))?;
        let stored = records(&self.at.names, &mut *self.conn, &rows).await?;
        let named = stored.iter().filter_map(|record| key_of(&record.job.tenant, &record.job.spec));
        self.hold(named.collect()).await
    }

    async fn hold(&mut self, mut named: Vec<(Tenant, String)>) -> Result<Vec<JobId>> {
        // In one order, so that nobody waits in a circle.
        named.sort_unstable();
        named.dedup();
        named.retain(|key| !self.sequences.contains_key(key));
        if named.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.trip();
        let rows = ask::query(
            "WITH s AS (
                 INSERT INTO hodei.sequence (tenant, key, last)
                 SELECT t.no, u.key, $3 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u (tenant, key, ord)
                 JOIN hodei.tenant t ON t.name = u.tenant ORDER BY u.ord
                 ON CONFLICT (tenant, key) DO UPDATE SET last = hodei.sequence.last RETURNING tenant, key, last
             )
             SELECT t.name, s.key, s.last FROM s JOIN hodei.tenant t ON t.no = s.tenant",
        )
        .bind(named.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
        .bind(named.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>())
        .bind(Uuid::nil())
        .fetch_all(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        let mut lasts = Vec::new();
        for row in &rows {
            let tenant = Tenant::new(column::<&str>(row, 0)?).map_err(|_| damaged("a bad name"))?;
            let key = (tenant, column::<&str>(row, 1)?.to_owned());
            let last = Some(column::<Uuid>(row, 2)?).filter(|last| !last.is_nil()).map(id_of);
            if last.is_none() {
                self.lined_up.insert(key.clone());
            }
            lasts.extend(last);
            self.sequences.insert(key, last);
        }
        Ok(lasts)
    }

    /// Makes a job the last of its sequence, and returns the one that was, as long as that is kept.
    pub(super) fn line_up(&mut self, new: &NewJob) -> Option<JobId> {
        let key = key_of(&new.tenant, &new.spec)?;
        let before = self.sequences.insert(key.clone(), Some(new.id)).flatten();
        self.lined_up.insert(key);
        before.filter(|before| self.job(*before).is_some())
    }

    /// Whether everybody who comes before a job in its sequence has ended and told it so. The job is held.
    pub(crate) async fn had_turn(&mut self, id: JobId) -> Result<bool> {
        let Some(job) = self.job(id) else { return Ok(true) };
        let (mut known, mut stored) = (true, Vec::new());
        for before in rules::before_in_turn(&job.parents) {
            match self.edges.was_told(before, id) {
                Some(told) => known &= told,
                None => stored.push(before),
            }
        }
        if !known || stored.is_empty() {
            return Ok(known);
        }
        self.inner.trip();
        let waits: bool = ask::scalar(
            "SELECT EXISTS (SELECT 1 FROM hodei.edge WHERE child = $1 AND parent = ANY ($2) AND NOT told)",
        )
        .bind(uuid_of(id))
        .bind(uuids(&stored))
        .fetch_one(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        Ok(!waits)
    }

    /// Whether all of the sequence of a job that is to go round again have ended and had their turn, as they have when
    /// the last one has. Then it is the last.
    pub(crate) async fn goes_last(&mut self, id: JobId) -> Result<bool> {
        let key = self.job(id).and_then(|job| key_of(&job.tenant, &job.spec));
        let Some(key) = key else { return Ok(true) };
        let last = self.sequences.get(&key).copied().flatten().unwrap_or(id);
        let ended = self.job(last).is_none_or(|last| last.state.is_terminal());
        let free = ended && self.had_turn(last).await?;
        if free {
            self.sequences.insert(key.clone(), Some(id));
            self.lined_up.insert(key);
        }
        Ok(free)
    }

    /// Writes who is the last of each sequence; of one that nobody came to nothing is kept.
    pub(super) async fn write_sequences(&mut self) -> Result<()> {
        let (mut tenants, mut keys, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
        for key in std::mem::take(&mut self.lined_up) {
            lasts.push(self.sequences.get(&key).copied().flatten().map(uuid_of));
            tenants.push(key.0.as_str().to_owned());
            keys.push(key.1);
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.inner.trip();
        ask::query(
            "WITH u AS MATERIALIZED (
                 SELECT t.no AS tenant, u.key, u.last FROM unnest($1::text[], $2::text[], $3::uuid[]) u (tenant, key, last)
                 JOIN hodei.tenant t ON t.name = u.tenant
             ), d AS (
                 DELETE FROM hodei.sequence s USING u WHERE s.tenant = u.tenant AND s.key = u.key AND u.last IS NULL
             )
             UPDATE hodei.sequence s SET last = u.last FROM u
             WHERE s.tenant = u.tenant AND s.key = u.key AND u.last IS NOT NULL",
        )
        .bind(tenants)
        .bind(keys)
        .bind(lasts)
        .execute(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        Ok(())
    }
}
