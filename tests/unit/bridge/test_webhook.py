"""What may be posted to the bridge, and what is done with it."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from attrs import define, field
from treq.testing import StubTreq
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, capturedLogs

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.dispatching import Bench, device
from tests.unit.control.wire import quiet
from tracker.bridge.webhook import MOST_KEYS, WEBHOOK_LIMITS, Webhook
from tracker.net.reports import HTTPReports
from tracker.net.waits import HEAD_TIMEOUT

SECRET = "known to both"
KEY = "0b8a2f6e-5c55-4a6e-9d6d-1d5f2a3b4c5d"
ADDRESS = IPv4Address("TCP", "127.0.0.1", 40_000)


@define
class Told:
    """Stands for the dispatcher, and for the devices."""

    keys: list[str] = field(factory=list)
    devices: int = 0
    most: int = 1000

    def announce(self, key: str | None = None) -> bool:
        if key is None:
            self.devices += 1
            return True
        if len(self.keys) >= self.most:
            return False
        self.keys.append(key)
        return True


class Place:
    """The webhook, and connections to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told = Told()
        told: Any = self.told
        self.site = Webhook(SECRET, told, told).site(
            self.clock, HTTPReports(self.clock, "webhook", "bridge_webhook")
        )

    def connect(self) -> Connection:
        return Connection(self.site.buildProtocol(ADDRESS))

    def post(
        self, body: Any, path: str = "/commands", secret: bytes | None = SECRET.encode()
    ) -> tuple[int, Any]:
        """Status and answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(content)}\r\n".encode()
        if secret is not None:
            head += b"X-Tracker-Secret: " + secret + b"\r\n"
        connection = self.connect()
        connection.send(head + b"\r\n" + content)
        assert connection.closed
        return connection.status, connection.answer


class Connection:
    """One of them, with its bytes."""

    def __init__(self, channel: Any) -> None:
        self.transport = StringTransport()
        self.channel = channel
        channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    @property
    def said(self) -> bytes:
        said: bytes = self.transport.value()
        return said

    @property
    def status(self) -> int:
        return int(self.said.split(b" ")[1])

    @property
    def answer(self) -> Any:
        return json.loads(self.said.partition(b"\r\n\r\n")[2])

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting or self.transport.disconnected

    def lose(self) -> None:
        self.channel.connectionLost()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def logged() -> Any:
    with capturedLogs() as events:
        yield events


def test_a_row_is_announced(place: Place) -> None:
    assert place.post({"key": KEY}) == (202, {"status": "accepted"})
    assert place.told.keys == [KEY]


def test_so_are_a_hundred(place: Place) -> None:
    keys = [str(uuid4()) for _ in range(MOST_KEYS)]
    assert place.post({"keys": keys})[0] == 202
    assert place.told.keys == keys
    assert place.post({"keys": [*keys, KEY]}) == (400, {"status": "keys: 1 to 100 are needed"})
    assert place.told.keys == keys


def test_an_id_is_known_however_it_is_written(place: Place) -> None:
    assert place.post({"key": KEY.upper()})[0] == 202
    assert place.told.keys == [KEY]


def test_a_change_of_devices_is_announced(place: Place) -> None:
    assert place.post({"event": "items.update"}, "/devices")[0] == 202
    assert place.told.devices == 1


def test_what_cannot_be_kept_is_said_to_be_found_later(place: Place) -> None:
    place.told.most = 1
    keys = [KEY, str(uuid4())]
    assert place.post({"keys": keys}) == (503, {"status": "too many wait; they are found later"})
    assert place.told.keys == [KEY]


@pytest.mark.parametrize("path", ["/commands", "/devices"])
@pytest.mark.parametrize(
    "secret",
    [None, b"", b"another", b"known to bot", b"known to both!", "Ключ".encode()],
)
def test_who_does_not_know_the_secret_is_turned_away(
    place: Place, logged: Sequence[LogEvent], path: str, secret: bytes | None
) -> None:
    assert place.post({"key": KEY}, path, secret) == (401, {"status": "wrong secret"})
    assert (place.told.keys, place.told.devices) == ([], 0)
    assert quiet(logged)
    assert not any("secret" in str(event.get("log_format")) for event in logged)


def test_the_secret_is_compared_in_constant_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    place.post({"key": KEY}, secret=b"guessed")
    place.post({"key": KEY})
    assert compared == [(b"guessed", SECRET.encode()), (SECRET.encode(), SECRET.encode())]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff", b"[" * 30_000, b"1" * 30_000, b"NaN"),
        *(None, [], "text", 1, {}, {"keys": []}, {"keys": KEY}, {"keys": {"0": KEY}}),
        *({"key": None}, {"key": 5}, {"key": ""}, {"key": [KEY]}, {"key": "x" * 36}),
        *({"keys": [KEY, 5]}, {"keys": [None]}, {"key": "{{$trigger.key}}"}),
        *({"key": "\ud800"}, {"key": KEY + "\0"}),
    ],
)
def test_what_makes_no_sense_is_refused(
    place: Place, logged: Sequence[LogEvent], body: Any
) -> None:
    status, answer = place.post(body)
    assert status == 400
    assert answer["status"]
    assert not place.told.keys
    assert quiet(logged)


def test_a_secret_that_is_not_utf_8_is_malformed(place: Place, logged: Sequence[LogEvent]) -> None:
    status, answer = place.post({"key": KEY}, secret=b"\xff\xfe")
    assert status == 400
    assert answer["error"]
    assert quiet(logged)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/commands", 405), ("POST", "/", 404), ("POST", "/commands/x", 404)],
)
def test_there_is_nothing_else(place: Place, method: str, path: str, status: int) -> None:
    connection = place.connect()
    connection.send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert (connection.status, connection.closed) == (status, True)
    assert connection.answer["status"]


def head(*lines: str) -> bytes:
    first = ("POST /commands HTTP/1.1", "Host: here", f"X-Tracker-Secret: {SECRET}")
    return "\r\n".join((*first, *lines, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


BODY = json.dumps({"key": KEY}).encode()


def test_the_largest_body_is_taken_and_one_byte_more_is_not(place: Place) -> None:
    assert place.post(BODY.ljust(WEBHOOK_LIMITS.body))[0] == 202
    assert place.told.keys == [KEY]
    connection = place.connect()
    connection.send(head(f"Content-Length: {WEBHOOK_LIMITS.body + 1}"))
    assert (connection.status, connection.answer) == (
        413,
        {"error": "the body is larger than 65536 bytes"},
    )
    assert connection.closed
    connection.send(BODY.ljust(WEBHOOK_LIMITS.body + 1))
    assert connection.said.count(b"HTTP/1.1") == 1
    assert place.told.keys == [KEY]


def test_a_length_that_is_beyond_everything(place: Place) -> None:
    connection = place.connect()
    connection.send(head(f"Content-Length: {10**15}"))
    assert connection.status == 413


def test_a_body_in_chunks_is_taken_up_to_the_same_limit(place: Place) -> None:
    connection = place.connect()
    connection.send(head("Transfer-Encoding: chunked"))
    for start in range(0, len(BODY), 7):
        connection.send(chunk(BODY[start : start + 7]))
    connection.send(b"0\r\n\r\n")
    assert connection.status == 202
    assert place.told.keys == [KEY]
    connection = place.connect()
    connection.send(head("Transfer-Encoding: chunked"))
    connection.send(chunk(BODY.ljust(WEBHOOK_LIMITS.body)))
    assert not connection.closed
    connection.send(chunk(b" ") + b"0\r\n\r\n")
    assert (connection.status, connection.answer) == (
        413,
        {"error": "the body is larger than 65536 bytes"},
    )
    assert connection.closed
    assert connection.said.count(b"HTTP/1.1") == 1
    assert place.told.keys == [KEY]


def test_a_request_without_a_body_is_no_announcement(place: Place) -> None:
    connection = place.connect()
    connection.send(head())
    assert connection.status == 400
    assert not place.told.keys


def test_a_request_comes_byte_by_byte(place: Place) -> None:
    connection = place.connect()
    for byte in head(f"Content-Length: {len(BODY)}") + BODY:
        connection.send(bytes([byte]))
    assert connection.status == 202
    assert place.told.keys == [KEY]


@pytest.mark.parametrize("sent", [b"", b"POST /comm", head("Content-Length: 50"), head()[:-2]])
def test_who_takes_too_long_is_cut_off(place: Place, sent: bytes) -> None:
    """However often another byte comes."""
    connection = place.connect()
    connection.send(sent)
    for _ in range(int(HEAD_TIMEOUT) - 1):
        place.clock.advance(1)
        connection.send(b"x")
        assert not connection.transport.disconnected
    place.clock.advance(1)
    assert connection.transport.disconnected
    assert not connection.said


def test_a_connection_is_for_one_request(place: Place) -> None:
    """So none is idle, or comes with another one when the bridge has stopped."""
    connection = place.connect()
    request = head(f"Content-Length: {len(BODY)}", "Connection: keep-alive") + BODY
    connection.send(request + request)
    assert connection.closed
    assert b"Connection: close" in connection.said
    assert place.told.keys == [KEY]
    connection.lose()
    assert not place.clock.getDelayedCalls()


def test_posts_by_the_dozen_and_a_look_send_one_command(subject: Doubled) -> None:
    """The same with all that is behind it, asked as a Flow asks."""
    bench = Bench(subject).start()
    unused: Any = Told()
    webhook = Webhook(SECRET, bench.dispatcher, unused)
    flow: Any = StubTreq(webhook.resource)
    keys = [bench.row(), bench.row(imei=device(1))]
    statuses = []
    for _ in range(50):
        posted = flow.post(
            "http://127.0.0.1:9130/commands",
            json={"keys": keys},
            headers={"X-Tracker-Secret": SECRET},
        )
        posted.addCallback(lambda response: statuses.append(response.code))
        flow.flush()
    bench.pass_(25)
    assert statuses == [202] * 50
    assert sorted(one["command_id"] for one in bench.instances.sent) == sorted(keys)
