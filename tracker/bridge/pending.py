"""Read the rows of pending commands page by page, in the order in which they must be sent.

A row that Directus cannot read has only its keys and its ``error``.

The newest rows come first, because their users are waiting. Within one device, commands are sent in
the order of their creation, so that the newest one takes effect last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.web.http import FORBIDDEN, INTERNAL_SERVER_ERROR

from tracker.bridge.failingrows import MAX_SUSPECTS
from tracker.bridge.rest import (
    DirectusClient,
    DirectusDenied,
    DirectusDown,
    DirectusTooLong,
)
from tracker.bridge.rows import COMMAND_FIELDS, device_of
from tracker.bridge.schema import COMMANDS, PENDING
from tracker.command import MAX_HEX_LENGTH, MAX_TEXT_BYTES, is_device_id

Row = dict[str, Any]
Filter = Mapping[str, Any]

#: Rows in a page.
PAGE_SIZE: Final = 100
#: Older rows of the devices of one page that are read at once.
MAX_OLDER_ROWS: Final = 1000

#: The fields without those that users can write.
_KEY_FIELDS: Final = ("id", "imei", "date_created")
#: Field of any length → number of characters that are read. One more than a command may have
#: is enough to show that it is too long.
_LONG_FIELDS: Final = {"text": MAX_TEXT_BYTES + 1, "hex": MAX_HEX_LENGTH + 1}
_NEWEST_FIRST: Final = ("-date_created", "-id")
_OLDEST_FIRST: Final = ("date_created", "id")


@frozen
class ReadyRows:
    """Rows that may be sent now."""

    rows: Sequence[Row]
    """The rows in sending order; includes older rows of their devices from other pages."""
    postponed: bool
    """True if rows of the page are missing here, because they must wait for older rows."""


class PendingRows:
    """The pending rows of the collection ``commands``."""

    def __init__(self, directus: DirectusClient) -> None:
        self._directus = directus

    async def page(self, cursor: PageCursor) -> list[Row]:
        """Return the page at a cursor."""
        return await self._read(cursor.filter, _NEWEST_FIRST, cursor.offset)

    async def by_ids(self, keys: Sequence[str]) -> list[Row]:
        """Return the rows with these IDs that are pending, in the order of ``keys``.

        :param keys: at most :data:`PAGE_SIZE` row IDs.
        """
        rows = await self._read({"id": {"_in": list(keys)}}, _OLDEST_FIRST)
        return sorted(rows, key=lambda row: keys.index(row["id"]))

    async def with_older(self, rows: Sequence[Row], without: Collection[str] = ()) -> ReadyRows:
        """Return these rows, preceded by the older pending rows of their devices.

        :param rows: at most :data:`PAGE_SIZE` rows.
        :param without: IDs of older rows that others need not wait for.
        """
        newest = max((row["date_created"] or "" for row in rows), default="")
        devices = {row["imei"] for row in rows if is_device_id(device_of(row))}
        before: list[Row] = []
        postponed: set[str] = set()
        while newest and devices:
            older = await self._read(
                {
                    "imei": {"_in": sorted(devices)},
                    "date_created": {"_lt": newest},
                    "id": {"_nin": [*(row["id"] for row in rows), *without]},
                },
                _OLDEST_FIRST,
            )
            before += older
            if len(older) < PAGE_SIZE:
                break
            # The response was full. The devices in it may have further older rows, for which their
            # rows of this page must wait. The other devices are queried again.
            incomplete = {row["imei"] for row in older}
            postponed |= incomplete if len(before) < MAX_OLDER_ROWS else devices
            devices -= postponed
        together = [*before, *(row for row in rows if row["imei"] not in postponed)]
        return ReadyRows(in_sending_order(together), bool(postponed))

    async def _read(self, where: Filter, sort: Sequence[str], offset: int = 0) -> list[Row]:
        try:
            rows = await self._query(where, COMMAND_FIELDS, sort, offset=offset)
        except DirectusTooLong:
            short = [name for name in COMMAND_FIELDS if name not in _LONG_FIELDS]
            rows = await self._query(where, short, sort, offset=offset)
            for row in rows:
                row.update(await self._long_fields(row["id"]))
        except DirectusDown as error:
            if error.status != INTERNAL_SERVER_ERROR:
                raise
            rows = await self._query(where, _KEY_FIELDS, sort, offset=offset)
            rows = await self._one_by_one(rows)
        for row in rows:
            for name, length in _LONG_FIELDS.items():
                row[name] = (row.get(name) or "")[:length]
        return rows

    async def _one_by_one(self, rows: Sequence[Row]) -> list[Row]:
        """Read the other fields of each row; of one that Directus cannot read, add its error."""
        complete = []
        failures = 0
        for row in rows:
            try:
                where = {"id": {"_eq": row["id"]}}
                found = await self._query(where, COMMAND_FIELDS, _OLDEST_FIRST, limit=1)
                failures = 0
            except DirectusDown as error:
                failures += 1
                if error.status != INTERNAL_SERVER_ERROR or failures > MAX_SUSPECTS:
                    raise
                found = [row | {"error": error}]
            complete += found
        return complete

    async def _long_fields(self, key: str) -> Row:
        """Return the long fields of one row, when those of all rows exceed one response."""
        fields: Row = {}
        for name, length in _LONG_FIELDS.items():
            try:
                found = await self._query({"id": {"_eq": key}}, [name], _OLDEST_FIRST, limit=1)
            except DirectusTooLong:
                fields[name] = "0" * length
            else:
                fields |= found[0] if found else {}
        return fields

    async def _query(
        self,
        where: Filter,
        fields: Sequence[str],
        sort: Sequence[str],
        *,
        limit: int = PAGE_SIZE,
        offset: int = 0,
    ) -> list[Row]:
        wanted = {"_and": [{"status": {"_eq": PENDING}}, where]} if where else _STATUS
        query: dict[str, Any] = {
            "filter": wanted,
            "sort": sort,
            "limit": limit,
            "offset": offset or None,
        }
        try:
            return await self._directus.get_items(COMMANDS, fields=fields, **query)
        except DirectusDenied as error:
            known = [name for name in fields if name != "hex"]
            if error.status != FORBIDDEN or len(known) == len(fields):
                raise
        # A Directus that an earlier version has set up does not have the field.
        return await self._directus.get_items(COMMANDS, fields=known or ["id"], **query)


_STATUS: Final = {"status": {"_eq": PENDING}}
_UNTIMED: Final = {"date_created": {"_null": True}}


class PageCursor:
    """A position in the pending rows, which are read from the newest to the oldest.

    Rows that were sent are no longer pending, so an offset into all rows would skip rows. Each page
    therefore begins at the creation time of the last row of the previous page, behind the rows with
    that time that are still pending. If some of these change meanwhile, the next poll finds the
    rows that are skipped.

    Rows without a creation time come first or last, which depends on the database.
    """

    def __init__(self) -> None:
        self._before: str | None = None
        self._untimed_last: bool | None = None  # also if none exist; None: no page was read
        self.offset = 0
        """Number of rows to skip."""

    @property
    def filter(self) -> Filter:
        """The filter of the remaining rows."""
        if self._before is None:
            return _UNTIMED if self._untimed_last else {}
        timed = {"date_created": {"_lte": self._before}}
        return {"_or": [timed, _UNTIMED]} if self._untimed_last else timed

    def advance(self, page: Sequence[Row], left: set[str]) -> bool:
        """Advance past a page that was processed.

        :param left: the IDs of its rows that are still pending.
        :return: True if more rows may follow.
        """
        if self._untimed_last is None:
            self._untimed_last = page[0]["date_created"] is not None
        last = page[-1]["date_created"]
        if last != self._before:
            self._before, self.offset = last, 0
        self.offset += sum(row["date_created"] == last and row["id"] in left for row in page)
        return len(page) == PAGE_SIZE


def in_sending_order(rows: Sequence[Row]) -> list[Row]:
    """Sort rows by device, the device with the newest row first, and by time within a device.

    Rows with the same creation time keep their order.
    """
    by_device: dict[str, list[Row]] = {}
    for row in sorted(rows, key=_created):
        by_device.setdefault(device_of(row), []).append(row)
    newest_first = sorted(by_device.values(), key=lambda group: _created(group[-1]), reverse=True)
    return [row for group in newest_first for row in group]


def _created(row: Row) -> str:
    return row["date_created"] or ""
