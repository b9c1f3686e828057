-- Who was connected where, since when, from which real address, and why it left.
CREATE TABLE client_session (
    id              INTEGER PRIMARY KEY,
    client_id       TEXT    NOT NULL,
    broker          TEXT    NOT NULL,
    username        TEXT,
    protocol        TEXT,              -- 3.1, 3.1.1 or 5
    keep_alive      INTEGER,           -- seconds
    clean_start     INTEGER,
    connected_at    INTEGER NOT NULL,  -- nanoseconds since 1970
    disconnected_at INTEGER,           -- null while connected
    reason          TEXT,              -- why it ended
    remote_addr     TEXT,              -- the client's real address
    broker_addr     TEXT               -- the address that the broker saw: the client's own, or one of the balancer
) STRICT;

CREATE INDEX client_session_by_client ON client_session (client_id, connected_at);
CREATE INDEX client_session_open ON client_session (broker) WHERE disconnected_at IS NULL;

-- Connections through the balancer of which the broker's line has not been seen yet.
CREATE TABLE proxied_connection (
    source      INTEGER NOT NULL,
    number      INTEGER NOT NULL,  -- Nginx's *N
    remote_addr TEXT    NOT NULL,
    broker_addr TEXT,              -- the balancer's address towards the broker, once it is known
    upstream    TEXT,              -- the broker's address
    time_ns     INTEGER NOT NULL,
    PRIMARY KEY (source, number)
) STRICT, WITHOUT ROWID;
