"""Construction of the janitor role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from tracker.errors import Refused, Unavailable
from tracker.janitor.expiry import Expiry
from tracker.janitor.orphans import RESULTS, OrphanSweeper, SweepCounts
from tracker.janitor.retention import Retention, StreamTrimmer
from tracker.keys import RESPONSES
from tracker.log.redis.lagmetrics import LagMetrics
from tracker.log.redis.stranded import StrandedStreams
from tracker.observe.figures import OptionalGauge
from tracker.observe.health import Condition, Health, Watchdog
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.redis.metrics import RedisMetrics
from tracker.redis.timer import RedisTimer
from tracker.runtime.lifecycle import Role

#: Default seconds between two rounds.
DEFAULT_INTERVAL: Final = 60.0
#: Seconds without a step of a round after which the janitor counts as stuck.
WATCHDOG_TIMEOUT: Final = 300.0


class Janitor(RedisTimer):
    """Service that cleans up in rounds. Any number of janitors may work at the same time.

    :param interval: seconds between two rounds.
    :param condition: met while no stream exceeds its limits.
    :param metrics_registry: the registry to which the metrics are added.
    :param watchdog: reset at each step of a round, also while Redis is down.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        redis: RedisConnection,
        trimmer: StreamTrimmer,
        sweeper: OrphanSweeper,
        interval: float,
        condition: Condition,
        metrics_registry: CollectorRegistry,
        watchdog: Watchdog,
    ) -> None:
        super().__init__(clock, redis, interval, self._round)
        self._watchdog = watchdog
        self._clock = clock
        self._trimmer = trimmer
        self._sweeper = sweeper
        self._condition = condition
        self._metrics = _Metrics(metrics_registry)

    def stopService(self) -> Deferred[None]:
        """See RedisTimer."""
        stopped = super().stopService()
        self._watchdog.suspend()
        return stopped

    def _may_continue(self) -> bool:
        if self.running:
            self._watchdog.reset()
        return bool(self.running)

    async def _round(self) -> None:
        self._watchdog.reset()
        began, trimmed = self._clock.seconds(), self._trimmer.trimmed
        counts = SweepCounts()
        try:
            await self._sweeper.sweep(counts, self._may_continue)
            self._metrics.waiting.set(counts.waiting)
            self._metrics.living.set(counts.living)
            reasons = await self._trimmer.trim_all(self._may_continue)
        except Unavailable as error:
            # The connection reports the outage, and the next round follows.
            self._log.warn("cleanup interrupted: {error}", error=error)
            self._metrics.forget()
            return
        except Refused as error:
            # Errors of single keys are caught before: Redis refuses commands of every round.
            self._log.warn("cleanup interrupted: {error}", error=error)
            self._condition.fails(f"the last cleanup was interrupted: {error}")
            self._metrics.forget()
            return
        except Exception:  # noqa: BLE001 - an exception would stop the timer for good
            self._log.failure("cleanup failed")
            self._condition.fails("the last cleanup failed; see the log")
            return
        finally:
            self._metrics.count(counts)
        if self.running:
            now = self._clock.seconds()
            self._metrics.last_round.set(now)
            self._metrics.duration.set(now - began)
            done = counts.done(self._trimmer.trimmed - trimmed)
            self._log.emit(
                LogLevel.info if done else LogLevel.debug,
                "cleanup: {done}{left} ({seconds:.2f} s)",
                done=done or "nothing to do",
                left=counts.left,
                seconds=now - began,
            )
            if reasons:
                self._condition.fails("; ".join(reasons))
            else:
                self._condition.met()

    def count_expired(self, number: int) -> None:
        """Count commands that were ended between two rounds, because they had expired."""
        self._metrics.count_commands({"expired": number})


class _Metrics:
    def __init__(self, metrics_registry: CollectorRegistry) -> None:
        self.last_round = OptionalGauge(
            "tracker_janitor_last_round_timestamp_seconds",
            "Time of the end of the last complete round, in seconds since 1970; absent before the "
            "first one.",
            metrics_registry,
        )
        self._rounds = Counter(
            "tracker_janitor_rounds",
            "Rounds, complete or not.",
            registry=metrics_registry,
        )
        self.duration = OptionalGauge(
            "tracker_janitor_round_duration_seconds",
            "Duration of the last complete round; absent before the first one.",
            metrics_registry,
        )
        self.living = OptionalGauge(
            "tracker_living_instances",
            "Ingest instances that have a heartbeat; absent while unknown.",
            metrics_registry,
        )
        self._connections = Counter(
            "tracker_janitor_stale_connections",
            "Entries removed from the device registry because their instance is gone.",
            registry=metrics_registry,
        )
        self._commands = Counter(
            "tracker_janitor_commands",
            "Commands left by instances that are gone, and commands that waited for a device.",
            ["result"],
            registry=metrics_registry,
        )
        for result in RESULTS:
            self._commands.labels(result)
        self._streams = Counter(
            "tracker_janitor_outbound_streams_removed",
            "Removed command streams of instances that are gone.",
            registry=metrics_registry,
        )
        self.waiting = OptionalGauge(
            "tracker_commands_waiting_devices",
            "Devices for which commands wait; absent while unknown.",
            metrics_registry,
        )

    def forget(self) -> None:
        """Remove the values that Redis has, because they are unknown now."""
        self.living.set(None)
        self.waiting.set(None)

    def count(self, counts: SweepCounts) -> None:
        """Add the counts of a round."""
        self._connections.inc(counts.connections)
        self._streams.inc(counts.streams)
        self._rounds.inc()
        self.count_commands(counts.commands)

    def count_commands(self, results: Mapping[str, int]) -> None:
        """Add numbers of commands by their result."""
        for result, number in results.items():
            self._commands.labels(result).inc(number)


def janitor_role(
    reactor: Reactor,
    address: RedisAddress,
    streams: Iterable[str],
    retention: Retention,
    *,
    commands_wait: bool,
    interval: float,
    health: Health,
    metrics_registry: CollectorRegistry,
    monitor_lag: bool = True,
) -> Role:
    """Build the janitor role, without opening connections.

    :param address: the address of Redis.
    :param streams: the streams to trim, besides advertised ones.
    :param commands_wait: commands wait for devices that are not connected anywhere; if False,
        they fail.
    :param interval: seconds between two rounds.
    :param monitor_lag: export metrics of the lag and of Redis; False if another role in the
        process does so.
    """
    role = Role()
    role.setName("janitor")
    redis = RedisConnection(reactor, address, health.condition("redis (janitor)"))
    redis.setServiceParent(role)
    trimmer = StreamTrimmer(reactor, redis, streams, retention, metrics_registry=metrics_registry)
    sweeper = OrphanSweeper(reactor, redis, commands_wait)
    condition = health.condition("retention")
    watchdog = health.watchdog("rounds", interval + WATCHDOG_TIMEOUT)
    janitor = Janitor(
        clock=reactor,
        redis=redis,
        trimmer=trimmer,
        sweeper=sweeper,
        interval=interval,
        condition=condition,
        metrics_registry=metrics_registry,
        watchdog=watchdog,
    )
    janitor.setServiceParent(role)
    Expiry(reactor, redis, janitor.count_expired).setServiceParent(role)
    StrandedStreams(reactor, redis, streams, metrics_registry=metrics_registry).setServiceParent(
        role
    )
    if monitor_lag:  # processors export the lag, too, but not while all of them are down
        LagMetrics(
            reactor,
            redis,
            streams,
            health=health,
            metrics_registry=metrics_registry,
            others=[RESPONSES],
        ).setServiceParent(role)
        RedisMetrics(reactor, redis, metrics_registry).setServiceParent(role)
    return role
