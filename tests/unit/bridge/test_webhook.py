"""Requests to the webhook of the bridge, and their effect."""

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
from twisted.logger import LogEvent

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.dispatching import Bench, device
from tests.unit.control.wire import no_traceback
from tracker.bridge.webhook import MAX_KEYS, WEBHOOK_LIMITS, Webhook
from tracker.net.reports import HTTPReports
from tracker.net.waits import HEAD_TIMEOUT

SECRET = "known to both"
KEY = "0b8a2f6e-5c55-4a6e-9d6d-1d5f2a3b4c5d"
ADDRESS = IPv4Address("TCP", "127.0.0.1", 40_000)


@define
class AnnouncementRecorder:
    """A double of the dispatcher and of the device sync."""

    keys: list[str] = field(factory=list)
    devices: int = 0
    max_keys: int = 1000

    def announce(self, key: str | None = None) -> bool:
        if key is None:
            self.devices += 1
            return True
        if len(self.keys) >= self.max_keys:
            return False
        self.keys.append(key)
        return True


class WebhookServer:
    """The site of the webhook, and connections to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.recorder = AnnouncementRecorder()
        recorder: Any = self.recorder
        self.site = Webhook(SECRET, recorder, recorder).site(
            self.clock, HTTPReports(self.clock, "webhook", "bridge_webhook")
        )

    def connect(self) -> Connection:
        return Connection(self.site.buildProtocol(ADDRESS))

    def post(
        self, body: Any, path: str = "/commands", secret: bytes | None = SECRET.encode()
    ) -> tuple[int, Any]:
        """Post a body, and return status and decoded response."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(content)}\r\n".encode()
        if secret is not None:
            head += b"X-Tracker-Secret: " + secret + b"\r\n"
        connection = self.connect()
        connection.send(head + b"\r\n" + content)
        assert connection.closed
        return connection.status, connection.answer


class Connection:
    """A connection of a client, with the bytes that it receives."""

    def __init__(self, channel: Any) -> None:
        self.transport = StringTransport()
        self.channel = channel
        channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    @property
    def received(self) -> bytes:
        received: bytes = self.transport.value()
        return received

    @property
    def status(self) -> int:
        return int(self.received.split(b" ")[1])

    @property
    def answer(self) -> Any:
        return json.loads(self.received.partition(b"\r\n\r\n")[2])

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting or self.transport.disconnected

    def lose(self) -> None:
        self.channel.connectionLost()


@pytest.fixture
def server() -> WebhookServer:
    return WebhookServer()


def test_webhook_announces_a_row(server: WebhookServer) -> None:
    assert server.post({"key": KEY}) == (202, {"status": "accepted"})
    assert server.recorder.keys == [KEY]


def test_number_of_rows_in_one_body_is_limited(server: WebhookServer) -> None:
    keys = [str(uuid4()) for _ in range(MAX_KEYS)]
    assert server.post({"keys": keys})[0] == 202
    assert server.recorder.keys == keys
    assert server.post({"keys": [*keys, KEY]})[0] == 400
    assert server.recorder.keys == keys


def test_row_id_is_converted_to_lower_case(server: WebhookServer) -> None:
    assert server.post({"key": KEY.upper()})[0] == 202
    assert server.recorder.keys == [KEY]


def test_webhook_announces_a_change_of_devices(server: WebhookServer) -> None:
    assert server.post({"event": "items.update"}, "/devices")[0] == 202
    assert server.recorder.devices == 1


def test_status_is_503_when_the_queue_is_full(server: WebhookServer) -> None:
    server.recorder.max_keys = 1
    keys = [KEY, str(uuid4())]
    assert server.post({"keys": keys})[0] == 503
    assert server.recorder.keys == [KEY]


@pytest.mark.parametrize("path", ["/commands", "/devices"])
@pytest.mark.parametrize(
    "secret",
    [None, b"", b"another", b"known to bot", b"known to both!", "Ключ".encode()],
)
def test_request_with_a_wrong_secret_is_refused(
    server: WebhookServer, logged: Sequence[LogEvent], path: str, secret: bytes | None
) -> None:
    assert server.post({"key": KEY}, path, secret) == (401, {"status": "wrong secret"})
    assert (server.recorder.keys, server.recorder.devices) == ([], 0)
    assert no_traceback(logged)
    assert not any("secret" in str(event.get("log_format")) for event in logged)


def test_secret_is_compared_in_constant_time(
    server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    server.post({"key": KEY}, secret=b"guessed")
    server.post({"key": KEY})
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
def test_malformed_body_is_refused(
    server: WebhookServer, logged: Sequence[LogEvent], body: Any
) -> None:
    status, answer = server.post(body)
    assert status == 400
    assert answer["status"]
    assert not server.recorder.keys
    assert no_traceback(logged)


def test_secret_that_is_not_utf_8_is_malformed(
    server: WebhookServer, logged: Sequence[LogEvent]
) -> None:
    status, answer = server.post({"key": KEY}, secret=b"\xff\xfe")
    assert status == 400
    assert answer["error"]
    assert no_traceback(logged)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/commands", 405), ("POST", "/", 404), ("POST", "/commands/x", 404)],
)
def test_other_methods_and_paths_are_refused(
    server: WebhookServer, method: str, path: str, status: int
) -> None:
    connection = server.connect()
    connection.send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert (connection.status, connection.closed) == (status, True)
    assert connection.answer["status"]


def head(*lines: str) -> bytes:
    first = ("POST /commands HTTP/1.1", "Host: here", f"X-Tracker-Secret: {SECRET}")
    return "\r\n".join((*first, *lines, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


BODY = json.dumps({"key": KEY}).encode()


def test_body_size_is_limited(server: WebhookServer) -> None:
    assert server.post(BODY.ljust(WEBHOOK_LIMITS.body))[0] == 202
    assert server.recorder.keys == [KEY]
    connection = server.connect()
    connection.send(head(f"Content-Length: {WEBHOOK_LIMITS.body + 1}"))
    assert (connection.status, connection.answer) == (
        413,
        {"error": "the body is larger than 65,536 bytes"},
    )
    assert connection.closed
    connection.send(BODY.ljust(WEBHOOK_LIMITS.body + 1))
    assert connection.received.count(b"HTTP/1.1") == 1
    assert server.recorder.keys == [KEY]


def test_huge_content_length_is_refused(server: WebhookServer) -> None:
    connection = server.connect()
    connection.send(head(f"Content-Length: {10**15}"))
    assert connection.status == 413


def test_size_of_a_chunked_body_is_limited(server: WebhookServer) -> None:
    connection = server.connect()
    connection.send(head("Transfer-Encoding: chunked"))
    for start in range(0, len(BODY), 7):
        connection.send(chunk(BODY[start : start + 7]))
    connection.send(b"0\r\n\r\n")
    assert connection.status == 202
    assert server.recorder.keys == [KEY]
    connection = server.connect()
    connection.send(head("Transfer-Encoding: chunked"))
    connection.send(chunk(BODY.ljust(WEBHOOK_LIMITS.body)))
    assert not connection.closed
    connection.send(chunk(b" ") + b"0\r\n\r\n")
    assert (connection.status, connection.answer) == (
        413,
        {"error": "the body is larger than 65,536 bytes"},
    )
    assert connection.closed
    assert connection.received.count(b"HTTP/1.1") == 1
    assert server.recorder.keys == [KEY]


def test_request_without_a_body_is_refused(server: WebhookServer) -> None:
    connection = server.connect()
    connection.send(head())
    assert connection.status == 400
    assert not server.recorder.keys


def test_request_may_arrive_byte_by_byte(server: WebhookServer) -> None:
    connection = server.connect()
    for byte in head(f"Content-Length: {len(BODY)}") + BODY:
        connection.send(bytes([byte]))
    assert connection.status == 202
    assert server.recorder.keys == [KEY]


@pytest.mark.parametrize("sent", [b"", b"POST /comm", head("Content-Length: 50"), head()[:-2]])
def test_slow_request_is_aborted(server: WebhookServer, sent: bytes) -> None:
    """Further bytes do not extend the timeout."""
    connection = server.connect()
    connection.send(sent)
    for _ in range(int(HEAD_TIMEOUT) - 1):
        server.clock.advance(1)
        connection.send(b"x")
        assert not connection.transport.disconnected
    server.clock.advance(1)
    assert connection.transport.disconnected
    assert not connection.received


def test_connection_serves_one_request(server: WebhookServer) -> None:
    """No connection is therefore open when the bridge has stopped."""
    connection = server.connect()
    request = head(f"Content-Length: {len(BODY)}", "Connection: keep-alive") + BODY
    connection.send(request + request)
    assert connection.closed
    assert b"Connection: close" in connection.received
    assert server.recorder.keys == [KEY]
    connection.lose()
    assert not server.clock.getDelayedCalls()


def test_many_requests_and_a_poll_send_a_command_once(subject: Doubled) -> None:
    bench = Bench(subject).start()
    unused: Any = AnnouncementRecorder()
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
