"""The janitor role: keeps streams from growing, and never at the expense of who reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.logger import Logger

from tracker.keys import PROCESSOR_GROUP, dead_letters
from tracker.lifecycle import Role
from tracker.observe.health import Health
from tracker.observe.lagwatch import LagWatch
from tracker.observe.ratelimit import RateLimit
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.streams.address import RedisAddress
from tracker.streams.advertised import advertised_streams
from tracker.streams.connection import RedisConnection, Refused, Unavailable
from tracker.streams.timer import RedisTimer
from tracker.streams.trim import Trimmed, remove_idle_consumers, trim, trim_dead

#: Seconds between two rounds, unless told otherwise.
INTERVAL: Final = 60.0
#: Seconds without a sign of life after which a consumer that has nothing is removed.
CONSUMER_IDLE: Final = 86_400.0
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


class Janitor(RedisTimer):
    """Trims streams, and removes consumers that are long gone, every so often.

    Any number of janitors may do that at the same time.

    :param streams: those that are looked after, besides all that ingest instances say they
        write.
    :param interval: seconds between two rounds.
    :param report: told None when every stream is within its limits, else which are not.
    :param registry: gets the metrics.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        redis: RedisConnection,
        streams: Iterable[str],
        retention: Retention,
        interval: float,
        report: Callable[[str | None], None],
        registry: CollectorRegistry,
    ) -> None:
        super().__init__(clock, redis, interval, self._round)
        self._clock = clock
        self._redis = redis
        self._streams = frozenset(streams)
        self._retention = retention
        self._report = report
        self._alarms: dict[tuple[str, str], RateLimit] = {}
        self._metrics = _Metrics(registry)

    async def _round(self) -> None:
        reasons = []
        try:
            for stream in sorted(self._streams | set(await advertised_streams(self._redis))):
                try:
                    reasons.append(await self._tidy(stream))
                except Refused as error:  # whatever ails one stream is nothing to the others
                    reasons.append(f"{stream}: {error}")
        except (Refused, Unavailable) as error:
            # The connection reports an outage, and the next round is due anyway.
            self._log.warn("this round is not finished: {error}", error=error)
            return
        except Exception:  # noqa: BLE001 - else there would never be another round
            self._log.failure("this round has failed")
            self._report("the last round has failed, see the log")
            return
        if self.running:
            self._metrics.last_round.set(self._clock.seconds())
            self._report("; ".join(filter(None, reasons)) or None)

    async def _tidy(self, stream: str) -> str | None:
        """Do what is to be done on a stream, and say what could not be done."""
        reason = None
        age, size = self._retention.age, self._retention.bytes
        done = await self._trim(stream, lambda: trim(self._redis, stream, age, size))
        if done is not None:
            self._metrics.bytes.labels(stream).set(done.bytes)
            self._metrics.held.labels(stream).set(bool(done.held_by))
            if done.held_by:
                reason = self._alarm(stream, done)
        dead_age = self._retention.dead_age
        if dead_age is not None:
            dead = dead_letters(stream)
            await self._trim(dead, lambda: trim_dead(self._redis, dead, dead_age))
        removed = await remove_idle_consumers(self._redis, stream, PROCESSOR_GROUP, CONSUMER_IDLE)
        if removed:
            self._log.info(
                "consumers removed from {stream}, idle and with nothing pending: {consumers}",
                stream=stream,
                consumers=", ".join(removed),
            )
        return reason

    async def _trim(self, stream: str, call: Callable[[], Any]) -> Trimmed | None:
        """Trim until nothing more goes; what the last call said."""
        total = 0
        while True:
            done: Trimmed | None = await call()
            if done is not None and done.removed:
                total += done.removed
                self._metrics.trimmed.labels(stream).inc(done.removed)
                if self.running:
                    continue
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
    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["stream"], registry=registry)

        self.bytes = gauge("tracker_stream_bytes", "Memory that the stream takes, by a sample.")
        self.held = gauge(
            "tracker_stream_retention_exceeded",
            "1 while the stream is kept beyond its limits, since it is not read; else 0.",
        )
        self.trimmed = Counter(
            "tracker_stream_trimmed_entries",
            "Entries that were trimmed off the stream.",
            ["stream"],
            registry=registry,
        )
        self.last_round = Gauge(
            "tracker_janitor_last_round_timestamp_seconds",
            "When all streams were last looked after, since 1970.",
            registry=registry,
        )


def janitor_role(
    reactor: Any,
    address: RedisAddress,
    streams: Iterable[str],
    retention: Retention,
    interval: float,
    health: Health,
    registry: CollectorRegistry,
    watch_lag: bool = True,
) -> Role:
    """Build the janitor role; nothing is opened before it starts.

    :param watch_lag: whether to tell the lag, too; another role in the process may do so.
    """
    role = Role()
    role.setName("janitor")
    redis = RedisConnection(reactor, address, health.condition("redis (janitor)"))
    redis.setServiceParent(role)
    report = health.condition("retention")
    janitor = Janitor(reactor, redis, streams, retention, interval, report, registry)
    janitor.setServiceParent(role)
    if watch_lag:  # since processors that are all down tell nothing
        LagWatch(reactor, redis, streams, health, registry).setServiceParent(role)
    return role
