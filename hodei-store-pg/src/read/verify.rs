//! Comparing what is written twice.

use std::sync::Arc;

use hodei_core::Result;

use crate::ask;
use crate::error::failed;
use crate::inner::{Inner, reading};

const OP: &str = "store.verify_indexes";

/// What must not be: each statement returns a line for each contradiction, or none.
const CONTRADICTIONS: &[&str] = &[
    "SELECT format('job %s is in %s places', id, count(*)) FROM (
         SELECT id FROM hodei.ready UNION ALL SELECT id FROM hodei.delayed UNION ALL SELECT id FROM hodei.blocked
         UNION ALL SELECT id FROM hodei.leased UNION ALL SELECT id FROM hodei.done
     ) p GROUP BY id HAVING count(*) > 1",
    "SELECT format('job %s is nowhere', j.id) FROM hodei.job j WHERE j.id NOT IN (
         SELECT id FROM hodei.ready UNION ALL SELECT id FROM hodei.delayed UNION ALL SELECT id FROM hodei.blocked
         UNION ALL SELECT id FROM hodei.leased UNION ALL SELECT id FROM hodei.done
     )",
    "SELECT format('place of %s has no job, or not its lane', p.id) FROM (
         SELECT id, lane, rank FROM hodei.ready UNION ALL SELECT id, lane, rank FROM hodei.delayed
         UNION ALL SELECT id, lane, rank FROM hodei.blocked UNION ALL SELECT id, lane, NULL FROM hodei.leased
     ) p LEFT JOIN hodei.job j ON j.id = p.id WHERE j.id IS NULL OR j.lane <> p.lane OR j.rank <> p.rank",
    "SELECT format('end of %s has no job, or not its tenant', d.id) FROM hodei.done d
         LEFT JOIN hodei.job j ON j.id = d.id WHERE j.id IS NULL OR j.tenant <> d.tenant",
    "SELECT format('newborn %s is not where it was born', r.id) FROM hodei.ready r JOIN hodei.job j ON j.id = r.id
         WHERE r.version IS NULL AND r.eligible_at <> coalesce(j.eligible_at, j.created_at)",
    "SELECT format('when %s was created is written wrong, or not at all', p.id) FROM (
         SELECT id, coalesce(created_at, eligible_at) AS at FROM hodei.ready
         UNION ALL SELECT id, created_at FROM hodei.delayed UNION ALL SELECT id, created_at FROM hodei.blocked
         UNION ALL SELECT id, created_at FROM hodei.done WHERE state IN (5, 6)
     ) p JOIN hodei.job j ON j.id = p.id WHERE p.at IS DISTINCT FROM j.created_at AND (SELECT known FROM hodei.born)",
    "WITH told AS (
         SELECT tenant, sum(blocked) b, sum(pending) p, sum(scheduled) s, sum(running) r, sum(succeeded) ok,
             sum(failed) f, sum(cancelled) c FROM (
             SELECT tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled FROM hodei.total
             UNION ALL
             SELECT tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled FROM hodei.delta
         ) x GROUP BY tenant
     ), real AS (
         SELECT j.tenant, p.state FROM hodei.job j JOIN (
             SELECT id, 1 AS state FROM hodei.ready UNION ALL SELECT id, 1 FROM hodei.delayed
             UNION ALL SELECT id, 0 FROM hodei.blocked
             UNION ALL SELECT id, CASE WHEN running THEN 3 ELSE 2 END FROM hodei.leased
             UNION ALL SELECT id, state FROM hodei.done
         ) p ON p.id = j.id
     ), counted AS (
         SELECT tenant, count(*) FILTER (WHERE state = 0) b, count(*) FILTER (WHERE state = 1) p,
             count(*) FILTER (WHERE state = 2) s, count(*) FILTER (WHERE state = 3) r,
             count(*) FILTER (WHERE state = 4) ok, count(*) FILTER (WHERE state = 5) f,
             count(*) FILTER (WHERE state = 6) c FROM real GROUP BY tenant
     )
     SELECT format('the counts of tenant %s are wrong', coalesce(t.tenant, c.tenant))
     FROM told t FULL JOIN counted c ON c.tenant = t.tenant
     WHERE (coalesce(t.b, 0), coalesce(t.p, 0), coalesce(t.s, 0), coalesce(t.r, 0), coalesce(t.ok, 0),
             coalesce(t.f, 0), coalesce(t.c, 0))
         <> (coalesce(c.b, 0), coalesce(c.p, 0), coalesce(c.s, 0), coalesce(c.r, 0), coalesce(c.ok, 0),
             coalesce(c.f, 0), coalesce(c.c, 0))",
    "WITH told AS (
         SELECT tenant, queue, blocked, pending, scheduled, running, succeeded, failed, cancelled FROM hodei.total
         UNION ALL
         SELECT d.tenant, coalesce(l.queue, ''), d.blocked, d.pending, d.scheduled, d.running, d.succeeded, d.failed,
             d.cancelled FROM hodei.delta d LEFT JOIN hodei.lane l ON l.no = d.lane
     ), real AS (
         SELECT lane, 1 AS state FROM hodei.ready UNION ALL SELECT lane, 1 FROM hodei.delayed
         UNION ALL SELECT lane, 0 FROM hodei.blocked
         UNION ALL SELECT lane, CASE WHEN running THEN 3 ELSE 2 END FROM hodei.leased
         UNION ALL SELECT j.lane, d.state FROM hodei.done d JOIN hodei.job j ON j.id = d.id
     ), x AS (
         SELECT l.tenant, l.queue, count(*) FILTER (WHERE state = 0) b, count(*) FILTER (WHERE state = 1) p,
             count(*) FILTER (WHERE state = 2) s, count(*) FILTER (WHERE state = 3) r,
             count(*) FILTER (WHERE state = 4) ok, count(*) FILTER (WHERE state = 5) f,
             count(*) FILTER (WHERE state = 6) c FROM real JOIN hodei.lane l ON l.no = real.lane GROUP BY l.tenant, l.queue
         UNION ALL
         SELECT tenant, queue, -coalesce(blocked, 0), -coalesce(pending, 0), -coalesce(scheduled, 0), -coalesce(running, 0),
             -coalesce(succeeded, 0), -coalesce(failed, 0), -coalesce(cancelled, 0) FROM told
     )
     SELECT format('the counts of queue %s of tenant %s are wrong', queue, tenant) FROM x GROUP BY tenant, queue
     HAVING (sum(b), sum(p), sum(s), sum(r), sum(ok), sum(f), sum(c)) <> (0, 0, 0, 0, 0, 0, 0)",
    "SELECT format('a queue without jobs is counted in tenant %s', tenant) FROM hodei.total
     WHERE (blocked, pending, scheduled, running, succeeded, failed, cancelled, changes) = (0, 0, 0, 0, 0, 0, 0, 0)",
    "SELECT format('limit %s of tenant %s is not used as its row says', u.key, u.tenant) FROM hodei.usage u
         WHERE u.in_use - coalesce((SELECT sum(f.n) FROM hodei.freed f WHERE f.no = u.no), 0)
             <> (SELECT count(*) FROM hodei.leased d JOIN hodei.lane l ON l.no = d.lane
             WHERE u.no = ANY (l.limits))",
    "SELECT format('what is free of limit %s is of nobody', f.no) FROM hodei.freed f
         WHERE f.n <= 0 OR f.no NOT IN (SELECT no FROM hodei.usage)",
    "SELECT format('the limit of tenant %s and queue %s is not used as its row says', w.tenant, w.queue)
         FROM hodei.wide w WHERE w.in_use <> (SELECT count(*) FROM hodei.leased d JOIN hodei.lane l ON l.no = d.lane
             WHERE w.tenant IN (0, l.tenant) AND w.queue IN ('', l.queue))",
    "SELECT format('job %s waits for the wrong parents', b.id) FROM hodei.blocked b
         WHERE b.waits_for <> (SELECT count(*) FROM hodei.edge e WHERE e.child = b.id AND NOT e.told)
             OR EXISTS (SELECT 1 FROM hodei.edge e JOIN hodei.done d ON d.id = e.parent
                 WHERE e.child = b.id AND NOT e.told AND NOT (e.turn AND EXISTS (
                     SELECT 1 FROM hodei.edge f WHERE f.child = e.parent AND f.turn AND NOT f.told)))",
    "SELECT format('the last of sequence %s is of another tenant', s.key) FROM hodei.sequence s
         JOIN hodei.job j ON j.id = s.last WHERE j.tenant <> s.tenant",
    "SELECT format('the edge from %s to %s has no end', e.parent, e.child) FROM hodei.edge e
         WHERE NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = e.parent)
             OR NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = e.child)",
    "SELECT format('key %s is held by a job that has ended', k.key) FROM hodei.unique_key k
     JOIN hodei.done d ON d.id = k.id WHERE k.key LIKE 'open:%'",
    "SELECT format('key %s has no job', k.key) FROM hodei.unique_key k
         LEFT JOIN hodei.job j ON j.id = k.id AND j.tenant = k.tenant WHERE j.id IS NULL",
    "SELECT format('lease of %s has no owner', l.id) FROM hodei.leased l
         LEFT JOIN hodei.owner o ON o.no = l.holder WHERE o.no IS NULL",
    "SELECT 'the changes are counted wrong' WHERE (SELECT coalesce(sum(c.n), 0)
             FROM hodei.change c JOIN hodei.change_floor f ON (c.pos, c.no) >= (f.pos, f.no))
         - (SELECT coalesce(sum(f.skip), 0) FROM hodei.change_floor f JOIN hodei.change c
             ON (c.pos, c.no) = (f.pos, f.no))
         <> (SELECT coalesce(sum(changes), 0) FROM hodei.total) + (SELECT coalesce(sum(changes), 0) FROM hodei.delta)",
];

impl Inner {
    pub(crate) async fn verify_indexes(self: &Arc<Self>) -> Result<Vec<String>> {
        reading!(self, OP, conn => {
            self.trip();
            conn.end().await.map_err(failed(OP))?;
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            sqlx::raw_sql(begin).execute(&mut *conn).await.map_err(failed(OP))?;
            let mut wrong = Vec::new();
            for sql in CONTRADICTIONS.iter().copied() {
                self.trip();
                let lines: Vec<String> =
                    ask::scalar(sql).fetch_all(&mut *conn).await.map_err(failed(OP))?;
                wrong.extend(lines);
            }
            self.trip();
            sqlx::raw_sql("COMMIT").execute(&mut *conn).await.map_err(failed(OP))?;
            Ok(wrong)
        })
    }
}
