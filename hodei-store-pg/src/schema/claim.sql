-- What is ready, and leasing it.

-- Moves delayed jobs whose time has come to where they are claimed: the first thousand, so that nobody is kept long. Where
-- more are due the next call goes on, past rows that are gone by then and not past those of its own transaction.
CREATE OR REPLACE FUNCTION hodei.promote(p_now int8) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM hodei.delayed WHERE eligible_at <= p_now) THEN
        RETURN;
    END IF;
    WITH d AS (
        DELETE FROM hodei.delayed WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM hodei.delayed WHERE eligible_at <= p_now ORDER BY eligible_at, id LIMIT 1000
            FOR UPDATE SKIP LOCKED
        )) RETURNING *
    )
    INSERT INTO hodei.ready (id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch,
        deadline, moved_at, started_at, pipeline, settled, created_at)
    SELECT id, eligible_at, lane, rank, lost, generation, cause, version, attempt, epoch, deadline, moved_at,
        started_at, pipeline, settled, nullif(coalesce(d.created_at,
        (SELECT j.created_at FROM hodei.job j WHERE j.id = d.id)), d.eligible_at) FROM d;
END
$$;

-- Before whatever is ready.
CREATE OR REPLACE FUNCTION hodei.beginning() RETURNS int8 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT '-9223372036854775808'::int8
$$;

-- The picks of a tenant's lanes, in their order, but for those of queues that are paused, and from where on each looks: from
-- p_since at the rank p_level, where nothing more urgent is ready, and else from its first rank.
CREATE OR REPLACE FUNCTION hodei.picks_of(
    p_tenant int4, p_lane int4[], p_rank int2[], p_n int8[], p_level int2[], p_since int8[]
) RETURNS TABLE (
    ord int4, lane int4, first_rank int4, last_rank int4, from_rank int4, from_at int8, n int8, limits int4[], queue text
) LANGUAGE sql STABLE AS $$
    SELECT u.ord::int4, u.lane, u.rank >> 6, u.rank & 63, CASE WHEN s.since IS NULL THEN u.rank >> 6 ELSE u.level END,
        coalesce(s.since, hodei.beginning()), u.n, l.limits, l.queue
    FROM unnest(p_lane, p_rank, p_n, p_level, p_since) WITH ORDINALITY u (lane, rank, n, level, since, ord)
    JOIN hodei.lane l ON l.no = u.lane LEFT JOIN hodei.queue q ON q.tenant = l.tenant AND q.queue = l.queue
    CROSS JOIN LATERAL (
        SELECT CASE WHEN u.since IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM hodei.ready r WHERE r.lane = u.lane AND r.rank >= (u.rank >> 6) AND r.rank < u.level
        ) THEN u.since END AS since
    ) s
    WHERE l.tenant = p_tenant AND NOT coalesce(q.paused, false) ORDER BY u.ord
$$;

-- The first ready jobs of lanes that have no limits, each lane once: where they are, their ids one after the other, whether
-- they are as they were born, and, where one lost an owner, which did, and the lanes of all. Whoever is alone at these lanes
-- and finds that nobody ever held one of them takes them as they are, and deletes them before he does anything else: to lock
-- them first would be written to the WAL. Everybody else locks them, and passes over what is locked. What is ready is due,
-- whatever the clock shows now: it may have been set back.
CREATE OR REPLACE FUNCTION hodei.heads(
    p_alone bool, p_tenant int4, p_now int8, p_lane int4[], p_rank int2[], p_n int8[], p_level int2[], p_since int8[],
    OUT tids tid[], OUT ids bytea, OUT plain bool, OUT lost int2[], OUT lanes int4[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_held bool := true;
    v_lanes int4[];
    v_since int8[] := p_since;
BEGIN
    LOOP
        IF p_alone THEN
            SELECT array_agg(x.tid), string_agg(uuid_send(x.id), ''), bool_and(x.version IS NULL AND x.pipeline IS NULL),
                CASE WHEN count(x.lost) > 0 THEN array_agg(x.lost) END, array_agg(x.lane), bool_or(x.holder <> '0')
            INTO tids, ids, plain, lost, v_lanes, v_held
            FROM hodei.picks_of(p_tenant, p_lane, p_rank, p_n, p_level, v_since) p CROSS JOIN LATERAL (
                SELECT r.ctid AS tid, r.id, r.lane, r.version, r.pipeline, r.lost, r.xmax AS holder FROM hodei.ready r
                WHERE r.lane = p.lane AND (r.rank, r.eligible_at) >= (p.from_rank, p.from_at) AND r.rank <= p.last_rank
                    AND (r.deadline IS NULL OR r.deadline > p_now)
                ORDER BY r.rank, r.eligible_at, r.id LIMIT p.n
            ) x;
        END IF;
        IF v_held THEN
            SELECT array_agg(x.tid), string_agg(uuid_send(x.id), ''), bool_and(x.version IS NULL AND x.pipeline IS NULL),
                CASE WHEN count(x.lost) > 0 THEN array_agg(x.lost) END, array_agg(x.lane)
            INTO tids, ids, plain, lost, v_lanes
            FROM hodei.picks_of(p_tenant, p_lane, p_rank, p_n, p_level, v_since) p CROSS JOIN LATERAL (
                SELECT r.ctid AS tid, r.id, r.lane, r.version, r.pipeline, r.lost FROM hodei.ready r
                WHERE r.lane = p.lane AND (r.rank, r.eligible_at) >= (p.from_rank, p.from_at) AND r.rank <= p.last_rank
                    AND (r.deadline IS NULL OR r.deadline > p_now)
                ORDER BY r.rank, r.eligible_at, r.id LIMIT p.n FOR UPDATE SKIP LOCKED
            ) x;
        END IF;
        -- Where a lane had too few from some place on, all of them are looked for from the beginning.
        EXIT WHEN v_since IS NULL OR NOT EXISTS (
            SELECT 1 FROM unnest(p_lane, p_n, v_since) u (lane, n, since) JOIN hodei.lane l ON l.no = u.lane
            WHERE u.since IS NOT NULL AND l.tenant = p_tenant
                AND u.n > coalesce(cardinality(array_positions(v_lanes, u.lane)), 0)
        );
        v_since := NULL;
    END LOOP;
    IF lost IS NOT NULL THEN
        lanes := v_lanes;
    END IF;
END
$$;

-- Has a claim made again that somebody was in the way of.
CREATE OR REPLACE FUNCTION hodei.claimed_elsewhere() RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RAISE EXCEPTION 'somebody else claims from here' USING ERRCODE = '55P03';
END
$$;

-- Leases the first ready jobs of lanes, pick by pick: at most p_n each, of the ranks from p_rank / 64 to p_rank % 64. A row of `what` 3 tells
-- where the changes stand of the claims that follow it, in no order, and, unless each lane was picked once and has no limits,
-- which picks they are of, with the lane of each and how many there are. What a job has of its birth is absent.
-- Where p_since says so, a pick looks for jobs of the rank p_level from that time on, and for others only where there are too
-- few: whoever took what lies before spares the server the way past it.
-- With p_alone it may come to nothing, with 55P03, where somebody else is at these lanes or their tables: then it is made
-- again without.
CREATE OR REPLACE FUNCTION hodei.claim(
    p_holder int4, p_now int8, p_node int8, p_record bool, p_lane int4[], p_rank int2[], p_n int8[], p_level int2[],
    p_since int8[], p_alone bool
) RETURNS SETOF hodei.exchanged
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_lane record;
    v_of record;
    v_tenant int4;
    v_room int8;
    v_limits int4[];
    v_one record;
    v_tids tid[];
    v_again tid[];
    v_seen int4[];
    v_simple bool;
    v_body bytea;
    v_plain bool;
    v_n int4;
    v_ords int4[];
    v_lanes int4[];
    v_wide bool;
    v_priced bool := false;
    v_each int8 := 1;
    v_alone bool;
    v_now int8 := p_now;
    v_timeout CONSTANT text := current_setting('lock_timeout');
BEGIN
    SELECT h.wide = 2, h.keys INTO v_wide, v_limits FROM hodei.hold_limits(p_lane) h;
    IF v_limits IS NOT NULL THEN
        PERFORM hodei.take_off(v_limits);
    END IF;
    IF v_limits IS NOT NULL OR v_wide THEN
        v_priced := EXISTS (SELECT 1 FROM hodei.price);
        -- Nobody else writes these rows from here on. The clock may have been set back since the caller looked at it, and since
        -- somebody looked at it who has claimed under them.
        v_now := least(p_now, hodei.now());
        IF EXISTS (SELECT 1 FROM hodei.usage WHERE no = ANY (v_limits) AND hodei.is_ahead(spent_at, v_now))
            OR v_wide AND EXISTS (SELECT 1 FROM hodei.wide WHERE hodei.is_ahead(spent_at, v_now))
        THEN
            PERFORM hodei.bring_back_rates(v_now, v_limits);
        END IF;
    END IF;
    -- Without limits, and each lane once, one look finds them all.
    v_simple := v_limits IS NULL AND NOT v_wide AND cardinality(p_lane) = (SELECT count(DISTINCT x) FROM unnest(p_lane) x);
    -- Others who ask so are told that somebody is there until this commits. The first number is one that nobody else uses.
    v_alone := p_alone AND v_simple AND cardinality(p_lane) <= 16 AND (
        SELECT bool_and(pg_try_advisory_xact_lock(1751607653, x)) FROM unnest(p_lane) x);
    -- Each tenant's picks are gone through with it alone, however many tenants there are.
    FOR v_of IN SELECT l.tenant, array_agg(u.ord::int4 ORDER BY u.ord) AS ords, array_agg(u.lane ORDER BY u.ord) AS lanes,
            array_agg(u.rank ORDER BY u.ord) AS ranks, array_agg(u.n ORDER BY u.ord) AS ns,
            array_agg(u.level ORDER BY u.ord) AS levels, array_agg(u.since ORDER BY u.ord) AS sinces
        FROM unnest(p_lane, p_rank, p_n, p_level, p_since) WITH ORDINALITY u (lane, rank, n, level, since, ord)
        JOIN hodei.lane l ON l.no = u.lane GROUP BY l.tenant LOOP
        v_tenant := v_of.tenant;
        v_tids := '{}';
        v_body := '';
        v_plain := true;
        v_seen := '{}';
        v_ords := NULL;
        v_lanes := NULL;
        IF v_simple THEN
            SELECT * INTO v_one FROM hodei.heads(v_alone, v_tenant, p_now, v_of.lanes, v_of.ranks, v_of.ns, v_of.levels,
                CASE WHEN p_since IS NOT NULL THEN v_of.sinces END);
            CONTINUE WHEN v_one.tids IS NULL;
            v_tids := v_one.tids;
            v_body := v_one.ids;
            v_plain := v_one.plain;
            IF v_one.lost IS NOT NULL THEN
                -- Whoever lost an owner is claimed alone.
                v_tids := ARRAY(
                    SELECT y.tid FROM (
                        SELECT u.tid, u.ord, row_number() OVER w AS rn, count(u.lost) OVER w AS bad
                        FROM unnest(v_tids, v_one.lost, v_one.lanes) WITH ORDINALITY u (tid, lost, lane, ord)
                        WINDOW w AS (PARTITION BY u.lane ORDER BY u.ord)
                    ) y WHERE y.bad = 0 OR y.rn = 1 ORDER BY y.ord);
            END IF;
        ELSE
            FOR v_lane IN SELECT * FROM hodei.picks_of(v_tenant, v_of.lanes, v_of.ranks, v_of.ns, v_of.levels,
                    v_of.sinces) LOOP
                v_room := v_lane.n;
                IF v_priced THEN
                    v_each := coalesce((SELECT p.tokens FROM hodei.price p WHERE p.lane = v_lane.lane), 1);
                END IF;
                IF v_lane.limits IS NOT NULL THEN
                    SELECT least(v_room, min(greatest(most - in_use, 0)), min(hodei.paced(burst, gap, full_at, v_each, v_now)))
                        INTO v_room FROM hodei.usage
                        WHERE no = ANY (v_lane.limits) AND most IS NOT NULL;
                END IF;
                IF v_wide THEN
                    SELECT least(v_room, min(greatest(w.most - w.in_use, 0)),
                        min(hodei.paced(w.burst, w.gap, w.full_at, v_each, v_now))) INTO v_room FROM hodei.wide w
                        WHERE w.tenant IN (0, v_tenant) AND w.queue IN ('', v_lane.queue);
                END IF;
                CONTINUE WHEN v_room <= 0;
                v_again := CASE WHEN v_lane.lane = ANY (v_seen) THEN v_tids END;
                v_seen := v_seen || v_lane.lane;
                LOOP
                    SELECT array_agg(x.tid) AS tids, string_agg(uuid_send(x.id), '') AS ids, count(*)::int4 AS n,
                        bool_and(x.version IS NULL AND x.pipeline IS NULL) AS plain,
                        CASE WHEN count(x.lost) > 0 THEN array_agg(x.lost) END AS lost
                    INTO v_one FROM (
                        SELECT r.ctid AS tid, r.id, r.version, r.pipeline, r.lost FROM hodei.ready r
                        WHERE r.lane = v_lane.lane AND (r.rank, r.eligible_at) >= (v_lane.from_rank, v_lane.from_at)
                            AND r.rank <= v_lane.last_rank AND (r.deadline IS NULL OR r.deadline > p_now)
                            AND (v_again IS NULL OR r.ctid <> ALL (v_again))
                        ORDER BY r.rank, r.eligible_at, r.id LIMIT v_room FOR UPDATE SKIP LOCKED
                    ) x;
                    -- Too few from some place on: they are looked for from the beginning.
                    EXIT WHEN v_one.n >= v_room OR v_lane.from_at = hodei.beginning();
                    v_lane.from_at := hodei.beginning();
                    v_lane.from_rank := v_lane.first_rank;
                END LOOP;
                CONTINUE WHEN v_one.n = 0;
                IF v_one.lost IS NOT NULL THEN
                    -- Whoever lost an owner is claimed alone.
                    v_one.n := (SELECT greatest(min(u.ord) - 1, 1) FROM unnest(v_one.lost) WITH ORDINALITY u (lost, ord)
                        WHERE u.lost IS NOT NULL);
                    v_one.tids := v_one.tids[1:v_one.n];
                END IF;
                v_tids := v_tids || v_one.tids;
                v_ords := v_ords || v_of.ords[v_lane.ord];
                v_lanes := v_lanes || array[v_lane.lane, v_one.n];
                v_body := v_body || v_one.ids;
                v_plain := v_plain AND v_one.plain;
                IF v_lane.limits IS NOT NULL THEN
                    UPDATE hodei.usage SET in_use = in_use + v_one.n,
                        full_at = hodei.spent(gap, full_at, v_each, v_now, v_one.n),
                        spent_at = CASE WHEN gap IS NOT NULL THEN v_now END WHERE no = ANY (v_lane.limits);
                END IF;
                IF v_wide THEN
                    UPDATE hodei.wide SET in_use = in_use + v_one.n,
                        full_at = hodei.spent(gap, full_at, v_each, v_now, v_one.n),
                        spent_at = CASE WHEN gap IS NOT NULL THEN v_now END
                        WHERE tenant IN (0, v_tenant) AND queue IN ('', v_lane.queue);
                END IF;
            END LOOP;
        END IF;
        v_n := cardinality(v_tids);
        CONTINUE WHEN v_n = 0;
        IF p_record AND NOT v_plain THEN
            v_body := (SELECT string_agg(hodei.change_bytes(r.id, coalesce(r.version, 1) + 1, coalesce(r.attempt, 0),
                    coalesce(r.epoch, 0) + 1, 33686528, r.pipeline), '' ORDER BY u.ord)
                FROM unnest(v_tids) WITH ORDINALITY u (tid, ord) JOIN hodei.ready r ON r.ctid = u.tid);
        END IF;
        IF v_alone THEN
            -- Whoever locked one of them since they were looked at may hold it for long: the call is made again then.
            PERFORM set_config('lock_timeout', '50ms', true);
        END IF;
        RETURN QUERY
        WITH d AS (
            DELETE FROM hodei.ready r WHERE r.ctid = ANY (v_tids) RETURNING r.*
        ), t AS MATERIALIZED (
            -- Not before any of them was ready.
            SELECT greatest(p_now, max(d.eligible_at)) AS at FROM d
        ), l AS (
            INSERT INTO hodei.leased (id, moved_at, holder, lane, tenant, lost, generation, version, attempt, epoch,
                eligible_at, deadline, started_at, pipeline, settled)
            SELECT d.id, t.at, p_holder, d.lane, nullif(v_tenant, 1), d.lost, d.generation, d.version + 1, d.attempt,
                CASE WHEN d.version IS NOT NULL THEN coalesce(d.epoch, 0) + 1 END,
                CASE WHEN d.version IS NOT NULL THEN d.eligible_at END, d.deadline, d.started_at, d.pipeline,
                d.settled FROM d CROSS JOIN t
        ), h AS MATERIALIZED (
            SELECT hodei.pos() AS pos, nextval('hodei.change_no') AS no, count(*)::int4 AS n FROM d
            -- Who asked is to have what there is, also where somebody was there before after all.
            HAVING CASE WHEN v_alone AND count(*) < v_n THEN hodei.claimed_elsewhere() ELSE count(*) > 0 END
        ), c AS (
            -- Pending to scheduled, claimed.
            INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
            SELECT h.pos, h.no, t.at, p_node, v_tenant, h.n,
                CASE WHEN v_plain THEN hodei.alike_bytes(2, 0, 1, 33686528, h.n, v_body) ELSE v_body END
            FROM h CROSS JOIN t WHERE p_record
        ), e AS (
            INSERT INTO hodei.delta (tenant, lane, pending, scheduled, changes)
            SELECT v_tenant, d.lane, -count(*), count(*), CASE WHEN p_record THEN count(*) END FROM d GROUP BY d.lane
        )
        SELECT 3::int2, NULL::int4, NULL::uuid, NULL::int4, NULL::int2, NULL::int2, NULL::int4, NULL::int8, NULL::int4,
            NULL::int2, NULL::int2, NULL::int8, NULL::int8, NULL::int8, NULL::int8, NULL::int8, NULL::uuid, NULL::bytea,
            NULL::text, NULL::uuid, NULL::bytea, h.pos, h.no, v_ords, v_lanes FROM h
        UNION ALL
        SELECT 2::int2, NULL::int4, d.id, d.lane, d.rank, 2::int2, d.version + 1, d.epoch + 1, d.attempt, d.lost,
            d.generation, d.eligible_at, d.deadline, NULL::int8, d.started_at, j.created_at, d.pipeline, d.settled,
            j.name, j.fingerprint, j.body, NULL::int8, NULL::int8, NULL::int4[], NULL::int4[]
        FROM d JOIN hodei.job j ON j.id = d.id;
        IF v_alone THEN
            PERFORM set_config('lock_timeout', v_timeout, true);
        END IF;
    END LOOP;
END
$$;

-- As nodes of before call it, while they run beside those of now.
CREATE OR REPLACE FUNCTION hodei.claim(
    p_holder int4, p_now int8, p_node int8, p_record bool, p_lane int4[], p_rank int2[], p_n int8[]
) RETURNS SETOF hodei.exchanged LANGUAGE sql VOLATILE AS $$
    SELECT * FROM hodei.claim(p_holder, p_now, p_node, p_record, p_lane, p_rank, p_n, NULL, NULL, false)
$$;

-- What is ready, and what its lanes are, as far as there is room, of each the first so many levels; and when their rates let
-- more through, and whether that is as late as a clock saw it that was set back since.
CREATE OR REPLACE FUNCTION hodei.open_lanes(
    p_queues text[], p_now int8, p_due int8, p_levels int4, OUT lane int4, OUT tenant text, OUT queue text, OUT class int8,
    OUT request bytea, OUT rank int2, OUT depth int8, OUT eligible_at int8, OUT weight int8, OUT next_due int8,
    OUT opens_at int8, OUT ahead bool
) RETURNS SETOF record LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_wide bool := EXISTS (SELECT 1 FROM hodei.wide);
    v_priced bool := EXISTS (SELECT 1 FROM hodei.price);
BEGIN
    RETURN QUERY
    WITH RECURSIVE w AS (
        (SELECT r.lane AS no FROM hodei.ready r ORDER BY r.lane LIMIT 1)
        UNION ALL
        SELECT (SELECT r.lane FROM hodei.ready r WHERE r.lane > w.no ORDER BY r.lane LIMIT 1) FROM w
        WHERE w.no IS NOT NULL
    ), s AS MATERIALIZED (
        -- Counting stops where nobody would claim more at once.
        SELECT w.no, greatest(32, least(4096, 100000 / count(*) OVER ())) AS most,
            CASE WHEN v_priced THEN coalesce((SELECT p.tokens FROM hodei.price p WHERE p.lane = w.no), 1) ELSE 1 END AS each
        FROM w WHERE w.no IS NOT NULL
    )
    SELECT l.no, n.name, l.queue, l.class, l.request, h.rank, least(z.ready, z.tokens),
        h.eligible_at, coalesce(q.weight, 1), p_due, o.opens_at, o.ahead
    FROM s JOIN hodei.lane l ON l.no = s.no
    JOIN hodei.tenant n ON n.no = l.tenant
    CROSS JOIN LATERAL (
        (SELECT r.rank, r.eligible_at FROM hodei.ready r WHERE r.lane = l.no
            ORDER BY r.rank, r.eligible_at, r.id LIMIT 1)
        UNION ALL
        (WITH RECURSIVE v AS (
            (SELECT r.rank, r.eligible_at, 1 AS n FROM hodei.ready r WHERE r.lane = l.no
                ORDER BY r.rank, r.eligible_at, r.id LIMIT 1)
            UNION ALL
            SELECT x.rank, x.eligible_at, v.n + 1 FROM v CROSS JOIN LATERAL (
                SELECT r.rank, r.eligible_at FROM hodei.ready r WHERE r.lane = l.no AND r.rank > v.rank
                ORDER BY r.rank, r.eligible_at, r.id LIMIT 1
            ) x WHERE v.n < p_levels
        )
        SELECT v.rank, v.eligible_at FROM v WHERE v.n > 1 AND p_levels > 1)
    ) h
    LEFT JOIN hodei.queue q ON q.tenant = l.tenant AND q.queue = l.queue
    LEFT JOIN LATERAL (
        SELECT min(greatest(u.most - u.in_use + coalesce((SELECT sum(f.n)::int8 FROM hodei.freed f
                WHERE f.no = u.no), 0), 0)) AS free,
            min(hodei.paced(u.burst, u.gap, u.full_at, s.each, p_now)) AS tokens FROM hodei.usage u
        WHERE l.limits IS NOT NULL AND u.no = ANY (l.limits) AND u.most IS NOT NULL
    ) room ON true
    LEFT JOIN LATERAL (
        SELECT min(greatest(u.most - u.in_use, 0)) AS free,
            min(hodei.paced(u.burst, u.gap, u.full_at, s.each, p_now)) AS tokens FROM hodei.wide u
        WHERE v_wide AND u.tenant IN (0, l.tenant) AND u.queue IN ('', l.queue)
    ) wide ON true
    CROSS JOIN LATERAL (
        SELECT least(room.free, wide.free, (SELECT count(*) FROM (SELECT 1 FROM hodei.ready r
            WHERE r.lane = l.no AND r.rank = h.rank LIMIT s.most) x)) AS ready, least(room.tokens, wide.tokens) AS tokens
    ) z
    LEFT JOIN LATERAL (
        SELECT max(hodei.opens_at(y.burst, y.gap, hodei.spent(y.gap, y.full_at, s.each, p_now, z.tokens), s.each)) AS opens_at,
            bool_or(hodei.is_ahead(y.spent_at, p_now)) AS ahead
        FROM (
            SELECT u.burst, u.gap, u.full_at, u.spent_at FROM hodei.usage u
            WHERE l.limits IS NOT NULL AND u.no = ANY (l.limits) AND u.most IS NOT NULL AND u.gap IS NOT NULL
            UNION ALL
            SELECT u.burst, u.gap, u.full_at, u.spent_at FROM hodei.wide u
            WHERE v_wide AND u.tenant IN (0, l.tenant) AND u.queue IN ('', l.queue) AND u.gap IS NOT NULL
        ) y WHERE z.ready > z.tokens
    ) o ON true
    WHERE (p_queues IS NULL OR l.queue = ANY (p_queues)) AND NOT coalesce(q.paused, false)
        AND coalesce(room.free, 1) > 0 AND coalesce(wide.free, 1) > 0;
END
$$;

-- What is ready at the first so many levels of each lane, and what the lanes are; moves what has become due before. A row of
-- no lane and rank -1 tells, as the time since when it is ready, when rates let more through; it has a depth where that is to
-- be brought back first.
CREATE OR REPLACE FUNCTION hodei.lanes(
    p_queues text[], p_levels int4, OUT lane int4, OUT tenant text, OUT queue text, OUT class int8, OUT request bytea,
    OUT rank int2, OUT depth int8, OUT eligible_at int8, OUT weight int8, OUT next_due int8
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_due int8;
BEGIN
    PERFORM hodei.promote(hodei.now());
    SELECT min(d.eligible_at) INTO v_due FROM hodei.delayed d;
    RETURN QUERY
    WITH o AS MATERIALIZED (SELECT * FROM hodei.open_lanes(p_queues, hodei.now(), v_due, p_levels))
    SELECT o.lane, o.tenant, o.queue, o.class, o.request, o.rank, o.depth, o.eligible_at, o.weight, o.next_due
        FROM o WHERE o.depth > 0
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, -1::int2, CASE WHEN bool_or(o.ahead) THEN 1::int8 END, min(o.opens_at), NULL,
        v_due FROM o
        HAVING min(o.opens_at) IS NOT NULL;
    IF NOT FOUND THEN
        next_due := v_due;
        RETURN NEXT;
    END IF;
END
$$;

-- As nodes of before call it, while they run beside those of now.
CREATE OR REPLACE FUNCTION hodei.lanes(
    p_queues text[], OUT lane int4, OUT tenant text, OUT queue text, OUT class int8, OUT request bytea,
    OUT rank int2, OUT depth int8, OUT eligible_at int8, OUT weight int8, OUT next_due int8
) RETURNS SETOF record LANGUAGE sql VOLATILE AS $$
    SELECT * FROM hodei.lanes(p_queues, 1)
$$;
