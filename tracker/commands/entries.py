"""The entries of its stream that an instance is responsible for, and their bounds."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from tracker.command import EXPIRED, Command, CommandFrame, StatusUpdate
from tracker.interfaces import IConnection
from tracker.log.entries import Delivered

#: Entries whose commands are in memory; the others stay in Redis until some of these have ended.
MAX_HELD: Final = 20_000
#: Entries of which only the ID is in memory.
MAX_UNLOADED: Final = 200_000


@define(eq=False)
class HeldCommand:
    """A command in memory, and the entry that makes this instance responsible for it."""

    entry: Delivered
    command: Command
    doubtful: bool = False
    """True if a former process may have begun with the command."""
    others: list[Delivered] = field(factory=list)
    """More entries of the same command; they are taken when this one is released."""
    update: StatusUpdate = EXPIRED
    """The final response that the command will get."""
    connection: IConnection = field(init=False)
    """The connection that :attr:`frame` was made for."""
    frame: CommandFrame = field(init=False)
    delivered: Deferred[None] | None = None
    """Once the command is written: fires when Redis knows."""
    expiry: IDelayedCall | None = None
    """Ends the command if it expires behind others."""

    @property
    def command_id(self) -> str:
        """ID of the command."""
        return self.command.command_id


class Entries:
    """The entries that the instance has read and not finished, each of them once.

    They are *held* with their command, or *behind*: a device has so many commands that only the
    IDs of the further entries are kept.
    """

    def __init__(self) -> None:
        self.commands: dict[str, HeldCommand] = {}
        """Command ID → the command that is held."""
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
        """Return a Deferred that fires when there is room; it may be cancelled."""
        if self.room > 0:
            return succeed(None)
        self._room_waiter = Deferred()
        return self._room_waiter

    def hold(self, entry_id: str) -> None:
        """Add an entry, or move it here from those that are behind."""
        self._unloaded.discard(entry_id)
        self._held.add(entry_id)
        self._notify_room()

    def add_unloaded(self, entry_id: str) -> None:
        """Add an entry of which only the ID is kept."""
        self._held.discard(entry_id)
        self._unloaded.add(entry_id)

    def forget(self, entry_id: str) -> None:
        """Remove an entry that is finished, or left to another process."""
        self._held.discard(entry_id)
        self._unloaded.discard(entry_id)
        self._notify_room()

    def add(self, held: HeldCommand) -> None:
        """Hold a command with its entry."""
        self.commands[held.command_id] = held
        self.hold(held.entry.id)

    def join(self, entry: Delivered, command: Command) -> bool:
        """Hold an entry of a command that is held already; return False if it is not."""
        held = self.commands.get(command.command_id)
        if held is None:
            return False
        # It is not deleted yet: a janitor that took this instance for dead may have moved the
        # first entry, and this may be the copy.
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
