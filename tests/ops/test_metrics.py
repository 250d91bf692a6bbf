"""Metrics of each role, checked by promtool."""

from __future__ import annotations

import re
import urllib.request

import pytest

from tests.ops.conftest import Site
from tests.ops.prometheus import promtool

ROLES = ("ingest", "process", "janitor", "bridge")


def exposed(site: Site, role: str) -> str:
    with urllib.request.urlopen(site.daemons[role].url("/metrics"), timeout=30) as response:
        text: str = response.read().decode()
    return text


@pytest.mark.parametrize("role", ROLES)
def test_promtool_accepts_the_metrics(site: Site, role: str) -> None:
    assert promtool("check", "metrics", given=exposed(site, role).encode()) == ""


@pytest.mark.parametrize("role", ROLES)
def test_metrics_have_no_label_with_a_device_id(site: Site, role: str) -> None:
    text = exposed(site, role)
    assert "tracker_" in text
    assert not re.search(r"[0-9]{14}", "\n".join(re.findall(r"\{.*\}", text)))


def test_appended_records_are_counted(site: Site) -> None:
    stored = site.redis.client.xinfo_groups("telemetry:teltonika")[0]["entries-read"]
    counted = re.search(
        r'^tracker_records_total\{codec="8E",result="appended",vendor="teltonika"\} (\S+)',
        exposed(site, "ingest"),
        re.M,
    )
    assert counted is not None
    # Records arrive between the two reads. The answer to the command has codec 12.
    assert float(counted[1]) >= stored - 1 > 0
