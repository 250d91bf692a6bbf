"""Comparison of docs/metrics.rst with the metrics that the roles register."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from prometheus_client import CollectorRegistry

from tracker.net.reports import HTTPReports
from tracker.observe.health import Health
from tracker.observe.loopdelay import LoopDelay
from tracker.observe.metrics import HealthMetrics, make_metrics_registry
from tracker.tap import Options

PAGE = Path(__file__).parents[3] / "docs" / "metrics.rst"
#: Role → minimal arguments. The roles are built, not started.
ROLES: dict[str, list[str]] = {
    "ingest": [],
    "process": ["--sink", "sqlite:positions.sqlite"],
    "janitor": [],
    "console": [],
    "bridge": ["--directus", "http://127.0.0.1:8055", "--token-file", "{}", "--webhook", "none"],
}


@frozen
class Metric:
    """A row of the page."""

    name: str
    type: str
    labels: tuple[str, ...]


def registry_of(
    role: str, folder: Path, arguments: Sequence[str] | None = None
) -> CollectorRegistry:
    """Return the metrics registry of a role.

    :param arguments: None for those of :data:`ROLES`.
    """
    from twisted.internet import reactor

    token = folder / "token"
    token.write_text("secret")
    token.chmod(0o600)
    options = Options()
    if arguments is None:
        arguments = [argument.format(token) for argument in ROLES[role]]
    options.parseOptions([role, *arguments])
    metrics_registry, health = make_metrics_registry(), Health()
    HealthMetrics(health, metrics_registry)
    HTTPReports(reactor, "health port", "health_port", metrics_registry)
    LoopDelay(reactor, metrics_registry)
    role_options: Any = options.subOptions
    role_options.levels = role_options.log_levels()
    role_options.build(reactor, health, metrics_registry, lambda reason: None)
    return metrics_registry


def registered(metrics_registry: CollectorRegistry) -> Iterator[Metric]:
    """Yield the registered metrics, including those without values yet."""
    for collector in metrics_registry._collector_to_names:
        labels = getattr(collector, "_labelnames", None)
        for family in collector.collect():
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            kind = "gauge" if family.type == "info" else family.type
            names: Any = getattr(family, "_labelnames", ()) if labels is None else labels
            if family.type == "info":
                names = family.samples[0].labels
            yield Metric(family.name + suffix, kind, tuple(names))


def described() -> dict[Metric, set[str]]:
    """Return metric → roles, as listed on the page."""
    text = PAGE.read_text()
    rows = re.findall(
        r"^   \* - ``(\w+)``\n     - (\w+)\n     -(.*)\n     - (.+)\n     - \S.*$", text, re.M
    )
    assert len(rows) == text.count("   * - ``")
    found = {}
    for name, kind, labels, roles in rows:
        metric = Metric(name, kind, tuple(labels.replace(",", " ").split()))
        assert metric not in found
        found[metric] = set(ROLES) if roles == "all" else set(roles.split(", "))
    return found


@pytest.mark.parametrize("role", ROLES)
def test_documentation_lists_exactly_the_metrics_of_each_role(role: str, tmp_path: Path) -> None:
    exposed = {
        metric
        for metric in registered(registry_of(role, tmp_path))
        if not metric.name.startswith("process_")
    }
    listed = {metric for metric, roles in described().items() if role in roles}
    assert exposed == listed


@pytest.mark.parametrize("role", ROLES)
def test_gauge_has_no_value_before_it_is_known(role: str, tmp_path: Path) -> None:
    # Zero would mean 1970 as a time, and "none" as a number of instances, devices or streams.
    unknown = ("timestamp_seconds", "living_instances", "waiting_devices", "bridge_devices",
               "unread_streams", "stranded_streams", "durable", "memory_bytes", "round_duration",
               "stream_", "group_")  # fmt: skip
    found = [
        sample.name
        for family in registry_of(role, tmp_path).collect()
        if family.type == "gauge" and not family.name.startswith("process_")
        for sample in family.samples
        if any(part in sample.name for part in unknown)
    ]
    assert found == []


def test_names_follow_prometheus_conventions() -> None:
    for metric in described():
        assert re.fullmatch(r"tracker(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.name.endswith("_info") or metric.type in ("counter", "gauge", "histogram")


def test_labels_have_a_bounded_number_of_values() -> None:
    bounded = {
        *("vendor", "state", "result", "reason", "codec", "stream", "group", "consumer"),
        *("status", "condition", "version", "python", "twisted"),
        *("method", "part", "hook", "kind"),
    }
    assert {label for metric in described() for label in metric.labels} <= bounded


def test_standalone_has_the_metrics_of_its_roles_without_duplicates(tmp_path: Path) -> None:
    standalone = registry_of("standalone", tmp_path, ["--data", str(tmp_path)])
    in_one_process = {metric.name for metric in registered(standalone)}
    in_separate_processes = {
        metric.name
        for role in ("ingest", "process", "janitor", "console")
        for metric in registered(registry_of(role, tmp_path))
    }
    assert in_one_process == in_separate_processes
