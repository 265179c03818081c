-- Proves the bounds, and says so. Where an id is from the future there is none, and what there is becomes the rest.
DO $$
DECLARE
    t text;
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = 'hodei.job'::regclass) <> 'r' THEN
        RETURN;
    END IF;
    FOREACH t IN ARRAY ARRAY['job', 'done', 'change'] LOOP
        BEGIN
            -- Nobody waits behind who waits here but for what is done to the table itself. After a second a vacuum gives way.
            PERFORM set_config('lock_timeout', '5s', true);
            EXECUTE format('ALTER TABLE hodei.%I VALIDATE CONSTRAINT era', t);
        EXCEPTION WHEN check_violation THEN
            PERFORM set_config('lock_timeout', '100ms', true);
            EXECUTE format('ALTER TABLE hodei.%I DROP CONSTRAINT era', t);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', '100ms', true);
    IF (SELECT count(*) FROM pg_constraint WHERE conname = 'era' AND conrelid IN ('hodei.job'::regclass,
            'hodei.done'::regclass)) = 1 THEN
        ALTER TABLE hodei.job DROP CONSTRAINT IF EXISTS era;
        ALTER TABLE hodei.done DROP CONSTRAINT IF EXISTS era;
    END IF;
    COMMENT ON TABLE hodei.job IS 'its bounds were proved';
END
$$;
