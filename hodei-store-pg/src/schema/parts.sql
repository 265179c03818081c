-- Making the parts of the history ahead of time, and dropping them whole. Whoever calls these functions leads, bounds how
-- long they may take, and calls them again: each does one thing, for all of which nobody waits longer than a moment.

-- Notes a job that moved while its era was looked through.
CREATE OR REPLACE FUNCTION hodei.outlives() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hodei.outliving (id) VALUES (CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

-- Makes a part of a table, and moves to it what lies in the rest.
CREATE OR REPLACE FUNCTION hodei.add_part(p_table text, p_no int4, p_column text, p_lo text, p_hi text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_part text := p_table || '_' || p_no;
    v_rest text := p_table || '_rest';
BEGIN
    EXECUTE format('CREATE TABLE hodei.%I (LIKE hodei.%I INCLUDING DEFAULTS INCLUDING STORAGE)', v_part, v_rest);
    IF p_table <> 'job' THEN
        EXECUTE format('ALTER TABLE hodei.%I SET (autovacuum_vacuum_insert_scale_factor = 0.2)', v_part);
    ELSE
        -- All indexes of a part that the planner holds for empty are as cheap for it, and it takes the one that was made last:
        -- that is to be the one by id, which is made when the part is attached. Whoever builds the index of lists of all parts,
        -- as after a migration, finds that of this one by its name.
        EXECUTE format('CREATE INDEX %I ON hodei.%I (tenant, created_at, id)', v_part || '_listed', v_part);
        EXECUTE format('CREATE INDEX ON hodei.%I (pipeline, created_at, id) WHERE pipeline IS NOT NULL', v_part);
    END IF;
    EXECUTE format('WITH m AS (DELETE FROM hodei.%I WHERE %I >= %L AND %I < %L RETURNING *)
        INSERT INTO hodei.%I SELECT * FROM m', v_rest, p_column, p_lo, p_column, p_hi, v_part);
    EXECUTE format('ALTER TABLE hodei.%I ATTACH PARTITION hodei.%I FOR VALUES FROM (%L) TO (%L)', p_table, v_part, p_lo,
        p_hi);
END
$$;

-- Makes the next era, where the last ends too soon, and says whether it did; nothing where its bound is to be proved before.
CREATE OR REPLACE FUNCTION hodei.add_era(p_width int8) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_next record;
    v_no int4;
BEGIN
    v_next := hodei.next_part('era', (SELECT max(ends_at) FROM hodei.era), p_width, 60000000);
    IF v_next.due THEN
        INSERT INTO hodei.era (lo, hi, ends_at) VALUES (hodei.id_at(v_next.lo), hodei.id_at(v_next.hi), v_next.hi)
            RETURNING no INTO v_no;
        PERFORM hodei.add_part(t, v_no, 'id', hodei.id_at(v_next.lo)::text, hodei.id_at(v_next.hi)::text)
            FROM unnest(hodei.tables_of('era')) t;
        PERFORM hodei.lift(kind) FROM hodei.bound WHERE kind = 'era';
    END IF;
    RETURN v_next.due;
END
$$;

-- Makes the next volume of the log, where the last is soon full, and drops one of which nothing is kept; says whether it did,
-- and nothing where the bound is to be proved before. A volume is for about 64 MB, as the one in use fills.
CREATE OR REPLACE FUNCTION hodei.turn_volumes() RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_top int8 := hodei.stands_at('volume');
    v_width int8;
    v_next record;
    v_no int4;
BEGIN
    SELECT no INTO v_no FROM hodei.volume WHERE hi <= (SELECT pos FROM hodei.change_floor) ORDER BY hi LIMIT 1;
    IF FOUND THEN
        LOCK TABLE ONLY hodei.change IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('DROP TABLE hodei.%I', 'change_' || v_no);
        DELETE FROM hodei.volume WHERE no = v_no;
        RETURN true;
    END IF;
    SELECT (v_top - lo) * 67108864 / greatest(pg_total_relation_size(('hodei.change_' || no)::regclass), 8192) INTO v_width
        FROM hodei.volume WHERE lo <= v_top - 1000 AND hi > v_top;
    v_next := hodei.next_part('volume', (SELECT max(hi) FROM hodei.volume),
        least(greatest(coalesce(v_width, 262144), 65536), 1048576), 10000);
    IF v_next.due THEN
        INSERT INTO hodei.volume (lo, hi) VALUES (v_next.lo, v_next.hi) RETURNING no INTO v_no;
        PERFORM hodei.add_part('change', v_no, 'pos', v_next.lo::text, v_next.hi::text);
        PERFORM hodei.lift(kind) FROM hodei.bound WHERE kind = 'volume';
    END IF;
    RETURN v_next.due;
END
$$;

-- Removes what is before a place in the log from the first volume, where that ends far ahead: it would lie there for long.
CREATE OR REPLACE FUNCTION hodei.thin_out(p_pos int8) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off AS $$
DECLARE
    v_no int4 := (SELECT no FROM hodei.volume WHERE lo IS NULL AND hi - p_pos > 1048576);
BEGIN
    IF v_no IS NOT NULL THEN
        EXECUTE format('DELETE FROM hodei.%I WHERE pos < $1', 'change_' || v_no) USING p_pos;
    END IF;
END
$$;

-- Looks on for what outlives an era.
CREATE OR REPLACE FUNCTION hodei.look_through(p_era hodei.era, p_now int8, p_width int8) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off AS $$
DECLARE
    v_lo uuid := coalesce(p_era.lo, hodei.id_at(0));
    v_n int8;
    v_last uuid;
BEGIN
    EXECUTE format('WITH j AS MATERIALIZED (SELECT id FROM hodei.%I WHERE id > $1 ORDER BY id LIMIT 10000), k AS (
            INSERT INTO hodei.outliving (id) SELECT j.id FROM j LEFT JOIN hodei.%I d ON d.id = j.id
            WHERE d.id IS NULL OR d.moved_at > CASE d.state WHEN 5 THEN $3 ELSE $2 END ON CONFLICT DO NOTHING)
        SELECT count(*), (SELECT id FROM j ORDER BY id DESC LIMIT 1) FROM j', 'job_' || p_era.no, 'done_' || p_era.no)
        INTO v_n, v_last USING p_era.seen, p_era.jobs_until, p_era.failed_until;
    IF (SELECT count(*) FROM hodei.outliving) > 2000 OR (SELECT count(*) FROM (
            (SELECT 1 FROM hodei.edge WHERE parent >= v_lo AND parent < p_era.hi LIMIT 5001)
            UNION ALL (SELECT 1 FROM hodei.edge WHERE child >= v_lo AND child < p_era.hi LIMIT 5001)) e) > 5000 THEN
        PERFORM hodei.put_off(p_era.no, p_now + p_width);
    ELSIF v_n < 10000 THEN
        UPDATE hodei.era SET stage = 2 WHERE no = p_era.no;
    ELSE
        UPDATE hodei.era SET seen = v_last WHERE no = p_era.no;
    END IF;
END
$$;

-- Notes nothing any more of what moves in an era.
CREATE OR REPLACE FUNCTION hodei.leave_alone(p_no int4) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    EXECUTE format('DROP TRIGGER outlives ON hodei.%I', 'job_' || p_no);
    EXECUTE format('DROP TRIGGER outlives ON hodei.%I', 'done_' || p_no);
    DELETE FROM hodei.outliving;
END
$$;

-- Has the rows of an era removed one by one, until it is looked at again.
CREATE OR REPLACE FUNCTION hodei.put_off(p_no int4, p_until int8) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM hodei.leave_alone(p_no);
    UPDATE hodei.era SET stage = 0, whole = false, again_at = p_until, tries = 0 WHERE no = p_no;
END
$$;

-- How many bytes are to be copied when an era is taken out of the history: of what outlives it, and of those for whom somebody
-- waits.
CREATE OR REPLACE FUNCTION hodei.weight_of_rest(p_era hodei.era) RETURNS int8
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_bytes int8;
BEGIN
    SELECT sum(pg_column_size(j.body) + coalesce(pg_column_size(d.settled), 0)) INTO v_bytes FROM (
        SELECT o.id FROM hodei.outliving o
        UNION
        SELECT e.parent FROM hodei.edge e
        WHERE e.parent >= coalesce(p_era.lo, hodei.id_at(0)) AND e.parent < p_era.hi
            AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child OFFSET 0)
    ) x CROSS JOIN LATERAL (SELECT j.body FROM hodei.job j WHERE j.id = x.id OFFSET 0) j
    LEFT JOIN LATERAL (SELECT d.settled FROM hodei.done d WHERE d.id = x.id OFFSET 0) d ON true;
    RETURN coalesce(v_bytes, 0);
END
$$;

-- Takes an era out of the history, with all that is in it but what outlives it, which becomes rest.
CREATE OR REPLACE FUNCTION hodei.take_out(p_era hodei.era) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_job text := 'job_' || p_era.no;
    v_done text := 'done_' || p_era.no;
    v_stay uuid[];
BEGIN
    LOCK TABLE ONLY hodei.job, ONLY hodei.done IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('LOCK TABLE hodei.%I, hodei.%I IN ACCESS EXCLUSIVE MODE', v_job, v_done);
    v_stay := ARRAY(
        SELECT o.id FROM hodei.outliving o JOIN hodei.job j ON j.id = o.id LEFT JOIN hodei.done d ON d.id = o.id
        WHERE d.id IS NULL
            OR d.moved_at > CASE d.state WHEN 5 THEN p_era.failed_until ELSE p_era.jobs_until END
        UNION
        -- For whom somebody waits.
        SELECT e.parent FROM hodei.edge e
        WHERE e.parent >= coalesce(p_era.lo, hodei.id_at(0)) AND e.parent < p_era.hi
            AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child)
        UNION
        -- Whose turn has not come.
        SELECT e.child FROM hodei.edge e
        WHERE e.child >= coalesce(p_era.lo, hodei.id_at(0)) AND e.child < p_era.hi AND e.turn AND NOT e.told);
    PERFORM hodei.leave_alone(p_era.no);
    EXECUTE format('ALTER TABLE hodei.job DETACH PARTITION hodei.%I', v_job);
    EXECUTE format('ALTER TABLE hodei.done DETACH PARTITION hodei.%I', v_done);
    EXECUTE format('INSERT INTO hodei.job SELECT * FROM hodei.%I WHERE id = ANY ($1)', v_job) USING v_stay;
    EXECUTE format('WITH m AS (DELETE FROM hodei.%I WHERE id = ANY ($1) RETURNING *)
        INSERT INTO hodei.done SELECT * FROM m', v_done) USING v_stay;
    UPDATE hodei.era SET stage = 3, seen = hodei.id_at(0) WHERE no = p_era.no;
END
$$;

-- Tells the planner of parts that were empty when somebody had it look at them, and no longer are. Whoever planned until then
-- holds them for empty, and would read them whole, or by the wrong index, for each job that is looked up. A few rows are
-- looked at: it is only about there being any.
CREATE OR REPLACE FUNCTION hodei.look_at_parts() RETURNS void
LANGUAGE plpgsql VOLATILE SET default_statistics_target = 1 AS $$
DECLARE
    v_part name;
BEGIN
    FOR v_part IN SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
        WHERE h.inhparent IN ('hodei.job'::regclass, 'hodei.done'::regclass, 'hodei.change'::regclass)
            AND c.relpages = 0 AND c.reltuples = 0 AND pg_has_role(c.relowner, 'USAGE') AND pg_relation_size(c.oid) > 0 LOOP
        -- What somebody else looks at is told by him.
        EXECUTE format('ANALYZE (SKIP_LOCKED) hodei.%I', v_part);
    END LOOP;
END
$$;

-- Looks on for what outlives an era, or takes it out of the history.
CREATE OR REPLACE FUNCTION hodei.go_on(p_era hodei.era, p_now int8, p_width int8) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_era.stage = 1 THEN
        PERFORM hodei.look_through(p_era, p_now, p_width);
    ELSIF hodei.weight_of_rest(p_era) > 16777216 THEN
        -- Nobody is to wait until so much is copied.
        PERFORM hodei.put_off(p_era.no, p_now + p_width);
    ELSE
        PERFORM hodei.take_out(p_era);
    END IF;
    UPDATE hodei.era SET tries = 0 WHERE no = p_era.no AND tries > 0;
END
$$;

-- Takes an era that is over a step further out of the history, and says whether it did. What ended until p_jobs is kept
-- no longer, and what failed until p_failed; an era that too much outlives, or that takes too long at every try, is looked
-- at again after p_width: others are behind it.
CREATE OR REPLACE FUNCTION hodei.tend(p_now int8, p_jobs int8, p_failed int8, p_width int8) RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_era hodei.era;
    -- How often a step is tried that takes longer than a statement may.
    v_tries CONSTANT int2 := 10;
BEGIN
    PERFORM hodei.look_at_parts();
    -- Where there is little, rows are removed to the minute; an era that grows beyond 16 MB goes as a whole.
    UPDATE hodei.era SET whole = true WHERE stage = 0 AND NOT whole AND again_at IS NULL
        AND pg_relation_size(('hodei.done_' || no)::regclass) > 16777216;
    SELECT * INTO v_era FROM hodei.era WHERE stage > 0 ORDER BY stage DESC LIMIT 1;
    IF NOT FOUND THEN
        SELECT * INTO v_era FROM hodei.era WHERE ends_at <= p_jobs AND coalesce(again_at, 0) <= p_now ORDER BY no LIMIT 1;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE TRIGGER outlives AFTER INSERT OR DELETE ON hodei.%I FOR EACH ROW
            EXECUTE FUNCTION hodei.outlives()', 'job_' || v_era.no);
        EXECUTE format('CREATE TRIGGER outlives AFTER INSERT OR DELETE ON hodei.%I FOR EACH ROW
            EXECUTE FUNCTION hodei.outlives()', 'done_' || v_era.no);
        UPDATE hodei.era SET stage = 1, seen = hodei.id_at(0), jobs_until = p_jobs, failed_until = p_failed
            WHERE no = v_era.no;
    ELSIF v_era.stage < 3 AND v_era.tries >= v_tries THEN
        PERFORM hodei.put_off(v_era.no, p_now + p_width);
    ELSIF v_era.stage < 3 THEN
        BEGIN
            PERFORM hodei.go_on(v_era, p_now, p_width);
        EXCEPTION WHEN query_canceled THEN
            -- The time of the statement was up: what was done is undone, its locks are given back, and it is counted.
            UPDATE hodei.era SET tries = tries + 1 WHERE no = v_era.no;
            RETURN false;
        END;
    ELSIF v_era.stage = 3 THEN
        -- Its jobs are taken leave of first.
        RETURN false;
    ELSE
        EXECUTE format('DROP TABLE hodei.%I, hodei.%I', 'job_' || v_era.no, 'done_' || v_era.no);
        DELETE FROM hodei.era WHERE no = v_era.no;
    END IF;
    RETURN true;
END
$$;

-- Has sequences no last job that is gone. A row that is held is about to name somebody else.
CREATE OR REPLACE FUNCTION hodei.leave_sequences(p_id uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM hodei.sequence WHERE (tenant, key) IN (
        SELECT s.tenant, s.key FROM hodei.sequence s WHERE s.last = ANY (p_id)
            AND NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = s.last) FOR UPDATE OF s SKIP LOCKED
    );
END
$$;

-- Removes what leads to jobs, and counts them no more. What leads to an id that was submitted again since stays: each
-- statement sees a submission whole or not at all.
CREATE OR REPLACE FUNCTION hodei.take_leave(p_id uuid[], p_tenant int4[], p_state int2[], p_lane int4[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM hodei.edge e WHERE e.parent = ANY (p_id) AND NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = e.parent);
    DELETE FROM hodei.edge e WHERE e.child = ANY (p_id) AND NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = e.child);
    DELETE FROM hodei.unique_key k WHERE k.id = ANY (p_id) AND NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = k.id);
    PERFORM hodei.leave_sequences(p_id);
    DELETE FROM hodei.checkpoint c WHERE c.id = ANY (p_id) AND NOT EXISTS (SELECT 1 FROM hodei.job j WHERE j.id = c.id);
    INSERT INTO hodei.delta (tenant, lane, succeeded, failed, cancelled)
    SELECT u.tenant, u.lane, -count(*) FILTER (WHERE u.state = 4), -count(*) FILTER (WHERE u.state = 5),
        -count(*) FILTER (WHERE u.state = 6)
    FROM unnest(p_tenant, p_state, p_lane) u (tenant, state, lane) GROUP BY u.tenant, u.lane;
END
$$;

-- Takes leave of the next jobs of an era that is out of the history.
CREATE OR REPLACE FUNCTION hodei.sweep(p_n int8, OUT id uuid, OUT tenant text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_era hodei.era;
    v_id uuid[];
    v_tenant int4[];
    v_state int2[];
    v_lane int4[];
BEGIN
    SELECT * INTO v_era FROM hodei.era WHERE stage = 3 ORDER BY no LIMIT 1 FOR UPDATE;
    IF NOT FOUND OR p_n <= 0 THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT array_agg(d.id ORDER BY d.id), array_agg(d.tenant ORDER BY d.id),
            array_agg(d.state ORDER BY d.id), array_agg(j.lane ORDER BY d.id)
        FROM (SELECT id, tenant, state FROM hodei.%I WHERE id > $1 ORDER BY id LIMIT $2) d LEFT JOIN hodei.%I j ON j.id = d.id',
        'done_' || v_era.no, 'job_' || v_era.no)
        INTO v_id, v_tenant, v_state, v_lane USING v_era.seen, p_n;
    IF v_id IS NULL THEN
        UPDATE hodei.era SET stage = 4 WHERE no = v_era.no;
        RETURN;
    END IF;
    UPDATE hodei.era SET seen = v_id[cardinality(v_id)], stage = CASE WHEN cardinality(v_id) < p_n THEN 4 ELSE 3 END
        WHERE no = v_era.no;
    PERFORM hodei.take_leave(v_id, v_tenant, v_state, v_lane);
    RETURN QUERY SELECT u.id, t.name FROM unnest(v_id, v_tenant) u (id, tenant) JOIN hodei.tenant t ON t.no = u.tenant;
END
$$;
