"""Keeps streams from growing, and forgets consumers that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Any, Final

from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.logger import Logger

from tracker.keys import PROCESSOR_GROUP, RESPONSES, dead_letters
from tracker.observe.ratelimit import RateLimit
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.streams.advertised import advertised_streams
from tracker.streams.connection import RedisConnection, Refused
from tracker.streams.trim import Trimmed, remove_idle_consumers, trim, trim_dead

#: Seconds without a sign of life after which a consumer that has nothing is removed.
CONSUMER_IDLE: Final = 86_400.0
#: Seconds for which responses to commands are kept that no group reads.
RESPONSES_UNREAD: Final = 7 * 86_400.0
#: Seconds between two lines about the same stream that could not be trimmed.
ALARM_PERIOD: Final = 3600.0


@frozen
class Retention:
    """What is kept of each stream; None: that is no limit."""

    age: float | None = None
    """Seconds."""
    bytes: int | None = None
    """Memory that a stream may take."""
    dead_age: float | None = None
    """Seconds, of dead letters."""


class StreamKeeper:
    """Trims streams, and removes consumers that are long gone.

    :param streams: those that are looked after, besides all that ingest instances say they
        write, and the responses to commands.
    :param registry: gets the metrics.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        redis: RedisConnection,
        streams: Iterable[str],
        retention: Retention,
        registry: CollectorRegistry,
    ) -> None:
        self.trimmed = 0
        """Entries, so far."""
        self._clock = clock
        self._redis = redis
        self._streams = frozenset(streams)
        self._retention = retention
        self._alarms: dict[tuple[str, str], RateLimit] = {}
        self._metrics = _Metrics(self._streams, registry)

    async def tidy(self, goes_on: Callable[[], bool]) -> list[str]:
        """See to all streams once; why some are not within their limits.

        :param goes_on: asked now and then whether there is time for more.
        :raises Unavailable: when Redis cannot be asked.
        """
        reasons = []
        streams = self._streams | set(await advertised_streams(self._redis))
        self._metrics.forget_all_but(streams)
        for stream in sorted(streams):
            try:
                reasons.append(await self._tidy(stream, goes_on))
            except Refused as error:  # whatever ails one stream is nothing to the others
                reasons.append(f"{stream}: {error}")
        try:
            await self._trim_responses(goes_on)
        except Refused as error:
            reasons.append(f"{RESPONSES}: {error}")
        return [reason for reason in reasons if reason is not None]

    async def _tidy(self, stream: str, goes_on: Callable[[], bool]) -> str | None:
        """Do what is to be done on a stream, and say what could not be done."""
        reason = None
        age, size = self._retention.age, self._retention.bytes
        done = await self._trim(stream, lambda: trim(self._redis, stream, age, size), goes_on)
        self._metrics.measured(stream, done)
        if done is not None and done.held_by:
            reason = self._alarm(stream, done)
        dead_age = self._retention.dead_age
        if dead_age is not None:
            dead = dead_letters(stream)
            await self._trim(dead, lambda: trim_dead(self._redis, dead, dead_age), goes_on)
        removed = await remove_idle_consumers(self._redis, stream, PROCESSOR_GROUP, CONSUMER_IDLE)
        if removed:
            self._metrics.consumers.labels(stream).inc(len(removed))
            self._log.info(
                "consumers removed from {stream}, idle and with nothing pending: {consumers}",
                stream=stream,
                consumers=", ".join(removed),
            )
        return reason

    async def _trim_responses(self, goes_on: Callable[[], bool]) -> None:
        """What a group has read goes as in every stream. Where none reads, people may look."""
        age, size = self._retention.age, self._retention.bytes
        done = await self._trim(RESPONSES, lambda: trim(self._redis, RESPONSES, age, size), goes_on)
        if done is not None and not done.groups:
            unread = max(RESPONSES_UNREAD, age or 0)
            await self._trim(RESPONSES, lambda: trim_dead(self._redis, RESPONSES, unread), goes_on)

    async def _trim(
        self, stream: str, call: Callable[[], Any], goes_on: Callable[[], bool]
    ) -> Trimmed | None:
        """Trim until nothing more goes; what the last call said."""
        total = 0
        while True:
            done: Trimmed | None = await call()
            if done is not None and done.removed:
                total += done.removed
                self._metrics.trimmed.labels(stream).inc(done.removed)
                if goes_on():
                    continue
            self.trimmed += total
            if total:
                self._log.info("{count} entries trimmed off {stream}", count=total, stream=stream)
            return done

    def _alarm(self, stream: str, done: Trimmed) -> str:
        """Tell that a stream is over its limit; the same without the figures that change."""
        limit = "--retain" if done.held_by == "age" else "--retain-bytes"
        why = f"{done.group} has not finished it" if done.groups else "no group reads it"
        alarms = self._alarms.setdefault((stream, limit), RateLimit(self._clock, 1, ALARM_PERIOD))
        if alarms.admit() is not None:
            oldest = int(done.floor.partition("-")[0] or 0)
            self._log.error(
                "{stream} is kept beyond {limit}: {why} ({entries} entries, {bytes} bytes{since})",
                stream=stream,
                limit=limit,
                why=why,
                entries=done.entries,
                bytes=done.bytes,
                since=f", since {iso_milliseconds(min(oldest, MAX_TIMESTAMP_MS))}"
                if done.groups
                else "",
            )
        return f"{stream} is kept beyond {limit}: {why}"


class _Metrics:
    def __init__(self, streams: Iterable[str], registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["stream"], registry=registry)

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
            registry=registry,
        )
        self.consumers = Counter(
            "tracker_janitor_consumers_removed",
            "Consumers that were removed, since they were long gone and had nothing.",
            ["stream"],
            registry=registry,
        )
        for stream in streams:  # a counter that appears with its first event hides that
            self.trimmed.labels(stream)
            self.consumers.labels(stream)

    def measured(self, stream: str, done: Trimmed | None) -> None:
        """How a stream is; None: it is not there."""
        if done is None:
            self._forget(stream)
        else:
            self._measured.add(stream)
            self._bytes.labels(stream).set(done.bytes)
            self._held.labels(stream).set(bool(done.held_by))

    def forget_all_but(self, streams: Set[str]) -> None:
        """Tell no more of streams that nobody looks after: what was said last stays else."""
        for stream in self._measured - streams:
            self._forget(stream)

    def _forget(self, stream: str) -> None:
        if stream in self._measured:
            self._measured.remove(stream)
            self._bytes.remove(stream)
            self._held.remove(stream)
