"""What is asked of a control port in vain, too often, or is no question at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel
from twisted.protocols import amp

from tests.unit.control.wire import (
    DEVICE,
    GOOD,
    Client,
    Port,
    box_of,
    quiet,
    slow,
    told,
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


# What is asked for in vain.


def test_an_unknown_command_is_told_and_the_connection_lives_on(client: Client) -> None:
    class Later(amp.Command):
        commandName = b"Later"

    error = client.refusal(Later)
    assert isinstance(error, amp.UnhandledCommand)
    assert "there is no command b'Later'" in str(error)
    assert client.ask(Info)


def test_an_unknown_command_may_be_called_anything(
    client: Client, logged: Sequence[LogEvent]
) -> None:
    for name in (b"\xff" * 65_535, b"", b"\r\n{}" * 1000):
        answer = client.raw(amp.AmpBox(_ask=b"1", _command=name).serialize())
        assert answer[b"_error_code"] == amp.UNHANDLED_ERROR_CODE
    assert client.ask(Info)
    assert quiet(logged)


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        (Hello, {}, "version is missing"),
        (Hello, {"version": b"one"}, "version cannot be read: it is not of that type"),
        (Hello, {"version": b"9" * 5000}, "version cannot be read: it is not of that type"),
        (GetDevice, {}, "device_id is missing"),
        (GetDevice, {"device_id": b"\xff" * 65_535}, "device_id cannot be read: it is not UTF-8"),
        (SendCommand, {"device_id": b"1"}, "text is missing"),
        (SendCommand, {"device_id": b"1", "text": b"x", "wait": b"maybe"}, "wait cannot be read"),
        (SendCommand, {"device_id": b"1", "text": b"x", "timeout": b""}, "timeout cannot be read"),
        (ListConnections, {"limit": b"x" * 60_000}, "limit cannot be read: it is not of that type"),
        (Lag, {"streams": b"\x00\x01\xff"}, "streams cannot be read: it is not UTF-8"),
        (Drain, {"seconds": b"soon"}, "seconds cannot be read: it is not of that type"),
    ],
)  # fmt: skip
def test_arguments_that_are_missing_or_no_such_thing(
    client: Client,
    command: type[ControlCommand],
    arguments: dict[str, bytes],
    told: str,
    logged: Sequence[LogEvent],
) -> None:
    answer = client.raw(box_of(command, **arguments))
    assert answer[b"_error"] == b"1"
    assert answer[b"_error_code"] == b"BAD_ARGUMENT"
    assert told in answer[b"_error_description"].decode()
    assert client.ask(Info)
    assert quiet(logged)


def test_arguments_that_nobody_knows_are_left_alone(client: Client) -> None:
    assert b"_answer" in client.raw(box_of(Info, tomorrow=b"1"))


@named
def test_whatever_fails_is_logged_and_told_and_the_connection_lives_on(
    port: Port,
    command: type[ControlCommand],
    logged: Sequence[LogEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fault(*_: object, **__: object) -> Any:
        raise RuntimeError("who would have thought")

    for name in dir(port.operations):
        if not name.startswith("_") and name != "watchers":
            setattr(port.operations, name, fault)
    monkeypatch.setattr(FakeInstance, "watch", fault)
    client = port.client()
    if command in (Hello, Unwatch):
        return  # needs nobody
    error = client.refusal(command, **GOOD[command])
    assert isinstance(error, InternalError)
    assert str(error) == "a fault in the instance, which its log tells of"
    assert told(logged, LogLevel.critical) == [f"{command.__name__} has failed"]
    client.hello()


@pytest.mark.parametrize("answer", [None, {}, {"before": 7}, {"before": "x" * 65_536}])
def test_an_answer_that_cannot_be_sent_is_a_fault_like_others(
    port: Port, answer: Any, logged: Sequence[LogEvent]
) -> None:
    port.operations.set_log_level = lambda **_: answer  # type: ignore[method-assign]
    client = port.client()
    assert isinstance(client.refusal(SetLogLevel, level="info"), InternalError)
    (line,) = told(logged, LogLevel.critical)
    assert line == "SetLogLevel has failed"
    assert client.ask(Info)


# Who is cut off.


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "a key of 18245 bytes"),
        (b"\x16\x03\x01\x02\x00\x01", "a key of 5635 bytes"),
        (b"\x01\x00" + b"k" * 256, "a key of 256 bytes"),
        (b"\x00\x00" * 5000, "a box that is no command, nor the answer to one"),
        (b"\x00\x01k\x00\x01v\x00\x00", "a box that is no command, nor the answer to one"),
        (b"\x00\x07_answer\x00\x019\x00\x00", "a box that is no command, nor the answer to one"),
        (b"\x00\x06_error\x00\x019\x00\x00", "a box that is no command, nor the answer to one"),
        (b"\x00\x08_command\x00\x01x\x00\x00", "a command that asks for no answer"),
    ],
    ids=["HTTP", "TLS", "long key", "zeros", "no command", "no question", "no error", "no answer"],
)
def test_garbage_is_cut_off(
    port: Port, data: bytes, reason: str, greeted: bool, logged: Sequence[LogEvent]
) -> None:
    client = port.client() if greeted else port.connect()
    client.send(data)
    assert client.cut_off
    assert told(logged, LogLevel.warn) == [f"control: 127.0.0.1:40000 was cut off: {reason}"]
    assert quiet(logged)
    assert port.timers == 0
    port.client()


def test_garbage_that_goes_on_is_not_read(port: Port, client: Client) -> None:
    client.server.dataReceived(b"\xff\xff")
    for _ in range(100):
        client.server.dataReceived(b"x" * 65_536)
    assert kept(client.server) < 100
    client.pump()
    assert client.cut_off


def kept(protocol: ControlProtocol) -> int:
    """Bytes that were received, and not taken in."""
    return len(protocol.recvd)


def test_a_box_of_many_values_is_cut_off(port: Port, client: Client) -> None:
    def box(count: int) -> bytes:
        return box_of(Info, **{f"k{number}": b"v" for number in range(count - 2)})

    assert b"_answer" in client.raw(box(MAX_BOX_VALUES))
    client.send(box(MAX_BOX_VALUES + 1))
    assert client.cut_off


def test_a_box_of_many_bytes_is_cut_off(port: Port, client: Client) -> None:
    def box(size: int) -> bytes:
        values = {"a": b"x" * 65_535, "b": b"x" * 60_000}
        rest = size - 65_535 - 60_000 - len(b"_askInfo_command1abc")
        return box_of(Info, **values, c=b"x" * rest)

    assert b"_answer" in client.raw(box(MAX_BOX_BYTES))
    client.send(box(MAX_BOX_BYTES + 1))
    assert client.cut_off


def test_a_box_without_end_is_not_kept(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    # The same key again and again, so that there is one value only.
    piece: bytes = amp.AmpBox({b"k": b"v" * 10_000}).serialize()[:-2]
    sent = 0
    while not client.cut_off:
        assert kept(client.server) < 20_000
        client.send(piece)
        sent += 1
    assert sent == MAX_BOX_BYTES // 10_001 + 1
    assert len(told(logged, LogLevel.warn)) == 1


def test_those_that_send_garbage_do_not_fill_the_log(
    port: Port, logged: Sequence[LogEvent]
) -> None:
    for _ in range(50):
        port.connect().send(b"\xff\xff")
    assert len(told(logged, LogLevel.warn)) == MAX_LINES
    port.clock.advance(60)
    port.connect().send(b"\xff\xff")
    assert told(logged, LogLevel.warn)[-1].endswith(f"(and {50 - MAX_LINES} more, not shown)")


def test_a_box_may_come_in_pieces(client: Client) -> None:
    data = box_of(ListConnections, prefix=b"1")
    for byte in data[:-1]:
        client.send(bytes((byte,)))
    assert b"_answer" in client.raw(data[-1:])


def test_there_is_room_for_so_many_connections(port: Port, logged: Sequence[LogEvent]) -> None:
    clients = [port.client() for _ in range(MAX_CONNECTIONS)]
    for _ in range(50):
        assert port.factory.buildProtocol(None) is None
    lines = told(logged, LogLevel.warn)
    assert len(lines) == MAX_LINES
    assert lines[0].endswith(f"there are {MAX_CONNECTIONS} connections already")
    clients[0].leave()
    port.client()
    assert port.factory.buildProtocol(None) is None


def test_who_is_silent_keeps_nobody_out(port: Port, logged: Sequence[LogEvent]) -> None:
    greeted = port.client()
    silent = [port.connect() for _ in range(MAX_CONNECTIONS - 1)]
    one, two = port.client(), port.client()
    for client in silent:
        client.pump()
    assert [client.cut_off for client in silent[:3]] == [True, True, False]
    assert [client.ask(Info)["instance_id"] for client in (greeted, one, two)] == ["one"] * 3
    assert told(logged, LogLevel.warn)[0].endswith("was cut off: no Hello, and others wait")


# Many commands at once.


def test_commands_beyond_a_number_wait_until_others_are_answered(
    port: Port, client: Client
) -> None:
    waiting = slow(port)
    asked = [client.begin(GetDevice, device_id=str(number)) for number in range(200)]
    client.pump()
    most = 0
    for number in range(200):
        most = max(most, len(waiting) - number)
        waiting[number].callback([None])
        client.pump()
        assert asked[number].result()["device_id"] == str(number)
    assert most == MAX_PENDING_COMMANDS
    assert client.lives
    assert port.timers == 0


def test_commands_are_answered_in_whatever_order(port: Port, client: Client) -> None:
    waiting = slow(port)
    asked = [
        client.begin(GetDevice, device_id=str(number)) for number in range(MAX_PENDING_COMMANDS)
    ]
    last = client.begin(Info)
    client.pump()
    assert not last.answered
    waiting[7].callback([None])
    client.pump()
    assert asked[7].answered
    assert last.answered
    assert sum(one.answered for one in asked) == 1


def test_many_commands_that_are_answered_at_once_are_all_answered(
    port: Port, client: Client
) -> None:
    asked = [client.begin(Info) for _ in range(1000)]
    client.pump()
    assert all(one.result()["instance_id"] == "one" for one in asked)


def test_what_is_not_read_is_not_kept_without_limit(port: Port, client: Client) -> None:
    waiting = slow(port)
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


def test_a_client_that_leaves_is_noticed_while_it_is_not_read(port: Port, client: Client) -> None:
    slow(port)
    for _ in range(MAX_PENDING_COMMANDS + 5):
        client.begin(GetDevice, device_id=DEVICE)
    client.pump()
    assert client.far.reading  # what a paused transport would not see


def test_who_leaves_leaves_nothing_behind(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    waiting = slow(port)
    for _ in range(MAX_PENDING_COMMANDS + 5):
        client.begin(GetDevice, device_id=DEVICE)
    client.begin(Drain, seconds=1.0)
    client.pump()
    client.leave()
    assert len(waiting) == MAX_PENDING_COMMANDS  # nothing more was begun with
    assert port.timers == 0
    assert port.factory.watchers == 0
    assert quiet(logged)
    for deferred in waiting:
        if not deferred.called:
            deferred.callback([None])
    assert quiet(logged)


def test_who_waits_for_a_command_and_leaves_leaves_no_timer(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    port.redis.answers = {"EVALSHA": [b"waits", b""]}
    asked = client.begin(SendCommand, device_id=DEVICE, text="getinfo", wait=True)
    client.pump()
    port.clock.pump([0.1] * 10)
    assert not asked.answered
    client.leave()
    assert port.timers == 0
    assert quiet(logged)
