-- readable_from: 0.1.0

-- This migration and later ones, each with the oldest version of Tracker that can use the tables
-- after it.
CREATE TABLE schema_migrations (
    version       INTEGER PRIMARY KEY,
    readable_from TEXT    NOT NULL,
    applied_at    TEXT    NOT NULL
);

-- The field "extra" of the stream entry, with the marks of the processor: {"fix": false} if the
-- coordinates are not those of the record, {"clock": …} if its time is not.
ALTER TABLE positions ADD COLUMN extra TEXT;
ALTER TABLE messages ADD COLUMN extra TEXT;

-- The latest record of each device whose time was wrong: the kind of the error, the time that the
-- record gave, and its arrival. NULL if there was none.
ALTER TABLE last_positions ADD COLUMN extra TEXT;
ALTER TABLE last_positions ADD COLUMN clock_error TEXT;
ALTER TABLE last_positions ADD COLUMN clock_error_ts TEXT;
ALTER TABLE last_positions ADD COLUMN clock_error_at TEXT;

-- Progress of repairs of old rows: everything up to this key is done.
CREATE TABLE repairs (
    name        TEXT PRIMARY KEY,
    done_up_to  TEXT,
    finished_at TEXT
) WITHOUT ROWID;
