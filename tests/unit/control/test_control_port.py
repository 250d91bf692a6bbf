"""Who is heard by a control port, who may do what, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.protocols import amp
from zope.interface.verify import verifyObject

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
from tracker import __version__
from tracker.control.access import Permission
from tracker.control.commands import (
    COMMANDS,
    VERSION,
    ControlCommand,
    Drain,
    DropConnection,
    GetDevice,
    Hello,
    Info,
    NotPermitted,
    SendCommand,
    SetLogLevel,
    VersionMismatch,
    Watch,
)
from tracker.control.handler import IClient
from tracker.control.server import (
    CLOSE_GRACE,
    HELLO_TIMEOUT,
    MAX_CONNECTIONS,
)
from tracker.control.wire import ConnectionAborted
from tracker.interfaces import IInstance
from tracker.observe.levels import AUDIT
from tracker.observe.ratelimit import MAX_LINES

OPERATE = [command for command in COMMANDS if command.operates]
named = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)


def test_the_double_keeps_to_the_interface() -> None:
    assert verifyObject(IInstance, FakeInstance())


def test_the_protocol_is_the_client_of_its_conversation(port: Port) -> None:
    assert verifyObject(IClient, port.build())


# Hello.


def test_both_sides_say_what_they_are(port: Port) -> None:
    answer = port.connect().ask(Hello, version=VERSION, client="admin")
    assert answer == {
        "version": VERSION,
        "software": __version__,
        "instance_id": "one",
        "name": "tcp 127.0.0.1:40000",
        "permission": "operate",
    }
    assert port.timers == 0


@named
def test_before_hello_nothing_else_is_answered(
    port: Port, command: type[ControlCommand], logged: Sequence[LogEvent]
) -> None:
    if command is Hello:
        return
    client = port.connect()
    error = client.refusal(command, **GOOD[command])
    assert isinstance(error, VersionMismatch)
    assert str(error) == f"say Hello first, with version {VERSION}"
    assert client.lives
    assert not port.redis.asked
    assert not told(logged)
    client.hello()


def test_before_hello_nobody_learns_which_commands_and_arguments_there_are(port: Port) -> None:
    client = port.connect()
    unknown = amp.AmpBox(_ask=b"1", _command=b"Unknown").serialize()
    for data in (box_of(GetDevice), box_of(GetDevice, device_id=b"\xff"), unknown):
        assert client.raw(data)[b"_error_code"] == b"VERSION_MISMATCH"
    assert client.lives


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (0, "and not 0: upgrade the client"),
        (VERSION + 1, f"and not {VERSION + 1}: upgrade this instance"),
        (-1, "and not -1: upgrade the client"),
        pytest.param(10**4000, "and not 100000000000000…: upgrade this instance", id="4001 digits"),
    ],
)
def test_another_version_is_refused_in_clear_words(port: Port, version: int, told: str) -> None:
    client = port.connect()
    error = client.refusal(Hello, version=version)
    assert isinstance(error, VersionMismatch)
    assert str(error) == f"this is tracker {__version__}, which speaks version {VERSION} {told}"
    # It may try another one, as long as its time lasts; nothing else is answered meanwhile.
    assert isinstance(client.refusal(Info), VersionMismatch)
    client.hello()


def test_who_does_not_say_hello_is_cut_off(port: Port, logged: Sequence[LogEvent]) -> None:
    client = port.connect()
    port.clock.advance(HELLO_TIMEOUT - 0.1)
    assert client.lives
    port.clock.advance(0.1)
    client.pump()
    assert client.cut_off
    assert told(logged, LogLevel.warn) == ["control: 127.0.0.1:40000 was cut off: no Hello in time"]
    assert quiet(logged)
    assert port.timers == 0


def test_who_is_refused_its_version_has_no_more_time(port: Port) -> None:
    client = port.connect()
    client.refusal(Hello, version=VERSION + 1)
    port.clock.advance(HELLO_TIMEOUT)
    client.pump()
    assert client.cut_off


def test_those_that_were_silent_leave_their_place_to_others(
    port: Port, logged: Sequence[LogEvent]
) -> None:
    for _ in range(3):
        silent = [port.connect() for _ in range(MAX_CONNECTIONS)]
        port.clock.advance(HELLO_TIMEOUT)
        for client in silent:
            client.pump()
    port.client()
    assert len(told(logged, LogLevel.warn)) <= MAX_LINES
    assert quiet(logged)


def test_who_has_said_hello_may_be_silent(port: Port, client: Client) -> None:
    port.clock.advance(86_400)
    assert client.ask(Info)["instance_id"] == "one"


def test_who_has_no_role_is_cut_off(port: Port, logged: Sequence[LogEvent]) -> None:
    port.factory.permissions.local = None  # type: ignore[assignment]
    client = port.connect()
    assert client.cut_off
    assert told(logged, LogLevel.warn) == [
        "control: 127.0.0.1:40000 was cut off: tcp 127.0.0.1:40000 has no permission"
    ]
    assert port.timers == 0


def test_a_client_is_told_in_the_log_by_its_name(port: Port, logged: Sequence[LogEvent]) -> None:
    for name, shown in (("admin", "admin"), ("a\nb{c}", r"'a\nb{c}'"), ("x" * 100, "x" * 64)):
        client = port.connect()
        client.ask(Hello, version=VERSION, client=name)
        client.ask(SetLogLevel, level="info")
        assert told(logged)[-1] == (
            f"audit: tcp 127.0.0.1:40000 ({shown}) asks for SetLogLevel level='info'"
        )


# Permissions.


@named
def test_who_may_only_read_may_read_all(
    command: type[ControlCommand], logged: Sequence[LogEvent]
) -> None:
    port = Port(Permission.READ)
    client = port.connect()
    assert client.ask(Hello, version=VERSION)["permission"] == "read"
    asked = client.begin(command, **GOOD[command])
    client.pump()
    if command.operates:
        error = asked.error()
        assert isinstance(error, NotPermitted)
        assert str(error) == "that requires the permission operate"
        assert not port.redis.asked
        assert not port.instance.drains
    else:
        try:
            asked.result()
        except NotPermitted:
            raise
        except Exception:  # noqa: BLE001 - as that there is no such device
            pass
    assert client.lives
    assert port.levels.set("info") == "info"
    lines = [line for line in told(logged) if line.startswith("audit: ")]
    assert len(lines) == command.operates


def test_a_role_that_changes_holds_from_the_next_command_on(port: Port) -> None:
    client = port.client()
    client.ask(SetLogLevel, level="info")
    port.factory.permissions.local = Permission.READ
    assert isinstance(client.refusal(SetLogLevel, level="info"), NotPermitted)
    assert client.ask(Info)["instance_id"] == "one"
    assert client.ask(Hello, version=VERSION)["permission"] == "read"


def test_who_has_no_role_any_more_is_cut_off(port: Port, logged: Sequence[LogEvent]) -> None:
    client = port.client()
    port.factory.permissions.local = None  # type: ignore[assignment]
    client.begin(Info)
    client.pump()
    assert client.cut_off
    assert told(logged, LogLevel.warn) == [
        "control: 127.0.0.1:40000 was cut off: tcp 127.0.0.1:40000 has no permission any more"
    ]
    assert quiet(logged)


def test_to_operate_takes_a_role() -> None:
    assert set(OPERATE) == {SendCommand, DropConnection, SetLogLevel, Drain}
    for command in COMMANDS:
        assert (NotPermitted in command.errors) == (command.operates or command is Hello)


@pytest.mark.parametrize("permission", [Permission.READ, Permission.OPERATE])
@pytest.mark.parametrize("command", OPERATE, ids=lambda command: command.__name__)
def test_it_is_told_in_the_log_who_asks_for_what(
    permission: Permission, command: type[ControlCommand], logged: Sequence[LogEvent]
) -> None:
    client = Port(permission).client()
    client.begin(command, **GOOD[command])
    client.pump()
    arguments = {
        SendCommand: f"device_id='{DEVICE}'",
        DropConnection: f"device_id='{DEVICE}'",
        SetLogLevel: "level='debug'",
        Drain: "seconds=1.0",
    }
    verb = "asks for" if permission is Permission.OPERATE else "may not ask for"
    (line,) = [line for line in told(logged) if line.startswith("audit: ")]
    assert line == (
        f"audit: tcp 127.0.0.1:40000 (test) {verb} {command.__name__} {arguments[command]}"
    )


def test_no_level_hides_who_asks_for_what(client: Client, logged: Sequence[LogEvent]) -> None:
    client.ask(SetLogLevel, level="critical")
    client.ask(SetLogLevel, level="info")
    events = [event for event in logged if formatEvent(event).startswith("audit: ")]
    assert [event["log_namespace"] for event in events] == [AUDIT, AUDIT]


def test_what_a_device_is_told_is_not_told_in_the_log(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    port.redis.answers = {"EVALSHA": [b"waits", b""]}
    client.ask(SendCommand, device_id=DEVICE, text="s3cret", command_id="c1")
    port.redis.answers = {"EVALSHA": RuntimeError("a fault")}
    client.refusal(SendCommand, device_id=DEVICE, text="s3cret", command_id="c1")
    port.operations.send_command = lambda **_: _answer("s3cret")  # type: ignore[method-assign]
    client.refusal(SendCommand, device_id=DEVICE, text="s3cret", command_id="c1")
    text = "".join(formatEvent(event) + str(event.get("log_failure")) for event in logged)
    assert "command_id='c1'" in text
    assert "s3cret" not in text


async def _answer(text: str) -> dict[str, Any]:
    return {"text": text}


def test_what_is_told_in_the_log_is_short(client: Client, logged: Sequence[LogEvent]) -> None:
    client.refusal(DropConnection, device_id="\n" * 60_000)
    (line,) = told(logged)
    assert len(line) < 200
    assert "\n" not in line


def test_who_asks_in_vain_again_and_again_does_not_fill_the_log(
    logged: Sequence[LogEvent],
) -> None:
    port = Port(Permission.READ)
    client = port.client()
    for _ in range(100):
        client.refusal(SetLogLevel, level="debug")
    assert len(told(logged)) == MAX_LINES
    port.clock.advance(60)
    client.refusal(SetLogLevel, level="debug")
    assert told(logged)[-1].endswith(f"(and {100 - MAX_LINES} more, not shown)")


# The end.


def closing(port: Port) -> list[Any]:
    closed: list[Any] = []
    port.factory.close_all().addCallback(closed.append)
    return closed


def test_a_stop_closes_all_connections(port: Port, client: Client) -> None:
    other = port.connect()
    client.ask(Watch, device_id=DEVICE)
    closed = closing(port)
    for one in (client, other):
        assert not closed
        one.pump()
    assert closed == [None]
    assert not port.instance.watched
    assert port.timers == 0


def test_a_stop_without_connections_is_done_at_once(port: Port) -> None:
    assert closing(port) == [None]


def test_a_stop_waits_for_nobody_for_long(port: Port, client: Client) -> None:
    closed = closing(port)
    client.far.disconnecting = False  # it does not take what it was sent
    port.clock.advance(CLOSE_GRACE)
    client.pump()
    assert client.cut_off
    assert closed == [None]
    assert port.timers == 0


def test_whoever_waits_on_the_other_side_is_told_why_the_connection_ended() -> None:
    port = Port()
    client = port.client()
    slow(port)
    asked = client.begin(GetDevice, device_id=DEVICE)
    client.pump()
    client.protocol.dataReceived(b"\xff\xff")
    client.protocol.connectionLost()
    error = asked.error()
    assert isinstance(error, ConnectionAborted)
    assert str(error) == "a key of 65535 bytes"
