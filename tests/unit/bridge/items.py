"""Requests for single rows, which people and administrators make, and the bridge does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tracker.bridge.rest import DirectusClient, items_path


async def create(client: DirectusClient, collection: str, data: Mapping[str, Any]) -> Any:
    """Add a row, and return the fields that the user may see; None if there are none."""
    return await client.request("POST", items_path(collection), dict(data))


async def update_item(
    client: DirectusClient, collection: str, key: str, data: Mapping[str, Any]
) -> Any:
    """Change one row, and return the fields that the user may see; None if there are none."""
    path = f"{items_path(collection)}/{quote(key, safe='')}"
    return await client.request("PATCH", path, dict(data))
