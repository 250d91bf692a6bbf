"""Tests of malformed, failing and too many commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel
from twisted.protocols import amp

from tests.unit.control.wire import (
    DEVICE,
    VALID,
    Client,
    Port,
    command_box,
    delay_get_device,
    log_lines,
    no_traceback,
)
from tests.unit.fakes import FakeInstance
from tracker.control.commands import (
    COMMANDS,
    ControlCommand,
    Drain,
    GetDevice,
    Hello,
    Info,
    InternalError,
    Lag,
    ListConnections,
    SendCommand,
    SetLogLevel,
    Unwatch,
)
from tracker.control.server import (
    MAX_CONNECTIONS,
    MAX_PENDING_COMMANDS,
    ControlProtocol,
)
from tracker.control.wire import MAX_BOX_BYTES, MAX_BOX_VALUES
from tracker.observe.ratelimit import MAX_LINES

OPERATE = [command for command in COMMANDS if command.operates]
named = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)


# Commands that are refused or fail.


def test_unknown_command_leaves_the_connection_open(client: Client) -> None:
    class Later(amp.Command):
        commandName = b"Later"

    error = client.refusal(Later)
    assert isinstance(error, amp.UnhandledCommand)
    assert "unknown command b'Later'" in str(error)
    assert client.ask(Info)


def test_unknown_command_may_have_any_name(client: Client, logged: Sequence[LogEvent]) -> None:
    for name in (b"\xff" * 65_535, b"", b"\r\n{}" * 1000):
        reply = client.raw(amp.AmpBox(_ask=b"1", _command=name).serialize())
        assert reply[b"_error_code"] == amp.UNHANDLED_ERROR_CODE
    assert client.ask(Info)
    assert no_traceback(logged)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (Hello, {}, "version is missing"),
        (Hello, {"version": b"one"}, "version is malformed: wrong type"),
        (Hello, {"version": b"9" * 5000}, "version is malformed: wrong type"),
        (GetDevice, {}, "device_id is missing"),
        (GetDevice, {"device_id": b"\xff" * 65_535}, "device_id is malformed: not UTF-8"),
        (SendCommand, {"device_id": b"1"}, "text is missing"),
        (SendCommand, {"device_id": b"1", "text": b"x", "wait": b"maybe"}, "wait is malformed"),
        (SendCommand, {"device_id": b"1", "text": b"x", "timeout": b""}, "timeout is malformed"),
        (ListConnections, {"limit": b"x" * 60_000}, "limit is malformed: wrong type"),
        (Lag, {"streams": b"\x00\x01\xff"}, "streams is malformed: not UTF-8"),
        (Drain, {"seconds": b"soon"}, "seconds is malformed: wrong type"),
    ],
)  # fmt: skip
def test_missing_and_malformed_arguments_are_refused(
    client: Client,
    command: type[ControlCommand],
    arguments: dict[str, bytes],
    message: str,
    logged: Sequence[LogEvent],
) -> None:
    reply = client.raw(command_box(command, **arguments))
    assert reply[b"_error"] == b"1"
    assert reply[b"_error_code"] == b"BAD_ARGUMENT"
    assert message in reply[b"_error_description"].decode()
    assert client.ask(Info)
    assert no_traceback(logged)


def test_unknown_arguments_are_ignored(client: Client) -> None:
    assert b"_answer" in client.raw(command_box(Info, tomorrow=b"1"))


@named
def test_internal_error_is_logged_and_leaves_the_connection_open(
    port: Port,
    command: type[ControlCommand],
    logged: Sequence[LogEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fault(*_: object, **__: object) -> Any:
        raise RuntimeError("a bug")

    for name in dir(port.operations):
        if not name.startswith("_") and name != "watchers":
            setattr(port.operations, name, fault)
    monkeypatch.setattr(FakeInstance, "watch", fault)
    client = port.client()
    if command in (Hello, Unwatch):
        return  # these do not use the operations
    error = client.refusal(command, **VALID[command])
    assert isinstance(error, InternalError)
    assert str(error) == "internal error; see the log of the instance"
    assert log_lines(logged, LogLevel.critical) == [f"{command.__name__} failed"]
    client.hello()


@pytest.mark.parametrize("reply", [None, {}, {"before": 7}, {"before": "x" * 65_536}])
def test_reply_that_cannot_be_sent_is_an_internal_error(
    port: Port, reply: Any, logged: Sequence[LogEvent]
) -> None:
    port.operations.set_log_level = lambda **_: reply  # type: ignore[method-assign]
    client = port.client()
    assert isinstance(client.refusal(SetLogLevel, level="info"), InternalError)
    (line,) = log_lines(logged, LogLevel.critical)
    assert line == "SetLogLevel failed"
    assert client.ask(Info)


# Bytes that close the connection.


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "a key of 18,245 bytes"),
        (b"\x16\x03\x01\x02\x00\x01", "a key of 5,635 bytes"),
        (b"\x01\x00" + b"k" * 256, "a key of 256 bytes"),
        (b"\x00\x00" * 5000, "a box that is neither a command nor a reply"),
        (b"\x00\x01k\x00\x01v\x00\x00", "a box that is neither a command nor a reply"),
        (b"\x00\x07_answer\x00\x019\x00\x00", "a box that is neither a command nor a reply"),
        (b"\x00\x06_error\x00\x019\x00\x00", "a box that is neither a command nor a reply"),
        (b"\x00\x08_command\x00\x01x\x00\x00", "a command that requests no reply"),
    ],
    ids=[
        *("HTTP", "TLS", "long key", "zeros", "neither command nor reply"),
        *("unexpected reply", "unexpected error", "command without a tag"),
    ],
)
def test_garbage_closes_the_connection(
    port: Port, data: bytes, reason: str, greeted: bool, logged: Sequence[LogEvent]
) -> None:
    client = port.client() if greeted else port.connect()
    client.send(data)
    assert client.aborted
    (line,) = log_lines(logged, LogLevel.warn)
    assert line == f"control connection of 127.0.0.1:40000 closed: {reason}"
    assert no_traceback(logged)
    assert port.timers == 0
    port.client()


def test_bytes_after_garbage_are_not_buffered(port: Port, client: Client) -> None:
    client.server.dataReceived(b"\xff\xff")
    for _ in range(100):
        client.server.dataReceived(b"x" * 65_536)
    assert kept(client.server) < 100
    client.pump()
    assert client.aborted


def kept(protocol: ControlProtocol) -> int:
    """Return the number of received bytes that were not processed."""
    return len(protocol.recvd)


def test_box_with_too_many_values_closes_the_connection(port: Port, client: Client) -> None:
    def box(count: int) -> bytes:
        return command_box(Info, **{f"k{number}": b"v" for number in range(count - 2)})

    assert b"_answer" in client.raw(box(MAX_BOX_VALUES))
    client.send(box(MAX_BOX_VALUES + 1))
    assert client.aborted


def test_box_with_too_many_bytes_closes_the_connection(port: Port, client: Client) -> None:
    def box(size: int) -> bytes:
        values = {"a": b"x" * 65_535, "b": b"x" * 60_000}
        rest = size - 65_535 - 60_000 - len(b"_askInfo_command1abc")
        return command_box(Info, **values, c=b"x" * rest)

    assert b"_answer" in client.raw(box(MAX_BOX_BYTES))
    client.send(box(MAX_BOX_BYTES + 1))
    assert client.aborted


def test_endless_box_is_not_buffered(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    # The same key is repeated, so that the box has only one value.
    piece: bytes = amp.AmpBox({b"k": b"v" * 10_000}).serialize()[:-2]
    sent = 0
    while not client.aborted:
        assert kept(client.server) < 20_000
        client.send(piece)
        sent += 1
    assert sent == MAX_BOX_BYTES // 10_001 + 1
    assert len(log_lines(logged, LogLevel.warn)) == 1


def test_log_lines_for_garbage_are_limited(port: Port, logged: Sequence[LogEvent]) -> None:
    for _ in range(50):
        port.connect().send(b"\xff\xff")
    assert len(log_lines(logged, LogLevel.warn)) == MAX_LINES
    port.clock.advance(60)
    port.connect().send(b"\xff\xff")
    assert log_lines(logged, LogLevel.warn)[-1].endswith(f"(and {50 - MAX_LINES} more, not shown)")


def test_command_may_arrive_byte_by_byte(client: Client) -> None:
    data = command_box(ListConnections, prefix=b"1")
    for byte in data[:-1]:
        client.send(bytes((byte,)))
    assert b"_answer" in client.raw(data[-1:])


def test_number_of_connections_is_limited(port: Port, logged: Sequence[LogEvent]) -> None:
    clients = [port.client() for _ in range(MAX_CONNECTIONS)]
    for _ in range(50):
        assert port.factory.buildProtocol(None) is None
    lines = log_lines(logged, LogLevel.warn)
    assert len(lines) == MAX_LINES
    assert lines[0].endswith(f"limit of {MAX_CONNECTIONS} connections reached")
    clients[0].leave()
    port.client()
    assert port.factory.buildProtocol(None) is None


def test_client_without_hello_is_disconnected_when_a_new_client_needs_its_slot(
    port: Port, logged: Sequence[LogEvent]
) -> None:
    greeted = port.client()
    silent = [port.connect() for _ in range(MAX_CONNECTIONS - 1)]
    one, two = port.client(), port.client()
    for client in silent:
        client.pump()
    assert [client.aborted for client in silent[:3]] == [True, True, False]
    assert [client.ask(Info)["instance_id"] for client in (greeted, one, two)] == ["one"] * 3
    (line, _) = log_lines(logged, LogLevel.warn)
    assert line.endswith("closed: no Hello yet, and another client needs the connection")


# Concurrent commands.


def test_number_of_concurrent_commands_is_limited(port: Port, client: Client) -> None:
    waiting = delay_get_device(port)
    asked = [client.begin(GetDevice, device_id=f"{number:015}") for number in range(200)]
    client.pump()
    peak = 0
    for number in range(200):
        peak = max(peak, len(waiting) - number)
        waiting[number].callback([None])
        client.pump()
        assert asked[number].result()["device_id"] == f"{number:015}"
    assert peak == MAX_PENDING_COMMANDS
    assert client.is_open
    assert port.timers == 0


def test_replies_may_arrive_in_any_order(port: Port, client: Client) -> None:
    waiting = delay_get_device(port)
    asked = [
        client.begin(GetDevice, device_id=f"{number:015}") for number in range(MAX_PENDING_COMMANDS)
    ]
    last = client.begin(Info)
    client.pump()
    assert not last.has_reply
    waiting[7].callback([None])
    client.pump()
    assert asked[7].has_reply
    assert last.has_reply
    assert sum(one.has_reply for one in asked) == 1


def test_many_immediate_commands_are_all_processed(port: Port, client: Client) -> None:
    asked = [client.begin(Info) for _ in range(1000)]
    client.pump()
    assert all(one.result()["instance_id"] == "one" for one in asked)


def test_unprocessed_bytes_are_buffered_up_to_a_limit(port: Port, client: Client) -> None:
    waiting = delay_get_device(port)
    for _ in range(100):
        client.begin(ListConnections, prefix="x" * 60_000)
        client.begin(GetDevice, device_id=DEVICE)
        client.pump()
    assert len(waiting) == MAX_PENDING_COMMANDS
    assert kept(client.server) <= MAX_BOX_BYTES + 61_000
    assert not client.far.reading
    number = 0
    while number < len(waiting):
        waiting[number].callback([None])
        client.pump()
        number += 1
    assert number == 100
    assert client.far.reading
    assert kept(client.server) == 0


def test_transport_is_not_paused_below_the_buffer_limit(port: Port, client: Client) -> None:
    delay_get_device(port)
    for _ in range(MAX_PENDING_COMMANDS + 5):
        client.begin(GetDevice, device_id=DEVICE)
    client.pump()
    assert client.far.reading  # a paused transport does not notice a disconnect


def test_disconnect_cancels_all_commands(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    waiting = delay_get_device(port)
    for _ in range(MAX_PENDING_COMMANDS + 5):
        client.begin(GetDevice, device_id=DEVICE)
    client.begin(Drain, seconds=1.0)
    client.pump()
    client.leave()
    assert len(waiting) == MAX_PENDING_COMMANDS  # no further command was started
    assert port.timers == 0
    assert port.factory.watchers == 0
    assert no_traceback(logged)
    for deferred in waiting:
        if not deferred.called:
            deferred.callback([None])
    assert no_traceback(logged)


def test_disconnect_cancels_waiting_for_a_final_response(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    port.redis.replies = {"EVALSHA": [b"waits", b""]}
    asked = client.begin(SendCommand, device_id=DEVICE, text="getinfo", wait=True)
    client.pump()
    port.clock.pump([0.1] * 10)
    assert not asked.has_reply
    client.leave()
    assert port.timers == 0
    assert no_traceback(logged)
