-- How long a life or a term was to last when it was last prolonged, in microseconds: so it shows when that was, also where the
-- clock was set back since. Absent where that was before there was this column.
ALTER TABLE hodei.owner ADD COLUMN IF NOT EXISTS lasts int8;
-- What a node reads of what others store: 1 lean bodies too. Absent for nodes of before.
ALTER TABLE hodei.owner ADD COLUMN IF NOT EXISTS reads int2;
ALTER TABLE hodei.term ADD COLUMN IF NOT EXISTS lasts int8;
