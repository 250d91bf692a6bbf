"""Tests of the control port: Hello, permissions, audit log and stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.protocols import amp
from zope.interface.verify import verifyObject

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


def test_fake_instance_provides_its_interface() -> None:
    assert verifyObject(IInstance, FakeInstance())


def test_protocol_provides_the_interface_of_a_client(port: Port) -> None:
    assert verifyObject(IClient, port.build())


# Hello.


def test_hello_returns_versions_and_identities(port: Port) -> None:
    reply = port.connect().ask(Hello, version=VERSION, client="admin")
    assert reply == {
        "version": VERSION,
        "software": __version__,
        "instance_id": "one",
        "name": "tcp 127.0.0.1:40000",
        "permission": "operate",
    }
    assert port.timers == 0


@named
def test_other_commands_are_refused_before_hello(
    port: Port, command: type[ControlCommand], logged: Sequence[LogEvent]
) -> None:
    if command is Hello:
        return
    client = port.connect()
    error = client.refusal(command, **VALID[command])
    assert isinstance(error, VersionMismatch)
    assert str(error) == f"Hello with version {VERSION} must be the first command"
    assert client.is_open
    assert not port.redis.sent
    assert not log_lines(logged)
    client.hello()


def test_errors_before_hello_do_not_name_commands_or_arguments(port: Port) -> None:
    client = port.connect()
    unknown = amp.AmpBox(_ask=b"1", _command=b"Unknown").serialize()
    for data in (command_box(GetDevice), command_box(GetDevice, device_id=b"\xff"), unknown):
        assert client.raw(data)[b"_error_code"] == b"VERSION_MISMATCH"
    assert client.is_open


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (0, "not 0; upgrade the client"),
        (VERSION + 1, f"not {VERSION + 1}; upgrade the instance"),
        (-1, "not -1; upgrade the client"),
        pytest.param(10**4000, "not 100000000000000…; upgrade the instance", id="4001 digits"),
    ],
)
def test_error_for_another_version_names_the_side_to_upgrade(
    port: Port, version: int, message: str
) -> None:
    client = port.connect()
    error = client.refusal(Hello, version=version)
    assert isinstance(error, VersionMismatch)
    assert str(error) == (
        f"tracker {__version__} supports version {VERSION} of the protocol, {message}"
    )
    # The client may send another Hello; other commands are refused until then.
    assert isinstance(client.refusal(Info), VersionMismatch)
    client.hello()


def test_connection_without_hello_is_closed(port: Port, logged: Sequence[LogEvent]) -> None:
    client = port.connect()
    port.clock.advance(HELLO_TIMEOUT - 0.1)
    assert client.is_open
    port.clock.advance(0.1)
    client.pump()
    assert client.aborted
    assert log_lines(logged, LogLevel.warn) == [
        "control connection of 127.0.0.1:40000 closed: no Hello within 10s"
    ]
    assert no_traceback(logged)
    assert port.timers == 0


def test_refused_hello_does_not_extend_the_timeout(port: Port) -> None:
    client = port.connect()
    client.refusal(Hello, version=VERSION + 1)
    port.clock.advance(HELLO_TIMEOUT)
    client.pump()
    assert client.aborted


def test_silent_connections_do_not_block_new_ones_after_the_timeout(
    port: Port, logged: Sequence[LogEvent]
) -> None:
    for _ in range(3):
        silent = [port.connect() for _ in range(MAX_CONNECTIONS)]
        port.clock.advance(HELLO_TIMEOUT)
        for client in silent:
            client.pump()
    port.client()
    assert len(log_lines(logged, LogLevel.warn)) <= MAX_LINES
    assert no_traceback(logged)


def test_client_may_be_silent_after_hello(port: Port, client: Client) -> None:
    port.clock.advance(86_400)
    assert client.ask(Info)["instance_id"] == "one"


def test_client_without_a_permission_is_disconnected(
    port: Port, logged: Sequence[LogEvent]
) -> None:
    port.factory.permissions.local = None  # type: ignore[assignment]
    client = port.connect()
    assert client.aborted
    assert log_lines(logged, LogLevel.warn) == [
        "control connection of 127.0.0.1:40000 closed: tcp 127.0.0.1:40000 has no permission"
    ]
    assert port.timers == 0


def test_audit_line_contains_the_escaped_name_of_the_client(
    port: Port, logged: Sequence[LogEvent]
) -> None:
    for name, shown in (("admin", "admin"), ("a\nb{c}", r"'a\nb{c}'"), ("x" * 100, "x" * 64)):
        client = port.connect()
        client.ask(Hello, version=VERSION, client=name)
        client.ask(SetLogLevel, level="info")
        assert log_lines(logged)[-1] == (
            f"audit: tcp 127.0.0.1:40000 ({shown}) requested SetLogLevel level='info'"
        )


# Permissions.


@named
def test_permission_read_allows_only_commands_that_read(
    command: type[ControlCommand], logged: Sequence[LogEvent]
) -> None:
    port = Port(Permission.READ)
    client = port.connect()
    assert client.ask(Hello, version=VERSION)["permission"] == "read"
    asked = client.begin(command, **VALID[command])
    client.pump()
    if command.operates:
        error = asked.error()
        assert isinstance(error, NotPermitted)
        assert str(error) == 'this command requires the permission "operate"'
        assert not port.redis.sent
        assert not port.instance.drains
    else:
        try:
            asked.result()
        except NotPermitted:
            raise
        except Exception:  # noqa: BLE001 - other errors do not matter here
            pass
    assert client.is_open
    assert port.levels.set("info") == "info"
    lines = [line for line in log_lines(logged) if line.startswith("audit: ")]
    assert len(lines) == command.operates


def test_changed_permission_applies_to_the_next_command(port: Port) -> None:
    client = port.client()
    client.ask(SetLogLevel, level="info")
    port.factory.permissions.local = Permission.READ
    assert isinstance(client.refusal(SetLogLevel, level="info"), NotPermitted)
    assert client.ask(Info)["instance_id"] == "one"
    assert client.ask(Hello, version=VERSION)["permission"] == "read"


def test_client_is_disconnected_when_its_permission_is_removed(
    port: Port, logged: Sequence[LogEvent]
) -> None:
    client = port.client()
    port.factory.permissions.local = None  # type: ignore[assignment]
    client.begin(Info)
    client.pump()
    assert client.aborted
    assert log_lines(logged, LogLevel.warn) == [
        "control connection of 127.0.0.1:40000 closed: "
        "the permission of tcp 127.0.0.1:40000 was removed"
    ]
    assert no_traceback(logged)


def test_only_operating_commands_and_hello_declare_not_permitted() -> None:
    assert set(OPERATE) == {SendCommand, DropConnection, SetLogLevel, Drain}
    for command in COMMANDS:
        assert (NotPermitted in command.errors) == (command.operates or command is Hello)


@pytest.mark.parametrize("permission", [Permission.READ, Permission.OPERATE])
@pytest.mark.parametrize("command", OPERATE, ids=lambda command: command.__name__)
def test_operating_commands_are_logged_with_client_and_arguments(
    permission: Permission, command: type[ControlCommand], logged: Sequence[LogEvent]
) -> None:
    client = Port(permission).client()
    client.begin(command, **VALID[command])
    client.pump()
    arguments = {
        SendCommand: f"device_id='{DEVICE}'",
        DropConnection: f"device_id='{DEVICE}'",
        SetLogLevel: "level='debug'",
        Drain: "seconds=1.0",
    }
    verb = "requested" if permission is Permission.OPERATE else "was denied"
    (line,) = [line for line in log_lines(logged) if line.startswith("audit: ")]
    assert line == (
        f"audit: tcp 127.0.0.1:40000 (test) {verb} {command.__name__} {arguments[command]}"
    )


@pytest.mark.parametrize("name", ["text", "payload_hex"])
def test_content_of_a_command_is_not_logged(
    name: str, client: Client, logged: Sequence[LogEvent]
) -> None:
    client.begin(SendCommand, **{"device_id": DEVICE, name: "5ec7e7"})
    client.pump()
    assert "audit" in str(log_lines(logged))
    assert "5ec7e7" not in str(log_lines(logged))


def test_audit_log_ignores_the_log_level(client: Client, logged: Sequence[LogEvent]) -> None:
    client.ask(SetLogLevel, level="critical")
    client.ask(SetLogLevel, level="info")
    events = [event for event in logged if formatEvent(event).startswith("audit: ")]
    assert [event["log_namespace"] for event in events] == [AUDIT, AUDIT]


def test_text_of_a_command_is_not_logged(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    port.redis.replies = {"EVALSHA": [b"waits", b""]}
    client.ask(SendCommand, device_id=DEVICE, text="s3cret", command_id="c1")
    port.redis.replies = {"EVALSHA": RuntimeError("a fault")}
    client.refusal(SendCommand, device_id=DEVICE, text="s3cret", command_id="c1")
    port.operations.send_command = lambda **_: _reply_with("s3cret")  # type: ignore[method-assign]
    client.refusal(SendCommand, device_id=DEVICE, text="s3cret", command_id="c1")
    text = "".join(formatEvent(event) + str(event.get("log_failure")) for event in logged)
    assert "command_id='c1'" in text
    assert "s3cret" not in text


async def _reply_with(text: str) -> dict[str, Any]:
    return {"text": text}


def test_audit_line_with_a_long_argument_is_short(
    client: Client, logged: Sequence[LogEvent]
) -> None:
    client.refusal(DropConnection, device_id="\n" * 60_000)
    (line,) = log_lines(logged)
    assert len(line) < 200
    assert "\n" not in line


def test_log_lines_for_denied_commands_are_limited(
    logged: Sequence[LogEvent],
) -> None:
    port = Port(Permission.READ)
    client = port.client()
    for _ in range(100):
        client.refusal(SetLogLevel, level="debug")
    assert len(log_lines(logged)) == MAX_LINES
    port.clock.advance(60)
    client.refusal(SetLogLevel, level="debug")
    assert log_lines(logged)[-1].endswith(f"(and {100 - MAX_LINES} more, not shown)")


# Stopping.


def closing(port: Port) -> list[Any]:
    closed: list[Any] = []
    port.factory.close_all().addCallback(closed.append)
    return closed


def test_stop_closes_all_connections(port: Port, client: Client) -> None:
    other = port.connect()
    client.ask(Watch, device_id=DEVICE)
    closed = closing(port)
    for one in (client, other):
        assert not closed
        one.pump()
    assert closed == [None]
    assert not port.instance.watched
    assert port.timers == 0


def test_stop_without_connections_is_immediate(port: Port) -> None:
    assert closing(port) == [None]


def test_stop_aborts_connections_after_a_grace_period(port: Port, client: Client) -> None:
    closed = closing(port)
    client.far.disconnecting = False  # the client does not read what it was sent
    port.clock.advance(CLOSE_GRACE)
    client.pump()
    assert client.aborted
    assert closed == [None]
    assert port.timers == 0


def test_pending_command_fails_with_the_reason_of_the_abort() -> None:
    port = Port()
    client = port.client()
    delay_get_device(port)
    asked = client.begin(GetDevice, device_id=DEVICE)
    client.pump()
    client.protocol.dataReceived(b"\xff\xff")
    client.protocol.connectionLost()
    error = asked.error()
    assert isinstance(error, ConnectionAborted)
    assert str(error) == "a key of 65,535 bytes"
