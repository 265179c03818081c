-- Drops the bounds of a step that was not taken: sooner or later new rows would reach them.
DO $$
DECLARE
    t text;
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = to_regclass('hodei.job')) IS DISTINCT FROM 'r' THEN
        RETURN;
    END IF;
    COMMENT ON TABLE hodei.job IS NULL;
    FOREACH t IN ARRAY ARRAY['job', 'done', 'change'] LOOP
        EXECUTE format('ALTER TABLE hodei.%I DROP CONSTRAINT IF EXISTS era', t);
    END LOOP;
END
$$;
