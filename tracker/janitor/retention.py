"""Trim streams, and remove consumers that are gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Set
from typing import Any, Final

from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.keys import PROCESSOR_GROUP, RESPONSES, dead_letters
from tracker.log.redis.heartbeats import read_advertised
from tracker.log.redis.trim import TrimResult, remove_idle_consumers, trim, trim_dead
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.observe.ratelimit import RateLimit
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.pipeline import existing
from tracker.untrusted import listed, shown

#: Seconds without a sign of life after which a consumer that has nothing is removed.
CONSUMER_IDLE: Final = 86_400.0
#: Seconds for which responses to commands are kept that no group reads.
RESPONSES_UNREAD: Final = 7 * 86_400.0
#: Seconds between two lines about the same stream that could not be trimmed.
ALARM_PERIOD: Final = 3600.0
#: Streams that have metrics of their own, besides those that are configured. All others are
#: counted together as :data:`OTHERS`.
MAX_LABELLED: Final = 100
OTHERS: Final = "other streams"
#: Reasons of one round that are reported.
MAX_REASONS: Final = 10


@frozen
class Retention:
    """Limits of each stream; None: no limit."""

    age: float | None = None
    """Seconds."""
    bytes: int | None = None
    """Memory that a stream may take."""
    dead_age: float | None = None
    """Seconds, of dead letters."""


class StreamKeeper:
    """Trims streams, and removes consumers that are long gone.

    :param streams: streams to trim, besides those that heartbeats name, and the responses to
        commands.
    :param metrics_registry: gets the metrics.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        streams: Iterable[str],
        retention: Retention,
        *,
        metrics_registry: CollectorRegistry,
    ) -> None:
        self.trimmed = 0
        """Entries that were trimmed so far."""
        self._clock = clock
        self._redis = redis
        self._streams = frozenset(streams)
        self._retention = retention
        self._alarms: dict[tuple[str, str], RateLimit] = {}
        self._malformed_keys = MalformedKeyLog(clock, self._log)
        self._metrics = _Metrics(self._streams, metrics_registry)

    async def tidy(self, goes_on: Callable[[], bool]) -> list[str]:
        """Trim all streams once, and return why some are not within their limits.

        An error of one stream is logged, and does not stop the others.

        :param goes_on: returns whether there is time for more; called now and then.
        :raises Unavailable: if Redis cannot be asked.
        """
        reasons: list[str] = []
        streams = await self._all_streams()
        self._metrics.forget_all_but(streams)
        alarms = self._alarms.items()
        self._alarms = {key: alarm for key, alarm in alarms if key[0] in streams}
        for stream in sorted(streams):
            await self._safely(stream, self._tidy(stream, goes_on), reasons)
        await self._safely(RESPONSES, self._trim_responses(goes_on), reasons)
        left_out = len(reasons) - MAX_REASONS
        if left_out > 0:
            reasons[MAX_REASONS:] = [f"and {left_out} more"]
        return reasons

    async def _safely(
        self, stream: str, tidying: Awaitable[str | None], reasons: list[str]
    ) -> None:
        """Wait until a stream is tidied, and add the reason if it is not within its limits."""
        try:
            reason = await tidying
        except Unavailable:
            raise
        except Refused as error:
            reason = f"{shown(stream)}: {error}"
            action = "Rename or delete the key, or stop what writes it."
            self._malformed_keys.report(stream, f"cannot be trimmed: {error}", action)
        except Exception:  # noqa: BLE001 - the other streams must be trimmed all the same
            reason = f"{shown(stream)}: a fault, see the log"
            self._log.failure("{stream} cannot be trimmed", stream=shown(stream))
        if reason is not None:
            reasons.append(reason)

    async def _all_streams(self) -> Set[str]:
        """Return the configured streams, and existing streams that heartbeats name."""
        told = await read_advertised(self._redis)
        for key, why in told.malformed.items():
            action = "Delete the key, and find out what writes it."
            self._malformed_keys.report(key, why, action)
        if told.left_out:
            self._log.warn(
                "heartbeats name too many streams: {count} of them are not trimmed",
                count=told.left_out,
            )
        others = told.streams.keys() - self._streams
        keys = {key: stream for stream in others for key in (stream, dead_letters(stream))}
        found = await existing(self._redis, list(keys))
        return self._streams.union(keys[key] for key in found)

    async def _tidy(self, stream: str, goes_on: Callable[[], bool]) -> str | None:
        """Trim a stream, remove idle consumers, and return why it is over its limits."""
        reason = None
        age, size = self._retention.age, self._retention.bytes
        done = await self._trim(stream, lambda: trim(self._redis, stream, age, size), goes_on)
        self._metrics.measured(stream, done)
        if done is not None and done.exceeded:
            reason = self._alarm(stream, done)
        dead_age = self._retention.dead_age
        if dead_age is not None:
            dead = dead_letters(stream)
            await self._trim(dead, lambda: trim_dead(self._redis, dead, dead_age), goes_on)
        removed = await remove_idle_consumers(self._redis, stream, PROCESSOR_GROUP, CONSUMER_IDLE)
        if removed:
            self._metrics.consumers_removed(stream, len(removed))
            self._log.info(
                "consumers removed from {stream}, idle and with nothing pending: {consumers}",
                stream=shown(stream),
                consumers=listed(removed),
            )
        return reason

    async def _trim_responses(self, goes_on: Callable[[], bool]) -> None:
        """Trim responses that groups have read; without a group, keep them for people."""
        age, size = self._retention.age, self._retention.bytes
        done = await self._trim(RESPONSES, lambda: trim(self._redis, RESPONSES, age, size), goes_on)
        if done is not None and not done.groups:
            unread = max(RESPONSES_UNREAD, age or 0)
            await self._trim(RESPONSES, lambda: trim_dead(self._redis, RESPONSES, unread), goes_on)

    async def _trim(
        self, stream: str, call: Callable[[], Any], goes_on: Callable[[], bool]
    ) -> TrimResult | None:
        """Trim until nothing more can be removed; return the result of the last call."""
        total = 0
        while True:
            done: TrimResult | None = await call()
            if done is not None and done.removed:
                total += done.removed
                self._metrics.entries_trimmed(stream, done.removed)
                if goes_on():
                    continue
            self.trimmed += total
            if total:
                self._log.info(
                    "{count} entries trimmed off {stream}", count=total, stream=shown(stream)
                )
            return done

    def _alarm(self, stream: str, done: TrimResult) -> str:
        """Log that a stream is over its limit; return the line without the figures that change."""
        limit = "--retain" if done.exceeded == "age" else "--retain-bytes"
        why = f"{done.group} has not finished it" if done.groups else "no group reads it"
        alarms = self._alarms.setdefault((stream, limit), RateLimit(self._clock, 1, ALARM_PERIOD))
        if alarms.admit() is not None:
            oldest = int(done.floor.partition("-")[0] or 0)
            self._log.error(
                "{stream} is kept beyond {limit}: {why} ({entries} entries, {bytes} bytes{since})",
                stream=shown(stream),
                limit=limit,
                why=why,
                entries=done.entries,
                bytes=done.bytes,
                since=f", since {iso_milliseconds(min(oldest, MAX_TIMESTAMP_MS))}"
                if done.groups
                else "",
            )
        return f"{shown(stream)} is kept beyond {limit}: {why}"


class _Metrics:
    def __init__(self, streams: Iterable[str], metrics_registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["stream"], registry=metrics_registry)

        self._measured: set[str] = set()
        self._bytes = gauge("tracker_stream_bytes", "Memory that the stream takes, by a sample.")
        self._held = gauge(
            "tracker_stream_retention_exceeded",
            "1 while the stream is kept beyond its limits, since it is not read; else 0.",
        )
        self.trimmed = Counter(
            "tracker_stream_trimmed_entries",
            "Entries that were trimmed off the stream.",
            ["stream"],
            registry=metrics_registry,
        )
        self.consumers = Counter(
            "tracker_janitor_consumers_removed",
            "Consumers that were removed, since they were long gone and had nothing.",
            ["stream"],
            registry=metrics_registry,
        )
        self._labels = {RESPONSES, *streams, *map(dead_letters, streams)}
        for stream in streams:  # a counter that appears with its first event hides that event
            self.trimmed.labels(stream)
            self.consumers.labels(stream)
        self._max_labels = len(self._labels) + MAX_LABELLED

    def entries_trimmed(self, stream: str, count: int) -> None:
        """Count entries that were trimmed off a stream."""
        self.trimmed.labels(self._label(stream)).inc(count)

    def consumers_removed(self, stream: str, count: int) -> None:
        """Count consumers that were removed from a stream."""
        self.consumers.labels(self._label(stream)).inc(count)

    def _label(self, stream: str) -> str:
        # Every client of Redis can name streams in a heartbeat; without a bound, each name would
        # become a series.
        if stream not in self._labels and len(self._labels) >= self._max_labels:
            return OTHERS
        self._labels.add(stream)
        return stream

    def measured(self, stream: str, done: TrimResult | None) -> None:
        """Report the size of a stream; None: it does not exist."""
        if done is None:
            self._forget(stream)
        elif self._label(stream) == stream:
            self._measured.add(stream)
            self._bytes.labels(stream).set(done.bytes)
            self._held.labels(stream).set(bool(done.exceeded))

    def forget_all_but(self, streams: Set[str]) -> None:
        """Remove the metrics of other streams, which would keep their last values."""
        for stream in self._measured - streams:
            self._forget(stream)

    def _forget(self, stream: str) -> None:
        if stream in self._measured:
            self._measured.remove(stream)
            self._bytes.remove(stream)
            self._held.remove(stream)
