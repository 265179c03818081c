-- Removing ended jobs one by one: from the eras that are small, or that too much outlives, and from what is in none.
--
-- Who waits for a job is asked for each by itself, which OFFSET 0 says: the planner takes nearly all of those who wait for
-- ended, as it cannot know better, and would go through all of them for each job.

-- Looks through what ended in a part in a stretch of time, for p_n at most that had their turn and for whom nobody
-- waits, and locks those. What failed is taken to have ended p_late after it did, as it is kept longer by that; what did
-- not fail is, where that is less than nothing. The jobs come in the order in which they lie: whoever asked for the
-- oldest would sort all of them to remove a few. Where p_pass are met that have to stay it ends, and says a time before
-- which about half ended of what it saw.
CREATE OR REPLACE FUNCTION hodei.look_at(p_part text, p_late int8, p_from int8, p_to int8, p_n int8, p_pass int8,
    OUT got uuid[], OUT passed int8, OUT whole bool, OUT half int8)
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    r record;
    v_at int8[] := '{}';
    v_ends CONSTANT text := 'd.moved_at + CASE WHEN (d.state = 5) = ($3 > 0) THEN abs($3) ELSE 0 END';
    v_ended CONSTANT text := format('d.moved_at > $1 - abs($3) AND d.moved_at <= $2 AND %1$s > $1 AND %1$s <= $2', v_ends);
BEGIN
    got := '{}';
    passed := 0;
    whole := true;
    FOR r IN EXECUTE format('SELECT d.id, %s AS at,
            NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = d.id
                AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child) OFFSET 0)
            AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.child = d.id AND e.turn AND NOT e.told OFFSET 0) AS goes
        FROM hodei.%I d WHERE %s', v_ends, p_part, v_ended) USING p_from, p_to, p_late LOOP
        v_at := v_at || r.at;
        IF r.goes THEN
            got := got || r.id;
        ELSE
            passed := passed + 1;
        END IF;
        whole := cardinality(got) < p_n AND (p_pass IS NULL OR passed < p_pass);
        EXIT WHEN NOT whole;
    END LOOP;
    IF passed >= p_pass THEN
        half := (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY x) FROM unnest(v_at) x);
    END IF;
    IF cardinality(got) > 0 THEN
        -- One may have been redriven meanwhile, and have ended again.
        EXECUTE format('SELECT coalesce(array_agg(l.id), ''{}'') FROM (SELECT d.id FROM hodei.%I d
            WHERE d.id = ANY ($4) AND %s FOR UPDATE OF d SKIP LOCKED) l', p_part, v_ended)
            INTO got USING p_from, p_to, p_late, got;
    END IF;
END
$$;

-- Goes on from a time, by one stretch after the other, until one is found that may go, half of p_pass were passed or
-- nothing is left. A stretch in which there are p_pass to pass is not looked through but made shorter, unless all of
-- it ended at once.
CREATE OR REPLACE FUNCTION hodei.go_on(p_part text, p_late int8, p_to int8, p_n int8, p_pass int8, INOUT at int8,
    INOUT span int8, OUT got uuid[], OUT passed int8)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seen record;
    v_to int8;
    v_ever CONSTANT int8 := -1;
BEGIN
    got := '{}';
    passed := 0;
    WHILE at < p_to AND passed < p_pass / 2 AND cardinality(got) = 0 LOOP
        v_to := CASE WHEN span = v_ever THEN p_to ELSE least(at + span, p_to) END;
        SELECT * INTO v_seen FROM hodei.look_at(p_part, p_late, at, v_to, p_n, p_pass);
        IF cardinality(v_seen.got) = 0 AND v_seen.half >= v_to THEN
            SELECT * INTO v_seen FROM hodei.look_at(p_part, p_late, at, v_to, p_n, NULL);
        END IF;
        got := v_seen.got;
        passed := passed + v_seen.passed;
        IF v_seen.whole THEN
            at := v_to;
            -- Where it was too short the next one is for all that is left, which is shorter by far where that is too much.
            span := CASE WHEN v_seen.passed < p_pass / 4 THEN v_ever ELSE span END;
        ELSE
            -- Where enough was found it is the same stretch once more.
            span := CASE WHEN v_seen.half IS NULL THEN span ELSE greatest(v_seen.half - at, 1) END;
        END IF;
    END LOOP;
END
$$;

-- Finds and locks ended jobs that are kept no longer, had their turn and for whom nobody waits; a row without an id
-- says that there is more to look through.
--
-- Those for whom somebody waits are passed again and again. Where a part has more of them than are passed in a call,
-- each is passed once, when it is kept no longer, in calls one behind the other; and from then on a few in each call,
-- from where the last one ended, round and round. So a job goes at once where nobody waits for it when its time is
-- over, and within a round where somebody did.
CREATE OR REPLACE FUNCTION hodei.outlived(p_jobs int8, p_failed int8, p_n int8) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    c record;
    w record;
    v_seen record;
    v_jobs CONSTANT int8 := greatest(p_jobs, 0);
    v_late CONSTANT int8 := v_jobs - greatest(p_failed, 0);
    v_until CONSTANT int8 := greatest(v_jobs, p_failed);
    v_pass CONSTANT int8 := 1000;
    v_left int8 := p_n;
    v_budget int8 := v_pass;
    v_more bool := false;
BEGIN
    FOR c IN SELECT x.no, 'done_' || coalesce(nullif(x.no, -1)::text, 'rest') AS part, k.fresh, k.fresh_span
        FROM (SELECT no FROM hodei.era WHERE stage = 0 AND NOT whole UNION ALL SELECT -1) x
        LEFT JOIN hodei.look k ON k.part = x.no ORDER BY x.no LOOP
        EXIT WHEN v_left <= 0;
        IF c.fresh IS NULL THEN
            SELECT * INTO v_seen FROM hodei.look_at(c.part, v_late, -1, v_until, v_left, v_pass);
            IF v_seen.passed >= v_pass THEN
                INSERT INTO hodei.look (part, fresh, fresh_span, again, again_span)
                    VALUES (c.no, -1, v_seen.half + 1, -1, v_seen.half + 1) ON CONFLICT DO NOTHING;
                v_more := true;
            END IF;
        ELSE
            SELECT * INTO v_seen FROM hodei.go_on(c.part, v_late, v_until, v_left, v_pass, c.fresh, c.fresh_span);
            v_more := v_more OR v_seen.at < v_until;
            -- Where nothing was passed there is nothing to remember.
            IF v_seen.passed > 0 OR v_seen.span <> c.fresh_span THEN
                UPDATE hodei.look k SET fresh = v_seen.at, fresh_span = v_seen.span
                    WHERE k.part = c.no AND (k.fresh, k.fresh_span) <> (v_seen.at, v_seen.span);
            END IF;
        END IF;
        RETURN QUERY SELECT unnest(v_seen.got);
        v_left := v_left - cardinality(v_seen.got);
    END LOOP;
    -- In any order, as the first of them may use up what is passed in a call.
    FOR w IN SELECT k.*, 'done_' || coalesce(nullif(k.part, -1)::text, 'rest') AS name, least(k.fresh, v_until) AS ends
        FROM hodei.look k WHERE k.part = -1 OR k.part IN (SELECT no FROM hodei.era WHERE stage = 0 AND NOT whole)
        ORDER BY random() LOOP
        EXIT WHEN v_left <= 0 OR v_budget <= 0 OR v_more;
        SELECT * INTO v_seen FROM hodei.go_on(w.name, v_late, w.ends, v_left, v_budget, w.again, w.again_span);
        v_budget := v_budget - v_seen.passed;
        v_left := v_left - cardinality(v_seen.got);
        v_more := cardinality(v_seen.got) > 0;
        RETURN QUERY SELECT unnest(v_seen.got);
        IF w.again = -1 AND v_seen.at >= w.ends AND v_seen.passed < v_pass / 2 THEN
            -- So few are left that all of them are passed in a call.
            DELETE FROM hodei.look k WHERE k.part = w.part;
            CONTINUE;
        END IF;
        v_seen.at := CASE WHEN v_seen.at >= w.ends THEN -1 ELSE v_seen.at END;
        UPDATE hodei.look k SET again = v_seen.at, again_span = v_seen.span
            WHERE k.part = w.part AND (k.again, k.again_span) <> (v_seen.at, v_seen.span);
    END LOOP;
    DELETE FROM hodei.look k WHERE k.part >= 0 AND NOT EXISTS (SELECT 1 FROM hodei.era e WHERE e.no = k.part);
    IF v_more THEN
        RETURN NEXT NULL;
    END IF;
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
