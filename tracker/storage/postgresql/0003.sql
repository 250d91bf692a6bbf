-- readable_from: 0.1.0

-- The name of a message, from vendors whose messages have names instead of numbers. NULL for
-- others.
ALTER TABLE messages ADD COLUMN name text;
