"""From a row in Directus to an instance that has its command.

A row is pending until an instance has taken its command. Whoever tells of one, a webhook or a
look at all that are pending, only names it: what is sent is what stands in the row. To send one
twice does no harm, since its id is the command's; so whatever breaks off is begun anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredLock,
    DeferredSemaphore,
    TimeoutError,  # noqa: A004
    succeed,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.http import INTERNAL_SERVER_ERROR

from tracker.bridge.instances import Instances, NoInstance
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.pending import PAGE, Pending, Row, Turn, Walk, in_order
from tracker.bridge.rest import DirectusClient, DirectusDenied, DirectusDown, DirectusRefused
from tracker.bridge.rows import WAITING, command_in, fields_of, malformed, too_late
from tracker.bridge.schema import COMMANDS, ROUTED
from tracker.bridge.table import CommandTable
from tracker.command import BadCommand, Command, Outcome, Status
from tracker.control.commands import BadArgument, ControlError
from tracker.observe.health import Condition, Pulse
from tracker.position import iso_milliseconds
from tracker.runtime.backoff import Backoff

#: Seconds between two looks at what is pending.
INTERVAL: Final = 10.0
#: Seconds until all is tried again, at most, after it has failed again and again.
LONGEST_WAIT: Final = 15.0
#: Commands that are being sent at once.
AT_ONCE: Final = 8
#: Rows that may be announced and not read as yet; of the others, a look tells.
MOST_ANNOUNCED: Final = 2000
#: Rows that are read and not sent, beyond which no more announced ones are read.
MOST_UNDER_WAY: Final = 200
#: Seconds that what is being sent may still take at a stop.
GRACE: Final = 5.0
#: Seconds beyond the interval after which a look is stuck.
STUCK: Final = 600.0
#: Rows of which is remembered what was said of them in the log.
_MOST_TOLD: Final = 1000


class Dispatcher(Service):
    """Sends the commands of pending rows.

    :param backoff: how long nothing is tried after Directus, or all instances, have failed.
    :param condition: met while that goes well.
    :param pulse: beats with each look.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        directus: DirectusClient,
        table: CommandTable,
        instances: Instances,
        backoff: Backoff,
        condition: Condition,
        interval: float = INTERVAL,
        pulse: Pulse | None = None,
        metrics: BridgeMetrics | None = None,
    ) -> None:
        self._clock = clock
        self._pending = Pending(directus)
        self._table = table
        self._instances = instances
        self._backoff = backoff
        self._condition = condition
        self._interval = interval
        self._pulse = pulse or Pulse(interval + STUCK)
        self._metrics = metrics or BridgeMetrics()
        self._turns = DeferredSemaphore(AT_ONCE)
        self._devices: dict[str, DeferredLock] = {}
        self._announced: dict[str, None] = {}  # in that order
        self._under_way: dict[str, Deferred[bool]] = {}
        self._room: Deferred[None] = succeed(None)
        self._told: dict[str, str] = {}
        self._failures = 0
        self._spoiled = 0  # rows, since one went well, that Directus could not change
        self._again = False
        self._pause: Deferred[None] = succeed(None)
        self._looking: Deferred[None] = succeed(None)
        self._hearing: Deferred[None] = succeed(None)
        self._heard = True
        self._interruptible: set[Deferred[Any]] = set()

    def startService(self) -> None:
        """Look at what is pending, now and every so often."""
        super().startService()
        self._looking = Deferred.fromCoroutine(self._look_regularly())

    def stopService(self) -> Deferred[None]:
        """Begin with no more; fires when what is being sent is sent, or could not be."""
        super().stopService()
        self._pulse.rest()
        self._announced.clear()
        for deferred in list(self._interruptible):
            deferred.cancel()
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        with suppress(TimeoutError):  # the next start sends it again, which is not twice
            left: Deferred[Any] = DeferredList(list(self._under_way.values()), consumeErrors=True)
            await left.addTimeout(GRACE, self._clock)
        await self._looking
        await self._hearing

    def announce(self, key: str) -> bool:
        """A row may be new; whether it will be looked at soon.

        :param key: its id, a UUID in lower case.
        """
        if not self.running or len(self._announced) >= MOST_ANNOUNCED:
            return False
        if key not in self._under_way:
            self._announced[key] = None
            if self._heard:
                self._heard = False
                self._hearing = Deferred.fromCoroutine(self._hear())
        return True

    async def _hear(self) -> None:
        """Have those sent that were announced."""
        try:
            # All that come with the same requests are read together.
            await self._or_stopped(deferLater(self._clock, 0))
            while self._announced:
                keys = list(self._announced)[:PAGE]
                for key in keys:
                    del self._announced[key]
                if self._backoff.left:
                    continue  # a look finds them when that is over
                await self._hear_of(keys)
                await self._or_stopped(self._room)
        except CancelledError:
            pass
        finally:
            self._heard = True

    async def _hear_of(self, keys: Sequence[str]) -> None:
        try:
            rows = await self._or_stopped(self._pending.named(keys))
            turn = await self._or_stopped(self._pending.in_turn(rows))
        except (DirectusDown, DirectusDenied, DirectusRefused) as error:
            self._failed(f"commands cannot be read: {error}", error)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a look may fare better
            self._log.failure("commands that were announced are not read")
        else:
            if self._backoff.left:
                return  # another one has failed meanwhile
            failures = self._failures
            for row in turn.rows:
                self._begin(row, failures)
            if turn.postponed:
                self._look_soon()

    async def _look_regularly(self) -> None:
        while self.running:
            self._pulse.beat()
            self._again = False
            with suppress(CancelledError):  # a stop, or none has to wait any longer
                self._again |= await self._look_safely()
                self._pulse.rest()
                self._pause = deferLater(self._clock, self._delay)
                await self._or_stopped(self._pause)

    @property
    def _delay(self) -> float:
        return self._backoff.left or (0 if self._again else self._interval)

    def _look_soon(self) -> None:
        """There are rows that only a look gets to."""
        self._again = True
        if not self._backoff.left:
            self._pause.cancel()

    async def _look_safely(self) -> bool:
        try:
            return await self._look()
        except (DirectusDown, DirectusDenied, DirectusRefused) as error:
            self._failed(f"pending commands cannot be read: {error}", error)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - else there would never be another look
            self._log.failure("a look at what is pending has failed")
        return False

    async def _look(self) -> bool:
        """Have all pending rows sent, the newest first; whether to look again at once."""
        walk, failures = Walk(), self._failures
        until = self._clock.seconds() + self._interval
        postponed = progress = False
        while self.running:
            page = await self._or_stopped(self._pending.page(walk))
            if not page:
                break
            if len(page) < PAGE:
                turn = Turn(in_order(page), False)  # nothing is older than these
            else:
                turn = await self._or_stopped(self._pending.in_turn(page))
            if self._failures != failures:
                return True
            left = await self._send_all(turn.rows)
            progress |= len(left) < len(turn.rows)
            left |= {row["id"] for row in page} - {row["id"] for row in turn.rows}
            if self._failures != failures:
                return True
            postponed |= turn.postponed
            if not walk.go_on(page, left):
                break
            if self._clock.seconds() >= until:
                return True  # there may be newer ones
        self._went_well()
        return postponed and progress

    async def _send_all(self, rows: Sequence[Row]) -> set[str]:
        """Send these; the ids of those that have stayed pending, as far as is known."""
        failures = self._failures
        begun = [(row["id"], self._begin(row, failures)) for row in rows]
        ended = await DeferredList([sent for _, sent in begun], consumeErrors=True)
        return {
            key
            for (key, _), (success, moved) in zip(begun, ended, strict=True)
            if not (success and moved)
        }

    def _begin(self, row: Row, failures: int) -> Deferred[bool]:
        """Send a row when its device, and then it, has its turn; whether it is no longer pending.

        What is under way already is not begun again.

        :param failures: how many there were when it was read.
        """
        key = row["id"]
        if key in self._under_way:
            return self._under_way[key]
        self._announced.pop(key, None)
        sent = Deferred.fromCoroutine(self._in_turn(row, failures))
        if sent.called:
            return sent
        self._under_way[key] = sent
        if len(self._under_way) >= MOST_UNDER_WAY and self._room.called:
            self._room = Deferred()

        def done(result: Any) -> Any:
            del self._under_way[key]
            if len(self._under_way) < MOST_UNDER_WAY and not self._room.called:
                self._room.callback(None)
            return result

        return sent.addBoth(done)

    async def _in_turn(self, row: Row, failures: int) -> bool:
        device = str(row["imei"])
        turn = self._devices.setdefault(device, DeferredLock())
        await turn.acquire()
        try:
            moved: bool = await self._turns.run(self._send, row, failures)
            return moved
        finally:
            turn.release()
            if not (turn.locked or turn.waiting):
                self._devices.pop(device, None)

    def _send(self, row: Row, failures: int) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._send_safely(row, failures))

    async def _send_safely(self, row: Row, failures: int) -> bool:
        # After a failure all is read anew: this one may stand behind one that was not sent.
        if not self.running or failures != self._failures:
            return False
        try:
            moved = await self._send_row(row)
        except DirectusDown as error:
            self._spoiled += 1
            if error.status == INTERNAL_SERVER_ERROR and self._spoiled <= AT_ONCE:
                self._tell_of(row["id"], str(error))  # it may be the fault of this row alone
            else:
                self._failed(f"Directus: {error}", error)
        except DirectusDenied as error:
            self._failed(f"Directus: {error}", error)
        except NoInstance as error:
            self._failed(f"commands are not sent: {error}", error)
        except (DirectusRefused, ControlError) as error:
            self._tell_of(row["id"], str(error))
        except CancelledError:
            return False
        except Exception:  # noqa: BLE001 - the others are sent all the same
            self._log.failure("command {key} is not sent", key=row["id"])
        else:
            self._told.pop(row["id"], None)
            self._spoiled = 0
            self._went_well()
            return moved
        self._metrics.commands.labels("not_sent").inc()
        return False

    async def _send_row(self, row: Row) -> bool:
        try:
            command = command_in(row)
        except BadCommand as error:
            return await self._end(row["id"], malformed(error))
        if self._now >= command.expires_at:
            return await self._too_late(command)
        try:
            answer = await self._instances.send_command(
                command.device_id,
                command.text,
                command_id=command.command_id,
                codec=command.codec,
                expires_at=iso_milliseconds(command.expires_at),
                timeout=command.timeout,
            )
        except BadArgument as error:
            return await self._end(row["id"], malformed(error))
        return await self._routed(command, answer)

    async def _too_late(self, command: Command) -> bool:
        """End an expired command, unless an earlier attempt sent it without reporting that.

        A command that no instance has begun with by now will not be sent: it is expired, wherever
        it may be queued.
        """
        record = await self._table.record(command.command_id)
        if record is None:
            return await self._end(command.command_id, too_late(command))
        if record.response is None:
            return await self._routed(
                command, {"status": record.phase, "instance_id": record.instance_id}
            )
        outcome = record.response.outcome
        return await self._routed(
            command,
            {
                "status": outcome.status,
                "reason": outcome.reason,
                "response": outcome.response,
                "instance_id": record.response.instance_id,
            },
        )

    async def _routed(self, command: Command, answer: Mapping[str, Any]) -> bool:
        status = answer["status"]
        at = iso_milliseconds(self._now)
        if status in set(Status) - {Status.DELIVERED}:
            # It was sent before, and has ended: what comes back tells it, too, as a rule.
            outcome = "ended"
            ended = Outcome(Status(status), answer["reason"] or "", answer["response"] or "")
            fields = fields_of(ended, answer["instance_id"] or "", at)
        else:
            outcome = "waiting" if status == WAITING else "routed"
            fields = {
                "status": ROUTED,
                "instance": answer["instance_id"],
                "reason": WAITING if status == WAITING else None,
                "routed_at": at,
            }
        self._metrics.commands.labels(outcome).inc()
        return await self._table.change(command.command_id, fields)

    async def _end(self, key: str, outcome: Outcome) -> bool:
        self._metrics.commands.labels("ended").inc()
        fields = fields_of(outcome, "", iso_milliseconds(self._now))
        return await self._table.change(key, fields)

    def _failed(self, why: str, error: Exception) -> None:
        """Nothing can be sent now."""
        self._failures += 1
        self._spoiled = 0
        self._condition.fails(why)
        if not self._backoff.left:  # else another one has failed beside it
            self._backoff.failed(getattr(error, "retry_after", None))

    def _went_well(self) -> None:
        if not self._backoff.left:
            self._backoff.succeeded()
            self._condition.met()

    def _tell_of(self, key: str, why: str) -> None:
        """A row cannot be dealt with; it is tried again, and told of once."""
        if self._told.get(key) != why:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told[key] = why
            self._log.warn("row {key} of {collection} stays pending: {why}", key=key,
                           collection=COMMANDS, why=why)  # fmt: skip

    async def _or_stopped(self, asked: Any) -> Any:
        """What is asked for, unless a stop comes first."""
        deferred = asked if isinstance(asked, Deferred) else Deferred.fromCoroutine(asked)
        self._interruptible.add(deferred)
        if not self.running:
            deferred.cancel()
        try:
            return await deferred
        finally:
            self._interruptible.discard(deferred)

    @property
    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
