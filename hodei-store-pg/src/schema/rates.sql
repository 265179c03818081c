-- The rates of limits, beside what the limits let through: so many tokens come in each `per` nanoseconds, and one in each `gap`;
-- the bucket is full again at `full_at`, in nanoseconds since 1970, as whoever claimed last saw it at `spent_at`, in microseconds. All
-- are absent where a limit has no rate.
ALTER TABLE hodei.usage ADD COLUMN tokens int8, ADD COLUMN per int8, ADD COLUMN burst int8, ADD COLUMN gap int8,
    ADD COLUMN full_at int8, ADD COLUMN spent_at int8;
ALTER TABLE hodei.wide ADD COLUMN tokens int8, ADD COLUMN per int8, ADD COLUMN burst int8, ADD COLUMN gap int8,
    ADD COLUMN full_at int8, ADD COLUMN spent_at int8;

-- How many tokens each job of a lane takes, where that is not one.
CREATE TABLE hodei.price (
    lane int4 PRIMARY KEY,
    tokens int8 NOT NULL
);

ALTER TABLE hodei.price ENABLE ROW LEVEL SECURITY;
ALTER TABLE hodei.price FORCE ROW LEVEL SECURITY;
CREATE POLICY wall ON hodei.price USING ((SELECT hodei.scope(current_user)) IS NULL
    OR lane IN (SELECT no FROM hodei.lane));
