"""The ledger of commands in Redis: each operation moves or ends a command in one atomic call.

A command is an entry of a stream: either the stream of the instance that its device is connected
to, or the stream of commands that wait for the device. The holder of the entry owns the command;
ownership ends when the entry is deleted. The record of a command, ``commands:sent:{command_id}``,
prevents the command from being written twice. It has one of these forms:

``sent STREAM ENTRY``
    The owner of this entry has claimed the command and is about to write it.
``delivered STREAM ENTRY``
    The owner has written the command and responded ``delivered``.
``done STATUS RESPONSE``
    The command has ended; its final response is that entry of ``commands:responses``.

Each operation is one script, which checks the entry and the record first. Therefore an operation
can be repeated if its reply was lost, two entries of one command lead to one final response, and
an instance that has lost an entry to the janitor (which considered it dead) notices that before
it writes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tracker.command import (
    EXPIRED,
    NOTHING_RECORDED,
    Command,
    Reason,
    Recorded,
    Status,
    StatusUpdate,
)
from tracker.commands.scripts import CLAIM, DELIVERED, EXPIRE, FINISH, OFFER, RECOVER, SUBMIT
from tracker.keys import DEADLINES, INGEST_GROUP, command_record, heartbeat
from tracker.log.entries import StreamEntry
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script

#: Milliseconds until the record of a command expires, at least.
MIN_RECORD_TTL_MS: Final = 86_400_000


class Effect(Enum):
    """The effect of an operation on a command."""

    WON = "won"
    """This instance, and no other, may write the command."""
    OPEN = "open"
    """No instance has claimed the command."""
    FINISHED = "finished"
    """The command was given its final response."""
    MOVED = "moved"
    """The command is in the stream of the instance that its device is connected to."""
    WAITS = "waits"
    """The command waits for its device."""
    OVER = "over"
    """The command has a final response, or another entry whose owner will give one."""
    GONE = "gone"
    """The entry was deleted: the command has another owner."""
    ALIVE = "alive"
    """The instance that was considered dead is alive; nothing was changed."""
    KNOWN = "known"
    """The command was claimed or has ended before."""
    RECORDED = "recorded"
    """The response is in Redis."""


@frozen
class _Subject:
    """The identity of a command, as far as its entry contains it."""

    command_id: str
    """Empty if the entry has no usable ID."""
    device_id: str
    record_ttl_ms: int = MIN_RECORD_TTL_MS
    """Milliseconds until the record expires."""
    expires_at: str = ""
    """Expiry of the command, in milliseconds since 1970; empty if unknown."""
    recorded: Recorded = NOTHING_RECORDED
    """What the responses repeat of the command."""

    @property
    def record(self) -> str:
        """Key of the record; empty without a command ID."""
        return command_record(self.command_id) if self.command_id else ""


class CommandLedger:
    """Operations on commands, on behalf of one instance.

    Each operation raises ``Refused`` or ``Unavailable`` like any Redis command, and can be
    repeated then.

    :param who: ID of the instance (or name of the janitor) in responses.
    :param dead: ID of an instance whose entries are taken over; if that instance turns out to be
        alive, operations return ALIVE and change nothing.
    """

    def __init__(
        self, clock: IReactorTime, redis: RedisConnection, who: str, dead: str = ""
    ) -> None:
        self.responses: Counter[tuple[str, str]] = Counter()
        """Status and reason → number of responses given."""
        self._clock = clock
        self._redis = redis
        self._who = who
        self._instance = dead or who
        self._heartbeat = heartbeat(dead) if dead else ""

    @property
    def now(self) -> int:
        """Current time in milliseconds since 1970 (UTC)."""
        return int(self._clock.seconds() * 1000)

    def when_connected(self) -> Deferred[None]:
        """Return a Deferred that fires when Redis is connected, or fails with Unavailable."""
        return self._redis.when_connected()

    async def claim(self, entry: StreamEntry, command: Command) -> Effect:
        """Claim the exclusive right to write the command; return WON, OVER or GONE."""
        return await self._apply(CLAIM, entry, command)

    async def recover(self, entry: StreamEntry, command: Command) -> Effect:
        """Check a command that may have been claimed before; return OPEN, OVER or GONE.

        A command that was claimed may or may not have been written; it then fails with the
        reason ``in_doubt``.
        """
        return await self._apply(RECOVER, entry, command)

    async def delivered(self, entry: StreamEntry, command: Command) -> None:
        """Respond that a claimed command was written."""
        await self._apply(DELIVERED, entry, command)
        self.responses[Status.DELIVERED, ""] += 1

    async def finish(
        self, entry: StreamEntry, command: Command, update: StatusUpdate, written: bool = False
    ) -> Effect:
        """Give the final response; return FINISHED, OVER or GONE.

        :param written: True if the command was written to the device.
        """
        effect = await self._apply(FINISH, entry, command, *_fields(update), int(written))
        return self._counted(effect, update)

    async def refuse(
        self, entry: StreamEntry, command_id: str, device_id: str, update: StatusUpdate
    ) -> Effect:
        """Give the final response to an entry that is not a valid command.

        :param command_id: the command ID in the entry; empty if not usable.
        :param device_id: the device ID in the entry; empty if not usable.
        """
        recorded = Recorded.from_fields(entry.fields)
        subject = _Subject(command_id, device_id, recorded=recorded)
        reply = await self._run(FINISH, entry, subject, *_fields(update), 0)
        return self._counted(self._effect(reply), update)

    async def expire(self, entry: StreamEntry, command: Command) -> Effect:
        """End a command that has expired, unless its instance has claimed it.

        The instance may be alive, and may hold the command: its claim then fails.

        :return: FINISHED, KNOWN (it was claimed), OVER or GONE.
        """
        return self._counted(await self._apply(EXPIRE, entry, command), EXPIRED)

    async def offer(
        self, entry: StreamEntry, command: Command, waits: bool, unwritten: bool = False
    ) -> Effect:
        """Pass on a command whose device is not connected to this instance.

        :param waits: True: it waits if its device is not connected anywhere; False: it fails.
        :param unwritten: True if this instance has claimed the command and certainly not written
            it.
        :return: MOVED, WAITS, FINISHED, OVER or GONE.
        """
        arguments = (self._instance, int(waits), int(unwritten))
        effect = await self._apply(OFFER, entry, command, *arguments)
        return self._counted(effect, StatusUpdate.failed(Reason.OFFLINE))

    async def submit(self, command: Command, waits: bool = True) -> tuple[Effect, str]:
        """Add a new command to the stream of its device's instance.

        A command that is already queued gets a second entry, which is harmless.

        :param waits: True: it waits if its device is not connected anywhere; False: it fails.
        :return: MOVED and the instance ID, or WAITS, FINISHED or KNOWN and an empty text.
        """
        no_entry = StreamEntry("", "0-0", None)
        fields = command.to_fields()
        reply = await self._run(SUBMIT, no_entry, self._subject(command), int(waits), *fields)
        effect, instance = (part.decode() for part in reply)
        return Effect(effect), instance

    async def index(self, commands: Iterable[tuple[StreamEntry, Command]]) -> None:
        """Add queued commands to the index of deadlines, unless they are in it."""
        arguments: list[str | int] = []
        for entry, command in commands:
            arguments += (command.expires_at, f"{entry.stream} {entry.id}")
        if arguments:
            await self._redis.execute("ZADD", DEADLINES, "NX", *arguments)

    async def entry(self, stream: str, entry_id: str) -> StreamEntry:
        """Return one entry of a stream; its content is None if it was deleted."""
        reply = await self._redis.execute("XRANGE", stream, entry_id, entry_id)
        return StreamEntry(stream, entry_id, reply[0][1] if reply else None)

    async def drop(self, entry: StreamEntry) -> None:
        """Acknowledge an entry that was deleted."""
        # Deleted first: if the second call fails, the entry is still pending and is read again.
        await self._redis.execute("XDEL", entry.stream, entry.id)
        await self._redis.execute("XACK", entry.stream, INGEST_GROUP, entry.id)

    def _subject(self, command: Command) -> _Subject:
        # The record outlives the command, so that a second entry cannot be written.
        ttl_ms = max(0, command.expires_at - self.now) + MIN_RECORD_TTL_MS
        return _Subject(
            command.command_id,
            command.device_id,
            ttl_ms,
            str(command.expires_at),
            Recorded.of(command),
        )

    async def _apply(
        self, script: Script, entry: StreamEntry, command: Command, *more: str | int
    ) -> Effect:
        return self._effect(await self._run(script, entry, self._subject(command), *more))

    def _effect(self, reply: bytes) -> Effect:
        if reply == b"doubted":
            self.responses[Status.FAILED, Reason.IN_DOUBT] += 1
            return Effect.OVER
        return Effect(reply.decode())

    def _counted(self, effect: Effect, update: StatusUpdate) -> Effect:
        if effect is Effect.FINISHED:
            self.responses[update.status, update.reason] += 1
        return effect

    async def _run(
        self, script: Script, entry: StreamEntry, subject: _Subject, *more: str | int
    ) -> Any:
        return await script.run(
            self._redis,
            [entry.stream, subject.record, self._heartbeat],
            entry.id,
            subject.command_id,
            subject.device_id,
            self._who,
            iso_milliseconds(self.now),
            subject.record_ttl_ms,
            subject.expires_at,
            subject.recorded.payload,
            subject.recorded.payload_hex,
            subject.recorded.sender,
            subject.recorded.sent_at,
            *more,
        )


def _fields(update: StatusUpdate) -> tuple[str, str, str]:
    return update.status.value, update.reason, update.response
