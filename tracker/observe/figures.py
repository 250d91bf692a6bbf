"""Counters and distributions for hot paths, where those of Prometheus' client cost too much.

A counter is a plain number, and a distribution uses bisection. Only a scrape makes metrics of
them: a collector builds :class:`~prometheus_client.core.Metric` objects, possibly in another
thread. A collector therefore copies in one step whatever it iterates over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

#: Upper bounds, in seconds, of durations from a fraction of a millisecond to half a minute.
DURATION_BOUNDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Distribution:
    """Histogram of values, and their sum.

    :param bounds: upper bounds of the buckets in ascending order. A bucket without an upper bound
        is added.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value. A negative one, possible after a clock was set back, counts as zero."""
        if value > 0:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value
        else:
            self._counts[0] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound, in Prometheus' notation, and the number of values up to it."""
        names = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]
        return list(zip(names, accumulate(self._counts), strict=True))

    @property
    def sum(self) -> float:
        """Sum of all values."""
        return self._sum


class OptionalGauge:
    """A gauge without labels, which has no value until one is set.

    Prometheus' own gauge starts at 0, which would be taken for a figure, or for a time in 1970.

    :param metrics_registry: registers the gauge; None: it is not exported.
    """

    def __init__(
        self, name: str, documentation: str, metrics_registry: CollectorRegistry | None
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._value: float | None = None
        if metrics_registry is not None:
            metrics_registry.register(self)

    def set(self, value: float | None) -> None:
        """Set the value; None: it is unknown."""
        self._value = value

    def collect(self) -> Iterator[Metric]:
        """Yield the metric; called by Prometheus' client at each scrape."""
        family, value = gauge(self._name, self._documentation), self._value
        if value is not None:
            family.add_metric([], value)
        yield family


def counter(name: str, documentation: str, *labels: str) -> CounterMetricFamily:
    """Return a family of counters without values."""
    return CounterMetricFamily(name, documentation, labels=labels)


def gauge(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    """Return a family of gauges without values."""
    return GaugeMetricFamily(name, documentation, labels=labels)


def histogram(
    name: str,
    documentation: str,
    labels: Sequence[str],
    values: Mapping[Any, Distribution],
) -> HistogramMetricFamily:
    """Return a family of histograms.

    :param values: values of the labels → distribution.
    """
    family = HistogramMetricFamily(name, documentation, labels=labels)
    for label_values, distribution in values.items():
        family.add_metric(label_values, distribution.buckets(), distribution.sum)
    return family
