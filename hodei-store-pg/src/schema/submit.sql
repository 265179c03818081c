-- Storing jobs.

-- Stores jobs of one tenant that wait for nobody, each for itself; no id and no key comes twice. The first row that is
-- returned tells when and where in the log; then follows a row for each job that was not new, with the job that has its id
-- or its key. For the locks of others it waits for moments only: many callers share it. A column in which no job has
-- anything is absent as a whole, and lanes, ranks and names that are all the same are given once. p_change are the bytes of the
-- changes of all of them.
CREATE OR REPLACE FUNCTION hodei.submit(
    p_node int8, p_record bool, p_tenant int4, p_id uuid[], p_fingerprint uuid[], p_lane int4[], p_rank int2[],
    p_pipeline uuid[], p_name text[], p_body bytea[], p_run_at int8[], p_deadline int8[], p_key text[], p_change bytea,
    OUT ord int8, OUT id uuid, OUT fingerprint uuid, OUT at int8, OUT pos int8, OUT no int8
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
SET lock_timeout = '200ms' AS $$
#variable_conflict use_column
DECLARE
    v_now int8 := hodei.now();
    v_keyed uuid[];
    v_known uuid[];
    v_new uuid[];
    v_lane int4[] := p_lane;
    v_body bytea;
    v_told int8;
BEGIN
    IF p_key IS NULL AND cardinality(p_id) = 1 THEN
        v_new := '{}';
        -- An id that somebody else takes at this moment fails the call, which knows of it when it is made again: what
        -- expects conflicts is logged twice.
        IF NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = p_id[1]) THEN
            INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, deadline, pipeline, name,
                body)
            VALUES (p_id[1], p_fingerprint[1], v_now, CASE WHEN p_run_at[1] > v_now THEN p_run_at[1] END, p_tenant, p_lane[1],
                p_rank[1], p_deadline[1], p_pipeline[1], p_name[1], p_body[1]);
            v_new := p_id;
            v_body := p_change;
            IF p_run_at[1] > v_now THEN
                INSERT INTO hodei.delayed (id, eligible_at, lane, rank, deadline, pipeline, created_at)
                    VALUES (p_id[1], p_run_at[1], p_lane[1], p_rank[1], p_deadline[1], p_pipeline[1], v_now);
            ELSE
                INSERT INTO hodei.ready (id, eligible_at, lane, rank, deadline, pipeline)
                    VALUES (p_id[1], v_now, p_lane[1], p_rank[1], p_deadline[1], p_pipeline[1]);
            END IF;
        END IF;
    ELSIF p_key IS NULL THEN
        -- Mostly all of them are new. What a statement takes apart in its list of columns is not written down in between.
        BEGIN
            INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, deadline, pipeline,
                name, body)
            SELECT u.id, u.fingerprint, v_now, CASE WHEN u.run_at > v_now THEN u.run_at END, p_tenant,
                coalesce(u.lane, p_lane[1]), coalesce(u.rank, p_rank[1]), u.deadline, u.pipeline,
                coalesce(u.name, p_name[1]), u.body
            FROM (
                SELECT unnest(p_id) AS id, unnest(p_fingerprint) AS fingerprint, unnest(p_lane) AS lane,
                    unnest(p_rank) AS rank, unnest(p_pipeline) AS pipeline, unnest(p_name) AS name,
                    unnest(p_body) AS body, unnest(p_run_at) AS run_at, unnest(p_deadline) AS deadline
            ) u;
            INSERT INTO hodei.ready (id, eligible_at, lane, rank, deadline, pipeline)
            SELECT u.id, v_now, coalesce(u.lane, p_lane[1]), coalesce(u.rank, p_rank[1]), u.deadline, u.pipeline
            FROM (
                SELECT unnest(p_id) AS id, unnest(p_lane) AS lane, unnest(p_rank) AS rank,
                    unnest(p_pipeline) AS pipeline, unnest(p_run_at) AS run_at, unnest(p_deadline) AS deadline
            ) u WHERE u.run_at IS NULL OR u.run_at <= v_now;
            IF p_run_at IS NOT NULL THEN
                INSERT INTO hodei.delayed (id, eligible_at, lane, rank, deadline, pipeline, created_at)
                SELECT u.id, u.run_at, coalesce(u.lane, p_lane[1]), coalesce(u.rank, p_rank[1]), u.deadline, u.pipeline,
                    v_now
                FROM (
                    SELECT unnest(p_id) AS id, unnest(p_lane) AS lane, unnest(p_rank) AS rank,
                        unnest(p_pipeline) AS pipeline, unnest(p_run_at) AS run_at, unnest(p_deadline) AS deadline
                ) u WHERE u.run_at > v_now;
            END IF;
            v_new := p_id;
            v_body := p_change;
        EXCEPTION WHEN unique_violation THEN
            -- Then each is looked at for itself.
            v_new := NULL;
        END;
    ELSE
        -- An id speaks before a key. Keys are taken in one order, so that nobody waits in a circle.
        v_known := ARRAY(SELECT j.id FROM unnest(p_id) u (id) JOIN hodei.job j ON j.id = u.id);
        PERFORM hodei.free_keys(p_tenant, p_key);
        WITH k AS (
            INSERT INTO hodei.unique_key (tenant, key, id)
            SELECT p_tenant, u.key, u.id FROM unnest(p_key, p_id) u (key, id)
            WHERE u.key IS NOT NULL AND u.id NOT IN (SELECT unnest(v_known)) ORDER BY u.key COLLATE "C"
            ON CONFLICT DO NOTHING RETURNING id
        )
        SELECT coalesce(array_agg(k.id), '{}') INTO v_keyed FROM k;
    END IF;
    IF v_new IS NULL THEN
        WITH j AS (
            INSERT INTO hodei.job (id, fingerprint, created_at, eligible_at, tenant, lane, rank, deadline, pipeline, name,
                body)
            SELECT u.id, u.fingerprint, v_now, CASE WHEN u.run_at > v_now THEN u.run_at END, p_tenant,
                coalesce(u.lane, p_lane[1]), coalesce(u.rank, p_rank[1]), u.deadline, u.pipeline,
                coalesce(u.name, p_name[1]), u.body
            FROM unnest(p_id, p_fingerprint, p_lane, p_rank, p_pipeline, p_name, p_body, p_run_at, p_deadline, p_key)
                u (id, fingerprint, lane, rank, pipeline, name, body, run_at, deadline, key)
            WHERE (u.key IS NULL OR u.id IN (SELECT unnest(v_keyed)))
                AND NOT EXISTS (SELECT 1 FROM hodei.job o WHERE o.id = u.id)
            RETURNING id, eligible_at, lane, rank, deadline, pipeline
        ), r AS (
            INSERT INTO hodei.ready (id, eligible_at, lane, rank, deadline, pipeline)
            SELECT j.id, v_now, j.lane, j.rank, j.deadline, j.pipeline FROM j WHERE j.eligible_at IS NULL
        ), d AS (
            INSERT INTO hodei.delayed (id, eligible_at, lane, rank, deadline, pipeline, created_at)
            SELECT j.id, j.eligible_at, j.lane, j.rank, j.deadline, j.pipeline, v_now FROM j WHERE j.eligible_at IS NOT NULL
        )
        -- From nowhere to pending, submitted.
        SELECT coalesce(array_agg(j.id), '{}'), CASE WHEN p_record THEN
            string_agg(hodei.change_bytes(j.id, 1, 0, 0, 65536, j.pipeline), ''::bytea) END, array_agg(j.lane)
            INTO v_new, v_body, v_lane FROM j;
    END IF;
    IF v_keyed IS NOT NULL AND EXISTS (SELECT 1 FROM unnest(v_keyed) k WHERE k NOT IN (SELECT unnest(v_new))) THEN
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
        IF cardinality(v_lane) = 1 THEN
            INSERT INTO hodei.delta (tenant, lane, pending, changes)
                VALUES (p_tenant, v_lane[1], cardinality(v_new), CASE WHEN p_record THEN cardinality(v_new) END);
        ELSE
            INSERT INTO hodei.delta (tenant, lane, pending, changes)
            SELECT p_tenant, l, count(*), CASE WHEN p_record THEN count(*) END FROM unnest(v_lane) l GROUP BY l;
        END IF;
    END IF;
    ord := 0;
    RETURN NEXT;
    IF cardinality(v_new) < cardinality(p_id) THEN
        -- An id speaks before a key.
        RETURN QUERY
        SELECT DISTINCT ON (f.ord) f.ord, f.id, f.fingerprint, v_now, NULL::int8, NULL::int8 FROM (
            SELECT u.ord, j.id, j.fingerprint, 0 AS speaks
                FROM unnest(p_id) WITH ORDINALITY u (id, ord) JOIN hodei.job j ON j.id = u.id
                WHERE u.id NOT IN (SELECT unnest(v_new))
            UNION ALL
            SELECT u.ord, j.id, j.fingerprint, 1
                FROM unnest(p_id, p_key) WITH ORDINALITY u (id, key, ord)
                JOIN hodei.unique_key k ON k.tenant = p_tenant AND k.key = u.key JOIN hodei.job j ON j.id = k.id
                WHERE u.id NOT IN (SELECT unnest(v_new)) AND u.id NOT IN (SELECT unnest(v_known))
        ) f ORDER BY f.ord, f.speaks;
        -- Who was in the way may be gone by now: then nothing of this call has happened.
        GET DIAGNOSTICS v_told = ROW_COUNT;
        IF v_told < cardinality(p_id) - cardinality(v_new) THEN
            RAISE EXCEPTION 'a job was pruned meanwhile' USING ERRCODE = '40001';
        END IF;
    END IF;
END
$$;
