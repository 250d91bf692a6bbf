"""Tests of the client: commands, replies and errors."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.protocols import amp
from twisted.python.failure import Failure

from tests.unit.control.client_bench import Bench
from tests.unit.control.wire import DEVICE, delay_get_device
from tracker.control.access import Permission
from tracker.control.client import CannotSendBytes
from tracker.control.commands import (
    BadArgument,
    ControlError,
    DropConnection,
    Info,
    NoSuchDevice,
    NotPermitted,
    SendCommand,
    VersionMismatch,
)
from tracker.control.connection import (
    REPLY_TIMEOUT,
    NotConnected,
)


def test_client_sends_hello_before_other_commands(bench: Bench) -> None:
    assert bench.client.greeting["instance_id"] == "one"
    assert bench.client.greeting["permission"] == "operate"
    assert bench.ask(bench.client.info())["instance_id"] == "one"


def test_commands_wait_until_the_client_is_connected() -> None:
    bench = Bench()
    asked = [bench.begin(bench.client.info()) for _ in range(3)]
    assert asked == [[], [], []]
    bench.endpoint.succeed()
    assert [one[0]["instance_id"] for one in asked] == ["one"] * 3
    assert bench.stop() == [None]
    assert bench.port.timers == 0


async def rows(pages: Any) -> list[str]:
    return [row["device_id"] async for row in pages]


def test_client_requests_all_pages_of_a_list(bench: Bench) -> None:
    devices = [f"{number:03}" for number in range(450)]
    for device_id in devices:
        bench.port.instance.connect(device_id)
    assert bench.ask(rows(bench.client.connections())) == devices
    assert bench.ask(rows(bench.client.connections("1", limit=7))) == devices[100:200]
    assert bench.ask(rows(bench.client.connections(vendor="unknown"))) == []
    scanned = [part.encode() for one in devices for part in (one, "two")]
    bench.port.redis.replies = {
        "HSCAN": [b"0", scanned],
        "HMGET": lambda key, *asked: [b"x"] * len(asked),
    }
    assert bench.ask(rows(bench.client.device_registry())) == devices
    assert bench.ask(rows(bench.client.device_registry(instance_id="one"))) == []
    assert bench.ask(rows(bench.client.device_registry("00", limit=3))) == devices[:10]


def test_client_requests_all_pages_of_the_lag(bench: Bench) -> None:
    group = [b"g", 1, 0, None, None, [], 0]
    facts = [b"length", 1, b"entries-added", 1]
    bench.port.redis.replies = {
        "SCAN": [b"0", []],
        "EVALSHA": [[b"1", b"0"], facts, [[b"%03d" % n, *group[1:]] for n in range(450)]],
    }
    found = bench.ask(bench.client.lag())
    assert [row["group"] for row in found] == [f"{number:03}" for number in range(450)]
    assert len(bench.ask(bench.client.lag(["s"]))) == 450


def test_each_method_of_the_client_sends_its_command(bench: Bench) -> None:
    client, port = bench.client, bench.port
    port.instance.connect(DEVICE)
    port.redis.replies = {
        "HMGET": [b"one"],
        "XLEN": 0,
        "EVALSHA": [b"moved", b"two"],
        "GET": b"sent commands:outbound:two 1-1",
    }
    assert bench.ask(client.device(DEVICE))["here"] is True
    sent = bench.ask(client.send_command(DEVICE, "getinfo", command_id="c1", timeout=5.0))
    assert (sent["command_id"], sent["status"]) == ("c1", "queued")
    assert bench.ask(client.command_status("c1", DEVICE))["status"] == "sent"
    assert bench.ask(client.set_log_level("debug", "tracker.control")) == "info"
    assert bench.ask(client.drop_connection(DEVICE)) == "192.0.2.1:40000"
    assert isinstance(bench.ask(client.drain(math.nan)), BadArgument)
    drained = bench.begin(client.drain(2.0))
    port.instance.drains[0][1].callback((3, 0))
    bench.flush()
    assert drained == [{"closed": 3, "left": 0}]


def test_errors_of_the_instance_are_raised_by_their_class(bench: Bench) -> None:
    client = bench.client
    assert isinstance(bench.ask(client.drop_connection(DEVICE)), NoSuchDevice)
    assert isinstance(bench.ask(client.set_log_level("loud")), BadArgument)
    reading = Bench(permission=Permission.READ)
    reading.endpoint.succeed()
    assert isinstance(reading.ask(reading.client.drain(1.0)), NotPermitted)


@pytest.mark.parametrize("text", ["x" * 70_000, "\ud800"])
def test_argument_that_cannot_be_sent_is_a_bad_argument(bench: Bench, text: str) -> None:
    error = bench.ask(bench.client.drop_connection(text))
    assert isinstance(error, BadArgument)
    assert bench.ask(bench.client.info())


def test_unknown_and_malformed_options_are_bad_arguments(bench: Bench) -> None:
    client = bench.client
    bench.port.redis.replies = {"EVALSHA": [b"waits", b""]}
    for arguments, message in (
        ({"offlin": "fail"}, "SendCommand has no argument offlin"),
        ({"timeout": "soon"}, "timeout cannot be sent: Bad float value"),
        ({"codec": 12}, "codec cannot be sent: "),
        ({"codec": "\ud800"}, "codec cannot be sent: not UTF-8"),
    ):
        error = bench.ask(client.send_command(DEVICE, "getinfo", **arguments))
        assert isinstance(error, BadArgument)
        assert message in str(error)
    assert bench.ask(client.send_command(DEVICE, "getinfo", timeout=5, expires_in=60))
    bench.begin(client.drain(3))
    assert bench.port.instance.drains[0][0] == 3.0


def test_unknown_command_raises_version_mismatch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Info, "commandName", b"InfoTwo")
    error = bench.ask(bench.client.info())
    assert isinstance(error, VersionMismatch)
    assert str(error) == "the instance does not support Info; upgrade the instance"
    monkeypatch.undo()
    assert bench.ask(bench.client.info())


def test_unknown_error_code_raises_control_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {b"BAD_ARGUMENT": BadArgument}
    monkeypatch.setattr(DropConnection, "reverseErrors", codes)
    error = bench.ask(bench.client.drop_connection(DEVICE))
    assert type(error) is ControlError
    assert "is not connected to this instance" in str(error)
    assert bench.ask(bench.client.info())


def test_client_does_not_wait_longer_than_the_timeout_for_a_reply(bench: Bench) -> None:
    waiting = delay_get_device(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    bench.clock.advance(REPLY_TIMEOUT)
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert str(error) == "no reply within 15s"
    waiting[0].callback([b"two"])  # the late reply is ignored
    assert bench.ask(bench.client.info())


def test_cancelled_request_is_no_lost_connection(bench: Bench) -> None:
    delay_get_device(bench.port)
    asked = Deferred.fromCoroutine(bench.client.device(DEVICE))
    bench.flush()
    asked.cancel()
    outcome: list[Failure] = []
    asked.addErrback(outcome.append)
    assert outcome[0].check(CancelledError)
    assert bench.ask(bench.client.info())


def test_waiting_for_a_final_response_has_no_timeout(bench: Bench) -> None:
    bench.port.redis.replies = {"EVALSHA": [b"waits", b""]}
    asked = bench.begin(bench.client.send_command(DEVICE, "getinfo", wait=True))
    bench.clock.pump([0.1] * 3000)
    assert not asked
    content = [b"status", b"responded", b"response", b"fine"]
    bench.port.redis.replies = {"GET": b"done responded 1-1", "XRANGE": [[b"1-1", content]]}
    bench.clock.advance(0.1)
    bench.flush()
    assert asked[0]["response"] == "fine"


def test_client_reports_an_instance_that_cannot_send_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Earlier(SendCommand):
        """The command as an earlier version knows it."""

        commandName = SendCommand.commandName
        arguments: ClassVar[Any] = [
            (name, amp.Unicode() if name == b"text" else kind)
            for name, kind in SendCommand.arguments
            if name != b"payload_hex"
        ]

    monkeypatch.setattr("tracker.control.handler.SendCommand", Earlier)
    bench = Bench()
    begun = bench.begin(bench.client.send_command(DEVICE, b"\x0a\xff"))
    bench.endpoint.succeed()
    assert isinstance(begun[0], CannotSendBytes)
    assert str(begun[0]) == (
        "the instance is of an earlier version and cannot send bytes; upgrade it"
    )
    assert bench.stop() == [None]
