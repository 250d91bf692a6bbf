"""The control port of an ingest instance: AMP commands, server, client, pool and access."""
