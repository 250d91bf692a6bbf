"""Alerting rules: checks and tests by promtool, and required annotations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.ops.prometheus import ROOT, RULES, promtool

TESTS = Path(__file__).parent / "alerts_test.yml"
_TEXT = RULES.read_text()
ALERTS: dict[str, str] = dict(re.findall(r"- alert: (\w+)\n((?:(?!      - alert).*\n)*)", _TEXT))


def test_promtool_accepts_the_alert_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))


def test_promtool_accepts_the_configuration() -> None:
    assert "SUCCESS" in promtool("check", "config", str(RULES.parent / "prometheus.yml"))


def test_promtool_accepts_the_rule_tests() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_each_alert_has_a_firing_and_a_silent_case(name: str) -> None:
    cases = re.findall(rf"alertname: {name}\n +exp_alerts:( \[\])?", TESTS.read_text())
    assert set(cases) == {"", " []"}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_each_alert_has_a_severity_texts_and_a_runbook(name: str) -> None:
    body = ALERTS[name]
    assert re.search(r"labels: \{severity: (warning|critical)\}", body)
    for annotation in ("summary", "description", "runbook_url"):
        assert f"          {annotation}:" in body


def anchors() -> set[str]:
    return set(re.findall(r"operations\.html#([a-z-]+)", _TEXT))


@pytest.mark.parametrize("anchor", sorted(anchors()))
def test_each_runbook_section_of_an_alert_exists(anchor: str) -> None:
    page = ROOT / "docs" / "operations.rst"
    if not page.exists():
        pytest.skip("the page is not written yet")
    text = page.read_text()
    titles = {
        title.lower().replace(" ", "-") for title in re.findall(r"^(.+)\n[=-]{3,}$", text, re.M)
    }
    assert f".. _{anchor}:" in text or anchor in titles
