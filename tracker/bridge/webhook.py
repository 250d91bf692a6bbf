"""Where Directus' Flows tell of new rows: over HTTP, with a shared secret."""

from __future__ import annotations

import hmac
import json
from typing import Any, Final

from klein import Klein
from twisted.web.http import (
    ACCEPTED,
    BAD_REQUEST,
    REQUEST_ENTITY_TOO_LARGE,
    SERVICE_UNAVAILABLE,
    UNAUTHORIZED,
)
from twisted.web.server import Request, Site

from tracker.bridge.devices import DeviceSync
from tracker.bridge.dispatcher import Dispatcher
from tracker.bridge.schema import SECRET_HEADER

#: Bytes of a body; a row's id takes fifty.
MOST_BYTES: Final = 64 * 1024
#: Rows that one body may name.
MOST_KEYS: Final = 100


class _Request(Request):
    """Ends a request whose body is too large before it is read."""

    def gotLength(self, length: int | None) -> None:
        if length is None or length > MOST_BYTES:
            self.channel.forceAbortClient()
            return
        super().gotLength(length)


class Webhook:
    """Names rows to the dispatcher; what is in them it reads itself.

    :param secret: what whoever posts has to know.
    """

    app = Klein()

    def __init__(self, secret: str, dispatcher: Dispatcher, devices: DeviceSync) -> None:
        self._secret = secret.encode()
        self._dispatcher = dispatcher
        self._devices = devices

    def site(self) -> Site:
        """To be listened with."""
        site = Site(self.app.resource(), requestFactory=_Request)
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        return site

    @app.route("/commands", methods=["POST"])
    def commands(self, request: Request) -> bytes:
        """Rows of ``commands`` may be new: ``{"key": …}`` or ``{"keys": [...]}``."""
        if not self._knows_secret(request):
            return _answer(request, UNAUTHORIZED, "wrong secret")
        assert request.content is not None  # noqa: S101 - it was received
        body = request.content.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            return _answer(request, REQUEST_ENTITY_TOO_LARGE, "too long")
        try:
            keys = _keys(json.loads(body))
        except ValueError as error:
            return _answer(request, BAD_REQUEST, str(error))
        accepted = [self._dispatcher.announce(key) for key in keys]
        if not all(accepted):
            return _answer(request, SERVICE_UNAVAILABLE, "too many wait; they are found later")
        return _answer(request, ACCEPTED, "accepted")

    @app.route("/devices", methods=["POST"])
    def devices(self, request: Request) -> bytes:
        """Some device has changed."""
        if not self._knows_secret(request):
            return _answer(request, UNAUTHORIZED, "wrong secret")
        self._devices.announce()
        return _answer(request, ACCEPTED, "accepted")

    def _knows_secret(self, request: Request) -> bool:
        given = request.getHeader(SECRET_HEADER) or ""
        return hmac.compare_digest(given.encode(), self._secret)


def _keys(body: Any) -> list[str]:
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    keys = body.get("keys", [body.get("key")])
    if not (isinstance(keys, list) and 0 < len(keys) <= MOST_KEYS):
        raise ValueError(f"keys: 1 to {MOST_KEYS} are needed")
    if not all(isinstance(key, str) and 0 < len(key) <= 64 for key in keys):
        raise ValueError("key: must be the id of a row")
    return keys


def _answer(request: Request, status: int, text: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    return json.dumps({"status": text}).encode() + b"\n"
