"""Everything that speaks Redis: connections, appending, reading by group, lag."""
