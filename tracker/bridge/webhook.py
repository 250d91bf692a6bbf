"""The webhook for the requests of Directus' Flows: HTTP with a shared secret."""

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

#: Limits of the webhook. A row ID takes fifty bytes, and all Flows connect from one address, that
#: of Directus. Connections are not persistent, so that none is open when the bridge stops.
WEBHOOK_LIMITS: Final = HTTPLimits(
    connections=512, per_address=400, body=64 * 1024, persistent=False
)
#: Maximum number of row IDs in one body.
MAX_KEYS: Final = 100


class Webhook:
    """A resource that announces new commands to the dispatcher, and changes to the devices.

    :param secret: the required value of the header :data:`SECRET_HEADER`.
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
            _respond,
        )

    def site(self, reactor: IReactorTime, reports: Reports) -> BoundedSite:
        """Return the site that serves the webhook."""
        return BoundedSite(
            self.resource, reactor, WEBHOOK_LIMITS, reports, request_factory=_Request
        )

    def _announce_commands(self, request: Request) -> bytes:
        """Accept ``{"key": …}`` or ``{"keys": […]}``: IDs of rows of ``commands``."""
        if not self._has_secret(request):
            return self._respond("commands", request, UNAUTHORIZED, "wrong secret")
        assert request.content is not None  # noqa: S101 - the request is complete
        try:
            keys = _keys(parse_json(request.content.read()))
        except ValueError as error:
            return self._respond("commands", request, BAD_REQUEST, str(error))
        accepted = [self._dispatcher.announce(key) for key in keys]
        if not all(accepted):
            reason = "too many rows are queued; the next poll finds the others"
            return self._respond("commands", request, SERVICE_UNAVAILABLE, reason)
        return self._respond("commands", request, ACCEPTED, "accepted")

    def _announce_devices(self, request: Request) -> bytes:
        """Accept any body: a device has changed."""
        if not self._has_secret(request):
            return self._respond("devices", request, UNAUTHORIZED, "wrong secret")
        self._devices.announce()
        return self._respond("devices", request, ACCEPTED, "accepted")

    def _respond(self, hook: str, request: Request, status: int, text: str) -> bytes:
        self._metrics.posted(hook, status)
        return _respond(request, status, text)

    def _has_secret(self, request: Request) -> bool:
        # Compared as bytes, because the header may not be valid UTF-8.
        given = request.getHeader(SECRET_HEADER.encode()) or b""
        return hmac.compare_digest(given, self._secret)


class _Request(BoundedRequest):
    """A request with at most one header :data:`SECRET_HEADER`."""

    text_headers = (b"host", SECRET_HEADER.lower().encode())


def _keys(body: Any) -> list[str]:
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    keys = body.get("keys", [body.get("key")])
    if not (isinstance(keys, list) and 0 < len(keys) <= MAX_KEYS):
        raise ValueError(f"keys: must be a list of 1 to {MAX_KEYS} row IDs")
    try:
        return [str(UUID(key)) for key in keys]
    except (ValueError, AttributeError, TypeError):
        raise ValueError("key: must be a row ID (a UUID)") from None


def _respond(request: Request, status: int, text: str) -> bytes:
    return respond(request, status, json.dumps({"status": text}).encode() + b"\n")
