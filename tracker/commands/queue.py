"""The command queue of one device."""

from __future__ import annotations

from itertools import islice
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.command import Answer, Command
from tracker.commands.entries import HeldCommand
from tracker.commands.ledger import Effect
from tracker.commands.sender import CommandSender, State
from tracker.commands.shared import QueueContext
from tracker.interfaces import IConnection

#: Commands of one device in memory, without the one that is written. Of further commands only the
#: entry IDs are kept, which leaves memory for the commands of other devices.
MAX_PER_DEVICE: Final = 200
#: Seconds until the expiry timer of a queued command fires, at least.
MIN_EXPIRY: Final = 0.5


class CommandQueue:
    """The commands of one device, in the order in which they are written, and its connection.

    While the device is connected, the command at the head of the queue is sent. Otherwise all
    commands in memory are passed on to the instance that the device is connected to.

    :ivar connection: the device's connection; None if commands cannot be written here.
    """

    _log = Logger()

    def __init__(self, device_id: str, shared: QueueContext) -> None:
        self.device_id = device_id
        self.connection: IConnection | None = None
        self._shared = shared
        self._sender: CommandSender | None = None
        self._commands: dict[str, HeldCommand] = {}  # by ID
        self._unloaded: dict[str, bool] = {}  # entry ID → doubtful
        self._work: Deferred[None] | None = None  # remains set if the work has failed

    @property
    def queued(self) -> int:
        """Number of commands that are not written yet."""
        return self._loaded + len(self._unloaded)

    @property
    def _loaded(self) -> int:
        """Number of commands in memory that are not written yet."""
        return len(self._commands) - self.outstanding

    @property
    def _head(self) -> HeldCommand:
        return next(iter(self._commands.values()))

    @property
    def outstanding(self) -> bool:
        """True if a command is written and waits for its answer."""
        return self._sender is not None and self._sender.state is State.WRITTEN

    @property
    def busy(self) -> bool:
        """True while commands are processed."""
        return self._work is not None

    def connected(self, connection: IConnection) -> None:
        """Use a new connection of the device instead of an older one."""
        self.connection = connection
        self._end_sender()

    def disconnected(self) -> None:
        """Stop using the connection, which has ended."""
        self.connection = None
        self._end_sender()
        self._check_unused()

    def answered(self, answer: Answer) -> None:
        """Process text that the device has sent, which may be an answer."""
        if self._sender is not None:
            self._sender.answered(answer)

    def add(self, held: HeldCommand) -> None:
        """Append a command."""
        if self._unloaded or self._loaded >= MAX_PER_DEVICE:
            self._unloaded[held.entry.id] = held.doubtful
            self._shared.entries.add_unloaded(held.entry.id)
        else:
            self._hold(held)
        if not self.busy:
            work: Deferred[None] = Deferred()
            self._work = work
            Deferred.fromCoroutine(self._run(work)).addErrback(self._failed, work)

    async def stop(self, grace: float) -> None:
        """Pass on all commands, after waiting for the answer to one that is written.

        ``stopping`` must have been set.

        :param grace: seconds to wait for the answer.
        """
        timer = None
        if self.outstanding:
            timer = self._shared.clock.callLater(grace, self.disconnected)
        else:
            self.disconnected()
        if self._work is not None:
            await self._work
        if timer is not None and timer.active():
            timer.cancel()

    async def _run(self, work: Deferred[None]) -> None:
        """Process commands until the queue is empty; a stop leaves unloaded ones in Redis."""
        while self._commands or (self._unloaded and not self._shared.stopping):
            if self._is_short:
                await self._load()
            elif self.connection is None or self._shared.stopping:
                await self._pass_on()
            else:
                await self._send(self.connection)
        self._work = None
        work.callback(None)
        self._check_unused()

    def _failed(self, failure: Failure, work: Deferred[None]) -> None:
        self._report(failure)
        work.callback(None)

    def _report(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # the service stops, and Redis has not replied in time
        self._log.failure("command queue of {device} failed", failure, device=self.device_id)
        self._shared.stuck(self.device_id)

    def _check_unused(self) -> None:
        if not self.busy and self.connection is None:
            self._shared.unused(self.device_id)

    @property
    def _is_short(self) -> bool:
        """True if unloaded entries should be read."""
        few = len(self._commands) <= MAX_PER_DEVICE // 2
        return few and bool(self._unloaded) and not self._shared.stopping

    async def _load(self) -> None:
        """Read unloaded entries until enough commands are in memory."""
        shared = self._shared
        for entry_id, doubtful in list(islice(self._unloaded.items(), MAX_PER_DEVICE)):
            if shared.stopping or self._loaded >= MAX_PER_DEVICE:
                return
            entry = await shared.ledger.entry(shared.stream, entry_id)
            if entry.content is None:  # deleted, or moved by a janitor
                await shared.ledger.drop(entry)
                shared.entries.forget(entry_id)
            else:
                command = Command.from_entry(entry.content)
                if not shared.entries.join(entry, command):
                    self._hold(HeldCommand(entry, command, doubtful))
            del self._unloaded[entry_id]

    async def _send(self, connection: IConnection) -> None:
        """Send the command at the head of the queue."""
        if self._sender is None or self._sender.connection is not connection:
            self._sender = CommandSender(connection, self._shared)
        held = self._head
        state = await self._sender.send(held)
        if self._sender.ended and self.connection is connection:
            # The connection is closing: pass on the other commands.
            self.connection = None
        if state is State.UNWRITTEN:
            await self._offer(held, unwritten=True)
        if state is not State.KEPT:
            self._remove(held)

    async def _pass_on(self) -> None:
        """Pass on the commands in memory, except for those that are added meanwhile."""
        for held in list(self._commands.values()):
            if self._commands.get(held.command_id) is not held:
                continue  # the command has expired meanwhile
            if self._shared.seconds_left(held) > 0:
                await self._offer(held)
            else:
                await self._shared.ledger.expire(held)
            self._remove(held)

    async def _offer(self, held: HeldCommand, unwritten: bool = False) -> None:
        effect = await self._shared.ledger.offer(held, unwritten)
        if effect is Effect.WAITS and self.connection is not None and not self._shared.stopping:
            # The device has reconnected, and was registered before this command began to wait.
            self._shared.fetch(self.device_id)

    def _end_sender(self) -> None:
        if self._sender is not None:
            self._sender.end()

    def _hold(self, held: HeldCommand) -> None:
        if self._commands:
            seconds = max(MIN_EXPIRY, self._shared.seconds_left(held))
            held.expiry = self._shared.clock.callLater(seconds, self._expire, held)
        self._commands[held.command_id] = held
        self._shared.entries.add(held)

    def _remove(self, held: HeldCommand) -> None:
        del self._commands[held.command_id]
        if held.expiry is not None and held.expiry.active():
            held.expiry.cancel()
        self._shared.release(held)

    def _expire(self, held: HeldCommand) -> None:
        """End a command that has expired in the queue; the head expires in ``_send``."""
        if held is not self._head:
            del self._commands[held.command_id]
            expired = Deferred.fromCoroutine(self._shared.ledger.expire(held))
            expired.addCallback(lambda _: self._shared.release(held)).addErrback(self._report)
