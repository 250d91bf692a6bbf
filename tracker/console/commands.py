"""The results of the latest commands, read from the stream of responses."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from attrs import asdict, define, frozen
from twisted.internet.interfaces import IReactorTime

from tracker.command import Response, Status, claimed_identity
from tracker.keys import RESPONSES, outbound
from tracker.log.entries import Delivered, entry_order, exclusive_start
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection

#: Number of commands that are remembered.
MOST_COMMANDS: Final = 1000
#: Seconds over which results are counted.
PERIOD: Final = 3600
#: Characters of a text, or an answer, that are shown in a list.
MOST_TEXT: Final = 300

#: Entries of a page, and pages of one look; further ones are read at the next look.
_PAGE: Final = 1000
_PAGES: Final = 10
_MAX_MINUTES: Final = 2 * PERIOD // 60


@define
class Known:
    """The state of a command, as far as it is known."""

    command_id: str
    device_id: str = ""
    instance_id: str = ""
    text: str | None = None
    """None if the command had ended before the first look."""
    by: str = ""
    """The operator who has sent it from the console, if any."""
    status: str = "queued"
    """A :class:`Status`, or ``queued``, ``waiting`` and so on before the first response."""
    reason: str = ""
    response: str = ""
    at: str = ""
    """Time of this status, ISO 8601 UTC."""


@frozen
class _Minute:
    number: int
    counts: Counter[str]


class CommandLog:
    """The latest commands, and counts of results within the last hour.

    It reads what is appended to the stream of responses, each entry once.
    """

    def __init__(self, clock: IReactorTime, redis: RedisConnection) -> None:
        self._clock = clock
        self._redis = redis
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._minutes: list[_Minute] = []
        self._last = ""  # entry of the stream that was read

    async def look(self, queued: Iterable[Delivered]) -> None:
        """Read new responses, and add queued commands.

        :param queued: commands that instances have not finished.
        :raises Refused, Unavailable: if Redis cannot be asked.
        """
        for entry in queued:
            self._queued(entry)
        newest = await self._redis.execute("XREVRANGE", RESPONSES, "+", "-", "COUNT", 1)
        if not newest:
            self._last = ""
            return
        if self._last and entry_order(newest[0][0].decode()) < entry_order(self._last):
            self._last = ""  # it is another stream
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

    def sent(self, command_id: str, *, device_id: str, text: str, by: str, status: str) -> None:
        """Remember a command that the console has sent."""
        known = self._known_as(command_id)
        known.device_id, known.text, known.by = device_id, _cut(text), by
        if not known.at:
            known.status = status

    def counts(self) -> dict[str, int]:
        """Return final status → number of commands that reached it within the last hour."""
        oldest = (self._clock.seconds() - PERIOD) // 60
        self._minutes = [minute for minute in self._minutes if minute.number > oldest]
        total: Counter[str] = Counter()
        for minute in self._minutes:
            total.update(minute.counts)
        return {status.value: total[status.value] for status in Status if status is not _BEGUN}

    def latest(self, count: int, device_id: str | None = None) -> list[dict[str, Any]]:
        """Return the commands with the latest news, newest first.

        :param device_id: only of this device.
        """
        found = [known for known in self._known.values() if device_id in (None, known.device_id)]
        found.reverse()  # of one moment, the one that was read later goes first
        found.sort(key=lambda known: known.at or _NOW, reverse=True)
        return [asdict(known) for known in found[:count]]

    def _queued(self, entry: Delivered) -> None:
        command_id, device_id = claimed_identity(entry.fields)
        if not command_id or (
            command_id in self._known and self._known[command_id].text is not None
        ):
            return
        known = self._known_as(command_id)
        known.device_id = known.device_id or device_id
        known.instance_id = known.instance_id or entry.stream.removeprefix(outbound(""))
        known.text = _cut(entry.fields.get(b"payload", b"").decode(errors="replace"))
        known.at = known.at or entry.appended_at

    def _response(self, entry: Delivered) -> None:
        self._last = entry.id
        try:
            response = Response.from_fields(entry.fields)
        except ValueError:
            return  # it is none
        if response.final:
            self._count(int(entry_order(entry.id)[0] // 60_000), response.update.status.value)
        known = self._known_as(_cut(response.command_id or entry.id))
        known.device_id = _cut(response.device_id)
        known.instance_id = _cut(response.instance_id)
        known.status = response.update.status.value
        known.reason = _cut(response.update.reason)
        known.response = _cut(response.update.response)
        known.at = _cut(response.at or entry.appended_at)

    def _count(self, minute: int, status: str) -> None:
        if not self._minutes or self._minutes[-1].number != minute:
            # A client that appends chooses the IDs, and may choose another minute for each.
            del self._minutes[: max(0, len(self._minutes) + 1 - _MAX_MINUTES)]
            self._minutes.append(_Minute(minute, Counter()))
        self._minutes[-1].counts[status] += 1

    def _known_as(self, command_id: str) -> Known:
        known = self._known.setdefault(command_id, Known(command_id))
        self._known.move_to_end(command_id)
        if len(self._known) > MOST_COMMANDS:
            self._known.popitem(last=False)
        return known


_BEGUN: Final = Status.DELIVERED
#: Later than any time: a command that the console has sent, before its first response.
_NOW: Final = "9999"


def _cut(value: str) -> str:
    return value if len(value) <= MOST_TEXT else f"{value[: MOST_TEXT - 1]}…"
