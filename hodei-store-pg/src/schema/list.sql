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
