-- The history in parts that can be dropped whole: jobs by when their ids were minted, changes by their place in the log.
-- What is in no part lies in the rest, so that nothing can fail to be stored. What there is becomes the first part as it
-- stands: no row is moved.

DO $$
DECLARE
    t text;
    r record;
BEGIN
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
-- Where there are jobs it is built beside the work, and the first part keeps the one it had until it goes.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM hodei.job_0) THEN
        DROP INDEX IF EXISTS hodei.job_0_created;
        CREATE INDEX job_listed ON hodei.job (tenant, created_at, id);
        -- The one by id is to be made last: see hodei.add_part.
        CREATE INDEX ON hodei.job_0 (tenant, created_at, id);
        ALTER TABLE hodei.job_0 DROP CONSTRAINT job_0_pkey, ADD CONSTRAINT job_0_pkey PRIMARY KEY (id);
    END IF;
END
$$;
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
            IF t = 'job' THEN
                -- Before the one by id, which is made when it is attached: see hodei.add_part.
                CREATE INDEX job_rest_listed ON hodei.job_rest (tenant, created_at, id);
                CREATE INDEX job_rest_pipeline ON hodei.job_rest (pipeline, created_at, id) WHERE pipeline IS NOT NULL;
            END IF;
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
    -- All names of tenants are there for the owner of the tables.
    ALTER POLICY wall ON hodei.inbox USING ((SELECT hodei.scope(current_user)) IS NULL
        OR tenant = (SELECT n.name FROM hodei.tenant n WHERE n.no = (SELECT hodei.scope(current_user))));
    ALTER TABLE hodei.checkpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY wall ON hodei.checkpoint USING ((SELECT hodei.scope(current_user)) IS NULL
        OR tenant = (SELECT hodei.scope(current_user)));
END
$$;
