-- Finds and locks ended jobs that are kept no longer, had their turn and for whom nobody waits, in the order in which they lie: whoever
-- asked for the oldest would sort all of them to remove a few.
CREATE OR REPLACE FUNCTION hodei.outlived(p_jobs int8, p_failed int8, p_n int8) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT d.id FROM hodei.done d
    WHERE d.moved_at <= CASE d.state WHEN 5 THEN p_failed ELSE p_jobs END AND d.moved_at <= greatest(p_jobs, p_failed)
        AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = d.id
            AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child))
        AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.child = d.id AND e.turn AND NOT e.told)
    LIMIT p_n FOR UPDATE OF d SKIP LOCKED;
END
$$;
