"""Command delivery without Redis: fakes of the ledger, the reader and the devices."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeConnection
from tracker.command import Answer, Command, StatusUpdate
from tracker.commands.delivery import CommandDelivery
from tracker.commands.ledger import CommandLedger, Effect
from tracker.commands.shared import Timing
from tracker.interfaces import IConnection, IGateway
from tracker.log.allowance import Allowance
from tracker.log.entries import BEGINNING, StreamEntry
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition
from tracker.position import iso_milliseconds

DEVICE = "356307042441013"
OTHER = "356307042441021"
STREAM = "commands:outbound:one"


@define(eq=False)
class Device(FakeConnection):
    """A connection of a device that records the calls of ``when_free``."""

    silence_limits: list[float] = field(factory=list)
    """The argument of each call."""
    busy_next: list[bool] = field(factory=list)
    """Value of ``busy`` in each of the next calls."""

    def when_free(self, silence_limit: float = 0) -> Deferred[None]:
        self.silence_limits.append(silence_limit)
        if self.busy_next:
            self.busy = self.busy_next.pop(0)
        return FakeConnection.when_free(self, silence_limit)

    def answer(self, text: str, codec: str = "12", **facts: Any) -> None:
        """Answer a command.

        :param facts: ``refused``, ``unknown``, ``token``.
        """
        self.gateway.command_answered(self, Answer(codec, text, **facts))


@define(eq=False)
class FakeLedger:
    """A fake of :class:`CommandLedger` that records its calls."""

    clock: Clock
    calls: list[tuple[str, str]] = field(factory=list)
    """Name of each operation, and its command ID (or entry ID)."""
    effects: dict[tuple[str, str], list[Effect]] = field(factory=dict)
    """Name of an operation and command ID → effects of the next calls, instead of success."""
    errors: dict[str, list[Exception]] = field(factory=lambda: defaultdict(list))
    """Name of an operation → errors of the next calls."""
    gates: dict[str, Deferred[None]] = field(factory=dict)
    """Name of an operation → Deferred that fires when Redis replies."""
    stream: dict[str, StreamEntry] = field(factory=dict)
    """Entry ID → entry of the stream."""
    ended: dict[str, str] = field(factory=dict)
    """Command ID → status and reason of its final response."""
    texts: dict[str, str] = field(factory=dict)
    """Command ID → text of its final response."""
    responses: Counter[tuple[str, str]] = field(factory=Counter)
    indexed: list[str] = field(factory=list)
    """IDs of the commands that were added to the index of deadlines."""

    @property
    def now(self) -> int:
        return round(self.clock.seconds() * 1000)

    def when_connected(self) -> Deferred[None]:
        return succeed(None)

    async def claim(self, entry: StreamEntry, command: Command) -> Effect:
        effect = Effect.OVER if command.command_id in self.ended else Effect.WON
        return await self._call("claim", command.command_id, effect)

    async def recover(self, entry: StreamEntry, command: Command) -> Effect:
        effect = Effect.OVER if command.command_id in self.ended else Effect.OPEN
        return await self._call("recover", command.command_id, effect)

    async def delivered(self, entry: StreamEntry, command: Command) -> None:
        await self._call("delivered", command.command_id, Effect.RECORDED)

    async def finish(
        self, entry: StreamEntry, command: Command, update: StatusUpdate, written: bool = False
    ) -> Effect:
        effect = await self._call("finish", command.command_id, Effect.FINISHED)
        if effect is Effect.FINISHED:
            self._end(command.command_id, update)
        return effect

    async def refuse(
        self, entry: StreamEntry, command_id: str, device_id: str, update: StatusUpdate
    ) -> Effect:
        effect = await self._call("refuse", command_id, Effect.FINISHED)
        self._end(command_id, update)
        return effect

    async def offer(
        self, entry: StreamEntry, command: Command, waits: bool, unwritten: bool = False
    ) -> Effect:
        name = "return" if unwritten else "offer"
        return await self._call(name, command.command_id, Effect.WAITS)

    async def drop(self, entry: StreamEntry) -> None:
        await self._call("drop", entry.id, Effect.RECORDED)

    async def index(self, commands: Iterable[tuple[StreamEntry, Command]]) -> None:
        self.indexed += [command.command_id for _, command in commands]
        if self.errors["index"]:
            raise self.errors["index"].pop(0)

    async def entry(self, stream: str, entry_id: str) -> StreamEntry:
        await self._call("entry", entry_id, Effect.RECORDED)
        return self.stream.get(entry_id, StreamEntry(stream, entry_id, None))

    async def _call(self, name: str, about: str, success: Effect) -> Effect:
        self.calls.append((name, about))
        if name in self.gates:
            await self.gates[name]
        if self.errors[name]:
            raise self.errors[name].pop(0)
        effects = self.effects.get((name, about))
        return effects.pop(0) if effects else success

    def _end(self, command_id: str, update: StatusUpdate) -> None:
        assert command_id not in self.ended
        self.ended[command_id] = update.status + (f"/{update.reason}" if update.reason else "")
        self.texts[command_id] = update.response

    def close(self, name: str) -> Deferred[None]:
        """Delay the replies to an operation until the returned Deferred fires."""
        gate: Deferred[None] = Deferred()
        self.gates[name] = gate
        return gate

    def called(self, name: str) -> list[str]:
        """Return the command ID of each call of an operation."""
        return [command_id for operation, command_id in self.calls if operation == name]


@implementer(IRecordReader)
@define(eq=False)
class FakeReader:
    """A fake of the reader, which delivers the entries that a test appends."""

    unfinished_entries: list[StreamEntry] = field(factory=list)
    """Entries that an earlier process has read and not acknowledged."""
    appended: list[StreamEntry] = field(factory=list)
    created: bool = False
    """True if the group is created when this reader joins."""
    errors: list[Exception] = field(factory=list)
    """Errors of the next reads."""
    _reading: tuple[Allowance, Deferred[list[StreamEntry]]] | None = None

    def when_connected(self) -> Deferred[None]:
        return succeed(None)

    async def join(self, stream: str, after: str = BEGINNING) -> bool:
        return self.created

    def allowance(self, streams: Sequence[str]) -> Allowance:
        raise NotImplementedError

    async def read(self, allowance: Allowance, wait: float = 0.0) -> list[StreamEntry]:
        if self.errors:
            raise self.errors.pop(0)
        entries: Deferred[list[StreamEntry]] = Deferred()
        self._reading = allowance, entries
        self.deliver()
        return await entries

    async def unfinished(self, streams: Sequence[str]) -> AsyncIterator[list[StreamEntry]]:
        if self.unfinished_entries:
            yield self.unfinished_entries

    def claim_idle(self, stream: str, idle: float) -> AsyncIterator[list[StreamEntry]]:
        raise NotImplementedError

    async def keep(self, stream: str, entry_ids: Sequence[str]) -> None:
        raise NotImplementedError

    async def acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        raise NotImplementedError

    async def dead_letter(self, entry: StreamEntry, reason: str) -> None:
        raise NotImplementedError

    async def oldest_unfinished(self, stream: str) -> str | None:
        raise NotImplementedError

    def deliver(self) -> None:
        """Fire the pending read if entries were appended."""
        if self._reading is None or not self.appended:
            return
        allowance, reading = self._reading
        if reading.called:
            return  # the read was cancelled
        count = allowance.step([STREAM])
        entries, self.appended = self.appended[:count], self.appended[count:]
        self._reading = None
        reading.callback(entries)


class DeliveryBench:
    """A delivery service, and the gateway of its devices."""

    def __init__(self, timing: Timing = Timing(), created: bool = False) -> None:  # noqa: B008
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        self.ledger = FakeLedger(self.clock)
        self.reader = FakeReader(created=created)
        verifyObject(IRecordReader, self.reader)
        self.fetched: list[str] = []
        self.reports: list[str | None] = []
        self._entries = 0
        self.delivery = CommandDelivery(
            self.clock,
            self.reader,
            cast(CommandLedger, self.ledger),
            "one",
            timing=timing,
            waits=True,
            fetch=self.fetched.append,
            condition=Condition(self.reports.append),
        )
        self.delivery.startService()

    def begin(self) -> DeliveryBench:
        self.delivery.begin()
        return self

    def login(self, device_id: str = DEVICE, busy: bool = False, tokens: bool = False) -> Device:
        """Connect a device, or reconnect it."""
        connection = Device(cast(IGateway, self), device_id, busy=busy, tokens=tokens)
        self.delivery.connected(connection, device_id)
        return connection

    def command_answered(self, connection: IConnection, answer: Answer) -> None:
        self.delivery.answered(connection, answer)

    def closed(self, connection: IConnection) -> None:
        self.delivery.disconnected(connection, connection.device_id or "")

    def send(self, command_id: str, device_id: str = DEVICE, /, **fields: Any) -> StreamEntry:
        """Append a command to the stream; return its entry."""
        entry = self.entry(command_id, device_id, **fields)
        self.reader.appended.append(entry)
        self.reader.deliver()
        return entry

    def deleted(self, entry_id: str) -> StreamEntry:
        """Return an entry that was deleted after it was delivered."""
        return StreamEntry(STREAM, entry_id, None)

    def entry(
        self,
        command_id: str,
        device_id: str = DEVICE,
        /,
        *,
        expires_in: float = 86_400.0,
        timeout: float | str = 10.0,
        **fields: Any,
    ) -> StreamEntry:
        """Return an entry of the stream: a command whose text is its ID.

        :param fields: replace fields of the command; None removes one.
        """
        expires_at = iso_milliseconds(self.ledger.now + int(expires_in * 1000))
        content: dict[str, Any] = {
            "command_id": command_id,
            "device_id": device_id,
            "payload": command_id,
            "codec": "12",
            "expires_at": expires_at,
            "timeout": str(timeout),
            **fields,
        }
        self._entries += 1
        flat: list[bytes] = []
        for name, value in content.items():
            if value is not None:
                flat += (name.encode(), value if isinstance(value, bytes) else value.encode())
        entry = StreamEntry(STREAM, f"{self._entries}-0", flat)
        self.ledger.stream[entry.id] = entry
        return entry

    def backlog(self, device_id: str = DEVICE) -> tuple[int, bool]:
        return self.delivery.backlog(device_id)

    @property
    def ended(self) -> dict[str, str]:
        """Command ID → status and reason of its final response."""
        return self.ledger.ended

    def stop(self) -> list[None]:
        """Stop the service; return a list that contains an item when it has stopped."""
        stopped: list[None] = []
        self.delivery.stopService().addCallback(stopped.append)
        return stopped
