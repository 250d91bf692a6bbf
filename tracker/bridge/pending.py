"""The rows of commands that are pending, as they are read: few at a time, and in which order.

What was written last is waited for most, so it comes first. But a device is told what it is
told in the order in which that was written down: the last word must be the last one.
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
#: Rows that are read at once to find out what came before those of a page.
MOST_OLDER: Final = 1000
#: Rows of one moment that may stay pending and still be passed over one by one.
MOST_LEFT: Final = 200

_NEWEST_FIRST: Final = ("-date_created", "-id")
_OLDEST_FIRST: Final = ("date_created", "id")


@frozen
class Turn:
    """What may be sent of the rows of a page."""

    rows: Sequence[Row]
    """Each behind those that its device has to be told before, which may be of no page."""
    postponed: bool
    """Whether devices of the page have still older rows than these."""


class Pending:
    """Reads them."""

    def __init__(self, directus: DirectusClient) -> None:
        self._directus = directus

    async def page(self, walk: Walk) -> list[Row]:
        """The next rows of a walk."""
        return await self._read(walk.filter, _NEWEST_FIRST)

    async def named(self, keys: Sequence[str]) -> list[Row]:
        """Those of up to :data:`PAGE` rows that are pending, in the order of their names."""
        rows = await self._read({"id": {"_in": list(keys)}}, _OLDEST_FIRST)
        return sorted(rows, key=lambda row: keys.index(row["id"]))

    async def in_turn(self, rows: Sequence[Row]) -> Turn:
        """Have the devices of these rows be told first what was written down before.

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
            # Of these there may be more that is older than the page; of the others, too.
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
            # No longer than shows that it is too long.
            row["text"] = (row["text"] or "")[: MAX_TEXT_BYTES + 1]
        return rows

    async def _text(self, key: str) -> str:
        """The text of one of several rows that cannot be read together."""
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
    """A walk through all of them by pages, the newest first.

    What was sent is pending no longer. So a page begins behind the one before it by its time,
    and leaves out what has stayed pending of that very moment: Directus compares no ids.
    """

    def __init__(self) -> None:
        self._before: str | None = None
        self._left: set[str] = set()
        self._skip = False

    @property
    def filter(self) -> Filter:
        """Of the rows that are left."""
        conditions: list[Filter] = []
        if self._before is not None:
            conditions.append({"date_created": {"_lt" if self._skip else "_lte": self._before}})
        if self._left:
            conditions.append({"id": {"_nin": sorted(self._left)}})
        return {"_and": conditions} if conditions else {}

    def go_on(self, page: Sequence[Row], left: set[str]) -> bool:
        """A page is done with.

        :param left: the ids of those that have stayed pending.
        :return: whether there may be more.
        """
        last = page[-1]["date_created"]  # None where that is unknown: wherever they come
        if last != self._before or self._skip:
            self._before, self._left, self._skip = last, set(), False
        self._left |= {row["id"] for row in page if row["date_created"] == last} & left
        if len(self._left) > MOST_LEFT:
            self._left, self._skip = set(), True
        return len(page) == PAGE and not (self._skip and last is None)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows of a device with the oldest first; that device first which has the newest one.

    Those of one moment stay as they are.
    """
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=_age):
        lines.setdefault(str(row["imei"]), []).append(row)
    newest_first = sorted(lines.values(), key=lambda line: _age(line[-1]), reverse=True)
    return [row for line in newest_first for row in line]


def _age(row: Row) -> str:
    return row["date_created"] or ""
