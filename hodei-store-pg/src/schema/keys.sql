-- Keys that go with the ends of their jobs come and go as jobs do.
ALTER TABLE hodei.unique_key SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Their index, where nobody waits for it; where there are keys already it is built beside the work.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM hodei.unique_key) THEN
        CREATE INDEX unique_key_open ON hodei.unique_key (id) WHERE key LIKE 'open:%';
    END IF;
END
$$;
