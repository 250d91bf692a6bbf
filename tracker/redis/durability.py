"""Check at the start of a process that Redis keeps on disk what it confirms."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import info_fields


def writes_log(info: Mapping[str, str]) -> bool:
    """Return True if the fields of INFO show that the server writes an append-only file.

    Snapshots (``save``) do not count: a crash loses what was confirmed since the last one. How
    often the file is synchronised is a choice, of which ``everysec`` is allowed.
    """
    return info.get("aof_enabled") == "1"


class DurabilityCheck(Service):
    """Logs a warning at the start of a process if Redis writes no append-only file.

    It uses INFO, since CONFIG may show passwords. A user who may not run it gets no warning.
    """

    _log = Logger()

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    def startService(self) -> None:
        """Check the server once it is connected."""
        super().startService()
        Deferred.fromCoroutine(self._check())

    async def _check(self) -> None:
        try:
            await self._redis.when_connected()
            info = info_fields(await self._redis.execute("INFO", "persistence"))
        except (Refused, Unavailable) as error:
            self._log.debug("durability of Redis is unknown: {error}", error=error)
            return
        if not writes_log(info):
            self._log.warn(
                "Redis has appendonly no: acknowledged records are lost if it crashes. Set "
                "appendonly yes in redis.conf."
            )
