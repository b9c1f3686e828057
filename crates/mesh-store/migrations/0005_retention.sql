-- The full-text index in parts, words_1, words_2 and so on: each holds the lines from its first id to the next part's. What
-- there was before is the first of them, and counts as full.
CREATE TABLE part (
    number   INTEGER PRIMARY KEY,
    first_id INTEGER NOT NULL UNIQUE,
    lines    INTEGER NOT NULL          -- how many were put in
) STRICT;

DROP TABLE log_term;
ALTER TABLE log_fts RENAME TO words_1;
-- The terms of a part in their order; stores nothing of its own.
CREATE VIRTUAL TABLE terms_1 USING fts5vocab('words_1', 'instance');
INSERT INTO part SELECT 1, -9223372036854775808, 1 << 40 WHERE EXISTS (SELECT 1 FROM log);

-- Old sessions are looked for with every few hundred lines that are deleted.
CREATE INDEX client_session_ended ON client_session (disconnected_at) WHERE disconnected_at IS NOT NULL;
