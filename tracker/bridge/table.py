"""Change the rows of commands so that a status never goes back.

Directus first finds the rows of a change and then changes them; another change may happen in
between. This bridge therefore makes the changes of one row one after another. The response to a
change reveals an interfering change by another bridge: the row then has a ``finished_at`` and a
status that is not final. Its final status is read from Redis and written again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from tracker.bridge.rest import (
    DirectusClient,
    DirectusDenied,
    DirectusDown,
    DirectusError,
    DirectusRefused,
)
from tracker.bridge.rows import fields_of, is_unfinished, predecessors_of, timestamp_of
from tracker.bridge.schema import COMMANDS
from tracker.commands.records import CommandRecord, read_record
from tracker.errors import Refused, Unavailable
from tracker.redis.connection import RedisConnection

#: Fields that are checked before and after a change.
_CHECKED_FIELDS: Final = ("id", "status", "finished_at")

#: Consecutive rows without a response after which the others of a request are not tried.
MAX_UNANSWERED: Final = 3

Fields = Mapping[str, Any]


class NotTried(DirectusDown):
    """The row was not tried, because Directus has failed with others before it."""


class CommandTable:
    """The collection ``commands``.

    :param redis: holds the final status of commands; None: overwritten ones are not restored.
    """

    _log = Logger()

    def __init__(self, directus: DirectusClient, redis: RedisConnection | None = None) -> None:
        self._directus = directus
        self._redis = redis
        self._locks: dict[str, DeferredLock] = {}

    async def change(self, key: str, fields: Fields) -> bool:
        """Change a row, if the status in ``fields`` may replace its status.

        :param key: the row ID, a UUID in lower case.
        :param fields: the new values, with a status.
        :return: True if the row was changed.
        :raises DirectusError: see its subclasses.
        """
        async with self._locked([key]):
            try:
                return await self._change_where(key, fields)
            except DirectusDenied as error:
                if await self._error_unless_gone(key, error):
                    raise
                return False

    async def write(
        self, updates: Mapping[str, Sequence[Fields]]
    ) -> dict[str, bool | DirectusError]:
        """Change several rows together.

        :param updates: row ID (a UUID in lower case) → updates in order, each with a status; a row
            gets those that may replace its status.
        :return: row ID → True if the row was changed, False if not, or the error if Directus
            has read this row, but failed to change it.
        :raises DirectusError: if a request fails as a whole; some rows may be changed by then.
        """
        async with self._locked(updates):
            if len(updates) == 1 and await self._write_one(updates):
                return dict.fromkeys(updates, True)
            rows = await self._read(updates)
            await self._restore(rows.values())
            # In the order of the updates: if the changes stop early, the oldest ones are written.
            changes = {
                key: _merged(rows[key]["status"], row_updates)
                for key, row_updates in updates.items()
                if key in rows
            }
            changes = {key: fields for key, fields in changes.items() if fields}
            return dict.fromkeys(updates, False) | await self._change_all(changes)

    async def add_fields(self, key: str, fields: Fields) -> bool | DirectusError:
        """Add values to a row whose status is written already; for the result see :meth:`write`."""
        async with self._locked([key]):
            return (await self._change_all({key: fields}))[key]

    async def _write_one(self, updates: Mapping[str, Sequence[Fields]]) -> bool:
        """Try to change a single row by a single request, which is the usual case."""
        ((key, row_updates),) = updates.items()
        if len(row_updates) > 1:
            return False
        try:
            return await self._change_where(key, row_updates[0])
        except DirectusError as error:
            if not _may_concern_one_row(error):
                raise
            return False  # the separate requests show whether the row causes the error

    async def _change_where(self, key: str, fields: Fields) -> bool:
        where = {"id": {"_eq": key}, "status": {"_in": predecessors_of(fields["status"])}}
        changed = await self._directus.update_where(COMMANDS, where, fields, fields=_CHECKED_FIELDS)
        await self._restore(changed)
        return bool(changed)

    async def _read(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        # Repeated, because Directus may limit the number of rows in a response.
        while missing := sorted(set(keys) - found.keys()):
            rows = await self._directus.get_items(
                COMMANDS, filter={"id": {"_in": missing}}, fields=_CHECKED_FIELDS, limit=-1
            )
            if not rows:
                break
            found |= {row["id"]: row for row in rows}
        return found

    async def _change_all(self, changes: Mapping[str, Fields]) -> dict[str, bool | DirectusError]:
        """Change all rows in one request; if that fails, change each alone."""
        if not changes:
            return {}
        try:
            await self._change(changes)
            return dict.fromkeys(changes, True)
        except DirectusError as error:
            if not _may_concern_one_row(error):
                raise
            if len(changes) == 1:
                (key,) = changes
                return {key: await self._error_unless_gone(key, error)}
        results: dict[str, bool | DirectusError] = {}
        unanswered = 0
        for key, fields in changes.items():
            try:
                await self._change({key: fields})
                results[key] = True
                unanswered = 0
            except DirectusError as error:
                results[key] = await self._error_unless_gone(key, error)
                unanswered += error.status is None
                if unanswered >= MAX_UNANSWERED or not _may_concern_one_row(error):
                    return dict.fromkeys(changes, NotTried(str(error), error.status)) | results
        return results

    async def _error_unless_gone(
        self, key: str, error: DirectusError
    ) -> DirectusError | Literal[False]:
        """Return the error, or False if it was caused by the deletion of the row.

        Directus responds with 403 both for a deleted row and for missing permissions.
        """
        if isinstance(error, DirectusDenied) and not await self._read([key]):
            return False
        return error

    async def _change(self, changes: Mapping[str, Fields]) -> None:
        batch = [{"id": key, **fields} for key, fields in changes.items()]
        changed = await self._directus.update_batch(COMMANDS, batch, fields=_CHECKED_FIELDS)
        invisible = changes.keys() - {row["id"] for row in changed}
        await self._restore([*changed, *(await self._read(invisible)).values()])

    async def _restore(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the final status again if a concurrent change has overwritten it."""
        for row in rows:
            if not (row.get("finished_at") and is_unfinished(row["status"])):
                continue
            fields = await self._final_fields(row["id"])
            if fields is None:
                continue  # a user has reset the row to send the command again
            await self._directus.update_batch(COMMANDS, [{"id": row["id"], **fields}])
            self._log.warn(
                "command {id}: final status {status} restored; another bridge had written {late}",
                id=row["id"],
                status=fields["status"],
                late=row["status"],
            )
            row["status"] = fields["status"]

    async def record(self, key: str) -> CommandRecord | None:
        """Return the record of a command in Redis; None if no instance has started to send it.

        :raises DirectusDown: if Redis is down; callers retry later, as when Directus is down.
        """
        if self._redis is None:
            return None
        try:
            return await read_record(self._redis, key)
        except (Refused, Unavailable) as error:
            raise DirectusDown(f"command {key}: cannot read its status in Redis: {error}") from None

    async def _final_fields(self, key: str) -> Fields | None:
        record = await self.record(key)
        if record is None or record.response is None:
            return None
        response = record.response
        at = timestamp_of(response.at)
        if at is None:  # the response was trimmed; the row still has its other values
            return {"status": response.update.status.value}
        return fields_of(response.update, response.instance_id, at)

    @asynccontextmanager
    async def _locked(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of these rows, so that no other task of this bridge changes them."""
        held: list[tuple[str, DeferredLock]] = []
        try:
            # In a fixed order, to prevent deadlocks.
            for key in sorted(keys):
                lock = self._locks.setdefault(key, DeferredLock())
                await lock.acquire()
                held.append((key, lock))
            yield
        finally:
            for key, lock in held:
                lock.release()
                if not (lock.locked or lock.waiting):
                    self._locks.pop(key, None)


def _merged(status: str, updates: Sequence[Fields]) -> Fields:
    """Merge the fields of those updates that apply in turn to a row with this status."""
    merged: dict[str, Any] = {}
    for fields in updates:
        if status in predecessors_of(fields["status"]):
            merged |= fields
            status = fields["status"]
    return merged


def _may_concern_one_row(error: DirectusError) -> bool:
    """Return True if the other rows may still be changed."""
    return isinstance(error, DirectusRefused) or error.status in (None, 403, 500, 502, 504)
