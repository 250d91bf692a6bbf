"""Doubles that implement the interfaces, and do only what a test asks them to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from tracker.command import Answer, Command, CommandFrame
from tracker.errors import Refused, Unavailable
from tracker.interfaces import (
    Admission,
    Batch,
    BatchRefused,
    ConnectionEnded,
    ConnectionFacts,
    ConnectionFigures,
    IConnection,
    IGateway,
    IInstance,
    IPeer,
    IPositionSink,
    Observer,
    Rejection,
    Tally,
    Traffic,
)
from tracker.kept import KeptMemory
from tracker.log.entries import entry_order
from tracker.position import Entry


@implementer(IGateway)
class FakeGateway:
    """Records the events of a protocol, and confirms entries when the test says so."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.kept = KeptMemory(1 << 30)
        self.events: list[tuple[Any, ...]] = []
        self.kinds: list[Rejection] = []
        """Kinds of the rejections."""
        self.published: list[tuple[Sequence[Entry], Deferred[None]]] = []
        self.cancelled = 0
        self.admits_connections = True
        self.accepts_detached = True
        self.admissions: dict[str, Admission] = {}
        self.confirms_immediately = False
        self.log_confirms = True
        self.waiting: list[Deferred[None]] = []
        """The logins that wait for the log."""
        self.on_login: Callable[[IConnection], None] = lambda connection: None

    def admits(self, address: IAddress | None) -> bool:
        return self.admits_connections

    def opened(self, connection: IConnection) -> None:
        self.events.append(("opened",))

    def session_opened(self, connection: IConnection) -> None:
        self.events.append(("session opened", connection))

    def admission(self, device_id: str) -> Admission:
        return self.admissions.get(device_id, Admission.SERVED)

    def login(self, connection: IConnection, device_id: str) -> Admission:
        self.events.append(("login", device_id))
        self.on_login(connection)
        admission = self.admission(device_id)
        waits = connection.may_stay and admission is not Admission.SERVED
        return Admission.WAITING if waits else admission

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        def cancelled(_: Deferred[None]) -> None:
            self.cancelled += 1

        confirmation: Deferred[None] = Deferred(cancelled)
        self.published.append((entries, confirmation))
        if self.confirms_immediately:
            confirmation.callback(None)
        return confirmation

    def publish_detached(self, entries: Sequence[Entry]) -> Deferred[None] | None:
        if not self.accepts_detached:
            return None
        kept: Deferred[None] = Deferred()
        self.published.append((entries, kept))
        if self.confirms_immediately:
            kept.callback(None)
        return kept

    def when_log_confirms(self) -> Deferred[None] | None:
        if self.log_confirms:
            return None
        self.waiting.append(Deferred(self.waiting.remove))
        return self.waiting[-1]

    def command_answered(self, connection: IConnection, answer: Answer) -> None:
        self.events.append(("answered", answer))

    def lost(self, peer: IPeer, count: int) -> None:
        self.events.append(("lost", count))

    def rejected(self, peer: IPeer, reason: str, kind: Rejection = Rejection.CONTENT) -> None:
        self.kinds.append(kind)
        self.events.append(("rejected", reason))

    def noticed(self, peer: IPeer, notice: str) -> None:
        self.events.append(("noticed", notice))

    def closed(self, connection: IConnection) -> None:
        self.events.append(("closed",))


@implementer(IConnection)
@define(eq=False)
class FakeConnection:
    """A connection without a socket."""

    gateway: IGateway
    device_id: str | None = None
    peer: str = "192.0.2.1:40000"
    host: str = "192.0.2.1"
    closed: bool = False
    busy: bool = False
    """True while no command may be written."""
    written: list[str] = field(factory=list)
    """The texts of the written commands."""
    waiting: Deferred[None] | None = None
    silence_limit: float | None = None
    """Argument of the last call of :meth:`when_free`."""
    observer: Observer | None = None
    others: dict[str, None] = field(factory=dict)
    """Further devices on the connection."""
    alive: bool = True
    may_stay: bool = False
    served: list[str] = field(factory=list)
    """The devices that were served after they had waited."""
    tokens: bool = False
    """True if commands have a token, which is their text."""
    shown: bytes | None = None
    """The bytes that people see of a command."""

    @property
    def device_ids(self) -> list[str]:
        own = () if self.device_id is None or self.device_id in self.others else (self.device_id,)
        return [*own, *self.others]

    def is_alive(self) -> bool:
        return self.alive and not self.closed

    def serve(self, device_id: str) -> None:
        self.served.append(device_id)

    def withdraw(self, device_id: str) -> bool:
        if not self.may_stay:
            self.close()
        return self.may_stay

    def log_out(self, device_id: str) -> None:
        if device_id in self.others and len(self.others) > 1:
            del self.others[device_id]
        else:
            self.close()

    def close(self) -> None:
        self.closed = True
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.errback(ConnectionEnded())
        self.gateway.closed(self)

    def retire(self) -> None:
        self.close()

    def figures(self) -> ConnectionFigures:
        return ConnectionFigures(0.0, 0.0, "8", 0, 0)

    def observe(self, observer: Observer | None) -> None:
        self.observer = observer

    def command_frame(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        if codec not in ("", "12", "14"):
            raise ValueError(f"unknown codec {codec}")
        token = content.decode() if self.tokens else ""
        return CommandFrame(codec or "12", content, token, self.shown)

    def when_free(self, silence_limit: float = 0) -> Deferred[None]:
        self.silence_limit = silence_limit
        if self.closed:
            return fail(ConnectionEnded())
        if not self.busy:
            return succeed(None)

        def forget(_: object) -> None:
            self.waiting = None

        self.waiting = Deferred(forget)
        return self.waiting

    def free(self) -> None:
        """Let a command be written now."""
        self.busy = False
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(None)

    def write_command(self, data: bytes, shown: bytes | None = None) -> None:
        assert not self.closed
        assert not self.busy
        self.written.append(data.decode())
        if self.observer is not None:
            self.observer(Traffic.SENT, data if shown is None else shown)


@implementer(IInstance)
@define
class FakeInstance:
    """Has the devices that the test gives it, and records the calls."""

    instance_id: str = "one"
    started_at: str = "2026-11-22T10:00:00.000Z"
    streams: Sequence[str] = ("telemetry:teltonika",)
    draining: bool = False
    facts: dict[str, ConnectionFacts] = field(factory=dict)
    loads: dict[str, tuple[int, bool]] = field(factory=dict)
    held: dict[str, Command] = field(factory=dict)
    """ID → command that the instance holds."""
    watched: list[tuple[str, Observer]] = field(factory=list)
    dropped: list[str] = field(factory=list)
    drains: list[tuple[float, Deferred[tuple[int, int]]]] = field(factory=list)
    described: dict[str, Any] = field(factory=lambda: {"kind": "frame"})
    """Return value of :meth:`describe`."""

    def connect(self, device_id: str, vendor: str = "teltonika", **changes: Any) -> None:
        """Connect a device."""
        connection = ConnectionFigures(1.5, 2.5, "8", 3, 4)
        facts = ConnectionFacts(device_id, vendor, "192.0.2.1:40000", connection)
        self.facts[device_id] = evolve(facts, **changes)

    def happened(self, device_id: str, kind: Traffic, data: bytes = b"") -> None:
        """Notify the observers of a device."""
        for watched, observer in list(self.watched):
            if watched == device_id:
                observer(kind, data)

    def counts(self) -> dict[str, int]:
        count = len(self.facts)
        return {"connections": count + 1, "devices": count, "commands_held": len(self.held)}

    def devices(self, vendor: str | None) -> Iterable[str]:
        return [one.device_id for one in self.facts.values() if vendor in (None, one.vendor)]

    def connection(self, device_id: str) -> ConnectionFacts | None:
        return self.facts.get(device_id)

    def commands(self, device_id: str) -> tuple[int, bool]:
        return self.loads.get(device_id, (0, False))

    def held_command(self, command_id: str) -> Command | None:
        return self.held.get(command_id)

    def drop(self, device_id: str) -> str | None:
        found = self.facts.pop(device_id, None)
        if found is None:
            return None
        self.dropped.append(device_id)
        return found.address

    def watch(self, device_id: str, observer: Observer) -> bool:
        self.watched.append((device_id, observer))
        return device_id in self.facts

    def unwatch(self, device_id: str, observer: Observer) -> None:
        self.watched.remove((device_id, observer))

    def describe(self, device_id: str, data: bytes, kind: Traffic) -> dict[str, Any]:
        return self.described

    def drain(self, seconds: float) -> Deferred[tuple[int, int]]:
        self.draining = True
        self.drains.append((seconds, Deferred()))
        return self.drains[-1][1]


@define(slots=False)
class FakeRedis:
    """A RedisConnection without Redis; ``tests/unit/redis/test_connection.py`` compares the two.

    With ``replies``, each command has its reply at once. Without, it waits in ``commands`` until
    the test fires its Deferred.
    """

    connected: bool = True
    connections: int = 0
    """Number of times that the connection has become usable."""
    replies: dict[str, Any] | None = None
    """Name of a command → its reply, or a function that returns the reply from the arguments.

    A text is an error of Redis, an exception is raised, and a Deferred postpones the reply. The
    reply to other commands is nil.
    """
    sent: list[tuple[Any, ...]] = field(factory=list)
    """All commands that were sent."""
    commands: list[tuple[tuple[Any, ...], Deferred[Any]]] = field(factory=list)
    """Commands without a reply, and their Deferreds."""
    waiting: list[Deferred[None]] = field(factory=list)

    def execute(self, *arguments: Any) -> Deferred[Any]:
        if not self.connected:
            return fail(Unavailable("not connected"))
        self.sent.append(arguments)
        if self.replies is None:
            waiting: Deferred[Any] = Deferred()
            self.commands.append((arguments, waiting))
            return waiting
        reply = self.replies.get(arguments[0])
        if callable(reply):
            try:
                reply = reply(*arguments[1:])
            except Refused as error:
                return fail(error)
        if isinstance(reply, Deferred):
            return reply
        if isinstance(reply, str):
            return fail(Refused(reply))
        return fail(reply) if isinstance(reply, Exception) else succeed(reply)

    def when_connected(self) -> Deferred[None]:
        if self.connected:
            return succeed(None)
        deferred: Deferred[None] = Deferred(self.waiting.remove)
        self.waiting.append(deferred)
        return deferred

    def lose(self) -> None:
        """Lose the connection, and fail the commands under way."""
        self.connected = False
        commands, self.commands = self.commands, []
        for _, deferred in commands:
            deferred.errback(Unavailable("Lost connection"))

    def reconnect(self) -> None:
        """Restore the connection."""
        self.connected = True
        self.connections += 1
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(None)


@implementer(IPositionSink)
@define
class FakeSink:
    """A sink that keeps batches in memory, with failures and refusals on request."""

    batches: list[Batch] = field(factory=list)
    failures: list[Exception] = field(factory=list)
    refused: set[str] = field(factory=set)
    """Times of positions that it refuses."""
    busy: Deferred[None] | None = None
    """Deferred for which each call of store waits, if any."""
    closed: bool = False

    def open(self) -> Deferred[None]:
        return succeed(None)

    def store(self, batch: Batch) -> Deferred[int]:
        if self.failures:
            return fail(self.failures.pop(0))
        for stored in batch.positions:
            if stored.position.timestamp in self.refused:
                return fail(BatchRefused(f"no room for {stored.position.timestamp}"))

        def commit(_: object) -> int:
            self.batches.append(batch)
            return len(batch.positions)

        if self.busy is None:
            return succeed(commit(None))
        free: Deferred[None] = Deferred()
        self.busy.chainDeferred(free)
        return free.addCallback(commit)

    def checkpoint(self, stream: str, group: str) -> Deferred[str | None]:
        ids = [batch.checkpoints.get((stream, group)) for batch in self.batches]
        return succeed(max(filter(None, ids), default=None, key=entry_order))

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)
