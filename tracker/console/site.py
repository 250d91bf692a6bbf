"""What the console answers, path by path."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

from attrs import frozen
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import CACHED, NOT_FOUND
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import RequestRedirect

from tracker import __version__
from tracker.command import LONGEST_TEXT, is_device_id
from tracker.console.access import Access, Denied, Visitor
from tracker.console.commands import CommandLog
from tracker.console.devices import BadQuestion, Devices
from tracker.console.events import Broadcast, EventStream, TooMany
from tracker.console.files import File
from tracker.console.frames import Frames
from tracker.console.ports import ControlPorts, NoInstance
from tracker.console.requests import Names, console_site
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
from tracker.storage.positions import NoAnswer
from tracker.untrusted import is_unicode, parse_json

#: Commands of one device that are shown.
MOST_COMMANDS: Final = 50

_COMMAND_ID: Final = re.compile(r"[!-~]{1,64}")
_HOURS: Final = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_SEE_LOG: Final = "see the console's log"

Answer = dict[str, Any]
#: Whether somebody may go on reading.
Allowed = Callable[[], bool]


@frozen
class Tiles:
    """Where a map's tiles come from."""

    url: str
    """With ``{z}``, ``{x}`` and ``{y}`` in it."""
    credit: str = ""
    """What has to be said of who made them."""


@frozen
class Parts:
    """All that answers are made of."""

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
    """Whether commands may be sent from here at all."""


class Console:
    """The page and its questions. Whatever goes wrong is told as JSON, ``{"error": …}``."""

    app = Klein()
    _log = Logger()

    def __init__(self, parts: Parts, files: dict[str, File], reports: HTTPReports) -> None:
        self._parts = parts
        self._files = files
        self._reports = reports

    def site(self, reactor: Any, names: Names) -> BoundedSite:
        """Return the site to listen with."""
        tiles = self._parts.tiles
        url = None if tiles is None else tiles.url
        return console_site(reactor, self.app, names, url, self._reports)

    @app.route("/", methods=["GET"])
    def page(self, request: Request) -> bytes:
        """The one page there is."""
        return self.static(request, "index.html")

    @app.route("/static/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> bytes:
        """What belongs to it."""
        file = self._files.get(name)
        if file is None:
            return _say(request, NOT_FOUND, {"error": "there is no such file"})
        request.setHeader(b"cache-control", b"no-cache")
        request.setHeader(b"content-type", file.content_type.encode())
        if request.setETag(file.tag) is CACHED:
            return b""
        request.setHeader(b"content-length", str(len(file.body)).encode())
        return file.body

    @app.route("/api/session", methods=["GET"])
    def session(self, request: Request) -> Any:
        """Who is there, and what the page has to know."""

        async def session() -> Answer:
            return await self._session(*self._parts.access.greet(request))

        return self._answer(request, session())

    @app.route("/api/login", methods=["POST"])
    def log_in(self, request: Request) -> Any:
        """``{"name": …, "password": …}``"""

        async def log_in() -> Answer:
            asked = _body(request)
            name, password = _text(asked, "name", 64), _text(asked, "password", 1024)
            found = await self._parts.access.log_in(request, name, password)
            return await self._session(*found)

        return self._answer(request, log_in())

    @app.route("/api/logout", methods=["POST"])
    def log_out(self, request: Request) -> Any:
        """Nothing is said."""

        async def log_out() -> Answer:
            self._parts.access.log_out(request)
            return {}

        return self._answer(request, log_out())

    @app.route("/api/events", methods=["GET"])
    def events(self, request: Request) -> Any:
        """``history`` once, then ``overview`` every two seconds."""

        def begin(allowed: Allowed) -> EventStream:
            first = self._parts.sampler.first_events()
            return self._parts.broadcast.open(request, allowed, first)

        return self._stream(request, begin)

    @app.route("/api/devices", methods=["GET"])
    def devices(self, request: Request) -> Any:
        """A page of devices: ``text``, ``order`` (``id`` or ``contact``), ``after``, ``limit``."""

        async def devices() -> Answer:
            self._parts.access.visitor(request)
            limit = _argument(request, "limit", "50")
            if not (limit.isascii() and limit.isdigit() and len(limit) < 5):
                raise BadQuestion("limit: must be a number")
            return await self._parts.devices.page(
                _argument(request, "text"),
                _argument(request, "order", "id"),
                _argument(request, "after"),
                int(limit),
            )

        return self._answer(request, devices())

    @app.route("/api/devices/<device_id>", methods=["GET"])
    def device(self, request: Request, device_id: str) -> Any:
        """All there is to know of a device, and its latest commands."""

        async def device() -> Answer:
            self._parts.access.visitor(request)
            found = await self._parts.devices.one(_device(device_id))
            found["commands"] = self._parts.commands.latest(MOST_COMMANDS, device_id)
            return found

        return self._answer(request, device())

    @app.route("/api/devices/<device_id>/track", methods=["GET"])
    def track(self, request: Request, device_id: str) -> Any:
        """Where it has been in the last ``hours``."""

        async def track() -> Answer:
            self._parts.access.visitor(request)
            hours = _number(_argument(request, "hours", "6"))
            return await self._parts.devices.track(_device(device_id), hours)

        return self._answer(request, track())

    @app.route("/api/devices/<device_id>/frames", methods=["GET"])
    def frames(self, request: Request, device_id: str) -> Any:
        """``state`` (a text) and ``frame``, as they happen."""

        def begin(allowed: Allowed) -> EventStream:
            return self._parts.frames.open(request, _device(device_id), allowed)

        return self._stream(request, begin)

    @app.route("/api/commands", methods=["POST"])
    def send(self, request: Request) -> Any:
        """``{"device_id": …, "text": …}``; what the control port says."""

        async def send() -> Answer:
            visitor = self._parts.access.changing(request)
            if not self._parts.may_send:
                raise Denied(403, "this console sends no commands")
            asked = _body(request)
            device_id = _device(_text(asked, "device_id", 15))
            text = _text(asked, "text", LONGEST_TEXT)
            return await self._send(visitor, device_id, text)

        return self._answer(request, send())

    @app.route("/api/commands/<command_id>", methods=["GET"])
    def command(self, request: Request, command_id: str) -> Any:
        """What has become of a command; ``device_id`` helps to find it."""

        async def command() -> Answer:
            self._parts.access.visitor(request)
            if not _COMMAND_ID.fullmatch(command_id):
                raise BadQuestion("no id of a command")
            given = _argument(request, "device_id")
            device_id = _device(given) if given else None
            return await self._parts.ports.command_status(command_id, device_id)

        return self._answer(request, command())

    async def _session(self, visitor: Visitor, token: str) -> Answer:
        parts = self._parts
        known = {
            "version": __version__,
            "asks": parts.access.asks,
            "operator": visitor.session.operator or None,
            "role": visitor.role,
            "token": token,
        }
        if not visitor.role:
            return known
        return {
            **known,
            "sends": parts.may_send and visitor.role == "operate",
            "behind": parts.thresholds.behind,
            "far_behind": parts.thresholds.far_behind,
            "tiles": parts.tiles and {"url": parts.tiles.url, "credit": parts.tiles.credit},
        }

    async def _send(self, visitor: Visitor, device_id: str, text: str) -> Answer:
        who = visitor.session.operator or "somebody on this machine"
        instance_id = await self._parts.devices.owner(device_id)
        answer = await self._parts.ports.send_command(device_id, text, instance_id)
        command_id = answer["command_id"]
        self._parts.commands.sent(command_id, device_id, text, who, answer["status"])
        # Its text may be a secret: it stands in Redis, as any command's does, and not here.
        self._log.info(
            "{who} has sent the command {command_id} to {device_id}",
            who=who,
            command_id=command_id,
            device_id=device_id,
        )
        return answer

    def _stream(self, request: Request, begin: Callable[[Allowed], EventStream]) -> Any:
        async def stream() -> Answer | None:
            access = self._parts.access
            visitor = access.visitor(request)
            await begin(lambda: access.may_stay(visitor)).ended
            return None

        return self._answer(request, stream())

    def _answer(self, request: Any, made: Coroutine[Any, Any, Answer | None]) -> Any:
        return Deferred.fromCoroutine(self._told(request, made))

    async def _told(
        self, request: BoundedRequest, made: Coroutine[Any, Any, Answer | None]
    ) -> bytes | None:
        try:
            answer = await made
        except Denied as error:
            if error.wait:
                request.setHeader(b"retry-after", str(math.ceil(error.wait)).encode())
            return _say(request, error.status, {"error": str(error), "wait": error.wait})
        except BadQuestion as error:
            request.report(Refusal.MALFORMED, str(error))
            return _say(request, 400, {"error": str(error)})
        except BadArgument as error:
            return _say(request, 400, {"error": str(error)})
        except NotPermitted as error:
            return _say(request, 403, {"error": str(error)})
        except NoSuchCommand as error:
            return _say(request, 404, {"error": str(error)})
        except (NoAnswer, TooMany) as error:
            return _say(request, 503, {"error": str(error)})
        except (NoInstance, ControlError) as error:
            # These errors, and those below, name servers and files, which clients must not see.
            self._reports.unanswered(f"instance: {error}")
            return _say(request, 503, {"error": f"no instance can be asked now; {_SEE_LOG}"})
        except (Refused, Unavailable) as error:
            self._reports.unanswered(f"Redis: {error}")
            return _say(request, 503, {"error": f"Redis cannot be asked now; {_SEE_LOG}"})
        except CancelledError:
            return None  # nobody waits for it any more
        except Exception:  # noqa: BLE001 - Klein's own page would tell no more, and as HTML
            self._reports.failed(Failure())
            return _say(request, 500, {"error": f"internal error; {_SEE_LOG}"})
        return b"" if answer is None else _say(request, 200, answer)

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def not_there(self, request: Request, failure: Any) -> bytes:
        """Answer a request with an unknown path or method; never redirect to another path."""
        error = NotFound() if isinstance(failure.value, RequestRedirect) else failure.value
        return _say(request, error.code, {"error": error.name.lower()})


def _say(request: Request, status: int, answer: Answer) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    body = json.dumps(answer, separators=(",", ":")).encode()
    request.setHeader(b"content-length", str(len(body)).encode())
    return body


def _argument(request: Request, name: str, default: str = "") -> str:
    values = (request.args or {}).get(name.encode(), [])
    if len(values) > 1:
        raise BadQuestion(f"{name}: is given twice")
    # The whole target of the request was checked to be UTF-8.
    return values[0].decode() if values else default


def _body(request: Request) -> Answer:
    if (request.getHeader("content-type") or "").partition(";")[0] != "application/json":
        raise BadQuestion("must be JSON")
    assert request.content is not None  # noqa: S101 - it was received
    try:
        asked = parse_json(request.content.read())
    except ValueError:
        raise BadQuestion("must be JSON") from None
    if not isinstance(asked, dict):
        raise BadQuestion("must be a JSON object")
    return asked


def _text(asked: Answer, name: str, most: int) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise BadQuestion(f"{name}: must be a text of 1 to {most} characters")
    if not is_unicode(value):
        raise BadQuestion(f"{name}: has half a character in it")
    return value


def _device(text: str) -> str:
    if not is_device_id(text):
        raise BadQuestion("device_id: must be an IMEI of 15 digits")
    return text


def _number(text: str) -> float:
    if not _HOURS.fullmatch(text):
        raise BadQuestion("hours: must be a number")
    return float(text)
