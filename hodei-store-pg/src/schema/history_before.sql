-- Makes it known up to where the rows are that become the first part of the history, so that they need not be looked
-- through while anybody waits: a bound six hours ahead, or a hundred million transactions, which is proved while work goes
-- on. New rows are held to it at once, so one that was not proved is moved ahead at each try. A log with nothing in it gets
-- the volume of any other.
DO $$
DECLARE
    t text;
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = 'hodei.job'::regclass) <> 'r' THEN
        RETURN;
    END IF;
    FOREACH t IN ARRAY ARRAY['job', 'done', 'change'] LOOP
        CONTINUE WHEN EXISTS (SELECT 1 FROM pg_constraint
            WHERE conrelid = format('hodei.%I', t)::regclass AND conname = 'era' AND convalidated);
        EXECUTE format('ALTER TABLE hodei.%I DROP CONSTRAINT IF EXISTS era', t);
        EXECUTE format('ALTER TABLE hodei.%I ADD CONSTRAINT era CHECK (%s) NOT VALID', t, CASE t
            WHEN 'change' THEN format('pos < %s',
                (SELECT base FROM hodei.log_base) + pg_snapshot_xmax(pg_current_snapshot())::text::int8 
                    + CASE WHEN EXISTS (SELECT 1 FROM hodei.change) THEN 100000000 ELSE 1048576 END)
            ELSE format('id < %L', lpad(to_hex(hodei.now() / 60000000 * 60000 + 21600000), 12, '0')
                || repeat('0', 20)) END);
    END LOOP;
END
$$;
