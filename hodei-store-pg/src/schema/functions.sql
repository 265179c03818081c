-- The only clock: microseconds since 1970.
CREATE OR REPLACE FUNCTION hodei.now() RETURNS int8 LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8
$$;

-- Where the changes of this transaction stand in the log, asked for after it holds the rows that it moves. Not before
-- any transaction that moved them, and not before its own: so the changes of a job are in the order of its versions, and
-- whatever stands before the oldest transaction under way is complete.
CREATE OR REPLACE FUNCTION hodei.pos() RETURNS int8 LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN greatest(pg_current_xact_id()::text::int8, pg_snapshot_xmax(pg_current_snapshot())::text::int8 - 1);
END
$$;

-- Up to where the log is complete: the oldest transaction under way that may still write to it. Those that are known to be
-- in another database of the server cannot, nor can those of the vacuum and of the connections that nodes keep for their
-- heartbeats.
CREATE OR REPLACE FUNCTION hodei.horizon() RETURNS int8 LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_top int8 := pg_snapshot_xmax(v_snapshot)::text::int8;
    v_first int8 := pg_snapshot_xmin(v_snapshot)::text::int8;
BEGIN
    IF v_first = v_top THEN
        RETURN v_top;
    END IF;
    RETURN (
        SELECT coalesce(min(x::text::int8), v_top) FROM pg_snapshot_xip(v_snapshot) x
        WHERE NOT EXISTS (
            SELECT 1 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock'
                AND l.transactionid = x::xid
                AND (a.datid <> (SELECT oid FROM pg_database WHERE datname = current_database())
                    OR a.application_name = 'hodei reserved' OR a.backend_type = 'autovacuum worker')
        )
    );
END
$$;

-- What brought a job to the end of its run.
CREATE OR REPLACE FUNCTION hodei.cause_of(state int2) RETURNS int2 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (CASE state WHEN 4 THEN 6 WHEN 5 THEN 7 ELSE 14 END)::int2
$$;

-- The bytes of a change.
CREATE OR REPLACE FUNCTION hodei.change_bytes(
    id uuid, version int4, attempt int4, epoch int8, kind int4, pipeline uuid
) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT uuid_send(id) || int4send(version) || int4send(attempt) || int8send(epoch)
        || CASE WHEN pipeline IS NULL THEN int4send(kind) ELSE int4send(kind + 1) || uuid_send(pipeline) END
$$;

CREATE OR REPLACE FUNCTION hodei.tenant_no(p_name text) RETURNS int4 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_no int4;
BEGIN
    LOOP
        SELECT no INTO v_no FROM hodei.tenant WHERE name = p_name;
        IF FOUND THEN
            RETURN v_no;
        END IF;
        INSERT INTO hodei.tenant (name) VALUES (p_name) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION hodei.usage_no(p_tenant int4, p_key text) RETURNS int4 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_no int4;
BEGIN
    LOOP
        SELECT no INTO v_no FROM hodei.usage WHERE tenant = p_tenant AND key = p_key;
        IF FOUND THEN
            RETURN v_no;
        END IF;
        INSERT INTO hodei.usage (tenant, key) VALUES (p_tenant, p_key) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- The number of a lane, which is made where there is none.
CREATE OR REPLACE FUNCTION hodei.lane_no(
    p_tenant text, p_queue text, p_class int8, p_request bytea, p_keys text[], OUT tenant_no int4, OUT lane_no int4
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_limits int4[];
BEGIN
    tenant_no := hodei.tenant_no(p_tenant);
    LOOP
        SELECT no INTO lane_no FROM hodei.lane
            WHERE tenant = tenant_no AND queue = p_queue AND class = p_class;
        IF FOUND THEN
            RETURN;
        END IF;
        IF cardinality(p_keys) > 0 THEN
            SELECT array_agg(DISTINCT hodei.usage_no(tenant_no, k) ORDER BY hodei.usage_no(tenant_no, k))
                INTO v_limits FROM unnest(p_keys) k;
        END IF;
        INSERT INTO hodei.lane (tenant, queue, class, request, limits)
            VALUES (tenant_no, p_queue, p_class, p_request, v_limits) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- The number of a life of an owner, which is made, without any life in it, where there is none. Who asks lets it hold
-- something: so it is not cleared any more.
CREATE OR REPLACE FUNCTION hodei.owner_no(p_name text, p_incarnation int8) RETURNS int4
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_no int4;
BEGIN
    LOOP
        SELECT no INTO v_no FROM hodei.owner WHERE name = p_name AND incarnation = p_incarnation FOR SHARE;
        IF FOUND THEN
            UPDATE hodei.owner SET cleared = false WHERE no = v_no AND cleared;
            RETURN v_no;
        END IF;
        INSERT INTO hodei.owner (name, incarnation, expires_at)
            VALUES (p_name, p_incarnation, hodei.now()) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- Where jobs are, each locked until the end of the transaction.
CREATE OR REPLACE FUNCTION hodei.take(p_ids uuid[]) RETURNS SETOF hodei.placed
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_left uuid[];
    v_got hodei.placed[];
    v_all hodei.placed[] := '{}';
    v_round int4 := 0;
BEGIN
    SELECT array_agg(j.id ORDER BY j.id) INTO v_left FROM hodei.job j WHERE j.id = ANY (p_ids);
    WHILE cardinality(v_left) > 0 LOOP
        -- A job that moves while it is looked for is found in a later round.
        v_round := v_round + 1;
        IF v_round > 1000 THEN
            RAISE EXCEPTION 'jobs without a place: %', v_left USING ERRCODE = 'XX001';
        END IF;
        v_got := ARRAY(SELECT (l.id, CASE WHEN l.running THEN 3 ELSE 2 END, false, l.lane, j.rank, l.holder,
                coalesce(l.version, 2), coalesce(l.epoch, 1), coalesce(l.attempt, 0), 0, coalesce(l.lost, 0),
                coalesce(l.generation, 0), CASE WHEN l.running THEN 5 ELSE 4 END, coalesce(l.cancel, false),
                coalesce(l.eligible_at, j.eligible_at), l.deadline, l.moved_at, l.started_at,
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
            FROM hodei.job j JOIN hodei.ready r ON r.lane = j.lane AND r.rank = j.rank
                AND r.eligible_at = j.eligible_at AND r.id = j.id AND r.version IS NULL
            WHERE j.id = ANY (v_left) ORDER BY r.id FOR UPDATE OF r);
        v_got := v_got || ARRAY(SELECT (r.id, 1, false, r.lane, r.rank, NULL, r.version, coalesce(r.epoch, 0),
                coalesce(r.attempt, 0), 0, coalesce(r.lost, 0), coalesce(r.generation, 0), r.cause, false,
                r.eligible_at, r.deadline, r.moved_at, r.started_at, r.settled)::hodei.placed
            FROM hodei.ready r WHERE r.id = ANY (v_left) AND r.version IS NOT NULL ORDER BY r.id FOR UPDATE);
        v_got := v_got || ARRAY(SELECT (d.id, d.state, false, j.lane, j.rank, NULL, coalesce(d.version, 3),
                coalesce(d.epoch, 1), coalesce(d.attempt, 1), 0, coalesce(d.lost, 0), coalesce(d.generation, 0),
                coalesce(d.cause, hodei.cause_of(d.state)), false, coalesce(d.eligible_at, j.eligible_at),
                d.deadline, d.moved_at, d.started_at, d.settled)::hodei.placed
            FROM hodei.done d JOIN hodei.job j ON j.id = d.id
            WHERE d.id = ANY (v_left) ORDER BY d.id FOR UPDATE OF d);
        v_all := v_all || v_got;
        IF cardinality(v_got) = cardinality(v_left) THEN
            EXIT;
        END IF;
        v_left := ARRAY(SELECT j.id FROM unnest(v_left) x JOIN hodei.job j ON j.id = x
            WHERE NOT EXISTS (SELECT 1 FROM unnest(v_got) g WHERE g.id = x) ORDER BY 1);
    END LOOP;
    RETURN QUERY SELECT * FROM unnest(v_all);
END
$$;

-- Where jobs are, as this statement sees it.
CREATE OR REPLACE FUNCTION hodei.places(p_ids uuid[]) RETURNS SETOF hodei.placed
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT l.id, (CASE WHEN l.running THEN 3 ELSE 2 END)::int2, false, l.lane, j.rank, l.holder,
        coalesce(l.version, 2), coalesce(l.epoch, 1), coalesce(l.attempt, 0), 0, coalesce(l.lost, 0::int2),
        coalesce(l.generation, 0::int2), (CASE WHEN l.running THEN 5 ELSE 4 END)::int2, coalesce(l.cancel, false),
        coalesce(l.eligible_at, j.eligible_at), l.deadline, l.moved_at, l.started_at, l.settled
        FROM hodei.leased l JOIN hodei.job j ON j.id = l.id WHERE l.id = ANY (p_ids)
    UNION ALL
    SELECT d.id, d.state, false, j.lane, j.rank, NULL, coalesce(d.version, 3), coalesce(d.epoch, 1),
        coalesce(d.attempt, 1), 0, coalesce(d.lost, 0::int2), coalesce(d.generation, 0::int2),
        coalesce(d.cause, hodei.cause_of(d.state)), false, coalesce(d.eligible_at, j.eligible_at), d.deadline,
        d.moved_at, d.started_at, d.settled
        FROM hodei.done d JOIN hodei.job j ON j.id = d.id WHERE d.id = ANY (p_ids)
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
        FROM hodei.job j JOIN hodei.ready r ON r.lane = j.lane AND r.rank = j.rank
            AND r.eligible_at = j.eligible_at AND r.id = j.id AND r.version IS NULL
        WHERE j.id = ANY (p_ids)
    UNION ALL
    SELECT r.id, 1::int2, false, r.lane, r.rank, NULL, r.version, coalesce(r.epoch, 0),
        coalesce(r.attempt, 0), 0, coalesce(r.lost, 0::int2), coalesce(r.generation, 0::int2), r.cause, false,
        r.eligible_at, r.deadline, r.moved_at, r.started_at, r.settled
        FROM hodei.ready r WHERE r.id = ANY (p_ids) AND r.version IS NOT NULL
$$;

-- Takes jobs from where they are, and puts them where they are now. Written by whoever holds their rows.
CREATE OR REPLACE FUNCTION hodei.move(
    p_leased uuid[], p_blocked uuid[], p_delayed uuid[], p_fresh uuid[], p_moved uuid[], p_done uuid[],
    p_id uuid[], p_state int2[], p_delay bool[], p_tenant int4[], p_lane int4[], p_rank int2[], p_holder int4[],
    p_version int4[], p_epoch int8[], p_attempt int4[], p_waits_for int4[], p_lost int2[], p_generation int2[],
    p_cause int2[], p_cancel bool[], p_eligible_at int8[], p_deadline int8[], p_moved_at int8[],
    p_started_at int8[], p_pipeline uuid[], p_settled bytea[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF cardinality(p_leased) > 0 THEN
        DELETE FROM hodei.leased WHERE id = ANY (p_leased);
    END IF;
    IF cardinality(p_blocked) > 0 THEN
        DELETE FROM hodei.blocked WHERE id = ANY (p_blocked);
    END IF;
    IF cardinality(p_delayed) > 0 THEN
        DELETE FROM hodei.delayed WHERE id = ANY (p_delayed);
    END IF;
    IF cardinality(p_fresh) > 0 THEN
        DELETE FROM hodei.ready r USING hodei.job j WHERE j.id = ANY (p_fresh) AND r.lane = j.lane
            AND r.rank = j.rank AND r.eligible_at = j.eligible_at AND r.id = j.id AND r.version IS NULL;
    END IF;
    IF cardinality(p_moved) > 0 THEN
        DELETE FROM hodei.ready WHERE id = ANY (p_moved) AND version IS NOT NULL;
    END IF;
    IF cardinality(p_done) > 0 THEN
        DELETE FROM hodei.done WHERE id = ANY (p_done);
    END IF;
    IF 0 = ANY (p_state) THEN
        INSERT INTO hodei.blocked (id, eligible_at, lane, rank, waits_for, deadline, pipeline)
        SELECT u.id, u.eligible_at, u.lane, u.rank, u.waits_for, u.deadline, u.pipeline
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
                epoch, deadline, moved_at, started_at, pipeline, settled)
            SELECT id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch, deadline,
                moved_at, started_at, pipeline, settled FROM u WHERE delay
        )
        INSERT INTO hodei.ready (id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch,
            deadline, moved_at, started_at, pipeline, settled)
        SELECT id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch, deadline, moved_at,
            started_at, pipeline, settled FROM u WHERE NOT delay;
    END IF;
    IF p_state && '{2,3}'::int2[] THEN
        INSERT INTO hodei.leased (id, moved_at, holder, lane, running, cancel, lost, generation, version, attempt,
            epoch, eligible_at, deadline, started_at, pipeline, settled)
        SELECT u.id, u.moved_at, u.holder, u.lane, nullif(u.state = 3, false), nullif(u.cancel, false), u.lost,
            u.generation, u.version, u.attempt, u.epoch, u.eligible_at, u.deadline, u.started_at, u.pipeline,
            u.settled
        FROM unnest(p_id, p_state, p_lane, p_holder, p_version, p_epoch, p_attempt, p_lost, p_generation, p_cancel,
            p_eligible_at, p_deadline, p_moved_at, p_started_at, p_pipeline, p_settled)
            u (id, state, lane, holder, version, epoch, attempt, lost, generation, cancel, eligible_at, deadline,
                moved_at, started_at, pipeline, settled)
        WHERE u.state IN (2, 3);
    END IF;
    IF p_state && '{4,5,6}'::int2[] THEN
        INSERT INTO hodei.done (id, epoch, moved_at, eligible_at, tenant, version, attempt, state, cause, lost,
            generation, deadline, started_at, settled)
        SELECT u.id, u.epoch, u.moved_at, u.eligible_at, u.tenant, u.version, u.attempt, u.state, u.cause, u.lost,
            u.generation, u.deadline, u.started_at, u.settled
        FROM unnest(p_id, p_state, p_tenant, p_version, p_epoch, p_attempt, p_lost, p_generation, p_cause,
            p_eligible_at, p_deadline, p_moved_at, p_started_at, p_settled)
            u (id, state, tenant, version, epoch, attempt, lost, generation, cause, eligible_at, deadline,
                moved_at, started_at, settled)
        WHERE u.state >= 4;
    END IF;
END
$$;

-- Writes what a transaction changed: the rows of the log, what it adds to the counts, and what it takes of limits.
-- Returns where each row of the log stands, also of those in which nothing is recorded and which are not written.
CREATE OR REPLACE FUNCTION hodei.note(
    p_node int8, p_at int8, p_change_tenant int4[], p_change_n int4[], p_change_body bytea[],
    p_count_tenant int4[], p_blocked int4[], p_pending int4[], p_scheduled int4[], p_running int4[],
    p_succeeded int4[], p_failed int4[], p_cancelled int4[], p_usage int4[], p_used int8[],
    OUT pos int8, OUT no int8
) RETURNS SETOF record LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_pos int8;
    v_nos int8[];
BEGIN
    IF cardinality(p_usage) > 0 THEN
        PERFORM 1 FROM hodei.usage WHERE no = ANY (p_usage) ORDER BY no FOR NO KEY UPDATE;
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
    IF cardinality(p_count_tenant) > 0 THEN
        INSERT INTO hodei.delta (tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled,
            changes)
        SELECT u.tenant, nullif(u.b, 0), nullif(u.p, 0), nullif(u.s, 0), nullif(u.r, 0), nullif(u.ok, 0),
            nullif(u.bad, 0), nullif(u.c, 0),
            CASE WHEN u.ord = 1 THEN nullif((SELECT sum(n) FROM unnest(p_change_n) n), 0)::int4 END
        FROM unnest(p_count_tenant, p_blocked, p_pending, p_scheduled, p_running, p_succeeded, p_failed,
            p_cancelled) WITH ORDINALITY u (tenant, b, p, s, r, ok, bad, c, ord);
    END IF;
    RETURN QUERY SELECT v_pos, x FROM unnest(v_nos) WITH ORDINALITY u (x, ord) ORDER BY ord;
END
$$;

-- Moves delayed jobs whose time has come to where they are claimed.
CREATE OR REPLACE FUNCTION hodei.promote(p_now int8) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_n int8;
BEGIN
    LOOP
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
        GET DIAGNOSTICS v_n = ROW_COUNT;
        IF v_n = 0 THEN
            RETURN;
        END IF;
    END LOOP;
END
$$;

-- Leases the first ready jobs of lanes, pick by pick: at most p_n of a rank of at most p_rank each.
CREATE OR REPLACE FUNCTION hodei.claim(
    p_holder int4, p_now int8, p_node int8, p_record bool, p_lane int4[], p_rank int2[], p_n int8[]
) RETURNS SETOF hodei.exchanged
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
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
            WHERE r.lane = p_lane[i] AND r.rank <= p_rank[i] AND (r.deadline IS NULL OR r.deadline > p_now)
                -- One that came while this waited for a limit or a row is of a time that this does not know yet.
                AND r.eligible_at <= p_now
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
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
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

-- Adds up what was counted. Somebody else doing so is enough.
CREATE OR REPLACE FUNCTION hodei.fold() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('hodei.fold', 0)) THEN
        RETURN;
    END IF;
    WITH d AS (DELETE FROM hodei.delta RETURNING *), s AS (
        SELECT tenant, coalesce(sum(blocked), 0) AS b, coalesce(sum(pending), 0) AS p,
            coalesce(sum(scheduled), 0) AS s, coalesce(sum(running), 0) AS r, coalesce(sum(succeeded), 0) AS ok,
            coalesce(sum(failed), 0) AS bad, coalesce(sum(cancelled), 0) AS c, coalesce(sum(changes), 0) AS n
        FROM d GROUP BY tenant
    )
    INSERT INTO hodei.total AS t
    SELECT tenant, b, p, s, r, ok, bad, c, n FROM s
    ON CONFLICT (tenant) DO UPDATE SET blocked = t.blocked + excluded.blocked,
        pending = t.pending + excluded.pending, scheduled = t.scheduled + excluded.scheduled,
        running = t.running + excluded.running, succeeded = t.succeeded + excluded.succeeded,
        failed = t.failed + excluded.failed, cancelled = t.cancelled + excluded.cancelled,
        changes = t.changes + excluded.changes;
END
$$;

-- Begins a life of an owner, and ends those before.
CREATE OR REPLACE FUNCTION hodei.register(p_name text, p_ttl int8) RETURNS int8 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8;
    v_incarnation int8;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('hodei.owner ' || p_name, 0));
    v_now := hodei.now();
    v_incarnation := nextval('hodei.incarnation');
    UPDATE hodei.owner SET expires_at = v_now WHERE name = p_name AND expires_at > v_now;
    INSERT INTO hodei.owner (name, incarnation, expires_at) VALUES (p_name, v_incarnation, v_now + p_ttl)
        ON CONFLICT (name, incarnation) DO UPDATE SET expires_at = excluded.expires_at;
    RETURN v_incarnation;
END
$$;

-- Prolongs lives, and says of each whether it is one and which jobs it must stop.
CREATE OR REPLACE FUNCTION hodei.beat(
    p_name text[], p_incarnation int8[], p_ttl int8, OUT ord int8, OUT id uuid, OUT epoch int8
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_now int8;
    v_alive int4[];
BEGIN
    PERFORM 1 FROM hodei.owner o JOIN unnest(p_name, p_incarnation) u (name, incarnation)
        ON o.name = u.name AND o.incarnation = u.incarnation ORDER BY o.no FOR NO KEY UPDATE OF o;
    v_now := hodei.now();
    WITH b AS (
        UPDATE hodei.owner o SET expires_at = v_now + p_ttl FROM unnest(p_name, p_incarnation) u (name, incarnation)
        WHERE o.name = u.name AND o.incarnation = u.incarnation AND o.expires_at > v_now RETURNING o.no
    )
    SELECT array_agg(no) INTO v_alive FROM b;
    RETURN QUERY
    SELECT u.ord, l.id, l.epoch
    FROM unnest(p_name, p_incarnation) WITH ORDINALITY u (name, incarnation, ord)
    JOIN hodei.owner o ON o.name = u.name AND o.incarnation = u.incarnation
    LEFT JOIN hodei.leased l ON l.holder = o.no AND l.cancel
    WHERE o.no = ANY (v_alive) ORDER BY 1, 2;
END
$$;

CREATE OR REPLACE FUNCTION hodei.retire(p_name text, p_incarnation int8) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8 := hodei.now();
BEGIN
    UPDATE hodei.owner SET expires_at = v_now
        WHERE name = p_name AND incarnation = p_incarnation AND expires_at > v_now;
    UPDATE hodei.term SET expires_at = v_now
        WHERE owner = p_name AND incarnation = p_incarnation AND expires_at > v_now;
END
$$;

-- Takes a duty that nobody leads, and returns the number of the term.
CREATE OR REPLACE FUNCTION hodei.take_term(p_duty text, p_owner text, p_incarnation int8, p_ttl int8) RETURNS int8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8;
    v_number int8;
BEGIN
    PERFORM 1 FROM hodei.term WHERE duty = p_duty FOR UPDATE;
    v_now := hodei.now();
    INSERT INTO hodei.term AS t (duty, number, owner, incarnation, expires_at)
        VALUES (p_duty, 1, p_owner, p_incarnation, v_now + p_ttl)
        ON CONFLICT (duty) DO UPDATE SET number = t.number + 1, owner = excluded.owner,
            incarnation = excluded.incarnation, expires_at = excluded.expires_at
        WHERE t.expires_at <= v_now RETURNING number INTO v_number;
    RETURN v_number;
END
$$;

CREATE OR REPLACE FUNCTION hodei.keep_term(
    p_duty text, p_number int8, p_owner text, p_incarnation int8, p_ttl int8
) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8;
BEGIN
    PERFORM 1 FROM hodei.term WHERE duty = p_duty FOR UPDATE;
    v_now := hodei.now();
    UPDATE hodei.term SET expires_at = v_now + p_ttl WHERE duty = p_duty AND number = p_number
        AND owner = p_owner AND incarnation = p_incarnation AND expires_at > v_now;
    RETURN FOUND;
END
$$;

-- Stores jobs of one tenant that wait for nobody, each for itself; no id and no key comes twice. The first row that is
-- returned tells when and where in the log; then follows a row for each job that was not new, with the job that has its id
-- or its key.
CREATE OR REPLACE FUNCTION hodei.submit(
    p_node int8, p_record bool, p_tenant int4, p_id uuid[], p_fingerprint uuid[], p_lane int4[], p_rank int2[],
    p_pipeline uuid[], p_name text[], p_body bytea[], p_run_at int8[], p_deadline int8[], p_key text[],
    OUT ord int8, OUT id uuid, OUT fingerprint uuid, OUT at int8, OUT pos int8, OUT no int8
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_now int8 := hodei.now();
    v_keyed uuid[];
    v_known uuid[];
    v_new uuid[];
    v_body bytea;
BEGIN
    IF p_key IS NOT NULL THEN
        -- An id speaks before a key. Keys are taken in one order, so that nobody waits in a circle.
        v_known := ARRAY(SELECT j.id FROM hodei.job j WHERE j.id = ANY (p_id));
        WITH k AS (
            INSERT INTO hodei.unique_key (tenant, key, id)
            SELECT p_tenant, u.key, u.id FROM unnest(p_key, p_id) u (key, id)
            WHERE u.key IS NOT NULL AND u.id <> ALL (v_known) ORDER BY u.key
            ON CONFLICT DO NOTHING RETURNING id
        )
        SELECT coalesce(array_agg(k.id), '{}') INTO v_keyed FROM k;
    END IF;
    WITH j AS (
        INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, deadline, pipeline, name,
            body)
        SELECT u.id, u.fingerprint, v_now, greatest(u.run_at, v_now), p_tenant, u.lane, u.rank, u.deadline,
            u.pipeline, u.name, u.body
        FROM unnest(p_id, p_fingerprint, p_lane, p_rank, p_pipeline, p_name, p_body, p_run_at, p_deadline, p_key)
            u (id, fingerprint, lane, rank, pipeline, name, body, run_at, deadline, key)
        WHERE u.key IS NULL OR u.id = ANY (v_keyed)
        ON CONFLICT (id) DO NOTHING RETURNING id, eligible_at, lane, rank, deadline, pipeline
    ), r AS (
        INSERT INTO hodei.ready (id, eligible_at, lane, rank, deadline, pipeline)
        SELECT j.id, j.eligible_at, j.lane, j.rank, j.deadline, j.pipeline FROM j WHERE j.eligible_at <= v_now
    ), d AS (
        INSERT INTO hodei.delayed (id, eligible_at, lane, rank, deadline, pipeline)
        SELECT j.id, j.eligible_at, j.lane, j.rank, j.deadline, j.pipeline FROM j WHERE j.eligible_at > v_now
    )
    -- From nowhere to pending, submitted.
    SELECT coalesce(array_agg(j.id), '{}'), CASE WHEN p_record THEN
        string_agg(hodei.change_bytes(j.id, 1, 0, 0, 65536, j.pipeline), ''::bytea) END INTO v_new, v_body FROM j;
    IF NOT v_keyed <@ v_new THEN
        RAISE EXCEPTION 'an id was taken meanwhile' USING ERRCODE = '40001';
    END IF;
    at := v_now;
    IF cardinality(v_new) > 0 THEN
        pos := hodei.pos();
        no := nextval('hodei.change_no');
        IF p_record THEN
            INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
                VALUES (pos, no, v_now, p_node, p_tenant, cardinality(v_new), v_body);
        END IF;
        INSERT INTO hodei.delta (tenant, pending, changes)
            VALUES (p_tenant, cardinality(v_new), CASE WHEN p_record THEN cardinality(v_new) END);
    END IF;
    ord := 0;
    RETURN NEXT;
    IF cardinality(v_new) < cardinality(p_id) THEN
        RETURN QUERY
        SELECT u.ord, j.id, j.fingerprint, v_now, NULL::int8, NULL::int8
            FROM unnest(p_id) WITH ORDINALITY u (id, ord) JOIN hodei.job j ON j.id = u.id
            WHERE u.id <> ALL (v_new)
        UNION ALL
        SELECT u.ord, j.id, j.fingerprint, v_now, NULL, NULL
            FROM unnest(p_id, p_key) WITH ORDINALITY u (id, key, ord)
            JOIN hodei.unique_key k ON k.tenant = p_tenant AND k.key = u.key JOIN hodei.job j ON j.id = k.id
            WHERE u.id <> ALL (v_new) AND u.id <> ALL (v_known);
    END IF;
END
$$;

-- Tells the children of jobs that have just succeeded, each once for all of its parents. The children of those that ended
-- another way may end themselves, and theirs: that is left to the rules.
CREATE OR REPLACE FUNCTION hodei.tell_children(p_id uuid[], p_now int8, p_node int8, p_log int2)
RETURNS SETOF hodei.exchanged
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_parents uuid[];
    v_badly bool;
BEGIN
    SELECT array_agg(DISTINCT d.id), bool_or(d.state <> 4) INTO v_parents, v_badly
        FROM hodei.edge e JOIN hodei.done d ON d.id = e.parent
        WHERE e.parent = ANY (p_id) AND NOT e.told;
    IF v_parents IS NULL THEN
        RETURN;
    ELSIF v_badly THEN
        RAISE EXCEPTION 'somebody waits for them' USING ERRCODE = 'HD001';
    END IF;
    -- In one order, so that nobody waits in a circle.
    PERFORM 1 FROM hodei.blocked b WHERE b.id = ANY (ARRAY(
        SELECT e.child FROM hodei.edge e WHERE e.parent = ANY (v_parents) AND NOT e.told
    )) ORDER BY b.id FOR UPDATE;
    RETURN QUERY
    WITH e AS (
        UPDATE hodei.edge SET told = true WHERE parent = ANY (v_parents) AND NOT told RETURNING child
    ), n AS MATERIALIZED (
        SELECT child, count(*)::int4 AS told FROM e GROUP BY child
    ), w AS (
        UPDATE hodei.blocked b SET waits_for = b.waits_for - n.told FROM n
        WHERE b.id = n.child AND b.waits_for > n.told
    ), d AS (
        DELETE FROM hodei.blocked b USING n WHERE b.id = n.child AND b.waits_for <= n.told RETURNING b.*
    ), t AS MATERIALIZED (
        SELECT d.id, greatest(d.eligible_at, p_now) AS eligible_at, d.lane, d.rank, d.deadline, d.pipeline, l.tenant
        FROM d JOIN hodei.lane l ON l.no = d.lane
    ), r AS (
        INSERT INTO hodei.ready (id, eligible_at, lane, rank, cause, version, deadline, moved_at, pipeline)
        SELECT t.id, t.eligible_at, t.lane, t.rank, 1, 2, t.deadline, p_now, t.pipeline FROM t
        WHERE t.eligible_at <= p_now
    ), y AS (
        INSERT INTO hodei.delayed (id, eligible_at, lane, rank, cause, version, deadline, moved_at, pipeline)
        SELECT t.id, t.eligible_at, t.lane, t.rank, 1, 2, t.deadline, p_now, t.pipeline FROM t
        WHERE t.eligible_at > p_now
    ), h AS MATERIALIZED (
        -- Blocked to pending, parents settled.
        SELECT t.tenant, hodei.pos() AS pos, nextval('hodei.change_no') AS no, count(*) AS n,
            CASE WHEN p_log = 0 THEN string_agg(hodei.change_bytes(t.id, 2, 0, 0, 16843008, t.pipeline), ''::bytea
                ORDER BY t.id) END AS body
        FROM t GROUP BY t.tenant
    ), c AS (
        INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
        SELECT h.pos, h.no, p_now, p_node, h.tenant, h.n, h.body FROM h WHERE p_log = 0
    ), o AS (
        INSERT INTO hodei.delta (tenant, blocked, pending, changes)
        SELECT h.tenant, -h.n, h.n, CASE WHEN p_log = 0 THEN h.n END FROM h
    )
    SELECT 1::int2, 0, t.id, t.lane, NULL::int2, 0::int2, 2, 0::int8, 0, 1::int2, 1::int2, NULL::int8, NULL::int8,
        p_now, NULL::int8, NULL::int8, t.pipeline, NULL::bytea, NULL::text, NULL::uuid, NULL::bytea, h.pos, h.no
    FROM h JOIN t ON t.tenant = h.tenant ORDER BY h.no, t.id;
END
$$;

-- Settles, then claims, in one call. What is settled here are starts that hand nothing on and ends that spawn nothing, each
-- job once. A row of `what` 1 is returned for each that was made; what the others were is for the caller to find out, and
-- nothing is claimed then. Rows of `what` 2 are claims, that of `what` 0 tells of the owner and the clock.
CREATE OR REPLACE FUNCTION hodei.exchange(
    p_owner text, p_incarnation int8, p_node int8, p_log int2, p_id uuid[], p_epoch int8[], p_kind int2[],
    p_ran int8[], p_end bytea[], p_lane int4[], p_rank int2[], p_n int8[]
) RETURNS SETOF hodei.exchanged
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_now int8;
    v_holder int4;
    v_limits int4[];
    v_meta hodei.exchanged;
    v_made int8 := 0;
    v_n int8;
BEGIN
    IF cardinality(p_id) > 0 AND EXISTS (SELECT 1 FROM hodei.usage) THEN
        -- All limits at once and in one order, so that nobody waits in a circle.
        SELECT array_agg(DISTINCT x ORDER BY x) INTO v_limits FROM (
            SELECT l.lane FROM hodei.leased l WHERE l.id = ANY (p_id) UNION SELECT unnest(p_lane)
        ) y JOIN hodei.lane n ON n.no = y.lane, unnest(n.limits) x;
        IF v_limits IS NOT NULL THEN
            PERFORM 1 FROM hodei.usage WHERE no = ANY (v_limits) ORDER BY no FOR NO KEY UPDATE;
        END IF;
    END IF;
    v_now := hodei.now();
    IF p_kind && '{4,5,6}'::int2[] THEN
        RETURN QUERY
        WITH d AS (
            DELETE FROM hodei.leased l
            USING unnest(p_id, p_epoch, p_kind, p_ran, p_end) WITH ORDINALITY u (id, epoch, kind, ran, final, ord)
            WHERE u.kind >= 4 AND l.id = u.id AND coalesce(l.epoch, 1) = u.epoch
            RETURNING u.ord, u.kind, u.ran, u.final, l.*
        ), t AS MATERIALIZED (
            SELECT d.ord, d.id, d.lane, (CASE WHEN d.running THEN 3 ELSE 2 END)::int2 AS state, d.kind,
                coalesce(d.version, 2) + 1 AS version, coalesce(d.epoch, 1) AS epoch,
                coalesce(d.attempt, 0) + CASE WHEN d.running THEN 0 ELSE 1 END AS attempt, d.lost, d.generation,
                d.eligible_at, d.deadline,
                CASE WHEN d.running THEN d.started_at ELSE greatest(v_now - d.ran, d.moved_at) END AS started_at,
                d.pipeline, d.final, n.tenant, n.limits, hodei.cause_of(d.kind) AS cause
            FROM d JOIN hodei.lane n ON n.no = d.lane
        ), i AS (
            INSERT INTO hodei.done (id, moved_at, tenant, state, lost, generation, version, attempt, epoch,
                eligible_at, deadline, started_at, settled)
            SELECT t.id, v_now, t.tenant, t.kind, t.lost, t.generation, nullif(t.version, 3), nullif(t.attempt, 1),
                nullif(t.epoch, 1), t.eligible_at, t.deadline, t.started_at, t.final FROM t
        ), h AS MATERIALIZED (
            SELECT t.tenant, hodei.pos() AS pos, nextval('hodei.change_no') AS no, count(*) AS n,
                CASE WHEN p_log <= 1 THEN string_agg(hodei.change_bytes(t.id, t.version, t.attempt, t.epoch,
                    ((t.state + 1) << 24) | (t.kind::int4 << 16) | (t.cause::int4 << 8), t.pipeline), ''::bytea ORDER BY t.ord)
                END AS body,
                -count(*) FILTER (WHERE t.state = 2) AS scheduled, -count(*) FILTER (WHERE t.state = 3) AS running,
                count(*) FILTER (WHERE t.kind = 4) AS succeeded, count(*) FILTER (WHERE t.kind = 5) AS failed,
                count(*) FILTER (WHERE t.kind = 6) AS cancelled
            FROM t GROUP BY t.tenant
        ), c AS (
            INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
            SELECT h.pos, h.no, v_now, p_node, h.tenant, h.n, h.body FROM h WHERE p_log <= 1
        ), e AS (
            INSERT INTO hodei.delta (tenant, scheduled, running, succeeded, failed, cancelled, changes)
            SELECT h.tenant, nullif(h.scheduled, 0), nullif(h.running, 0), nullif(h.succeeded, 0),
                nullif(h.failed, 0), nullif(h.cancelled, 0), CASE WHEN p_log <= 1 THEN h.n END FROM h
        ), f AS (
            UPDATE hodei.usage s SET in_use = s.in_use - x.n FROM (
                SELECT y AS no, count(*) AS n FROM t, unnest(t.limits) y GROUP BY y
            ) x WHERE s.no = x.no
        )
        SELECT 1::int2, t.ord::int4, t.id, t.lane, NULL::int2, t.state, t.version, t.epoch, t.attempt, t.kind, t.cause,
            t.eligible_at, t.deadline, v_now, t.started_at, NULL::int8, t.pipeline, NULL::bytea, NULL::text,
            NULL::uuid, NULL::bytea, h.pos, h.no
        FROM h JOIN t ON t.tenant = h.tenant ORDER BY h.no, t.ord;
        GET DIAGNOSTICS v_n = ROW_COUNT;
        v_made := v_made + v_n;
        -- Asked for now, when nobody can add to them: whoever does has to hold the row that is gone.
        IF EXISTS (SELECT 1 FROM hodei.edge) THEN
            RETURN QUERY SELECT * FROM hodei.tell_children(p_id, v_now, p_node, p_log);
        END IF;
    END IF;
    IF 0 = ANY (p_kind) THEN
        RETURN QUERY
        WITH d AS (
            UPDATE hodei.leased l SET running = true, version = coalesce(l.version, 2) + 1,
                attempt = coalesce(l.attempt, 0) + 1, started_at = greatest(v_now, l.moved_at), moved_at = v_now
            FROM unnest(p_id, p_epoch, p_kind) WITH ORDINALITY u (id, epoch, kind, ord)
            WHERE u.kind = 0 AND l.id = u.id AND coalesce(l.epoch, 1) = u.epoch AND l.running IS NULL
            RETURNING u.ord, l.id, l.lane, l.version, coalesce(l.epoch, 1) AS epoch, l.attempt, l.pipeline
        ), t AS MATERIALIZED (
            SELECT d.*, n.tenant FROM d JOIN hodei.lane n ON n.no = d.lane
        ), h AS MATERIALIZED (
            -- Scheduled to running, started.
            SELECT t.tenant, hodei.pos() AS pos, nextval('hodei.change_no') AS no, count(*) AS n,
                CASE WHEN p_log = 0 THEN string_agg(hodei.change_bytes(t.id, t.version, t.attempt, t.epoch,
                    50529536, t.pipeline), ''::bytea ORDER BY t.ord) END AS body
            FROM t GROUP BY t.tenant
        ), c AS (
            INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
            SELECT h.pos, h.no, v_now, p_node, h.tenant, h.n, h.body FROM h WHERE p_log = 0
        ), e AS (
            INSERT INTO hodei.delta (tenant, scheduled, running, changes)
            SELECT h.tenant, -h.n, h.n, CASE WHEN p_log = 0 THEN h.n END FROM h
        )
        SELECT 1::int2, t.ord::int4, t.id, t.lane, NULL::int2, 2::int2, t.version, t.epoch, t.attempt, 3::int2, 5::int2,
            NULL::int8, NULL::int8, v_now, NULL::int8, NULL::int8, t.pipeline, NULL::bytea, NULL::text, NULL::uuid,
            NULL::bytea, h.pos, h.no
        FROM h JOIN t ON t.tenant = h.tenant ORDER BY h.no, t.ord;
        GET DIAGNOSTICS v_n = ROW_COUNT;
        v_made := v_made + v_n;
    END IF;
    PERFORM hodei.promote(v_now);
    SELECT no INTO v_holder FROM hodei.owner
        WHERE name = p_owner AND incarnation = p_incarnation AND expires_at > v_now;
    -- What was not made is looked at by the caller before anything is claimed.
    IF FOUND AND v_made = cardinality(p_id) AND cardinality(p_lane) > 0 THEN
        RETURN QUERY SELECT * FROM hodei.claim(v_holder, v_now, p_node, p_log = 0, p_lane, p_rank, p_n);
    END IF;
    v_meta.what := 0;
    v_meta.state := CASE WHEN v_holder IS NULL THEN 0 ELSE 1 END;
    v_meta.moved_at := v_now;
    SELECT min(eligible_at) INTO v_meta.eligible_at FROM hodei.delayed;
    RETURN NEXT v_meta;
END
$$;
