"""The SQLite sink, a database in one file, for one processor."""
