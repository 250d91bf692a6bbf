"""Receive the requests of Directus' Flows: HTTP with a shared secret."""

from __future__ import annotations

import hmac
import json
from typing import Any, Final
from uuid import UUID

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import ACCEPTED, BAD_REQUEST, SERVICE_UNAVAILABLE, UNAUTHORIZED
from twisted.web.server import Request

from tracker.bridge.devices import DeviceSync
from tracker.bridge.dispatcher import Dispatcher
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.schema import SECRET_HEADER
from tracker.net.http import BoundedRequest, BoundedSite, HTTPLimits
from tracker.net.refusals import Reports
from tracker.net.routes import Routes, respond
from tracker.untrusted import parse_json

#: A row's id takes fifty bytes. All Flows post from one address, that of Directus. Connections are
#: not persistent, so that none is open when the bridge stops.
WEBHOOK_LIMITS: Final = HTTPLimits(
    connections=512, per_address=400, body=64 * 1024, persistent=False
)
#: Rows that one body may name.
MOST_KEYS: Final = 100


class Webhook:
    """Announces rows to the dispatcher, which reads them itself.

    :param secret: what a request must carry in its header :data:`SECRET_HEADER`.
    """

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
        self.resource = Routes(
            {
                "/commands": {b"POST": self._announce_commands},
                "/devices": {b"POST": self._announce_devices},
            },
            _answer,
        )

    def site(self, reactor: IReactorTime, reports: Reports) -> BoundedSite:
        """Return the site to listen with."""
        return BoundedSite(
            self.resource, reactor, WEBHOOK_LIMITS, reports, request_factory=_Request
        )

    def _announce_commands(self, request: Request) -> bytes:
        """Take ``{"key": …}`` or ``{"keys": [...]}``: rows of ``commands`` that may be new."""
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

    def _announce_devices(self, request: Request) -> bytes:
        """Take any body: some device has changed."""
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


class _Request(BoundedRequest):
    """A request in which the header of the secret may stand once."""

    text_headers = (b"host", SECRET_HEADER.lower().encode())


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
    return respond(request, status, json.dumps({"status": text}).encode() + b"\n")
