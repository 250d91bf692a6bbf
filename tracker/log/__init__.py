"""The record log, to which ingestion appends and from which processors read."""
