-- Proves the bounds. Where an id is from the future there is none, and what there is becomes the rest.
DO $$
DECLARE
    t text;
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = 'hodei.job'::regclass) <> 'r' THEN
        RETURN;
    END IF;
    FOREACH t IN ARRAY ARRAY['job', 'done', 'change'] LOOP
        BEGIN
            EXECUTE format('ALTER TABLE hodei.%I VALIDATE CONSTRAINT era', t);
        EXCEPTION WHEN check_violation THEN
            EXECUTE format('ALTER TABLE hodei.%I DROP CONSTRAINT era', t);
        END;
    END LOOP;
    IF (SELECT count(*) FROM pg_constraint WHERE conname = 'era' AND conrelid IN ('hodei.job'::regclass,
            'hodei.done'::regclass)) = 1 THEN
        ALTER TABLE hodei.job DROP CONSTRAINT IF EXISTS era;
        ALTER TABLE hodei.done DROP CONSTRAINT IF EXISTS era;
    END IF;
END
$$;
