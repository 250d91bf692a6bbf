"""Write the final status of commands for which the response stream has no response.

Each command that an instance has accepted gets a response soon after it expires, unless Redis
loses data. After a flush, or a restart with older data, its row would stay "routed" forever.
Commands that expired long ago are therefore looked up in Redis, and their rows get the final status
that is recorded there, or ``in_doubt``.

Directus may also execute a change late: it may check that a row can become "delivered", hang while
another request writes the final status, and then overwrite that status. Such a row has a
``finished_at`` and no final status. Its final status is written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.bridge.failingrows import FailingRows
from tracker.bridge.pending import PAGE_SIZE
from tracker.bridge.rest import DirectusClient, DirectusError
from tracker.bridge.rows import device_of, fields_of, timestamp_of
from tracker.bridge.schema import COMMANDS, DEFAULT_EXPIRY, ROUTED
from tracker.bridge.table import MAX_UNANSWERED, CommandTable
from tracker.command import Reason, Status, StatusUpdate
from tracker.commands.records import find_command, read_record
from tracker.errors import Refused, Unavailable
from tracker.keys import RESPONSES, command_record
from tracker.log.interfaces import IRecordReader
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer

#: Seconds between two checks.
INTERVAL: Final = 60.0
#: Seconds from the expiry of a command until its row is checked. Instances and the janitor have
#: responded by then.
GRACE_PERIOD: Final = 600.0
#: Maximum number of pages in one check.
_MAX_PAGES: Final = 10

_FIELDS: Final = ("id", "imei")
_UNFINISHED: Final = {"status": {"_in": [ROUTED, Status.DELIVERED.value]}}
#: Final status of a command that Redis has lost.
LOST: Final = StatusUpdate.failed(
    Reason.IN_DOUBT,
    "Redis has lost the status of this command; the device may have executed it. "
    "Check the state of the device, and create a new command if needed.",
)


class OverdueCommands(Service):
    """A service that writes the final status of rows for which no response follows.

    :param responses: a member of the consumer group that reads responses.
    :param interval: seconds between two checks.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        directus: DirectusClient,
        redis: RedisConnection,
        *,
        responses: IRecordReader,
        table: CommandTable,
        interval: float = INTERVAL,
    ) -> None:
        self._clock = clock
        self._directus = directus
        self._redis = redis
        self._responses = responses
        self._table = table
        self._failing_rows = FailingRows(clock)
        self._unanswered = 0  # rows of this check for which Directus has not responded
        self._malformed_keys = MalformedKeyLog(clock, self._log)
        self._checking: Deferred[None] = succeed(None)
        self._timer = RedisTimer(clock, redis, interval, self._start_check)

    def startService(self) -> None:
        """Check now, and then regularly."""
        super().startService()
        self._timer.startService()

    def stopService(self) -> Deferred[Any]:
        """Stop at once."""
        super().stopService()
        self._checking.cancel()
        return gatherResults([self._checking, self._timer.stopService()])

    def _start_check(self) -> Deferred[None]:
        self._checking = Deferred.fromCoroutine(self._check())
        return self._checking

    async def _check(self) -> None:
        self._unanswered = 0
        try:
            await self._check_rows({"finished_at": {"_nnull": True}}, may_be_lost=False)
            await self._check_rows(self._long_expired, may_be_lost=True)
        except CancelledError:
            return
        except (DirectusError, Refused, Unavailable) as error:
            self._log.debug("cannot check overdue commands: {error}", error=error)
        except Exception:  # noqa: BLE001 - the checks must continue after an unexpected error
            self._log.failure("cannot check overdue commands")

    async def _check_rows(self, where: Mapping[str, Any], may_be_lost: bool) -> None:
        left = 0
        for _ in range(_MAX_PAGES):
            rows = await self._directus.get_items(
                COMMANDS,
                filter={"_and": [_UNFINISHED, where]},
                fields=_FIELDS,
                sort=("date_created", "id"),
                limit=PAGE_SIZE,
                offset=left,
            )
            if not rows or not await self._all_responses_written():
                return
            left += len(rows) - sum([await self._finish_safely(row, may_be_lost) for row in rows])

    @property
    def _long_expired(self) -> Mapping[str, Any]:
        """The filter of rows that expired more than :data:`GRACE_PERIOD` ago."""
        limit = self._clock.seconds() - GRACE_PERIOD
        without_expiry = [
            {"expires_at": {"_null": True}},
            {"date_created": {"_lt": _timestamp(limit - DEFAULT_EXPIRY)}},
        ]
        return {"_or": [{"expires_at": {"_lt": _timestamp(limit)}}, {"_and": without_expiry}]}

    async def _all_responses_written(self) -> bool:
        """Return True if no response is pending that could be for one of these rows."""
        await self._responses.join(RESPONSES)
        return await self._responses.oldest_unfinished(RESPONSES) is None

    async def _finish_safely(self, row: Mapping[str, Any], may_be_lost: bool) -> bool:
        """Call :meth:`_finish`; log an error of Redis for this row, and return False."""
        if self._failing_rows.is_waiting(row["id"]):
            return False
        try:
            return await self._finish(row, may_be_lost)
        except Refused as error:
            action = "Delete the keys of this command in Redis."
            self._malformed_keys.report(command_record(str(row["id"])), error, action)
            return False

    async def _finish(self, row: Mapping[str, Any], may_be_lost: bool) -> bool:
        """Write the final status of a command into its row; return False if not known yet."""
        key = row["id"]
        at = iso_milliseconds(int(self._clock.seconds() * 1000))
        update, instance_id = LOST, ""
        # The owner of a command appends its response and writes its record in one step.
        record = await read_record(self._redis, key)
        if record is not None and record.response is not None:
            update, instance_id = record.response.update, record.response.instance_id
            at = timestamp_of(record.response.at) or at
        elif record is not None:
            entry_range = ("XRANGE", record.stream, record.entry_id, record.entry_id)
            if not may_be_lost or await self._redis.execute(*entry_range):
                return False  # a response follows; a command may wait up to a day for the answer
        elif not may_be_lost or await find_command(self._redis, key, device_of(row)) is not None:
            return False
        try:
            if not await self._table.change(key, fields_of(update, instance_id, at)):
                return True  # the row was deleted, or was changed in the meantime
        except DirectusError as error:
            self._failing_rows.failed(key, error)
            self._unanswered += error.status is None
            if self._unanswered >= MAX_UNANSWERED:
                raise
            self._log.debug("command {id}: cannot write status: {error}", id=key, error=error)
            return False  # the error may concern this row alone
        self._failing_rows.succeeded(key)
        self._log.warn(
            "command {id}: final status was missing; written: {status} {reason}",
            id=key,
            status=update.status.value,
            reason=update.reason,
        )
        return True


def _timestamp(seconds: float) -> str:
    return iso_milliseconds(int(seconds * 1000))
