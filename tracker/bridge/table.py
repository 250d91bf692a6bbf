"""Change the rows of commands so that a status never goes back.

Directus first finds the rows of a change and then changes them; another change may come in between.
So this bridge makes the changes of one row one after another. A change by another bridge shows in
the answer: if a row has a ``finished_at`` and an earlier status, its final status, which Redis has,
is written again.
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
from tracker.bridge.rows import fields_of, is_unfinished, may_be_followed_by, moment_of
from tracker.bridge.schema import COMMANDS
from tracker.commands.records import CommandRecord, read_record
from tracker.errors import Refused, Unavailable
from tracker.redis.connection import RedisConnection

#: Fields that are checked before and after a change.
_SEEN: Final = ("id", "status", "finished_at")

Fields = Mapping[str, Any]


class CommandTable:
    """The collection ``commands``.

    :param redis: has the results of commands; None: none is written again.
    """

    _log = Logger()

    def __init__(self, directus: DirectusClient, redis: RedisConnection | None = None) -> None:
        self._directus = directus
        self._redis = redis
        self._locks: dict[str, DeferredLock] = {}

    async def change(self, key: str, fields: Fields) -> bool:
        """Change a row, if its status may be followed by the one in ``fields``.

        :return: whether there was such a row.
        :raises DirectusError: see its subclasses.
        """
        async with self._alone([key]):
            try:
                return await self._change_where(key, fields)
            except DirectusDenied as error:
                if await self._unless_gone(key, error):
                    raise
                return False

    async def tell(self, news: Mapping[str, Sequence[Fields]]) -> dict[str, bool | DirectusError]:
        """Change rows together, each by all that it may take, one after the other.

        :param news: key (a UUID in lower case) → what it is told, each with a status.
        :return: key → whether there was a row that took any of it, or the error where Directus
            did not change this one.
        :raises DirectusError: when that has nothing to do with any one row; some may be changed.
        """
        async with self._alone(news):
            if len(news) == 1 and await self._is_told(news):
                return dict.fromkeys(news, True)
            rows = await self._read(news)
            await self._restore(rows.values())
            # Those that have waited longest first, should it end in between.
            changes = {
                key: _taken(rows[key]["status"], several)
                for key, several in news.items()
                if key in rows
            }
            changes = {key: fields for key, fields in changes.items() if fields}
            return dict.fromkeys(news, False) | await self._change_all(changes)

    async def complete(self, key: str, fields: Fields) -> bool | DirectusError:
        """Add to a row that was told a status what belongs to it; answers as :meth:`tell`."""
        async with self._alone([key]):
            return (await self._change_all({key: fields}))[key]

    async def _is_told(self, news: Mapping[str, Sequence[Fields]]) -> bool:
        """Whether a single one could be told with a single question, as most are."""
        ((key, several),) = news.items()
        if len(several) > 1:
            return False
        try:
            return await self._change_where(key, several[0])
        except DirectusError as error:
            if not _may_be_of_one(error):
                raise
            return False  # the long way tells whose fault it is

    async def _change_where(self, key: str, fields: Fields) -> bool:
        where = {"id": {"_eq": key}, "status": {"_in": may_be_followed_by(fields["status"])}}
        changed = await self._directus.update_where(COMMANDS, where, fields, fields=_SEEN)
        await self._restore(changed)
        return bool(changed)

    async def _read(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Key → row, of those that there are."""
        found: dict[str, dict[str, Any]] = {}
        # Again, since an answer may hold fewer rows than there are: as many as Directus likes.
        while missing := sorted(set(keys) - found.keys()):
            rows = await self._directus.get_items(
                COMMANDS, filter={"id": {"_in": missing}}, fields=_SEEN, limit=-1
            )
            if not rows:
                break
            found |= {row["id"]: row for row in rows}
        return found

    async def _change_all(self, changes: Mapping[str, Fields]) -> dict[str, bool | DirectusError]:
        """All at once; where that does not go, each alone."""
        if not changes:
            return {}
        try:
            await self._change(changes)
            return dict.fromkeys(changes, True)
        except DirectusError as error:
            if not _may_be_of_one(error):
                raise
            if len(changes) == 1:
                (key,) = changes
                return {key: await self._unless_gone(key, error)}
        told: dict[str, bool | DirectusError] = {}
        for key, fields in changes.items():
            try:
                await self._change({key: fields})
                told[key] = True
            except DirectusError as error:
                told[key] = await self._unless_gone(key, error)
                if not _may_be_of_one(error):  # nor do the others have to try
                    return dict.fromkeys(changes, error) | told
        return told

    async def _unless_gone(self, key: str, error: DirectusError) -> DirectusError | Literal[False]:
        """The error, or False where it was one because the row was removed meanwhile.

        Directus says of that what it says of a row that may not be changed.
        """
        if isinstance(error, DirectusDenied) and not await self._read([key]):
            return False
        return error

    async def _change(self, changes: Mapping[str, Fields]) -> None:
        batch = [{"id": key, **fields} for key, fields in changes.items()]
        changed = await self._directus.update_batch(COMMANDS, batch, fields=_SEEN)
        unseen = changes.keys() - {row["id"] for row in changed}
        await self._restore([*changed, *(await self._read(unseen)).values()])

    async def _restore(self, rows: Iterable[dict[str, Any]]) -> None:
        """Tell those again how they have ended that were told something earlier since."""
        for row in rows:
            if not (row.get("finished_at") and is_unfinished(row["status"])):
                continue
            fields = await self._end_of(row["id"])
            if fields is None:
                continue  # somebody has set it back who wants it sent again, long after
            await self._directus.update_batch(COMMANDS, [{"id": row["id"], **fields}])
            self._log.warn(
                "command {id}: another bridge told {late} after {status}, which it is again",
                id=row["id"],
                late=row["status"],
                status=fields["status"],
            )
            row["status"] = fields["status"]

    async def record(self, key: str) -> CommandRecord | None:
        """Return what Redis knows of the command of a row; None if nobody has begun with it.

        :raises DirectusDown: when Redis does not answer; the row has to wait, as for Directus.
        """
        if self._redis is None:
            return None
        try:
            return await read_record(self._redis, key)
        except (Refused, Unavailable) as error:
            raise DirectusDown(f"command {key}: Redis does not say how it ended: {error}") from None

    async def _end_of(self, key: str) -> Fields | None:
        record = await self.record(key)
        if record is None or record.response is None:
            return None
        response = record.response
        at = moment_of(response.at)
        if at is None:  # it was trimmed off the stream: what it came with the row still has
            return {"status": response.update.status.value}
        return fields_of(response.update, response.instance_id, at)

    @asynccontextmanager
    async def _alone(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """While nothing else here changes these rows."""
        held: list[tuple[str, DeferredLock]] = []
        try:
            # In one order, or two would wait for each other.
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


def _taken(status: str, several: Sequence[Fields]) -> Fields:
    """What a row of this status takes of what it is told."""
    taken: dict[str, Any] = {}
    for fields in several:
        if status in may_be_followed_by(fields["status"]):
            taken |= fields
            status = fields["status"]
    return taken


def _may_be_of_one(error: DirectusError) -> bool:
    """Whether others may be changed though one of them is not."""
    return isinstance(error, DirectusRefused) or error.status in (403, 500)
