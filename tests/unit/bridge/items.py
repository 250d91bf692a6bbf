"""Requests for single rows, as users make them; the bridge does not need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tracker.bridge.rest import DirectusClient, items_path


async def create(client: DirectusClient, collection: str, data: Mapping[str, Any]) -> Any:
    """Add a row, and return the fields that the user may see, or None."""
    return await client.request("POST", items_path(collection), dict(data))


async def update_item(
    client: DirectusClient, collection: str, key: str, data: Mapping[str, Any]
) -> Any:
    """Change one row, and return the fields that the user may see, or None."""
    path = f"{items_path(collection)}/{quote(key, safe='')}"
    return await client.request("PATCH", path, dict(data))
