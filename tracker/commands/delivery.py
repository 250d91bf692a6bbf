"""Delivery of commands: read an instance's commands from Redis into one queue for each device.

An entry is read once, by the only consumer of the group ``ingest`` on the instance's stream, and
stays in the stream until its command has ended or was passed on. Therefore the next process with
the same instance ID, or a janitor, finds the commands that this process has not finished, and
finds in Redis whether they were claimed.
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
from tracker.log.entries import StreamEntry
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
#: Seconds before the stream is read again after an error.
MIN_RETRY_DELAY: Final = 1.0
MAX_RETRY_DELAY: Final = 10.0
#: Seconds without a pass of the reading loop after which it counts as stuck.
WATCHDOG_TIMEOUT: Final = 120.0
#: Seconds that a stop waits for the answers of devices.
STOP_GRACE: Final = 2.0
#: Seconds that a stop takes at most.
STOP_TIMEOUT: Final = 5.0
#: Upper bounds of the buckets for the seconds from a command to its answer.
ANSWER_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class CommandDelivery(Service):
    """Delivers the commands of one instance to its devices.

    :param reader: the only member of the group on the instance's stream.
    :param ledger: the ledger of the instance.
    :param waits: True: a command waits for a device that is not connected to any instance; False:
        it fails.
    :param fetch: requests the commands that wait for a device that is connected here.
    :param condition: met while commands are read and delivered.
    :param watchdog: reset while commands are read.
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
        """Distribution of the seconds from a command to its answer."""
        self._reader = reader
        self._condition = condition
        self._reasons: dict[str, str] = {}  # part that fails → reason
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
        """Start the service; :meth:`begin` starts reading."""
        super().startService()
        self._note("reading", None)

    def begin(self) -> None:
        """Start reading the stream. No other process may have this instance's ID then."""
        if self.running and self._loop is None:
            self._loop = Deferred.fromCoroutine(self._run()).addErrback(self._failed)

    def connected(self, connection: IConnection, device_id: str) -> None:
        """Use a connection on which a device has logged in instead of an older one."""
        self._queue(device_id).connected(connection)

    def disconnected(self, connection: IConnection, device_id: str) -> None:
        """Stop using a connection that has ended, unless the device has a newer one."""
        queue = self._queues.get(device_id)
        if queue is not None and queue.connection is connection:
            queue.disconnected()

    def answered(self, connection: IConnection, answer: Answer) -> None:
        """Process text that a device has sent, which may be an answer."""
        queue = self._queues.get(connection.device_id or "")
        if queue is not None and queue.connection is connection:
            queue.answered(answer)

    def backlog(self, device_id: str) -> tuple[int, bool]:
        """Return the number of commands queued for a device, and True if one is outstanding."""
        queue = self._queues.get(device_id)
        return (0, False) if queue is None else (queue.queued, queue.outstanding)

    @property
    def responses(self) -> Counter[tuple[str, str]]:
        """Status and reason → number of responses that this instance has given."""
        return self._shared.ledger.responses

    @property
    def held(self) -> int:
        """Number of entries that this instance is responsible for."""
        return len(self.entries)

    def command(self, command_id: str) -> Command | None:
        """Return a command that is in memory here; None for any other."""
        held = self.entries.commands.get(command_id)
        return None if held is None else held.command

    def stopService(self) -> Deferred[None]:
        """Stop writing commands; fires when all have ended or were passed on, or on timeout."""
        super().stopService()
        self._shared.stopping = True
        self._watchdog.suspend()
        self._waits.stop()
        # The time limit does not cancel _stop: an operation on the ledger may be in progress.
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
            "stop timed out; commands left for the next start or the janitor: {count}",
            count=self.held,
        )

    async def _run(self) -> None:
        backoff = Backoff(self._shared.clock, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        with suppress(Stopped):
            while True:
                try:
                    await self._read(backoff)
                except (Refused, Unavailable) as error:
                    self._note("reading", f"cannot read commands: {error}")
                    self._watchdog.reset()
                    backoff.failed()
                    await self._waits.result(backoff.wait())
        self._watchdog.suspend()

    async def _read(self, backoff: Backoff) -> None:
        """Read entries until the service stops.

        :raises Stopped: when the service stops.
        """
        reader, stream = self._reader, self._shared.stream
        self._watchdog.suspend()
        await self._waits.result(reader.when_connected())
        self._watchdog.reset()
        # If the group had to be created, its stream may contain entries that were read through an
        # earlier group.
        doubtful = await self._waits.result(reader.join(stream))
        self._note("reading", None)
        backoff.succeeded()
        async for entries in reader.unfinished([stream]):
            if self._waits.stopped:
                raise Stopped
            # Read by an earlier process, or by this one before it lost a connection to Redis.
            self._add_all(entries, doubtful=True)
        while True:
            room = self.entries.room
            if room <= 0:
                self._watchdog.suspend()
                await self._waits.result(self.entries.when_room())
                continue
            self._watchdog.reset()
            reading = reader.read(Allowance([stream], min(room, BATCH)), READ_WAIT)
            entries = await self._waits.result(reading)
            self._add_all(entries, doubtful)
            doubtful = doubtful and bool(entries)

    def _add_all(self, entries: Sequence[StreamEntry], doubtful: bool) -> None:
        self._watchdog.reset()
        added = [(entry, self._add(entry, doubtful)) for entry in entries]
        # Programs in other languages append commands without an index of deadlines.
        commands = [(entry, command) for entry, command in added if command is not None]
        indexed = Deferred.fromCoroutine(self._shared.ledger.index(commands))
        indexed.addErrback(self._failed)

    def _add(self, entry: StreamEntry, doubtful: bool) -> Command | None:
        """Add a command to the queue of its device, or refuse an entry that is not a command.

        :return: the command; None if nothing was added.
        """
        if self._shared.stopping or entry.id in self.entries:
            return None  # the entry stays pending
        if entry.content is None:
            self._finish(entry, self._shared.ledger.drop(entry))
            return None
        try:
            command = Command.from_entry(entry.content)
        except BadCommand as error:
            self._refuse(entry, str(error))
            return None
        if not self.entries.join(entry, command):
            self._queue(command.device_id).add(HeldCommand(entry, command, doubtful))
        return command

    def _refuse(self, entry: StreamEntry, why: str) -> None:
        command_id, device_id = claimed_identity(entry.fields)
        update = StatusUpdate.failed(Reason.MALFORMED, why)
        self._finish(entry, self._shared.ledger.refuse(entry, command_id, device_id, update))
        self._rejections.warn(
            "{stream}: entry {id} is not a command: {why}",
            stream=entry.stream,
            id=entry.id,
            why=why,
        )

    def _finish(self, entry: StreamEntry, operation: Coroutine[Deferred[Any], Any, None]) -> None:
        """Hold an entry without a command during an operation on it."""
        self.entries.hold(entry.id)
        finished = Deferred.fromCoroutine(operation)
        finished.addCallback(lambda _: self.entries.forget(entry.id)).addErrback(self._failed)

    def _release(self, held: HeldCommand) -> None:
        self.entries.release(held)
        for entry in held.others:
            self._add(entry, doubtful=True)

    def _queue(self, device_id: str) -> CommandQueue:
        queue = self._queues.get(device_id)
        if queue is None:
            queue = self._queues[device_id] = CommandQueue(device_id, self._shared)
        return queue

    def _unused(self, device_id: str) -> None:
        self._queues.pop(device_id, None)

    def _stuck(self, device_id: str) -> None:
        reason = f"command queue of {device_id} failed; see the log, then restart this instance"
        self._note("queues", reason)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # the service stops, and Redis has not replied in time
        self._log.failure("delivery of commands failed", failure)
        self._note("loop", f"delivery of commands failed: {failure.getErrorMessage()}")

    def _note(self, part: str, reason: str | None) -> None:
        """Set or clear the reason why a part fails, and report the oldest reason."""
        self._reasons.pop(part, None)
        if reason is not None:
            self._reasons[part] = reason
        if self._reasons:
            self._condition.fails(next(iter(self._reasons.values())))
        else:
            self._condition.met()
