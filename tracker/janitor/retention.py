"""Trimming of streams, removal of idle consumers, and correction of lags."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Set
from typing import Any, Final

from attrs import frozen
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.keys import PROCESSOR_GROUP, RESPONSES, checkpoint, dead_letters
from tracker.log.redis.checkpoint import Skipped, advance_checkpoint, find_skipped
from tracker.log.redis.heartbeats import read_advertised
from tracker.log.redis.lag import repair_lag
from tracker.log.redis.trim import TrimResult, remove_idle_consumers, trim, trim_dead
from tracker.observe.figures import gauge
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.observe.ratelimit import RateLimit
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.pipeline import existing
from tracker.untrusted import listed, shown

#: Seconds of idle time after which a consumer without pending entries is removed.
CONSUMER_IDLE_TIMEOUT: Final = 86_400.0
#: Minimum age in seconds at which responses that no group reads are removed.
UNREAD_RESPONSES_AGE: Final = 7 * 86_400.0
#: Seconds between two log lines about the same stream that exceeds a limit.
ALARM_INTERVAL: Final = 3600.0
#: Maximum number of streams that have their own metrics, besides the configured ones. All other
#: streams are counted together as :data:`OTHERS`.
MAX_LABELLED: Final = 100
OTHERS: Final = "other streams"
#: Name of an alarm, besides the limits.
_SKIPPED: Final = "skipped"
#: Maximum number of reasons that are reported in one round.
MAX_REASONS: Final = 10


@frozen
class Retention:
    """Limits of each stream; None: no limit."""

    age: float | None = None
    """Maximum age in seconds."""
    bytes: int | None = None
    """Maximum memory of a stream."""
    dead_age: float | None = None
    """Maximum age of dead letters in seconds."""


class StreamTrimmer:
    """Trims streams, removes idle consumers, and corrects lags.

    :param streams: the streams to trim, besides advertised streams and the responses to commands.
    :param metrics_registry: the registry to which the metrics are added.
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
        """Number of entries trimmed so far."""
        self._clock = clock
        self._redis = redis
        self._streams = frozenset(streams)
        self._retention = retention
        self._alarms: dict[tuple[str, str], RateLimit] = {}
        self._malformed_keys = MalformedKeyLog(clock, self._log)
        self._metrics = _Metrics(redis, self._streams, metrics_registry)

    async def trim_all(self, may_continue: Callable[[], bool]) -> list[str]:
        """Trim all streams once, and return the reasons why some exceed their limits.

        An error of one stream is logged, and does not affect the others.

        :param may_continue: returns False if trimming must end; called frequently.
        :raises Unavailable: if Redis is down.
        """
        reasons: list[str] = []
        streams = await self._all_streams()
        self._metrics.forget_all_but(streams)
        alarms = self._alarms.items()
        self._alarms = {key: alarm for key, alarm in alarms if key[0] in streams}
        for stream in sorted(streams):
            await self._safely(stream, self._trim_stream(stream, may_continue), reasons)
        await self._safely(RESPONSES, self._trim_responses(may_continue), reasons)
        left_out = len(reasons) - MAX_REASONS
        if left_out > 0:
            reasons[MAX_REASONS:] = [f"and {left_out} more"]
        return reasons

    async def _safely(
        self, stream: str, trimming: Awaitable[str | None], reasons: list[str]
    ) -> None:
        """Wait until a stream is trimmed; if it exceeds a limit, add the reason."""
        try:
            reason = await trimming
        except Unavailable:
            raise
        except Refused as error:
            reason = f"{shown(stream)}: {error}"
            action = "Rename or delete the key, or stop what writes it."
            self._malformed_keys.report(stream, f"cannot be trimmed: {error}", action)
        except Exception:  # noqa: BLE001 - a failure must not affect the other streams
            reason = f"{shown(stream)}: internal error; see the log"
            self._log.failure("{stream}: cannot be trimmed", stream=shown(stream))
        if reason is not None:
            reasons.append(reason)

    async def _all_streams(self) -> Set[str]:
        """Return the configured streams, and the existing ones that heartbeats advertise."""
        advertised = await read_advertised(self._redis)
        for key, problem in advertised.malformed.items():
            action = "Delete the key, and find out what writes it."
            self._malformed_keys.report(key, problem, action)
        if advertised.left_out:
            self._log.warn(
                "heartbeats advertise too many streams; streams that are not trimmed: {count}",
                count=advertised.left_out,
            )
        others = advertised.streams.keys() - self._streams
        keys = {key: stream for stream in others for key in (stream, dead_letters(stream))}
        found = await existing(self._redis, list(keys))
        return self._streams.union(keys[key] for key in found)

    async def _trim_stream(self, stream: str, may_continue: Callable[[], bool]) -> str | None:
        """Trim a stream, and correct its groups; return the reason if it exceeds a limit."""
        reason = None
        await self._check_skipped(stream)
        age, size = self._retention.age, self._retention.bytes
        done = await self._trim(stream, lambda: trim(self._redis, stream, age, size), may_continue)
        self._metrics.measured(stream, done)
        if done is not None and done.exceeded:
            reason = self._alarm(stream, done)
        await self._trim_dead(stream, may_continue)
        removed = await remove_idle_consumers(
            self._redis, stream, PROCESSOR_GROUP, CONSUMER_IDLE_TIMEOUT
        )
        if removed:
            self._metrics.consumers_removed(stream, len(removed))
            self._log.info(
                "{stream}: idle consumers without pending entries removed: {consumers}",
                stream=shown(stream),
                consumers=listed(removed),
            )
        await self._repair_lag(stream)
        return reason

    async def _check_skipped(self, stream: str) -> None:
        """Move the checkpoint over deleted entries, then report skipped ones."""
        try:
            await advance_checkpoint(self._redis, stream)
            skipped = await find_skipped(self._redis, stream)
        except Refused as error:
            self._metrics.skipped(stream, None)
            action = "Delete the key if it is not a sorted set, or load the new users.acl."
            self._malformed_keys.report(checkpoint(stream), str(error), action)
            return
        self._metrics.skipped(stream, skipped)
        if not skipped.ranges:
            self._alarms.pop((stream, _SKIPPED), None)
            return
        alarm = self._alarms.setdefault(
            (stream, _SKIPPED), RateLimit(self._clock, 1, ALARM_INTERVAL)
        )
        if alarm.admit() is not None:
            self._log.error(
                "{stream}: entries skipped, neither pending nor recorded as stored: "
                "{count} from {first} to {last}; they are kept until they are replayed or "
                "discarded: tracker-admin skipped list",
                stream=shown(stream),
                count=skipped.count,
                first=skipped.ranges[0].first,
                last=skipped.ranges[-1].last,
            )

    async def _repair_lag(self, stream: str) -> None:
        for group, (before, after) in (await repair_lag(self._redis, stream)).items():
            self._log.info(
                "{stream}: lag of group {group} corrected from {before} to {after}",
                stream=shown(stream),
                group=group,
                before="unknown" if before is None else before,
                after=after,
            )

    async def _trim_responses(self, may_continue: Callable[[], bool]) -> None:
        """Trim responses that all groups have read; without a group, keep them for some days."""
        age, size = self._retention.age, self._retention.bytes
        done = await self._trim(
            RESPONSES, lambda: trim(self._redis, RESPONSES, age, size), may_continue
        )
        if done is not None and not done.groups:
            unread = max(UNREAD_RESPONSES_AGE, age or 0)
            await self._trim(
                RESPONSES, lambda: trim_dead(self._redis, RESPONSES, unread), may_continue
            )
        await self._repair_lag(RESPONSES)
        await self._trim_dead(RESPONSES, may_continue)

    async def _trim_dead(self, stream: str, may_continue: Callable[[], bool]) -> None:
        """Trim the dead letters of a stream."""
        dead, age = dead_letters(stream), self._retention.dead_age
        if age is not None:
            await self._trim(dead, lambda: trim_dead(self._redis, dead, age), may_continue)

    async def _trim(
        self, stream: str, call: Callable[[], Any], may_continue: Callable[[], bool]
    ) -> TrimResult | None:
        """Trim until a call removes nothing; return the result of the last call."""
        total = 0
        while True:
            done: TrimResult | None = await call()
            if done is not None and done.removed:
                total += done.removed
                self._metrics.entries_trimmed(stream, done.removed)
                if may_continue():
                    continue
            self.trimmed += total
            if total:
                self._log.info(
                    "{stream}: entries trimmed: {count}", stream=shown(stream), count=total
                )
            return done

    def _alarm(self, stream: str, done: TrimResult) -> str:
        """Log that a stream exceeds its limit; return the line without the variable figures."""
        limit = "--retain" if done.exceeded == "age" else "--retain-bytes"
        if done.skipped:
            reason = "skipped entries must be replayed or discarded"
        elif done.groups:
            reason = f"group {done.group} has not processed all of it"
        else:
            reason = "no group reads it"
        alarms = self._alarms.setdefault((stream, limit), RateLimit(self._clock, 1, ALARM_INTERVAL))
        if alarms.admit() is not None:
            oldest = int(done.floor.partition("-")[0] or 0)
            self._log.error(
                "{stream} exceeds {limit}: {reason} (entries: {entries}, bytes: {bytes}{since})",
                stream=shown(stream),
                limit=limit,
                reason=reason,
                entries=done.entries,
                bytes=done.bytes,
                since=f", since {iso_milliseconds(min(oldest, MAX_TIMESTAMP_MS))}"
                if done.groups
                else "",
            )
        return f"{shown(stream)} exceeds {limit}: {reason}"


class _Metrics:
    """Metrics of streams. Without a connection to Redis, its figures have no values."""

    def __init__(
        self, redis: RedisConnection, streams: Iterable[str], metrics_registry: CollectorRegistry
    ) -> None:
        self._redis = redis
        self._measured: dict[str, TrimResult] = {}
        self._skipped: dict[str, int] = {}
        metrics_registry.register(self)
        self.trimmed = Counter(
            "tracker_stream_trimmed_entries",
            "Entries trimmed from the stream.",
            ["stream"],
            registry=metrics_registry,
        )
        self.consumers = Counter(
            "tracker_janitor_consumers_removed",
            "Idle consumers without pending entries that were removed.",
            ["stream"],
            registry=metrics_registry,
        )
        self._labels = {RESPONSES, *streams, *map(dead_letters, (RESPONSES, *streams))}
        for stream in streams:  # rate() ignores the first event of a counter that appears with it
            self.trimmed.labels(stream)
            self.consumers.labels(stream)
        self._max_labels = len(self._labels) + MAX_LABELLED

    def entries_trimmed(self, stream: str, count: int) -> None:
        """Count entries trimmed from a stream."""
        self.trimmed.labels(self._label(stream)).inc(count)

    def consumers_removed(self, stream: str, count: int) -> None:
        """Count consumers removed from a stream."""
        self.consumers.labels(self._label(stream)).inc(count)

    def _label(self, stream: str) -> str:
        # Any client of Redis can advertise streams in a heartbeat; without a limit, each name would
        # become a series.
        if stream not in self._labels and len(self._labels) >= self._max_labels:
            return OTHERS
        self._labels.add(stream)
        return stream

    def measured(self, stream: str, done: TrimResult | None) -> None:
        """Set the metrics of a stream; None: it does not exist."""
        if done is None:
            self._measured.pop(stream, None)
        elif self._label(stream) == stream:
            self._measured[stream] = done

    def skipped(self, stream: str, skipped: Skipped | None) -> None:
        """Set the number of skipped entries of a stream; None: it is not known."""
        if skipped is None or skipped.committed is None:
            self._skipped.pop(stream, None)
        elif self._label(stream) == stream:
            self._skipped[stream] = skipped.entries

    def forget_all_but(self, streams: Set[str]) -> None:
        """Remove the metrics of other streams, which would keep their last values."""
        for values in (self._measured, self._skipped):
            for stream in values.keys() - streams:
                del values[stream]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by Prometheus' client at each scrape."""
        size = gauge(
            "tracker_stream_bytes",
            "Memory that the stream uses, estimated from a sample.",
            "stream",
        )
        held = gauge(
            "tracker_stream_retention_exceeded",
            "1 while the stream exceeds a limit because its entries are not processed; else 0.",
            "stream",
        )
        skipped = gauge(
            "tracker_skipped_entries",
            "Entries that the processors skipped: delivered, but neither pending nor recorded as "
            "stored; absent without a checkpoint.",
            "stream",
        )
        if self._redis.connected:
            for stream, done in self._measured.copy().items():
                size.add_metric([stream], done.bytes)
                held.add_metric([stream], bool(done.exceeded))
            for stream, entries in self._skipped.copy().items():
                skipped.add_metric([stream], entries)
        yield from (size, held, skipped)
