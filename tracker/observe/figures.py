"""What is counted where a library's counter would cost too much, and how it is exposed.

A counter there is a plain number, and a distribution a bisection. They become metrics only when
somebody asks: a collector makes :class:`~prometheus_client.core.Metric` objects of them, maybe
in another thread, and so copies what it iterates over in one step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString

#: Upper bounds, in seconds, for what takes from a fraction of a millisecond to half a minute.
DURATION_BOUNDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Distribution:
    """How many values lie below which bounds, and their sum.

    :param bounds: upper bounds in ascending order; one without a bound is added.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more; what is below zero, as after a clock was set back, counts as zero."""
        if value > 0:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value
        else:
            self._counts[0] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Bound, as Prometheus writes it, and how many values do not exceed it."""
        names = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]
        return list(zip(names, accumulate(self._counts), strict=True))

    @property
    def sum(self) -> float:
        """Of all values."""
        return self._sum


def counter(name: str, documentation: str, *labels: str) -> CounterMetricFamily:
    """A family of counters, without values yet."""
    return CounterMetricFamily(name, documentation, labels=labels)


def gauge(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    """A family of gauges, without values yet."""
    return GaugeMetricFamily(name, documentation, labels=labels)


def histogram(
    name: str,
    documentation: str,
    labels: Sequence[str],
    values: Mapping[Any, Distribution],
) -> HistogramMetricFamily:
    """A family of histograms.

    :param values: values of the labels → distribution.
    """
    made = HistogramMetricFamily(name, documentation, labels=labels)
    for where, distribution in values.items():
        made.add_metric(where, distribution.buckets(), distribution.sum)
    return made
