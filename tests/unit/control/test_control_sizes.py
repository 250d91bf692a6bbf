"""Tests of replies and events with values of maximum size.

AMP cannot send a value of more than 65,535 bytes: such a reply is an internal error. Each test
makes its values as long as possible, and expects a reply.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.control.wire import DEVICE, VALID, Client, Port
from tests.unit.fakes import FakeInstance
from tracker.control.commands import (
    COMMANDS,
    MAX_ERROR,
    MAX_NAME,
    MAX_RAW_BYTES,
    MAX_ROWS,
    MAX_TEXT,
    BadArgument,
    CommandStatus,
    ControlCommand,
    DropConnection,
    Event,
    GetDevice,
    Hello,
    Info,
    InternalError,
    Lag,
    ListConnections,
    ListDeviceRegistry,
    SendCommand,
    SetLogLevel,
    Unwatch,
    Watch,
)
from tracker.control.operations import event_arguments
from tracker.interfaces import ConnectionFigures, Traffic
from tracker.limits import Limits
from tracker.vendors.teltonika.avl import CODEC_8E, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message
from tracker.vendors.teltonika.vendor import Teltonika

#: Four bytes of UTF-8, and twelve of JSON.
WIDE = "\U0001f6f0"
#: The longest text of it that an argument can contain.
LONG = WIDE * 16_000


def ids(count: int) -> list[str]:
    """Return sorted ids of maximum length."""
    return [WIDE * (MAX_NAME - 5) + f"{number:05}" for number in range(count)]


def pages(client: Client, command: type[ControlCommand], rows: str) -> list[dict[str, Any]]:
    """Return the rows of all pages."""
    found: list[dict[str, Any]] = []
    more = True
    while more:
        page = client.ask(command, after=found[-1]["device_id"] if found else "")
        assert page[rows]
        found += page[rows]
        more = page["more"]
    return found


def test_list_connections_with_maximum_values_is_paged(port: Port, client: Client) -> None:
    devices = ids(2 * MAX_ROWS + 1)
    figures = ConnectionFigures(1.7976931348623157e308, 1 / 3 * 1e9, WIDE * 16, 2**64, 2**64)
    for device_id in devices:
        port.instance.connect(device_id, WIDE * 16, address=WIDE * 1000, figures=figures)
    found = pages(client, ListConnections, "connections")
    assert [row["device_id"] for row in found] == devices


def test_list_connections_with_usual_values_fits_one_page(port: Port, client: Client) -> None:
    figures = ConnectionFigures(1_700_000_000.123456, 1_700_000_000.123456, "16", 2**40, 2**45)
    address = "[2001:db8:1234:5678:9abc:def0:1234:5678%enp0s31f6]:65535"
    for number in range(MAX_ROWS):
        port.instance.connect(f"{number:015}", address=address, figures=figures)
    page = client.ask(ListConnections)
    assert len(page["connections"]) == MAX_ROWS
    assert page["more"] is False


def test_device_registry_with_maximum_values_is_paged(port: Port, client: Client) -> None:
    devices = ids(2 * MAX_ROWS + 1)
    scanned = [part.encode() for one in devices for part in (one, WIDE * 1000)]
    port.redis.replies = {
        "HSCAN": [b"0", scanned],
        "HMGET": lambda key, *asked: [LONG.encode()] * len(asked),
    }
    found = pages(client, ListDeviceRegistry, "devices")
    assert [row["device_id"] for row in found] == devices
    assert {len(row["instance_id"]) for row in found} == {MAX_NAME}


def test_device_registry_with_usual_values_fits_one_page(port: Port, client: Client) -> None:
    scanned = [b"%015d" % (number // 2) for number in range(2 * MAX_ROWS)]
    scanned[1::2] = [b"i" * 64] * MAX_ROWS
    port.redis.replies = {
        "HSCAN": [b"0", scanned],
        "HMGET": lambda key, *asked: [b"teltonika"] * len(asked),
    }
    assert len(client.ask(ListDeviceRegistry)["devices"]) == MAX_ROWS


@pytest.mark.parametrize("count", [1, 300])
def test_lag_with_maximum_names_is_paged(port: Port, client: Client, count: int) -> None:
    group = [WIDE.encode() * 10_000, 2**63, 2**63, b"1-1", b"1-1", [[b"p", 1, 5]], 1]
    facts = [b"length", 2**63, b"entries-added", 2**63]
    port.redis.replies = {
        "EVALSHA": [[b"9999999999", b"0"], facts, [group] * count],
        "SCAN": [b"0", []],
    }
    port.instance.streams = [f"{number}{LONG}" for number in range(3)]
    found: list[dict[str, Any]] = []
    more = True
    while more:
        page = client.ask(Lag, skip=len(found))
        assert page["groups"]
        found += page["groups"]
        more = page["more"]
    assert len(found) == 3 * count


def test_info_with_many_streams_can_be_sent(port: Port, client: Client) -> None:
    port.instance.streams = ["telemetry:" + "v" * 200] * 50
    assert len(client.ask(Info)["streams"]) == 50


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=50).map(
        lambda text: text * (40_000 // max(1, len(text)))
    ),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_answer_of_a_device_may_contain_any_text(text: str, other: str) -> None:
    port = Port()
    content = [b"command_id", b"c1", b"status", b"failed", b"response", text.encode()]
    for name in (b"reason", b"instance_id", b"at"):
        content += [name, (other * 1000).encode()]
    port.redis.replies = {"GET": b"done failed 1-1", "XRANGE": [[b"1-1", content]]}
    reply = port.client().ask(CommandStatus, command_id="c1")
    assert (reply["response"] or "") == text[:MAX_TEXT]
    assert reply["truncated"] is (len(text) > MAX_TEXT)


@pytest.mark.parametrize("length", [MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1, 1 << 20])
def test_long_answer_of_a_device_is_truncated(port: Port, client: Client, length: int) -> None:
    content = [b"status", b"responded", b"response", (WIDE * length).encode()]
    port.redis.replies = {"GET": b"done responded 1-1", "XRANGE": [[b"1-1", content]]}
    reply = client.ask(CommandStatus, command_id="c1")
    assert reply["response"] == WIDE * min(length, MAX_TEXT)
    assert reply["truncated"] is (length > MAX_TEXT)


# Errors.


def is_brief(reply: object) -> bool:
    """Return True for a reply, and for a short error that is not an internal one."""
    if isinstance(reply, Exception):
        return not isinstance(reply, InternalError) and len(str(reply)) <= MAX_ERROR
    return True


@pytest.mark.parametrize("letter", ["x", "\n", "\x00", WIDE])
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (GetDevice, {"device_id": ""}),
        (DropConnection, {"device_id": ""}),
        (Watch, {"device_id": ""}),
        (Unwatch, {"device_id": ""}),
        (CommandStatus, {"command_id": "", "device_id": ""}),
        (SendCommand, {"device_id": "", "text": "getinfo"}),
        (SendCommand, {"device_id": DEVICE, "text": ""}),
        (SendCommand, {"device_id": DEVICE, "text": "x", "expires_at": ""}),
        (SendCommand, {"device_id": DEVICE, "text": "x", "codec": ""}),
        (SendCommand, {"device_id": DEVICE, "text": "x", "command_id": ""}),
        (SendCommand, {"device_id": DEVICE, "text": "x", "offline": ""}),
        (SetLogLevel, {"level": ""}),
        (SetLogLevel, {"level": "info", "namespace": ""}),
        (Lag, {"streams": [""]}),
        (ListConnections, {"prefix": "", "after": "", "vendor": ""}),
        (ListDeviceRegistry, {"prefix": "", "after": "", "vendor": "", "instance_id": ""}),
        (Hello, {"version": 1, "client": ""}),
    ],
)
def test_arguments_may_have_any_length(
    port: Port,
    client: Client,
    command: type[ControlCommand],
    arguments: dict[str, Any],
    letter: str,
) -> None:
    room = 120_000 // len(letter.encode()) // sum(one in ("", [""]) for one in arguments.values())
    text = letter * min(room, 65_000 // len(letter.encode()))
    given = {
        name: text if value == "" else [text] if value == [""] else value
        for name, value in arguments.items()
    }
    port.redis.replies = {
        "HMGET": [None],
        "XLEN": 0,
        "XRANGE": [],
        "HSCAN": [b"0", []],
        "EVALSHA": "WRONGTYPE",
    }
    asked = client.begin(command, **given)
    client.pump()
    assert is_brief(asked.reply_or_error())
    assert client.ask(Info)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_error_of_redis_may_have_any_length(
    port: Port, client: Client, command: type[ControlCommand]
) -> None:
    for name in ("HSCAN", "HMGET", "EVALSHA", "GET", "SCAN", "XLEN"):
        port.redis.replies[name] = LONG * 2
    asked = client.begin(command, **VALID[command])
    client.pump()
    assert is_brief(asked.reply_or_error())
    assert client.ask(Info)


# Events.


def of(instance: FakeInstance, kind: Traffic, data: bytes) -> dict[str, Any]:
    """Send an event to a watcher; return the arguments that it receives."""
    client = Port().client()
    arguments = event_arguments(instance, DEVICE, kind, data)
    client.server.dispatcher.callRemote(Event, at=1.7e9 / 7, dropped=2**64, **arguments)
    client.pump()
    (found,) = client.events
    assert client.is_open
    return found


class Describing(FakeInstance):
    """An instance with Teltonika devices."""

    def describe(self, device_id: str, data: bytes, kind: Traffic) -> dict[str, Any]:
        return Teltonika().describe(data, kind)


def packet(records: int, elements: int) -> bytes:
    """Return a frame of Codec 8 Extended."""
    made = tuple((100 + number, 8, 2**64 - 1) for number in range(elements))
    record = Record(2**62, 2, -(2**31), 2**31 - 1, -(2**15), 360, 255, 2**16 - 1, 2**16 - 1, made)
    return encode_frame(encode_packet(CODEC_8E, [record] * records))


@pytest.mark.parametrize(
    ("records", "elements"), [(1, 0), (1, 40), (255, 0), (255, 20), (40, 150), (1, 6000)]
)
def test_large_frame_is_sent_to_watchers(records: int, elements: int) -> None:
    data = packet(records, elements)
    found = of(Describing(), Traffic.RECEIVED, data)
    assert bytes.fromhex(found["raw"]) == data[:MAX_RAW_BYTES]
    decoded = json.loads(found["decoded"])
    shown = decoded.get("records", [])
    whole = len(data) <= MAX_RAW_BYTES and len(shown) == records
    assert found["truncated"] is not whole
    if elements < 6000:
        assert shown
    else:
        assert decoded.keys() == {"left_out"}


@pytest.mark.parametrize("text", [b"x" * 60_000, WIDE.encode() * 15_000, b"\xff" * 60_000])
@pytest.mark.parametrize("kind", [Traffic.RECEIVED, Traffic.SENT])
def test_large_message_is_sent_to_watchers(text: bytes, kind: Traffic) -> None:
    data = encode_frame(encode_message(Message(MESSAGE_CODECS[0x0C], 6, text)))
    found = of(Describing(), kind, data)
    assert bytes.fromhex(found["raw"]) == data[:MAX_RAW_BYTES]
    assert found["truncated"] is True
    assert json.loads(found["decoded"])


@pytest.mark.parametrize(
    "size", [0, 1, MAX_RAW_BYTES, MAX_RAW_BYTES + 1, 65_536, Limits().frame_bytes + 12]
)
def test_undecodable_bytes_are_sent_to_watchers(size: int) -> None:
    for byte in (b"\x00", b"\xff"):
        found = of(Describing(), Traffic.RECEIVED, byte * size)
        assert bytes.fromhex(found["raw"]) == (byte * size)[:MAX_RAW_BYTES]


@given(st.binary(max_size=50), st.sampled_from([Traffic.REJECTED, Traffic.CONNECTED]))
def test_reason_of_an_event_may_contain_any_bytes(data: bytes, kind: Traffic) -> None:
    for text in (data, data * 1300):
        found = of(FakeInstance(), kind, text)
        shown = json.loads(found["decoded"])["text"]
        assert shown[:900] == text.decode(errors="replace")[:900]


def test_overlong_argument_raises_an_error_of_its_command(client: Client) -> None:
    assert isinstance(client.refusal(Unwatch, device_id=LONG), BadArgument)
    assert isinstance(client.refusal(SetLogLevel, level=LONG), BadArgument)
