-- Token buckets, and clocks that are set back. Claims and lanes reckon with them row by row, so these are expressions that are put in their place.

-- How many jobs that take so many tokens each a rate lets through; absent where there is none.
CREATE OR REPLACE FUNCTION hodei.paced(p_burst int8, p_gap int8, p_full_at int8, p_each int8, p_now int8) RETURNS int8
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_gap IS NOT NULL THEN
        greatest(p_burst - (greatest(p_full_at - p_now * 1000, 0) + p_gap - 1) / p_gap, 0) / least(p_each, p_burst) END
$$;

-- When a bucket is full again, if so many jobs are claimed.
CREATE OR REPLACE FUNCTION hodei.spent(p_gap int8, p_full_at int8, p_each int8, p_now int8, p_n int8) RETURNS int8
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_gap IS NOT NULL AND p_n > 0 THEN greatest(p_full_at, p_now * 1000) + p_n * p_each * p_gap
        ELSE p_full_at END
$$;

-- When a rate lets one more through.
CREATE OR REPLACE FUNCTION hodei.opens_at(p_burst int8, p_gap int8, p_full_at int8, p_each int8) RETURNS int8
LANGUAGE sql IMMUTABLE AS $$
    SELECT (p_full_at - (p_burst - least(p_each, p_burst)) * p_gap + 999) / 1000
$$;

-- Whether something was written by a clock that was set back since, which is so late that it is to be brought back. Ten seconds are
-- not: all of it is there again so soon, and calls that run side by side have times that differ.
CREATE OR REPLACE FUNCTION hodei.is_ahead(p_written_at int8, p_now int8) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
    SELECT p_written_at > p_now + 10000000
$$;

-- What is spent of a rate, as the clock of now says it: where whoever wrote it saw a later one, as much as was spent then.
CREATE OR REPLACE FUNCTION hodei.full_by(p_full_at int8, p_spent_at int8, p_now int8) RETURNS int8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN hodei.is_ahead(p_spent_at, p_now) THEN p_full_at - (p_spent_at - p_now) * 1000 ELSE p_full_at END
$$;

-- Brings back the rates of limits wider than keys that a claim left which saw a later clock: as much is spent as then.
-- What somebody has locked is found with the next look: nobody waits for it.
CREATE OR REPLACE FUNCTION hodei.bring_back_wide(p_now int8) RETURNS void LANGUAGE plpgsql VOLATILE SET jit = off AS $$
BEGIN
    UPDATE hodei.wide w SET full_at = hodei.full_by(w.full_at, w.spent_at, p_now), spent_at = p_now FROM (
        SELECT tenant, queue FROM hodei.wide WHERE hodei.is_ahead(spent_at, p_now) FOR NO KEY UPDATE SKIP LOCKED
    ) x WHERE w.tenant = x.tenant AND w.queue = x.queue;
END
$$;

-- Brings back these and those of the keys that are named. There may be very many keys, and an index of when each was
-- spent from would cost every claim under it a new entry: so a rate is brought back by whoever asks what it lets through.
CREATE OR REPLACE FUNCTION hodei.bring_back_rates(p_now int8, p_keys int4[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off AS $$
BEGIN
    PERFORM hodei.bring_back_wide(p_now);
    UPDATE hodei.usage u SET full_at = hodei.full_by(u.full_at, u.spent_at, p_now), spent_at = p_now FROM (
        SELECT no FROM hodei.usage WHERE no = ANY (p_keys) AND hodei.is_ahead(spent_at, p_now)
        FOR NO KEY UPDATE SKIP LOCKED
    ) x WHERE u.no = x.no;
END
$$;

-- Brings back all that closes lanes in which something is ready.
CREATE OR REPLACE FUNCTION hodei.bring_back_rates(p_now int8) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off AS $$
BEGIN
    PERFORM hodei.bring_back_rates(p_now, ARRAY(
        WITH RECURSIVE w AS (
            (SELECT r.lane AS no FROM hodei.ready r ORDER BY r.lane LIMIT 1)
            UNION ALL
            SELECT (SELECT r.lane FROM hodei.ready r WHERE r.lane > w.no ORDER BY r.lane LIMIT 1) FROM w
            WHERE w.no IS NOT NULL
        )
        SELECT DISTINCT x FROM w JOIN hodei.lane l ON l.no = w.no CROSS JOIN LATERAL unnest(l.limits) x));
END
$$;
