"""docs/metrics.rst, held against what the roles register."""

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
#: As one would start them; nothing is opened before that.
ROLES: dict[str, list[str]] = {
    "ingest": [],
    "process": ["--sink", "sqlite:positions.sqlite"],
    "janitor": [],
    "console": [],
    "bridge": ["--directus", "http://127.0.0.1:8055", "--token-file", "{}", "--webhook", "none"],
}


@frozen
class Metric:
    """One row of the page."""

    name: str
    type: str
    labels: tuple[str, ...]


def registry_of(
    role: str, folder: Path, arguments: Sequence[str] | None = None
) -> CollectorRegistry:
    """What a role registers, started with these arguments, or the usual ones."""
    from twisted.internet import reactor

    token = folder / "token"
    token.write_text("secret")
    token.chmod(0o600)
    options = Options()
    given = [one.format(token) for one in ROLES[role]] if arguments is None else arguments
    options.parseOptions([role, *given])
    metrics_registry, health = make_metrics_registry(), Health()
    HealthMetrics(health, metrics_registry)
    HTTPReports(reactor, "health port", "health_port", metrics_registry)
    LoopDelay(reactor, metrics_registry)
    role_options: Any = options.subOptions
    role_options.levels = role_options.log_levels()
    role_options.build(reactor, health, metrics_registry, lambda reason: None)
    return metrics_registry


def registered(metrics_registry: CollectorRegistry) -> Iterator[Metric]:
    """Every metric that there is, or may be later."""
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
    """Metric → the roles that have it, as the page says."""
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
def test_the_page_has_what_a_role_has_and_no_more(role: str, tmp_path: Path) -> None:
    there = {
        metric
        for metric in registered(registry_of(role, tmp_path))
        if not metric.name.startswith("process_")
    }
    told = {metric for metric, roles in described().items() if role in roles}
    assert there == told


def test_names_follow_prometheus_conventions() -> None:
    for metric in described():
        assert re.fullmatch(r"tracker(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.name.endswith("_info") or metric.type in ("counter", "gauge", "histogram")


def test_no_label_can_be_of_a_device() -> None:
    bounded = {
        *("vendor", "state", "result", "reason", "codec", "stream", "group", "consumer"),
        *("status", "fate", "condition", "version", "python", "twisted"),
        *("method", "part", "hook"),
    }
    assert {label for metric in described() for label in metric.labels} <= bounded


def test_all_roles_in_one_process_do_not_tell_anything_twice(tmp_path: Path) -> None:
    standalone = registry_of("standalone", tmp_path, ["--data", str(tmp_path)])
    together = {metric.name for metric in registered(standalone)}
    apart = {
        metric.name
        for role in ("ingest", "process", "janitor", "console")
        for metric in registered(registry_of(role, tmp_path))
    }
    assert together == apart
