"""The metrics of each role, as promtool and Prometheus see them."""

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
def test_promtool_finds_nothing_to_say(site: Site, role: str) -> None:
    assert promtool("check", "metrics", given=exposed(site, role).encode()) == ""


@pytest.mark.parametrize("role", ROLES)
def test_no_label_names_a_device(site: Site, role: str) -> None:
    text = exposed(site, role)
    assert "tracker_" in text
    assert not re.search(r"[0-9]{14}", "\n".join(re.findall(r"\{.*\}", text)))


def test_what_devices_have_sent_is_counted(site: Site) -> None:
    stored = site.redis.client.xinfo_groups("telemetry:teltonika")[0]["entries-read"]
    counted = re.search(
        r'^tracker_records_total\{codec="8E",result="appended",vendor="teltonika"\} (\S+)',
        exposed(site, "ingest"),
        re.M,
    )
    assert counted is not None
    # Those of between the two looks, too; the command's answer is one of codec 12.
    assert float(counted[1]) >= stored - 1 > 0
