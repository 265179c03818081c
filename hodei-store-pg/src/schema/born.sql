-- When a job was created stands where it is, for lists of jobs by their states: not of those that are leased or that succeeded,
-- which it would cost their WAL. It is absent where a job is ready since its birth, as it is then `eligible_at`.
ALTER TABLE hodei.ready ADD COLUMN created_at int8;
ALTER TABLE hodei.delayed ADD COLUMN created_at int8;
ALTER TABLE hodei.blocked ADD COLUMN created_at int8;
ALTER TABLE hodei.done ADD COLUMN created_at int8;

-- Whether all of it is written: of what there was before hodei.note_births writes it.
CREATE TABLE hodei.born (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    known bool NOT NULL
);
INSERT INTO hodei.born (known) SELECT NOT EXISTS (SELECT 1 FROM hodei.job);

-- The indexes of lists, where nobody waits for them; where there are jobs they are built beside the work. Nobody is to look a
-- job up in them who knows its id alone, which the condition sees to.
DO $$
BEGIN
    IF (SELECT known FROM hodei.born) THEN
        CREATE INDEX ready_listed ON hodei.ready (lane, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX delayed_listed ON hodei.delayed (lane, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX blocked_listed ON hodei.blocked (lane, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX done_listed ON hodei.done (state, created_at, id) WHERE created_at IS NOT NULL;
        CREATE INDEX done_tenant ON hodei.done (state, tenant, created_at, id) WHERE state IN (5, 6);
    END IF;
END
$$;
