-- The limits of tenants, of queues and of all: how many leased jobs count against each, and how many may. The tenant is 0
-- for all of them, and the queue is empty for all of a tenant's.
--
-- Whoever leases or ends a lease locks this table in ROW SHARE mode before he looks at it, until he commits. Whoever makes a
-- row locks it in EXCLUSIVE mode: so he waits for all of them, and they for him, and what he counts is what is leased.
CREATE TABLE hodei.wide (
    tenant int4 NOT NULL,
    queue text COLLATE "C" NOT NULL,
    most int8 NOT NULL,
    in_use int8 NOT NULL,
    PRIMARY KEY (tenant, queue)
) WITH (fillfactor = 50);

ALTER TABLE hodei.wide ENABLE ROW LEVEL SECURITY;
ALTER TABLE hodei.wide FORCE ROW LEVEL SECURITY;
CREATE POLICY wall ON hodei.wide USING ((SELECT hodei.scope(current_user)) IS NULL OR tenant = 0
    OR tenant = (SELECT hodei.scope(current_user)));
