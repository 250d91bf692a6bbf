"""Where Directus' Flows tell of new rows: over HTTP, with a shared secret."""

from __future__ import annotations

import hmac
import json
from typing import Any, Final
from uuid import UUID

from klein import Klein
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import (
    ACCEPTED,
    BAD_REQUEST,
    SERVICE_UNAVAILABLE,
    UNAUTHORIZED,
    HTTPChannel,
)
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request, Site

from tracker.bridge.devices import DeviceSync
from tracker.bridge.dispatcher import Dispatcher
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.schema import SECRET_HEADER
from tracker.untrusted import parse_json

#: Bytes of a body; a row's id takes fifty.
MOST_BYTES: Final = 64 * 1024
#: Rows that one body may name.
MOST_KEYS: Final = 100
#: Seconds from a connection to the answer; after that it is cut off.
DEADLINE: Final = 10.0
#: Connections that there may be at once; others are closed unheard.
MOST_CONNECTIONS: Final = 512

_TOO_LARGE: Final = (
    b"HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 23\r\n\r\n"
    b'{"status": "too long"}\n'
)


class Webhook:
    """Names rows to the dispatcher; what is in them it reads itself.

    :param secret: what whoever posts has to know.
    """

    app = Klein()

    def __init__(
        self,
        secret: str,
        dispatcher: Dispatcher,
        devices: DeviceSync,
        metrics: BridgeMetrics | None = None,
    ) -> None:
        self._secret = secret.encode()
        self._dispatcher = dispatcher
        self._devices = devices
        self._metrics = metrics or BridgeMetrics()

    def site(self, reactor: Any) -> Site:
        """To be listened with."""
        return WebhookSite(self.app.resource(), reactor)

    @app.route("/commands", methods=["POST"])
    def commands(self, request: Request) -> bytes:
        """Rows of ``commands`` may be new: ``{"key": …}`` or ``{"keys": [...]}``."""
        if not self._knows_secret(request):
            return self._answer("commands", request, UNAUTHORIZED, "wrong secret")
        assert request.content is not None  # noqa: S101 - it was received
        try:
            keys = _keys(parse_json(request.content.read()))
        except ValueError as error:
            return self._answer("commands", request, BAD_REQUEST, str(error))
        accepted = [self._dispatcher.announce(key) for key in keys]
        if not all(accepted):
            why = "too many wait; they are found later"
            return self._answer("commands", request, SERVICE_UNAVAILABLE, why)
        return self._answer("commands", request, ACCEPTED, "accepted")

    @app.route("/devices", methods=["POST"])
    def devices(self, request: Request) -> bytes:
        """Some device has changed."""
        if not self._knows_secret(request):
            return self._answer("devices", request, UNAUTHORIZED, "wrong secret")
        self._devices.announce()
        return self._answer("devices", request, ACCEPTED, "accepted")

    def _answer(self, hook: str, request: Request, status: int, text: str) -> bytes:
        self._metrics.posted(hook, status)
        return _answer(request, status, text)

    def _knows_secret(self, request: Request) -> bool:
        # As bytes: what is no UTF-8 is a wrong secret like any other.
        given = request.getHeader(SECRET_HEADER.encode()) or b""
        return hmac.compare_digest(given, self._secret)


class _Request(Request):
    """One whose body is not taken beyond the limit, whether its length was told or not."""

    channel: _Channel
    _left = MOST_BYTES

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > MOST_BYTES:
            self.channel.refuse(_TOO_LARGE)

    def handleContentChunk(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            super().handleContentChunk(data)
        else:
            self.channel.refuse(_TOO_LARGE)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self.channel.refused:
            super().requestReceived(command, path, version)


class _Channel(HTTPChannel):
    """A connection for one request, which has to be there soon."""

    site: WebhookSite
    transport: Any
    refused = False
    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        # In all: a timeout for silence would never end one byte every now and then.
        self._deadline = self.callLater(DEADLINE, self._overdue)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        # So there is none left idle when the bridge stops.
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def refuse(self, answer: bytes) -> None:
        """Answer before the request has come to its end, and close the connection."""
        if not self.refused:
            self.refused = True
            self.transport.write(answer)
            self.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
        self.site.channels.discard(self)
        super().connectionLost(reason)

    def _overdue(self) -> None:
        self._deadline = None
        self.transport.abortConnection()


class WebhookSite(Site):
    noisy = False
    protocol: Any = _Channel

    def __init__(self, resource: Any, reactor: Any) -> None:
        super().__init__(resource, requestFactory=_Request, reactor=reactor)
        self.timeOut = None  # the deadline is all it takes
        self.channels: set[_Channel] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.channels) >= MOST_CONNECTIONS:
            return None
        channel = super().buildProtocol(addr)
        self.channels.add(channel)
        return channel

    def log(self, request: HTTPRequest) -> None:
        """Not each of them."""


def _keys(body: Any) -> list[str]:
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    keys = body.get("keys", [body.get("key")])
    if not (isinstance(keys, list) and 0 < len(keys) <= MOST_KEYS):
        raise ValueError(f"keys: 1 to {MOST_KEYS} are needed")
    try:
        return [str(UUID(key)) for key in keys]
    except (ValueError, AttributeError, TypeError):
        raise ValueError("key: must be the id of a row, a UUID") from None


def _answer(request: Request, status: int, text: str) -> bytes:
    request.setResponseCode(status)
    body = json.dumps({"status": text}).encode() + b"\n"
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", b"%d" % len(body))
    return body
