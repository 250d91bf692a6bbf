"""A browser without a window or a socket: requests to a console, byte by byte."""

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
from tracker.console.look import Look
from tracker.console.operators import Operator, Operators
from tracker.console.ports import ControlPorts, NoInstance
from tracker.console.requests import Names
from tracker.console.sampler import Sampler, Thresholds
from tracker.console.sessions import KEY_BYTES, Sessions
from tracker.console.site import Console, Parts, Tiles
from tracker.control.pool import Credentials
from tracker.net.reports import HTTPReports

#: Some time in 2026.
NOW: Final = 1_795_000_000.0
HOST: Final = "127.0.0.1:9120"
ORIGIN: Final = f"http://{HOST}"
DEVICE: Final = "356307042441013"

NOTHING: Final = Look([], None, [], 0, 0, 0, [], [])


class FakeOperators(Operators):
    """Those that the test says, without a file."""

    def __init__(self, *known: Operator) -> None:
        self.known = {one.name: one for one in known}
        self._nobody = evolve(known[0].password, key=bytes(32))

    def get(self, name: str) -> Operator | None:
        return self.known.get(name)


class FakePorts(ControlPorts):
    """Notes what is sent."""

    def __init__(self) -> None:
        super().__init__(Clock(), Credentials())
        self.sent: list[tuple[str, str]] = []
        self.refusal: Exception | None = None

    async def send_command(
        self, device_id: str, text: str, instance_id: str | None, **options: Any
    ) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((device_id, text))
        return {"command_id": f"c{len(self.sent)}", "status": "queued"}

    async def device(self, device_id: str, instance_id: str | None) -> dict[str, Any]:
        raise NoInstance("there is none")


def empty_redis() -> FakeRedis:
    """Return a connection to a Redis that holds nothing."""

    def missing(key: str, *fields: str) -> list[None]:
        return [None] * len(fields)

    lists: dict[str, Any] = {one: [] for one in ("SMEMBERS", "MGET", "XREVRANGE", "HGETALL")}
    return FakeRedis(answers={"HMGET": missing, "HSCAN": [b"0", []], **lists})


@define
class Answer:
    """What came back."""

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
    """A console of pieces that need nobody."""

    operators: Operators | None = None
    secure: bool = False
    names: tuple[str, ...] = ()
    tiles: Tiles | None = None
    may_send: bool = True
    most_streams: int = 200
    clock: Clock = field(factory=Clock)
    ports: FakePorts = field(factory=FakePorts)
    redis: Any = field(factory=empty_redis)
    look: Look = NOTHING
    key: bytes = bytes(KEY_BYTES)
    checked: list[Deferred[Any]] | None = None
    """Passwords that are being checked, where the test says when that is done."""

    def __attrs_post_init__(self) -> None:
        self.clock.rightNow = NOW

        async def see() -> Look:
            return self.look

        def in_thread(function: Any, *arguments: Any) -> Deferred[Any]:
            if self.checked is None:
                return succeed(function(*arguments))
            waiting: Deferred[Any] = Deferred()
            self.checked.append(waiting)
            return waiting.addCallback(lambda _: function(*arguments))

        self.commands = CommandLog(self.clock, self.redis)
        self.broadcast = Broadcast(self.clock, self.most_streams)
        self.sampler = Sampler(
            self.clock,
            see=see,
            commands=self.commands,
            ports=self.ports,
            thresholds=Thresholds(),
            publish=self.broadcast.publish,
        )
        devices = Devices(self.clock, self.redis, positions=None, ports=self.ports, namings={})
        self.parts = Parts(
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
        self.site = Console(self.parts, files, reports).site(self.clock, Names.of(self.names))

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
        """All that came."""
        text: str = self.transport.value().decode()
        return text

    def answer(self) -> Answer:
        """The one answer that came, whole."""
        head, blank, body = self.text.partition("\r\n\r\n")
        assert blank, "no answer"
        status, *lines = head.split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers.setdefault(name.lower(), []).append(value)
        return Answer(int(status.split()[1]), headers, body)

    def leave(self) -> None:
        """Be gone."""
        self.channel.connectionLost(Failure(ConnectionDone()))


class Browser:
    """Keeps cookies, and sends along what a page of the console does."""

    def __init__(self, server: Server, peer: str = "127.0.0.1") -> None:
        self.server = server
        self.peer = peer
        self.cookies: dict[str, str] = {}
        self.token = ""

    def headers(self, **changes: str | None) -> dict[str, str]:
        """Those of a request, with changes; None: without it."""
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

    def begin(self, method: str, path: str, body: Any = None, **headers: str | None) -> Connection:
        """Ask; the answer may come later."""
        connection = self.server.connect(self.peer)
        text = "" if body is None else json.dumps(body)
        connection.write(method, path, self.headers(**headers), text)
        return connection

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> Answer:
        """Ask, and keep the cookies of the answer."""
        answer = self.begin(method, path, body, **headers).answer()
        for cookie in answer.headers.get("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str | None) -> Answer:
        return self.ask("POST", path, body, **headers)

    def arrive(self) -> Any:
        """Load the page: who we are."""
        session = self.get("/api/session").json
        self.token = session["token"]
        return session

    def log_in(self, name: str, password: str) -> Answer:
        answer = self.post("/api/login", {"name": name, "password": password})
        if answer.status == 200:
            self.token = answer.json["token"]
        return answer
