//! Submissions inside a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use hodei_core::job::{Fingerprint, NewJob, rules};
use hodei_core::store::{Refusal, SubmitOptions, Submitted};
use hodei_core::{Error, ErrorKind, JobId, Result, Tenant};

use super::edges::NewEdge;
use super::keys::Keys;
use super::transaction::{Entry, Work};
use crate::ask;
use crate::error::failed;
use crate::names::{LaneRow, column};
use crate::record::fingerprints;

const OP: &str = "store.submit";

/// The lock of submissions where bounds are held: an arbitrary number that nobody else uses.
const BOUNDS_LOCK: &str = "SELECT pg_advisory_xact_lock(7305239824715346290)";

/// What a submission has to be compared with.
#[derive(Debug, Default)]
struct Stored {
    fingerprints: HashMap<JobId, (Fingerprint, i32)>,
    keys: Keys,
    open: HashMap<Tenant, u64>,
    total: u64,
}

/// What a batch takes before it is stored.
#[derive(Default)]
struct Taken<'j> {
    ids: HashMap<JobId, &'j NewJob>,
    keys: HashMap<(&'j Tenant, &'j str), &'j NewJob>,
    open: HashMap<&'j Tenant, u64>,
}

impl Work<'_> {
    /// Stores jobs, each for itself or all together. What becomes of each is settled before the first is stored. The
    /// lanes of the valid ones were made before.
    pub(crate) async fn submit(&mut self, jobs: &[NewJob], options: SubmitOptions) -> Result<Vec<Submitted>> {
        let config = &self.inner.config;
        let (max_jobs, max_open) = (config.max_jobs, config.tenant_max_open);
        if max_jobs < u64::MAX || max_open < u64::MAX {
            self.inner.trip();
            ask::query(BOUNDS_LOCK).execute(&mut *self.conn).await.map_err(failed(OP))?;
        }
        let stored = self.stored(jobs, max_jobs, max_open).await?;
        let mut replies = self.answers(jobs, &stored, max_open);
        let is_new = |reply: &Submitted| matches!(reply, Submitted::New(_));
        if options.atomic && replies.iter().any(|reply| reply.stored().is_none()) {
            let spared = replies.iter_mut().filter(|reply| is_new(reply));
            spared.for_each(|reply| *reply = Submitted::Refused(Refusal::Together));
            return Ok(replies);
        }
        let new = replies.iter().filter(|reply| is_new(reply)).count() as u64;
        if new > max_jobs.saturating_sub(stored.total) {
            return Err(Error::new(ErrorKind::Full, OP).with("max_jobs", max_jobs));
        }
        self.admit(jobs, &replies).await?;
        Ok(replies)
    }

    /// Stores what the engine itself submits: it comes past the door, where the bounds are held.
    pub(crate) async fn submit_inside(&mut self, jobs: &[NewJob]) -> Result<Vec<Submitted>> {
        let stored = self.stored(jobs, u64::MAX, u64::MAX).await?;
        let replies = self.answers(jobs, &stored, u64::MAX);
        self.admit(jobs, &replies).await?;
        Ok(replies)
    }

    /// Reads what the answers depend on, and locks the parents.
    async fn stored(&mut self, jobs: &[NewJob], max_jobs: u64, max_open: u64) -> Result<Stored> {
        let mut stored = Stored::default();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        self.read_fingerprints(&ids, &mut stored).await?;
        let named =
            jobs.iter().filter_map(|job| Some((job.tenant.clone(), Arc::clone(job.unique.as_ref()?))));
        stored.keys = self.key_holders(named.collect()).await?;
        let holders: Vec<JobId> = stored.keys.values().copied().collect();
        self.read_fingerprints(&holders, &mut stored).await?;
        let lasts = self.hold_sequences(jobs.iter()).await?;
        let mut parents: Vec<JobId> = jobs.iter().flat_map(|job| job.parents.iter().map(|p| p.id)).collect();
        parents.extend(lasts);
        if !parents.is_empty() {
            self.load(&parents).await?;
        }
        if max_jobs < u64::MAX || max_open < u64::MAX {
            self.read_totals(jobs, max_jobs, &mut stored).await?;
        }
        Ok(stored)
    }

    async fn read_fingerprints(&mut self, ids: &[JobId], stored: &mut Stored) -> Result<()> {
        for (id, entry) in ids.iter().filter_map(|id| Some((id, self.entries.get(id)?))) {
            stored.fingerprints.insert(*id, (entry.job.fingerprint, entry.lane.tenant_no));
        }
        let unknown: Vec<JobId> =
            ids.iter().copied().filter(|id| !stored.fingerprints.contains_key(id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.inner.trip();
        for (id, (fingerprint, tenant)) in fingerprints(&self.at.names, self.conn, &unknown).await? {
            stored.fingerprints.insert(id, (fingerprint, tenant));
        }
        Ok(())
    }

    async fn read_totals(&mut self, jobs: &[NewJob], max_jobs: u64, stored: &mut Stored) -> Result<()> {
        self.inner.trip();
        let mut tenants: Vec<&Tenant> = jobs.iter().map(|job| &job.tenant).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let names: Vec<&str> = tenants.iter().map(|tenant| tenant.as_str()).collect();
        let rows = ask::query(
            "SELECT NULL, CASE WHEN $2 THEN (SELECT sum(n)::int8 FROM (
                 SELECT blocked + pending + scheduled + running + succeeded + failed + cancelled AS n FROM hodei.total
                 UNION ALL
                 SELECT coalesce(blocked, 0) + coalesce(pending, 0) + coalesce(scheduled, 0) + coalesce(running, 0)
                     + coalesce(succeeded, 0) + coalesce(failed, 0) + coalesce(cancelled, 0) FROM hodei.delta
             ) c) END
             UNION ALL
             SELECT t.name, sum(c.open)::int8 FROM hodei.tenant t CROSS JOIN LATERAL (
                 SELECT blocked + pending + scheduled + running AS open FROM hodei.total WHERE tenant = t.no
                 UNION ALL
                 SELECT coalesce(blocked, 0) + coalesce(pending, 0) + coalesce(scheduled, 0) + coalesce(running, 0)
                 FROM hodei.delta WHERE tenant = t.no
             ) c WHERE t.name = ANY ($1) GROUP BY t.name",
        )
        .bind(&names)
        .bind(max_jobs < u64::MAX)
        .fetch_all(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        for row in &rows {
            let count = column::<Option<i64>>(row, 1)?.unwrap_or_default().max(0).cast_unsigned();
            match column::<Option<&str>>(row, 0)? {
                None => stored.total = count,
                Some(name) => {
                    let tenant = tenants.iter().find(|tenant| tenant.as_str() == name);
                    stored.open.extend(tenant.map(|tenant| ((*tenant).clone(), count)));
                }
            }
        }
        Ok(())
    }

    fn answers(&self, jobs: &[NewJob], stored: &Stored, max_open: u64) -> Vec<Submitted> {
        let mut taken = Taken::default();
        let mut replies = Vec::with_capacity(jobs.len());
        for job in jobs {
            let reply = self.answer(job, stored, &taken, max_open);
            if let Submitted::New(id) = reply {
                taken.ids.insert(id, job);
                if let Some(key) = job.unique.as_deref() {
                    taken.keys.insert((&job.tenant, key), job);
                }
                *taken.open.entry(&job.tenant).or_default() += 1;
            }
            replies.push(reply);
        }
        replies
    }

    fn answer(&self, job: &NewJob, stored: &Stored, taken: &Taken<'_>, max_open: u64) -> Submitted {
        if job.check().is_err() {
            return Submitted::Refused(Refusal::Invalid);
        }
        if let Some((id, fingerprint)) = holder(job, stored, taken) {
            let same = fingerprint == job.fingerprint();
            return if same { Submitted::Existing(id) } else { Submitted::Conflict(id) };
        }
        let known = |id: &JobId| {
            let tenant = taken.ids.get(id).map(|parent| &parent.tenant);
            tenant.or_else(|| self.job(*id).map(|parent| &parent.tenant)) == Some(&job.tenant)
        };
        if let Some(missing) = job.parents.iter().map(|parent| parent.id).find(|id| !known(id)) {
            return Submitted::Refused(Refusal::UnknownParent(missing));
        }
        let open = stored.open.get(&job.tenant).copied().unwrap_or(0)
            + taken.open.get(&job.tenant).copied().unwrap_or(0);
        if max_open < u64::MAX && open >= max_open {
            Submitted::Refused(Refusal::TooMany)
        } else {
            Submitted::New(job.id)
        }
    }

    async fn admit(&mut self, jobs: &[NewJob], replies: &[Submitted]) -> Result<()> {
        if !replies.iter().any(|reply| matches!(reply, Submitted::New(_))) {
            return Ok(());
        }
        self.look_at_the_clock().await?;
        for (new, reply) in jobs.iter().zip(replies) {
            if !matches!(reply, Submitted::New(_)) {
                continue;
            }
            let lane = self.lane_of(new)?;
            let before = self.line_up(new);
            let (job, change) = rules::admit_behind(new.clone(), before, self.now);
            let (id, parents) = (job.id, Arc::clone(&job.parents));
            self.readied |= parents.is_empty();
            self.changes.push((lane.tenant_no, change));
            self.missing.remove(&id);
            self.entries.insert(id, Entry { job, lane, before: None, holder: None, changed: true });
            for parent in parents.iter() {
                let edge = NewEdge { parent: parent.id, child: id, requires: parent.requires, told: false };
                self.edges.add(edge);
                let Some(state) = self.settled_state(parent.id) else { continue };
                if !parent.requires.is_turn() || self.had_turn(parent.id).await? {
                    self.tell(parent.id, id, state);
                }
            }
        }
        Ok(())
    }

    fn lane_of(&self, job: &NewJob) -> Result<Arc<LaneRow>> {
        let lane = hodei_core::store::Lane {
            tenant: job.tenant.clone(),
            queue: job.spec.queue().clone(),
            class: job.spec.class(),
        };
        // Forgotten since it was made: the transaction is done again, and makes it anew.
        let forgotten = || Error::new(ErrorKind::Locked, OP).with("lane", "forgotten");
        self.at.names.known_lane(&lane).ok_or_else(forgotten)
    }
}

/// Returns the job that has the id of a submission, or else its unique key.
fn holder(job: &NewJob, stored: &Stored, taken: &Taken<'_>) -> Option<(JobId, Fingerprint)> {
    let earlier = |job: &&NewJob| (job.id, job.fingerprint());
    let known = |id: &JobId| stored.fingerprints.get(id).map(|(fingerprint, _)| (*id, *fingerprint));
    let by_id = taken.ids.get(&job.id).map(earlier).or_else(|| known(&job.id));
    by_id.or_else(|| {
        let key = job.unique.as_ref()?;
        let stored_key = || stored.keys.get(&(job.tenant.clone(), Arc::clone(key))).and_then(known);
        taken.keys.get(&(&job.tenant, &**key)).map(earlier).or_else(stored_key)
    })
}
