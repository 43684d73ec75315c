-- The first shape of the catalog. Portable between SQLite and PostgreSQL: BIGINT and TEXT only, no
-- vendor functions; lists, maps and expressions are JSON text; truth values are 0 or 1.
-- Forward only: a change is a new file, an applied file is never edited.

CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE roles (
    oid BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    login BIGINT NOT NULL,
    superuser BIGINT NOT NULL,
    scram_verifier TEXT,
    member_of TEXT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE schemas (
    oid BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner BIGINT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE relations (
    oid BIGINT PRIMARY KEY,
    schema_oid BIGINT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner BIGINT NOT NULL,
    column_list TEXT NOT NULL,
    partition_by TEXT NOT NULL,
    checks TEXT NOT NULL,
    options TEXT NOT NULL,
    location TEXT,
    query TEXT,
    depends_on TEXT NOT NULL,
    materialized TEXT,
    remark TEXT,
    version BIGINT NOT NULL,
    UNIQUE (schema_oid, name)
);

CREATE TABLE models (
    oid BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    owner BIGINT NOT NULL,
    current_number BIGINT NOT NULL,
    aliases TEXT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE model_versions (
    model BIGINT NOT NULL,
    number BIGINT NOT NULL,
    query TEXT NOT NULL,
    options TEXT NOT NULL,
    artifact TEXT NOT NULL,
    metrics TEXT NOT NULL,
    trained_at BIGINT NOT NULL,
    PRIMARY KEY (model, number)
);

CREATE TABLE secrets (
    oid BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    key_hex TEXT NOT NULL,
    owner BIGINT NOT NULL,
    version BIGINT NOT NULL
);

-- An empty column_name means the whole object, grantee 0 means PUBLIC: NULL would not be unique.
CREATE TABLE grants (
    object_kind TEXT NOT NULL,
    object BIGINT NOT NULL,
    column_name TEXT NOT NULL,
    privilege TEXT NOT NULL,
    grantee BIGINT NOT NULL,
    grantor BIGINT NOT NULL,
    grant_option BIGINT NOT NULL,
    PRIMARY KEY (object_kind, object, column_name, privilege, grantee)
);

CREATE TABLE lineage_edges (
    target BIGINT NOT NULL,
    target_column TEXT NOT NULL,
    source BIGINT NOT NULL,
    source_column TEXT NOT NULL,
    kind TEXT NOT NULL,
    statement TEXT NOT NULL,
    PRIMARY KEY (target, target_column, source, source_column, kind)
);

CREATE TABLE audit_log (
    seq BIGINT PRIMARY KEY,
    ended_at BIGINT NOT NULL,
    session TEXT NOT NULL,
    door TEXT NOT NULL,
    role TEXT NOT NULL,
    command TEXT NOT NULL,
    statement TEXT NOT NULL,
    objects TEXT NOT NULL,
    row_count BIGINT,
    outcome TEXT NOT NULL,
    sqlstate TEXT,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);

-- The end of the audit chain; its one row is the lock that puts appends in order.
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('generation', 1);
INSERT INTO counters (name, value) VALUES ('oid', 16383);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '');
INSERT INTO roles (oid, name, login, superuser, scram_verifier, member_of, version)
    VALUES (10, 'weir', 1, 1, NULL, '[]', 1);
INSERT INTO schemas (oid, name, owner, version) VALUES (2200, 'public', 10, 1);
