"""The dashboard: whether Grafana can import it as it is, and whether its queries find something.

The last tests stop the processor; what a run of all roles shows comes before.
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


def test_it_needs_nothing_but_a_prometheus() -> None:
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


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (column, line)
            for column in range(place["x"], place["x"] + place["w"])
            for line in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_lag_is_on_top() -> None:
    first = [panel["title"] for panel in sorted(PANELS, key=lambda one: one["gridPos"]["y"])][:3]
    assert first == ["Lag", "Oldest unprocessed", "Lag"]


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_each_query_finds_something(site: Site, title: str, query: str) -> None:
    expression = query.replace("$__rate_interval", "30s")
    assert "$" not in expression
    wait_for(lambda: site.prometheus.query(expression), f"{title}: {expression}", timeout=60)


def test_each_rule_can_be_evaluated(site: Site) -> None:
    wait_for(
        lambda: all(rule["health"] == "ok" for rule in site.prometheus.rules()),
        "all rules are evaluated",
        timeout=60,
    )


def test_each_metric_of_a_rule_is_there(site: Site) -> None:
    expressions = " ".join(rule["query"] for rule in site.prometheus.rules())
    for name in sorted(set(re.findall(r"\btracker_\w+", expressions))):
        assert site.prometheus.query(f"count({name})"), name


def test_while_all_runs_nothing_fires(site: Site) -> None:
    assert site.prometheus.query('ALERTS{alertstate="firing",severity="critical"}') == []


def test_without_a_processor_the_lag_grows_before_our_eyes(site: Site) -> None:
    site.daemons["process"].kill()
    grown = 100 + (site.prometheus.value(LAG) or 0)
    wait_for(lambda: (site.prometheus.value(LAG) or 0) > grown, "the lag grows", timeout=90)
    ages = 'max(tracker_stream_oldest_unprocessed_age_seconds{group="processor"})'
    age = site.prometheus.value(ages) or 0
    assert age > 0
    wait_for(lambda: (site.prometheus.value(ages) or 0) > age, "the oldest gets older", timeout=60)


def test_that_a_processor_is_missing_is_told(site: Site) -> None:
    pending = 'ALERTS{alertname=~"TrackerInstanceDown|TrackerNoConsumer"}'
    wait_for(
        lambda: len(site.prometheus.query(pending)) == 2,
        "both alerts wait for their time",
        timeout=120,
    )
