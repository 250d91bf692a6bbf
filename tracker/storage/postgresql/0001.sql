-- The key's first part is compared byte by byte: it is digits, and this is the quickest.

-- A record that a device sends twice has the same key twice.
CREATE TABLE positions (
    device_id       text COLLATE "C"  NOT NULL,
    ts              timestamptz(3)    NOT NULL,
    digest          bytea             NOT NULL,
    vendor          text              NOT NULL,
    codec           text              NOT NULL,
    latitude        double precision,
    longitude       double precision,
    altitude        integer,
    angle           integer,
    speed           integer,
    satellites      integer,
    priority        integer           NOT NULL,
    event           integer           NOT NULL,
    generation_type integer,
    attributes      jsonb             NOT NULL,
    named           jsonb, -- what the attributes mean, where that is asked for
    received_at     timestamptz(3)    NOT NULL,
    PRIMARY KEY (device_id, ts, digest)
);

-- Rows come about in the order of their time: a small index tells in which blocks to look.
CREATE INDEX positions_ts ON positions USING brin (ts) WITH (autosummarize = on);

-- What a device said without a place. What is no text stands in attributes only.
CREATE TABLE messages (
    device_id   text COLLATE "C" NOT NULL,
    ts          timestamptz(3)   NOT NULL,
    digest      bytea            NOT NULL,
    vendor      text             NOT NULL,
    codec       text             NOT NULL,
    type        integer,
    message     text,
    attributes  jsonb            NOT NULL,
    received_at timestamptz(3)   NOT NULL,
    PRIMARY KEY (device_id, ts, digest)
);

CREATE INDEX messages_ts ON messages USING brin (ts) WITH (autosummarize = on);

-- The latest place of each device; NULL until it has had a fix. Records without a fix
-- move last_contact only. Each row changes all the time: room in each block lets it
-- change there.
CREATE TABLE last_positions (
    device_id       text COLLATE "C" PRIMARY KEY,
    last_contact    timestamptz(3)   NOT NULL,
    ts              timestamptz(3),
    digest          bytea,
    vendor          text,
    codec           text,
    latitude        double precision,
    longitude       double precision,
    altitude        integer,
    angle           integer,
    speed           integer,
    satellites      integer,
    priority        integer,
    event           integer,
    generation_type integer,
    attributes      jsonb,
    named           jsonb,
    received_at     timestamptz(3)
) WITH (fillfactor = 50);

-- The highest entry of each stream that a group has committed, written in the same
-- transaction as the entry's position.
CREATE TABLE checkpoints (
    stream     text NOT NULL,
    group_name text NOT NULL,
    entry_id   text NOT NULL,
    PRIMARY KEY (stream, group_name)
) WITH (fillfactor = 50);
