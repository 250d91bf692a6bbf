"""The rows of commands, changed so that a status never goes back.

Directus finds the rows that a change is for first, and then changes them; in between another
change may come. So those of one row are made one after another, by this one bridge.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredLock

from tracker.bridge.rest import DirectusClient
from tracker.bridge.rows import may_be_followed_by
from tracker.bridge.schema import COMMANDS


class CommandTable:
    """The collection ``commands``."""

    def __init__(self, directus: DirectusClient) -> None:
        self._directus = directus
        self._locks: dict[str, DeferredLock] = {}

    async def change(self, key: str, fields: dict[str, Any]) -> bool:
        """Change a row, if its status may be followed by the one in ``fields``.

        :return: whether there was such a row.
        :raises DirectusError: see its subclasses.
        """
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            may_follow = may_be_followed_by(fields["status"])
            where = {"id": {"_eq": key}, "status": {"_in": may_follow}}
            return bool(await self._directus.update_where(COMMANDS, where, fields))
        finally:
            lock.release()
            if not (lock.locked or lock.waiting):
                self._locks.pop(key, None)
