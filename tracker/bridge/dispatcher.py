"""From a row in Directus to an instance that has its command.

A row is pending until an instance has taken its command. Announcements by a webhook, and looks at
all pending rows, only name rows: what is sent is what stands in the row. Sending a command twice
does no harm, since its id is the row's; so whatever is interrupted is started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,  # noqa: A004
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.http import INTERNAL_SERVER_ERROR

from tracker.bridge.instances import NoInstance
from tracker.bridge.lanes import MAX_RUNNING, Lanes
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.pending import PAGE, Pending, Row, Turn, Walk, in_order
from tracker.bridge.rest import DirectusDenied, DirectusDown, DirectusRefused
from tracker.bridge.routing import Router
from tracker.bridge.schema import COMMANDS
from tracker.control.commands import ControlError
from tracker.observe.health import Condition, Watchdog
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Stopped, Waits

#: Seconds between two looks at what is pending.
INTERVAL: Final = 10.0
#: Seconds until all is tried again, at most, after it has failed again and again.
LONGEST_WAIT: Final = 15.0
#: Rows that may be announced and not read as yet; a look finds the others.
MOST_ANNOUNCED: Final = 2000
#: Seconds that what is being sent may still take at a stop.
GRACE: Final = 5.0
#: Seconds beyond the interval after which a look is stuck.
WATCHDOG_TIMEOUT: Final = 600.0
#: Rows of which the latest line in the log is remembered.
_MAX_LOGGED: Final = 1000

#: Directus fails with all requests, or with one that is not about a single row.
_NO_DIRECTUS: Final = (DirectusDown, DirectusDenied, DirectusRefused)


class Attempts:
    """The failures of Directus, or of all instances, after which nothing is sent for a while.

    :param backoff: says for how long.
    :param condition: is met while all goes well.
    """

    def __init__(self, backoff: Backoff, condition: Condition) -> None:
        self.failures = 0
        """Failures so far."""
        self._backoff = backoff
        self._condition = condition
        self._spoiled = 0  # rows in a row that Directus could not change

    @property
    def left(self) -> float:
        """Seconds for which nothing is sent."""
        return self._backoff.left

    def failed(self, why: str, error: Exception) -> None:
        """Send nothing for a while."""
        self.failures += 1
        self._spoiled = 0
        self._condition.fails(why)
        if not self._backoff.left:  # otherwise another row has failed at the same time
            self._backoff.failed(getattr(error, "retry_after", None))

    def may_be_the_row(self, error: DirectusDown) -> bool:
        """Return whether Directus has failed because of a row: it answers 500, and not to all."""
        self._spoiled += 1
        return error.status == INTERNAL_SERVER_ERROR and self._spoiled <= MAX_RUNNING

    def row_succeeded(self) -> None:
        """Note that a row was sent and changed."""
        self._spoiled = 0
        self.succeeded()

    def succeeded(self) -> None:
        """Start again with the first delay."""
        if not self._backoff.left:
            self._backoff.succeeded()
            self._condition.met()


class Dispatcher(Service):
    """Send the commands of pending rows.

    :param watchdog: is reset with each look.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        pending: Pending,
        router: Router,
        attempts: Attempts,
        metrics: BridgeMetrics,
        interval: float = INTERVAL,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.lanes = Lanes()
        """The rows that are being sent."""
        self._clock = clock
        self._pending = pending
        self._router = router
        self._attempts = attempts
        self._metrics = metrics
        self._interval = interval
        self._watchdog = watchdog or Watchdog(interval + WATCHDOG_TIMEOUT)
        self._announced: dict[str, None] = {}  # in that order
        self._logged: dict[str, str] = {}  # row → why it stays pending
        self._waits = Waits(clock)
        self._pause = Waits(clock)  # of the looks
        self._look_again = False
        self._looking: Deferred[None] = succeed(None)
        self._reading: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Look at what is pending, now and regularly."""
        super().startService()
        self._waits = Waits(self._clock)
        self._looking = Deferred.fromCoroutine(self._look_regularly())

    def stopService(self) -> Deferred[None]:
        """Begin nothing more; fires when what is being sent is sent, or after :data:`GRACE`."""
        super().stopService()
        self._watchdog.suspend()
        self._announced.clear()
        self._waits.stop()
        self._pause.stop()
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        with suppress(TimeoutError):  # the next start sends the rest, and nothing twice
            await self.lanes.all_done().addTimeout(GRACE, self._clock)
        await self._looking
        await self._reading

    def announce(self, key: str) -> bool:
        """Note that a row may be new; return whether it will be read soon.

        :param key: its id, a UUID in lower case.
        """
        if not self.running or len(self._announced) >= MOST_ANNOUNCED:
            return False
        if key not in self.lanes.keys:
            self._announced[key] = None
            if self._reading.called:
                self._reading = Deferred.fromCoroutine(self._read_announced())
        return True

    async def _read_announced(self) -> None:
        """Read the announced rows, and have them sent."""
        with suppress(Stopped):
            # All that are announced in the same turn of the reactor are read together.
            await self._waits.result(deferLater(self._clock, 0))
            while self._announced:
                keys = list(self._announced)[:PAGE]
                for key in keys:
                    del self._announced[key]
                if self._attempts.left:
                    continue  # a look finds them when that is over
                await self._read(keys)
                await self._waits.result(self.lanes.room)

    async def _read(self, keys: Sequence[str]) -> None:
        try:
            rows = await self._waits.result(self._pending.named(keys))
            turn = await self._waits.result(self._pending.in_turn(rows))
        except _NO_DIRECTUS as error:
            self._attempts.failed(f"commands cannot be read: {error}", error)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a look may fare better
            self._log.failure("commands that were announced are not read")
        else:
            if self._attempts.left:
                return  # another one has failed meanwhile
            failures = self._attempts.failures
            for row in turn.rows:
                self._begin(row, failures)
            if turn.postponed:
                self._look_soon()

    async def _look_regularly(self) -> None:
        while not self._waits.stopped:
            self._watchdog.reset()
            self._look_again = False
            with suppress(Stopped):
                self._look_again |= await self._look_safely()
            self._watchdog.suspend()
            if not self._waits.stopped:
                self._pause = Waits(self._clock)
                await self._pause.sleep(self._delay)

    @property
    def _delay(self) -> float:
        return self._attempts.left or (0 if self._look_again else self._interval)

    def _look_soon(self) -> None:
        """Look at once, or after the current look: there are rows that only a look finds."""
        self._look_again = True
        if not self._attempts.left:
            self._pause.stop()

    async def _look_safely(self) -> bool:
        try:
            return await self._look()
        except _NO_DIRECTUS as error:
            self._attempts.failed(f"pending commands cannot be read: {error}", error)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - else there would never be another look
            self._log.failure("a look at what is pending has failed")
        return False

    async def _look(self) -> bool:
        """Have all pending rows sent, the newest first; return whether to look again at once."""
        walk, failures = Walk(), self._attempts.failures
        until = self._clock.seconds() + self._interval
        postponed = progress = False
        while not self._waits.stopped:
            page = await self._waits.result(self._pending.page(walk))
            if not page:
                break
            if len(page) < PAGE:
                turn = Turn(in_order(page), False)  # nothing is older than these
            else:
                turn = await self._waits.result(self._pending.in_turn(page))
            if self._attempts.failures != failures:
                return True
            left = await self._send_all(turn.rows)
            progress |= len(left) < len(turn.rows)
            left |= {row["id"] for row in page} - {row["id"] for row in turn.rows}
            if self._attempts.failures != failures:
                return True
            postponed |= turn.postponed
            if not walk.go_on(page, left):
                break
            if self._clock.seconds() >= until:
                return True  # there may be newer ones
        self._attempts.succeeded()
        return postponed and progress

    async def _send_all(self, rows: Sequence[Row]) -> set[str]:
        """Send rows; return the ids of those that have stayed pending, as far as is known."""
        failures = self._attempts.failures
        begun = [(row["id"], self._begin(row, failures)) for row in rows]
        ended = await DeferredList([sent for _, sent in begun], consumeErrors=True)
        return {
            key
            for (key, _), (success, moved) in zip(begun, ended, strict=True)
            if not (success and moved)
        }

    def _begin(self, row: Row, failures: int) -> Deferred[bool]:
        """Send a row when it has its turn; fires with whether it is no longer pending.

        :param failures: how many there were when it was read.
        """
        self._announced.pop(row["id"], None)
        return self.lanes.begin(row["id"], str(row["imei"]), lambda: self._send(row, failures))

    async def _send(self, row: Row, failures: int) -> bool:
        # After a failure all rows are read again: this one may stand behind one that was not sent.
        if not self.running or failures != self._attempts.failures:
            return False
        try:
            moved = await self._router.send(row)
        except DirectusDown as error:
            if self._attempts.may_be_the_row(error):
                self._log_once(row["id"], str(error))
            else:
                self._attempts.failed(f"Directus: {error}", error)
        except DirectusDenied as error:
            self._attempts.failed(f"Directus: {error}", error)
        except NoInstance as error:
            self._attempts.failed(f"commands are not sent: {error}", error)
        except (DirectusRefused, ControlError) as error:
            self._log_once(row["id"], str(error))
        except CancelledError:
            return False
        except Exception:  # noqa: BLE001 - the others are sent all the same
            self._log.failure("command {key} is not sent", key=row["id"])
        else:
            self._logged.pop(row["id"], None)
            self._attempts.row_succeeded()
            return moved
        self._metrics.commands.labels("not_sent").inc()
        return False

    def _log_once(self, key: str, why: str) -> None:
        """Log why a row stays pending; it is tried again, and logged again for another reason."""
        if self._logged.get(key) != why:
            if len(self._logged) >= _MAX_LOGGED:
                self._logged.clear()
            self._logged[key] = why
            self._log.warn("row {key} of {collection} stays pending: {why}", key=key,
                           collection=COMMANDS, why=why)  # fmt: skip
