-- The indexes of lists, where nobody waits for them; where there are jobs they are built beside the work. Nobody is to look a
-- job up in them who knows its id alone, which the condition sees to.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM hodei.job) THEN
        UPDATE hodei.born SET known = true;
        CREATE INDEX ready_listed ON hodei.ready (lane, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX delayed_listed ON hodei.delayed (lane, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX blocked_listed ON hodei.blocked (lane, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX done_listed ON hodei.done (state, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX done_tenant ON hodei.done (state, tenant, created_at, id) WHERE state IN (5, 6);
    END IF;
END
$$;
