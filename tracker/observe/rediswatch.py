"""Keeps an eye on Redis itself: whether what it confirms is safe there, and its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from twisted.logger import Logger

from tracker.observe.figures import gauge
from tracker.streams.connection import RedisConnection, Refused, Unavailable
from tracker.streams.timer import RedisTimer

#: Seconds between two looks.
INTERVAL: Final = 15


class RedisWatch(RedisTimer):
    """Reads what Redis tells of itself.

    While it cannot be asked there are no figures. Its user may lack the right to ask for
    settings; then what it tells without being asked for them has to do.

    :param registry: gets the metrics.
    """

    _log = Logger()

    def __init__(self, clock: Any, redis: RedisConnection, registry: CollectorRegistry) -> None:
        super().__init__(clock, redis, INTERVAL, self._look)
        self._redis = redis
        self._info: Mapping[str, str] = {}
        self._fsync = ""  # as far as it is known
        self._may_ask_settings = True  # until that is refused: Redis keeps a log of refusals
        registry.register(self)

    async def _look(self) -> None:
        try:
            info = _facts(await self._redis.execute("INFO"))
        except (Refused, Unavailable) as error:
            self._log.debug("Redis does not tell of itself: {error}", error=error)
            self._info = {}
            return
        self._fsync = await self._setting("appendfsync")
        self._info = info

    async def _setting(self, name: str) -> str:
        if not self._may_ask_settings:
            return ""
        try:
            reply = await self._redis.execute("CONFIG", "GET", name)
        except Refused:
            self._may_ask_settings = False
            return ""
        except Unavailable:
            return ""
        found: dict[bytes, bytes] = dict(zip(reply[::2], reply[1::2], strict=True))
        return found.get(name.encode(), b"").decode()

    def collect(self) -> Iterator[Metric]:
        """The metrics, asked for by Prometheus' client at each scrape."""
        info, fsync = self._info, self._fsync
        durable = gauge(
            "tracker_redis_durable",
            "1 while what Redis confirms is safe there: it appends to a file, synchronises that "
            "(where it tells), has written it last time, and evicts nothing; else 0.",
        )
        used = gauge("tracker_redis_used_memory_bytes", "Memory that Redis has used.")
        most = gauge("tracker_redis_maxmemory_bytes", "Memory that it may use; 0: no limit.")
        if info:
            durable.add_metric([], is_durable(info, fsync))
            used.add_metric([], _number(info, "used_memory"))
            most.add_metric([], _number(info, "maxmemory"))
        yield from (durable, used, most)


def is_durable(info: Mapping[str, str], fsync: str) -> bool:
    """Whether what Redis confirms is safe there, but for a second of it at most.

    :param info: what INFO tells.
    :param fsync: its appendfsync; empty where that is not known.
    """
    return (
        info.get("aof_enabled") == "1"
        and info.get("aof_last_write_status", "ok") == "ok"
        and info.get("maxmemory_policy", "noeviction") == "noeviction"
        and fsync != "no"
    )


def _facts(reply: bytes) -> dict[str, str]:
    """Name → value, of all sections."""
    lines = reply.decode(errors="backslashreplace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def _number(info: Mapping[str, str], name: str) -> float:
    return float(info.get(name, 0))
