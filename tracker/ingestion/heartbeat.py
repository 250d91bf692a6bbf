"""Tells the other processes that this instance lives, and which streams it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError, succeed  # noqa: A004
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker import __version__
from tracker.ingestion.gateway import Gateway
from tracker.keys import heartbeat
from tracker.position import iso_milliseconds
from tracker.streams.connection import RedisConnection, Refused, Unavailable
from tracker.streams.timer import RedisTimer

#: Seconds between two beats.
INTERVAL: Final = 30
#: Seconds after which an instance without a beat counts as dead.
EXPIRY: Final = 90

#: Seconds that a stop waits for Redis to forget it.
WITHDRAWAL_TIMEOUT: Final = 2


class Heartbeat(RedisTimer):
    """Keeps ``instance:heartbeat:{instance_id}`` alive while the instance is."""

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        redis: RedisConnection,
        instance_id: str,
        gateways: Mapping[str, Gateway],
    ) -> None:
        """:param gateways: stream → the gateway that fills it."""
        super().__init__(clock, redis, INTERVAL, self._beat)
        self._clock = clock
        self._redis = redis
        self._key = heartbeat(instance_id)
        self._gateways = gateways
        self._started_at = ""

    def startService(self) -> None:
        """Beat as soon as Redis is there, then regularly."""
        self._started_at = iso_milliseconds(int(self._clock.seconds() * 1000))
        super().startService()

    async def _withdraw(self, beating: Deferred[None]) -> None:
        await beating
        await self._redis.execute("DEL", self._key)

    def _not_withdrawn(self, failure: Failure) -> None:
        failure.trap(Refused, Unavailable, TimeoutError)
        self._log.info("heartbeat not withdrawn: it expires in {seconds} s", seconds=EXPIRY)

    def stopService(self) -> Deferred[None]:
        """Withdraw the heartbeat, so that nobody waits for it to expire."""
        if not self.running:
            return succeed(None)
        withdrawn = Deferred.fromCoroutine(self._withdraw(super().stopService()))
        return withdrawn.addTimeout(WITHDRAWAL_TIMEOUT, self._clock).addErrback(self._not_withdrawn)

    async def _beat(self) -> None:
        beat = {
            "started_at": self._started_at,
            "version": __version__,
            "connections": sum(gateway.connections for gateway in self._gateways.values()),
            "streams": sorted(self._gateways),
        }
        try:
            await self._redis.execute("SET", self._key, json.dumps(beat), "EX", EXPIRY)
        except (Refused, Unavailable) as error:
            # The connection reports an outage; the next beat is due anyway.
            self._log.debug("no heartbeat: {error}", error=error)
