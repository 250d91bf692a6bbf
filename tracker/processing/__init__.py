"""Move positions from the streams into the database, each exactly once."""
