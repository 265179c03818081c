-- All that others may wait for, at once and before anything is done.
LOCK TABLE hodei.job, hodei.done, hodei.change, hodei.total, hodei.delta, hodei.edge, hodei.unique_key, hodei.usage,
    hodei.leased, hodei.inbox, hodei.ready, hodei.delayed, hodei.blocked IN ACCESS EXCLUSIVE MODE;
