"""Assemble the janitor role."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.janitor.orphans import RESULTS, OrphanSweeper, Swept
from tracker.janitor.retention import Retention, StreamKeeper
from tracker.keys import RESPONSES
from tracker.log.redis.lagmetrics import LagMetrics
from tracker.observe.health import Condition, Health, Watchdog
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.redis.metrics import RedisMetrics
from tracker.redis.timer import RedisTimer
from tracker.runtime.lifecycle import Role

#: Seconds between two rounds, unless told otherwise.
INTERVAL: Final = 60.0
#: Seconds without a step, besides those between two rounds, after which it is stuck.
WATCHDOG_TIMEOUT: Final = 300.0


class Janitor(RedisTimer):
    """Makes a round at an interval. Any number of janitors may work at the same time.

    :param interval: seconds between two rounds.
    :param condition: met while every stream is within its limits.
    :param metrics_registry: gets the metrics.
    :param watchdog: is reset at each step of a round, whether Redis is there or not.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        redis: RedisConnection,
        keeper: StreamKeeper,
        sweeper: OrphanSweeper,
        interval: float,
        condition: Condition,
        metrics_registry: CollectorRegistry,
        watchdog: Watchdog,
    ) -> None:
        super().__init__(clock, redis, interval, self._round)
        self._watchdog = watchdog
        self._clock = clock
        self._keeper = keeper
        self._sweeper = sweeper
        self._condition = condition
        self._metrics = _Metrics(metrics_registry)

    def stopService(self) -> Deferred[None]:
        """See RedisTimer."""
        stopped = super().stopService()
        self._watchdog.suspend()
        return stopped

    def _goes_on(self) -> bool:
        if self.running:
            self._watchdog.reset()
        return bool(self.running)

    async def _round(self) -> None:
        self._watchdog.reset()
        began, trimmed = self._clock.seconds(), self._keeper.trimmed
        swept = Swept()
        try:
            await self._sweeper.sweep(swept, self._goes_on)
            self._metrics.waiting.set(swept.waiting)
            self._metrics.living.set(swept.living)
            reasons = await self._keeper.tidy(self._goes_on)
        except Unavailable as error:
            # The connection reports an outage, and the next round is due anyway.
            self._log.warn("this round is not finished: {error}", error=error)
            return
        except Refused as error:
            # Errors of single keys are caught below this: Redis refuses what every round does.
            self._log.warn("this round is not finished: {error}", error=error)
            self._condition.fails(f"the last round was not finished: {error}")
            return
        except Exception:  # noqa: BLE001 - else there would never be another round
            self._log.failure("this round has failed")
            self._condition.fails("the last round has failed, see the log")
            return
        finally:
            self._metrics.count(swept)
        if self.running:
            now = self._clock.seconds()
            self._metrics.last_round.set(now)
            self._metrics.duration.set(now - began)
            if reasons:
                self._condition.fails("; ".join(reasons))
            else:
                self._condition.met()
            self._log.info(
                "round of {seconds:.2f} s: {trimmed} entries trimmed, {swept}",
                seconds=now - began,
                trimmed=self._keeper.trimmed - trimmed,
                swept=swept.summary(),
            )


class _Metrics:
    def __init__(self, metrics_registry: CollectorRegistry) -> None:
        self.last_round = Gauge(
            "tracker_janitor_last_round_timestamp_seconds",
            "When all streams were last looked after, since 1970.",
            registry=metrics_registry,
        )
        self._rounds = Counter(
            "tracker_janitor_rounds",
            "Rounds that were made, whether to their end or not.",
            registry=metrics_registry,
        )
        self.duration = Gauge(
            "tracker_janitor_round_duration_seconds",
            "How long the last round has taken.",
            registry=metrics_registry,
        )
        self.living = Gauge(
            "tracker_living_instances",
            "Ingest instances that have a heartbeat.",
            registry=metrics_registry,
        )
        self._connections = Counter(
            "tracker_janitor_stale_connections",
            "Entries of the device registry that were removed, since their instance is gone.",
            registry=metrics_registry,
        )
        self._commands = Counter(
            "tracker_janitor_commands",
            "Commands that were left by an instance that is gone, or waited for a device.",
            ["result"],
            registry=metrics_registry,
        )
        for result in RESULTS:
            self._commands.labels(result)
        self._streams = Counter(
            "tracker_janitor_outbound_streams_removed",
            "Streams of commands that were removed with their instance.",
            registry=metrics_registry,
        )
        self.waiting = Gauge(
            "tracker_commands_waiting_devices",
            "Devices that commands wait for.",
            registry=metrics_registry,
        )

    def count(self, swept: Swept) -> None:
        """Count what a round has done."""
        self._connections.inc(swept.connections)
        self._streams.inc(swept.streams)
        self._rounds.inc()
        for result, number in swept.commands.items():
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
    watch_lag: bool = True,
) -> Role:
    """Build the janitor role; nothing is opened before it starts.

    :param commands_wait: whether commands wait for devices that are nowhere; else they fail.
    :param watch_lag: whether to watch the lag and Redis, too; another role in the process may
        do so.
    """
    role = Role()
    role.setName("janitor")
    redis = RedisConnection(reactor, address, health.condition("redis (janitor)"))
    redis.setServiceParent(role)
    keeper = StreamKeeper(reactor, redis, streams, retention, metrics_registry=metrics_registry)
    sweeper = OrphanSweeper(reactor, redis, commands_wait)
    condition = health.condition("retention")
    watchdog = health.watchdog("janitor's rounds", interval + WATCHDOG_TIMEOUT)
    janitor = Janitor(
        clock=reactor,
        redis=redis,
        keeper=keeper,
        sweeper=sweeper,
        interval=interval,
        condition=condition,
        metrics_registry=metrics_registry,
        watchdog=watchdog,
    )
    janitor.setServiceParent(role)
    if watch_lag:  # since processors that are all down tell nothing
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
