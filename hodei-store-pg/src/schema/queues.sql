-- The counts by queue: a row of what was counted for each, and beside what a transaction adds the lane that it is of. What
-- was counted before has no queue until hodei.attribute has looked whose it is.
ALTER TABLE hodei.total ADD COLUMN queue text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE hodei.total DROP CONSTRAINT total_pkey;
ALTER TABLE hodei.total ADD PRIMARY KEY (tenant, queue);
ALTER TABLE hodei.delta ADD COLUMN lane int4;
-- A row of nothing says nothing.
DELETE FROM hodei.total WHERE (blocked, pending, scheduled, running, succeeded, failed, cancelled, changes) = (0, 0, 0, 0, 0, 0, 0, 0);
