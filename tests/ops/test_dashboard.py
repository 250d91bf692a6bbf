"""The dashboard: its structure, and its queries against a running site.

The last tests stop the processor; they have to run after all others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ops.conftest import Site
from tests.ops.prometheus import DASHBOARD
from tests.waiting import wait_for

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
LAG = 'max(tracker_stream_lag_entries{group="processor"})'


def queries() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_dashboard_needs_only_a_prometheus_datasource() -> None:
    assert BOARD["id"] is None
    assert BOARD["uid"]
    assert BOARD["schemaVersion"] >= 36
    assert BOARD["__inputs"] == []
    (variable,) = BOARD["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    assert variable["query"] == "prometheus"
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["datasource"] == DATASOURCE
            assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
    types = {panel["type"] for panel in PANELS} - {"row"}
    assert types == {one["id"] for one in BOARD["__requires"] if one["type"] == "panel"}


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    used: set[tuple[int, int]] = set()
    for panel in PANELS:
        area = panel["gridPos"]
        assert area["x"] + area["w"] <= 24
        cells = {
            (column, line)
            for column in range(area["x"], area["x"] + area["w"])
            for line in range(area["y"], area["y"] + area["h"])
        }
        assert not cells & used, panel["title"]
        used |= cells


def test_dashboard_shows_the_lag_at_the_top() -> None:
    first = [panel["title"] for panel in sorted(PANELS, key=lambda one: one["gridPos"]["y"])][:3]
    assert first == ["Lag", "Oldest unprocessed", "Unprocessed"]


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_each_query_of_the_dashboard_returns_data(site: Site, title: str, query: str) -> None:
    expression = query.replace("$__rate_interval", "30s")
    assert "$" not in expression
    wait_for(lambda: site.prometheus.query(expression), f"{title}: {expression}", timeout=60)


def test_each_alert_rule_can_be_evaluated(site: Site) -> None:
    wait_for(
        lambda: all(rule["health"] == "ok" for rule in site.prometheus.rules()),
        "all rules are evaluated",
        timeout=60,
    )


def test_each_metric_of_an_alert_rule_exists(site: Site) -> None:
    expressions = " ".join(rule["query"] for rule in site.prometheus.rules())
    for name in sorted(set(re.findall(r"\btracker_\w+", expressions))):
        assert site.prometheus.query(f"count({name})"), name


def test_no_critical_alert_fires_while_all_roles_run(site: Site) -> None:
    assert site.prometheus.query('ALERTS{alertstate="firing",severity="critical"}') == []


def test_dashboard_shows_a_growing_lag_without_a_processor(site: Site) -> None:
    site.daemons["process"].kill()
    grown = 100 + (site.prometheus.value(LAG) or 0)
    wait_for(lambda: (site.prometheus.value(LAG) or 0) > grown, "the lag grows", timeout=90)
    ages = 'max(tracker_stream_oldest_unprocessed_age_seconds{group="processor"})'
    age = site.prometheus.value(ages) or 0
    assert age > 0
    wait_for(lambda: (site.prometheus.value(ages) or 0) > age, "the oldest entry ages", timeout=60)


def test_missing_processor_raises_alerts(site: Site) -> None:
    # The second one is raised for the stream of each vendor.
    pending = 'count by (alertname) (ALERTS{alertname=~"TrackerInstanceDown|TrackerNoConsumer"})'
    wait_for(
        lambda: len(site.prometheus.query(pending)) == 2,
        "both alerts are pending",
        timeout=120,
    )
