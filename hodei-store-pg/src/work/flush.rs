//! Writing what a transaction changed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use hodei_core::job::{Fingerprint, Job, Lease, Requires, State, rules};
use hodei_core::store::Change;
use hodei_core::{JobId, Result, Timestamp};
use uuid::Uuid;

use super::transaction::{Entry, Work};
use crate::ask;
use crate::codec::{Bodies, changes_bytes, damaged};
use crate::error::failed;
use crate::names::column;
use crate::record::{settled_bytes, uuid_of};
use crate::tell::Segment;

const OP: &str = "store.write";

/// Where jobs are taken from, by table.
#[derive(Default)]
struct Taken {
    leased: Vec<Uuid>,
    blocked: Vec<Uuid>,
    delayed: Vec<Uuid>,
    fresh: Vec<Uuid>,
    moved: Vec<Uuid>,
    done: Vec<Uuid>,
}

/// The columns of the places to which jobs are put.
#[derive(Default)]
struct Put {
    id: Vec<Uuid>,
    state: Vec<i16>,
    delay: Vec<bool>,
    tenant: Vec<i32>,
    lane: Vec<i32>,
    rank: Vec<i16>,
    holder: Vec<Option<i32>>,
    version: Vec<Option<i32>>,
    epoch: Vec<Option<i64>>,
    attempt: Vec<Option<i32>>,
    waits_for: Vec<i32>,
    lost: Vec<Option<i16>>,
    generation: Vec<Option<i16>>,
    cause: Vec<Option<i16>>,
    cancel: Vec<bool>,
    eligible_at: Vec<i64>,
    deadline: Vec<Option<i64>>,
    moved_at: Vec<Option<i64>>,
    started_at: Vec<Option<i64>>,
    pipeline: Vec<Option<Uuid>>,
    settled: Vec<Option<Vec<u8>>>,
}

impl Put {
    fn push(&mut self, entry: &Entry, delayed: bool) {
        let job = &entry.job;
        // Of a job to which nothing has happened its birth says everything.
        let newborn = job.state == State::Pending && job.version == 1;
        let open = job.state == State::Pending;
        self.id.push(uuid_of(job.id));
        self.state.push(job.state as i16);
        self.delay.push(delayed);
        self.tenant.push(entry.lane.tenant_no);
        self.lane.push(entry.lane.no);
        self.rank.push(rank_of(job));
        self.holder.push(entry.holder);
        self.version.push((!newborn).then_some(job.version.cast_signed()));
        let epoch = job.epoch.number().cast_signed();
        self.epoch.push((!open || epoch != 0).then_some(epoch));
        self.attempt.push((!open || job.attempt != 0).then_some(job.attempt.cast_signed()));
        self.waits_for.push(job.waits_for.cast_signed());
        self.lost.push((job.lost_count != 0).then_some(job.lost_count.cast_signed()));
        self.generation.push((job.generation != 0).then_some(job.generation.cast_signed()));
        self.cause.push((!newborn).then_some(job.cause as i16));
        self.cancel.push(job.cancel_requested);
        self.eligible_at.push(job.eligible_at.as_micros());
        self.deadline.push(job.deadline.map(|at| at.as_micros()));
        self.moved_at.push((!newborn).then_some(job.moved_at.as_micros()));
        self.started_at.push(job.started_at.map(|at| at.as_micros()));
        self.pipeline.push(job.pipeline.map(|id| Uuid::from_bytes(*id.as_bytes())));
        self.settled.push(settled_bytes(job));
    }
}

/// 63 less the level.
pub(crate) fn rank_of(job: &Job) -> i16 {
    63 - i16::from(job.spec.priority().level())
}

impl Work<'_> {
    /// Writes everything that changed, so that the statements that follow see it.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.find_holders()?;
        self.find_early().await?;
        self.insert_jobs().await?;
        self.write_keys().await?;
        self.move_jobs().await?;
        self.write_edges().await?;
        self.write_sequences().await?;
        self.write_notes().await?;
        self.forget_ended().await?;
        let now = self.now;
        for entry in self.entries.values_mut().filter(|entry| entry.changed) {
            entry.changed = false;
            entry.before = Some(super::transaction::Place::of(&entry.job, waits(&entry.job, now)));
        }
        Ok(())
    }

    /// Says whether a job stays where it is put: one that has ended goes where no history is kept, unless somebody waits
    /// for it or its turn has not come.
    fn stays(&self, job: &Job) -> bool {
        let waited_for = || self.edges.children_of(job.id).next().is_some();
        !job.state.is_terminal() || self.inner.config.history || waited_for() || self.early.contains(&job.id)
    }

    /// Finds the jobs that have ended before their turn: those behind them are still to be told of it when it comes.
    async fn find_early(&mut self) -> Result<()> {
        if self.inner.config.history {
            return Ok(());
        }
        let ended: Vec<JobId> = self
            .entries
            .values()
            .filter(|entry| entry.changed && entry.job.state.is_terminal())
            .filter(|entry| rules::before_in_turn(&entry.job.parents).next().is_some())
            .map(|entry| entry.job.id)
            .collect();
        for id in ended {
            if !self.had_turn(id).await? {
                self.early.insert(id);
            }
        }
        Ok(())
    }

    /// Removes what is left of jobs that do not stay.
    async fn forget_ended(&mut self) -> Result<()> {
        let gone: Vec<JobId> = self
            .changed()
            .into_iter()
            .filter(|entry| !self.stays(&entry.job))
            .map(|entry| entry.job.id)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.inner.trip();
        ask::query("SELECT hodei.forget($1)")
            .bind(gone.iter().copied().map(uuid_of).collect::<Vec<_>>())
            .execute(&mut *self.conn)
            .await
            .map_err(failed(OP))?;
        for id in gone {
            self.entries.remove(&id);
            self.missing.insert(id);
        }
        Ok(())
    }

    pub(super) fn changed(&self) -> Vec<&Entry> {
        let mut changed: Vec<&Entry> = self.entries.values().filter(|entry| entry.changed).collect();
        changed.sort_unstable_by_key(|entry| entry.job.id);
        changed
    }

    /// Finds the rows of owners, which do not end before this transaction does. Called before a job is locked: whoever takes
    /// back from the dead holds them first.
    pub(crate) async fn hold_owners(&mut self, owners: impl Iterator<Item = &Lease>) -> Result<()> {
        let wanted: HashSet<&Lease> = owners.filter(|owner| !self.holders.contains_key(owner)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<Lease> = wanted.into_iter().cloned().collect();
        self.inner.trip();
        // In the order in which the dead are held; those who are new come behind.
        let found: Vec<(i64, i32)> = ask::rows(
            "SELECT u.ord, hodei.owner_no(u.name, u.incarnation) FROM (
                 SELECT u.* FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY u (name, incarnation, ord)
                 LEFT JOIN hodei.owner o ON o.name = u.name AND o.incarnation = u.incarnation ORDER BY o.no
             ) u",
        )
        .bind(wanted.iter().map(|owner| owner.owner.name().as_str()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|owner| owner.incarnation.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        let at = |ord: i64| usize::try_from(ord - 1).ok().and_then(|n| wanted.get(n)).cloned();
        self.holders.extend(found.into_iter().filter_map(|(ord, no)| Some((at(ord)?, no))));
        Ok(())
    }

    /// Writes down who holds what was handed on.
    fn find_holders(&mut self) -> Result<()> {
        let handed = |entry: &&mut Entry| entry.job.lease.is_some() && entry.holder.is_none();
        for entry in self.entries.values_mut().filter(handed) {
            entry.holder = entry.job.lease.as_ref().and_then(|lease| self.holders.get(lease)).copied();
            if entry.holder.is_none() {
                return Err(damaged("a lease of nobody"));
            }
        }
        Ok(())
    }

    /// The fingerprint of a new job, unless its row says it.
    fn fingerprint_to_write(&self, job: &Job) -> Option<Uuid> {
        let Job { spec, tenant, unique, pipeline, parents, fingerprint, .. } = job;
        let said = || Fingerprint::of_untimed(spec, tenant, unique.as_deref(), *pipeline, parents);
        let written = self.inner.bodies == Bodies::AsBefore || said() != *fingerprint;
        written.then(|| Uuid::from_bytes(*fingerprint.as_bytes()))
    }

    async fn insert_jobs(&mut self) -> Result<()> {
        let new: Vec<&Entry> = self.changed().into_iter().filter(|entry| entry.before.is_none()).collect();
        if new.is_empty() {
            return Ok(());
        }
        let all = |of: &dyn Fn(&Entry) -> i64| new.iter().map(|entry| of(entry)).collect::<Vec<i64>>();
        let query = ask::query(
            "INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, deadline, pipeline,
                 name, body)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int8[], $5::int4[], $6::int4[],
                 $7::int2[], $8::int8[], $9::uuid[], $10::text[], $11::bytea[])",
        )
        .bind(new.iter().map(|entry| uuid_of(entry.job.id)).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| self.fingerprint_to_write(&entry.job)).collect::<Vec<_>>())
        .bind(all(&|entry| entry.job.created_at.as_micros()))
        .bind(new.iter().map(|entry| eligible_later(&entry.job)).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| entry.lane.tenant_no).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| entry.lane.no).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| rank_of(&entry.job)).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| entry.job.deadline.map(|at| at.as_micros())).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| entry.job.pipeline.map(|id| Uuid::from_bytes(*id.as_bytes()))).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| entry.job.spec.name().as_str().to_owned()).collect::<Vec<_>>())
        .bind(new.iter().map(|entry| self.inner.bodies.bytes(entry.job.unique.as_deref(), &entry.job.parents, &entry.job.spec)).collect::<Vec<_>>());
        let rows = new.len() as u64;
        self.inner.trip();
        query.execute(&mut *self.conn).await.map_err(failed(OP))?;
        self.rows += rows;
        Ok(())
    }

    async fn move_jobs(&mut self) -> Result<()> {
        let now = self.now;
        let (mut taken, mut put, mut moved) = (Taken::default(), Put::default(), 0);
        for entry in self.changed() {
            let id = uuid_of(entry.job.id);
            if let Some(before) = entry.before {
                match before.state {
                    State::Blocked => taken.blocked.push(id),
                    State::Pending if before.delayed => taken.delayed.push(id),
                    State::Pending if before.fresh => taken.fresh.push(id),
                    State::Pending => taken.moved.push(id),
                    State::Scheduled | State::Running => taken.leased.push(id),
                    State::Succeeded | State::Failed | State::Cancelled => taken.done.push(id),
                }
            }
            if self.stays(&entry.job) {
                put.push(entry, waits(&entry.job, now));
            }
            moved += 1;
        }
        if moved == 0 {
            return Ok(());
        }
        self.rows += moved;
        self.inner.trip();
        ask::query(
            "SELECT hodei.move($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                 $20, $21, $22, $23, $24, $25, $26, $27)",
        )
        .bind(taken.leased)
        .bind(taken.blocked)
        .bind(taken.delayed)
        .bind(taken.fresh)
        .bind(taken.moved)
        .bind(taken.done)
        .bind(put.id)
        .bind(put.state)
        .bind(put.delay)
        .bind(put.tenant)
        .bind(put.lane)
        .bind(put.rank)
        .bind(put.holder)
        .bind(put.version)
        .bind(put.epoch)
        .bind(put.attempt)
        .bind(put.waits_for)
        .bind(put.lost)
        .bind(put.generation)
        .bind(put.cause)
        .bind(put.cancel)
        .bind(put.eligible_at)
        .bind(put.deadline)
        .bind(put.moved_at)
        .bind(put.started_at)
        .bind(put.pipeline)
        .bind(put.settled)
        .execute(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        Ok(())
    }

    async fn write_edges(&mut self) -> Result<()> {
        let (new, told) = self.edges.take_written();
        if !new.is_empty() {
            self.inner.trip();
            ask::query(
                "INSERT INTO hodei.edge (parent, child, told, fails, turn)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bool[], $4::bool[], $5::bool[])",
            )
            .bind(new.iter().map(|edge| uuid_of(edge.parent)).collect::<Vec<_>>())
            .bind(new.iter().map(|edge| uuid_of(edge.child)).collect::<Vec<_>>())
            .bind(new.iter().map(|edge| edge.told).collect::<Vec<_>>())
            .bind(new.iter().map(|edge| fails(edge.requires)).collect::<Vec<_>>())
            .bind(new.iter().map(|edge| edge.requires.is_turn()).collect::<Vec<_>>())
            .execute(&mut *self.conn)
            .await
            .map_err(failed(OP))?;
        }
        if !told.is_empty() {
            self.inner.trip();
            ask::query(
                "UPDATE hodei.edge e SET told = true FROM unnest($1::uuid[], $2::uuid[]) u (parent, child)
                 WHERE e.parent = u.parent AND e.child = u.child",
            )
            .bind(told.iter().map(|edge| uuid_of(edge.0)).collect::<Vec<_>>())
            .bind(told.iter().map(|edge| uuid_of(edge.1)).collect::<Vec<_>>())
            .execute(&mut *self.conn)
            .await
            .map_err(failed(OP))?;
        }
        Ok(())
    }

    /// Writes the changes, and what comes free of limits. Jobs are counted where they are moved.
    async fn write_notes(&mut self) -> Result<()> {
        let runs = runs(std::mem::take(&mut self.changes));
        let (mut tenants, mut sizes, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for (tenant, changes) in &runs {
            let log = self.inner.config.change_log;
            let kept: Vec<&Change> = changes.iter().filter(|change| log.records(change)).collect();
            tenants.push(*tenant);
            sizes.push(i32::try_from(kept.len()).unwrap_or(i32::MAX));
            bodies.push(changes_bytes(kept));
        }
        let used = self.freed();
        if runs.is_empty() && used.is_empty() {
            return Ok(());
        }
        self.inner.trip();
        let rows = ask::query("SELECT pos, no FROM hodei.note($1, $2, $3, $4, $5, $6, $7)")
            .bind(self.node)
            .bind(self.now.as_micros())
            .bind(tenants)
            .bind(sizes)
            .bind(bodies)
            .bind(used.keys().copied().collect::<Vec<i32>>())
            .bind(used.values().copied().collect::<Vec<i64>>())
            .fetch_all(&mut *self.conn)
            .await
            .map_err(failed(OP))?;
        for ((_, changes), row) in runs.into_iter().zip(&rows) {
            self.segments.push(Segment { at: (column(row, 0)?, column(row, 1)?), changes });
        }
        Ok(())
    }

    /// What came free of limits, less than nothing.
    fn freed(&self) -> BTreeMap<i32, i64> {
        let mut used: BTreeMap<i32, i64> = BTreeMap::new();
        for entry in self.changed() {
            let was_leased = entry.before.is_some_and(|place| place.state.is_leased());
            if was_leased && !entry.job.state.is_leased() {
                entry.lane.limits.iter().for_each(|no| *used.entry(*no).or_default() -= 1);
            }
        }
        used
    }
}

/// Whether a child goes on only when the parent fails.
fn fails(requires: Requires) -> bool {
    matches!(requires, Requires::Failure | Requires::FailureInTurn)
}

/// Changes of one tenant that follow one another share a row.
fn runs(changes: Vec<(i32, Change)>) -> Vec<(i32, Vec<Change>)> {
    let mut runs: Vec<(i32, Vec<Change>)> = Vec::new();
    for (tenant, change) in changes {
        match runs.last_mut() {
            Some((last, run)) if *last == tenant => run.push(change),
            _ => runs.push((tenant, vec![change])),
        }
    }
    runs
}

impl Work<'_> {
    /// Returns what the store is made of.
    pub(crate) fn inner(&self) -> &Arc<crate::inner::Inner> {
        &self.inner
    }
}

/// Says whether a job waits for its time. What was to run at once does not, though the clock may show less than when it was born.
fn waits(job: &Job, now: Timestamp) -> bool {
    job.state == State::Pending && job.eligible_at > now && job.eligible_at > job.created_at
}

/// When a new job is eligible, where that is not when it was created.
fn eligible_later(job: &Job) -> Option<i64> {
    (job.eligible_at != job.created_at).then(|| job.eligible_at.as_micros())
}
