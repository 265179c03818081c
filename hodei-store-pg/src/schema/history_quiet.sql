-- No vacuum works on these tables from here on: one that does gives way after a second, which nobody would wait for who has
-- everybody else behind him. Nobody else notices.
SET LOCAL lock_timeout = '5s';
LOCK TABLE hodei.job, hodei.done, hodei.change, hodei.total, hodei.delta, hodei.edge, hodei.unique_key,
    hodei.ready, hodei.delayed, hodei.blocked IN SHARE UPDATE EXCLUSIVE MODE;
