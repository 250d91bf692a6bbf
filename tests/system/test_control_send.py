"""``tracker-admin send``: a command and its end, through whole processes."""

from __future__ import annotations

import re

import pytest

from tests.system.controlled import TIME, UNKNOWN_DEVICE, Site, answering, imei
from tests.system.test_commands import online, read_command
from tracker.vendors.teltonika.messages import NACK


def test_send_prints_the_answer(site: Site) -> None:
    device_id = imei()
    told = answering(online(site.one, device_id), "INI:2026/1/1\x1b[2J")
    fate = site.json("send", device_id, "getinfo")
    command = told.result()
    assert (command.codec.name, command.text) == ("12", "getinfo")
    assert fate["device_id"] == device_id
    assert (fate["status"], fate["reason"]) == ("responded", None)
    assert (fate["response"], fate["truncated"]) == ("INI:2026/1/1\x1b[2J", False)
    assert re.fullmatch(TIME, fate["at"])
    plain = site.admin("status", fate["command_id"]).stdout
    assert re.search(r"^response +INI:2026/1/1\\x1b\[2J$", plain, re.MULTILINE)


def test_a_command_that_the_device_rejects(site: Site) -> None:
    device_id = imei()
    told = answering(online(site.one, device_id), "", NACK)
    ended = site.admin("send", device_id, "getver", "--codec", "14", status=1)
    assert told.result().imei == device_id
    assert re.search(r"^status +rejected$", ended.stdout, re.MULTILINE)


def test_a_command_for_a_device_that_is_offline(site: Site) -> None:
    for option in ("--wait", "--no-wait"):
        fate = site.json("send", UNKNOWN_DEVICE, "getver", "--offline", "fail", option, status=1)
        assert (fate["status"], fate["reason"]) == ("failed", "offline")
    device_id = imei()
    fate = site.json("send", device_id, "getver", "--no-wait")
    assert (fate["status"], fate["response"]) == ("waiting", None)
    assert site.json("device", device_id)["waiting"] == 1
    assert site.json("status", fate["command_id"], "--device", device_id)["status"] == "waiting"


@pytest.mark.parametrize(
    ("piped", "sent"), [("a b\n", "a b"), ("a\n\n", "a\n"), (" x\r\n", " x\r"), ("é", "é")]
)
def test_a_command_from_standard_input(site: Site, piped: str, sent: str) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    site.admin("send", device_id, "-", "--no-wait", typed=piped)
    assert read_command(device).content == sent.encode()
