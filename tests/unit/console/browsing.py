"""Fake browsers that send requests to a console in memory."""

from __future__ import annotations

import json
from typing import Any, Final

from attrs import define, evolve, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from tests.unit.fakes import FakeRedis
from tracker.console.access import Access
from tracker.console.commands import CommandLog
from tracker.console.devices import Devices
from tracker.console.events import Broadcast
from tracker.console.files import File
from tracker.console.frames import Frames
from tracker.console.operators import Operator, Operators
from tracker.console.ports import ControlPorts, NoInstance
from tracker.console.requests import HostNames
from tracker.console.sampler import Sampler, Thresholds
from tracker.console.sessions import KEY_BYTES, Sessions
from tracker.console.site import ConsoleParts, ConsoleSite, Tiles
from tracker.console.snapshot import Snapshot
from tracker.control.pool import NO_INSTANCE, Credentials
from tracker.net.reports import HTTPReports

#: A UNIX time in November 2026.
NOW: Final = 1_795_000_000.0
HOST: Final = "127.0.0.1:9120"
ORIGIN: Final = f"http://{HOST}"
DEVICE: Final = "356307042441013"

EMPTY_SNAPSHOT: Final = Snapshot([], None, [], 0, 0, 0, [], [])


class FakeOperators(Operators):
    """Operators in memory."""

    def __init__(self, *known: Operator) -> None:
        self.known = {one.name: one for one in known}
        self._unmatchable = evolve(known[0].password, key=bytes(32))

    def get(self, name: str) -> Operator | None:
        return self.known.get(name)


class FakePorts(ControlPorts):
    """Control ports that record the commands that are sent."""

    def __init__(self) -> None:
        super().__init__(Clock(), Credentials())
        self.sent: list[tuple[str, str]] = []
        self.codecs: list[str | None] = []
        self.refusal: Exception | None = None

    async def send_command(
        self, device_id: str, text: str, instance_id: str | None, **options: Any
    ) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((device_id, text))
        self.codecs.append(options["codec"])
        return {"command_id": f"c{len(self.sent)}", "status": "queued"}

    async def device(self, device_id: str, instance_id: str | None) -> dict[str, Any]:
        raise NoInstance(NO_INSTANCE)


def empty_redis() -> FakeRedis:
    """Return a connection to a Redis that holds nothing."""

    def missing(key: str, *fields: str) -> list[None]:
        return [None] * len(fields)

    names = ("SMEMBERS", "MGET", "XRANGE", "XREVRANGE", "HGETALL")
    lists: dict[str, Any] = {one: [] for one in names}
    return FakeRedis(replies={"HMGET": missing, "HSCAN": [b"0", []], **lists})


@define
class Response:
    """A response to a browser."""

    status: int
    headers: dict[str, list[str]]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        return ", ".join(self.headers.get(name, []))


@define(slots=False)
class Server:
    """A console without network, threads and Redis."""

    operators: Operators | None = None
    secure: bool = False
    names: tuple[str, ...] = ()
    tiles: Tiles | None = None
    may_send: bool = True
    max_streams: int = 200
    clock: Clock = field(factory=Clock)
    ports: FakePorts = field(factory=FakePorts)
    redis: Any = field(factory=empty_redis)
    snapshot: Snapshot = EMPTY_SNAPSHOT
    key: bytes = bytes(KEY_BYTES)
    checked: list[Deferred[Any]] | None = None
    """Pending checks of passwords, which the test ends; None to check at once."""

    def __attrs_post_init__(self) -> None:
        self.clock.rightNow = NOW

        async def take_snapshot() -> Snapshot:
            return self.snapshot

        def in_thread(function: Any, *arguments: Any) -> Deferred[Any]:
            if self.checked is None:
                return succeed(function(*arguments))
            waiting: Deferred[Any] = Deferred()
            self.checked.append(waiting)
            return waiting.addCallback(lambda _: function(*arguments))

        self.commands = CommandLog(self.clock, self.redis)
        self.broadcast = Broadcast(self.clock, self.max_streams)
        self.sampler = Sampler(
            self.clock,
            take_snapshot=take_snapshot,
            commands=self.commands,
            ports=self.ports,
            thresholds=Thresholds(),
            publish=self.broadcast.publish,
        )
        devices = Devices(self.clock, self.redis, positions=None, ports=self.ports, namings={})
        self.parts = ConsoleParts(
            access=Access(self.clock, Sessions(self.clock, self.key), self.operators, in_thread),
            sampler=self.sampler,
            broadcast=self.broadcast,
            frames=Frames(self.clock, devices.owner, self.ports, self.broadcast),
            devices=devices,
            commands=self.commands,
            ports=self.ports,
            thresholds=Thresholds(),
            tiles=self.tiles,
            may_send=self.may_send,
        )
        files = {"index.html": File(b"<!doctype html>", "text/html", b'"1"')}
        reports = HTTPReports(self.clock, "console", "console")
        self.site = ConsoleSite(self.parts, files, reports).site(
            self.clock, HostNames.of(self.names)
        )

    def connect(self, peer: str = "127.0.0.1") -> Connection:
        return Connection(self, peer)


class Connection:
    """One connection of a browser."""

    def __init__(self, server: Server, peer: str) -> None:
        self.channel: Any = server.site.buildProtocol(IPv4Address("TCP", peer, 40000))
        self.transport: Any = StringTransport(
            IPv4Address("TCP", "127.0.0.1", 9120), IPv4Address("TCP", peer, 40000)
        )
        if server.secure:
            alsoProvides(self.transport, ISSLTransport)
            setattr(self.transport, "setTcpNoDelay", lambda enabled: None)  # noqa: B010
        self.channel.makeConnection(self.transport)

    def write(self, method: str, path: str, headers: dict[str, str], body: str = "") -> None:
        lines = (f"{name}: {value}" for name, value in headers.items())
        head = [f"{method} {path} HTTP/1.1", *lines]
        if body:
            head.append(f"Content-Length: {len(body)}")
        self.channel.dataReceived("\r\n".join([*head, "", body]).encode())

    @property
    def text(self) -> str:
        """Everything that the browser has received."""
        text: str = self.transport.value().decode()
        return text

    def response(self) -> Response:
        """Parse the complete response."""
        head, blank, body = self.text.partition("\r\n\r\n")
        assert blank, "no response"
        status, *lines = head.split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers.setdefault(name.lower(), []).append(value)
        return Response(int(status.split()[1]), headers, body)

    def disconnect(self) -> None:
        """Close the connection at the browser's side."""
        self.channel.connectionLost(Failure(ConnectionDone()))


class Browser:
    """A browser that keeps cookies, and sends the header fields of the console's page."""

    def __init__(self, server: Server, peer: str = "127.0.0.1") -> None:
        self.server = server
        self.peer = peer
        self.cookies: dict[str, str] = {}
        self.token = ""

    def headers(self, **changes: str | None) -> dict[str, str]:
        """Return the header fields of a request, with changes; None removes a field."""
        origin = ORIGIN.replace("http:", "https:") if self.server.secure else ORIGIN
        made: dict[str, str | None] = {
            "Host": HOST,
            "Origin": origin,
            "X-CSRF-Token": self.token,
            "Content-Type": "application/json",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        return {name: value for name, value in made.items() if value}

    def start_request(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> Connection:
        """Send a request without waiting for the response."""
        connection = self.server.connect(self.peer)
        text = "" if body is None else json.dumps(body)
        connection.write(method, path, self.headers(**headers), text)
        return connection

    def request(self, method: str, path: str, body: Any = None, **headers: str | None) -> Response:
        """Send a request, and keep the cookies of the response."""
        response = self.start_request(method, path, body, **headers).response()
        for cookie in response.headers.get("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return response

    def get(self, path: str, **headers: str | None) -> Response:
        return self.request("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str | None) -> Response:
        return self.request("POST", path, body, **headers)

    def load_page(self) -> Any:
        """Load the session as the page does, and return it."""
        session = self.get("/api/session").json
        self.token = session["token"]
        return session

    def log_in(self, name: str, password: str) -> Response:
        response = self.post("/api/login", {"name": name, "password": password})
        if response.status == 200:
            self.token = response.json["token"]
        return response
