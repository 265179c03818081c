-- Settling and claiming in one call.

-- Tells the children of jobs that have just succeeded, each once for all of its parents. The children of those that ended
-- another way, or ask for a failure, may end themselves, and theirs: that is left to the rules.
CREATE OR REPLACE FUNCTION hodei.tell_children(p_id uuid[], p_now int8, p_node int8, p_log int2)
RETURNS SETOF hodei.exchanged
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_parents uuid[];
    v_badly bool;
    v_turn bool;
BEGIN
    SELECT array_agg(DISTINCT d.id), bool_or(d.state <> 4 OR e.fails), bool_or(e.turn) INTO v_parents, v_badly, v_turn
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
    -- Who ended while it waited for its turn hands it on, which is left to the rules too.
    IF v_turn AND EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = ANY (v_parents) AND e.turn AND NOT e.told
            AND NOT EXISTS (SELECT 1 FROM hodei.blocked b WHERE b.id = e.child)) THEN
        RAISE EXCEPTION 'somebody has ended before its turn' USING ERRCODE = 'HD001';
    END IF;
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
        -- What was to run at once is ready, though the clock may show less than when it was born.
        SELECT d.id, greatest(d.eligible_at, p_now) AS eligible_at, d.lane, d.rank, d.deadline, d.pipeline, l.tenant,
            x.born,
            d.eligible_at > p_now AND d.eligible_at > coalesce(x.born, 0) AS waits
        FROM d JOIN hodei.lane l ON l.no = d.lane CROSS JOIN LATERAL (SELECT coalesce(d.created_at,
            (SELECT j.created_at FROM hodei.job j WHERE j.id = d.id)) AS born OFFSET 0) x
    ), r AS (
        INSERT INTO hodei.ready (id, eligible_at, lane, rank, cause, version, deadline, moved_at, pipeline, created_at)
        SELECT t.id, t.eligible_at, t.lane, t.rank, 1, 2, t.deadline, p_now, t.pipeline, nullif(t.born, t.eligible_at)
        FROM t WHERE NOT t.waits
    ), y AS (
        INSERT INTO hodei.delayed (id, eligible_at, lane, rank, cause, version, deadline, moved_at, pipeline, created_at)
        SELECT t.id, t.eligible_at, t.lane, t.rank, 1, 2, t.deadline, p_now, t.pipeline, t.born FROM t
        WHERE t.waits
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
        INSERT INTO hodei.delta (tenant, lane, blocked, pending, changes)
        SELECT t.tenant, t.lane, -count(*), count(*), CASE WHEN p_log = 0 THEN count(*) END FROM t GROUP BY t.tenant, t.lane
    )
    SELECT 1::int2, 0, t.id, t.lane, NULL::int2, 0::int2, 2, 0::int8, 0, 1::int2, 1::int2, NULL::int8, NULL::int8,
        p_now, NULL::int8, NULL::int8, t.pipeline, NULL::bytea, NULL::text, NULL::uuid, NULL::bytea, h.pos, h.no,
        NULL::int4[], NULL::int4[]
    FROM h JOIN t ON t.tenant = h.tenant ORDER BY h.no, t.id;
END
$$;

-- Settles, then claims, in one call. What is settled here are starts that hand nothing on and ends that spawn nothing, each
-- job once. A row of `what` 1 is returned for each that was made; what the others were is for the caller to find out, and
-- nothing is claimed then. Without p_history ended jobs go, but for those that somebody waits for. Rows of `what` 2 are
-- claims, that of `what` 0 tells of the owner and the clock; an owner of another course of history settles and claims nothing.
-- p_level, p_since and p_alone are what hodei.claim makes of them.
CREATE OR REPLACE FUNCTION hodei.exchange(
    p_owner text, p_incarnation int8, p_node int8, p_log int2, p_id uuid[], p_epoch int8[], p_kind int2[],
    p_ran int8[], p_end bytea[], p_lane int4[], p_rank int2[], p_n int8[], p_level int2[], p_since int8[],
    p_history bool, p_alone bool
) RETURNS SETOF hodei.exchanged
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_now int8;
    v_holder int4;
    v_limits int4[];
    v_meta hodei.exchanged;
    v_made int8 := 0;
    v_n int8;
    v_ends record;
    v_wide int2 := 0;
    v_ended uuid[] := '{}';
    v_freed bool := false;
    v_at_home CONSTANT bool := hodei.is_at_home(p_owner, p_incarnation);
    v_born int8[];
    -- From how many ends on, and of how many keys at most, what comes free is written down.
    v_ends_min CONSTANT int4 := 64;
    v_keys_max CONSTANT int4 := 16;
BEGIN
    IF NOT v_at_home THEN
        -- All that it tells and asks is as if it were not said.
        p_id := '{}';
        p_kind := '{}';
        p_lane := '{}';
    END IF;
    -- Before the clock is read, also for claims alone: between the look at the owner and its leases nobody is waited for.
    IF cardinality(p_id) + cardinality(p_lane) > 0 AND hodei.limited() THEN
        v_freed := cardinality(p_lane) = 0 AND cardinality(p_id) >= v_ends_min
            AND NOT EXISTS (SELECT 1 FROM hodei.wide);
        IF v_freed THEN
            -- Who only ends, and much, writes down what comes free, and waits for nobody. Many keys are held all the same:
            -- to write each down costs more than to count it.
            SELECT array_agg(DISTINCT x) INTO v_limits FROM (
                SELECT DISTINCT l.lane FROM hodei.leased l WHERE l.id = ANY (p_id)
            ) y JOIN hodei.lane n ON n.no = y.lane, unnest(n.limits) x;
            v_freed := coalesce(cardinality(v_limits) <= v_keys_max, false);
        END IF;
        IF NOT v_freed THEN
            SELECT h.wide, h.keys INTO v_wide, v_limits FROM hodei.hold_limits(
                p_lane || ARRAY(SELECT l.lane FROM hodei.leased l WHERE l.id = ANY (p_id))) h;
        END IF;
    END IF;
    -- Jobs are locked in one order, by whoever locks several. Starts come after ends here, so they are to be of later jobs.
    IF 0 = ANY (p_kind) AND (SELECT min(u.id::text) FILTER (WHERE u.kind = 0) < max(u.id::text) FILTER (WHERE u.kind > 0)
            FROM unnest(p_id, p_kind) u (id, kind)) THEN
        PERFORM 1 FROM hodei.leased l WHERE l.id = ANY (p_id) ORDER BY l.id FOR UPDATE;
    END IF;
    v_now := hodei.now();
    IF p_kind && '{5,6}'::int2[] THEN
        -- Lists of what failed and what was cancelled are in the order of births.
        v_born := ARRAY(SELECT CASE WHEN u.kind >= 5
                THEN coalesce((SELECT j.created_at FROM hodei.job j WHERE j.id = u.id), 0) ELSE 0 END
            FROM unnest(p_id, p_kind) WITH ORDINALITY u (id, kind, ord) ORDER BY u.ord);
    END IF;
    IF p_kind && '{4,5,6}'::int2[] THEN
        FOR v_ends IN
        WITH d AS (
            DELETE FROM hodei.leased l USING (
                SELECT unnest(p_id) AS id, unnest(p_epoch) AS epoch, unnest(p_kind) AS kind, unnest(p_ran) AS ran,
                    unnest(p_end) AS final, generate_series(1, cardinality(p_id)) AS ord
                ORDER BY 1
            ) u WHERE u.kind >= 4 AND l.id = u.id AND coalesce(l.epoch, 1) = u.epoch
            RETURNING u.ord, u.kind, u.ran, u.final, l.id, l.moved_at, l.lane, coalesce(l.tenant, 1) AS tenant, l.running,
                l.lost, l.generation, l.version, l.attempt, l.epoch, l.eligible_at, l.deadline, l.started_at, l.pipeline,
                u.kind = 4 AND l.version IS NULL AND l.pipeline IS NULL AS plain,
                p_history OR EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = l.id) AS stays
        ), i AS (
            INSERT INTO hodei.done (id, moved_at, tenant, state, lost, generation, version, attempt, epoch,
                eligible_at, deadline, started_at, settled, created_at)
            SELECT d.id, v_now, d.tenant, d.kind, d.lost, d.generation, nullif(d.version + 1, 3),
                nullif(coalesce(d.attempt, 0) + CASE WHEN d.running THEN 0 ELSE 1 END, 1),
                nullif(d.epoch, 1), d.eligible_at, d.deadline,
                CASE WHEN d.running THEN d.started_at ELSE greatest(v_now - d.ran, d.moved_at) END, d.final,
                nullif(v_born[d.ord], 0) FROM d
            WHERE d.stays
        ), h AS MATERIALIZED (
            SELECT d.tenant, hodei.pos() AS pos, nextval('hodei.change_no') AS no, count(*) AS n,
                array_agg(d.ord) FILTER (WHERE d.plain) AS ords, array_agg(d.lane) FILTER (WHERE d.plain) AS lanes,
                CASE WHEN p_log <= 1 THEN string_agg(uuid_send(d.id), '') FILTER (WHERE d.plain) END AS ids,
                count(*) FILTER (WHERE d.plain) AS alike,
                CASE WHEN p_log <= 1 THEN array_agg(hodei.change_bytes(d.id, coalesce(d.version, 2) + 1,
                    coalesce(d.attempt, 0) + CASE WHEN d.running THEN 0 ELSE 1 END, coalesce(d.epoch, 1),
                    (CASE WHEN d.running THEN 4 ELSE 3 END << 24) | (d.kind::int4 << 16)
                        | (hodei.cause_of(d.kind)::int4 << 8), d.pipeline)) FILTER (WHERE NOT d.plain) END AS rest,
                array_agg(d.ord) FILTER (WHERE NOT d.plain) AS rest_ords,
                array_agg((1, d.ord, d.id, d.lane, NULL, CASE WHEN d.running THEN 3 ELSE 2 END,
                    coalesce(d.version, 2) + 1, coalesce(d.epoch, 1),
                    coalesce(d.attempt, 0) + CASE WHEN d.running THEN 0 ELSE 1 END, d.kind, hodei.cause_of(d.kind),
                    NULL, NULL, NULL, NULL, NULL, d.pipeline, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                    NULL)::hodei.exchanged) FILTER (WHERE NOT d.plain) AS others,
                CASE WHEN NOT p_history THEN array_agg(d.id) END AS ended
            FROM d GROUP BY d.tenant
        ), c AS (
            INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
            SELECT h.pos, h.no, v_now, p_node, h.tenant, h.n, CASE WHEN h.rest IS NULL
                THEN hodei.alike_bytes(3, 1, 1, 50595328, h.alike::int4, h.ids)
                -- In the order of the transitions.
                ELSE (SELECT string_agg(y.bytes, '' ORDER BY y.ord) FROM (
                    SELECT a.ord, int4send(3) || int4send(1) || int8send(1) || int4send(50595328)
                        || substring(h.ids FROM 16 * a.k::int4 - 15 FOR 16) AS bytes
                    FROM unnest(h.ords) WITH ORDINALITY a (ord, k)
                    UNION ALL SELECT o.ord, o.bytes FROM unnest(h.rest_ords, h.rest) o (ord, bytes)
                ) y) END
            FROM h WHERE p_log <= 1
        ), e AS (
            INSERT INTO hodei.delta (tenant, lane, scheduled, running, succeeded, failed, cancelled, changes)
            SELECT d.tenant, d.lane, nullif(-count(*) FILTER (WHERE d.running IS NULL), 0), nullif(-count(d.running), 0),
                nullif(count(*) FILTER (WHERE d.kind = 4 AND d.stays), 0),
                nullif(count(*) FILTER (WHERE d.kind = 5 AND d.stays), 0),
                nullif(count(*) FILTER (WHERE d.kind = 6 AND d.stays), 0), CASE WHEN p_log <= 1 THEN count(*) END
            FROM d GROUP BY d.tenant, d.lane
        ), f AS (
            UPDATE hodei.usage s SET in_use = s.in_use - x.n FROM (
                SELECT y AS no, count(*) AS n FROM d JOIN hodei.lane n ON n.no = d.lane, unnest(n.limits) y
                WHERE v_limits IS NOT NULL AND NOT v_freed GROUP BY y
            ) x WHERE s.no = x.no
        ), w AS (
            INSERT INTO hodei.freed (no, n)
            SELECT y, count(*) FROM d JOIN hodei.lane n ON n.no = d.lane, unnest(n.limits) y WHERE v_freed GROUP BY y
        ), g AS (
            UPDATE hodei.wide s SET in_use = s.in_use - x.n FROM (
                SELECT v.tenant, v.queue, count(*) AS n
                FROM d JOIN hodei.lane n ON n.no = d.lane, LATERAL hodei.wide_of(n.tenant, n.queue) v
                WHERE v_wide = 2 GROUP BY v.tenant, v.queue
            ) x WHERE s.tenant = x.tenant AND s.queue = x.queue
        )
        SELECT h.pos, h.no, h.n, h.ords, h.lanes, h.others, h.ended FROM h
        LOOP
            v_made := v_made + v_ends.n;
            v_ended := v_ended || v_ends.ended;
            v_meta.what := 4;
            v_meta.pos := v_ends.pos;
            v_meta.no := v_ends.no;
            v_meta.ords := v_ends.ords;
            v_meta.lanes := v_ends.lanes;
            RETURN NEXT v_meta;
            RETURN QUERY SELECT * FROM unnest(v_ends.others);
        END LOOP;
        v_meta := NULL;
        -- Asked for now, when nobody can add to them: whoever does has to hold the row that is gone.
        IF EXISTS (SELECT 1 FROM hodei.edge) THEN
            RETURN QUERY SELECT * FROM hodei.tell_children(p_id, v_now, p_node, p_log);
        END IF;
        -- A key that goes with the end of its job is free for whoever comes next. The ids are looked up one by one, in the
        -- index of such keys alone, or in that of all until it is there.
        DELETE FROM hodei.unique_key k WHERE k.id = ANY (p_id) AND k.key LIKE 'open:%'
            AND EXISTS (SELECT 1 FROM hodei.done d WHERE d.id = k.id);
        IF NOT p_history THEN
            IF v_made = (SELECT count(*) FROM unnest(p_kind) k WHERE k >= 4) AND NOT EXISTS (SELECT 1 FROM hodei.edge) THEN
                PERFORM hodei.wipe(v_ended);
            ELSIF v_made > 0 THEN
                -- What somebody else ended may have been submitted again.
                PERFORM hodei.forget(v_ended);
            END IF;
        END IF;
    END IF;
    IF 0 = ANY (p_kind) THEN
        RETURN QUERY
        WITH t AS (
            UPDATE hodei.leased l SET running = true, version = coalesce(l.version, 2) + 1,
                attempt = coalesce(l.attempt, 0) + 1, started_at = greatest(v_now, l.moved_at), moved_at = v_now
            FROM (
                SELECT * FROM unnest(p_id, p_epoch, p_kind) WITH ORDINALITY u (id, epoch, kind, ord) ORDER BY 1
            ) u WHERE u.kind = 0 AND l.id = u.id AND coalesce(l.epoch, 1) = u.epoch AND l.running IS NULL
            RETURNING u.ord, l.id, l.lane, coalesce(l.tenant, 1) AS tenant, l.version, coalesce(l.epoch, 1) AS epoch,
                l.attempt, l.pipeline
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
            INSERT INTO hodei.delta (tenant, lane, scheduled, running, changes)
            SELECT t.tenant, t.lane, -count(*), count(*), CASE WHEN p_log = 0 THEN count(*) END FROM t
            GROUP BY t.tenant, t.lane
        )
        SELECT 1::int2, t.ord::int4, t.id, t.lane, NULL::int2, 2::int2, t.version, t.epoch, t.attempt, 3::int2, 5::int2,
            NULL::int8, NULL::int8, v_now, NULL::int8, NULL::int8, t.pipeline, NULL::bytea, NULL::text, NULL::uuid,
            NULL::bytea, h.pos, h.no, NULL::int4[], NULL::int4[]
        FROM h JOIN t ON t.tenant = h.tenant ORDER BY h.no, t.ord;
        GET DIAGNOSTICS v_n = ROW_COUNT;
        v_made := v_made + v_n;
    END IF;
    PERFORM hodei.promote(v_now);
    SELECT no INTO v_holder FROM hodei.owner
        WHERE name = p_owner AND incarnation = p_incarnation AND expires_at > v_now AND NOT cleared AND v_at_home;
    -- What was not made is looked at by the caller before anything is claimed.
    IF FOUND AND v_made = cardinality(p_id) AND cardinality(p_lane) > 0 THEN
        RETURN QUERY SELECT * FROM hodei.claim(v_holder, v_now, p_node, p_log = 0, p_lane, p_rank, p_n, p_level,
            p_since, p_alone);
    END IF;
    v_meta.what := 0;
    v_meta.state := CASE WHEN v_holder IS NULL THEN 0 ELSE 1 END;
    v_meta.moved_at := v_now;
    v_meta.lost := v_wide;
    IF v_limits IS NOT NULL AND cardinality(p_lane) > 0 THEN
        -- How many more leases the limits of keys let through.
        SELECT least(min(most - in_use), 2147483647) INTO v_meta.version FROM hodei.usage
            WHERE no = ANY (v_limits) AND most IS NOT NULL;
    END IF;
    SELECT min(eligible_at) INTO v_meta.eligible_at FROM hodei.delayed;
    RETURN NEXT v_meta;
END
$$;

-- As nodes of before call it, while they run beside those of now.
CREATE OR REPLACE FUNCTION hodei.exchange(
    p_owner text, p_incarnation int8, p_node int8, p_log int2, p_id uuid[], p_epoch int8[], p_kind int2[],
    p_ran int8[], p_end bytea[], p_lane int4[], p_rank int2[], p_n int8[]
) RETURNS SETOF hodei.exchanged LANGUAGE sql VOLATILE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT * FROM hodei.exchange(p_owner, p_incarnation, p_node, p_log, p_id, p_epoch, p_kind, p_ran, p_end, p_lane, p_rank,
        p_n, NULL, NULL, true, false)
$$;
