-- The numbers that stand for names.

CREATE OR REPLACE FUNCTION hodei.tenant_no(p_name text) RETURNS int4 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_no int4;
BEGIN
    LOOP
        SELECT no INTO v_no FROM hodei.tenant WHERE name = p_name;
        IF FOUND THEN
            RETURN v_no;
        END IF;
        INSERT INTO hodei.tenant (name) VALUES (p_name) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION hodei.usage_no(p_tenant int4, p_key text) RETURNS int4 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_no int4;
BEGIN
    LOOP
        SELECT no INTO v_no FROM hodei.usage WHERE tenant = p_tenant AND key = p_key;
        IF FOUND THEN
            RETURN v_no;
        END IF;
        INSERT INTO hodei.usage (tenant, key) VALUES (p_tenant, p_key) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- The limits wider than a key that jobs of a queue count against, set or not.
CREATE OR REPLACE FUNCTION hodei.wide_of(p_tenant int4, p_queue text) RETURNS TABLE (tenant int4, queue text)
LANGUAGE sql IMMUTABLE AS $$
    VALUES (0, ''), (p_tenant, ''), (p_tenant, p_queue)
$$;

-- The number of a lane, which is made where there is none, with how many tokens its jobs take of rates, unless its tenant has p_most already; many at once may make
-- some more.
CREATE OR REPLACE FUNCTION hodei.lane_no(
    p_tenant text, p_queue text, p_class int8, p_request bytea, p_keys text[], p_most int8, p_tokens int8,
    OUT tenant_no int4, OUT lane_no int4
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_limits int4[];
    v_made int4;
BEGIN
    tenant_no := hodei.tenant_no(p_tenant);
    LOOP
        SELECT no INTO lane_no FROM hodei.lane
            WHERE tenant = tenant_no AND queue = p_queue AND class = p_class;
        IF FOUND THEN
            RETURN;
        END IF;
        IF p_most IS NOT NULL AND (SELECT count(*) FROM hodei.lane WHERE tenant = tenant_no) >= p_most THEN
            RAISE EXCEPTION 'the tenant has as many lanes as it may' USING ERRCODE = 'HD002';
        END IF;
        IF cardinality(p_keys) > 0 THEN
            SELECT array_agg(DISTINCT hodei.usage_no(tenant_no, k) ORDER BY hodei.usage_no(tenant_no, k))
                INTO v_limits FROM unnest(p_keys) k;
        END IF;
        INSERT INTO hodei.lane (tenant, queue, class, request, limits)
            VALUES (tenant_no, p_queue, p_class, p_request, v_limits) ON CONFLICT DO NOTHING RETURNING no INTO v_made;
        IF v_made IS NOT NULL AND p_tokens > 1 THEN
            INSERT INTO hodei.price (lane, tokens) VALUES (v_made, p_tokens);
        END IF;
    END LOOP;
END
$$;

-- As nodes of before call it, while they run beside those of now.
CREATE OR REPLACE FUNCTION hodei.lane_no(
    p_tenant text, p_queue text, p_class int8, p_request bytea, p_keys text[], p_most int8,
    OUT tenant_no int4, OUT lane_no int4
) LANGUAGE sql VOLATILE AS $$
    SELECT * FROM hodei.lane_no(p_tenant, p_queue, p_class, p_request, p_keys, p_most, 1)
$$;

-- The number of a life of an owner, which is made, without any life in it, where there is none. Who asks lets it hold
-- something: so it is not cleared any more. Its heartbeats go on meanwhile; only its end waits.
CREATE OR REPLACE FUNCTION hodei.owner_no(p_name text, p_incarnation int8) RETURNS int4
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_no int4;
BEGIN
    LOOP
        SELECT no INTO v_no FROM hodei.owner WHERE name = p_name AND incarnation = p_incarnation FOR KEY SHARE;
        IF FOUND THEN
            UPDATE hodei.owner SET cleared = false WHERE no = v_no AND cleared;
            RETURN v_no;
        END IF;
        INSERT INTO hodei.owner (name, incarnation, expires_at)
            VALUES (p_name, p_incarnation, hodei.now()) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;
