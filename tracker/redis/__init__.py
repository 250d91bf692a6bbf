"""The client of Redis: connections, Sentinels, scripts, and an embedded server."""
