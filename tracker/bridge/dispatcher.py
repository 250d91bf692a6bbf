"""Send the commands of pending rows to the instances.

A row is pending until an instance has accepted its command. Webhook requests announce new rows, and
a regular poll finds all pending rows. Both yield only row IDs; the command is always read from
the row. The command ID is the row ID, and a command ID is sent to a device at most once. An
interrupted send can therefore be repeated safely.
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

from tracker.bridge.failingrows import FailingRows, calls_for_a_pause
from tracker.bridge.instances import NoInstance
from tracker.bridge.lanes import Lanes
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.pending import (
    PAGE_SIZE,
    PageCursor,
    PendingRows,
    ReadyRows,
    Row,
    in_sending_order,
)
from tracker.bridge.rest import DirectusError
from tracker.bridge.routing import Router
from tracker.bridge.rows import device_of
from tracker.bridge.schema import COMMANDS
from tracker.control.commands import ControlError
from tracker.observe.health import Condition, Watchdog
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Stopped, Waits

#: Seconds between two polls for pending rows.
INTERVAL: Final = 10.0
#: Maximum delay in seconds until the next attempt after repeated failures.
MAX_BACKOFF: Final = 15.0
#: Maximum number of announced rows that wait to be read; the next poll finds the others.
MAX_ANNOUNCED: Final = 2000
#: Seconds that a stop waits for commands that are being sent.
STOP_TIMEOUT: Final = 5.0
#: Seconds beyond the interval after which a poll counts as stuck.
WATCHDOG_TIMEOUT: Final = 600.0
#: Maximum number of rows for which the last logged reason is remembered.
_MAX_LOGGED: Final = 1000


class SendBackoff:
    """The pause in sending after a failure of Directus or of all instances.

    :param backoff: determines the length of the pause.
    :param condition: is met while attempts succeed.
    """

    def __init__(self, backoff: Backoff, condition: Condition) -> None:
        self.failures = 0
        """Number of failures since the start."""
        self._backoff = backoff
        self._condition = condition

    @property
    def left(self) -> float:
        """Remaining seconds of the pause."""
        return self._backoff.left

    def failed(self, reason: str, error: Exception) -> None:
        """Start a pause.

        :param reason: the reason for the condition, in one line.
        :param error: its ``retry_after``, if any, prolongs the pause.
        """
        self.failures += 1
        self._condition.fails(reason)
        if not self._backoff.left:  # otherwise another row has failed at the same time
            self._backoff.failed(getattr(error, "retry_after", None))

    def succeeded(self) -> None:
        """Reset the backoff to its first delay."""
        if not self._backoff.left:
            self._backoff.succeeded()
            self._condition.met()


class Dispatcher(Service):
    """A service that sends the commands of pending rows.

    :param failing_rows: rows that Directus has failed to change; None: a new list.
    :param interval: seconds between two polls.
    :param watchdog: is reset at each poll.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        pending: PendingRows,
        router: Router,
        send_backoff: SendBackoff,
        metrics: BridgeMetrics,
        failing_rows: FailingRows | None = None,
        interval: float = INTERVAL,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.lanes = Lanes()
        """The rows that are being sent."""
        self._clock = clock
        self._pending = pending
        self._router = router
        self._send_backoff = send_backoff
        self._metrics = metrics
        self._failing_rows = failing_rows or FailingRows(clock)
        self._interval = interval
        self._watchdog = watchdog or Watchdog(interval + WATCHDOG_TIMEOUT)
        self._announced: dict[str, None] = {}  # row IDs, in the order of their announcement
        self._logged: dict[str, str] = {}  # row ID → logged reason why it stays pending
        self._waits = Waits(clock)
        self._pause = Waits(clock)  # between two polls
        self._poll_again = False
        self._polling: Deferred[None] = succeed(None)
        self._reading: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Poll for pending rows now, and then regularly."""
        super().startService()
        self._waits = Waits(self._clock)
        self._polling = Deferred.fromCoroutine(self._poll_regularly())

    def stopService(self) -> Deferred[None]:
        """Start no new sends, and wait up to :data:`STOP_TIMEOUT` for those in progress."""
        super().stopService()
        self._watchdog.suspend()
        self._announced.clear()
        self._waits.stop()
        self._pause.stop()
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        with suppress(TimeoutError):  # the next start sends the remaining commands
            await self.lanes.all_done().addTimeout(STOP_TIMEOUT, self._clock)
        await self._polling
        await self._reading

    def announce(self, key: str) -> bool:
        """Queue a row that may be new, to be read soon.

        :param key: the row's ID, a UUID in lower case.
        :return: False if the queue is full or the service is stopped.
        """
        if not self.running or len(self._announced) >= MAX_ANNOUNCED:
            return False
        if key not in self.lanes.keys:
            self._announced[key] = None
            if self._reading.called:
                self._reading = Deferred.fromCoroutine(self._read_announced())
        return True

    async def _read_announced(self) -> None:
        """Read the announced rows, and send their commands."""
        with suppress(Stopped):
            # Rows that are announced in the same reactor turn are read together.
            await self._waits.result(deferLater(self._clock, 0))
            while self._announced:
                keys = list(self._announced)[:PAGE_SIZE]
                for key in keys:
                    del self._announced[key]
                if self._send_backoff.left:
                    continue  # the poll after the pause finds them
                await self._read(keys)
                await self._waits.result(self.lanes.room)

    async def _read(self, keys: Sequence[str]) -> None:
        try:
            rows = await self._waits.result(self._pending.by_ids(keys))
            ready = await self._waits.result(
                self._pending.with_older(rows, self._failing_rows.waiting)
            )
        except DirectusError as error:
            self._send_backoff.failed(f"cannot read pending commands: {error}", error)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the next poll reads these rows again
            self._log.failure("cannot read announced commands")
        else:
            if self._send_backoff.left:
                return  # another request has failed in the meantime
            failures = self._send_backoff.failures
            for row in ready.rows:
                self._start_sending(row, failures)
            if ready.postponed:
                self._poll_soon()

    async def _poll_regularly(self) -> None:
        while not self._waits.stopped:
            self._watchdog.reset()
            self._poll_again = False
            with suppress(Stopped):
                self._poll_again |= await self._poll_safely()
            self._watchdog.suspend()
            if not self._waits.stopped:
                self._pause = Waits(self._clock)
                await self._pause.sleep(self._delay)

    @property
    def _delay(self) -> float:
        return self._send_backoff.left or (0 if self._poll_again else self._interval)

    def _poll_soon(self) -> None:
        """Poll at once, or after the current poll, because rows were postponed."""
        self._poll_again = True
        if not self._send_backoff.left:
            self._pause.stop()

    async def _poll_safely(self) -> bool:
        try:
            return await self._poll()
        except DirectusError as error:
            self._send_backoff.failed(f"cannot read pending commands: {error}", error)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - polling must continue after an unexpected error
            self._log.failure("cannot poll for pending commands")
        return False

    async def _poll(self) -> bool:
        """Send all pending rows, the newest first; return True if another poll must follow."""
        cursor, failures = PageCursor(), self._send_backoff.failures
        known = set(self._failing_rows.keys)
        seen: set[str] = set()
        deadline = self._clock.seconds() + self._interval
        postponed = progress = False
        while not self._waits.stopped:
            page = await self._waits.result(self._pending.page(cursor))
            if not page:
                break
            if len(page) < PAGE_SIZE:
                ready = ReadyRows(in_sending_order(page), False)  # no older rows exist
            else:
                waiting = self._failing_rows.waiting
                ready = await self._waits.result(self._pending.with_older(page, waiting))
            if self._send_backoff.failures != failures:
                return True
            seen.update(row["id"] for row in page if row["id"] in known)
            left = await self._send_all(ready.rows)
            progress |= len(left) < len(ready.rows)
            left |= {row["id"] for row in page} - {row["id"] for row in ready.rows}
            if self._send_backoff.failures != failures:
                return True
            postponed |= ready.postponed
            if not cursor.advance(page, left):
                break
            if self._clock.seconds() >= deadline:
                return True  # newer rows may exist by now
        for key in known - seen:  # it was deleted, or another program has changed it
            self._failing_rows.forget(key)
        self._metrics.set_aside("commands", len(self._failing_rows.at_fault))
        if (error := self._failing_rows.blamed) is not None:
            self._send_backoff.failed(f"cannot update commands: {error}", error)
            return False
        self._send_backoff.succeeded()
        return postponed and progress

    async def _send_all(self, rows: Sequence[Row]) -> set[str]:
        """Send rows; return the IDs of those that are still pending or may be."""
        failures = self._send_backoff.failures
        sending = [(row["id"], self._start_sending(row, failures)) for row in rows]
        results = await DeferredList([sent for _, sent in sending], consumeErrors=True)
        return {
            key
            for (key, _), (success, changed) in zip(sending, results, strict=True)
            if not (success and changed)
        }

    def _start_sending(self, row: Row, failures: int) -> Deferred[bool]:
        """Send a row after the earlier rows of its device.

        :param failures: :attr:`SendBackoff.failures` when the row was read.
        :return: fires with True if the row was changed.
        """
        self._announced.pop(row["id"], None)
        return self.lanes.start(row["id"], device_of(row), lambda: self._send(row, failures))

    async def _send(self, row: Row, failures: int) -> bool:
        # After a failure all rows are read again: an earlier row of this device may be unsent.
        if not self.running or failures != self._send_backoff.failures:
            return False
        if self._failing_rows.is_waiting(row["id"]):
            return False
        try:
            if "error" in row:
                raise row["error"]
            changed = await self._router.send(row)
        except DirectusError as error:
            self._row_failed(row["id"], error)
        except NoInstance as error:
            self._send_backoff.failed(f"cannot send commands: {error}", error)
        except ControlError as error:
            self._log_once(row["id"], str(error))
        except CancelledError:
            return False
        except Exception:  # noqa: BLE001 - a failure must not stop the other rows
            self._log.failure("command {key} cannot be sent", key=row["id"])
        else:
            self._logged.pop(row["id"], None)
            self._failing_rows.succeeded(row["id"])
            self._send_backoff.succeeded()
            return changed
        self._metrics.commands.labels("not_sent").inc()
        return False

    def _row_failed(self, key: str, error: DirectusError) -> None:
        self._failing_rows.failed(key, error)
        if self._failing_rows.is_at_fault(key):
            self._log_once(key, str(error))
        elif calls_for_a_pause(error) or self._failing_rows.failures % PAGE_SIZE == 0:
            self._send_backoff.failed(f"cannot update commands: {error}", error)
        # Otherwise other rows are tried first: one that succeeds shows that this one is at fault.

    def _log_once(self, key: str, reason: str) -> None:
        """Log the reason why a row stays pending, unless it is the reason logged last."""
        if self._logged.get(key) != reason:
            if len(self._logged) >= _MAX_LOGGED:
                self._logged.clear()
            self._logged[key] = reason
            self._log.warn("row {key} of {collection} stays pending: {reason}", key=key,
                           collection=COMMANDS, reason=reason)  # fmt: skip
