"""Tests with a real Directus, which only ``make test-directus`` runs."""

from tests.directus.server import LOCAL_ALLOWED, DirectusServer

__all__ = ["LOCAL_ALLOWED", "DirectusServer"]
