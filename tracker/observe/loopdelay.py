"""Delay of the event loop, which delays everything else in the process."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds between two measurements.
INTERVAL: Final = 0.1

_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LoopDelay(Service):
    """Schedules a call at an interval, and measures by how much it is late.

    :param metrics_registry: gets the metric.
    """

    def __init__(self, clock: IReactorTime, metrics_registry: CollectorRegistry) -> None:
        self._clock = clock
        self._due = 0.0
        self._next: IDelayedCall | None = None
        self._delays = Histogram(
            "tracker_event_loop_delay_seconds",
            "Delay of the event loop: how late a scheduled call was.",
            buckets=_BOUNDS,
            registry=metrics_registry,
        )

    def startService(self) -> None:
        """Start measuring."""
        super().startService()
        self._schedule()

    def stopService(self) -> Deferred[None]:
        """Stop measuring."""
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        return succeed(None)

    def _schedule(self) -> None:
        self._due = self._clock.seconds() + INTERVAL
        self._next = self._clock.callLater(INTERVAL, self._called)

    def _called(self) -> None:
        self._delays.observe(max(0.0, self._clock.seconds() - self._due))
        self._schedule()
