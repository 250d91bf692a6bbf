"""Tests of the reply of each command of a control port."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import plainvendor
from tests.unit.control.wire import (
    DEVICE,
    OTHER,
    VALID,
    Client,
    Port,
)
from tracker import __version__
from tracker.command import Command
from tracker.control.commands import (
    COMMANDS,
    MAX_ROWS,
    BadArgument,
    CommandStatus,
    ControlCommand,
    Drain,
    DropConnection,
    GetDevice,
    Info,
    Lag,
    ListConnections,
    ListDeviceRegistry,
    NoSuchCommand,
    NoSuchDevice,
    RedisUnavailable,
    SendCommand,
    SetLogLevel,
    Unwatch,
    Watch,
)
from tracker.control.operations import MAX_DRAIN_SECONDS

COMMAND = Command("c1", DEVICE, "getinfo", 1_795_341_600_250, sender="anna")


def test_info_describes_the_instance(port: Port, client: Client) -> None:
    port.instance.connect(DEVICE)
    port.instance.held["c1"] = COMMAND
    watching = port.client()
    watching.ask(Watch, device_id=DEVICE)
    watching.ask(Watch, device_id=OTHER)
    assert client.ask(Info) == {
        "instance_id": "one",
        "version": __version__,
        "started_at": "2026-11-22T10:00:00.000Z",
        "connections": 2,
        "devices": 1,
        "commands_held": 1,
        "watchers": 1,
        "draining": False,
        "streams": ["telemetry:teltonika"],
    }


def test_list_connections_returns_facts_of_each_connection(port: Port, client: Client) -> None:
    port.instance.connect(DEVICE)
    assert client.ask(ListConnections) == {
        "connections": [
            {
                "device_id": DEVICE,
                "vendor": "teltonika",
                "address": "192.0.2.1:40000",
                "since": 1.5,
                "last_heard": 2.5,
                "codec": "8",
                "records": 3,
                "bytes": 4,
            }
        ],
        "more": False,
    }


def listed(client: Client, **arguments: Any) -> list[str]:
    return [one["device_id"] for one in client.ask(ListConnections, **arguments)["connections"]]


def test_connections_are_paged_by_id(port: Port, client: Client) -> None:
    devices = [f"{number:015}" for number in range(5)]
    for device_id in reversed(devices):
        port.instance.connect(device_id)
    assert listed(client) == devices
    assert client.ask(ListConnections, limit=5)["more"] is False
    assert client.ask(ListConnections, limit=4)["more"] is True
    assert listed(client, limit=2) == devices[:2]
    assert listed(client, limit=2, after=devices[1]) == devices[2:4]
    assert listed(client, limit=2, after=devices[3]) == devices[4:]
    assert listed(client, after=devices[4]) == []
    disconnected = "0" * 14 + "25"
    assert listed(client, after=disconnected) == devices[3:]


def test_prefix_of_device_ids_may_be_in_lower_case(port: Port, client: Client) -> None:
    port.instance.connect("A00AF")
    assert listed(client, prefix="a0") == ["A00AF"]


def test_connections_are_filtered_by_prefix_and_vendor(port: Port, client: Client) -> None:
    for device_id, vendor in (("11", "teltonika"), ("12", "other"), ("21", "other")):
        port.instance.connect(device_id, vendor)
    assert listed(client, prefix="1") == ["11", "12"]
    assert listed(client, vendor="other") == ["12", "21"]
    assert listed(client, vendor="other", prefix="2", after="12") == ["21"]
    assert listed(client, vendor="unknown") == []
    assert listed(client, prefix="", after="", vendor="other", limit=1) == ["12"]


@pytest.mark.parametrize("limit", [0, -1, MAX_ROWS + 1])
@pytest.mark.parametrize("command", [ListConnections, ListDeviceRegistry, Lag])
def test_limit_out_of_range_is_refused(
    client: Client, command: type[ControlCommand], limit: int
) -> None:
    error = client.refusal(command, limit=limit)
    assert isinstance(error, BadArgument)
    assert str(error) == f"limit must be between 1 and {MAX_ROWS}"
    assert client.is_open


def test_device_registry_is_listed(port: Port, client: Client) -> None:
    port.redis.replies = {
        "HSCAN": [b"0", [b"2", b"two", b"1", b"one", b"x" * 65, b"one"]],
        "HMGET": lambda key, *devices: [b"teltonika" if one == "1" else None for one in devices],
    }
    assert client.ask(ListDeviceRegistry) == {
        "devices": [
            {"device_id": "1", "instance_id": "one", "vendor": "teltonika"},
            {"device_id": "2", "instance_id": "two", "vendor": None},
        ],
        "more": False,
    }
    rows = client.ask(ListDeviceRegistry, instance_id="two")["devices"]
    assert [row["device_id"] for row in rows] == ["2"]
    rows = client.ask(ListDeviceRegistry, vendor="teltonika")["devices"]
    assert [row["device_id"] for row in rows] == ["1"]


def test_get_device_returns_the_state_of_a_local_connection(port: Port, client: Client) -> None:
    port.instance.connect(DEVICE)
    port.instance.loads[DEVICE] = (2, True)
    port.redis.replies = {"HMGET": [b"two"], "XLEN": 3}  # the device has just moved here
    reply = client.ask(GetDevice, device_id=DEVICE)
    assert reply["here"] is True
    assert reply["instance_id"] == "one"
    assert (reply["queued"], reply["outstanding"], reply["waiting"]) == (2, True, 3)
    assert (reply["vendor"], reply["records"]) == ("teltonika", 3)


def test_get_device_names_another_instance(port: Port, client: Client) -> None:
    port.redis.replies = {"HMGET": [b"two"], "XLEN": 0}
    reply = client.ask(GetDevice, device_id=DEVICE)
    assert {key: value for key, value in reply.items() if value is not None} == {
        "device_id": DEVICE,
        "instance_id": "two",
        "here": False,
        "waiting": 0,
    }


def test_get_device_counts_commands_that_wait_for_an_unconnected_device(
    port: Port, client: Client
) -> None:
    port.redis.replies = {"HMGET": [None], "XLEN": 1}
    reply = client.ask(GetDevice, device_id=DEVICE)
    assert (reply["instance_id"], reply["here"], reply["waiting"]) == (None, False, 1)


def test_get_device_refuses_an_unknown_device(port: Port, client: Client) -> None:
    port.redis.replies = {"HMGET": [None], "XLEN": 0}
    error = client.refusal(GetDevice, device_id=DEVICE)
    assert isinstance(error, NoSuchDevice)
    assert str(error) == f"{DEVICE} is not connected, and no command waits for it"


@pytest.mark.parametrize(
    ("effect", "instance_id", "status"),
    [(b"moved", b"two", "queued"), (b"waits", b"", "waiting")],
)
def test_send_command_returns_whether_the_command_is_queued_or_waits(
    port: Port, client: Client, effect: bytes, instance_id: bytes, status: str
) -> None:
    port.redis.replies = {"EVALSHA": [effect, instance_id]}
    reply = client.ask(SendCommand, device_id=DEVICE, text="getinfo", command_id="c1")
    assert reply["command_id"] == "c1"
    assert reply["instance_id"] == (instance_id.decode() or None)
    assert reply["status"] == status


def test_device_id_of_a_client_is_normalised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plainvendor.install(monkeypatch)
    port = Port()
    client = port.client()
    port.instance.connect("00AF")
    assert client.ask(Watch, device_id="00af") == {"here": True}
    client.ask(Unwatch, device_id="00aF")
    port.redis.replies = {"HMGET": [b"one"], "XLEN": 0}
    assert client.ask(GetDevice, device_id="00af")["device_id"] == "00AF"
    assert client.ask(DropConnection, device_id="00af")["address"]


@pytest.mark.parametrize(
    ("vendor", "codec", "error"),
    [
        (b"teltonika", "14", None),
        (
            b"teltonika",
            "plain",
            "codec: must be 12 or 14, not 'plain', for a device of vendor teltonika",
        ),
        (b"acme", "14", "codec: must be empty, not '14', for a device of vendor acme"),
        (b"gone", "plain", None),
        (None, "plain", None),
    ],
)
def test_codec_of_a_command_belongs_to_the_vendor_of_the_device(
    monkeypatch: pytest.MonkeyPatch, vendor: bytes | None, codec: str, error: str | None
) -> None:
    plainvendor.install(monkeypatch)
    port = Port()
    client = port.client()
    port.redis.replies = {"HMGET": [vendor], "EVALSHA": [b"waits", b""]}
    arguments = {"device_id": DEVICE, "text": "getinfo", "codec": codec}
    if error is None:
        assert client.ask(SendCommand, **arguments)["status"] == "waiting"
    else:
        assert str(client.refusal(SendCommand, **arguments)) == error


def test_send_command_generates_an_id(port: Port, client: Client) -> None:
    port.redis.replies = {"EVALSHA": [b"waits", b""]}
    first, second = (
        client.ask(SendCommand, device_id=DEVICE, text="getinfo")["command_id"] for _ in range(2)
    )
    assert first != second
    assert len(first) == 36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device_id": "1"}, "device_id: must be "),
        ({"text": ""}, "payload: must be 1 to 4096 bytes long"),
        ({"text": "x" * 4097}, "payload: must be 1 to 4096 bytes long"),
        ({"command_id": "a b"}, "command_id: must be 1 to 64 printable ASCII"),
        ({"codec": "x" * 17}, "codec: must be at most 16 letters"),
        ({"expires_at": "tomorrow"}, "expires_at: must have the form"),
        ({"expires_in": 0.0}, "expires_in must be more than 0 and at most"),
        ({"expires_in": float("nan")}, "expires_in must be more than 0 and at most"),
        ({"expires_in": float("inf")}, "expires_in must be more than 0 and at most"),
        ({"expires_in": 1.0, "expires_at": "2026-11-22T10:00:00Z"}, "not both"),
        ({"timeout": 0.0}, "timeout: must be a number of seconds"),
        ({"timeout": float("nan")}, "timeout: must be a number of seconds"),
        ({"offline": "perhaps"}, "offline must be wait or fail"),
    ],
)
def test_malformed_command_is_refused(
    port: Port, client: Client, arguments: dict[str, Any], message: str
) -> None:
    error = client.refusal(SendCommand, **VALID[SendCommand] | arguments)
    assert isinstance(error, BadArgument)
    assert message in str(error)
    assert not port.redis.sent


def test_command_status_is_read_from_the_record_in_redis(port: Port, client: Client) -> None:
    port.redis.replies = {"GET": b"delivered commands:outbound:two 1-1"}
    reply = client.ask(CommandStatus, command_id="c1")
    assert (reply["status"], reply["instance_id"]) == ("delivered", "two")
    content = [b"command_id", b"c1", b"instance_id", b"two", b"status", b"responded"]
    content += [b"response", b"fine", b"at", b"2026-11-22T10:00:00.000Z"]
    content += [b"payload", b"", b"payload_hex", b"0a0b", b"sender", b"anna"]
    content += [b"sent_at", b"2026-11-22T09:00:00.000Z"]
    port.redis.replies = {"GET": b"done responded 1-1", "XRANGE": [[b"1-1", content]]}
    assert client.ask(CommandStatus, command_id="c1") == {
        "command_id": "c1",
        "instance_id": "two",
        "status": "responded",
        "reason": None,
        "response": "fine",
        "truncated": False,
        "at": "2026-11-22T10:00:00.000Z",
        "expires_at": None,
        "text": "0x0a0b",
        "sender": "anna",
        "sent_at": "2026-11-22T09:00:00.000Z",
    }


def test_queued_command_is_reported_and_unknown_command_is_an_error(
    port: Port, client: Client
) -> None:
    port.instance.held["c1"] = COMMAND
    port.redis.replies = {"XRANGE": [], "HMGET": [None]}
    reply = client.ask(CommandStatus, command_id="c1")
    assert (reply["status"], reply["instance_id"]) == ("queued", "one")
    assert (reply["text"], reply["sender"]) == ("getinfo", "anna")
    assert reply["expires_at"] == "2026-11-22T10:00:00.250Z"
    error = client.refusal(CommandStatus, command_id="c2", device_id=DEVICE)
    assert isinstance(error, NoSuchCommand)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"done",
        b"done well 1-1",
        b"done responded x",
        b"sent",
        b"sent x 1-1",
        b"\xff",
        b"a b c",
    ],
)
def test_command_with_a_malformed_record_is_unknown(
    port: Port, client: Client, value: bytes
) -> None:
    port.redis.replies = {"GET": value}
    assert isinstance(client.refusal(CommandStatus, command_id="c1"), NoSuchCommand)


def test_malformed_response_does_not_hide_the_status_in_the_record(
    port: Port, client: Client
) -> None:
    port.redis.replies = {
        "GET": b"done responded 1-1",
        "XRANGE": [[b"1-1", [b"status", b"well"]]],
    }
    assert client.ask(CommandStatus, command_id="c1")["status"] == "responded"


def test_drop_connection_returns_the_address_of_the_device(port: Port, client: Client) -> None:
    port.instance.connect(DEVICE)
    assert client.ask(DropConnection, device_id=DEVICE) == {"address": "192.0.2.1:40000"}
    assert port.instance.dropped == [DEVICE]
    error = client.refusal(DropConnection, device_id=DEVICE)
    assert isinstance(error, NoSuchDevice)
    assert str(error) == f"{DEVICE} is not connected to this instance"


def test_set_log_level_returns_the_previous_level(port: Port, client: Client) -> None:
    assert client.ask(SetLogLevel, level="debug") == {"before": "info"}
    reply = client.ask(SetLogLevel, level="warn", namespace="tracker.control")
    assert reply == {"before": "debug"}
    assert client.ask(SetLogLevel, level="info") == {"before": "debug"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "loud"}, "the level must be debug, info, warn, error or critical"),
        ({"level": ""}, "the level must be debug"),
        ({"level": "info", "namespace": "a b"}, "the namespace must be a module name"),
        ({"level": "info", "namespace": "a" * 101}, "the namespace must be a module name"),
        ({"level": "info", "namespace": "tracker.contrl"}, "unknown namespace 'tracker.contrl'"),
    ],
)
def test_malformed_log_level_is_refused(
    client: Client, arguments: dict[str, Any], message: str
) -> None:
    error = client.refusal(SetLogLevel, **arguments)
    assert isinstance(error, BadArgument)
    assert message in str(error)


def test_drain_replies_when_it_is_complete(port: Port, client: Client) -> None:
    asked = client.begin(Drain, seconds=2.5)
    client.pump()
    ((seconds, drained),) = port.instance.drains
    assert seconds == 2.5
    assert not asked.has_reply
    assert client.ask(Info)["draining"] is True  # other commands are processed meanwhile
    drained.callback((7, 1))
    client.pump()
    assert asked.result() == {"closed": 7, "left": 1}


@pytest.mark.parametrize("seconds", [-0.1, MAX_DRAIN_SECONDS + 1, float("nan"), float("inf")])
def test_drain_with_a_duration_out_of_range_is_refused(
    port: Port, client: Client, seconds: float
) -> None:
    error = client.refusal(Drain, seconds=seconds)
    assert isinstance(error, BadArgument)
    assert str(error) == "seconds must be between 0 and 3600"
    assert not port.instance.drains


#: Reply of the script that reads the lag of a stream.
STREAM = [
    [b"1000", b"0"],
    [b"length", 5, b"entries-added", 5],
    [[b"processor", 2, 1, b"990000-0", b"995000-0", [[b"p", 1, 5]], 1]],
]


def test_lag_has_a_row_for_each_group(port: Port, client: Client) -> None:
    port.redis.replies = {"SCAN": [b"0", []], "EVALSHA": STREAM}
    row = {
        "stream": "telemetry:teltonika",
        "entries": 5,
        "group": "processor",
        "lag": 2,
        "pending": 1,
        "oldest_unprocessed_age": 10.0,
        "consumers": 1,
    }
    assert client.ask(Lag) == {"groups": [row], "more": False}
    assert client.ask(Lag, skip=1) == {"groups": [], "more": False}
    streams = ["b", "a", "b"]
    page = client.ask(Lag, streams=streams, limit=1)
    assert (page["groups"], page["more"]) == ([row | {"stream": "a"}], True)
    page = client.ask(Lag, streams=streams, limit=1, skip=1)
    assert (page["groups"], page["more"]) == ([row | {"stream": "b"}], False)


def test_lag_lists_a_stream_without_groups_but_not_a_missing_one(
    port: Port, client: Client
) -> None:
    found: dict[str, Any] = {"a": [*STREAM[:2], []]}
    port.redis.replies = {"EVALSHA": lambda digest, count, key, *_: found.get(key)}
    (row,) = client.ask(Lag, streams=["a", "b"])["groups"]
    assert (row["stream"], row["entries"], row["group"]) == ("a", 5, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip": -1}, "skip must not be negative"),
        ({"streams": ["s"] * (MAX_ROWS + 1)}, f"at most {MAX_ROWS} streams"),
        ({"streams": ["s"]}, "s is not a stream"),
    ],
)
def test_malformed_lag_request_is_refused(
    port: Port, client: Client, arguments: dict[str, Any], message: str
) -> None:
    port.redis.replies = {"EVALSHA": "WRONGTYPE Operation against a key"}
    error = client.refusal(Lag, **arguments)
    assert isinstance(error, BadArgument)
    assert message in str(error)


def test_lag_leaves_out_an_advertised_name_that_is_not_a_stream(port: Port, client: Client) -> None:
    wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
    port.instance.streams = ["a", "b", "c"]
    found: dict[str, Any] = {"a": wrong, "b": STREAM}
    port.redis.replies = {
        "SCAN": [b"0", []],
        "EVALSHA": lambda digest, count, key, *_: found.get(key),
    }
    assert [row["stream"] for row in client.ask(Lag)["groups"]] == ["b"]


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if RedisUnavailable in command.errors],
    ids=lambda command: command.__name__,
)
@pytest.mark.parametrize("refused", [False, True])
def test_error_of_redis_is_reported(
    port: Port, client: Client, command: type[ControlCommand], refused: bool
) -> None:
    port.redis.connected = refused
    for name in ("HSCAN", "HMGET", "EVALSHA", "GET", "SCAN", "XLEN"):
        port.redis.replies[name] = "ERR no"
    error = client.refusal(command, **VALID[command])
    assert isinstance(error, RedisUnavailable)
    assert str(error) == ("Redis: ERR no" if refused else "Redis: not connected")
    assert client.is_open
    assert client.ask(Info)
