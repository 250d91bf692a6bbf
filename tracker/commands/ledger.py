"""Steps with commands in Redis: each moves a command on, or ends it, in one atomic call.

A command is an entry of a stream: of the instance that its device is connected to, or of the
commands that wait for the device. The holder of the entry owns the command; ownership ends when
the entry is deleted. The record of a command, ``commands:sent:{command_id}``, says that it must
not be written (again), in one of these forms:

``sent STREAM ENTRY``
    The owner of this entry was about to write it.
``delivered STREAM ENTRY``
    The owner has written it and has responded ``delivered``.
``done STATUS RESPONSE``
    The final response is that entry of ``commands:responses``.

Each step is one script, which looks at both first. So it may be repeated when its reply was
lost; two entries of one command lead to one final response; and an instance that was taken for
dead, and has lost an entry to the janitor, learns of it before it writes anything.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tracker.command import Command, Reason, Status, StatusUpdate
from tracker.commands.scripts import CLAIM, DELIVERED, FINISH, OFFER, RECOVER, SUBMIT
from tracker.keys import INGEST_GROUP, command_record, heartbeat
from tracker.log.entries import Delivered
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script

#: Milliseconds for which the record of a command is kept, at least.
MIN_RECORD_TTL_MS: Final = 86_400_000


class Effect(Enum):
    """The result of a step."""

    WON = "won"
    """This instance, and no other, may write the command."""
    OPEN = "open"
    """No instance has begun with it."""
    FINISHED = "finished"
    """It has its final response now."""
    MOVED = "moved"
    """It is in the stream of the instance that its device is connected to."""
    WAITS = "waits"
    """It waits for its device."""
    OVER = "over"
    """It has its final response, or another entry that will bring it one."""
    GONE = "gone"
    """The entry was deleted: the command has another owner."""
    LIVES = "lives"
    """The instance that was taken for dead is alive."""
    KNOWN = "known"
    """It was begun with, or has ended, before."""
    SAID = "said"
    """The response is in Redis, now or since before."""


@frozen
class _Subject:
    """The command that a step is about, as far as an entry shows it."""

    command_id: str
    """Empty if it is not usable."""
    device_id: str
    record_ttl_ms: int = MIN_RECORD_TTL_MS
    """Milliseconds for which its record is kept."""

    @property
    def record(self) -> str:
        """Key of its record; empty if there cannot be one."""
        return command_record(self.command_id) if self.command_id else ""


class CommandLedger:
    """Takes steps with commands, in the name of one instance.

    Each raises ``Refused`` or ``Unavailable`` as any command of Redis, and may be repeated then.

    :param who: the instance (or janitor) that responses name.
    :param dead: ID of an instance whose entries are taken over, unless it is alive after all.
    """

    def __init__(
        self, clock: IReactorTime, redis: RedisConnection, who: str, dead: str = ""
    ) -> None:
        self.responses: Counter[tuple[str, str]] = Counter()
        """Status and reason → responses that were given in these steps."""
        self._clock = clock
        self._redis = redis
        self._who = who
        self._instance = dead or who
        self._heartbeat = heartbeat(dead) if dead else ""

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self._clock.seconds() * 1000)

    def when_connected(self) -> Deferred[None]:
        """Return a Deferred that fires when a step can be taken, or fails with Unavailable."""
        return self._redis.when_connected()

    async def claim(self, entry: Delivered, command: Command) -> Effect:
        """Become the only one who may write the command: WON, else OVER or GONE."""
        return await self._take(CLAIM, entry, command)

    async def recover(self, entry: Delivered, command: Command) -> Effect:
        """Examine an entry that a former process may have begun with: OPEN, else OVER or GONE.

        If that was about to write the command, it is not known whether it did: it is ``in_doubt``
        now.
        """
        return await self._take(RECOVER, entry, command)

    async def delivered(self, entry: Delivered, command: Command) -> None:
        """Respond that a command was written that was won before."""
        await self._take(DELIVERED, entry, command)
        self.responses[Status.DELIVERED, ""] += 1

    async def finish(
        self, entry: Delivered, command: Command, update: StatusUpdate, written: bool = False
    ) -> Effect:
        """Give the final response: FINISHED, else OVER or GONE."""
        step = await self._take(FINISH, entry, command, *_fields(update), int(written))
        return self._counted(step, update)

    async def refuse(
        self, entry: Delivered, command_id: str, device_id: str, update: StatusUpdate
    ) -> Effect:
        """Give the final response to an entry that is not a command.

        :param command_id: the ID that it names; empty if that is not usable.
        :param device_id: likewise.
        """
        subject = _Subject(command_id, device_id)
        reply = await self._run(FINISH, entry, subject, *_fields(update), 0)
        return self._counted(self._step(reply), update)

    async def offer(
        self, entry: Delivered, command: Command, waits: bool, unwritten: bool = False
    ) -> Effect:
        """Pass a command on whose device is not connected to this instance.

        :param waits: True: it waits if its device is not connected anywhere; False: it fails.
        :param unwritten: True if this instance is sure not to have written it, though it had
            won the claim.
        :return: MOVED, WAITS or FINISHED, else OVER or GONE.
        """
        where = (self._instance, int(waits), int(unwritten))
        step = await self._take(OFFER, entry, command, *where)
        return self._counted(step, StatusUpdate.failed(Reason.OFFLINE))

    async def submit(self, command: Command, waits: bool = True) -> tuple[Effect, str]:
        """Put a new command where its device is: MOVED with the instance, WAITS or FINISHED.

        KNOWN if it was begun with before. A command that is still on its way gets one more
        entry, which does no harm.
        """
        nowhere = Delivered("", "0-0", None)
        fields = command.to_fields()
        reply = await self._run(SUBMIT, nowhere, self._subject(command), int(waits), *fields)
        step, instance = (part.decode() for part in reply)
        return Effect(step), instance

    async def entry(self, stream: str, entry_id: str) -> Delivered:
        """Read one entry of a stream; without content if it is not there."""
        reply = await self._redis.execute("XRANGE", stream, entry_id, entry_id)
        return Delivered(stream, entry_id, reply[0][1] if reply else None)

    async def drop(self, entry: Delivered) -> None:
        """Acknowledge an entry that was deleted."""
        # In this order: what is pending is found again, what is only in the stream is not.
        await self._redis.execute("XDEL", entry.stream, entry.id)
        await self._redis.execute("XACK", entry.stream, INGEST_GROUP, entry.id)

    def _subject(self, command: Command) -> _Subject:
        # Until no second entry of it could be written any longer, and a day.
        remembered = max(0, command.expires_at - self.now) + MIN_RECORD_TTL_MS
        return _Subject(command.command_id, command.device_id, remembered)

    async def _take(
        self, script: Script, entry: Delivered, command: Command, *more: str | int
    ) -> Effect:
        return self._step(await self._run(script, entry, self._subject(command), *more))

    def _step(self, reply: bytes) -> Effect:
        if reply == b"doubted":
            self.responses[Status.FAILED, Reason.IN_DOUBT] += 1
            return Effect.OVER
        return Effect(reply.decode())

    def _counted(self, step: Effect, update: StatusUpdate) -> Effect:
        if step is Effect.FINISHED:
            self.responses[update.status, update.reason] += 1
        return step

    async def _run(
        self, script: Script, entry: Delivered, subject: _Subject, *more: str | int
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
            *more,
        )


def _fields(update: StatusUpdate) -> tuple[str, str, str]:
    return update.status.value, update.reason, update.response
