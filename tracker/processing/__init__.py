"""From the streams into the database, exactly once."""
