-- Messages of devices, which have no coordinates. Content that is not text is in attributes only.
CREATE TABLE messages (
    device_id   TEXT    NOT NULL,
    ts          TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    vendor      TEXT    NOT NULL,
    codec       TEXT    NOT NULL,
    type        INTEGER,
    message     TEXT,
    attributes  TEXT    NOT NULL,
    received_at TEXT    NOT NULL,
    PRIMARY KEY (device_id, ts, digest)
) WITHOUT ROWID;

CREATE INDEX messages_ts ON messages (ts);

INSERT INTO messages
SELECT device_id, ts, digest, vendor, codec,
    CASE json_type(attributes, '$.message_type')
        WHEN 'integer' THEN json_extract(attributes, '$.message_type')
    END,
    CASE json_type(attributes, '$.message')
        WHEN 'text' THEN json_extract(attributes, '$.message')
    END,
    attributes, received_at
FROM positions WHERE latitude IS NULL AND json_type(attributes, '$.message') IS NOT NULL;

DELETE FROM positions WHERE latitude IS NULL AND json_type(attributes, '$.message') IS NOT NULL;

-- The generation type of Codec 16; NULL for other codecs.
ALTER TABLE positions ADD COLUMN generation_type INTEGER;
ALTER TABLE last_positions ADD COLUMN generation_type INTEGER;

-- Named and scaled attributes, with the option --names.
ALTER TABLE positions ADD COLUMN named TEXT;
ALTER TABLE last_positions ADD COLUMN named TEXT;
