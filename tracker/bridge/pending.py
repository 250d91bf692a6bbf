"""Read the rows of pending commands: a few at a time, and in the right order.

The latest rows come first, since people wait for them. But the commands of one device are sent in
the order in which they were created, so that the latest one takes effect last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from tracker.bridge.rest import DirectusClient, DirectusTooLong
from tracker.bridge.rows import COMMAND_FIELDS
from tracker.bridge.schema import COMMANDS, PENDING
from tracker.command import MAX_TEXT_BYTES, is_device_id

Row = dict[str, Any]
Filter = Mapping[str, Any]

#: Rows of a page.
PAGE: Final = 100
#: Rows that are read at once to find the older ones of a page's devices.
MOST_OLDER: Final = 1000
#: Rows of one moment that may stay pending and are left out of the next page by id.
MOST_LEFT: Final = 200

_NEWEST_FIRST: Final = ("-date_created", "-id")
_OLDEST_FIRST: Final = ("date_created", "id")


@frozen
class Turn:
    """The rows of a page that may be sent now."""

    rows: Sequence[Row]
    """Each behind the older ones of its device, which may be of another page."""
    postponed: bool
    """True if devices of the page have still older rows."""


class Pending:
    """Reads pending rows."""

    def __init__(self, directus: DirectusClient) -> None:
        self._directus = directus

    async def page(self, walk: Walk) -> list[Row]:
        """Return the next rows of a walk."""
        return await self._read(walk.filter, _NEWEST_FIRST)

    async def named(self, keys: Sequence[str]) -> list[Row]:
        """Return those of up to :data:`PAGE` rows that are pending, in the order of their keys."""
        rows = await self._read({"id": {"_in": list(keys)}}, _OLDEST_FIRST)
        return sorted(rows, key=lambda row: keys.index(row["id"]))

    async def in_turn(self, rows: Sequence[Row]) -> Turn:
        """Return these rows with the older pending rows of their devices before them.

        :param rows: up to :data:`PAGE`.
        """
        newest = max((row["date_created"] or "" for row in rows), default="")
        devices = {row["imei"] for row in rows if is_device_id(str(row["imei"]))}
        before: list[Row] = []
        busy: set[str] = set()
        while newest and devices:
            older = await self._read(
                {
                    "imei": {"_in": sorted(devices)},
                    "date_created": {"_lt": newest},
                    "id": {"_nin": [row["id"] for row in rows]},
                },
                _OLDEST_FIRST,
            )
            before += older
            if len(older) < PAGE:
                break
            # More of these rows, and of the others, may be older than the page.
            behind = {row["imei"] for row in older}
            busy |= behind if len(before) < MOST_OLDER else devices
            devices -= busy
        together = [*before, *(row for row in rows if row["imei"] not in busy)]
        return Turn(in_order(together), bool(busy))

    async def _read(self, where: Filter, sort: Sequence[str]) -> list[Row]:
        try:
            rows = await self._ask(where, COMMAND_FIELDS, sort, PAGE)
        except DirectusTooLong:
            brief = [name for name in COMMAND_FIELDS if name != "text"]
            rows = await self._ask(where, brief, sort, PAGE)
            for row in rows:
                row["text"] = await self._text(row["id"])
        for row in rows:
            # The text is read only so far that it shows that it is too long.
            row["text"] = (row["text"] or "")[: MAX_TEXT_BYTES + 1]
        return rows

    async def _text(self, key: str) -> str:
        """Return the text of one of several rows that cannot be read together."""
        try:
            found = await self._ask({"id": {"_eq": key}}, ["text"], _OLDEST_FIRST, 1)
        except DirectusTooLong:
            return " " * (MAX_TEXT_BYTES + 1)
        return str(found[0]["text"])[: MAX_TEXT_BYTES + 1] if found else ""

    async def _ask(
        self, where: Filter, fields: Sequence[str], sort: Sequence[str], limit: int
    ) -> list[Row]:
        wanted = {"_and": [{"status": {"_eq": PENDING}}, where]} if where else _STATUS
        return await self._directus.get_items(
            COMMANDS, filter=wanted, fields=fields, sort=sort, limit=limit
        )


_STATUS: Final = {"status": {"_eq": PENDING}}


class Walk:
    """A walk through all pending rows by pages, the newest first.

    Rows that were sent are no longer pending. So a page begins at the time of the last row of the
    page before, and leaves out the rows of that moment that have stayed pending: Directus does not
    compare ids.
    """

    def __init__(self) -> None:
        self._before: str | None = None
        self._left: set[str] = set()
        self._skip = False

    @property
    def filter(self) -> Filter:
        """Return the filter of the rows that are left."""
        conditions: list[Filter] = []
        if self._before is not None:
            conditions.append({"date_created": {"_lt" if self._skip else "_lte": self._before}})
        if self._left:
            conditions.append({"id": {"_nin": sorted(self._left)}})
        return {"_and": conditions} if conditions else {}

    def go_on(self, page: Sequence[Row], left: set[str]) -> bool:
        """Note that a page was processed.

        :param left: the ids of those that have stayed pending.
        :return: True if there may be more rows.
        """
        last = page[-1]["date_created"]  # None if unknown: such rows come anywhere
        if last != self._before or self._skip:
            self._before, self._left, self._skip = last, set(), False
        self._left |= {row["id"] for row in page if row["date_created"] == last} & left
        if len(self._left) > MOST_LEFT:
            self._left, self._skip = set(), True
        return len(page) == PAGE and not (self._skip and last is None)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Sort rows: those of a device from the oldest on, the device with the newest row first.

    Rows of one moment keep their order.
    """
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=_age):
        lines.setdefault(str(row["imei"]), []).append(row)
    newest_first = sorted(lines.values(), key=lambda line: _age(line[-1]), reverse=True)
    return [row for line in newest_first for row in line]


def _age(row: Row) -> str:
    return row["date_created"] or ""
