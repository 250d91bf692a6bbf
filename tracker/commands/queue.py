"""The commands of one device, in the order in which they are written to it."""

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

#: Commands of one device in memory, not counting one that is written. Of more only the IDs of
#: their entries are kept, so that they leave room for other devices' commands.
MAX_PER_DEVICE: Final = 200
#: Seconds after which a command that has expired behind others is ended, at least.
MIN_EXPIRY: Final = 0.5


class CommandQueue:
    """The commands of one device, and its connection.

    The head of the queue is worked on: while the device is connected, its command is carried to
    it; else all commands in memory are passed on to where the device is.

    :ivar connection: the device's connection; None if commands cannot be written to it here.
    """

    _log = Logger()

    def __init__(self, device_id: str, shared: QueueContext) -> None:
        self.device_id = device_id
        self.connection: IConnection | None = None
        self._shared = shared
        self._sender: CommandSender | None = None
        self._commands: dict[str, HeldCommand] = {}  # by ID
        self._unloaded: dict[str, bool] = {}  # ID of an entry → whether its command is doubtful
        self._work: Deferred[None] | None = None  # for ever, if it has failed

    @property
    def queued(self) -> int:
        """Number of commands that are not written yet."""
        return self._loaded + len(self._unloaded)

    @property
    def _loaded(self) -> int:
        """Number of those that are in memory."""
        return len(self._commands) - self.outstanding

    @property
    def _head(self) -> HeldCommand:
        return next(iter(self._commands.values()))

    @property
    def outstanding(self) -> bool:
        """True if a command is written and its answer is awaited."""
        return self._sender is not None and self._sender.state is State.WRITTEN

    @property
    def busy(self) -> bool:
        """True while there are commands that are worked on."""
        return self._work is not None

    def arrived(self, connection: IConnection) -> None:
        """Take a new connection of the device, in place of an older one."""
        self.connection = connection
        self._end_sender()

    def departed(self) -> None:
        """Give up the connection, which has ended."""
        self.connection = None
        self._end_sender()
        self._check_unused()

    def answered(self, answer: Answer) -> None:
        """Take what the device has sent, which may be an answer."""
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
        """Wait ``grace`` seconds for an answer that is awaited, and pass the others on.

        ``stopping`` must have been set.
        """
        end = None
        if self.outstanding:
            end = self._shared.clock.callLater(grace, self.departed)
        else:
            self.departed()
        if self._work is not None:
            await self._work
        if end is not None and end.active():
            end.cancel()

    async def _run(self, work: Deferred[None]) -> None:
        """Work on the commands until none is left, or only some that a stop leaves in Redis."""
        while self._commands or (self._unloaded and not self._shared.stopping):
            if self._is_short:
                await self._load()
            elif self.connection is None or self._shared.stopping:
                await self._pass_on()
            else:
                await self._carry(self.connection)
        self._work = None
        work.callback(None)
        self._check_unused()

    def _failed(self, failure: Failure, work: Deferred[None]) -> None:
        self._report(failure)
        work.callback(None)

    def _report(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # a stop that Redis has not answered in time
        self._log.failure("commands of {device} are stuck", failure, device=self.device_id)
        self._shared.stuck(self.device_id)

    def _check_unused(self) -> None:
        if not self.busy and self.connection is None:
            self._shared.unused(self.device_id)

    @property
    def _is_short(self) -> bool:
        """True if more of what is behind should be read."""
        few = len(self._commands) <= MAX_PER_DEVICE // 2
        return few and bool(self._unloaded) and not self._shared.stopping

    async def _load(self) -> None:
        """Read entries that are behind until enough of them are in memory."""
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

    async def _carry(self, connection: IConnection) -> None:
        """Work on the head, as long as this connection lasts."""
        if self._sender is None or self._sender.connection is not connection:
            self._sender = CommandSender(connection, self._shared)
        held = self._head
        state = await self._sender.carry(held)
        if self._sender.ended and self.connection is connection:
            # It is closing. The device is looked for elsewhere, or waited for.
            self.connection = None
        if state is State.UNWRITTEN:
            await self._offer(held, unwritten=True)
        if state is not State.KEPT:
            self._remove(held)

    async def _pass_on(self) -> None:
        """Pass on the commands in memory; those that are added meanwhile stay."""
        for held in list(self._commands.values()):
            if self._commands.get(held.command_id) is not held:
                continue  # it has expired meanwhile
            if self._shared.left(held) > 0:
                await self._offer(held)
            else:
                await self._shared.ledger.expire(held)
            self._remove(held)

    async def _offer(self, held: HeldCommand, unwritten: bool = False) -> None:
        step = await self._shared.ledger.offer(held, unwritten)
        if step is Effect.WAITS and self.connection is not None and not self._shared.stopping:
            # The device has come back, and was registered before this command began to wait.
            self._shared.fetch(self.device_id)

    def _end_sender(self) -> None:
        if self._sender is not None:
            self._sender.end()

    def _hold(self, held: HeldCommand) -> None:
        if self._commands:
            left = max(MIN_EXPIRY, self._shared.left(held))
            held.expiry = self._shared.clock.callLater(left, self._expire, held)
        self._commands[held.command_id] = held
        self._shared.entries.add(held)

    def _remove(self, held: HeldCommand) -> None:
        del self._commands[held.command_id]
        if held.expiry is not None and held.expiry.active():
            held.expiry.cancel()
        self._shared.release(held)

    def _expire(self, held: HeldCommand) -> None:
        """End a command that has expired behind others; the head is ended by its own work."""
        if held is not self._head:
            del self._commands[held.command_id]
            expired = Deferred.fromCoroutine(self._shared.ledger.expire(held))
            expired.addCallback(lambda _: self._shared.release(held)).addErrback(self._report)
