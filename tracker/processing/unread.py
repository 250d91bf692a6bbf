"""Detection of streams that ingestion writes and no processor reads.

Each ingest instance advertises in its heartbeat the streams that it writes. If ingestion and
processing use different names, nothing fails, but nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime

from tracker.errors import Refused, Unavailable
from tracker.keys import PROCESSOR_GROUP
from tracker.log.redis.heartbeats import advertised_streams
from tracker.observe.figures import OptionalGauge
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.replies import mapping
from tracker.redis.timer import RedisTimer
from tracker.untrusted import listed

#: Seconds between two checks.
CHECK_INTERVAL: Final = 30
#: Milliseconds since a consumer's last read within which it counts as live. Consumers read every
#: few seconds.
LIVE_TIMEOUT_MS: Final = 60_000


class UnreadStreams(RedisTimer):
    """Service that reports advertised streams that no processor reads.

    :param streams: streams that this processor reads.
    :param condition: met while all advertised streams are read.
    :param metrics_registry: the registry to which the number of unread streams is added.
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
        super().__init__(clock, redis, CHECK_INTERVAL, self._check)
        self._redis = redis
        self._streams = frozenset(streams)
        self._condition = condition
        self._unread = OptionalGauge(
            "tracker_unread_streams",
            "Streams that ingestion writes and no processor reads; absent while unknown.",
            metrics_registry,
        )

    def startService(self) -> None:
        """Check as soon as Redis is connected, then at an interval."""
        super().startService()
        self._condition.met()

    async def _check(self) -> None:
        try:
            advertised = await advertised_streams(self._redis)
            unread = [
                stream
                for stream in sorted(set(advertised) - self._streams)
                if not await self._is_read(stream)
            ]
        except Unavailable:
            self._unread.set(None)
            return  # the connection reports the outage, and the next check follows
        except Refused as error:
            self._unread.set(None)
            self._condition.fails(f"cannot read the heartbeats of ingest instances: {error}")
            return
        self._unread.set(len(unread))
        if unread:
            text = listed(f"{stream} (written by {advertised[stream]})" for stream in unread)
            self._condition.fails(f"streams that no processor reads: {text}")
        else:
            self._condition.met()

    async def _is_read(self, stream: str) -> bool:
        try:
            consumers = await self._redis.execute("XINFO", "CONSUMERS", stream, PROCESSOR_GROUP)
        except Refused as error:
            # A key of another type is not a stream, so no group reads it.
            absent = any(text in str(error) for text in ("NOGROUP", "no such key"))
            if absent or is_wrong_type(error):
                return False
            raise
        return any(mapping(consumer)[b"idle"] < LIVE_TIMEOUT_MS for consumer in consumers)
