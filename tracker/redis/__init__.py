"""The Redis client: connections, Sentinels, scripts, and an embedded server."""
