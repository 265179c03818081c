-- The course of history that the server is on: the cluster, and the number of its timeline, which is another one after a
-- standby has taken over and after a backup was restored. Nobody is at home on a server that only repeats what another does.
CASE WHEN NOT pg_is_in_recovery() THEN hashint8extended(
    (SELECT system_identifier FROM pg_control_system()),
    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8
) END
