"""Write the responses in ``commands:responses`` into the rows of commands.

A response is acknowledged to the stream after Directus has accepted it. Responses that are read
together are written together. While Directus is down, or accepts none, no more are read, and all
are retried, less and less often. If it accepts the others and not those of one command, these are
held and retried by themselves; in the end, only their status is written, without the values that
cannot be stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.rest import DirectusDenied, DirectusError, DirectusRefused
from tracker.bridge.rows import fields_of, moment_of
from tracker.bridge.table import CommandTable
from tracker.command import Response
from tracker.errors import Refused, Unavailable
from tracker.keys import RESPONSES
from tracker.log.entries import Delivered, entry_order
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Watchdog
from tracker.observe.ratelimit import LimitedLog
from tracker.redis.timer import RedisTimer
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Stopped, Waits
from tracker.untrusted import shown

#: Seconds that a read waits for a response.
READ_WAIT: Final = 5.0
#: Seconds without a turn or a retry after which the loop is stuck.
WATCHDOG_TIMEOUT: Final = 300.0
#: Responses of one read, and so commands whose rows are changed at once.
BATCH: Final = 100
#: Commands that are held; while there are so many, nothing is read.
MOST_HELD: Final = 200
#: Attempts with one command, over more than a minute, until only its status is written.
PATIENCE: Final = 8
#: Seconds until reading is retried.
RETRY: Final = 1.0
#: Seconds after which the pending responses of an idle bridge are claimed.
CLAIM_AFTER: Final = 60.0

_PLAIN: Final = ("status", "delivered_at", "finished_at")

T = TypeVar("T")


@define
class _Untold:
    """The responses to one command that are not in its row."""

    backoff: Backoff
    responses: dict[str, dict[str, Any]] = field(factory=dict)
    """Entry → fields."""
    why: str = ""
    """The reason why Directus has not accepted them, if it was asked."""

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The fields of each response, in the order of the entries."""
        return [self.responses[entry_id] for entry_id in sorted(self.responses, key=entry_order)]

    @property
    def bare(self) -> list[dict[str, Any]]:
        """The same, without values that may be impossible to store."""
        return [{name: each[name] for name in _PLAIN if name in each} for each in self.fields]

    @property
    def rest(self) -> dict[str, Any]:
        """The values that ``bare`` lacks."""
        last = self.fields[-1]
        return {name: last[name] for name in last if name not in _PLAIN}


class ResponseWriter(Service):
    """Writes the results of commands into Directus.

    :param reader: this bridge's membership in the group; its batches have :data:`BATCH` entries.
    :param backoff: makes the delays: one for all responses together, and one for each held command.
    :param condition: met while Directus accepts responses.
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
        self._telling: Mapping[str, _Untold] = {}
        self._held: dict[str, _Untold] = {}
        self._rejections = LimitedLog(clock, self._log)

    def startService(self) -> None:
        """Start reading."""
        super().startService()
        self._waits = Waits(self._clock)
        self._loop = Deferred.fromCoroutine(self._run())
        self._claims.startService()

    def stopService(self) -> Deferred[Any]:
        """Stop at once; responses that were not written stay pending."""
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
                self._condition.fails(f"responses cannot be read: {error}")
            except Exception:  # noqa: BLE001 - else nothing would be told any more, in silence
                self._log.failure("responses are not told")
                self._condition.fails("responses are not told: see the log")
            self._watchdog.reset()
            await self._waits.sleep(RETRY)

    async def _consume(self) -> None:
        self._watchdog.suspend()
        await self._reader.when_connected()
        self._watchdog.reset()
        await self._reader.join(RESPONSES)
        self._held.clear()  # all of it is pending
        self._telling = {}
        self._report_health()
        async for entries in self._reader.unfinished([RESPONSES]):
            await self._take(entries)
        while True:
            due = (item for item in self._held.items() if not item[1].backoff.left)
            await self._tell(dict(islice(due, BATCH)))
            soonest = min((one.backoff.left for one in self._held.values()), default=READ_WAIT)
            if len(self._held) >= MOST_HELD:
                self._watchdog.suspend()
                await deferLater(self._clock, soonest)
                continue
            async for claimed in self._reader.claim_idle(RESPONSES, CLAIM_AFTER):
                await self._take(claimed)
                if len(self._held) >= MOST_HELD:
                    break
            wait = min(READ_WAIT, soonest + 0.001)
            new = self._reader.allowance([RESPONSES])
            await self._take(await self._reader.read(new, wait))

    async def _take(self, entries: Sequence[Delivered]) -> None:
        """Write these responses, behind held ones of the same commands."""
        self._watchdog.reset()
        untold: dict[str, _Untold] = {}
        done = []
        for entry in entries:
            key, fields = self._understood(entry)
            if fields is None:
                done.append(entry.id)
                continue
            one = self._held.get(key) or untold.setdefault(key, _Untold(self._new_backoff()))
            one.responses[entry.id] = fields
        await self._acknowledge(done)
        await self._tell(untold)

    def _understood(self, entry: Delivered) -> tuple[str, dict[str, Any] | None]:
        """Return the key of a row and the fields to write; None if no row can take them."""
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
        if not _is_uuid(key):  # a command that was sent without Directus, or an entry without one
            return "", None
        at = moment_of(response.at) or entry.appended_at
        return key, fields_of(response.update, response.instance_id, at)

    async def _tell(self, untold: Mapping[str, _Untold]) -> None:
        """Write these responses; hold those of a single command that Directus does not accept."""
        if not untold:
            return
        self._telling = untold
        news = {key: one.fields for key, one in untold.items()}
        told = await self._insist(lambda: self._table.tell(news))
        done: list[str] = []
        for key, one in untold.items():
            result = told[key]
            if isinstance(result, DirectusError):
                result = await self._write_bare(key, one, result)
            if isinstance(result, DirectusError):
                self._hold(key, one, result)
                continue
            if not result:
                self._log.info(
                    "command {id}: no row takes {status}: it is gone, or has ended before",
                    id=key,
                    status=one.fields[-1]["status"],
                )
            self._metrics.responses.labels("written" if result else "no_row").inc(
                len(one.responses)
            )
            self._held.pop(key, None)
            done += one.responses
        await self._acknowledge(done)
        self._telling = {}
        self._report_health()

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request until Directus answers it, and return the result."""
        while True:
            self._watchdog.reset()
            try:
                answer = await ask()
            except DirectusError as error:
                self._condition.fails(f"Directus does not take responses: {error}")
                self._backoff.failed(getattr(error, "retry_after", None))
                self._watchdog.suspend()
                await self._backoff.wait()
            else:
                self._backoff.succeeded()
                return answer

    async def _write_bare(
        self, key: str, one: _Untold, error: DirectusError
    ) -> bool | DirectusError:
        """Write the status first, and then the other values, if they can be stored after all."""
        if isinstance(error, DirectusDenied):
            return error  # the values are valid, and accepted once the policy is fixed
        if not _is_refusal(error) and one.backoff.failures < PATIENCE:
            return error
        told = (await self._insist(lambda: self._table.tell({key: one.bare})))[key]
        if told is True:
            # Directus may have recovered in between.
            completed = await self._insist(lambda: self._table.complete(key, one.rest))
            if completed is True:
                return True
        elif not (_is_refusal(error) and _is_refusal(told)):
            return told if told is False else error
        self._log.error(
            "command {id}: Directus refuses what came with {status} ({why}): {fate}",
            id=key,
            status=one.fields[-1]["status"],
            why=_kind(error),
            fate="the status stands alone" if told is True else "and the status, too; let go",
        )
        return True

    def _hold(self, key: str, one: _Untold, error: DirectusError) -> None:
        seconds = one.backoff.failed(getattr(error, "retry_after", None))
        self._held[key] = one
        one.why = _kind(error)
        self._metrics.responses.labels("held").inc()
        self._log.warn(
            "command {id}: Directus does not take {status} ({why}); again in {seconds:.0f} s",
            id=key,
            status=one.fields[-1]["status"],
            why=one.why,
            seconds=seconds,
        )

    def _report_health(self) -> None:
        if not self._held:
            self._condition.met()
            return
        key, one = next(iter(self._held.items()))
        self._condition.fails(
            f"Directus takes what became of others and not of {len(self._held)} commands, "
            f"as {key}: {one.why}"
        )

    async def _acknowledge(self, entry_ids: Sequence[str]) -> None:
        if entry_ids:
            await self._reader.acknowledge(RESPONSES, entry_ids)

    async def _keep_claims(self) -> None:
        """Keep other bridges from claiming the responses that this one holds."""
        at_hand = [*self._held.values(), *self._telling.values()]
        entry_ids = [entry_id for one in at_hand for entry_id in one.responses]
        if not entry_ids:
            return
        try:
            await self._reader.keep(RESPONSES, entry_ids)
        except (Refused, Unavailable) as error:
            self._log.debug("claims not kept: {error}", error=error)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _is_refusal(error: object) -> bool:
    """Return whether Directus refuses these values, now and later."""
    return isinstance(error, DirectusRefused) and error.status == 400 and bool(error.code)


def _kind(error: DirectusError) -> str:
    """Return an error without its text, which may repeat the value."""
    return f"{error.status or ''} {error.code}".strip() or str(error)
