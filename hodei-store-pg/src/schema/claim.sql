-- What is ready, and leasing it.

-- Moves delayed jobs whose time has come to where they are claimed: the first thousand, so that nobody is kept long. Where
-- more are due the next call goes on, past rows that are gone by then and not past those of its own transaction.
CREATE OR REPLACE FUNCTION hodei.promote(p_now int8) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM hodei.delayed WHERE eligible_at <= p_now) THEN
        RETURN;
    END IF;
    WITH d AS (
        DELETE FROM hodei.delayed WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM hodei.delayed WHERE eligible_at <= p_now ORDER BY eligible_at, id LIMIT 1000
            FOR UPDATE SKIP LOCKED
        )) RETURNING *
    )
    INSERT INTO hodei.ready (id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch,
        deadline, moved_at, started_at, pipeline, settled)
    SELECT id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch, deadline, moved_at,
        started_at, pipeline, settled FROM d;
END
$$;

-- Leases the first ready jobs of lanes, pick by pick: at most p_n of a rank of at most p_rank each.
CREATE OR REPLACE FUNCTION hodei.claim(
    p_holder int4, p_now int8, p_node int8, p_record bool, p_lane int4[], p_rank int2[], p_n int8[]
) RETURNS SETOF hodei.exchanged
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_lane record;
    v_room int8;
    v_n int8;
    v_limits int4[];
BEGIN
    SELECT array_agg(DISTINCT x ORDER BY x) INTO v_limits FROM hodei.lane l, unnest(l.limits) x
        WHERE l.no = ANY (p_lane) AND l.limits IS NOT NULL;
    IF v_limits IS NOT NULL THEN
        PERFORM 1 FROM hodei.usage WHERE no = ANY (v_limits) ORDER BY no FOR NO KEY UPDATE;
    END IF;
    FOR i IN 1 .. coalesce(cardinality(p_lane), 0) LOOP
        SELECT l.tenant, l.limits, coalesce(q.paused, false) AS paused INTO v_lane
            FROM hodei.lane l LEFT JOIN hodei.queue q ON q.tenant = l.tenant AND q.queue = l.queue
            WHERE l.no = p_lane[i];
        CONTINUE WHEN NOT FOUND OR v_lane.paused;
        v_room := p_n[i];
        IF v_lane.limits IS NOT NULL THEN
            SELECT least(v_room, min(greatest(most - in_use, 0))) INTO v_room FROM hodei.usage
                WHERE no = ANY (v_lane.limits) AND most IS NOT NULL;
        END IF;
        CONTINUE WHEN v_room <= 0;
        RETURN QUERY
        WITH c AS MATERIALIZED (
            SELECT r.ctid AS tid, r.lost AS lost FROM hodei.ready r
            -- What came in since the clock was read waits for the next call.
            WHERE r.lane = p_lane[i] AND r.rank <= p_rank[i] AND r.eligible_at <= p_now
                AND (r.deadline IS NULL OR r.deadline > p_now)
            ORDER BY r.rank, r.eligible_at, r.id LIMIT v_room FOR UPDATE SKIP LOCKED
        ), k AS MATERIALIZED (
            -- Whoever lost an owner is claimed alone.
            SELECT c.tid, row_number() OVER (ROWS UNBOUNDED PRECEDING) AS rn,
                count(c.lost) OVER (ROWS UNBOUNDED PRECEDING) AS bad FROM c
        ), d AS (
            DELETE FROM hodei.ready r USING k WHERE r.ctid = k.tid AND (k.bad = 0 OR k.rn = 1)
            RETURNING k.rn, r.*
        ), l AS (
            INSERT INTO hodei.leased (id, moved_at, holder, lane, lost, generation, version, attempt, epoch,
                eligible_at, deadline, started_at, pipeline, settled)
            SELECT d.id, p_now, p_holder, d.lane, d.lost, d.generation, d.version + 1, d.attempt,
                CASE WHEN d.version IS NOT NULL THEN coalesce(d.epoch, 0) + 1 END,
                CASE WHEN d.version IS NOT NULL THEN d.eligible_at END, d.deadline, d.started_at, d.pipeline,
                d.settled FROM d
        ), h AS MATERIALIZED (
            -- Pending to scheduled, claimed.
            SELECT hodei.pos() AS pos, nextval('hodei.change_no') AS no, count(*) AS n,
                CASE WHEN p_record THEN string_agg(hodei.change_bytes(d.id, coalesce(d.version, 1) + 1,
                    coalesce(d.attempt, 0), coalesce(d.epoch, 0) + 1, 33686528, d.pipeline), ''::bytea
                    ORDER BY d.rn) END AS body
            FROM d HAVING count(*) > 0
        ), g AS (
            INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
            SELECT h.pos, h.no, p_now, p_node, v_lane.tenant, h.n, h.body FROM h WHERE p_record
        ), t AS (
            INSERT INTO hodei.delta (tenant, pending, scheduled, changes)
            SELECT v_lane.tenant, -count(*), count(*), CASE WHEN p_record THEN count(*) END FROM d
            HAVING count(*) > 0
        )
        SELECT 2::int2, i, d.id, d.lane, d.rank, 2::int2, coalesce(d.version, 1) + 1, coalesce(d.epoch, 0) + 1,
            coalesce(d.attempt, 0), coalesce(d.lost, 0::int2), coalesce(d.generation, 0::int2), d.eligible_at,
            d.deadline, p_now, d.started_at, j.created_at, d.pipeline, d.settled, j.name, j.fingerprint, j.body, h.pos,
            h.no
        FROM h, d JOIN hodei.job j ON j.id = d.id ORDER BY d.rn;
        IF v_lane.limits IS NOT NULL THEN
            GET DIAGNOSTICS v_n = ROW_COUNT;
            IF v_n > 0 THEN
                UPDATE hodei.usage SET in_use = in_use + v_n WHERE no = ANY (v_lane.limits);
            END IF;
        END IF;
    END LOOP;
END
$$;

-- What is ready, and what its lanes are; moves what has become due before.
CREATE OR REPLACE FUNCTION hodei.lanes(
    p_queues text[], OUT lane int4, OUT tenant text, OUT queue text, OUT class int8, OUT request bytea,
    OUT rank int2, OUT depth int8, OUT eligible_at int8, OUT weight int8, OUT next_due int8
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_due int8;
BEGIN
    PERFORM hodei.promote(hodei.now());
    SELECT min(d.eligible_at) INTO v_due FROM hodei.delayed d;
    RETURN QUERY
    WITH RECURSIVE w AS (
        (SELECT r.lane AS no FROM hodei.ready r ORDER BY r.lane LIMIT 1)
        UNION ALL
        SELECT (SELECT r.lane FROM hodei.ready r WHERE r.lane > w.no ORDER BY r.lane LIMIT 1) FROM w
        WHERE w.no IS NOT NULL
    ), s AS MATERIALIZED (
        -- Counting stops where nobody would claim more at once.
        SELECT w.no, greatest(32, least(4096, 100000 / count(*) OVER ())) AS most FROM w WHERE w.no IS NOT NULL
    )
    SELECT l.no, n.name, l.queue, l.class, l.request, h.rank,
        least(room.free, (SELECT count(*) FROM (SELECT 1 FROM hodei.ready r
            WHERE r.lane = l.no AND r.rank = h.rank LIMIT s.most) x)),
        h.eligible_at, coalesce(q.weight, 1), v_due
    FROM s JOIN hodei.lane l ON l.no = s.no
    JOIN hodei.tenant n ON n.no = l.tenant
    CROSS JOIN LATERAL (
        SELECT r.rank, r.eligible_at FROM hodei.ready r WHERE r.lane = l.no
        ORDER BY r.rank, r.eligible_at, r.id LIMIT 1
    ) h
    LEFT JOIN hodei.queue q ON q.tenant = l.tenant AND q.queue = l.queue
    LEFT JOIN LATERAL (
        SELECT min(greatest(u.most - u.in_use, 0)) AS free FROM hodei.usage u
        WHERE l.limits IS NOT NULL AND u.no = ANY (l.limits) AND u.most IS NOT NULL
    ) room ON true
    WHERE (p_queues IS NULL OR l.queue = ANY (p_queues)) AND NOT coalesce(q.paused, false)
        AND coalesce(room.free, 1) > 0;
    IF NOT FOUND THEN
        next_due := v_due;
        RETURN NEXT;
    END IF;
END
$$;
