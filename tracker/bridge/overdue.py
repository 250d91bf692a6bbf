"""Report results that the stream of responses no longer brings.

Each command that an instance has taken gets a response soon after its time is over, unless Redis
loses data. After a flush, or a restart with an older state, a row would say "routed" for ever. So
commands whose time is long over are looked up in Redis, and their rows get the result that is
recorded there, or ``in_doubt``.

A change that a former bridge requested may still be carried out late: Directus may find that a row
may become "delivered", hang while another request writes the final status, and then overwrite it.
Such a row has a ``finished_at`` and no final status. Its result is written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.bridge.pending import PAGE
from tracker.bridge.rest import DirectusClient, DirectusError
from tracker.bridge.rows import fields_of, moment_of
from tracker.bridge.schema import COMMANDS, DEFAULT_EXPIRY, ROUTED
from tracker.bridge.table import CommandTable
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
#: Seconds from the end of a command's time until its row is checked: instances and the janitor have
#: responded by then.
GRACE: Final = 600.0
#: Pages of one check.
_MOST_PAGES: Final = 10

_FIELDS: Final = ("id", "imei")
_UNFINISHED: Final = {"status": {"_in": [ROUTED, Status.DELIVERED.value]}}
_LOST: Final = StatusUpdate.failed(
    Reason.IN_DOUBT,
    "Redis has lost what became of it, so the device may have done it: "
    "ask it for its state, and create the command anew if it has not",
)


class Overdue(Service):
    """Writes the results of rows whose time is long over, if no response will.

    :param responses: a member of the group that reads responses.
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
        self._malformed_keys = MalformedKeyLog(clock, self._log)
        self._looking: Deferred[None] = succeed(None)
        self._timer = RedisTimer(clock, redis, interval, self._look_safely)

    def startService(self) -> None:
        """Check now, and at an interval."""
        super().startService()
        self._timer.startService()

    def stopService(self) -> Deferred[Any]:
        """Stop at once."""
        super().stopService()
        self._looking.cancel()
        return gatherResults([self._looking, self._timer.stopService()])

    def _look_safely(self) -> Deferred[None]:
        self._looking = Deferred.fromCoroutine(self._look())
        return self._looking

    async def _look(self) -> None:
        try:
            await self._go_through({"finished_at": {"_nnull": True}}, may_be_lost=False)
            await self._go_through(self._over, may_be_lost=True)
        except CancelledError:
            return
        except (DirectusError, Refused, Unavailable) as error:
            self._log.debug("overdue commands are not looked at: {error}", error=error)
        except Exception:  # noqa: BLE001 - else there would never be another look
            self._log.failure("overdue commands are not looked at")

    async def _go_through(self, where: Mapping[str, Any], may_be_lost: bool) -> None:
        left = 0
        for _ in range(_MOST_PAGES):
            rows = await self._directus.get_items(
                COMMANDS,
                filter={"_and": [_UNFINISHED, where]},
                fields=_FIELDS,
                sort=("date_created", "id"),
                limit=PAGE,
                offset=left,
            )
            if not rows or not await self._is_all_told():
                return
            left += len(rows) - sum([await self._end_safely(row, may_be_lost) for row in rows])

    @property
    def _over(self) -> Mapping[str, Any]:
        """Return the filter of rows whose time is long over."""
        over = self._clock.seconds() - GRACE
        without = [
            {"expires_at": {"_null": True}},
            {"date_created": {"_lt": _stamp(over - DEFAULT_EXPIRY)}},
        ]
        return {"_or": [{"expires_at": {"_lt": _stamp(over)}}, {"_and": without}]}

    async def _is_all_told(self) -> bool:
        """Return whether all responses are written: one could be for these rows."""
        await self._responses.join(RESPONSES)
        return await self._responses.oldest_unfinished(RESPONSES) is None

    async def _end_safely(self, row: Mapping[str, Any], may_be_lost: bool) -> bool:
        """Call :meth:`_end`; log an error of Redis for this row, and return False."""
        try:
            return await self._end(row, may_be_lost)
        except Refused as error:
            action = "Delete the keys of this command in Redis."
            self._malformed_keys.report(command_record(str(row["id"])), error, action)
            return False

    async def _end(self, row: Mapping[str, Any], may_be_lost: bool) -> bool:
        """Write the result of a command into its row; return False if it is not known yet."""
        key = row["id"]
        at = iso_milliseconds(int(self._clock.seconds() * 1000))
        update, instance_id = _LOST, ""
        # The owner of a command appends its response and writes its record in one step.
        record = await read_record(self._redis, key)
        if record is not None and record.response is not None:
            update, instance_id = record.response.update, record.response.instance_id
            at = moment_of(record.response.at) or at
        elif record is not None:
            at_hand = ("XRANGE", record.stream, record.entry_id, record.entry_id)
            if not may_be_lost or await self._redis.execute(*at_hand):
                return False  # a response follows: an answer may be awaited for a day
        elif not may_be_lost or await find_command(self._redis, key, str(row["imei"])) is not None:
            return False
        try:
            if not await self._table.change(key, fields_of(update, instance_id, at)):
                return True  # the row is gone, or was changed meanwhile
        except DirectusError as error:
            if error.status is None:
                raise
            self._log.debug("command {id} is not told: {error}", id=key, error=error)
            return False  # the error may concern this row alone
        self._log.warn(
            "command {id} had no end, which nobody else tells: {status} {reason}",
            id=key,
            status=update.status.value,
            reason=update.reason,
        )
        return True


def _stamp(seconds: float) -> str:
    return iso_milliseconds(int(seconds * 1000))
