-- Keys, error texts and names that came over the wire may hold any character, NUL too, which TEXT refuses:
-- those are BYTEA in UTF-8. Names sort as bytes, as they do in SQLite.

-- One row a link that was ever claimed. Never deleted: its epoch must never be handed out twice, because
-- receivers refuse what comes below the highest they saw.
CREATE TABLE link (
    id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule              TEXT COLLATE "C" NOT NULL,
    bucket            TEXT COLLATE "C" NOT NULL,
    peer              TEXT COLLATE "C" NOT NULL,
    UNIQUE (rule, bucket, peer)
);

-- Who pushes a link, by this database's clock. An empty holder: nobody, since `expires`.
CREATE TABLE link_owner (
    link              BIGINT PRIMARY KEY REFERENCES link (id),
    holder            TEXT COLLATE "C" NOT NULL,
    epoch             BIGINT NOT NULL,
    expires           TIMESTAMPTZ NOT NULL
);

-- Which processes are alive and would run links: the links are spread over them.
CREATE TABLE holder (
    holder            TEXT COLLATE "C" PRIMARY KEY,
    links_wanted      BIGINT NOT NULL,
    expires           TIMESTAMPTZ NOT NULL
);

-- Where a link stands. Absent: it never recorded anything, or was released.
CREATE TABLE checkpoint (
    link              BIGINT PRIMARY KEY REFERENCES link (id),
    cursor            BYTEA,
    floor             BYTEA,
    committed_through BIGINT NOT NULL
);

-- A version that failed while the peer answered.
CREATE TABLE link_row (
    link              BIGINT NOT NULL REFERENCES link (id),
    key               BYTEA NOT NULL,
    version_id        BYTEA NOT NULL,
    pending_since     BIGINT NOT NULL,
    bytes             BIGINT NOT NULL,
    attempts          BIGINT NOT NULL,
    next_attempt      BIGINT NOT NULL,
    last_error        BYTEA NOT NULL,
    parked            BOOLEAN NOT NULL,
    floor             BYTEA,
    PRIMARY KEY (link, key, version_id)
);
-- Finds what is due first without reading the rest.
CREATE INDEX link_row_due ON link_row (link, parked, next_attempt);

-- Highest epoch seen of each incoming link (peer site/rule/bucket).
CREATE TABLE inbound_epoch (
    incoming          BYTEA PRIMARY KEY,
    epoch             BIGINT NOT NULL
);

-- Pairs of versions born without knowing of each other.
CREATE TABLE conflict (
    id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket            TEXT COLLATE "C" NOT NULL,
    key               BYTEA NOT NULL,
    later             TEXT COLLATE "C" NOT NULL,
    earlier           TEXT COLLATE "C" NOT NULL,
    seen_millis       BIGINT NOT NULL,
    UNIQUE (bucket, key, later, earlier)
);
CREATE INDEX conflict_newest ON conflict (seen_millis, id);

-- The last accepted spec of a document, as JSON.
CREATE TABLE accepted_spec (
    document          TEXT COLLATE "C" PRIMARY KEY,
    generation        BIGINT NOT NULL,
    spec              TEXT NOT NULL
);

-- What a verb set and a restart keeps (suspended, released), as JSON. subject: rule/<uid> | peer/<name>.
CREATE TABLE verb_state (
    subject           TEXT COLLATE "C" PRIMARY KEY,
    state             TEXT NOT NULL
);
