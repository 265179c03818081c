-- The limits of keys, of queues, of tenants and of all. What is called with every claim runs under the settings of who calls it.

-- Says whether there may be limits. Whoever leases or ends leases asks before all else: no limit wider than a key is made
-- from then on until he commits.
CREATE OR REPLACE FUNCTION hodei.limited() RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    LOCK TABLE hodei.wide IN ROW SHARE MODE;
    RETURN EXISTS (SELECT 1 FROM hodei.wide) OR EXISTS (SELECT 1 FROM hodei.usage);
END
$$;

-- Locks the rows of all limits that lanes count against: those wider than a key, then those of keys, each in one order. Whoever
-- leases or ends leases calls it with the lanes of all of them, before he locks a job, but for who writes down what comes free
-- (hodei.freed) and holds none: so nobody waits in a circle. `wide` is 2
-- where there are such limits for these lanes, and 1 where there are only others; `keys` are the numbers of those of keys,
-- absent where there are none.
CREATE OR REPLACE FUNCTION hodei.hold_limits(p_lane int4[], OUT wide int2, OUT keys int4[]) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    wide := 0;
    LOCK TABLE hodei.wide IN ROW SHARE MODE;
    IF EXISTS (SELECT 1 FROM hodei.wide) THEN
        PERFORM 1 FROM (
            SELECT DISTINCT v.tenant, v.queue FROM (SELECT DISTINCT unnest(p_lane) AS no) y
            JOIN hodei.lane l ON l.no = y.no, LATERAL hodei.wide_of(l.tenant, l.queue) v
        ) k JOIN hodei.wide w ON w.tenant = k.tenant AND w.queue = k.queue
        ORDER BY w.tenant, w.queue FOR NO KEY UPDATE OF w;
        wide := CASE WHEN FOUND THEN 2 ELSE 1 END;
    END IF;
    SELECT array_agg(DISTINCT x ORDER BY x) INTO keys FROM hodei.lane l, unnest(l.limits) x
        WHERE l.no = ANY (p_lane) AND l.limits IS NOT NULL;
    IF keys IS NOT NULL THEN
        PERFORM 1 FROM hodei.usage WHERE no = ANY (keys) ORDER BY no FOR NO KEY UPDATE;
    END IF;
END
$$;

-- Takes what came free of the limits of keys off what is in use. Called by whoever holds their rows.
CREATE OR REPLACE FUNCTION hodei.take_off(p_keys int4[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM hodei.freed WHERE no = ANY (p_keys)) THEN
        WITH d AS (DELETE FROM hodei.freed WHERE no = ANY (p_keys) RETURNING no, n)
        UPDATE hodei.usage u SET in_use = u.in_use - x.n FROM (SELECT no, sum(n) AS n FROM d GROUP BY no) x WHERE u.no = x.no;
    END IF;
END
$$;

-- Sets a limit that is wider than a key. What is leased is counted when its row is made. It is looked for first: who had
-- changed nothing with a lock in his hands would wait for others like him in a circle.
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
