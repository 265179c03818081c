-- The limits of tenants, of queues and of all.

-- Locks the rows of the limits that jobs and lanes count against, in one order. Returns 2 where there are such, and 1 where
-- there are only others. Called where there are any, by whoever has locked their table.
CREATE OR REPLACE FUNCTION hodei.lock_wide(p_id uuid[], p_lane int4[]) RETURNS int2
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM 1 FROM (
        SELECT DISTINCT v.tenant, v.queue FROM (
            SELECT d.lane AS no FROM hodei.leased d WHERE d.id = ANY (p_id) UNION SELECT unnest(p_lane)
        ) y JOIN hodei.lane l ON l.no = y.no, LATERAL hodei.wide_of(l.tenant, l.queue) v
    ) k JOIN hodei.wide w ON w.tenant = k.tenant AND w.queue = k.queue
    ORDER BY w.tenant, w.queue FOR NO KEY UPDATE OF w;
    RETURN CASE WHEN FOUND THEN 2 ELSE 1 END;
END
$$;

-- Sets such a limit. What is leased is counted when its row is made. It is looked for first: who had changed nothing with a
-- lock in his hands would wait for others like him in a circle.
CREATE OR REPLACE FUNCTION hodei.set_wide(p_tenant int4, p_queue text, p_most int8) RETURNS void
LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM hodei.wide WHERE tenant = p_tenant AND queue = p_queue) THEN
        UPDATE hodei.wide SET most = p_most WHERE tenant = p_tenant AND queue = p_queue;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    -- Everybody else waits behind who waits here: not for long, and the caller tries again.
    PERFORM set_config('lock_timeout', '50ms', true);
    LOCK TABLE hodei.wide IN EXCLUSIVE MODE;
    INSERT INTO hodei.wide (tenant, queue, most, in_use)
    SELECT p_tenant, p_queue, p_most, count(*) FROM hodei.leased d JOIN hodei.lane l ON l.no = d.lane
    WHERE p_tenant IN (0, l.tenant) AND p_queue IN ('', l.queue)
    ON CONFLICT (tenant, queue) DO UPDATE SET most = excluded.most;
END
$$;
