-- How long a life or a term was to last when it was last prolonged, in microseconds: so it shows when that was, also where the
-- clock was set back since. Absent where that was before there was this column.
ALTER TABLE hodei.owner ADD COLUMN IF NOT EXISTS lasts int8;
-- What a node reads of what others store: 1 lean bodies too. Absent for nodes of before.
ALTER TABLE hodei.owner ADD COLUMN IF NOT EXISTS reads int2;
ALTER TABLE hodei.term ADD COLUMN IF NOT EXISTS lasts int8;
-- On which course of history a life was begun (hodei.home). Absent where that was before there was this column.
ALTER TABLE hodei.owner ADD COLUMN IF NOT EXISTS home int8;
-- The timeline on which positions are what the base makes of them, and its cluster: 0 is none.
ALTER TABLE hodei.log_base ADD COLUMN IF NOT EXISTS timeline int8 NOT NULL DEFAULT 0;
UPDATE hodei.log_base SET timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8
    WHERE timeline = 0;
ALTER TABLE hodei.log_base ADD COLUMN IF NOT EXISTS cluster int8 NOT NULL DEFAULT 0;
UPDATE hodei.log_base SET cluster = (SELECT system_identifier FROM pg_control_system()) WHERE cluster = 0;
