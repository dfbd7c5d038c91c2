-- Which version of ours is which of a foreign target's. born: bits of the HLC. state: 16 bytes, a hash.
CREATE TABLE version_map (
    link              BIGINT NOT NULL REFERENCES link (id),
    key               BYTEA NOT NULL,
    version_id        BYTEA NOT NULL,
    remote_id         BYTEA NOT NULL,
    born              BIGINT NOT NULL,
    state             BYTEA NOT NULL,
    PRIMARY KEY (link, key, version_id)
);

-- Multipart uploads at a foreign target that are not over.
CREATE TABLE upload (
    link              BIGINT NOT NULL REFERENCES link (id),
    key               BYTEA NOT NULL,
    version_id        BYTEA NOT NULL,
    upload_id         BYTEA NOT NULL,
    PRIMARY KEY (link, key, version_id)
);
