-- What came free of the limits of keys and is not taken off `in_use` yet: whoever ends many leases writes it down here, and
-- waits for nobody who claims under the same limits. Whoever claims, and holds their rows, takes it off. Until then `in_use` is
-- too large, never too small.
CREATE TABLE hodei.freed (
    no int4 NOT NULL,
    n int8 NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1);
CREATE INDEX freed_no ON hodei.freed (no);

ALTER TABLE hodei.freed ENABLE ROW LEVEL SECURITY;
ALTER TABLE hodei.freed FORCE ROW LEVEL SECURITY;
CREATE POLICY wall ON hodei.freed USING ((SELECT hodei.scope(current_user)) IS NULL
    OR no IN (SELECT u.no FROM hodei.usage u));
