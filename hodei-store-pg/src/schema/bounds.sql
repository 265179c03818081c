-- Bounds: how the next part of the history is made where the rest is large. Attaching one has the server read the rest whole
-- while everybody waits, unless it knows that nothing there belongs in the part: so that is proved before.

-- The tables that have parts of a kind.
CREATE OR REPLACE FUNCTION hodei.tables_of(p_kind text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_kind WHEN 'era' THEN ARRAY['job', 'done'] ELSE ARRAY['change'] END
$$;

-- What is known of the rest of a table when its bound is proved.
CREATE OR REPLACE FUNCTION hodei.beyond(p_kind text, p_lo int8, p_hi int8) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_kind WHEN 'era' THEN format('id < %L OR id >= %L', hodei.id_at(p_lo), hodei.id_at(p_hi))
        ELSE format('pos < %s OR pos >= %s', p_lo, p_hi) END
$$;

-- Drops the bound of a kind. The rest takes everything again.
CREATE OR REPLACE FUNCTION hodei.lift(p_kind text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY hodei.tables_of(p_kind) LOOP
        EXECUTE format('ALTER TABLE hodei.%I DROP CONSTRAINT IF EXISTS era', t || '_rest');
    END LOOP;
    DELETE FROM hodei.bound WHERE kind = p_kind;
END
$$;

-- Has nobody look for a bound of a kind for an hour.
CREATE OR REPLACE FUNCTION hodei.put_bound_off(p_kind text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM hodei.lift(p_kind);
    INSERT INTO hodei.bound (kind, again_at) VALUES (p_kind, hodei.now() + 3600000000);
END
$$;

-- Where time and the log stand, as bounds of a kind are counted.
CREATE OR REPLACE FUNCTION hodei.stands_at(p_kind text) RETURNS int8 LANGUAGE sql VOLATILE AS $$
    SELECT CASE p_kind WHEN 'era' THEN hodei.now()
        ELSE (SELECT base FROM hodei.log_base) + pg_snapshot_xmax(pg_current_snapshot())::text::int8 END
$$;

-- How far ahead a bound begins, which is held by whatever is stored from then on: six hours, or ten million transactions.
CREATE OR REPLACE FUNCTION hodei.lead_of(p_kind text) RETURNS int8 LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_kind WHEN 'era' THEN 21600000000 ELSE 10000000 END
$$;

-- Lifts the bounds that are soon reached: whoever had set one was to prove it in moments, and is gone. It is for everybody
-- who stores something, since he is refused then, and for nobody else: whoever called it could hold its locks. One bound is
-- lifted at a time, so that nobody waits for the locks of two.
CREATE OR REPLACE FUNCTION hodei.make_way() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = hodei, pg_temp SET lock_timeout = '100ms' AS $$
BEGIN
    IF has_table_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user), 'hodei.job', 'INSERT') THEN
        PERFORM hodei.lift(kind) FROM hodei.bound WHERE lo < hodei.stands_at(kind) + hodei.lead_of(kind) / 4 LIMIT 1;
    END IF;
END
$$;

-- The time of an id.
CREATE OR REPLACE FUNCTION hodei.time_of(p_id uuid) RETURNS int8 LANGUAGE sql IMMUTABLE AS $$
    SELECT ('x' || replace(left(p_id::text, 13), '-', ''))::bit(48)::int8 * 1000
$$;

-- The next bound of a kind, from a place on; shorter or some way behind it where ids from the future lie in the rest. Where
-- they are everywhere it is not set, and looked for again an hour later.
CREATE OR REPLACE FUNCTION hodei.set_bound(p_kind text, p_lo int8, p_width int8) RETURNS void
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off AS $$
DECLARE
    t text;
    v_lo int8 := p_lo;
    v_hi int8;
    v_id uuid;
BEGIN
    -- One of before, also where it is known of no more: a leader of before may have set it just now. This locks the rest as
    -- well, and fails before where the role may not change it: nobody waits for that again and again.
    PERFORM hodei.lift(p_kind);
    LOOP
        EXIT WHEN p_kind <> 'era' OR v_lo > p_lo + p_width;
        SELECT id INTO v_id FROM hodei.job_rest WHERE id >= hodei.id_at(v_lo) AND id < hodei.id_at(v_lo + p_width / 8)
            ORDER BY id DESC LIMIT 1;
        EXIT WHEN NOT FOUND;
        v_lo := hodei.time_of(v_id) + 1000;
    END LOOP;
    IF v_lo > p_lo + p_width THEN
        PERFORM hodei.put_bound_off(p_kind);
        RETURN;
    END IF;
    v_hi := v_lo + p_width;
    IF p_kind = 'era' THEN
        v_hi := least(v_hi, (SELECT hodei.time_of(id) FROM hodei.job_rest WHERE id >= hodei.id_at(v_lo) ORDER BY id LIMIT 1));
    END IF;
    FOREACH t IN ARRAY hodei.tables_of(p_kind) LOOP
        EXECUTE format('ALTER TABLE hodei.%I ADD CONSTRAINT era CHECK (%s) NOT VALID', t || '_rest',
            hodei.beyond(p_kind, v_lo, v_hi));
    END LOOP;
    INSERT INTO hodei.bound (kind, lo, hi) VALUES (p_kind, v_lo, v_hi);
END
$$;

-- Proves the bounds, for which nobody waits, and says whether it did. One that takes longer than a statement may is put off,
-- as is one that somebody has lifted meanwhile.
CREATE OR REPLACE FUNCTION hodei.prove() RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    t text;
    v_kind text;
    v_proved bool := false;
BEGIN
    FOR v_kind IN SELECT kind FROM hodei.bound WHERE lo IS NOT NULL AND NOT proved LOOP
        BEGIN
            FOREACH t IN ARRAY hodei.tables_of(v_kind) LOOP
                EXECUTE format('ALTER TABLE hodei.%I VALIDATE CONSTRAINT era', t || '_rest');
            END LOOP;
            UPDATE hodei.bound SET proved = true WHERE kind = v_kind;
            v_proved := true;
        EXCEPTION WHEN query_canceled OR check_violation OR undefined_object THEN
            PERFORM set_config('lock_timeout', '100ms', true);
            PERFORM hodei.put_bound_off(v_kind);
        END;
    END LOOP;
    RETURN v_proved;
END
$$;

-- Whether the next part of a kind is to be made, the last of which ends at a place, and where it begins and ends then; absent
-- where its bound is to be proved before. It begins a margin ahead at least: what comes until then lies in the rest. Where
-- that is too large to be looked through in a moment, more than 32 MB, it begins far ahead, behind a bound.
CREATE OR REPLACE FUNCTION hodei.next_part(
    p_kind text, p_last int8, p_width int8, p_margin int8, OUT lo int8, OUT hi int8, OUT due bool
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_here int8 := hodei.stands_at(p_kind);
    v_lead int8 := hodei.lead_of(p_kind);
    v_large bool := (SELECT sum(pg_relation_size(('hodei.' || t || '_rest')::regclass)) > 33554432
        FROM unnest(hodei.tables_of(p_kind)) t);
    v_bound hodei.bound;
BEGIN
    due := false;
    SELECT * INTO v_bound FROM hodei.bound b WHERE b.kind = p_kind;
    IF p_last >= v_here + p_width + (CASE WHEN v_large THEN v_lead ELSE 0 END) THEN
        -- The rest has become small, or eras shorter: the bound would be in the way of ids from the future for long.
        IF v_bound.lo IS NOT NULL AND p_kind = 'era' THEN
            PERFORM hodei.lift(p_kind);
        END IF;
        RETURN;
    END IF;
    IF v_bound.proved AND v_bound.lo >= v_here + p_margin THEN
        SELECT v_bound.lo, v_bound.hi, true INTO lo, hi, due;
    ELSIF NOT v_large THEN
        lo := greatest(p_last, v_here + p_margin);
        SELECT lo + p_width, true INTO hi, due;
    ELSIF v_bound.again_at IS NULL OR v_bound.again_at <= hodei.now() THEN
        IF v_bound.lo IS NULL OR v_bound.lo < v_here + v_lead / 4 THEN
            PERFORM hodei.set_bound(p_kind, greatest(p_last, v_here + v_lead), p_width);
        END IF;
        due := NULL;
    END IF;
END
$$;
