"""Metrics of Redis itself: whether what it confirms is durable, and its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.observe.figures import gauge
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import info_facts
from tracker.redis.timer import RedisTimer

#: Seconds between two requests.
INTERVAL: Final = 15


class RedisWatch(RedisTimer):
    """Reads INFO at an interval.

    While Redis cannot be asked there are no figures. CONFIG is not used, since settings may hold
    passwords; ``tracker-admin doctor`` checks how often Redis synchronises its file.

    :param metrics_registry: gets the metrics.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, redis: RedisConnection, metrics_registry: CollectorRegistry
    ) -> None:
        super().__init__(clock, redis, INTERVAL, self._look)
        self._redis = redis
        self._info: Mapping[str, str] = {}
        metrics_registry.register(self)

    async def _look(self) -> None:
        try:
            self._info = info_facts(await self._redis.execute("INFO"))
        except (Refused, Unavailable) as error:
            self._log.debug("Redis has not answered INFO: {error}", error=error)
            self._info = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by Prometheus' client at each scrape."""
        info = self._info
        durable = gauge(
            "tracker_redis_durable",
            "1 while what Redis confirms is safe there: it appends to a file, has written that "
            "last time, and evicts nothing; else 0.",
        )
        used = gauge("tracker_redis_used_memory_bytes", "Memory that Redis has used.")
        most = gauge("tracker_redis_maxmemory_bytes", "Memory that it may use; 0: no limit.")
        if info:
            durable.add_metric([], is_durable(info))
            used.add_metric([], _number(info, "used_memory"))
            most.add_metric([], _number(info, "maxmemory"))
        yield from (durable, used, most)


def is_durable(info: Mapping[str, str]) -> bool:
    """Return True if what Redis confirms is durable, as far as INFO reports it."""
    return (
        info.get("aof_enabled") == "1"
        and info.get("aof_last_write_status", "ok") == "ok"
        and info.get("maxmemory_policy", "noeviction") == "noeviction"
    )


def _number(info: Mapping[str, str], name: str) -> float:
    try:
        return float(info.get(name, 0))
    except ValueError:
        return math.nan
