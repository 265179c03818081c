-- What others may ask of the schema.

-- Lets a role of the database read what is its tenant's, and ask for work of it.
CREATE OR REPLACE FUNCTION hodei.admit(p_role name, p_tenant text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO hodei.role_tenant (role, tenant) VALUES (p_role, hodei.tenant_no(p_tenant))
        ON CONFLICT (role) DO UPDATE SET tenant = excluded.tenant;
    EXECUTE format('GRANT USAGE ON SCHEMA hodei TO %I', p_role);
    EXECUTE format('GRANT SELECT ON hodei.tenant, hodei.usage, hodei.lane, hodei.queue, hodei.schedule, hodei.job,
        hodei.ready, hodei.delayed, hodei.blocked, hodei.leased, hodei.done, hodei.edge, hodei.sequence,
        hodei.unique_key, hodei.change, hodei.total, hodei.delta, hodei.inbox TO %I', p_role);
    -- Not its number, nor what became of it.
    EXECUTE format('GRANT INSERT (tenant, queue, kind, args, priority, run_at, unique_key) ON hodei.inbox TO %I', p_role);
END
$$;

-- Asks for work, from any language and in any transaction: a handler by its kind, with arguments in JSON. When the
-- transaction commits a node makes a job of it, and does so once; with a key there is at most one of the tenant.
CREATE OR REPLACE FUNCTION hodei.enqueue(
    kind text, args jsonb DEFAULT 'null', queue text DEFAULT 'default', tenant text DEFAULT 'default',
    priority int DEFAULT 32, delay interval DEFAULT '0', unique_key text DEFAULT NULL
) RETURNS int8 LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
    v_no int8;
BEGIN
    INSERT INTO hodei.inbox (tenant, queue, kind, args, priority, run_at, unique_key)
        VALUES (tenant, queue, kind, convert_to(args::text, 'UTF8'), priority,
            CASE WHEN delay > '0' THEN hodei.now() + (extract(epoch FROM delay) * 1000000)::int8 END, unique_key)
        RETURNING no INTO v_no;
    PERFORM pg_notify('hodei', 'inbox 0');
    RETURN v_no;
END
$$;
