"""Serve the console's page, its files, and its API."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import (
    BAD_REQUEST,
    CACHED,
    FORBIDDEN,
    INTERNAL_SERVER_ERROR,
    NOT_FOUND,
    OK,
    SERVICE_UNAVAILABLE,
)
from twisted.web.server import Request

from tracker import __version__
from tracker.command import MAX_DEVICE_ID_LENGTH, MAX_TEXT_BYTES
from tracker.console.access import Access, Denied, Visitor
from tracker.console.commands import CommandLog
from tracker.console.devices import BadRequest, Devices
from tracker.console.events import Broadcast, TooManyStreams
from tracker.console.files import File
from tracker.console.frames import Frames
from tracker.console.ports import ControlPorts, NoInstance
from tracker.console.requests import HostNames, console_site
from tracker.console.sampler import Sampler, Thresholds
from tracker.control.commands import (
    BadArgument,
    ControlError,
    NoSuchCommand,
    NotPermitted,
)
from tracker.errors import Refused, Unavailable
from tracker.net.http import BoundedRequest, BoundedSite
from tracker.net.refusals import Refusal
from tracker.net.reports import HTTPReports
from tracker.net.routes import Handler, Routes, respond
from tracker.storage.reader import QueryFailed
from tracker.untrusted import is_unicode, parse_json
from tracker.vendors.installed import checked_device_id
from tracker.wording import counted

#: Maximum number of commands on a device's page.
MAX_COMMANDS: Final = 50

_COMMAND_ID: Final = re.compile(r"[!-~]{1,64}")
_HOURS: Final = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_SEE_LOG: Final = "see the console's log"

Data = dict[str, Any]
#: Returns the data of a response, or None if the request has ended.
DataHandler = Callable[..., Awaitable[Data | None]]
#: Returns True while the reader of a stream may read.
IsAllowed = Callable[[], bool]


@frozen
class Tiles:
    """The source of a map's tiles."""

    url: str
    """URL with ``{z}``, ``{x}`` and ``{y}``."""
    credit: str = ""
    """Attribution that the provider requires."""


@frozen(kw_only=True)
class ConsoleParts:
    """The parts of the console that handle requests."""

    access: Access
    sampler: Sampler
    broadcast: Broadcast
    frames: Frames
    devices: Devices
    commands: CommandLog
    ports: ControlPorts
    thresholds: Thresholds
    tiles: Tiles | None
    may_send: bool
    """True if the console may send commands."""


class ConsoleSite:
    """The page, its files, and its API. The body of an error is JSON, ``{"error": …}``."""

    _log = Logger()

    def __init__(self, parts: ConsoleParts, files: dict[str, File], reports: HTTPReports) -> None:
        self._parts = parts
        self._files = files
        self._reports = reports

    def site(self, reactor: IReactorTime, names: HostNames) -> BoundedSite:
        """Return the site to listen with."""
        tiles = self._parts.tiles
        url = None if tiles is None else tiles.url
        return console_site(reactor, self._routes(), names=names, tiles=url, reports=self._reports)

    def _routes(self) -> Routes:
        one = "/api/devices/([^/]+)"
        return Routes(
            {
                "/": {b"GET": self._page},
                "/static/([^/]+)": {b"GET": self._file},
                "/api/session": {b"GET": self._data(self._get_session)},
                "/api/login": {b"POST": self._data(self._log_in)},
                "/api/logout": {b"POST": self._data(self._log_out)},
                "/api/events": {b"GET": self._data(self._events)},
                "/api/devices": {b"GET": self._data(self._devices)},
                one: {b"GET": self._data(self._device)},
                f"{one}/track": {b"GET": self._data(self._track)},
                f"{one}/frames": {b"GET": self._data(self._frames)},
                "/api/commands": {b"POST": self._data(self._send)},
                "/api/commands/([^/]+)": {b"GET": self._data(self._command)},
            },
            _error,
        )

    def _page(self, request: Request) -> bytes:
        """Return the page."""
        return self._file(request, "index.html")

    def _file(self, request: Request, name: str) -> bytes:
        """Return a static file."""
        file = self._files.get(name)
        if file is None:
            return _error(request, NOT_FOUND, "file not found")
        request.setHeader(b"cache-control", b"no-cache")
        if request.setETag(file.tag) is CACHED:
            request.setHeader(b"content-type", file.content_type.encode())
            return b""
        return respond(request, OK, file.body, file.content_type.encode())

    async def _get_session(self, request: Request) -> Data:
        """Return the user, and the settings of the page."""
        return self._session(*self._parts.access.start_session(request))

    async def _log_in(self, request: Request) -> Data:
        """Log in. The body is ``{"name": …, "password": …}``."""
        body = _body(request)
        name, password = _text(body, "name", 64), _text(body, "password", 1024)
        return self._session(*await self._parts.access.log_in(request, name, password))

    async def _log_out(self, request: Request) -> Data:
        """Log out."""
        self._parts.access.log_out(request)
        return {}

    async def _events(self, request: Request) -> None:
        """Send the event ``history`` once, then ``overview`` every two seconds."""
        allowed = self._reader(request)
        first = self._parts.sampler.first_events()
        await self._parts.broadcast.open(request, allowed, first=first).ended

    async def _devices(self, request: Request) -> Data:
        """Return a page of devices.

        The query has ``text``, ``order``, ``after`` and ``limit``; see :meth:`Devices.page`.
        """
        self._parts.access.authorize(request)
        limit = _argument(request, "limit", "50")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5):
            raise BadRequest("limit: must be a number")
        return await self._parts.devices.page(
            _argument(request, "text"),
            _argument(request, "order", "id"),
            _argument(request, "after"),
            int(limit),
        )

    async def _device(self, request: Request, device_id: str) -> Data:
        """Return the data of a device, with its latest commands."""
        self._parts.access.authorize(request)
        device_id = _checked(device_id)
        found = await self._parts.devices.one(device_id)
        await self._parts.commands.read_waiting(device_id)
        found["commands"] = self._parts.commands.latest(MAX_COMMANDS, device_id)
        found["commands_error"] = self._parts.sampler.commands_error
        return found

    async def _track(self, request: Request, device_id: str) -> Data:
        """Return the track of a device in the last ``hours``."""
        self._parts.access.authorize(request)
        hours = _number(_argument(request, "hours", "6"))
        return await self._parts.devices.track(_checked(device_id), hours)

    async def _frames(self, request: Request, device_id: str) -> None:
        """Send the events ``state`` (a text) and ``frame``."""
        allowed = self._reader(request)
        await self._parts.frames.open(request, _checked(device_id), allowed).ended

    async def _send(self, request: Request) -> Data:
        """Send a command; return the reply of the control port.

        The body is ``{"device_id": …, "text": …}``, with ``codec`` if it is not the usual one.
        """
        visitor = self._parts.access.authorize_change(request)
        if not self._parts.may_send:
            raise Denied(FORBIDDEN, "this console does not send commands (--no-commands)")
        body = _body(request)
        device_id = _checked(_text(body, "device_id", MAX_DEVICE_ID_LENGTH))
        text = _text(body, "text", MAX_TEXT_BYTES)
        codec = _text(body, "codec", MAX_DEVICE_ID_LENGTH) if body.get("codec") else None
        sender = visitor.session.operator or "local user"
        instance_id = await self._parts.devices.owner(device_id)
        reply = await self._parts.ports.send_command(
            device_id, text, instance_id, sender=sender, codec=codec
        )
        command_id = reply["command_id"]
        self._parts.commands.sent(reply, device_id=device_id, text=text, by=sender)
        # The text may contain a secret, therefore it is not logged.
        self._log.info(
            "command {command_id} to {device_id} sent by {sender}",
            command_id=command_id,
            device_id=device_id,
            sender=sender,
        )
        return reply

    async def _command(self, request: Request, command_id: str) -> Data:
        """Return the status of a command; ``device_id`` in the query helps to find it."""
        self._parts.access.authorize(request)
        if not _COMMAND_ID.fullmatch(command_id):
            raise BadRequest("command ID: must be 1 to 64 printable ASCII characters")
        given = _argument(request, "device_id")
        device_id = _checked(given) if given else None
        return await self._parts.ports.command_status(command_id, device_id)

    def _session(self, visitor: Visitor, token: str) -> Data:
        parts = self._parts
        known = {
            "version": __version__,
            "login_required": parts.access.login_required,
            "operator": visitor.session.operator or None,
            "permission": visitor.permission,
            "token": token,
        }
        if not visitor.permission:
            return known
        return {
            **known,
            "can_send": parts.may_send and visitor.permission == "operate",
            "behind": parts.thresholds.behind,
            "far_behind": parts.thresholds.far_behind,
            "tiles": parts.tiles and {"url": parts.tiles.url, "credit": parts.tiles.credit},
        }

    def _reader(self, request: Request) -> IsAllowed:
        """Return a function that returns True while the user may read.

        :raises Denied: if they may not read now.
        """
        access = self._parts.access
        visitor = access.authorize(request)
        return lambda: access.may_stay(visitor)

    def _data(self, make: DataHandler) -> Handler:
        """Return a handler that responds with the data of ``make``, or with its error."""

        async def handle(request: BoundedRequest, *groups: str) -> bytes | None:
            try:
                data = await make(request, *groups)
            except CancelledError:
                return None  # the peer has disconnected
            except Exception as error:  # noqa: BLE001 - _failed reports it
                return self._failed(request, error)
            return None if data is None else _respond(request, OK, data)

        return handle

    def _failed(self, request: BoundedRequest, error: Exception) -> bytes:
        match error:
            case Denied():
                if error.wait:
                    request.setHeader(b"retry-after", str(math.ceil(error.wait)).encode())
                return _respond(request, error.status, {"error": str(error), "wait": error.wait})
            case BadRequest():
                request.report(Refusal.MALFORMED, str(error))
                return _error(request, BAD_REQUEST, str(error))
            case BadArgument():
                return _error(request, BAD_REQUEST, str(error))
            case NotPermitted():
                return _error(request, FORBIDDEN, str(error))
            case NoSuchCommand():
                return _error(request, NOT_FOUND, str(error))
            case QueryFailed() | TooManyStreams():
                return _error(request, SERVICE_UNAVAILABLE, str(error))
            # These errors, and those below, name servers and files, which clients must not see.
            case NoInstance():
                self._reports.request_failed(f"instance: {error}")
                return _error(request, SERVICE_UNAVAILABLE, error.public)
            case ControlError():
                self._reports.request_failed(f"instance: {error}")
                text = f"no control port is available; {_SEE_LOG}"
                return _error(request, SERVICE_UNAVAILABLE, text)
            case Refused() | Unavailable():
                self._reports.request_failed(f"Redis: {error}")
                text = f"Redis is not available; {_SEE_LOG}"
                return _error(request, SERVICE_UNAVAILABLE, text)
            case _:
                self._reports.failed(Failure(error))
                return _error(request, INTERNAL_SERVER_ERROR, f"internal error; {_SEE_LOG}")


def _respond(request: Request, status: int, data: Data) -> bytes:
    return respond(request, status, json.dumps(data, separators=(",", ":")).encode())


def _error(request: Request, status: int, text: str) -> bytes:
    return _respond(request, status, {"error": text})


def _argument(request: Request, name: str, default: str = "") -> str:
    values = (request.args or {}).get(name.encode(), [])
    if len(values) > 1:
        raise BadRequest(f"{name}: must be given once")
    # BoundedRequest has checked that the whole target is UTF-8.
    return values[0].decode() if values else default


def _body(request: Request) -> Data:
    if (request.getHeader("content-type") or "").partition(";")[0] != "application/json":
        raise BadRequest("the body must be JSON")
    assert request.content is not None  # noqa: S101 - the body was received
    try:
        body = parse_json(request.content.read())
    except ValueError:
        raise BadRequest("the body must be JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def _text(body: Data, name: str, max_length: int) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= max_length:
        raise BadRequest(f"{name}: must be text of 1 to {counted(max_length, 'character')}")
    if not is_unicode(value):
        raise BadRequest(f"{name}: must not contain an unpaired surrogate")
    return value


def _checked(text: str) -> str:
    try:
        return checked_device_id(text)
    except ValueError as error:
        raise BadRequest(f"device_id: {error}") from None


def _number(text: str) -> float:
    if not _HOURS.fullmatch(text):
        raise BadRequest("hours: must be a number")
    return float(text)
