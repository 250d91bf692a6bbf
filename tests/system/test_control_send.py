"""``tracker-admin send``: a command and its end, through whole processes."""

from __future__ import annotations

import re
import time

import pytest

from tests.system.controlled import NOBODY, TIME, Site, answering, imei
from tests.system.raw import Ingest, frame
from tests.system.test_commands import answer, online, read_command
from tests.waiting import wait_for
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


def test_send_to_a_device_on_another_instance(site: Site) -> None:
    device_id = imei()
    told = answering(online(site.two, device_id), "Ver:1")
    fate = site.json("send", device_id, "getver", "--codec", "14")
    command = told.result()
    assert (command.codec.name, command.imei) == ("14", device_id)
    assert (fate["status"], fate["instance_id"]) == ("responded", "two")


def test_a_command_that_the_device_rejects(site: Site) -> None:
    device_id = imei()
    told = answering(online(site.one, device_id), "", NACK)
    ended = site.admin("send", device_id, "getver", "--codec", "14", status=1)
    assert told.result().imei == device_id
    assert re.search(r"^status +rejected$", ended.stdout, re.MULTILINE)


def test_a_command_that_is_not_answered(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    fate = site.json("send", device_id, "getver", "--timeout", "1s", status=1)
    assert read_command(device).text == "getver"
    assert (fate["status"], fate["reason"]) == ("failed", "timeout")


def test_a_command_that_expires(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    device.send(frame(2)[:20])  # a command does not come between the halves of a packet
    fate = site.json("send", device_id, "getver", "--expires", "1s", status=1)
    assert (fate["status"], fate["reason"]) == ("expired", None)
    device.send(frame(2)[20:])
    assert device.read(4) == b"\x00\x00\x00\x01"
    assert device.says_nothing()


def test_a_command_for_a_device_that_is_offline(site: Site) -> None:
    for option in ("--wait", "--no-wait"):
        fate = site.json("send", NOBODY, "getver", "--offline", "fail", option, status=1)
        assert (fate["status"], fate["reason"]) == ("failed", "offline")
    device_id = imei()
    fate = site.json("send", device_id, "getver", "--no-wait")
    assert (fate["status"], fate["response"]) == ("waiting", None)
    assert site.json("device", device_id)["waiting"] == 1
    assert site.json("status", fate["command_id"], "--device", device_id)["status"] == "waiting"


def test_a_command_is_sent_once(site: Site) -> None:
    device_id, name = imei(), f"reset-{time.time()}"
    device = online(site.one, device_id)
    for _ in range(2):
        fate = site.json("send", device_id, "cpureset", "--no-wait", "--id", name)
        assert fate["command_id"] == name
    command = read_command(device)
    status = site.json("status", name)["status"]
    assert status == "delivered"
    answer(device, "ok", command)
    wait_for(lambda: site.json("status", name)["status"] == "responded", "answered")
    assert device.says_nothing()
    assert "nothing is known" in site.admin("status", "none-such", status=1).stderr


@pytest.mark.parametrize(
    ("piped", "sent"), [("a b\n", "a b"), ("a\n\n", "a\n"), (" x\r\n", " x\r"), ("é", "é")]
)
def test_a_command_from_standard_input(site: Site, piped: str, sent: str) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    site.admin("send", device_id, "-", "--no-wait", typed=piped)
    assert read_command(device).content == sent.encode()


def test_an_instance_that_dies_while_an_answer_is_waited_for(site: Site, spare: Ingest) -> None:
    device_id = imei()
    device = online(spare, device_id)
    sending = site.start("send", device_id, "getver", "--id", "dies", control=site.socket("spare"))
    read_command(device)
    spare.daemon.kill()
    _, stderr = sending.communicate(timeout=20)
    assert sending.returncode == 3
    assert f"tracker-admin status dies --device {device_id}" in stderr
