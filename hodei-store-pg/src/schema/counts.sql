-- The counts.

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
