"""The latest commands and their status, read from the stream of responses."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from attrs import asdict, define, frozen
from twisted.internet.interfaces import IReactorTime

from tracker.command import Recorded, Response, Status, claimed_identity
from tracker.control.commands import QUEUED, WAITING
from tracker.errors import Refused, Unavailable
from tracker.keys import RESPONSES, outbound, waiting_commands
from tracker.log.entries import StreamEntry, entry_order, exclusive_start
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection

#: Number of commands that are kept.
MAX_COMMANDS: Final = 1000
#: Seconds over which final statuses are counted.
PERIOD: Final = 3600
#: Maximum length of a command or answer in a list, in characters.
MAX_TEXT_LENGTH: Final = 300

#: Maximum number of commands that are read of those that wait for one device.
MAX_WAITING: Final = 20
#: Maximum size of these commands, in bytes.
_MAX_WAITING_BYTES: Final = 1 << 20

#: Entries of a page, and pages of one update; the next update reads further entries.
_PAGE: Final = 1000
_PAGES: Final = 10
_MAX_MINUTES: Final = 2 * PERIOD // 60


@define
class CommandState:
    """The known state of a command."""

    command_id: str
    device_id: str = ""
    instance_id: str = ""
    text: str | None = None
    """None if the command was removed from its stream before an update, and its response is of an
    earlier version, which did not record the text."""
    by: str = ""
    """Name of the sender; empty if unknown."""
    status: str = QUEUED
    """A :class:`Status`, or ``queued``, ``waiting`` and so on before the first response."""
    reason: str = ""
    response: str = ""
    at: str = ""
    """Time of this status, ISO 8601 UTC."""
    sent_at: str = ""
    """Time when it was sent; empty if unknown."""
    delivered_at: str = ""
    """Time when it was written to the device's connection; empty if unknown, or if it was not."""
    expires_at: str = ""
    """Time of its expiry; empty if unknown."""


@frozen
class _Minute:
    number: int
    counts: Counter[str]


class CommandLog:
    """The latest commands, and the number of final statuses within the last hour.

    Each entry of the stream of responses is read once.
    """

    def __init__(self, clock: IReactorTime, redis: RedisConnection) -> None:
        self._clock = clock
        self._redis = redis
        self._known: OrderedDict[str, CommandState] = OrderedDict()
        self._minutes: list[_Minute] = []
        self._last = ""  # ID of the last entry that was read

    async def update(self, queued: Iterable[StreamEntry]) -> None:
        """Read new responses, and add queued commands.

        :param queued: entries of commands that instances have not finished.
        :raises Refused: if Redis refuses a command.
        :raises Unavailable: if Redis is not available.
        """
        for entry in queued:
            self._queued(entry)
        newest = await self._redis.execute("XREVRANGE", RESPONSES, "+", "-", "COUNT", 1)
        if not newest:
            self._last = ""
            return
        if self._last and entry_order(newest[0][0].decode()) < entry_order(self._last):
            self._last = ""  # the stream was deleted and created again
        for _ in range(_PAGES):
            hour_ago = max(0, int((self._clock.seconds() - PERIOD) * 1000))
            first = exclusive_start(self._last) if self._last else str(hour_ago)
            page = []
            if first is not None:
                page = await read_range(self._redis, RESPONSES, first, "+", count=_PAGE)
            for entry in page:
                self._response(entry)
            if not page:
                return

    async def read_waiting(self, device_id: str) -> None:
        """Add the first commands that wait for a device.

        Errors of Redis are left to the updates, which report them.
        """
        stream = waiting_commands(device_id)
        with suppress(Refused, Unavailable):
            for entry in await read_range(
                self._redis, stream, "-", "+", count=MAX_WAITING, size=_MAX_WAITING_BYTES
            ):
                self._queued(entry)

    def sent(self, reply: Mapping[str, Any], *, device_id: str, text: str, by: str) -> None:
        """Add a command that the console has sent.

        :param reply: the reply of the control port.
        """
        known = self._state_of(reply["command_id"])
        known.device_id, known.text, known.by = device_id, _cut(text), by
        if not known.at:
            known.status = reply["status"]
            known.expires_at = reply.get("expires_at") or ""

    def counts(self) -> dict[str, int]:
        """Return final status → number of commands that reached it within the last hour."""
        oldest = (self._clock.seconds() - PERIOD) // 60
        self._minutes = [minute for minute in self._minutes if minute.number > oldest]
        total: Counter[str] = Counter()
        for minute in self._minutes:
            total.update(minute.counts)
        return {
            status.value: total[status.value] for status in Status if status is not Status.DELIVERED
        }

    def latest(self, count: int, device_id: str | None = None) -> list[dict[str, Any]]:
        """Return the commands with the latest statuses, newest first.

        :param device_id: return only the commands of this device.
        """
        found = [known for known in self._known.values() if device_id in (None, known.device_id)]
        found.reverse()  # sort is stable: of equal times, the one that was read last comes first
        found.sort(key=lambda known: known.at or _NOW, reverse=True)
        return [asdict(known) for known in found[:count]]

    def _queued(self, entry: StreamEntry) -> None:
        command_id, device_id = claimed_identity(entry.fields)
        if not command_id:
            return
        known = self._state_of(command_id)
        if known.status not in (QUEUED, WAITING) and known.text is not None:
            return
        known.device_id = known.device_id or device_id
        self._record(known, Recorded.from_fields(entry.fields))
        known.at = known.at or entry.appended_at
        known.expires_at = _cut(entry.fields.get(b"expires_at", b"").decode(errors="replace"))
        if known.status in (QUEUED, WAITING):
            waits = entry.stream.startswith(waiting_commands(""))
            known.status = WAITING if waits else QUEUED
            known.instance_id = "" if waits else entry.stream.removeprefix(outbound(""))

    def _record(self, known: CommandState, recorded: Recorded) -> None:
        if known.text is None:
            known.text = _cut(recorded.text)
        known.by = known.by or recorded.sender
        known.sent_at = known.sent_at or recorded.sent_at

    def _response(self, entry: StreamEntry) -> None:
        self._last = entry.id
        try:
            response = Response.from_fields(entry.fields)
        except ValueError:
            return  # not a response
        if response.final:
            self._count(int(entry_order(entry.id)[0] // 60_000), response.update.status.value)
        known = self._state_of(_cut(response.command_id or entry.id))
        known.device_id = _cut(response.device_id)
        known.instance_id = _cut(response.instance_id)
        known.status = response.update.status.value
        known.reason = _cut(response.update.reason)
        known.response = _cut(response.update.response)
        known.at = _cut(response.at or entry.appended_at)
        if response.update.status is Status.DELIVERED:
            known.delivered_at = known.at
        if response.recorded is not None:
            self._record(known, response.recorded)

    def _count(self, minute: int, status: str) -> None:
        if not self._minutes or self._minutes[-1].number != minute:
            # Clients choose the IDs of the entries that they append, and could use a different
            # minute in each.
            del self._minutes[: max(0, len(self._minutes) + 1 - _MAX_MINUTES)]
            self._minutes.append(_Minute(minute, Counter()))
        self._minutes[-1].counts[status] += 1

    def _state_of(self, command_id: str) -> CommandState:
        known = self._known.setdefault(command_id, CommandState(command_id))
        self._known.move_to_end(command_id)
        if len(self._known) > MAX_COMMANDS:
            self._known.popitem(last=False)
        return known


#: Sorts after any time: a command that the console has sent and that has no response yet.
_NOW: Final = "9999"


def _cut(value: str) -> str:
    return value if len(value) <= MAX_TEXT_LENGTH else f"{value[: MAX_TEXT_LENGTH - 1]}…"
