-- The only clock: microseconds since 1970.
CREATE OR REPLACE FUNCTION hodei.now() RETURNS int8 LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8
$$;
