-- The places of changes in the log.

-- The number of the server's timeline.
CREATE OR REPLACE FUNCTION hodei.timeline() RETURNS int8 LANGUAGE sql VOLATILE AS $$
    SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8
$$;

-- Begins another course of history, unless somebody has: a standby has taken over, perhaps without the last that was
-- committed, or a dump was restored in another cluster, which may be on a timeline of the same number. Positions of changes
-- and numbers of lives that were given out then are not given out again: those to come are further on than any could have
-- come. Whoever asks for one meanwhile waits for this transaction. It returns the base of positions.
CREATE OR REPLACE FUNCTION hodei.move_in() RETURNS int8 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_timeline CONSTANT int8 := hodei.timeline();
    v_cluster CONSTANT int8 := (SELECT system_identifier FROM pg_control_system());
BEGIN
    UPDATE hodei.log_base SET base = base + 4294967296, timeline = v_timeline, cluster = v_cluster
        WHERE (timeline, cluster) <> (v_timeline, v_cluster);
    IF FOUND THEN
        PERFORM nextval('hodei.incarnation') FROM generate_series(1, 10000);
    END IF;
    RETURN (SELECT base FROM hodei.log_base);
END
$$;

-- Moves the positions to come behind all that are there, and behind all that were given out in the cluster that a dump is
-- from. It does nothing but after a restore: what is committed stands below the next transaction else.
CREATE OR REPLACE FUNCTION hodei.rebase() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_last int8;
    v_top int8;
BEGIN
    IF EXISTS (SELECT 1 FROM hodei.log_base
        WHERE (timeline, cluster) <> (hodei.timeline(), (SELECT system_identifier FROM pg_control_system())))
    THEN
        PERFORM hodei.move_in();
    END IF;
    FOR n IN 1..2 LOOP
        SELECT greatest((SELECT max(pos) FROM hodei.change), (SELECT max(pos) FROM hodei.change_floor)) INTO v_last;
        SELECT base + pg_snapshot_xmax(pg_current_snapshot())::text::int8 INTO v_top FROM hodei.log_base;
        IF v_last < v_top THEN
            RETURN;
        END IF;
        IF n = 1 THEN
            LOCK TABLE hodei.log_base, hodei.change IN SHARE ROW EXCLUSIVE MODE;
        END IF;
    END LOOP;
    UPDATE hodei.log_base SET base = v_last + 1;
END
$$;

-- Where the changes of this transaction stand in the log, asked for after it holds the rows that it moves. Not before
-- any transaction that moved them, and not before its own: so the changes of a job are in the order of its versions, and
-- whatever stands before the oldest transaction under way is complete. It has to see what is finished now.
CREATE OR REPLACE FUNCTION hodei.pos() RETURNS int8 LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction is not of read committed' USING ERRCODE = 'HD003';
    END IF;
    RETURN greatest(pg_current_xact_id()::text::int8, pg_snapshot_xmax(pg_current_snapshot())::text::int8 - 1)
        + coalesce((SELECT base FROM hodei.log_base WHERE timeline = hodei.timeline()), hodei.move_in());
END
$$;

-- Up to where the log is complete: the oldest transaction under way that may have a place in it already. Whoever asks for
-- one has locked tables of this schema before, and gets one behind all that had begun then: so a transaction that has locked
-- none yet holds nobody up, nor do those that are known to be in another database, those of the vacuum, and those of the
-- connections that nodes keep for their heartbeats, or on which a rest is looked through. Nor does one that has only asked
-- for work, in the inbox: that is no change yet, and whoever may do no more in this schema is not to hold up everybody's log.
-- The locks are looked at once: what is gone by then counts. Who has locked none yet may still get the last place below, and
-- stands behind all that is there: numbers are drawn in order, and under a lock. So a reader may see less than there is, and
-- passes over nothing.
CREATE OR REPLACE FUNCTION hodei.horizon() RETURNS int8 LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_top int8 := pg_snapshot_xmax(v_snapshot)::text::int8;
    v_first int8 := pg_snapshot_xmin(v_snapshot)::text::int8;
    v_base int8 := (SELECT base FROM hodei.log_base);
BEGIN
    IF v_first = v_top THEN
        RETURN v_base + v_top;
    END IF;
    RETURN (
        WITH l AS MATERIALIZED (
            SELECT pid, locktype, mode, transactionid, relation FROM pg_locks WHERE granted
        ), w AS MATERIALIZED (
            SELECT DISTINCT l.pid FROM l JOIN pg_class c ON c.oid = l.relation
            WHERE l.locktype = 'relation' AND l.mode <> 'AccessShareLock' AND c.relnamespace = 'hodei'::regnamespace
                AND c.relname NOT LIKE 'inbox%'
        )
        SELECT v_base + coalesce(min(x::text::int8), v_top) FROM pg_snapshot_xip(v_snapshot) x
        WHERE NOT EXISTS (
            SELECT 1 FROM l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.transactionid = x::xid
                AND (a.datid <> (SELECT oid FROM pg_database WHERE datname = current_database())
                    OR a.application_name = 'hodei reserved' OR a.backend_type = 'autovacuum worker'
                    OR NOT EXISTS (SELECT 1 FROM w WHERE w.pid = l.pid))
        )
    );
END
$$;

-- What brought a job to the end of its run.
CREATE OR REPLACE FUNCTION hodei.cause_of(state int2) RETURNS int2 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (CASE state WHEN 4 THEN 6 WHEN 5 THEN 7 ELSE 14 END)::int2
$$;

-- The bytes of a change.
CREATE OR REPLACE FUNCTION hodei.change_bytes(
    id uuid, version int4, attempt int4, epoch int8, kind int4, pipeline uuid
) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT int4send(version) || int4send(attempt) || int8send(epoch)
        || CASE WHEN pipeline IS NULL THEN int4send(kind) ELSE int4send(kind + 1) || uuid_send(pipeline) END
        || uuid_send(id)
$$;

-- The bytes of changes that are alike but for their jobs, whose ids are given one after the other.
CREATE OR REPLACE FUNCTION hodei.alike_bytes(
    version int4, attempt int4, epoch int8, kind int4, n int4, ids bytea
) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT int4send(version) || int4send(attempt) || int8send(epoch) || int4send(kind + 2) || int4send(n) || ids
$$;
