"""Watch the lag of groups, for ``/metrics`` and ``/readyz``."""

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

#: Seconds between two readings.
INTERVAL: Final = 5
#: A consumer is alive if it has asked within these seconds: it does so every few seconds.
ALIVE: Final = 60.0

#: Groups of a stream, and consumers of a group, that have metrics.
MAX_LABELLED: Final = MANY_GROUPS

T = TypeVar("T", ConsumerLag, GroupLag)

_GROUP: Final = ("stream", "group")
_CONSUMER: Final = ("stream", "group", "consumer")


@frozen
class _Look:
    at: float
    lag: StreamLag


class LagWatch(RedisTimer):
    """Reads the lag of all groups of some streams every few seconds.

    While Redis cannot be asked, the last figures stay, and their age is reported. A missing stream
    has none.

    :param streams: streams that the group ``processor`` has to read.
    :param others: streams that need no group.
    :param health: gets the detail ``lag``.
    :param metrics_registry: gets the metrics.
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
        super().__init__(clock, redis, INTERVAL, self._look)
        self._clock = clock
        self._redis = redis
        self._processed = frozenset(streams)
        self._streams = sorted(self._processed.union(others))
        self._looks: dict[str, _Look] = {}
        health.detail("lag", self._tell)
        metrics_registry.register(self)

    async def _look(self) -> None:
        for stream in self._streams:
            try:
                lag = await stream_lag(self._redis, stream)
            except (Refused, Unavailable) as error:
                # The connection reports an outage; the age of the figures tells the rest.
                self._log.debug("no lag of {stream}: {error}", stream=stream, error=error)
                continue
            except Exception:  # noqa: BLE001 - else it would never look again
                self._log.failure("no lag of {stream}", stream=stream)
                continue
            if lag is None:
                self._looks.pop(stream, None)
            else:
                self._looks[stream] = _Look(self._clock.seconds(), lag)

    def _tell(self) -> dict[str, Any]:
        now = self._clock.seconds()
        return {
            stream: {
                "read_seconds_ago": round(now - look.at, 3),
                "entries": look.lag.entries,
                "groups": {group.name: group.as_json() for group in _labelled(look.lag.groups)},
            }
            for stream, look in sorted(self._looks.items())
        }

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by Prometheus' client at each scrape."""
        entries = gauge("tracker_stream_entries", "Entries in the stream.", "stream")
        read_at = gauge(
            "tracker_stream_lag_read_timestamp_seconds",
            "When the figures of the stream were read, since 1970.",
            "stream",
        )
        lag = gauge(
            "tracker_stream_lag_entries",
            "Entries that the group was not given yet; absent where Redis cannot tell.",
            *_GROUP,
        )
        pending = gauge(
            "tracker_stream_pending_entries",
            "Entries that the group was given and has not acknowledged.",
            *_GROUP,
        )
        age = gauge(
            "tracker_stream_oldest_unprocessed_age_seconds",
            "Age of the oldest entry that the group has not acknowledged; 0 without one.",
            *_GROUP,
        )
        consumer_pending = gauge(
            "tracker_group_consumer_pending_entries",
            "Entries that the consumer was given and has not acknowledged.",
            *_CONSUMER,
        )
        idle = gauge(
            "tracker_group_consumer_idle_seconds",
            "Time since the consumer last asked for entries.",
            *_CONSUMER,
        )
        live = gauge(
            "tracker_group_live_consumers",
            "Consumers of the group that have asked for entries within the last minute.",
            *_GROUP,
        )
        for stream, look in self._looks.copy().items():
            if stream in self._processed and look.lag.group(PROCESSOR_GROUP) is None:
                live.add_metric([stream, PROCESSOR_GROUP], 0)
            entries.add_metric([stream], look.lag.entries)
            read_at.add_metric([stream], look.at)
            for group in _labelled(look.lag.groups):
                where = [stream, group.name]
                if group.undelivered is not None:
                    lag.add_metric(where, group.undelivered)
                pending.add_metric(where, group.pending)
                age.add_metric(where, group.oldest_age)
                if group.consumers or not group.consumer_count:  # else they are too many to read
                    alive = sum(consumer.idle < ALIVE for consumer in group.consumers)
                    live.add_metric(where, alive)
                for consumer in _labelled(group.consumers):
                    consumer_pending.add_metric([*where, consumer.name], consumer.pending)
                    idle.add_metric([*where, consumer.name], consumer.idle)
        yield from (entries, read_at, lag, pending, age, live, consumer_pending, idle)


def _labelled(named: Sequence[T]) -> list[T]:
    """Return the groups or consumers that have metrics: the first of each name as shown."""
    return list({one.name: one for one in reversed(named)}.values())[::-1][:MAX_LABELLED]
