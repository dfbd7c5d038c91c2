-- Which version of ours is which of a foreign target's. born: bits of the HLC. state: 16 bytes, a hash.
CREATE TABLE version_map (
    link              INTEGER NOT NULL REFERENCES link (id),
    key               TEXT    NOT NULL,
    version_id        TEXT    NOT NULL,
    remote_id         TEXT    NOT NULL,
    born              INTEGER NOT NULL,
    state             BLOB    NOT NULL,
    PRIMARY KEY (link, key, version_id)
) STRICT, WITHOUT ROWID;

-- Multipart uploads at a foreign target that are not over.
CREATE TABLE upload (
    link              INTEGER NOT NULL REFERENCES link (id),
    key               TEXT    NOT NULL,
    version_id        TEXT    NOT NULL,
    upload_id         TEXT    NOT NULL,
    PRIMARY KEY (link, key, version_id)
) STRICT, WITHOUT ROWID;
