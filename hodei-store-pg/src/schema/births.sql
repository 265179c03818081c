-- Writing when jobs were created that came before that was written.

-- Goes on behind a row of a table, in the order of an index, and returns the last of the thousand rows behind it; nothing
-- behind the last one. Whoever is in the way is waited for a moment only: so nobody waits for another in a circle.
CREATE OR REPLACE FUNCTION hodei.note_births(
    p_place text, p_no int4, p_kind int2, p_at int8, p_id uuid, OUT no int4, OUT kind int2, OUT at int8, OUT id uuid
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_sort = off SET lock_timeout = '100ms' AS $$
#variable_conflict use_column
BEGIN
    IF p_place = 'ready' THEN
        RETURN QUERY WITH x AS MATERIALIZED (
            SELECT r.* FROM hodei.ready r WHERE (r.lane, r.rank, r.eligible_at, r.id) > (p_no, p_kind, p_at, p_id)
            ORDER BY r.lane, r.rank, r.eligible_at, r.id LIMIT 1000
        ), u AS (
            UPDATE hodei.ready r SET created_at = j.created_at FROM x JOIN hodei.job j ON j.id = x.id
            WHERE r.lane = x.lane AND r.rank = x.rank AND r.eligible_at = x.eligible_at AND r.id = x.id
                AND x.created_at IS NULL AND x.eligible_at <> j.created_at
        )
        SELECT x.lane, x.rank, x.eligible_at, x.id FROM x
        ORDER BY x.lane DESC, x.rank DESC, x.eligible_at DESC, x.id DESC LIMIT 1;
    ELSIF p_place = 'done' THEN
        RETURN QUERY WITH x AS MATERIALIZED (
            SELECT d.* FROM hodei.done d
            WHERE d.state IN (5, 6) AND (d.state, d.tenant, d.moved_at, d.id) > (p_kind, p_no, p_at, p_id)
            ORDER BY d.state, d.tenant, d.moved_at, d.id LIMIT 1000
        ), u AS (
            UPDATE hodei.done d SET created_at = j.created_at FROM x JOIN hodei.job j ON j.id = x.id
            WHERE d.id = x.id AND d.created_at IS NULL
        )
        SELECT x.tenant, x.state, x.moved_at, x.id FROM x
        ORDER BY x.state DESC, x.tenant DESC, x.moved_at DESC, x.id DESC LIMIT 1;
    ELSE
        -- What is delayed or blocked.
        RETURN QUERY EXECUTE format('WITH x AS MATERIALIZED (
            SELECT p.* FROM hodei.%1$I p WHERE p.id > $1 ORDER BY p.id LIMIT 1000
        ), u AS (
            UPDATE hodei.%1$I p SET created_at = j.created_at FROM x JOIN hodei.job j ON j.id = x.id
            WHERE p.id = x.id AND p.created_at IS NULL
        )
        SELECT x.lane, x.rank, x.eligible_at, x.id FROM x ORDER BY x.id DESC LIMIT 1', p_place) USING p_id;
    END IF;
END
$$;
