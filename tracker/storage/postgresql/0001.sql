-- Device ids are compared bytewise (COLLATE "C"), which is the fastest comparison.

-- A repeated record has the same key.
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
    named           jsonb, -- named and scaled attributes, with the option --names
    received_at     timestamptz(3)    NOT NULL,
    PRIMARY KEY (device_id, ts, digest)
);

-- Rows are inserted roughly in the order of their time; a small BRIN index is therefore enough.
CREATE INDEX positions_ts ON positions USING brin (ts) WITH (autosummarize = on);

-- Messages of devices, which have no coordinates. Content that is not text is in attributes only.
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

-- The latest coordinates of each device, NULL until its first fix. Records without a fix
-- update last_contact only. Rows are updated very often; the free space in each block
-- (fillfactor) keeps the new versions in the same block.
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

-- The highest entry of each stream that a group has committed, updated in the transaction
-- of the entry's position.
CREATE TABLE checkpoints (
    stream     text NOT NULL,
    group_name text NOT NULL,
    entry_id   text NOT NULL,
    PRIMARY KEY (stream, group_name)
) WITH (fillfactor = 50);
