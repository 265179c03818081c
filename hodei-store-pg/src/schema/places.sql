-- Where jobs are, for what is done by the rules of core.

-- Where jobs are, each locked until the end of the transaction.
CREATE OR REPLACE FUNCTION hodei.take(p_ids uuid[]) RETURNS SETOF hodei.placed
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_left uuid[];
    v_got hodei.placed[];
    v_all hodei.placed[] := '{}';
    v_round int4 := 0;
BEGIN
    SELECT array_agg(j.id ORDER BY j.id) INTO v_left FROM (SELECT DISTINCT unnest(p_ids) AS id) u
        JOIN hodei.job j ON j.id = u.id;
    WHILE cardinality(v_left) > 0 LOOP
        -- A job that moves while it is looked for is found in a later round.
        v_round := v_round + 1;
        IF v_round > 1000 THEN
            RAISE EXCEPTION 'jobs without a place: %', v_left USING ERRCODE = 'XX001';
        END IF;
        v_got := ARRAY(SELECT (l.id, CASE WHEN l.running THEN 3 ELSE 2 END, false, l.lane, j.rank, l.holder,
                coalesce(l.version, 2), coalesce(l.epoch, 1), coalesce(l.attempt, 0), 0, coalesce(l.lost, 0),
                coalesce(l.generation, 0), CASE WHEN l.running THEN 5 ELSE 4 END, coalesce(l.cancel, false),
                coalesce(l.eligible_at, j.eligible_at, j.created_at), l.deadline, l.moved_at, l.started_at,
                l.settled)::hodei.placed
            FROM hodei.leased l JOIN hodei.job j ON j.id = l.id
            WHERE l.id = ANY (v_left) ORDER BY l.id FOR UPDATE OF l);
        v_got := v_got || ARRAY(SELECT (b.id, 0, false, b.lane, b.rank, NULL, 1, 0, 0, b.waits_for, 0, 0, 0,
                false, b.eligible_at, b.deadline, j.created_at, NULL, NULL)::hodei.placed
            FROM hodei.blocked b JOIN hodei.job j ON j.id = b.id
            WHERE b.id = ANY (v_left) ORDER BY b.id FOR UPDATE OF b);
        v_got := v_got || ARRAY(SELECT (d.id, 1, true, d.lane, d.rank, NULL, coalesce(d.version, 1),
                coalesce(d.epoch, 0), coalesce(d.attempt, 0), 0, coalesce(d.lost, 0), coalesce(d.generation, 0),
                coalesce(d.cause, 0), false, d.eligible_at, d.deadline, coalesce(d.moved_at, j.created_at),
                d.started_at, d.settled)::hodei.placed
            FROM hodei.delayed d JOIN hodei.job j ON j.id = d.id
            WHERE d.id = ANY (v_left) ORDER BY d.id FOR UPDATE OF d);
        v_got := v_got || ARRAY(SELECT (r.id, 1, false, r.lane, r.rank, NULL, 1, 0, 0, 0, 0, 0, 0, false,
                r.eligible_at, r.deadline, j.created_at, NULL, NULL)::hodei.placed
            -- Each is looked up by its id, also where a wall seems to leave few rows: those are all rows to look through.
            FROM (SELECT x AS id FROM unnest(v_left) x ORDER BY x OFFSET 0) u
            CROSS JOIN LATERAL (SELECT j.* FROM hodei.job j WHERE j.id = u.id OFFSET 0) j
            CROSS JOIN LATERAL (
                SELECT r.* FROM hodei.ready r
                    WHERE r.lane = j.lane AND r.rank = j.rank AND r.eligible_at = coalesce(j.eligible_at, j.created_at)
                    AND r.id = j.id AND r.version IS NULL OFFSET 0 FOR UPDATE
            ) r);
        v_got := v_got || ARRAY(SELECT (r.id, 1, false, r.lane, r.rank, NULL, r.version, coalesce(r.epoch, 0),
                coalesce(r.attempt, 0), 0, coalesce(r.lost, 0), coalesce(r.generation, 0), r.cause, false,
                r.eligible_at, r.deadline, r.moved_at, r.started_at, r.settled)::hodei.placed
            FROM hodei.ready r WHERE r.id = ANY (v_left) AND r.version IS NOT NULL ORDER BY r.id FOR UPDATE);
        v_got := v_got || ARRAY(SELECT (d.id, d.state, false, j.lane, j.rank, NULL, coalesce(d.version, 3),
                coalesce(d.epoch, 1), coalesce(d.attempt, 1), 0, coalesce(d.lost, 0), coalesce(d.generation, 0),
                coalesce(d.cause, hodei.cause_of(d.state)), false, coalesce(d.eligible_at, j.eligible_at, j.created_at),
                d.deadline, d.moved_at, d.started_at, d.settled)::hodei.placed
            FROM (SELECT x AS id FROM unnest(v_left) x ORDER BY x OFFSET 0) u
            CROSS JOIN LATERAL (SELECT d.* FROM hodei.done d WHERE d.id = u.id OFFSET 0 FOR UPDATE) d
            CROSS JOIN LATERAL (SELECT j.* FROM hodei.job j WHERE j.id = d.id OFFSET 0) j);
        v_all := v_all || v_got;
        IF cardinality(v_got) = cardinality(v_left) THEN
            EXIT;
        END IF;
        v_left := ARRAY(SELECT j.id FROM (SELECT x AS id FROM unnest(v_left) x EXCEPT SELECT g.id FROM unnest(v_got) g) u
            JOIN hodei.job j ON j.id = u.id ORDER BY 1);
    END LOOP;
    RETURN QUERY SELECT * FROM unnest(v_all);
END
$$;

-- As hodei.take, of jobs whose leases may end, for whoever leases from lanes afterwards: what all of them count against is
-- locked before the jobs are.
CREATE OR REPLACE FUNCTION hodei.take_with_limits(p_ids uuid[], p_lane int4[]) RETURNS SETOF hodei.placed
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF hodei.limited() THEN
        -- By their births: who is not leased yet may be when he is locked.
        PERFORM hodei.hold_limits(p_lane || ARRAY(
            SELECT j.lane FROM (SELECT DISTINCT unnest(p_ids) AS id) u JOIN hodei.job j ON j.id = u.id));
    END IF;
    RETURN QUERY SELECT * FROM hodei.take(p_ids);
END
$$;

-- Where jobs are, as this statement sees it.
CREATE OR REPLACE FUNCTION hodei.places(p_ids uuid[]) RETURNS SETOF hodei.placed
LANGUAGE sql STABLE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT l.id, (CASE WHEN l.running THEN 3 ELSE 2 END)::int2, false, l.lane, j.rank, l.holder,
        coalesce(l.version, 2), coalesce(l.epoch, 1), coalesce(l.attempt, 0), 0, coalesce(l.lost, 0::int2),
        coalesce(l.generation, 0::int2), (CASE WHEN l.running THEN 5 ELSE 4 END)::int2, coalesce(l.cancel, false),
        coalesce(l.eligible_at, j.eligible_at, j.created_at), l.deadline, l.moved_at, l.started_at, l.settled
        FROM hodei.leased l JOIN hodei.job j ON j.id = l.id WHERE l.id = ANY (p_ids)
    UNION ALL
    SELECT d.id, d.state, false, j.lane, j.rank, NULL, coalesce(d.version, 3), coalesce(d.epoch, 1),
        coalesce(d.attempt, 1), 0, coalesce(d.lost, 0::int2), coalesce(d.generation, 0::int2),
        coalesce(d.cause, hodei.cause_of(d.state)), false,
        coalesce(d.eligible_at, j.eligible_at, j.created_at), d.deadline,
        d.moved_at, d.started_at, d.settled
        FROM (SELECT DISTINCT unnest(p_ids) AS id) u
        CROSS JOIN LATERAL (SELECT d.* FROM hodei.done d WHERE d.id = u.id OFFSET 0) d
        CROSS JOIN LATERAL (SELECT j.* FROM hodei.job j WHERE j.id = d.id OFFSET 0) j
    UNION ALL
    SELECT b.id, 0::int2, false, b.lane, b.rank, NULL, 1, 0::int8, 0, b.waits_for, 0::int2, 0::int2, 0::int2,
        false, b.eligible_at, b.deadline, j.created_at, NULL, NULL
        FROM hodei.blocked b JOIN hodei.job j ON j.id = b.id WHERE b.id = ANY (p_ids)
    UNION ALL
    SELECT d.id, 1::int2, true, d.lane, d.rank, NULL, coalesce(d.version, 1), coalesce(d.epoch, 0),
        coalesce(d.attempt, 0), 0, coalesce(d.lost, 0::int2), coalesce(d.generation, 0::int2),
        coalesce(d.cause, 0::int2), false, d.eligible_at, d.deadline, coalesce(d.moved_at, j.created_at),
        d.started_at, d.settled
        FROM hodei.delayed d JOIN hodei.job j ON j.id = d.id WHERE d.id = ANY (p_ids)
    UNION ALL
    SELECT r.id, 1::int2, false, r.lane, r.rank, NULL, 1, 0::int8, 0, 0, 0::int2, 0::int2, 0::int2, false,
        r.eligible_at, r.deadline, j.created_at, r.started_at, r.settled
        FROM (SELECT DISTINCT unnest(p_ids) AS id) u
        CROSS JOIN LATERAL (SELECT j.* FROM hodei.job j WHERE j.id = u.id OFFSET 0) j
        CROSS JOIN LATERAL (
            -- As in hodei.take.
            SELECT r.* FROM hodei.ready r
                WHERE r.lane = j.lane AND r.rank = j.rank AND r.eligible_at = coalesce(j.eligible_at, j.created_at)
                AND r.id = j.id AND r.version IS NULL OFFSET 0
        ) r
    UNION ALL
    SELECT r.id, 1::int2, false, r.lane, r.rank, NULL, r.version, coalesce(r.epoch, 0),
        coalesce(r.attempt, 0), 0, coalesce(r.lost, 0::int2), coalesce(r.generation, 0::int2), r.cause, false,
        r.eligible_at, r.deadline, r.moved_at, r.started_at, r.settled
        FROM hodei.ready r WHERE r.id = ANY (p_ids) AND r.version IS NOT NULL
$$;

-- Takes jobs from where they are, puts them where they are now, and counts that. Called by whoever holds their rows.
CREATE OR REPLACE FUNCTION hodei.move(
    p_leased uuid[], p_blocked uuid[], p_delayed uuid[], p_fresh uuid[], p_moved uuid[], p_done uuid[],
    p_id uuid[], p_state int2[], p_delay bool[], p_tenant int4[], p_lane int4[], p_rank int2[], p_holder int4[],
    p_version int4[], p_epoch int8[], p_attempt int4[], p_waits_for int4[], p_lost int2[], p_generation int2[],
    p_cause int2[], p_cancel bool[], p_eligible_at int8[], p_deadline int8[], p_moved_at int8[],
    p_started_at int8[], p_pipeline uuid[], p_settled bytea[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_from int4[];
    v_was int4[];
BEGIN
    IF cardinality(p_leased) > 0 THEN
        LOCK TABLE hodei.wide IN ROW SHARE MODE;
        IF EXISTS (SELECT 1 FROM hodei.wide) THEN
            -- What is leased and does not stay so.
            UPDATE hodei.wide s SET in_use = s.in_use - x.n FROM (
                SELECT v.tenant, v.queue, sum(y.n) AS n FROM (
                    SELECT d.lane, 1 AS n FROM hodei.leased d WHERE d.id = ANY (p_leased)
                    UNION ALL SELECT u.lane, -1 FROM unnest(p_lane, p_state) u (lane, state) WHERE u.state IN (2, 3)
                ) y JOIN hodei.lane l ON l.no = y.lane, LATERAL hodei.wide_of(l.tenant, l.queue) v
                GROUP BY v.tenant, v.queue
            ) x WHERE s.tenant = x.tenant AND s.queue = x.queue AND x.n <> 0;
        END IF;
        WITH d AS (DELETE FROM hodei.leased WHERE id = ANY (p_leased) RETURNING lane, CASE WHEN running THEN 3 ELSE 2 END AS was)
        SELECT array_agg(d.lane), array_agg(d.was) INTO v_from, v_was FROM d;
    END IF;
    IF cardinality(p_blocked) > 0 THEN
        WITH d AS (DELETE FROM hodei.blocked WHERE id = ANY (p_blocked) RETURNING lane)
        SELECT v_from || array_agg(d.lane), v_was || array_agg(0) INTO v_from, v_was FROM d;
    END IF;
    IF cardinality(p_delayed) > 0 THEN
        WITH d AS (DELETE FROM hodei.delayed WHERE id = ANY (p_delayed) RETURNING lane)
        SELECT v_from || array_agg(d.lane), v_was || array_agg(1) INTO v_from, v_was FROM d;
    END IF;
    IF cardinality(p_fresh) > 0 THEN
        WITH d AS (
            DELETE FROM hodei.ready r WHERE r.ctid = ANY (ARRAY(
                SELECT x.tid FROM unnest(p_fresh) u (id)
                CROSS JOIN LATERAL (SELECT j.* FROM hodei.job j WHERE j.id = u.id OFFSET 0) j
                CROSS JOIN LATERAL (
                    SELECT r.ctid AS tid FROM hodei.ready r WHERE r.lane = j.lane AND r.rank = j.rank
                        AND r.eligible_at = coalesce(j.eligible_at, j.created_at) AND r.id = j.id
                        AND r.version IS NULL OFFSET 0
                ) x
            )) RETURNING r.lane
        )
        SELECT v_from || array_agg(d.lane), v_was || array_agg(1) INTO v_from, v_was FROM d;
    END IF;
    IF cardinality(p_moved) > 0 THEN
        WITH d AS (DELETE FROM hodei.ready WHERE id = ANY (p_moved) AND version IS NOT NULL RETURNING lane)
        SELECT v_from || array_agg(d.lane), v_was || array_agg(1) INTO v_from, v_was FROM d;
    END IF;
    IF cardinality(p_done) > 0 THEN
        WITH d AS (
            DELETE FROM hodei.done d WHERE d.id = ANY (p_done) RETURNING d.id, d.state
        )
        SELECT v_from || array_agg(j.lane), v_was || array_agg(d.state::int4) INTO v_from, v_was
        FROM d CROSS JOIN LATERAL (SELECT j.lane FROM hodei.job j WHERE j.id = d.id OFFSET 0) j;
    END IF;
    INSERT INTO hodei.delta (tenant, lane, blocked, pending, scheduled, running, succeeded, failed, cancelled)
    SELECT l.tenant, y.lane, nullif(y.b, 0), nullif(y.p, 0), nullif(y.s, 0), nullif(y.r, 0), nullif(y.ok, 0),
        nullif(y.bad, 0), nullif(y.c, 0)
    FROM (
        SELECT x.lane, sum(x.n) FILTER (WHERE x.state = 0) AS b, sum(x.n) FILTER (WHERE x.state = 1) AS p,
            sum(x.n) FILTER (WHERE x.state = 2) AS s, sum(x.n) FILTER (WHERE x.state = 3) AS r,
            sum(x.n) FILTER (WHERE x.state = 4) AS ok, sum(x.n) FILTER (WHERE x.state = 5) AS bad,
            sum(x.n) FILTER (WHERE x.state = 6) AS c
        FROM (
            SELECT u.lane, u.state, -1 AS n FROM unnest(v_from, v_was) u (lane, state)
            UNION ALL SELECT u.lane, u.state, 1 FROM unnest(p_lane, p_state) u (lane, state)
        ) x GROUP BY x.lane
    ) y JOIN hodei.lane l ON l.no = y.lane
    WHERE coalesce(nullif(y.b, 0), nullif(y.p, 0), nullif(y.s, 0), nullif(y.r, 0), nullif(y.ok, 0), nullif(y.bad, 0),
        nullif(y.c, 0)) IS NOT NULL;
    IF 0 = ANY (p_state) THEN
        INSERT INTO hodei.blocked (id, eligible_at, lane, rank, waits_for, deadline, pipeline, created_at)
        SELECT u.id, u.eligible_at, u.lane, u.rank, u.waits_for, u.deadline, u.pipeline,
            (SELECT j.created_at FROM hodei.job j WHERE j.id = u.id)
        FROM unnest(p_id, p_state, p_lane, p_rank, p_waits_for, p_eligible_at, p_deadline, p_pipeline)
            u (id, state, lane, rank, waits_for, eligible_at, deadline, pipeline)
        WHERE u.state = 0;
    END IF;
    IF 1 = ANY (p_state) THEN
        WITH u AS MATERIALIZED (
            SELECT * FROM unnest(p_id, p_state, p_delay, p_lane, p_rank, p_version, p_epoch, p_attempt, p_lost,
                p_generation, p_cause, p_eligible_at, p_deadline, p_moved_at, p_started_at, p_pipeline, p_settled)
                u (id, state, delay, lane, rank, version, epoch, attempt, lost, generation, cause, eligible_at,
                    deadline, moved_at, started_at, pipeline, settled)
            WHERE u.state = 1
        ), d AS (
            INSERT INTO hodei.delayed (id, eligible_at, lane, rank, lost, generation, cause, version, attempt,
                epoch, deadline, moved_at, started_at, pipeline, settled, created_at)
            SELECT id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch, deadline,
                moved_at, started_at, pipeline, settled, (SELECT j.created_at FROM hodei.job j WHERE j.id = u.id)
            FROM u WHERE delay
        )
        INSERT INTO hodei.ready (id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch,
            deadline, moved_at, started_at, pipeline, settled, created_at)
        SELECT id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch, deadline, moved_at,
            started_at, pipeline, settled, nullif((SELECT j.created_at FROM hodei.job j WHERE j.id = u.id), u.eligible_at)
        FROM u WHERE NOT delay;
    END IF;
    IF p_state && '{2,3}'::int2[] THEN
        INSERT INTO hodei.leased (id, moved_at, holder, lane, tenant, running, cancel, lost, generation, version, attempt,
            epoch, eligible_at, deadline, started_at, pipeline, settled)
        SELECT u.id, u.moved_at, u.holder, u.lane, nullif(u.tenant, 1), nullif(u.state = 3, false),
            nullif(u.cancel, false), u.lost,
            u.generation, u.version, u.attempt, u.epoch, u.eligible_at, u.deadline, u.started_at, u.pipeline,
            u.settled
        FROM unnest(p_id, p_state, p_lane, p_tenant, p_holder, p_version, p_epoch, p_attempt, p_lost, p_generation, p_cancel,
            p_eligible_at, p_deadline, p_moved_at, p_started_at, p_pipeline, p_settled)
            u (id, state, lane, tenant, holder, version, epoch, attempt, lost, generation, cancel, eligible_at, deadline,
                moved_at, started_at, pipeline, settled)
        WHERE u.state IN (2, 3);
    END IF;
    IF p_state && '{4,5,6}'::int2[] THEN
        INSERT INTO hodei.done (id, epoch, moved_at, eligible_at, tenant, version, attempt, state, cause, lost,
            generation, deadline, started_at, settled, created_at)
        SELECT u.id, u.epoch, u.moved_at, u.eligible_at, u.tenant, u.version, u.attempt, u.state, u.cause, u.lost,
            u.generation, u.deadline, u.started_at, u.settled,
            CASE WHEN u.state >= 5 THEN (SELECT j.created_at FROM hodei.job j WHERE j.id = u.id) END
        FROM unnest(p_id, p_state, p_tenant, p_version, p_epoch, p_attempt, p_lost, p_generation, p_cause,
            p_eligible_at, p_deadline, p_moved_at, p_started_at, p_settled)
            u (id, state, tenant, version, epoch, attempt, lost, generation, cause, eligible_at, deadline,
                moved_at, started_at, settled)
        WHERE u.state >= 4;
        -- Keys that go with the ends of their jobs: a node of before does not free them itself.
        DELETE FROM hodei.unique_key k WHERE k.key LIKE 'open:%' AND k.id = ANY (ARRAY(
            SELECT u.id FROM unnest(p_id, p_state) u (id, state) WHERE u.state >= 4));
    END IF;
END
$$;

-- Frees those among keys that no job holds any more, for whoever asks for them. The job of a key may have gone with its era,
-- may have ended where keys did not go with their jobs yet, or may have left it without a look at it: neither a failure nor
-- a claim looks for keys. What was ever claimed has an epoch.
CREATE OR REPLACE FUNCTION hodei.free_keys(p_tenant int4, p_key text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    DELETE FROM hodei.unique_key k USING unnest(p_key) u (key) WHERE k.tenant = p_tenant AND k.key = u.key AND (
        NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = k.id)
        OR (k.key LIKE 'open:%' AND EXISTS (SELECT 1 FROM hodei.done d WHERE d.id = k.id))
        OR (k.key LIKE 'unfailed:%' AND EXISTS (SELECT 1 FROM hodei.done d WHERE d.id = k.id AND d.state IN (5, 6)))
        OR (k.key LIKE 'waiting:%' AND (
            EXISTS (SELECT 1 FROM hodei.leased l WHERE l.id = k.id)
            OR EXISTS (SELECT 1 FROM hodei.done d WHERE d.id = k.id)
            OR EXISTS (SELECT 1 FROM hodei.ready r WHERE r.id = k.id AND r.version IS NOT NULL
                AND (r.epoch <> 0 OR r.generation <> 0))
            OR EXISTS (SELECT 1 FROM hodei.delayed d WHERE d.id = k.id AND (d.epoch <> 0 OR d.generation <> 0))))
    );
END
$$;

-- Frees keys of jobs, and gives keys to jobs, in the order of the keys: whoever passes several waits for others, but never in
-- a circle. A key that one job leaves to another is freed first.
CREATE OR REPLACE FUNCTION hodei.pass_keys(p_tenant int4[], p_key text[], p_id uuid[], p_taken bool[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off AS $$
DECLARE
    v_one record;
BEGIN
    FOR v_one IN SELECT u.* FROM unnest(p_tenant, p_key, p_id, p_taken) u (tenant, key, id, taken)
            ORDER BY u.tenant, u.key COLLATE "C", u.taken LOOP
        IF v_one.taken THEN
            INSERT INTO hodei.unique_key (tenant, key, id) VALUES (v_one.tenant, v_one.key, v_one.id);
        ELSE
            DELETE FROM hodei.unique_key k WHERE k.tenant = v_one.tenant AND k.key = v_one.key AND k.id = v_one.id;
        END IF;
    END LOOP;
END
$$;

-- Writes what a transaction changed: the rows of the log, how many changes they have, and what it takes of limits.
-- Returns where each row of the log stands, also of those in which nothing is recorded and which are not written.
CREATE OR REPLACE FUNCTION hodei.note(
    p_node int8, p_at int8, p_change_tenant int4[], p_change_n int4[], p_change_body bytea[], p_usage int4[],
    p_used int8[], OUT pos int8, OUT no int8
) RETURNS SETOF record LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_pos int8;
    v_nos int8[];
    v_n int8 := (SELECT sum(n) FROM unnest(p_change_n) n);
BEGIN
    IF cardinality(p_usage) > 0 THEN
        UPDATE hodei.usage l SET in_use = l.in_use + u.used FROM unnest(p_usage, p_used) u (no, used)
            WHERE l.no = u.no;
    END IF;
    IF cardinality(p_change_n) > 0 THEN
        v_pos := hodei.pos();
        v_nos := ARRAY(SELECT nextval('hodei.change_no') FROM generate_series(1, cardinality(p_change_n)));
        INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
        SELECT v_pos, u.no, p_at, p_node, u.tenant, u.n, u.body
        FROM unnest(v_nos, p_change_tenant, p_change_n, p_change_body) u (no, tenant, n, body)
        WHERE u.n > 0;
    END IF;
    IF v_n > 0 THEN
        INSERT INTO hodei.delta (tenant, changes) VALUES (p_change_tenant[1], v_n);
    END IF;
    RETURN QUERY SELECT v_pos, x FROM unnest(v_nos) WITH ORDINALITY u (x, ord) ORDER BY ord;
END
$$;

-- As nodes of before call it, while they run beside those of now. What they count is counted where they move it.
CREATE OR REPLACE FUNCTION hodei.note(
    p_node int8, p_at int8, p_change_tenant int4[], p_change_n int4[], p_change_body bytea[],
    p_count_tenant int4[], p_blocked int4[], p_pending int4[], p_scheduled int4[], p_running int4[],
    p_succeeded int4[], p_failed int4[], p_cancelled int4[], p_usage int4[], p_used int8[],
    OUT pos int8, OUT no int8
) RETURNS SETOF record LANGUAGE sql VOLATILE AS $$
    SELECT n.pos, n.no FROM hodei.note(p_node, p_at, p_change_tenant, p_change_n, p_change_body, p_usage, p_used) n
$$;
