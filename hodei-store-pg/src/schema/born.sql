-- When a job was created stands where it is, for lists of jobs by their states: not of those that are leased or that succeeded,
-- which it would cost their WAL. It is absent where a job is ready since its birth, as it is then `eligible_at`.
ALTER TABLE hodei.ready ADD COLUMN created_at int8;
ALTER TABLE hodei.delayed ADD COLUMN created_at int8;
ALTER TABLE hodei.blocked ADD COLUMN created_at int8;
ALTER TABLE hodei.done ADD COLUMN created_at int8;
