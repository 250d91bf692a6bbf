-- Times are text in ISO 8601 UTC with milliseconds and "Z", and therefore sort correctly.

-- A repeated record has the same key.
CREATE TABLE positions (
    device_id   TEXT    NOT NULL,
    ts          TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    vendor      TEXT    NOT NULL,
    codec       TEXT    NOT NULL,
    latitude    REAL,
    longitude   REAL,
    altitude    INTEGER,
    angle       INTEGER,
    speed       INTEGER,
    satellites  INTEGER,
    priority    INTEGER NOT NULL,
    event       INTEGER NOT NULL,
    attributes  TEXT    NOT NULL,
    received_at TEXT    NOT NULL,
    PRIMARY KEY (device_id, ts, digest)
) WITHOUT ROWID;

CREATE INDEX positions_ts ON positions (ts);

-- The latest coordinates of each device, NULL until its first fix. Records without a fix
-- update last_contact only.
CREATE TABLE last_positions (
    device_id    TEXT PRIMARY KEY,
    last_contact TEXT NOT NULL,
    ts           TEXT,
    digest       BLOB,
    vendor       TEXT,
    codec        TEXT,
    latitude     REAL,
    longitude    REAL,
    altitude     INTEGER,
    angle        INTEGER,
    speed        INTEGER,
    satellites   INTEGER,
    priority     INTEGER,
    event        INTEGER,
    attributes   TEXT,
    received_at  TEXT
) WITHOUT ROWID;

-- The highest entry of each stream that a group has committed, updated in the transaction
-- of the entry's position.
CREATE TABLE checkpoints (
    stream     TEXT NOT NULL,
    group_name TEXT NOT NULL,
    entry_id   TEXT NOT NULL,
    PRIMARY KEY (stream, group_name)
) WITHOUT ROWID;
