-- Token buckets. Claims and lanes reckon with them row by row, so these are expressions that are put in their place.

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
