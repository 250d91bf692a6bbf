"""Lag of groups in ``/metrics`` and ``/readyz``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.keys import PROCESSOR_GROUP
from tracker.log.redis.lag import MANY_GROUPS, ConsumerLag, GroupLag, StreamLag, stream_lag
from tracker.observe.figures import gauge
from tracker.observe.health import Health
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer

#: Seconds between two reads of the lag.
LAG_INTERVAL: Final = 5
#: Seconds since a consumer's last read within which it counts as live. Consumers read every few
#: seconds.
LIVE_TIMEOUT: Final = 60.0

#: Maximum age of the figures in seconds; older ones are unknown.
MAX_FIGURES_AGE: Final = 30.0

#: Maximum numbers of groups of a stream, and of consumers of a group, that have metrics.
MAX_LABELLED: Final = MANY_GROUPS

T = TypeVar("T", ConsumerLag, GroupLag)

_GROUP: Final = ("stream", "group")
_CONSUMER: Final = ("stream", "group", "consumer")


@frozen
class _Reading:
    time: float
    lag: StreamLag


class LagMetrics(RedisTimer):
    """Service that reads the lag of all groups of some streams every few seconds.

    While Redis is down, the metrics have no values but the time of the last read, and the detail
    has the last figures with their age. A missing stream has no figures.

    :param streams: streams that the group ``processor`` must read.
    :param others: streams that need no group.
    :param health: gets the detail ``lag``.
    :param metrics_registry: the registry to which the metrics are added.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        streams: Iterable[str],
        *,
        health: Health,
        metrics_registry: CollectorRegistry,
        others: Iterable[str] = (),
    ) -> None:
        super().__init__(clock, redis, LAG_INTERVAL, self._read_lag)
        self._clock = clock
        self._redis = redis
        self._processed = frozenset(streams)
        self._streams = sorted(self._processed.union(others))
        self._readings: dict[str, _Reading] = {}
        health.detail("lag", self._describe)
        metrics_registry.register(self)

    async def _read_lag(self) -> None:
        for stream in self._streams:
            try:
                lag = await stream_lag(self._redis, stream)
            except (Refused, Unavailable) as error:
                # The connection reports an outage, and a metric shows the age of the figures.
                self._log.debug("lag of {stream} is unknown: {error}", stream=stream, error=error)
                continue
            except Exception:  # noqa: BLE001 - an exception would stop the timer for good
                self._log.failure("lag of {stream} is unknown", stream=stream)
                continue
            if lag is None:
                self._readings.pop(stream, None)
            else:
                self._readings[stream] = _Reading(self._clock.seconds(), lag)

    def _describe(self) -> dict[str, Any]:
        now = self._clock.seconds()
        return {
            stream: {
                "read_seconds_ago": round(now - reading.time, 3),
                "entries": reading.lag.entries,
                "groups": {group.name: group.as_json() for group in _labelled(reading.lag.groups)},
            }
            for stream, reading in sorted(self._readings.items())
        }

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by Prometheus' client at each scrape."""
        entries = gauge("tracker_stream_entries", "Entries in the stream.", "stream")
        read_at = gauge(
            "tracker_stream_lag_read_timestamp_seconds",
            "Time at which the figures of the stream were read, in seconds since 1970.",
            "stream",
        )
        lag = gauge(
            "tracker_stream_lag_entries",
            "Entries not yet delivered to the group; absent if their number is unknown.",
            *_GROUP,
        )
        pending = gauge(
            "tracker_stream_pending_entries",
            "Entries delivered to the group and not yet acknowledged.",
            *_GROUP,
        )
        age = gauge(
            "tracker_stream_oldest_unprocessed_age_seconds",
            "Age of the oldest entry that the group has not acknowledged; 0 if there is none.",
            *_GROUP,
        )
        consumer_pending = gauge(
            "tracker_group_consumer_pending_entries",
            "Entries delivered to the consumer and not yet acknowledged.",
            *_CONSUMER,
        )
        idle = gauge(
            "tracker_group_consumer_idle_seconds",
            "Time since the consumer's last attempt to read.",
            *_CONSUMER,
        )
        live = gauge(
            "tracker_group_live_consumers",
            "Consumers of the group that have tried to read within the last minute.",
            *_GROUP,
        )
        now = self._clock.seconds()
        for stream, reading in self._readings.copy().items():
            read_at.add_metric([stream], reading.time)
            if now - reading.time > MAX_FIGURES_AGE or not self._redis.connected:
                continue
            if stream in self._processed and reading.lag.group(PROCESSOR_GROUP) is None:
                live.add_metric([stream, PROCESSOR_GROUP], 0)
            entries.add_metric([stream], reading.lag.entries)
            for group in _labelled(reading.lag.groups):
                labels = [stream, group.name]
                if group.undelivered is not None:
                    lag.add_metric(labels, group.undelivered)
                pending.add_metric(labels, group.pending)
                age.add_metric(labels, group.oldest_age)
                if group.consumers or not group.consumer_count:  # false if too many to read
                    live_count = sum(consumer.idle < LIVE_TIMEOUT for consumer in group.consumers)
                    live.add_metric(labels, live_count)
                for consumer in _labelled(group.consumers):
                    consumer_pending.add_metric([*labels, consumer.name], consumer.pending)
                    idle.add_metric([*labels, consumer.name], consumer.idle)
        yield from (entries, read_at, lag, pending, age, live, consumer_pending, idle)


def _labelled(named: Sequence[T]) -> list[T]:
    """Return the groups or consumers that have metrics: the first one of each name."""
    return list({one.name: one for one in reversed(named)}.values())[::-1][:MAX_LABELLED]
