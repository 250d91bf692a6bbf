"""Report streams that are written and have no reader.

Each ingest instance names in its heartbeat the streams that it writes. If ingestion and processing
use different names, nothing fails and nothing is stored; so this is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from twisted.internet.interfaces import IReactorTime

from tracker.errors import Refused, Unavailable
from tracker.keys import PROCESSOR_GROUP
from tracker.log.redis.heartbeats import advertised_streams
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.replies import mapping
from tracker.redis.timer import RedisTimer
from tracker.untrusted import listed

#: Seconds between two checks.
INTERVAL: Final = 30
#: A consumer is alive if it has read within these milliseconds: it does so every few seconds.
ALIVE_MS: Final = 60_000


class DriftGuard(RedisTimer):
    """Looks for advertised streams that neither this processor nor another one reads.

    :param streams: streams that this processor reads.
    :param condition: met while there is no such stream.
    :param metrics_registry: gets their number as a metric.
    """

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        streams: Iterable[str],
        condition: Condition,
        *,
        metrics_registry: CollectorRegistry | None,
    ) -> None:
        super().__init__(clock, redis, INTERVAL, self._look)
        self._redis = redis
        self._streams = frozenset(streams)
        self._condition = condition
        self._unread = Gauge(
            "tracker_unread_streams",
            "Streams that ingestion writes, and that no processor reads.",
            registry=metrics_registry,
        )

    def startService(self) -> None:
        """Look as soon as Redis is there, then regularly."""
        super().startService()
        self._condition.met()

    async def _look(self) -> None:
        try:
            advertised = await advertised_streams(self._redis)
            unread = [
                stream
                for stream in sorted(set(advertised) - self._streams)
                if not await self._is_read(stream)
            ]
        except Unavailable:
            return  # the connection reports it, and the next look is due anyway
        except Refused as error:
            self._condition.fails(f"what ingestion writes cannot be looked up: {error}")
            return
        self._unread.set(len(unread))
        told = listed(f"{stream} (written by {advertised[stream]})" for stream in unread)
        if unread:
            self._condition.fails(f"streams that nobody reads: {told}")
        else:
            self._condition.met()

    async def _is_read(self, stream: str) -> bool:
        try:
            consumers = await self._redis.execute("XINFO", "CONSUMERS", stream, PROCESSOR_GROUP)
        except Refused as error:
            # A key of another type is not a stream, so no group reads it.
            absent = any(why in str(error) for why in ("NOGROUP", "no such key"))
            if absent or is_wrong_type(error):
                return False
            raise
        return any(mapping(consumer)[b"idle"] < ALIVE_MS for consumer in consumers)
