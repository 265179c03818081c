-- Lists of jobs, by the time of their creation.

-- Where the next p_n jobs are from a place on, of a tenant or of all, and whether they are what is asked for: in which state
-- they are is looked up where one is. Jobs lie by tenant. Of several tenants a few jobs each are looked at, several times as
-- many in all as are asked for, and then the rest of those tenants of which there may be more before the last of these.
CREATE OR REPLACE FUNCTION hodei.listed(
    p_newest bool, p_at int8, p_id uuid, p_n int8, p_tenant text, p_queue text, p_name text, p_state int2,
    OUT created_at int8, OUT id uuid, OUT wanted bool
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET enable_bitmapscan = off AS $$
DECLARE
    v_each int8 := p_n;
BEGIN
    IF p_tenant IS NULL THEN
        SELECT least(p_n, greatest(8, 4 * p_n / greatest(count(*), 1))) INTO v_each FROM hodei.tenant;
    END IF;
    -- %1$s is the direction, %2$s what lies ahead in it, %3$s what lies behind or there, %4$s the last place.
    RETURN QUERY EXECUTE format($walk$
        WITH c AS MATERIALIZED (
            SELECT j.* FROM hodei.tenant t CROSS JOIN LATERAL (
                SELECT j.tenant, j.lane, j.name, j.created_at, j.id FROM hodei.job j
                WHERE j.tenant = t.no AND (j.created_at, j.id) %2$s ($1, $2)
                ORDER BY j.created_at %1$s, j.id %1$s LIMIT $4
            ) j WHERE $5 IS NULL OR t.name = $5
        ), last AS MATERIALIZED (
            SELECT c.created_at, c.id FROM c ORDER BY c.created_at %1$s, c.id %1$s LIMIT 1 OFFSET $3 - 1
        ), full_ones AS MATERIALIZED (
            SELECT f.* FROM (
                SELECT c.*, row_number() OVER (PARTITION BY c.tenant ORDER BY c.created_at %1$s, c.id %1$s) AS n FROM c
            ) f WHERE f.n = $4 AND $4 < $3
        ), found AS MATERIALIZED (
            SELECT x.* FROM (
                SELECT c.* FROM c
                UNION ALL
                SELECT j.* FROM full_ones f LEFT JOIN last ON true CROSS JOIN LATERAL (
                    SELECT j.tenant, j.lane, j.name, j.created_at, j.id FROM hodei.job j
                    WHERE j.tenant = f.tenant AND (j.created_at, j.id) %2$s (f.created_at, f.id)
                        AND (j.created_at, j.id) %3$s (coalesce(last.created_at, %4$L::int8), coalesce(last.id, %5$L::uuid))
                    ORDER BY j.created_at %1$s, j.id %1$s LIMIT $3
                ) j
            ) x ORDER BY x.created_at %1$s, x.id %1$s LIMIT $3
        )
        SELECT f.created_at, f.id, ($6 IS NULL OR l.queue = $6) AND ($7 IS NULL OR f.name = $7)
            AND ($8 IS NULL OR $8 = coalesce(
                (SELECT d.state FROM hodei.done d WHERE d.id = f.id),
                (SELECT CASE WHEN h.running THEN 3 ELSE 2 END FROM hodei.leased h WHERE h.id = f.id),
                (SELECT 0 FROM hodei.blocked b WHERE b.id = f.id), 1))
        FROM found f JOIN hodei.lane l ON l.no = f.lane ORDER BY f.created_at %1$s, f.id %1$s
        $walk$, CASE WHEN p_newest THEN 'DESC' ELSE 'ASC' END, CASE WHEN p_newest THEN '<' ELSE '>' END,
        CASE WHEN p_newest THEN '>=' ELSE '<=' END,
        CASE WHEN p_newest THEN '-9223372036854775808' ELSE '9223372036854775807' END,
        CASE WHEN p_newest THEN repeat('0', 32) ELSE repeat('f', 32) END)
        USING p_at, p_id, p_n, v_each, p_tenant, p_queue, p_name, p_state;
END
$$;

-- Where the next p_n jobs of a state are from a place on, of a tenant or of all, and whether they are what is asked for; a
-- row of nothing where they can only be looked for among all jobs. Where a job is stands when it was created, but for what is
-- leased and what succeeded. What is open lies by lane, what is ready by rank too: of each a few jobs are looked at, several
-- times as many in all as are asked for, and then the rest of those of which there may be more before the last of these.
-- What is ready since its birth lies in the order of births, among some that are not, which are passed over there and found
-- by their own index.
CREATE OR REPLACE FUNCTION hodei.listed_in(
    p_newest bool, p_at int8, p_id uuid, p_n int8, p_tenant text, p_queue text, p_name text, p_state int2,
    OUT created_at int8, OUT id uuid, OUT wanted bool
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET enable_bitmapscan = off AS $$
DECLARE
    v_lanes int4[];
    v_kinds int2[];
    v_ranks int2[];
    v_rows text;
    -- In how many lanes jobs are looked for at most.
    v_lanes_max CONSTANT int4 := 1000;
BEGIN
    IF NOT coalesce((SELECT b.known FROM hodei.born b), false) OR p_state NOT IN (0, 1, 5, 6) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    -- %1$s is the direction, %2$s what lies ahead in it, %3$s what lies behind or there.
    IF p_state >= 5 THEN
        RETURN QUERY EXECUTE format($ended$
            WITH f AS MATERIALIZED (
                SELECT d.created_at, d.id FROM hodei.done d WHERE d.state = %3$s AND %4$s AND (d.created_at, d.id) %2$s ($1, $2)
                ORDER BY d.created_at %1$s, d.id %1$s LIMIT $3
            )
            SELECT f.created_at, f.id, %5$s FROM f ORDER BY f.created_at %1$s, f.id %1$s
            $ended$, CASE WHEN p_newest THEN 'DESC' ELSE 'ASC' END, CASE WHEN p_newest THEN '<' ELSE '>' END, p_state,
            -- Of all by one index, of a tenant by the other: what each begins with tells the planner which.
            CASE WHEN p_tenant IS NULL THEN 'd.created_at IS NOT NULL'
                ELSE 'd.state IN (5, 6) AND d.tenant = (SELECT t.no FROM hodei.tenant t WHERE t.name = $4)' END,
            CASE WHEN p_queue IS NULL AND p_name IS NULL THEN 'true' ELSE
                'EXISTS (SELECT 1 FROM hodei.job j JOIN hodei.lane l ON l.no = j.lane WHERE j.id = f.id
                    AND ($5 IS NULL OR l.queue = $5) AND ($6 IS NULL OR j.name = $6))' END)
            USING p_at, p_id, p_n, p_tenant, p_queue, p_name;
        RETURN;
    END IF;
    SELECT array_agg(x.no) INTO v_lanes FROM (
        SELECT l.no FROM hodei.lane l WHERE p_tenant IS NULL AND (p_queue IS NULL OR l.queue = p_queue)
        UNION ALL
        SELECT l.no FROM hodei.lane l WHERE l.tenant = (SELECT t.no FROM hodei.tenant t WHERE t.name = p_tenant)
            AND p_tenant IS NOT NULL AND (p_queue IS NULL OR l.queue = p_queue)
        LIMIT v_lanes_max + 1
    ) x;
    IF cardinality(v_lanes) > v_lanes_max THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF p_state = 0 THEN
        SELECT array_agg(x), array_agg(0), array_agg(0) INTO v_lanes, v_kinds, v_ranks FROM unnest(v_lanes) x;
    ELSE
        -- The ranks at which anything is ready, one after the other.
        SELECT array_agg(x.lane), array_agg(x.kind), array_agg(x.rank) INTO v_lanes, v_kinds, v_ranks FROM (
            SELECT u.lane, k.kind, 0::int2 AS rank FROM unnest(v_lanes) u (lane), unnest('{1,2}'::int2[]) k (kind)
            UNION ALL
            SELECT u.lane, 3, w.rank FROM unnest(v_lanes) u (lane) CROSS JOIN LATERAL (
                WITH RECURSIVE w AS (
                    SELECT (SELECT r.rank FROM hodei.ready r WHERE r.lane = u.lane ORDER BY r.rank LIMIT 1) AS rank
                    UNION ALL
                    SELECT (SELECT r.rank FROM hodei.ready r WHERE r.lane = u.lane AND r.rank > w.rank
                        ORDER BY r.rank LIMIT 1) FROM w WHERE w.rank IS NOT NULL
                ) SELECT w.rank FROM w WHERE w.rank IS NOT NULL
            ) w
        ) x;
    END IF;
    -- The rows of a stream s: behind a place, up to another, and no more than so many.
    SELECT string_agg(format($stream$
            (SELECT %4$s AS created_at, x.id, %5$s AS fits FROM hodei.%6$s x
            WHERE s.kind = %7$s AND x.lane = s.lane AND %8$s
                AND (%4$s, x.id) %2$s (s.at, s.id) AND (%4$s, x.id) %3$s (s.to_at, s.to_id)
            ORDER BY %4$s %1$s, x.id %1$s LIMIT s.most)
            $stream$, CASE WHEN p_newest THEN 'DESC' ELSE 'ASC' END, CASE WHEN p_newest THEN '<' ELSE '>' END,
            CASE WHEN p_newest THEN '>=' ELSE '<=' END, y.key, y.fits, y.place, y.kind, y.among), 'UNION ALL') INTO v_rows
    FROM (VALUES
        (0, 'blocked', 'x.created_at', 'true', 'x.created_at IS NOT NULL'),
        (1, 'delayed', 'x.created_at', 'true', 'x.created_at IS NOT NULL'),
        (2, 'ready', 'x.created_at', 'true', 'x.created_at IS NOT NULL'),
        (3, 'ready', 'x.eligible_at', 'x.created_at IS NULL', 'x.rank = s.rank')
    ) y (kind, place, key, fits, among) WHERE (y.kind = 0) = (p_state = 0);
    RETURN QUERY EXECUTE format($open$
        WITH s AS MATERIALIZED (
            SELECT u.n, u.lane, u.kind, u.rank, $1 AS at, $2 AS id, %2$L::int8 AS to_at, %3$L::uuid AS to_id,
                least($3, greatest(8, 4 * $3 / cardinality($5))) AS most
            FROM unnest($5, $6, $7) WITH ORDINALITY u (lane, kind, rank, n)
        ), c AS MATERIALIZED (
            SELECT s.n, x.* FROM s CROSS JOIN LATERAL (%4$s) x
        ), last AS MATERIALIZED (
            SELECT c.created_at, c.id FROM c ORDER BY c.created_at %1$s, c.id %1$s LIMIT 1 OFFSET $3 - 1
        ), full_ones AS MATERIALIZED (
            SELECT s.lane, s.kind, s.rank, f.created_at AS at, f.id, coalesce(last.created_at, s.to_at) AS to_at,
                coalesce(last.id, s.to_id) AS to_id, $3 AS most
            FROM (
                SELECT c.*, row_number() OVER (PARTITION BY c.n ORDER BY c.created_at %1$s, c.id %1$s) AS nth FROM c
            ) f JOIN s ON s.n = f.n LEFT JOIN last ON true
            WHERE f.nth = s.most AND s.most < $3
        ), f AS MATERIALIZED (
            SELECT y.* FROM (
                SELECT c.created_at, c.id, c.fits FROM c
                UNION ALL
                SELECT x.* FROM full_ones s CROSS JOIN LATERAL (%4$s) x
            ) y ORDER BY y.created_at %1$s, y.id %1$s LIMIT $3
        )
        SELECT f.created_at, f.id, f.fits AND %5$s FROM f ORDER BY f.created_at %1$s, f.id %1$s
        $open$, CASE WHEN p_newest THEN 'DESC' ELSE 'ASC' END,
        CASE WHEN p_newest THEN '-9223372036854775808' ELSE '9223372036854775807' END,
        CASE WHEN p_newest THEN repeat('0', 32) ELSE repeat('f', 32) END, v_rows,
        CASE WHEN p_name IS NULL THEN 'true'
            ELSE '(SELECT j.name FROM hodei.job j WHERE j.id = f.id) = $4' END)
        USING p_at, p_id, p_n, p_name, v_lanes, v_kinds, v_ranks;
END
$$;
