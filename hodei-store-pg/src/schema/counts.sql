-- The counts.

-- Adds up what was counted, by queue, and takes off what came free of limits, that of 1,000 rows. Somebody else doing so is
-- enough. A queue without jobs has no row, and the changes that are kept are in one.
CREATE OR REPLACE FUNCTION hodei.fold() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_tenant int4[];
    v_queue text[];
    v_keys int4[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('hodei.fold', 0)) THEN
        RETURN;
    END IF;
    -- Of limits under which nobody claims any more.
    SELECT array_agg(DISTINCT f.no ORDER BY f.no) INTO v_keys FROM (SELECT no FROM hodei.freed LIMIT 1000) f;
    IF v_keys IS NOT NULL THEN
        PERFORM 1 FROM hodei.usage WHERE no = ANY (v_keys) ORDER BY no FOR NO KEY UPDATE;
        PERFORM hodei.take_off(v_keys);
    END IF;
    WITH d AS (DELETE FROM hodei.delta RETURNING *), s AS (
        SELECT d.tenant, coalesce(l.queue, '') AS queue, coalesce(sum(d.blocked), 0) AS b, coalesce(sum(d.pending), 0) AS p,
            coalesce(sum(d.scheduled), 0) AS s, coalesce(sum(d.running), 0) AS r, coalesce(sum(d.succeeded), 0) AS ok,
            coalesce(sum(d.failed), 0) AS bad, coalesce(sum(d.cancelled), 0) AS c, 0 AS n
        FROM d LEFT JOIN hodei.lane l ON l.no = d.lane GROUP BY d.tenant, coalesce(l.queue, '')
        UNION ALL
        SELECT 0, '', 0, 0, 0, 0, 0, 0, 0, sum(d.changes) FROM d HAVING sum(d.changes) <> 0
    ), u AS (
        INSERT INTO hodei.total AS t (tenant, queue, blocked, pending, scheduled, running, succeeded, failed, cancelled, changes)
        SELECT s.tenant, s.queue, sum(b), sum(p), sum(s.s), sum(r), sum(ok), sum(bad), sum(c), sum(n) FROM s
        GROUP BY s.tenant, s.queue
        ON CONFLICT (tenant, queue) DO UPDATE SET blocked = t.blocked + excluded.blocked,
            pending = t.pending + excluded.pending, scheduled = t.scheduled + excluded.scheduled,
            running = t.running + excluded.running, succeeded = t.succeeded + excluded.succeeded,
            failed = t.failed + excluded.failed, cancelled = t.cancelled + excluded.cancelled,
            changes = t.changes + excluded.changes
        RETURNING t.*
    )
    SELECT array_agg(u.tenant), array_agg(u.queue) INTO v_tenant, v_queue FROM u
    WHERE (blocked, pending, scheduled, running, succeeded, failed, cancelled, changes) = (0, 0, 0, 0, 0, 0, 0, 0);
    IF v_tenant IS NOT NULL THEN
        -- Nobody else changes these rows.
        DELETE FROM hodei.total t USING unnest(v_tenant, v_queue) u (tenant, queue)
            WHERE t.tenant = u.tenant AND t.queue = u.queue;
    END IF;
END
$$;

-- How many jobs of each queue are in each state: what was counted, and what was added since. Beyond the page comes a row
-- without a queue where nobody knows the queue of something. With p_queue only that queue, and that.
CREATE OR REPLACE FUNCTION hodei.queue_counts(
    p_tenant text, p_queue text, p_after_tenant text, p_after_queue text, p_n int8,
    OUT tenant text, OUT queue text, OUT blocked int8, OUT pending int8, OUT scheduled int8, OUT running int8,
    OUT succeeded int8, OUT failed int8, OUT cancelled int8
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH q AS MATERIALIZED (
        SELECT n.name AS tenant, x.queue, sum(x.b)::int8 AS b, sum(x.p)::int8 AS p, sum(x.s)::int8 AS s, sum(x.r)::int8 AS r,
            sum(x.ok)::int8 AS ok, sum(x.bad)::int8 AS bad, sum(x.c)::int8 AS c
        FROM hodei.tenant n CROSS JOIN LATERAL (
            SELECT t.queue, t.blocked AS b, t.pending AS p, t.scheduled AS s, t.running AS r, t.succeeded AS ok,
                t.failed AS bad, t.cancelled AS c
            FROM hodei.total t WHERE t.tenant = n.no AND (p_queue IS NULL OR t.queue IN (p_queue, ''))
            UNION ALL
            SELECT coalesce(l.queue, ''), coalesce(d.blocked, 0), coalesce(d.pending, 0), coalesce(d.scheduled, 0),
                coalesce(d.running, 0), coalesce(d.succeeded, 0), coalesce(d.failed, 0), coalesce(d.cancelled, 0)
            FROM hodei.delta d LEFT JOIN hodei.lane l ON l.no = d.lane
            WHERE d.tenant = n.no AND (p_queue IS NULL OR l.no IS NULL OR l.queue = p_queue)
        ) x
        WHERE (p_tenant IS NULL OR n.name = p_tenant) AND (p_after_tenant IS NULL OR n.name >= p_after_tenant)
            AND (p_after_tenant IS NULL OR x.queue = '' OR (n.name, x.queue) > (p_after_tenant, p_after_queue))
        GROUP BY n.name, x.queue
        HAVING (sum(x.b), sum(x.p), sum(x.s), sum(x.r), sum(x.ok), sum(x.bad), sum(x.c)) <> (0, 0, 0, 0, 0, 0, 0)
    )
    (SELECT * FROM q WHERE q.queue <> '' ORDER BY q.tenant, q.queue LIMIT p_n)
    UNION ALL
    (SELECT * FROM q WHERE q.queue = '' LIMIT 1);
END
$$;

-- Finds the queues of what was counted without one, and says whether there was any. Jobs are counted as one statement sees
-- them, with all that was counted of them until then: what is added is the difference, so whoever counts meanwhile is not
-- in its way. It looks at every job, and only where something is without a queue.
CREATE OR REPLACE FUNCTION hodei.attribute() RETURNS bool
LANGUAGE plpgsql VOLATILE SET jit = off AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM (
            SELECT tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled FROM hodei.total
            WHERE queue = ''
            UNION ALL
            SELECT tenant, coalesce(blocked, 0), coalesce(pending, 0), coalesce(scheduled, 0), coalesce(running, 0),
                coalesce(succeeded, 0), coalesce(failed, 0), coalesce(cancelled, 0) FROM hodei.delta WHERE lane IS NULL
        ) x GROUP BY tenant HAVING (sum(blocked), sum(pending), sum(scheduled), sum(running), sum(succeeded), sum(failed),
            sum(cancelled)) <> (0, 0, 0, 0, 0, 0, 0)
    ) THEN
        RETURN false;
    END IF;
    -- Whoever comes second sees what the first one found.
    PERFORM pg_advisory_xact_lock(hashtextextended('hodei.attribute', 0));
    WITH told AS (
        SELECT tenant, queue, blocked AS b, pending AS p, scheduled AS s, running AS r, succeeded AS ok, failed AS f,
            cancelled AS c FROM hodei.total WHERE queue <> ''
        UNION ALL
        SELECT d.tenant, l.queue, coalesce(d.blocked, 0), coalesce(d.pending, 0), coalesce(d.scheduled, 0),
            coalesce(d.running, 0), coalesce(d.succeeded, 0), coalesce(d.failed, 0), coalesce(d.cancelled, 0)
        FROM hodei.delta d JOIN hodei.lane l ON l.no = d.lane
    ), place AS (
        SELECT lane, 1 AS state, count(*) AS n FROM hodei.ready GROUP BY lane
        UNION ALL SELECT lane, 1, count(*) FROM hodei.delayed GROUP BY lane
        UNION ALL SELECT lane, 0, count(*) FROM hodei.blocked GROUP BY lane
        UNION ALL SELECT lane, CASE WHEN running THEN 3 ELSE 2 END, count(*) FROM hodei.leased GROUP BY 1, 2
        UNION ALL SELECT j.lane, d.state, count(*) FROM hodei.done d JOIN hodei.job j ON j.id = d.id GROUP BY 1, 2
    ), x AS (
        SELECT l.tenant, l.queue, CASE WHEN p.state = 0 THEN p.n ELSE 0 END AS b, CASE WHEN p.state = 1 THEN p.n ELSE 0 END AS p,
            CASE WHEN p.state = 2 THEN p.n ELSE 0 END AS s, CASE WHEN p.state = 3 THEN p.n ELSE 0 END AS r,
            CASE WHEN p.state = 4 THEN p.n ELSE 0 END AS ok, CASE WHEN p.state = 5 THEN p.n ELSE 0 END AS f,
            CASE WHEN p.state = 6 THEN p.n ELSE 0 END AS c
        FROM place p JOIN hodei.lane l ON l.no = p.lane
        UNION ALL SELECT t.tenant, t.queue, -t.b, -t.p, -t.s, -t.r, -t.ok, -t.f, -t.c FROM told t
    ), v AS (
        SELECT x.tenant, (SELECT min(l.no) FROM hodei.lane l WHERE l.tenant = x.tenant AND l.queue = x.queue) AS lane,
            sum(b)::int4 AS b, sum(p)::int4 AS p, sum(s)::int4 AS s, sum(r)::int4 AS r, sum(ok)::int4 AS ok,
            sum(f)::int4 AS f, sum(c)::int4 AS c
        FROM x GROUP BY x.tenant, x.queue
        HAVING (sum(b), sum(p), sum(s), sum(r), sum(ok), sum(f), sum(c)) <> (0, 0, 0, 0, 0, 0, 0)
    )
    INSERT INTO hodei.delta (tenant, lane, blocked, pending, scheduled, running, succeeded, failed, cancelled)
    SELECT tenant, lane, b, p, s, r, ok, f, c FROM v
    UNION ALL
    SELECT tenant, NULL, -sum(b)::int4, -sum(p)::int4, -sum(s)::int4, -sum(r)::int4, -sum(ok)::int4, -sum(f)::int4, -sum(c)::int4
        FROM v GROUP BY tenant;
    RETURN true;
END
$$;
