"""Tests of ``tracker-admin send`` with whole processes."""

from __future__ import annotations

import re

import pytest

from tests.system.controlled import TIME, UNKNOWN_DEVICE, Site, answering, imei
from tests.system.test_commands import online, read_command
from tracker.vendors.teltonika.messages import NACK


def test_send_prints_the_answer(site: Site) -> None:
    device_id = imei()
    answered = answering(online(site.one, device_id), "INI:2026/1/1\x1b[2J")
    response = site.json("send", device_id, "getinfo")
    command = answered.result()
    assert (command.codec.name, command.text) == ("12", "getinfo")
    assert response["device_id"] == device_id
    assert (response["status"], response["reason"]) == ("responded", None)
    assert (response["response"], response["truncated"]) == ("INI:2026/1/1\x1b[2J", False)
    assert re.fullmatch(TIME, response["at"])
    plain = site.admin("status", response["command_id"]).stdout
    assert re.search(r"^response +INI:2026/1/1\\x1b\[2J$", plain, re.MULTILINE)


def test_send_reports_a_command_that_the_device_rejects(site: Site) -> None:
    device_id = imei()
    answered = answering(online(site.one, device_id), "", NACK)
    ended = site.admin("send", device_id, "getver", "--codec", "14", exit_code=1)
    assert answered.result().imei == device_id
    assert re.search(r"^status +rejected$", ended.stdout, re.MULTILINE)


def test_send_reports_a_command_for_an_unconnected_device(site: Site) -> None:
    for option in ("--wait", "--no-wait"):
        response = site.json(
            "send", UNKNOWN_DEVICE, "getver", "--offline", "fail", option, exit_code=1
        )
        assert (response["status"], response["reason"]) == ("failed", "offline")
    device_id = imei()
    response = site.json("send", device_id, "getver", "--no-wait")
    assert (response["status"], response["response"]) == ("waiting", None)
    assert site.json("device", device_id)["waiting"] == 1
    assert site.json("status", response["command_id"], "--device", device_id)["status"] == "waiting"


@pytest.mark.parametrize(
    ("piped", "sent"), [("a b\n", "a b"), ("a\n\n", "a\n"), (" x\r\n", " x\r"), ("é", "é")]
)
def test_send_reads_the_command_from_standard_input(site: Site, piped: str, sent: str) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    site.admin("send", device_id, "-", "--no-wait", typed=piped)
    assert read_command(device).content == sent.encode()
