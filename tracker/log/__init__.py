"""The record log: what ingestion appends and processors read."""
