-- The second wall between tenants: whatever a statement forgets, a row of another tenant is not there. It stands for the
-- owner of the tables too, where that is no superuser.

-- Roles of the database that belong to a tenant, and see nothing else whatever they set.
CREATE TABLE hodei.role_tenant (
    role name PRIMARY KEY,
    tenant int4 NOT NULL
);

-- What comes in by SQL, from programs that know nothing of Hodei; any node makes jobs of it.
CREATE TABLE hodei.inbox (
    no int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL CHECK (tenant ~ '^[A-Za-z0-9_.-]{1,128}$' AND tenant NOT IN ('.', '..')),
    queue text COLLATE "C" NOT NULL CHECK (queue ~ '^[A-Za-z0-9_.-]{1,128}$' AND queue NOT IN ('.', '..')),
    kind text COLLATE "C" NOT NULL CHECK (kind ~ '^[A-Za-z0-9_.-]{1,128}$' AND kind NOT IN ('.', '..')),
    args bytea NOT NULL CHECK (octet_length(args) <= 1048576),
    priority int2 NOT NULL CHECK (priority BETWEEN 0 AND 63),
    run_at int8,
    unique_key text COLLATE "C" CHECK (octet_length(unique_key) BETWEEN 1 AND 256),
    -- Why no job can be made of it.
    refused text,
    refused_at int8
);
CREATE INDEX inbox_new ON hodei.inbox (no) WHERE refused IS NULL;
CREATE INDEX inbox_refused ON hodei.inbox (refused_at) WHERE refused_at IS NOT NULL;

-- The tenant whose rows a role may see in this transaction; nothing for all of them.
CREATE OR REPLACE FUNCTION hodei.scope(p_role name) RETURNS int4
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = hodei, pg_temp AS $$
    SELECT coalesce(
        -- A role may have been dropped since it was admitted.
        (SELECT min(r.tenant) FROM hodei.role_tenant r JOIN pg_roles g ON g.rolname = r.role
            WHERE pg_has_role(p_role, g.oid, 'USAGE') AND p_role <> (SELECT relowner::regrole::name FROM pg_class WHERE oid = 'hodei.job'::regclass)),
        CASE WHEN nullif(current_setting('hodei.tenant', true), '') IS NOT NULL THEN
            coalesce((SELECT t.no FROM hodei.tenant t WHERE t.name = current_setting('hodei.tenant', true)), 0)
        END)
$$;

DO $$
DECLARE
    t text;
    own text := 'hodei.scope(current_user)';
BEGIN
    FOREACH t IN ARRAY ARRAY['tenant', 'usage', 'lane', 'queue', 'schedule', 'job', 'ready', 'delayed', 'blocked',
        'leased', 'done', 'edge', 'sequence', 'unique_key', 'change', 'total', 'delta', 'inbox'] LOOP
        EXECUTE format('ALTER TABLE hodei.%I ENABLE ROW LEVEL SECURITY', t);
        IF t <> 'tenant' THEN
            -- Where hodei.scope looks the name up, as the owner.
            EXECUTE format('ALTER TABLE hodei.%I FORCE ROW LEVEL SECURITY', t);
        END IF;
        EXECUTE format('CREATE POLICY wall ON hodei.%I USING ((SELECT %s) IS NULL OR %s)', t, own,
            CASE t
                WHEN 'tenant' THEN 'no = (SELECT hodei.scope(current_user))'
                WHEN 'ready' THEN 'lane IN (SELECT no FROM hodei.lane)'
                WHEN 'delayed' THEN 'lane IN (SELECT no FROM hodei.lane)'
                WHEN 'blocked' THEN 'lane IN (SELECT no FROM hodei.lane)'
                WHEN 'edge' THEN 'EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = child)'
                WHEN 'inbox' THEN 'tenant IN (SELECT n.name FROM hodei.tenant n)'
                ELSE 'tenant = (SELECT hodei.scope(current_user))'
            END);
    END LOOP;
END
$$;
