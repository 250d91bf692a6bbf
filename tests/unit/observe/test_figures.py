"""Distributions, and families of metrics made from plain numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from tracker.observe.figures import (
    DURATION_BOUNDS,
    Distribution,
    OptionalGauge,
    counter,
    gauge,
    histogram,
)


def test_distribution_counts_values_up_to_each_bound() -> None:
    spread = Distribution((1, 2.5))
    for value in (0.5, 1, 1.5, 2.5, 2.6, 100):
        spread.observe(value)
    assert spread.buckets() == [("1.0", 2), ("2.5", 4), ("+Inf", 6)]
    assert spread.sum == pytest.approx(108.1)


def test_empty_distribution_has_all_its_buckets() -> None:
    assert Distribution((1,)).buckets() == [("1.0", 0), ("+Inf", 0)]


@pytest.mark.parametrize("value", [0, -1.5])
def test_negative_value_is_counted_as_zero(value: float) -> None:
    spread = Distribution((1,))
    spread.observe(value)
    assert spread.buckets() == [("1.0", 1), ("+Inf", 1)]
    assert spread.sum == 0


def test_duration_bounds_are_ascending_and_distinct() -> None:
    assert list(DURATION_BOUNDS) == sorted(set(DURATION_BOUNDS))


class Collector:
    def collect(self) -> Iterator[Metric]:
        spread = Distribution((0.5,))
        spread.observe(0.25)
        things = counter("things", "Things.", "where")
        things.add_metric(["here"], 3)
        some = gauge("some", "Something.")
        some.add_metric([], 1.5)
        yield from (things, some, histogram("waits", "Waits.", ["who"], {("me",): spread}))


def test_metric_families_are_exposed_as_text() -> None:
    metrics_registry = CollectorRegistry()
    metrics_registry.register(Collector())
    text = generate_latest(metrics_registry).decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'things_total{where="here"} 3.0',
        "some 1.5",
        'waits_bucket{le="0.5",who="me"} 1.0',
        'waits_bucket{le="+Inf",who="me"} 1.0',
        'waits_count{who="me"} 1.0',
        'waits_sum{who="me"} 0.25',
    ]


def test_optional_gauge_has_no_value_while_it_is_unknown() -> None:
    metrics_registry = CollectorRegistry()
    gauge = OptionalGauge("a", "Text.", metrics_registry)
    values = []
    for value in (None, 7.0, None):
        gauge.set(value)
        values.append(metrics_registry.get_sample_value("a"))
    assert values == [None, 7.0, None]
