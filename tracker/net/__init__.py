"""Endpoints, listening ports, TLS, PROXY headers, and bounded HTTP."""
