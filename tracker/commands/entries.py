"""The stream entries that an instance is responsible for, and their limits."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from tracker.command import EXPIRED, Command, CommandFrame, StatusUpdate
from tracker.interfaces import IConnection
from tracker.log.entries import StreamEntry

#: Entries whose commands are in memory; further ones stay in Redis until some of these are done.
MAX_HELD: Final = 20_000
#: Entries that were read, and of which only the ID is in memory.
MAX_UNLOADED: Final = 200_000


@define(eq=False)
class HeldCommand:
    """A command in memory, and the entry that makes this instance responsible for it."""

    entry: StreamEntry
    command: Command
    doubtful: bool = False
    """True if the command may have been claimed before it was read."""
    others: list[StreamEntry] = field(factory=list)
    """Further entries of the same command; they are processed when this one is released."""
    update: StatusUpdate = EXPIRED
    """Content of the final response."""
    connection: IConnection = field(init=False)
    """The connection that :attr:`frame` was made for."""
    frame: CommandFrame = field(init=False)
    delivered: Deferred[None] | None = None
    """Set when the command is written; fires when Redis has recorded that."""
    expiry: IDelayedCall | None = None
    """Timer that ends the command if it expires in the queue."""

    @property
    def command_id(self) -> str:
        """ID of the command."""
        return self.command.command_id


class Entries:
    """The entries that the instance has read and not finished, each of them once.

    An entry is either *held*, together with its command, or *unloaded*: its device has too many
    commands, and only the entry's ID is in memory.
    """

    def __init__(self) -> None:
        self.commands: dict[str, HeldCommand] = {}
        """Command ID → held command."""
        self._held: set[str] = set()
        self._unloaded: set[str] = set()
        self._room_waiter: Deferred[None] | None = None

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._held or entry_id in self._unloaded

    def __len__(self) -> int:
        return len(self._held) + len(self._unloaded)

    @property
    def held(self) -> int:
        """Number of entries that are held."""
        return len(self._held)

    @property
    def room(self) -> int:
        """Number of entries that may be read now."""
        return min(MAX_HELD - len(self._held), MAX_UNLOADED - len(self._unloaded))

    def when_room(self) -> Deferred[None]:
        """Return a Deferred that fires when entries may be read; it may be cancelled."""
        if self.room > 0:
            return succeed(None)
        self._room_waiter = Deferred()
        return self._room_waiter

    def hold(self, entry_id: str) -> None:
        """Add a held entry, or turn an unloaded entry into a held one."""
        self._unloaded.discard(entry_id)
        self._held.add(entry_id)
        self._notify_room()

    def add_unloaded(self, entry_id: str) -> None:
        """Add an unloaded entry, or turn a held entry into an unloaded one."""
        self._held.discard(entry_id)
        self._unloaded.add(entry_id)

    def forget(self, entry_id: str) -> None:
        """Remove an entry that is done, or that another process now owns."""
        self._held.discard(entry_id)
        self._unloaded.discard(entry_id)
        self._notify_room()

    def add(self, held: HeldCommand) -> None:
        """Add a command and its entry."""
        self.commands[held.command_id] = held
        self.hold(held.entry.id)

    def join(self, entry: StreamEntry, command: Command) -> bool:
        """Add a further entry of a held command; return False if the command is not held."""
        held = self.commands.get(command.command_id)
        if held is None:
            return False
        # The further entry is not deleted yet: a janitor that considered this instance dead may
        # have moved the first entry, and this one may be the copy.
        held.others.append(entry)
        self.hold(entry.id)
        return True

    def release(self, held: HeldCommand) -> None:
        """Remove a command with all its entries."""
        del self.commands[held.command_id]
        for entry in (held.entry, *held.others):
            self.forget(entry.id)

    def _notify_room(self) -> None:
        if self._room_waiter is not None and self.room > 0:
            awaited, self._room_waiter = self._room_waiter, None
            if not awaited.called:
                awaited.callback(None)
