-- The latest time that a heartbeat saw, to within a second: by it the next one sees that the clock was set back.
CREATE SEQUENCE hodei.clock_seen MINVALUE 0 START 0 CACHE 1;
