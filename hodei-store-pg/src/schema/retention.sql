-- Removing ended jobs one by one: from the eras that are small, or that too much outlives, and from what is in none.
--
-- Who waits for a job is asked for each by itself, which OFFSET 0 says: the planner takes nearly all of those who wait for
-- ended, as it cannot know better, and would go through all of them for each job.

-- Finds and locks ended jobs that are kept no longer, had their turn and for whom nobody waits, in the order in which they
-- lie: whoever asked for the oldest would sort all of them to remove a few.
CREATE OR REPLACE FUNCTION hodei.outlived(p_jobs int8, p_failed int8, p_n int8) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_part text;
    v_left int8 := p_n;
    v_n int8;
BEGIN
    FOR v_part IN SELECT p FROM (
            SELECT 'done_' || no AS p, no FROM hodei.era WHERE stage = 0 AND NOT whole
            UNION ALL SELECT 'done_rest', -1
        ) x ORDER BY no LOOP
        EXIT WHEN v_left <= 0;
        RETURN QUERY EXECUTE format('SELECT d.id FROM hodei.%I d
            WHERE d.moved_at <= CASE d.state WHEN 5 THEN $2 ELSE $1 END AND d.moved_at <= greatest($1, $2)
                AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = d.id
                    AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child) OFFSET 0)
                AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.child = d.id AND e.turn AND NOT e.told OFFSET 0)
            LIMIT $3 FOR UPDATE OF d SKIP LOCKED', v_part) USING p_jobs, p_failed, v_left;
        GET DIAGNOSTICS v_n = ROW_COUNT;
        v_left := v_left - v_n;
    END LOOP;
END
$$;

-- A time before which nothing ended that is kept, and not a tenth of a second before the first that did. There is no index
-- in the order of the ends, only one that knows of blocks what is in them: so the time is halved again and again.
CREATE OR REPLACE FUNCTION hodei.first_end() RETURNS int8
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_indexscan = off AS $$
DECLARE
    v_none int8 := 0;
    v_some int8 := hodei.now();
    v_between int8;
BEGIN
    WHILE v_some - v_none > 100000 LOOP
        v_between := v_none + (v_some - v_none) / 2;
        IF EXISTS (SELECT 1 FROM hodei.done d WHERE d.moved_at <= v_between) THEN
            v_some := v_between;
        ELSE
            v_none := v_between;
        END IF;
    END LOOP;
    RETURN v_none;
END
$$;

-- Finds and locks the oldest ended jobs of tenants that have more than p_most in a state, beside those that are found
-- already; none that ended after p_until. Failed and cancelled ones have an index in their order. Of those that succeeded
-- one stretch of time after the other is looked at, from where the last search ended, and only what is in it is sorted.
-- Tenants come in any order: where there are very many, or none of what they have too much of may go yet, the search ends
-- after two seconds, and the next one begins with others.
CREATE OR REPLACE FUNCTION hodei.surplus(p_most int8, p_found uuid[], p_until int8, p_n int8) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c record;
    v_got uuid[];
    v_want int8;
    v_left int8 := p_n;
    v_first int8;
    v_from int8;
    v_span int8;
    v_enough int8;
    v_last int8;
    v_began timestamptz;
    v_walk hodei.walk;
    v_all bool;
    v_ends CONSTANT timestamptz := clock_timestamp() + interval '2 s';
    v_sql CONSTANT text := 'SELECT array_agg(d.id), max(d.moved_at) FROM (
        SELECT d.id, d.moved_at FROM hodei.done d WHERE d.state = %s AND d.tenant = $1 AND d.moved_at > $2
            AND d.moved_at <= $3 AND d.id <> ALL ($4) AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = d.id
                AND NOT EXISTS (SELECT 1 FROM hodei.done k WHERE k.id = e.child) OFFSET 0)
            AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.child = d.id AND e.turn AND NOT e.told OFFSET 0)
        ORDER BY d.moved_at, d.id LIMIT $5 FOR UPDATE OF d SKIP LOCKED) d';
BEGIN
    FOR c IN SELECT n.tenant, n.state, sum(n.n)::int8 - p_most AS surplus
        FROM (SELECT tenant, 4::int2 AS state, succeeded AS n FROM hodei.total
            UNION ALL SELECT tenant, 5, failed FROM hodei.total UNION ALL SELECT tenant, 6, cancelled FROM hodei.total
            UNION ALL SELECT tenant, 4, succeeded FROM hodei.delta UNION ALL SELECT tenant, 5, failed FROM hodei.delta
            UNION ALL SELECT tenant, 6, cancelled FROM hodei.delta
            -- What is found already is looked up once, and not for each tenant.
            UNION ALL SELECT g.tenant, g.state, -1 FROM unnest(p_found) x (id) JOIN hodei.done g ON g.id = x.id) n
        GROUP BY n.tenant, n.state HAVING sum(n.n) > p_most ORDER BY random() LOOP
        EXIT WHEN v_left <= 0 OR clock_timestamp() > v_ends;
        v_want := least(c.surplus, v_left);
        v_from := -1;
        IF c.state = 4 THEN
            v_first := coalesce(v_first, hodei.first_end());
            v_began := clock_timestamp();
            SELECT * INTO v_walk FROM hodei.walk w WHERE w.tenant = c.tenant;
            -- What could not go may go by now. It is a long way off, so that is found out once in a while only.
            IF v_walk.in_vain AND random() < 0.01 THEN
                v_walk := NULL;
            END IF;
            v_from := greatest(coalesce(v_walk.succeeded_from, 0), v_first) - 1;
            -- A tenth of a second; a longer stretch where that was too short for others.
            v_span := greatest(v_enough / 16, 100000);
            v_got := NULL;
            WHILE v_from < p_until LOOP
                -- A stretch that had too few is taken together with the one behind it.
                EXECUTE format(v_sql, 4) INTO v_got, v_last USING c.tenant, v_from, least(v_from + v_span, p_until),
                    p_found, v_want;
                IF cardinality(v_got) >= v_want THEN
                    v_enough := v_span;
                    EXIT;
                END IF;
                EXIT WHEN v_from + v_span >= p_until;
                IF v_got IS NULL THEN
                    v_from := v_from + v_span;
                END IF;
                v_span := v_span * 4;
            END LOOP;
            v_all := coalesce(cardinality(v_got), 0) >= v_want;
            v_walk.in_vain := NOT v_all AND (coalesce(v_walk.in_vain, false)
                OR clock_timestamp() > v_began + interval '50 ms');
            -- Where too little was found, the next search begins with what was passed over, unless that is a long way off.
            v_walk.succeeded_from := CASE WHEN v_all THEN v_last WHEN v_walk.in_vain THEN p_until ELSE 0 END;
            INSERT INTO hodei.walk AS w (tenant, succeeded_from, in_vain)
                VALUES (c.tenant, v_walk.succeeded_from, v_walk.in_vain)
                ON CONFLICT (tenant) DO UPDATE SET succeeded_from = excluded.succeeded_from, in_vain = excluded.in_vain
                WHERE (w.succeeded_from, w.in_vain) <> (excluded.succeeded_from, excluded.in_vain);
        ELSE
            EXECUTE format(v_sql, c.state) INTO v_got, v_last USING c.tenant, v_from, p_until, p_found, v_want;
        END IF;
        RETURN QUERY SELECT unnest(v_got);
        v_left := v_left - coalesce(cardinality(v_got), 0);
    END LOOP;
END
$$;

-- Removes ended jobs that are locked, unless somebody waits for them after all, and all that leads to them.
CREATE OR REPLACE FUNCTION hodei.remove(p_id uuid[], OUT id uuid, OUT tenant text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_id uuid[];
    v_tenant int4[];
    v_state int2[];
    v_lane int4[];
BEGIN
    WITH r AS (
        DELETE FROM hodei.done d USING unnest(p_id) u (id), hodei.job j
        WHERE d.id = u.id AND j.id = u.id AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = d.id
            AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child) OFFSET 0)
        RETURNING d.id, d.tenant, d.state, j.lane
    )
    SELECT array_agg(r.id), array_agg(r.tenant), array_agg(r.state), array_agg(r.lane)
        INTO v_id, v_tenant, v_state, v_lane FROM r;
    IF v_id IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM hodei.job j USING unnest(v_id) u (id) WHERE j.id = u.id;
    PERFORM hodei.take_leave(v_id, v_tenant, v_state, v_lane);
    RETURN QUERY SELECT u.id, t.name FROM unnest(v_id, v_tenant) u (id, tenant) JOIN hodei.tenant t ON t.no = u.tenant;
END
$$;

-- Removes jobs that are nowhere any more, and all that leads to them.
CREATE OR REPLACE FUNCTION hodei.wipe(p_id uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    DELETE FROM hodei.job j USING unnest(p_id) u (id) WHERE j.id = u.id;
    IF EXISTS (SELECT 1 FROM hodei.edge) THEN
        DELETE FROM hodei.edge WHERE child = ANY (p_id);
    END IF;
    IF EXISTS (SELECT 1 FROM hodei.unique_key) THEN
        DELETE FROM hodei.unique_key WHERE id = ANY (p_id);
    END IF;
    IF EXISTS (SELECT 1 FROM hodei.sequence) THEN
        PERFORM hodei.leave_sequences(p_id);
    END IF;
    IF EXISTS (SELECT 1 FROM hodei.checkpoint) THEN
        DELETE FROM hodei.checkpoint WHERE id = ANY (p_id);
    END IF;
END
$$;

-- Removes what is left of those among jobs that have just ended, where no history is kept. Those that are somewhere are let
-- be: for them somebody waits, or they have not ended.
CREATE OR REPLACE FUNCTION hodei.forget(p_id uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_id uuid[] := ARRAY(SELECT x FROM unnest(p_id) x EXCEPT SELECT p.id FROM hodei.places(p_id) p);
BEGIN
    IF EXISTS (SELECT 1 FROM hodei.edge WHERE parent = ANY (v_id)) THEN
        RAISE EXCEPTION 'somebody began to wait for them' USING ERRCODE = '40001';
    END IF;
    PERFORM hodei.wipe(v_id);
END
$$;

-- Opens the checkpoint of a job for a run: raises the fence, unless it is higher, and returns what stands there.
CREATE OR REPLACE FUNCTION hodei.open_checkpoint(p_tenant int4, p_id uuid, p_epoch int8, OUT fence int8, OUT body bytea)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO hodei.checkpoint AS c (id, tenant, fence) VALUES (p_id, p_tenant, p_epoch)
        ON CONFLICT (id, tenant) DO UPDATE SET fence = excluded.fence WHERE c.fence < excluded.fence;
    SELECT c.fence, c.body INTO fence, body FROM hodei.checkpoint c WHERE c.id = p_id AND c.tenant = p_tenant;
END
$$;

-- Saves how far a run has come, unless the fence is higher, and returns the fence.
CREATE OR REPLACE FUNCTION hodei.save_checkpoint(p_tenant int4, p_id uuid, p_epoch int8, p_body bytea) RETURNS int8
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO hodei.checkpoint AS c (id, tenant, fence, body) VALUES (p_id, p_tenant, p_epoch, p_body)
        ON CONFLICT (id, tenant) DO UPDATE SET fence = excluded.fence, body = excluded.body
        WHERE c.fence <= excluded.fence;
    IF FOUND THEN
        RETURN p_epoch;
    END IF;
    RETURN (SELECT c.fence FROM hodei.checkpoint c WHERE c.id = p_id AND c.tenant = p_tenant);
END
$$;
