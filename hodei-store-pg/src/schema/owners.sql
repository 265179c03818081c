-- Lives and terms.

-- Whether an owner is known on this course of history. Who registered on another one, with a server whose last commits may be
-- gone, holds nothing here, whatever it was told there: an epoch of then may have been given out again. A life that is
-- over may still report what it holds. Every exchange asks: in SQL alone it would be planned anew each time.
CREATE OR REPLACE FUNCTION hodei.is_at_home(p_name text, p_incarnation int8) RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM hodei.owner WHERE name = p_name AND incarnation = p_incarnation
        AND (home IS NULL OR home = hodei.home()));
END
$$;

-- Begins a life of an owner, who reads what p_reads says, and ends those before.
CREATE OR REPLACE FUNCTION hodei.register(p_name text, p_ttl int8, p_reads int2) RETURNS int8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8;
    v_incarnation int8;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('hodei.owner ' || p_name, 0));
    v_now := hodei.now();
    PERFORM hodei.move_in();
    v_incarnation := nextval('hodei.incarnation');
    UPDATE hodei.owner SET expires_at = v_now WHERE name = p_name AND expires_at > v_now;
    INSERT INTO hodei.owner (name, incarnation, expires_at, lasts, reads, home)
        VALUES (p_name, v_incarnation, v_now + p_ttl, p_ttl, p_reads, hodei.home())
        ON CONFLICT (name, incarnation) DO UPDATE SET expires_at = excluded.expires_at, lasts = excluded.lasts,
            reads = excluded.reads, home = excluded.home;
    RETURN v_incarnation;
END
$$;

-- As nodes of before call it, while they run beside those of now.
CREATE OR REPLACE FUNCTION hodei.register(p_name text, p_ttl int8) RETURNS int8 LANGUAGE sql VOLATILE AS $$
    SELECT hodei.register(p_name, p_ttl, NULL)
$$;

-- Brings back what whoever saw a later clock wrote, but for the rates of keys (hodei.bring_back_rates). Whoever died
-- before that clock was set back would be held for alive, and who led for leading, until it is again where it was, and
-- rates would be closed as long. A life or a term lasts from now on as long as it was to. What somebody has locked is
-- found with the next heartbeat: nobody waits for it. Lives of another course of history end.
CREATE OR REPLACE FUNCTION hodei.bring_back(p_now int8) RETURNS void LANGUAGE plpgsql VOLATILE SET jit = off AS $$
BEGIN
    UPDATE hodei.owner o SET expires_at = p_now FROM (
        SELECT no FROM hodei.owner WHERE home <> hodei.home() AND expires_at > p_now FOR NO KEY UPDATE SKIP LOCKED
    ) x WHERE o.no = x.no;
    UPDATE hodei.owner o SET expires_at = p_now + o.lasts FROM (
        SELECT no FROM hodei.owner WHERE hodei.is_ahead(expires_at - lasts, p_now) FOR NO KEY UPDATE SKIP LOCKED
    ) x WHERE o.no = x.no;
    UPDATE hodei.term t SET expires_at = p_now + t.lasts FROM (
        SELECT duty FROM hodei.term WHERE hodei.is_ahead(expires_at - lasts, p_now) FOR NO KEY UPDATE SKIP LOCKED
    ) x WHERE t.duty = x.duty;
    PERFORM hodei.bring_back_wide(p_now);
END
$$;

-- Prolongs lives, and says of each whether it is one and which jobs it must stop.
CREATE OR REPLACE FUNCTION hodei.beat(
    p_name text[], p_incarnation int8[], p_ttl int8, OUT ord int8, OUT id uuid, OUT epoch int8
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_now int8;
    v_home CONSTANT int8 := hodei.home();
    v_alive int4[];
BEGIN
    PERFORM 1 FROM hodei.owner o JOIN unnest(p_name, p_incarnation) u (name, incarnation)
        ON o.name = u.name AND o.incarnation = u.incarnation ORDER BY o.no FOR NO KEY UPDATE OF o;
    v_now := hodei.now();
    WITH b AS (
        UPDATE hodei.owner o SET expires_at = v_now + p_ttl, lasts = p_ttl, home = v_home
        FROM unnest(p_name, p_incarnation) u (name, incarnation)
        WHERE o.name = u.name AND o.incarnation = u.incarnation AND o.expires_at > v_now
            AND coalesce(o.home, v_home) = v_home RETURNING o.no
    )
    SELECT array_agg(no) INTO v_alive FROM b;
    PERFORM hodei.bring_back(v_now);
    RETURN QUERY
    SELECT u.ord, l.id, l.epoch
    FROM unnest(p_name, p_incarnation) WITH ORDINALITY u (name, incarnation, ord)
    JOIN hodei.owner o ON o.name = u.name AND o.incarnation = u.incarnation
    LEFT JOIN hodei.leased l ON l.holder = o.no AND l.cancel
    WHERE o.no = ANY (v_alive) ORDER BY 1, 2;
END
$$;

-- Ends a life and what it and those before it lead, and tells those that rest that somebody may lead instead.
CREATE OR REPLACE FUNCTION hodei.retire(p_name text, p_incarnation int8) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8 := hodei.now();
    v_duty text;
BEGIN
    UPDATE hodei.owner SET expires_at = v_now
        WHERE name = p_name AND incarnation = p_incarnation AND expires_at > v_now;
    FOR v_duty IN UPDATE hodei.term SET expires_at = v_now
        WHERE owner = p_name AND incarnation <= p_incarnation AND expires_at > v_now RETURNING duty
    LOOP
        PERFORM pg_notify('hodei', 'left ' || v_duty);
    END LOOP;
END
$$;

-- Takes a duty that nobody leads, and returns the number of the term. Nobody is waited for: where a term lasts it is not
-- touched, and where somebody acts under one that has ended, holding its row, it is not over yet.
CREATE OR REPLACE FUNCTION hodei.take_term(p_duty text, p_owner text, p_incarnation int8, p_ttl int8) RETURNS int8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8 := hodei.now();
    v_ends int8;
    v_number int8;
BEGIN
    SELECT expires_at INTO v_ends FROM hodei.term WHERE duty = p_duty;
    IF NOT FOUND THEN
        INSERT INTO hodei.term (duty, number, owner, incarnation, expires_at, lasts)
            VALUES (p_duty, 1, p_owner, p_incarnation, v_now + p_ttl, p_ttl)
            ON CONFLICT DO NOTHING RETURNING number INTO v_number;
        RETURN v_number;
    ELSIF v_ends > v_now THEN
        RETURN NULL;
    END IF;
    PERFORM 1 FROM hodei.term WHERE duty = p_duty FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_now := hodei.now();
    UPDATE hodei.term SET number = number + 1, owner = p_owner, incarnation = p_incarnation,
        expires_at = v_now + p_ttl, lasts = p_ttl
        WHERE duty = p_duty AND expires_at <= v_now RETURNING number INTO v_number;
    RETURN v_number;
END
$$;

-- Prolongs a term. What its leader does under it meanwhile is not waited for.
CREATE OR REPLACE FUNCTION hodei.keep_term(
    p_duty text, p_number int8, p_owner text, p_incarnation int8, p_ttl int8
) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now int8;
BEGIN
    PERFORM 1 FROM hodei.term WHERE duty = p_duty FOR NO KEY UPDATE;
    v_now := hodei.now();
    UPDATE hodei.term SET expires_at = v_now + p_ttl, lasts = p_ttl WHERE duty = p_duty AND number = p_number
        AND owner = p_owner AND incarnation = p_incarnation AND expires_at > v_now;
    RETURN FOUND;
END
$$;

-- All that a node asks at each heartbeat: prolongs lives, keeps the term or takes the duty for the first of them, and says
-- whether whoever leads may have something to reap. Rows of `ord` 0 and -1 say that the term is kept, and the number of
-- one that was taken; a row of -2 that there may be something to reap; one of -3 that somebody leads, be it the caller; one of
-- -4 that there are schedules. Whoever leads tells all nodes, also of schedules, so that those that rest need not ask.
CREATE OR REPLACE FUNCTION hodei.round(
    p_name text[], p_incarnation int8[], p_ttl int8, p_duty text, p_number int8, p_holder text, p_life int8,
    OUT ord int8, OUT id uuid, OUT epoch int8
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off AS $$
DECLARE
    v_now int8;
    v_dead int4[];
    v_long_dead bool;
    v_scheduled bool;
BEGIN
    RETURN QUERY SELECT b.ord, b.id, b.epoch FROM hodei.beat(p_name, p_incarnation, p_ttl) b;
    IF p_number IS NOT NULL AND hodei.keep_term(p_duty, p_number, p_holder, p_life, p_ttl) THEN
        ord := 0;
    ELSIF cardinality(p_name) > 0 THEN
        ord := -1;
        epoch := hodei.take_term(p_duty, p_name[1], p_incarnation[1], p_ttl);
    END IF;
    v_now := hodei.now();
    SELECT true INTO v_scheduled FROM hodei.schedule LIMIT 1;
    IF v_scheduled THEN
        RETURN QUERY SELECT -4::int8, NULL::uuid, NULL::int8;
    END IF;
    IF ord IS NULL OR ord = -1 AND epoch IS NULL THEN
        IF EXISTS (SELECT 1 FROM hodei.term WHERE duty = p_duty AND expires_at > v_now) THEN
            ord := -3;
            RETURN NEXT;
        END IF;
        RETURN;
    END IF;
    RETURN NEXT;
    ord := -3;
    epoch := NULL;
    RETURN NEXT;
    PERFORM pg_notify('hodei', CASE WHEN v_scheduled THEN 'fires ' ELSE 'led ' END || p_duty);
    -- Who is remembered as dead may still be given what he claimed in his last moment; who is dead for long is to be
    -- forgotten.
    SELECT array_agg(no), bool_or(expires_at <= v_now - 600000000) INTO v_dead, v_long_dead
        FROM hodei.owner WHERE NOT cleared AND expires_at <= v_now;
    IF v_long_dead OR v_dead IS NOT NULL AND EXISTS (SELECT 1 FROM hodei.leased WHERE holder = ANY (v_dead))
        OR EXISTS (SELECT 1 FROM hodei.ready WHERE deadline <= v_now)
        OR EXISTS (SELECT 1 FROM hodei.delayed WHERE deadline <= v_now)
    THEN
        ord := -2;
        RETURN NEXT;
    END IF;
END
$$;
