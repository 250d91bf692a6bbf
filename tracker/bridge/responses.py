"""Write the responses in ``commands:responses`` into the rows of commands.

The entry of a response is acknowledged after Directus has accepted the response. Responses that
are read together are written together. While Directus is down, or accepts no response, nothing more
is read, and all are retried with increasing delays. If it refuses only those of one command, these
are held and retried separately; after many attempts only their status is written, without the
values that cannot be stored.

Commands that Directus fails with although it accepts others are set aside: they do not affect
readiness, and become dead letters after an hour. The group can then be trimmed past them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tracker.bridge.failingrows import FailingRows
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.rest import DirectusDenied, DirectusError, DirectusRefused
from tracker.bridge.rows import fields_of, timestamp_of
from tracker.bridge.table import CommandTable, NotTried
from tracker.command import Response
from tracker.durations import format_duration
from tracker.errors import Refused, Unavailable
from tracker.keys import RESPONSES, dead_letters
from tracker.log.entries import StreamEntry, entry_order
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Watchdog
from tracker.observe.ratelimit import LimitedLog
from tracker.redis.timer import RedisTimer
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Stopped, Waits
from tracker.untrusted import shown
from tracker.wording import counted

#: Seconds that a read waits for a response.
READ_WAIT: Final = 5.0
#: Seconds without a pass or a retry after which the loop counts as stuck.
WATCHDOG_TIMEOUT: Final = 300.0
#: Responses in one read; at most as many rows are changed in one request.
BATCH_SIZE: Final = 100
#: Held commands at which reading pauses, without those that are set aside.
MAX_HELD: Final = 200
#: Maximum number of commands that are set aside; of more, the oldest become dead letters.
MAX_SET_ASIDE: Final = 1000
#: Seconds after which the responses to a command that is set aside become dead letters.
SET_ASIDE_TIMEOUT: Final = 3600.0
#: Attempts with one command, over more than a minute, until only its status is written.
MAX_ATTEMPTS: Final = 8
#: Seconds until a failed read is retried.
RETRY_DELAY: Final = 1.0
#: Idle seconds after which pending responses of another bridge are claimed.
CLAIM_AFTER: Final = 60.0

_STATUS_FIELDS: Final = ("status", "delivered_at", "finished_at")

T = TypeVar("T")


@frozen
class _Response:
    """A response that is not written yet."""

    entry: StreamEntry
    fields: dict[str, Any]
    """Fields of the row."""


@define
class _Unwritten:
    """The responses to one command that are not written yet."""

    backoff: Backoff
    responses: dict[str, _Response] = field(factory=dict)
    """Entry ID → response."""
    error: str = ""
    """The error of the last attempt, if any."""
    set_aside: float | None = None
    """Time when it was set aside; None if it is not."""

    @property
    def in_order(self) -> list[_Response]:
        """The responses in the order of the entries."""
        return [self.responses[entry_id] for entry_id in sorted(self.responses, key=entry_order)]

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The fields of the row for each response, in the order of the entries."""
        return [response.fields for response in self.in_order]

    @property
    def status_fields(self) -> list[dict[str, Any]]:
        """The fields of each response, without values that may be impossible to store."""
        return [
            {name: each[name] for name in _STATUS_FIELDS if name in each} for each in self.fields
        ]

    @property
    def value_fields(self) -> dict[str, Any]:
        """The fields of the last response that ``status_fields`` lacks."""
        last = self.fields[-1]
        return {name: last[name] for name in last if name not in _STATUS_FIELDS}


class _Held:
    """The commands whose responses Directus has not accepted yet."""

    def __init__(self, clock: IReactorTime) -> None:
        self.commands: dict[str, _Unwritten] = {}
        """Row ID → its responses."""
        self.failing_rows = FailingRows(clock, MAX_ATTEMPTS, may_forbid=False)
        self._clock = clock

    @property
    def is_full(self) -> bool:
        """True if so many commands are held that reading pauses."""
        return len(self.blamed) >= MAX_HELD

    @property
    def blamed(self) -> dict[str, _Unwritten]:
        """The commands that are not set aside: Directus may be at fault."""
        return {key: one for key, one in self.commands.items() if one.set_aside is None}

    @property
    def due(self) -> dict[str, _Unwritten]:
        """The commands of the next attempt."""
        due = (item for item in self.commands.items() if not item[1].backoff.left)
        return dict(islice(due, BATCH_SIZE))

    @property
    def left(self) -> float:
        """Seconds until a command is due, at most :data:`READ_WAIT`."""
        return min((one.backoff.left for one in self.commands.values()), default=READ_WAIT)

    def release(self) -> bool:
        """Forget some commands, so that those behind them are tried; return True if done.

        Their entries stay pending, and are claimed later. Otherwise no response behind many that
        Directus fails with would ever be read, and none could show that Directus accepts others.
        """
        tired = [key for key, one in self.blamed.items() if one.backoff.failures >= MAX_ATTEMPTS]
        if len(tired) < MAX_HELD:
            return False
        for key in tired[:BATCH_SIZE]:
            del self.commands[key]
        return True

    def set_aside(self) -> None:
        """Set those commands aside with which Directus fails although it accepts others."""
        for key in self.failing_rows.at_fault:
            one = self.commands.get(key)
            if one is not None and one.set_aside is None:
                one.set_aside = self._clock.seconds()

    def outdated(self) -> list[str]:
        """Return the commands that were set aside for long, or are too many, oldest first."""
        aside = {
            key: one.set_aside for key, one in self.commands.items() if one.set_aside is not None
        }
        oldest = sorted(aside, key=aside.__getitem__)
        expired = self._clock.seconds() - SET_ASIDE_TIMEOUT
        number = max(len(oldest) - MAX_SET_ASIDE, sum(at <= expired for at in aside.values()))
        return oldest[: max(0, number)]


class ResponseWriter(Service):
    """A service that writes responses into the rows of their commands.

    :param reader: this bridge's member of the consumer group, with batches of :data:`BATCH_SIZE`.
    :param backoff: makes a backoff for all responses together, and one for each held command.
    :param condition: is met while Directus accepts responses.
    :param watchdog: is reset while responses are written, and suspended while Directus is down.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        reader: IRecordReader,
        table: CommandTable,
        *,
        backoff: Callable[[], Backoff],
        condition: Condition,
        watchdog: Watchdog | None = None,
        metrics: BridgeMetrics | None = None,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._table = table
        self._new_backoff = backoff
        self._backoff = backoff()
        self._condition = condition
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self._metrics = metrics or BridgeMetrics()
        self._loop: Deferred[None] = succeed(None)
        self._waits = Waits(clock)
        self._claims = RedisTimer(clock, reader, CLAIM_AFTER / 3, self._keep_claims)
        self._writing: Mapping[str, _Unwritten] = {}
        self._held = _Held(clock)
        self._released = False  # true if new responses are read before released ones are claimed
        self._rejections = LimitedLog(clock, self._log)

    def startService(self) -> None:
        """Start reading responses."""
        super().startService()
        self._waits = Waits(self._clock)
        self._loop = Deferred.fromCoroutine(self._run())
        self._claims.startService()

    def stopService(self) -> Deferred[Any]:
        """Stop at once; unwritten responses stay pending in the group."""
        super().stopService()
        self._watchdog.suspend()
        self._waits.stop()
        return gatherResults([self._loop, self._claims.stopService()])

    async def _run(self) -> None:
        while not self._waits.stopped:
            try:
                await self._waits.result(self._consume())
            except Stopped:
                return
            except (Refused, Unavailable) as error:
                self._condition.fails(f"cannot read responses: {error}")
            except Exception:  # noqa: BLE001 - the loop must continue after an unexpected error
                self._log.failure("cannot write responses to Directus")
                self._condition.fails(
                    "cannot write responses to Directus; see the log for the reason"
                )
            self._watchdog.reset()
            await self._waits.sleep(RETRY_DELAY)

    async def _consume(self) -> None:
        self._watchdog.suspend()
        await self._reader.when_connected()
        self._watchdog.reset()
        await self._reader.join(RESPONSES)
        self._held.commands.clear()  # their entries are pending, and are read again
        self._writing = {}
        self._report_health()
        async for entries in self._reader.unfinished([RESPONSES]):
            await self._process(entries)
        while True:
            await self._write(self._held.due)
            soonest = self._held.left
            if self._held.is_full:
                if not self._held.release():
                    self._watchdog.suspend()
                    await deferLater(self._clock, soonest)
                    continue
                self._released = True
            if not self._released:
                async for claimed in self._reader.claim_idle(RESPONSES, CLAIM_AFTER):
                    await self._process(claimed)
                    if self._held.is_full:
                        break
            wait = min(READ_WAIT, soonest + 0.001)
            new = self._reader.allowance([RESPONSES])
            self._released = False
            await self._process(await self._reader.read(new, wait))

    async def _process(self, entries: Sequence[StreamEntry]) -> None:
        """Write these responses; those of a held command wait behind its held responses."""
        self._watchdog.reset()
        unwritten: dict[str, _Unwritten] = {}
        done = []
        for entry in entries:
            key, fields = self._parse(entry)
            if fields is None:
                done.append(entry.id)
                continue
            one = self._held.commands.get(key) or unwritten.setdefault(
                key, _Unwritten(self._new_backoff())
            )
            one.responses[entry.id] = _Response(entry, fields)
        await self._acknowledge(done)
        await self._write(unwritten)

    def _parse(self, entry: StreamEntry) -> tuple[str, dict[str, Any] | None]:
        """Return a row ID and the fields to write; None instead if no row belongs to the entry."""
        if entry.content is None:  # deleted
            return "", None
        try:
            response = Response.from_fields(entry.fields)
        except ValueError as error:
            self._rejections.warn(
                "{stream}: entry {id} is not a response: {error}",
                stream=RESPONSES,
                id=entry.id,
                error=shown(error),
            )
            return "", None
        key = response.command_id.lower()
        if not _is_uuid(key):  # the command was not sent by Directus, or was malformed
            return "", None
        at = timestamp_of(response.at) or entry.appended_at
        return key, fields_of(response.update, response.instance_id, at)

    async def _write(self, unwritten: Mapping[str, _Unwritten]) -> None:
        """Write these responses; hold those of commands that Directus does not accept."""
        if not unwritten:
            return
        self._writing = unwritten
        successes = self._held.failing_rows.successes
        updates = {key: one.fields for key, one in unwritten.items()}
        results = await self._until_executed(lambda: self._table.write(updates))
        done: list[str] = []
        failed: dict[str, DirectusError] = {}
        for key, one in unwritten.items():
            result = results[key]
            if isinstance(result, DirectusError):
                result = await self._write_status(key, one, result)
            if isinstance(result, DirectusError):
                failed[key] = result
                continue
            self._held.failing_rows.succeeded(key)
            if not result:
                self._log.info(
                    "command {id}: status {status} not written: the row was deleted, or has this "
                    "or a later status",
                    id=key,
                    status=one.fields[-1]["status"],
                )
            self._metrics.responses.labels("written" if result else "no_row").inc(
                len(one.responses)
            )
            self._held.commands.pop(key, None)
            done += one.responses
        await self._acknowledge(done)
        for key, error in failed.items():  # after the others, which show that Directus works
            self._hold(key, unwritten[key], error, successes)
        self._writing = {}
        await self._discard_old()
        self._report_health()

    async def _until_executed(self, request: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request until Directus executes it, and return the result."""
        while True:
            self._watchdog.reset()
            try:
                result = await request()
            except DirectusError as error:
                self._condition.fails(f"cannot write responses to Directus: {error}")
                self._backoff.failed(getattr(error, "retry_after", None))
                self._watchdog.suspend()
                await self._backoff.wait()
            else:
                self._backoff.succeeded()
                return result

    async def _write_status(
        self, key: str, one: _Unwritten, error: DirectusError
    ) -> bool | DirectusError:
        """Write the status alone, and then try again to add the other values."""
        if isinstance(error, DirectusDenied):
            return error  # the values are valid; Directus accepts them when the policy is repaired
        if not _is_refusal(error) and one.backoff.failures < MAX_ATTEMPTS:
            return error
        written = (await self._until_executed(lambda: self._table.write({key: one.status_fields})))[
            key
        ]
        if written is True:
            # Directus may have recovered in between, and then stores all values.
            completed = await self._until_executed(
                lambda: self._table.add_fields(key, one.value_fields)
            )
            if completed is True:
                return True
        elif not (_is_refusal(error) and _is_refusal(written)):
            return written if written is False else error
        self._log.error(
            "command {id}: Directus refuses the values of status {status} ({error}); {action}",
            id=key,
            status=one.fields[-1]["status"],
            error=_error_code(error),
            action="status written without them" if written is True else "response discarded",
        )
        return True

    def _hold(self, key: str, one: _Unwritten, error: DirectusError, successes: int) -> None:
        self._held.commands[key] = one
        if isinstance(error, NotTried):
            return  # it is due at once
        seconds = one.backoff.failed(getattr(error, "retry_after", None))
        self._held.failing_rows.failed(key, error, successes)
        self._metrics.responses.labels("held").inc()
        code = _error_code(error)
        if code != one.error:
            one.error = code
            self._log.warn(
                "command {id}: cannot write status {status} ({error}); retrying in {delay}",
                id=key,
                status=one.fields[-1]["status"],
                error=code,
                delay=format_duration(round(seconds, 1)),
            )

    async def _discard_old(self) -> None:
        """Turn responses into dead letters that were set aside for long, or are too many."""
        for key in self._held.outdated():
            one = self._held.commands[key]
            self._log.error(
                "command {id}: Directus does not accept status {status} ({error}); "
                "response moved to {stream}",
                id=key,
                status=one.fields[-1]["status"],
                error=one.error,
                stream=dead_letters(RESPONSES),
            )
            for response in one.in_order:
                await self._reader.dead_letter(response.entry, f"Directus: {one.error}")
            self._metrics.responses.labels("dead_letter").inc(len(one.responses))
            del self._held.commands[key]
            self._held.failing_rows.forget(key)

    def _report_health(self) -> None:
        self._held.set_aside()
        blamed = self._held.blamed
        self._metrics.set_aside("responses", len(self._held.commands) - len(blamed))
        if not blamed:
            self._condition.met()
            return
        key, one = next(iter(blamed.items()))
        commands = counted(len(blamed), "command")
        self._condition.fails(
            f"Directus refuses the responses to {commands}, for example {key}: {one.error}"
        )

    async def _acknowledge(self, entry_ids: Sequence[str]) -> None:
        if entry_ids:
            await self._reader.acknowledge(RESPONSES, entry_ids)

    async def _keep_claims(self) -> None:
        """Keep other bridges from claiming the entries that this one holds."""
        unwritten = [*self._held.commands.values(), *self._writing.values()]
        entry_ids = [entry_id for one in unwritten for entry_id in one.responses]
        if not entry_ids:
            return
        try:
            await self._reader.keep(RESPONSES, entry_ids)
        except (Refused, Unavailable) as error:
            self._log.debug("cannot renew claims on responses: {error}", error=error)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _is_refusal(error: object) -> bool:
    """Return True if Directus refuses the values themselves; a retry cannot succeed."""
    return isinstance(error, DirectusRefused) and error.status == 400 and bool(error.code)


def _error_code(error: DirectusError) -> str:
    """Return status and code of an error; its text may contain the value."""
    return f"{error.status or ''} {error.code}".strip() or str(error)
