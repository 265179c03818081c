CREATE SCHEMA IF NOT EXISTS hodei_audit;

CREATE TABLE hodei_audit.record (
    seq     int8  PRIMARY KEY,
    at      int8  NOT NULL,
    tenant  text,
    actor   text  NOT NULL,
    action  text  NOT NULL,
    subject text  NOT NULL,
    detail  text  NOT NULL,
    link    bytea NOT NULL CHECK (octet_length(link) = 32),
    seal    bytea NOT NULL CHECK (octet_length(seal) = 32)
);

CREATE TABLE hodei_audit.checkpoint (
    count     int8  PRIMARY KEY,
    at        int8  NOT NULL,
    head      bytea NOT NULL CHECK (octet_length(head) = 32),
    signature bytea NOT NULL CHECK (octet_length(signature) = 64)
);

CREATE FUNCTION hodei_audit.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is only ever added to' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER refuse_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON hodei_audit.record
    FOR EACH STATEMENT EXECUTE FUNCTION hodei_audit.refuse();
CREATE TRIGGER refuse_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON hodei_audit.checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION hodei_audit.refuse();

-- Nobody but the owner may do anything until it is granted.
REVOKE ALL ON hodei_audit.record, hodei_audit.checkpoint FROM PUBLIC;

CREATE TABLE hodei_audit.step (version int4 PRIMARY KEY);
INSERT INTO hodei_audit.step VALUES (2);
