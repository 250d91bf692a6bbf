"""Metrics of Redis itself: durability of its writes, and memory."""

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
from tracker.redis.durability import writes_log
from tracker.redis.replies import info_fields
from tracker.redis.timer import RedisTimer

#: Seconds between two INFO requests.
INFO_INTERVAL: Final = 15


class RedisMetrics(RedisTimer):
    """Metrics from INFO, which is read at an interval.

    While Redis is down, the metrics have no values. CONFIG is not used, because settings may hold
    passwords; ``tracker-admin doctor`` checks how often Redis synchronises its file.

    :param metrics_registry: the registry to which the metrics are added.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, redis: RedisConnection, metrics_registry: CollectorRegistry
    ) -> None:
        super().__init__(clock, redis, INFO_INTERVAL, self._read_info)
        self._redis = redis
        self._info: Mapping[str, str] = {}
        metrics_registry.register(self)

    async def _read_info(self) -> None:
        try:
            self._info = info_fields(await self._redis.execute("INFO"))
        except (Refused, Unavailable) as error:
            self._log.debug("INFO failed: {error}", error=error)
            self._info = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by Prometheus' client at each scrape."""
        info = self._info if self._redis.connected else {}
        durable = gauge(
            "tracker_redis_durable",
            "1 if Redis keeps what it confirms: appendonly is on, the last write to the "
            "append-only file succeeded, and the policy is noeviction; else 0.",
        )
        used = gauge("tracker_redis_used_memory_bytes", "Memory that Redis uses.")
        maximum = gauge(
            "tracker_redis_maxmemory_bytes", "Memory limit of Redis (maxmemory); 0: no limit."
        )
        if info:
            durable.add_metric([], is_durable(info))
            used.add_metric([], _number(info, "used_memory"))
            maximum.add_metric([], _number(info, "maxmemory"))
        yield from (durable, used, maximum)


def is_durable(info: Mapping[str, str]) -> bool:
    """Return True if the fields of INFO show that confirmed writes are durable."""
    return (
        writes_log(info)
        and info.get("aof_last_write_status", "ok") == "ok"
        and info.get("maxmemory_policy", "noeviction") == "noeviction"
    )


def _number(info: Mapping[str, str], name: str) -> float:
    try:
        return float(info.get(name, 0))
    except ValueError:
        return math.nan
