-- The history in parts that can be dropped whole: jobs by when their ids were minted, changes by their place in the log.
-- What is in no part lies in the rest, so that nothing can fail to be stored. What there is becomes the first part as it
-- stands: no row is moved.

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
    -- What ended until then does not outlive it, and what failed.
    jobs_until int8,
    failed_until int8,
    -- How far it was looked through.
    seen uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
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

-- From when on it is known of a tenant that nothing older which succeeded is there, but for what could not go.
CREATE TABLE hodei.walk (
    tenant int4 PRIMARY KEY,
    succeeded_from int8 NOT NULL
) WITH (fillfactor = 50);

-- How far runs have come. A run of a lower epoch than the fence writes nothing.
CREATE TABLE hodei.checkpoint (
    id uuid NOT NULL,
    tenant int4 NOT NULL,
    fence int8 NOT NULL,
    body bytea,
    PRIMARY KEY (id, tenant)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

DO $$
DECLARE
    t text;
    r record;
BEGIN
    -- All at once, before anything is done.
    LOCK TABLE hodei.job, hodei.done, hodei.change IN ACCESS EXCLUSIVE MODE;
    -- Whoever gave up has dropped the bounds, and they are to be proved again.
    IF obj_description('hodei.job'::regclass, 'pg_class') IS DISTINCT FROM 'its bounds were proved' THEN
        RAISE EXCEPTION 'the bounds were dropped' USING ERRCODE = '55P03';
    END IF;
    COMMENT ON TABLE hodei.job IS NULL;
    FOREACH t IN ARRAY ARRAY['job', 'done', 'change'] LOOP
        FOR r IN SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE i.indrelid = format('hodei.%I', t)::regclass LOOP
            EXECUTE format('ALTER INDEX hodei.%I RENAME TO %I', r.relname, t || '_0' || substr(r.relname, length(t) + 1));
        END LOOP;
        EXECUTE format('ALTER TABLE hodei.%I RENAME TO %I', t, t || '_0');
        EXECUTE format('CREATE TABLE hodei.%I (LIKE hodei.%I INCLUDING DEFAULTS INCLUDING STORAGE) PARTITION BY RANGE (%I)', t, t || '_0',
            CASE t WHEN 'change' THEN 'pos' ELSE 'id' END);
        EXECUTE format('CREATE TABLE hodei.%I (LIKE hodei.%I INCLUDING DEFAULTS INCLUDING STORAGE)', t || '_rest', t || '_0');
    END LOOP;
END
$$;

ALTER TABLE hodei.job ADD PRIMARY KEY (id);
CREATE INDEX job_created ON hodei.job (created_at, id);
CREATE INDEX job_pipeline ON hodei.job (pipeline, created_at, id) WHERE pipeline IS NOT NULL;
ALTER TABLE hodei.done ADD PRIMARY KEY (id);
CREATE INDEX done_moved ON hodei.done USING brin (moved_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX done_bad ON hodei.done (state, tenant, moved_at, id) WHERE state IN (5, 6);
ALTER TABLE hodei.change ADD PRIMARY KEY (pos, no);

DO $$
DECLARE
    t text;
    role name;
    hi text;
    own CONSTANT text := 'hodei.scope(current_user)';
BEGIN
    FOREACH t IN ARRAY ARRAY['job', 'done', 'change'] LOOP
        -- The bound that the rows of the first part are known to keep; without one they are the rest.
        SELECT substring(pg_get_constraintdef(oid) FROM $b$<\s*'?([0-9a-f-]+)$b$) INTO hi FROM pg_constraint
            WHERE conrelid = format('hodei.%I', t || '_0')::regclass AND conname = 'era' AND convalidated;
        IF hi IS NULL THEN
            EXECUTE format('DROP TABLE hodei.%I', t || '_rest');
            EXECUTE format('ALTER TABLE hodei.%I RENAME TO %I', t || '_0', t || '_rest');
            EXECUTE format('ALTER TABLE hodei.%I DROP CONSTRAINT IF EXISTS era', t || '_rest');
            EXECUTE format('ALTER TABLE hodei.%I ATTACH PARTITION hodei.%I DEFAULT', t, t || '_rest');
        ELSE
            EXECUTE format('ALTER TABLE hodei.%I ATTACH PARTITION hodei.%I FOR VALUES FROM (MINVALUE) TO (%L)',
                t, t || '_0', hi);
            EXECUTE format('ALTER TABLE hodei.%I ATTACH PARTITION hodei.%I DEFAULT', t, t || '_rest');
            EXECUTE format('ALTER TABLE hodei.%I DROP CONSTRAINT era', t || '_0');
            IF t = 'job' THEN
                INSERT INTO hodei.era (hi, ends_at)
                    VALUES (hi::uuid, ('x' || replace(left(hi, 13), '-', ''))::bit(48)::int8 * 1000);
            ELSIF t = 'change' THEN
                INSERT INTO hodei.volume (hi) VALUES (hi::int8);
            END IF;
        END IF;
        EXECUTE format('ALTER TABLE hodei.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY wall ON hodei.%I USING ((SELECT %s) IS NULL OR tenant = (SELECT %s))', t, own,
            own);
        FOR role IN SELECT r.role FROM hodei.role_tenant r JOIN pg_roles g ON g.rolname = r.role LOOP
            EXECUTE format('GRANT SELECT ON hodei.%I TO %I', t, role);
        END LOOP;
    END LOOP;
    ALTER TABLE hodei.done_rest SET (autovacuum_vacuum_insert_scale_factor = 0.2);
    ALTER TABLE hodei.change_rest SET (autovacuum_vacuum_insert_scale_factor = 0.2);
    -- It knew the table of jobs by what is a part of it now.
    DROP POLICY wall ON hodei.edge;
    CREATE POLICY wall ON hodei.edge USING ((SELECT hodei.scope(current_user)) IS NULL
        OR EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = child));
    ALTER TABLE hodei.checkpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY wall ON hodei.checkpoint USING ((SELECT hodei.scope(current_user)) IS NULL
        OR tenant = (SELECT hodei.scope(current_user)));
END
$$;
