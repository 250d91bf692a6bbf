"""Listening ports and what all of them need: TLS, limits, bounded HTTP."""
