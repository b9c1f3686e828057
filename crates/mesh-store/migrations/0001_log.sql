-- Where lines come from, and how far each source has been read: kept with the rows, in one transaction.
CREATE TABLE source (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL,             -- logs.source[].name of mesh.toml
    stream       TEXT    NOT NULL,             -- the file of a glob; empty where a source has only one stream
    device       INTEGER NOT NULL DEFAULT 0,   -- the file read last, as the file system numbers it
    inode        INTEGER NOT NULL DEFAULT 0,
    head_bytes   INTEGER NOT NULL DEFAULT 0,   -- its first bytes, as many as were read but at most 1,024 …
    head_hash    INTEGER NOT NULL DEFAULT 0,   -- … and their hash: what tells a file from a copy or a successor
    position     INTEGER NOT NULL DEFAULT 0,   -- bytes read
    modified_ns  INTEGER NOT NULL DEFAULT 0,   -- when that file had been modified last
    journal      TEXT    NOT NULL DEFAULT '',  -- journald's cursor
    last_key     INTEGER NOT NULL DEFAULT 0,   -- see log.id
    lines        INTEGER NOT NULL DEFAULT 0,
    bytes        INTEGER NOT NULL DEFAULT 0,
    unparsed     INTEGER NOT NULL DEFAULT 0,
    gaps         INTEGER NOT NULL DEFAULT 0,   -- how often lines may be missing, each with a line of its own in the log
    read_ns      INTEGER NOT NULL DEFAULT 0,   -- when something was read last
    UNIQUE (name, stream)
) STRICT;

-- One line a row. The id is the time in microseconds, shifted by ten bits, plus the source's number in those: rows are
-- stored in the order of time, a range of time is a range of ids, and the newest rows are the last ones, without an
-- index. Lines of one source with the same time get the next free microseconds, so that their order is kept.
CREATE TABLE log (
    id          INTEGER PRIMARY KEY,
    time_ns     INTEGER NOT NULL,   -- as the line says
    observed_ns INTEGER NOT NULL,   -- when its batch was written; rises with each batch
    severity    INTEGER NOT NULL,   -- OpenTelemetry's severity number
    body        TEXT    NOT NULL,
    attributes  TEXT,               -- JSON
    event       TEXT,
    node        TEXT,
    broker      TEXT,
    service     TEXT    NOT NULL,
    client_id   TEXT,
    source      INTEGER NOT NULL
) STRICT;

-- The words of each line, and its fields as words that no line can contain. Only the index is stored; a deleted row is
-- known by its rowid alone.
CREATE VIRTUAL TABLE log_fts USING fts5 (
    text,
    content = '',
    contentless_delete = 1,
    tokenize = "unicode61"
);

-- The batches of the last minutes, so that a reader can ask for what was written since it looked last.
CREATE TABLE batch (
    observed_ns INTEGER PRIMARY KEY,
    first_id    INTEGER NOT NULL,
    last_id     INTEGER NOT NULL
) STRICT;
