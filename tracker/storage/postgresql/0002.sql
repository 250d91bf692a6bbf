-- readable_from: 0.1.0

-- This migration and later ones, each with the oldest version of Tracker that can use the tables
-- after it.
CREATE TABLE schema_migrations (
    version       integer     PRIMARY KEY,
    readable_from text        NOT NULL,
    applied_at    timestamptz NOT NULL DEFAULT now()
);

-- Processors that must not change tables read it by a role of their own.
DO $$
DECLARE
    role text;
BEGIN
    FOR role IN
        SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = 'schema_version'::regclass AND privilege_type = 'SELECT'
    LOOP
        EXECUTE 'GRANT SELECT ON schema_migrations TO ' || role;
    END LOOP;
END
$$;

-- The field "extra" of the stream entry, with the marks of the processor: {"fix": false} if the
-- coordinates are not those of the record, {"clock": …} if its time is not. As jsonb, the widths
-- of 19 elements would take 308 bytes; as json they take 104.
ALTER TABLE positions ADD COLUMN extra json;
ALTER TABLE messages ADD COLUMN extra json;

-- The latest record of each device whose time was wrong: the kind of the error, the time that the
-- record gave, and its arrival. NULL if there was none.
ALTER TABLE last_positions ADD COLUMN extra json;
ALTER TABLE last_positions ADD COLUMN clock_error text;
ALTER TABLE last_positions ADD COLUMN clock_error_ts timestamptz(3);
ALTER TABLE last_positions ADD COLUMN clock_error_at timestamptz(3);

-- Progress of repairs of old rows: everything up to this key is done.
CREATE TABLE repairs (
    name        text PRIMARY KEY,
    done_up_to  jsonb,
    finished_at timestamptz
);
