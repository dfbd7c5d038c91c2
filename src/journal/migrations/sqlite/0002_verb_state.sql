-- What a verb set and a restart keeps (suspended, released), as JSON. subject: rule/<uid> | peer/<name>.
CREATE TABLE verb_state (
    subject           TEXT    PRIMARY KEY,
    state             TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
