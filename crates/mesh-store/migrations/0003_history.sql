-- Faults of brokers, links and the balancer, as mesh-health tells them.
CREATE TABLE incident (
    id         TEXT    PRIMARY KEY,
    kind       TEXT    NOT NULL,
    broker     TEXT,
    "from"     TEXT,
    "to"       TEXT,
    generation INTEGER,
    reason     TEXT,
    began_at   INTEGER NOT NULL,  -- nanoseconds since 1970
    ended_at   INTEGER            -- null while it lasts
) STRICT;

CREATE INDEX incident_by_time ON incident (began_at);

CREATE TABLE incident_phase (
    incident   TEXT    NOT NULL REFERENCES incident (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,  -- the order in which phases happened
    phase      TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    elapsed_ms REAL    NOT NULL,
    PRIMARY KEY (incident, number)
) STRICT, WITHOUT ROWID;

-- One value every ten seconds, for charts.
CREATE TABLE sample (
    series TEXT    NOT NULL,  -- e.g. clients, in_per_s, rtt_ms, primary, latency_ms
    target TEXT    NOT NULL,  -- a broker, a link as from>to, or empty
    at     INTEGER NOT NULL,  -- nanoseconds since 1970
    value  REAL    NOT NULL,
    PRIMARY KEY (series, target, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX sample_by_time ON sample (at);
