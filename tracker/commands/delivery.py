"""Reads the commands for an instance's devices from Redis into one queue for each device.

An entry is read once, by the one consumer of the group ``ingest`` on the instance's stream,
and stays there until its command has ended or was passed on. So the next process of the same
name, or a janitor, finds what this process leaves behind, and learns from Redis alone whether
it was about to be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,  # noqa: A004
    gatherResults,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.command import Answer, BadCommand, Command, Reason, StatusUpdate, claimed_identity
from tracker.commands.entries import Entries, HeldCommand
from tracker.commands.ledger import CommandLedger
from tracker.commands.queue import CommandQueue
from tracker.commands.retrying import RetryingLedger
from tracker.commands.shared import QueueContext, Timing
from tracker.errors import Refused, Unavailable
from tracker.interfaces import IConnection
from tracker.keys import outbound
from tracker.log.allowance import Allowance
from tracker.log.entries import Delivered
from tracker.log.interfaces import IRecordReader
from tracker.observe.figures import Distribution
from tracker.observe.health import Condition, Watchdog
from tracker.observe.ratelimit import LimitedLog
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Stopped, Waits

#: Seconds that a read waits for an entry.
READ_WAIT: Final = 5.0
#: Entries of one read.
BATCH: Final = 100
#: Seconds until the stream is read again after an error: at first, and at most.
MIN_RETRY_DELAY: Final = 1.0
MAX_RETRY_DELAY: Final = 10.0
#: Seconds without a turn after which the loop is stuck.
WATCHDOG_TIMEOUT: Final = 120.0
#: Seconds that a stop waits for answers, and for all of it.
STOP_GRACE: Final = 2.0
STOP_TIMEOUT: Final = 5.0
#: Bounds of the seconds that devices take to answer.
ANSWER_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class CommandDelivery(Service):
    """The commands of one instance.

    :param reader: the one member of the group on the instance's stream.
    :param ledger: takes steps in the name of the instance.
    :param waits: True: a command waits for a device that is not connected to any instance; False:
        it fails.
    :param fetch: requests the commands that wait for a device, since it is connected here.
    :param condition: met while commands are read and delivered.
    :param watchdog: is reset while they are read.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        reader: IRecordReader,
        ledger: CommandLedger,
        instance_id: str,
        *,
        timing: Timing,
        waits: bool,
        fetch: Callable[[str], None],
        condition: Condition,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.entries = Entries()
        self.answers = Distribution(ANSWER_SECONDS)
        """Seconds from a command to its answer."""
        self._reader = reader
        self._condition = condition
        self._reasons: dict[str, str] = {}  # what fails → why
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self._queues: dict[str, CommandQueue] = {}  # by device
        self._shared = QueueContext(
            clock=clock,
            ledger=RetryingLedger(
                clock,
                ledger,
                waits=waits,
                condition=Condition(lambda reason: self._note("delivery", reason)),
            ),
            entries=self.entries,
            stream=outbound(instance_id),
            timing=timing,
            answers=self.answers,
            fetch=fetch,
            release=self._release,
            unused=self._unused,
            stuck=self._stuck,
        )
        self._rejections = LimitedLog(clock, self._log)
        self._waits = Waits(clock)
        self._loop: Deferred[None] | None = None

    def startService(self) -> None:
        """Be ready; :meth:`begin` starts reading."""
        super().startService()
        self._note("reading", None)

    def begin(self) -> None:
        """Read the stream, now that no other process has this instance's id."""
        if self.running and self._loop is None:
            self._loop = Deferred.fromCoroutine(self._run()).addErrback(self._died)

    def arrived(self, connection: IConnection, device_id: str) -> None:
        """Take a connection on which a device has logged in, in place of an older one."""
        self._queue(device_id).arrived(connection)

    def departed(self, connection: IConnection, device_id: str) -> None:
        """Give up a connection that has ended, if it still is the device's."""
        queue = self._queues.get(device_id)
        if queue is not None and queue.connection is connection:
            queue.departed()

    def answered(self, connection: IConnection, answer: Answer) -> None:
        """Take what a device has sent, which may be an answer."""
        queue = self._queues.get(connection.device_id or "")
        if queue is not None and queue.connection is connection:
            queue.answered(answer)

    def load(self, device_id: str) -> tuple[int, bool]:
        """Return how many commands are queued for a device, and whether one is outstanding."""
        queue = self._queues.get(device_id)
        return (0, False) if queue is None else (queue.queued, queue.outstanding)

    @property
    def responses(self) -> Counter[tuple[str, str]]:
        """Status and reason → responses that this instance has given."""
        return self._shared.ledger.responses

    @property
    def held(self) -> int:
        """Number of entries that this instance is responsible for."""
        return len(self.entries)

    def holds(self, command_id: str) -> bool:
        """Return True if this command is in memory here."""
        return command_id in self.entries.commands

    def stopService(self) -> Deferred[None]:
        """Write nothing more; fires when all is answered, given up or passed on."""
        super().stopService()
        self._shared.stopping = True
        self._watchdog.suspend()
        self._waits.stop()
        # What is under way when time is up is left alone, and not cancelled within a step.
        stopped: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._stop()).chainDeferred(stopped)
        return stopped.addTimeout(STOP_TIMEOUT, self._shared.clock).addErrback(self._stop_overdue)

    async def _stop(self) -> None:
        await (self._loop or succeed(None))
        busy = [queue for queue in self._queues.values() if queue.busy]
        stops = [Deferred.fromCoroutine(queue.stop(STOP_GRACE)) for queue in busy]
        await gatherResults(stops, consumeErrors=True)

    def _stop_overdue(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self._log.info(
            "{count} commands are left to the next start, or to the janitor", count=self.held
        )

    async def _run(self) -> None:
        backoff = Backoff(self._shared.clock, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        with suppress(Stopped):
            while True:
                try:
                    await self._read(backoff)
                except (Refused, Unavailable) as error:
                    self._note("reading", f"commands cannot be read: {error}")
                    self._watchdog.reset()
                    backoff.failed()
                    await self._waits.result(backoff.wait())
        self._watchdog.suspend()

    async def _read(self, backoff: Backoff) -> None:
        """Read entries for ever.

        :raises Stopped: when the service stops.
        """
        reader, stream = self._reader, self._shared.stream
        self._watchdog.suspend()
        await self._waits.result(reader.when_connected())
        self._watchdog.reset()
        # Entries that are there may have been read through a group that was lost.
        doubtful = await self._waits.result(reader.join(stream))
        self._note("reading", None)
        backoff.succeeded()
        async for entries in reader.unfinished([stream]):
            if self._waits.stopped:
                raise Stopped
            # A former process has read them, or this one over a connection that it has lost.
            self._take_all(entries, doubtful=True)
        while True:
            room = self.entries.room
            if room <= 0:
                self._watchdog.suspend()
                await self._waits.result(self.entries.when_room())
                continue
            self._watchdog.reset()
            reading = reader.read(Allowance([stream], min(room, BATCH)), READ_WAIT)
            entries = await self._waits.result(reading)
            self._take_all(entries, doubtful)
            doubtful = doubtful and bool(entries)

    def _take_all(self, entries: Sequence[Delivered], doubtful: bool) -> None:
        self._watchdog.reset()
        for entry in entries:
            self._take(entry, doubtful)

    def _take(self, entry: Delivered, doubtful: bool) -> None:
        """Put a command into the queue of its device, or refuse what is not a command."""
        if self._shared.stopping or entry.id in self.entries:
            return  # it stays pending
        if entry.content is None:
            self._finish(entry, self._shared.ledger.drop(entry))
            return
        try:
            command = Command.from_entry(entry.content)
        except BadCommand as error:
            self._refuse(entry, str(error))
            return
        if not self.entries.join(entry, command):
            self._queue(command.device_id).add(HeldCommand(entry, command, doubtful))

    def _refuse(self, entry: Delivered, why: str) -> None:
        command_id, device_id = claimed_identity(entry.fields)
        update = StatusUpdate.failed(Reason.MALFORMED, why)
        self._finish(entry, self._shared.ledger.refuse(entry, command_id, device_id, update))
        self._rejections.warn(
            "{stream}: entry {id} is not a command: {why}",
            stream=entry.stream,
            id=entry.id,
            why=why,
        )

    def _finish(self, entry: Delivered, step: Coroutine[Deferred[Any], Any, None]) -> None:
        """Hold an entry without a command while a step is taken with it."""
        self.entries.hold(entry.id)
        finished = Deferred.fromCoroutine(step)
        finished.addCallback(lambda _: self.entries.forget(entry.id)).addErrback(self._died)

    def _release(self, held: HeldCommand) -> None:
        self.entries.release(held)
        for entry in held.others:
            self._take(entry, doubtful=True)

    def _queue(self, device_id: str) -> CommandQueue:
        queue = self._queues.get(device_id)
        if queue is None:
            queue = self._queues[device_id] = CommandQueue(device_id, self._shared)
        return queue

    def _unused(self, device_id: str) -> None:
        self._queues.pop(device_id, None)

    def _stuck(self, device_id: str) -> None:
        reason = f"commands of {device_id} are stuck, see the log: restart this instance"
        self._note("queues", reason)

    def _died(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # a stop that Redis has not answered in time
        self._log.failure("commands are no longer read", failure)
        self._note("loop", f"commands are no longer read: {failure.getErrorMessage()}")

    def _note(self, what: str, reason: str | None) -> None:
        """Report the first of the reasons why commands are not delivered, or None."""
        self._reasons.pop(what, None)
        if reason is not None:
            self._reasons[what] = reason
        if self._reasons:
            self._condition.fails(next(iter(self._reasons.values())))
        else:
            self._condition.met()
