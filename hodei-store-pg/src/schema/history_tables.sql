-- What the history in parts needs beside the tables that are cut. Nobody waits for any of it.

-- The first id of a time.
CREATE FUNCTION hodei.id_at(p_at int8) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(least(greatest(p_at / 1000, 0), 281474976710655)), 12, '0') || repeat('0', 20))::uuid
$$;

-- The eras of ids: the tables job_N and done_N, N being the number, hold what was minted from the end of the era before it
-- to its own.
CREATE TABLE hodei.era (
    no int4 GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0) PRIMARY KEY,
    -- Absent where it has no beginning.
    lo uuid,
    hi uuid NOT NULL,
    ends_at int8 NOT NULL,
    -- 0 it is in use, 1 what outlives it is looked for, 2 that is found, 3 it is no part any more and its jobs are taken
    -- leave of, 4 it is empty.
    stage int2 NOT NULL DEFAULT 0,
    -- It goes as a whole, and its rows are not removed one by one.
    whole bool NOT NULL DEFAULT false,
    -- Too much outlives it: its rows are removed one by one, and it is looked at again then.
    again_at int8,
    -- How often its next step was begun and took too long.
    tries int2 NOT NULL DEFAULT 0,
    -- What ended until then does not outlive it, and what failed.
    jobs_until int8,
    failed_until int8,
    -- How far it was looked through.
    seen uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);

-- The next part of a table whose rest is too large to be looked through while others wait: an era from a time to another, or
-- a volume from a place in the log to another. The rest takes nothing that belongs there, which is proved before it is made.
CREATE TABLE hodei.bound (
    kind text PRIMARY KEY,
    -- Absent where it could not be proved, until another try.
    lo int8,
    hi int8,
    proved bool NOT NULL DEFAULT false,
    again_at int8
);

-- What may outlive the era that is looked through.
CREATE TABLE hodei.outliving (
    id uuid PRIMARY KEY
);

-- The volumes of the log: the tables change_N.
CREATE TABLE hodei.volume (
    no int4 GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0) PRIMARY KEY,
    lo int8,
    hi int8 NOT NULL
);

-- How far a tenant's jobs that succeeded were looked through for what is too much.
CREATE TABLE hodei.walk (
    tenant int4 PRIMARY KEY,
    -- What ended before is gone, but for what could not go yet.
    succeeded_from int8 NOT NULL,
    -- It was looked through to the end and too little of it could go, which took long to find out.
    in_vain bool NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- How far the ended jobs of a part were looked through for those that are kept no longer, where it has many that are waited
-- for: an era, or the rest, which is -1. What ended until `fresh` was looked at once, and until `again` once more in this round;
-- the next stretch of time is as long as the span.
CREATE TABLE hodei.look (
    part int4 PRIMARY KEY,
    fresh int8 NOT NULL,
    fresh_span int8 NOT NULL,
    again int8 NOT NULL,
    again_span int8 NOT NULL
) WITH (fillfactor = 50);

-- How far runs have come. A run of a lower epoch than the fence writes nothing.
CREATE TABLE hodei.checkpoint (
    id uuid NOT NULL,
    tenant int4 NOT NULL,
    fence int8 NOT NULL,
    body bytea,
    PRIMARY KEY (id, tenant)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

-- Whether it is written where jobs are when they were created, of all of them: of those of before hodei.note_births does so.
CREATE TABLE hodei.born (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    known bool NOT NULL
);
INSERT INTO hodei.born (known) VALUES (false);
