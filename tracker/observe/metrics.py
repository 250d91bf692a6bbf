"""Metrics that every role exposes to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from platform import python_version

from prometheus_client import (
    CollectorRegistry,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric

from tracker import __version__
from tracker.observe.figures import gauge
from tracker.observe.health import Health
from twisted import __version__ as twisted_version


def make_metrics_registry() -> CollectorRegistry:
    """Return a metrics registry with the metrics of the process and its versions."""
    # Counters start with the process, whose start time has its own metric.
    disable_created_metrics()
    metrics_registry = CollectorRegistry()
    ProcessCollector(registry=metrics_registry)
    Info(
        "tracker_build", "Versions of Tracker, Python and Twisted.", registry=metrics_registry
    ).info({"version": __version__, "python": python_version(), "twisted": twisted_version})
    return metrics_registry


class HealthMetrics:
    """Readiness and conditions as metrics: the content of ``/readyz`` without the reasons.

    :param metrics_registry: gets the metrics.
    """

    def __init__(self, health: Health, metrics_registry: CollectorRegistry) -> None:
        self._health = health
        metrics_registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by Prometheus' client at each scrape."""
        ready = gauge("tracker_ready", "1 if the process is ready, else 0.")
        met = gauge(
            "tracker_condition_met",
            "1 if this condition of readiness is met, else 0.",
            "condition",
        )
        ready.add_metric([], self._health.ready)
        for name, is_met in self._health.conditions.items():
            met.add_metric([name], is_met)
        yield from (ready, met)
