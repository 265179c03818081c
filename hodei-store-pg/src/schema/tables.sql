-- Who and where: names, each with a number that rows use instead.
CREATE TABLE hodei.tenant (
    no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- How many leased jobs name a key, and how many may.
CREATE TABLE hodei.usage (
    no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant int4 NOT NULL,
    key text COLLATE "C" NOT NULL,
    most int8,
    in_use int8 NOT NULL DEFAULT 0,
    UNIQUE (tenant, key)
) WITH (fillfactor = 50);

CREATE TABLE hodei.lane (
    no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant int4 NOT NULL,
    queue text COLLATE "C" NOT NULL,
    class int8 NOT NULL,
    request bytea NOT NULL,
    -- The numbers of its limits, ascending; absent where it has none.
    limits int4[],
    UNIQUE (tenant, queue, class)
);

CREATE TABLE hodei.queue (
    tenant int4 NOT NULL,
    queue text COLLATE "C" NOT NULL,
    paused bool NOT NULL,
    weight int8 NOT NULL,
    PRIMARY KEY (tenant, queue)
);

CREATE TABLE hodei.schedule (
    tenant int4 NOT NULL,
    name text COLLATE "C" NOT NULL,
    rule text NOT NULL,
    spec bytea NOT NULL,
    last_fired int8,
    PRIMARY KEY (tenant, name)
);

-- Every life of every owner. It lives while expires_at is ahead; a later life ends the ones before. It is cleared when it
-- is long over and held nothing any more.
CREATE SEQUENCE hodei.incarnation;
CREATE TABLE hodei.owner (
    no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    incarnation int8 NOT NULL,
    expires_at int8 NOT NULL,
    cleared bool NOT NULL DEFAULT false,
    UNIQUE (name, incarnation)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 50);

CREATE TABLE hodei.term (
    duty text COLLATE "C" PRIMARY KEY,
    number int8 NOT NULL,
    owner text COLLATE "C" NOT NULL,
    incarnation int8 NOT NULL,
    expires_at int8 NOT NULL
) WITH (fillfactor = 50);

-- What a job is born with; never updated.
CREATE TABLE hodei.job (
    id uuid PRIMARY KEY,
    fingerprint uuid NOT NULL,
    created_at int8 NOT NULL,
    eligible_at int8 NOT NULL,
    tenant int4 NOT NULL,
    lane int4 NOT NULL,
    -- 63 less the level: the most urgent first.
    rank int2 NOT NULL,
    deadline int8,
    pipeline uuid,
    name text COLLATE "C" NOT NULL,
    body bytea NOT NULL
);
CREATE INDEX job_created ON hodei.job (created_at, id);
CREATE INDEX job_pipeline ON hodei.job (pipeline, created_at, id) WHERE pipeline IS NOT NULL;

-- Where a job is: a row in exactly one of the five tables that follow. What is absent has the value it was born with:
-- version 1, epoch, attempt, losses, generation and cause 0, moved_at the time of its creation.
CREATE TABLE hodei.ready (
    id uuid NOT NULL,
    eligible_at int8 NOT NULL,
    lane int4 NOT NULL,
    rank int2 NOT NULL,
    lost int2,
    generation int2,
    cause int2,
    version int4,
    attempt int4,
    epoch int8,
    deadline int8,
    moved_at int8,
    started_at int8,
    pipeline uuid,
    settled bytea,
    PRIMARY KEY (lane, rank, eligible_at, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 1);
CREATE INDEX ready_moved ON hodei.ready (id) WHERE version IS NOT NULL;
CREATE INDEX ready_deadline ON hodei.ready (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE hodei.delayed (
    id uuid NOT NULL UNIQUE,
    eligible_at int8 NOT NULL,
    lane int4 NOT NULL,
    rank int2 NOT NULL,
    lost int2,
    generation int2,
    cause int2,
    version int4,
    attempt int4,
    epoch int8,
    deadline int8,
    moved_at int8,
    started_at int8,
    pipeline uuid,
    settled bytea,
    PRIMARY KEY (eligible_at, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 1);
CREATE INDEX delayed_deadline ON hodei.delayed (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE hodei.blocked (
    id uuid PRIMARY KEY,
    eligible_at int8 NOT NULL,
    lane int4 NOT NULL,
    rank int2 NOT NULL,
    waits_for int4 NOT NULL,
    deadline int8,
    pipeline uuid
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 1);

-- Of a job that was never claimed before, only who holds it and since when is written: its epoch is 1, its version 2, no
-- attempt was made, and it became eligible when it was born to.
CREATE TABLE hodei.leased (
    id uuid PRIMARY KEY,
    moved_at int8 NOT NULL,
    holder int4 NOT NULL,
    lane int4 NOT NULL,
    tenant int4 NOT NULL,
    running bool,
    cancel bool,
    lost int2,
    generation int2,
    version int4,
    attempt int4,
    epoch int8,
    eligible_at int8,
    deadline int8,
    started_at int8,
    pipeline uuid,
    settled bytea
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 1);
-- Who holds which jobs is asked only after a death or a lost reply, and then of all rows: an index would cost every claim.
CREATE INDEX leased_cancel ON hodei.leased (holder) WHERE cancel;

-- Of a job that ended in its first run, which nobody told of before its end, only what differs is written: its epoch is
-- 1, its version 3, its attempt the first, and the cause follows from the state.
CREATE TABLE hodei.done (
    id uuid PRIMARY KEY,
    moved_at int8 NOT NULL,
    tenant int4 NOT NULL,
    state int2 NOT NULL,
    cause int2,
    lost int2,
    generation int2,
    version int4,
    attempt int4,
    epoch int8,
    eligible_at int8,
    deadline int8,
    started_at int8,
    settled bytea
) WITH (autovacuum_vacuum_insert_scale_factor = 0.2);
CREATE INDEX done_moved ON hodei.done USING brin (moved_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX done_bad ON hodei.done (state, tenant, moved_at, id) WHERE state IN (5, 6);

-- Who waits for whom. A child is told once of the end of a parent.
CREATE TABLE hodei.edge (
    parent uuid NOT NULL,
    child uuid NOT NULL,
    told bool NOT NULL,
    -- The child goes on only when the parent fails.
    fails bool NOT NULL DEFAULT false,
    -- The parent comes before the child in their sequence.
    turn bool NOT NULL DEFAULT false,
    PRIMARY KEY (parent, child)
) WITH (fillfactor = 80);
CREATE INDEX edge_child ON hodei.edge (child);

-- The last job of each sequence, as long as it is kept. Whoever submits to a sequence holds its row first.
CREATE TABLE hodei.sequence (
    tenant int4 NOT NULL,
    key text COLLATE "C" NOT NULL,
    last uuid NOT NULL,
    PRIMARY KEY (tenant, key)
) WITH (fillfactor = 50);
CREATE INDEX sequence_last ON hodei.sequence (last);

CREATE TABLE hodei.unique_key (
    tenant int4 NOT NULL,
    key text COLLATE "C" NOT NULL,
    id uuid NOT NULL UNIQUE,
    PRIMARY KEY (tenant, key)
);

-- Recorded transitions, many to a row, in the order (pos, no): see hodei.pos.
CREATE SEQUENCE hodei.change_no;
CREATE TABLE hodei.change (
    pos int8 NOT NULL,
    no int8 NOT NULL DEFAULT nextval('hodei.change_no'),
    at int8 NOT NULL,
    node int8 NOT NULL,
    tenant int4 NOT NULL,
    n int4 NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (pos, no)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.2);
-- What changed alike is written together, so compressing it costs more than it saves.
ALTER TABLE hodei.change ALTER COLUMN body SET STORAGE EXTERNAL;

-- Up to where changes were pruned: this many of the row (pos, no) are gone, and all rows before it.
CREATE TABLE hodei.change_floor (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    pos int8 NOT NULL,
    no int8 NOT NULL,
    skip int4 NOT NULL
);
INSERT INTO hodei.change_floor (pos, no, skip) VALUES (0, 0, 0);

-- What positions are more than the numbers of transactions: a database that was restored into another cluster has
-- positions from before that are higher than the numbers there.
CREATE TABLE hodei.log_base (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    base int8 NOT NULL
);
INSERT INTO hodei.log_base (base) VALUES (0);

-- How many jobs are in each state, and how many changes are kept: what was counted, and what every transaction since
-- adds to it. Nobody waits for anybody to count.
CREATE TABLE hodei.total (
    tenant int4 PRIMARY KEY,
    blocked int8 NOT NULL DEFAULT 0,
    pending int8 NOT NULL DEFAULT 0,
    scheduled int8 NOT NULL DEFAULT 0,
    running int8 NOT NULL DEFAULT 0,
    succeeded int8 NOT NULL DEFAULT 0,
    failed int8 NOT NULL DEFAULT 0,
    cancelled int8 NOT NULL DEFAULT 0,
    changes int8 NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE hodei.delta (
    tenant int4 NOT NULL,
    blocked int4,
    pending int4,
    scheduled int4,
    running int4,
    succeeded int4,
    failed int4,
    cancelled int4,
    changes int4
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1);
CREATE INDEX delta_tenant ON hodei.delta (tenant);

-- A place of a job, as the functions return it.
CREATE TYPE hodei.placed AS (
    id uuid, state int2, delayed bool, lane int4, rank int2, holder int4, version int4, epoch int8, attempt int4,
    waits_for int4, lost int2, generation int2, cause int2, cancel bool, eligible_at int8, deadline int8,
    moved_at int8, started_at int8, settled bytea
);

CREATE TYPE hodei.exchanged AS (
    what int2, ord int4, id uuid, lane int4, rank int2, state int2, version int4, epoch int8, attempt int4,
    lost int2, generation int2, eligible_at int8, deadline int8, moved_at int8, started_at int8,
    created_at int8, pipeline uuid, settled bytea, name text, fingerprint uuid, body bytea, pos int8, no int8,
    ords int4[], lanes int4[]
);
