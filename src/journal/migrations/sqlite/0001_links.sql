-- One row a link that was ever acquired. It outlives a release: the epoch must never be handed out twice,
-- because receivers refuse what comes below the highest they saw.
CREATE TABLE link (
    id                INTEGER PRIMARY KEY,
    rule              TEXT    NOT NULL,
    bucket            TEXT    NOT NULL,
    peer              TEXT    NOT NULL,
    holder            TEXT    NOT NULL,
    epoch             INTEGER NOT NULL,
    UNIQUE (rule, bucket, peer)
) STRICT;

-- Where a link stands. Absent: it never recorded anything, or was released.
CREATE TABLE checkpoint (
    link              INTEGER PRIMARY KEY REFERENCES link (id),
    cursor            BLOB,
    floor             BLOB,
    committed_through INTEGER NOT NULL
) STRICT;

-- A version that failed while the peer answered. state: pending | parked.
CREATE TABLE link_row (
    link              INTEGER NOT NULL REFERENCES link (id),
    key               TEXT    NOT NULL,
    version_id        TEXT    NOT NULL,
    pending_since     INTEGER NOT NULL,
    bytes             INTEGER NOT NULL,
    attempts          INTEGER NOT NULL,
    next_attempt      INTEGER NOT NULL,
    last_error        TEXT    NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'parked')),
    floor             BLOB,
    PRIMARY KEY (link, key, version_id)
) STRICT, WITHOUT ROWID;
-- Finds what is due first without reading the rest; 'pending' is the greater word, hence DESC.
CREATE INDEX link_row_due ON link_row (link, state DESC, next_attempt);

-- Highest epoch seen of each incoming link (peer site/rule/bucket).
CREATE TABLE inbound_epoch (
    incoming          TEXT    PRIMARY KEY,
    epoch             INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Pairs of versions born without knowing of each other.
CREATE TABLE conflict (
    id                INTEGER PRIMARY KEY,
    bucket            TEXT    NOT NULL,
    key               TEXT    NOT NULL,
    later             TEXT    NOT NULL,
    earlier           TEXT    NOT NULL,
    seen_millis       INTEGER NOT NULL,
    UNIQUE (bucket, key, later, earlier)
) STRICT;
CREATE INDEX conflict_newest ON conflict (seen_millis, id);

-- The last accepted spec of a document, as JSON.
CREATE TABLE accepted_spec (
    document          TEXT    PRIMARY KEY,
    generation        INTEGER NOT NULL,
    spec              TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
