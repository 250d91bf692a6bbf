"""SQLite: the whole database in one file, for one processor."""
