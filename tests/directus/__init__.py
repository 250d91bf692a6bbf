"""Tests with a real Directus; ``make test-directus`` runs them, and nothing else does."""

from tests.directus.server import LOCAL_ALLOWED, DirectusServer

__all__ = ["LOCAL_ALLOWED", "DirectusServer"]
