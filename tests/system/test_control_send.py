"""Tests of ``tracker-admin send`` with whole processes."""

from __future__ import annotations

import json
import re
import signal
import time
from datetime import datetime
from getpass import getuser

import pytest

from tests.system.controlled import TIME, UNKNOWN_DEVICE, Site, answering, imei
from tests.system.processes import run
from tests.system.test_commands import online, read_command
from tracker.admin.send import UNKNOWN_COMMAND
from tracker.vendors.teltonika.messages import NACK


def iso_seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


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


@pytest.mark.parametrize("codec", ["12", "14"])
def test_device_receives_exactly_the_bytes_that_are_sent(site: Site, codec: str) -> None:
    device_id = imei()
    answered = answering(online(site.one, device_id), "\x00OK")
    content = bytes(range(256))
    response = site.json("send", device_id, "--hex", content.hex(" "), "--codec", codec)
    command = answered.result()
    assert (command.codec.name, command.content) == (codec, content)
    assert (response["status"], response["response"]) == ("responded", "\x00OK")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--hex", "0"], "pairs of hex digits"),
        (["--hex", ""], "pairs of hex digits"),
        (["getinfo", "--hex", "00"], "exclude each other"),
        (["-", "--hex", "00"], "exclude each other"),
        ([], "TEXT"),
    ],
)
def test_invalid_content_of_a_command_is_bad_use(arguments: list[str], error: str) -> None:
    ended = run("tracker-admin", "send", "356307042441013", *arguments)
    assert ended.returncode == 2
    assert error in ended.stderr.splitlines()[-1]


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
    found = site.json("status", response["command_id"], "--device", device_id)
    assert found["status"] == "waiting"
    assert found["expires_at"] == response["expires_at"]
    assert (found["text"], found["sender"]) == ("getver", getuser())


def test_interrupted_send_says_how_to_ask_for_the_status(site: Site) -> None:
    device_id = imei()
    sending = site.start("send", device_id, "getinfo", "--id", "interrupted")
    assert sending.stderr is not None
    assert "waits until" in sending.stderr.readline()
    sending.send_signal(signal.SIGINT)
    _, more = sending.communicate(timeout=20)
    assert sending.returncode == 128 + signal.SIGINT
    assert f"tracker-admin status interrupted --device {device_id}" in more


def test_send_says_at_once_that_the_command_waits_and_goes_on_waiting(site: Site) -> None:
    device_id = imei()
    sending = site.start("-o", "json", "send", device_id, "getinfo", "--id", "waits")
    assert sending.stderr is not None
    notice = sending.stderr.readline()
    assert notice.startswith(f"{device_id} is not connected to any instance; ")
    assert re.search(r"waits until (\S+ )?\d\d:\d\d:\d\d \(5m\)\. Ctrl-C", notice)
    assert sending.poll() is None
    answered = answering(online(site.two, device_id), "INI:2026/1/1")
    assert answered.result().text == "getinfo"
    output, more = sending.communicate(timeout=20)
    assert json.loads(output)["response"] == "INI:2026/1/1"
    assert (sending.returncode, more) == (0, "")


def test_send_without_waiting_says_that_the_command_waits(site: Site) -> None:
    ended = site.admin("send", imei(), "getinfo", "--no-wait", "--expires", "3h")
    assert re.search(r"; the command waits until .*\(3h\)\.\n$", ended.stderr)
    assert re.search(r"^status +waiting$", ended.stdout, re.MULTILINE)


def test_waiting_client_hears_of_the_expiry_within_two_seconds(site: Site) -> None:
    # No janitor runs here: the instance that the client asks ends the command.
    began = time.time()
    ended = site.json("send", imei(), "getinfo", "--expires", "1s", exit_code=1)
    assert ended["status"] == "expired"
    assert 1 <= iso_seconds(ended["at"]) - began < 1 + 2
    assert time.time() - began < 1 + 2 + 5  # with the start of a process on a loaded machine


def test_send_warns_of_a_command_that_the_device_does_not_know(site: Site) -> None:
    device_id = imei()
    answered = answering(online(site.one, device_id), "Unknown command or invalid format")
    ended = site.admin("send", device_id, "getinfos", "--id", "unknown")
    assert answered.result().text == "getinfos"
    assert re.search(r"^status +responded$", ended.stdout, re.MULTILINE)
    assert re.search(r"^reason +unknown_command$", ended.stdout, re.MULTILINE)
    assert ended.stderr == f"{UNKNOWN_COMMAND}\n"
    assert site.admin("status", "unknown").stderr == ended.stderr


@pytest.mark.parametrize(
    ("piped", "sent"), [("a b\n", "a b"), ("a\n\n", "a\n"), (" x\r\n", " x\r"), ("é", "é")]
)
def test_send_reads_the_command_from_standard_input(site: Site, piped: str, sent: str) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    site.admin("send", device_id, "-", "--no-wait", typed=piped)
    assert read_command(device).content == sent.encode()
