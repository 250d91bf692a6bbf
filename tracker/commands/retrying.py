"""Operations of the ledger that are repeated until Redis accepts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.command import EXPIRED, Command, StatusUpdate
from tracker.commands.entries import HeldCommand
from tracker.commands.ledger import CommandLedger, Effect
from tracker.errors import Refused, Unavailable
from tracker.log.entries import StreamEntry
from tracker.observe.health import Condition
from tracker.runtime.backoff import Backoff

#: Seconds before an operation is repeated that Redis has not accepted.
MIN_RETRY_DELAY: Final = 0.5
MAX_RETRY_DELAY: Final = 5.0

T = TypeVar("T")


class RetryingLedger:
    """Repeats each operation of :class:`CommandLedger` until Redis accepts it.

    If Redis refuses an operation on one entry, only the commands of the same device are delayed.

    :param waits: True: a command waits for a device that is not connected to any instance; False:
        it fails.
    :param condition: fails while Redis refuses an operation on an entry.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        ledger: CommandLedger,
        *,
        waits: bool,
        condition: Condition,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._waits = waits
        self._condition = condition
        self._refused: set[str] = set()  # IDs of entries

    @property
    def now(self) -> int:
        """Current time in milliseconds since 1970 (UTC)."""
        return self._ledger.now

    @property
    def responses(self) -> Counter[tuple[str, str]]:
        """Status and reason → number of responses that this instance has given."""
        return self._ledger.responses

    async def recover(self, held: HeldCommand) -> Effect:
        """Return OPEN if the command was not claimed before; any other effect has ended it."""
        return await self._retry(held.entry, lambda: self._ledger.recover(held.entry, held.command))

    async def claim(self, held: HeldCommand) -> Effect:
        """Return WON if this instance may write the command; else it has lost the command."""
        effect = await self._retry(held.entry, lambda: self._ledger.claim(held.entry, held.command))
        if effect is not Effect.WON:
            self._log_lost(held, effect)
        return effect

    async def delivered(self, held: HeldCommand) -> None:
        """Respond that the command was written."""
        await self._retry(held.entry, lambda: self._ledger.delivered(held.entry, held.command))

    async def finish(self, held: HeldCommand) -> None:
        """Give the final response with the content of ``held.update``."""
        update, written = held.update, held.delivered is not None
        effect = await self._retry(
            held.entry, lambda: self._ledger.finish(held.entry, held.command, update, written)
        )
        if effect is not Effect.FINISHED:
            self._log_lost(held, effect)
            return
        self._log.info(
            "command {id} to {device}: {status}{reason}",
            id=held.command_id,
            device=held.command.device_id,
            status=update.status,
            reason=f" ({update.reason})" if update.reason else "",
        )

    async def expire(self, held: HeldCommand) -> None:
        """Give the final response to a command that has expired before it was claimed."""
        if not held.doubtful or await self.recover(held) is Effect.OPEN:
            held.update = EXPIRED
            await self.finish(held)

    async def offer(self, held: HeldCommand, unwritten: bool = False) -> Effect:
        """Pass on the command; see :meth:`CommandLedger.offer`."""
        effect = await self._retry(
            held.entry,
            lambda: self._ledger.offer(held.entry, held.command, self._waits, unwritten),
        )
        self._log.debug(
            "command {id} to {device}: {effect}",
            id=held.command_id,
            device=held.command.device_id,
            effect=effect.value,
        )
        return effect

    async def refuse(
        self, entry: StreamEntry, command_id: str, device_id: str, update: StatusUpdate
    ) -> None:
        """Give the final response to an entry that is not a valid command."""
        await self._retry(entry, lambda: self._ledger.refuse(entry, command_id, device_id, update))

    async def drop(self, entry: StreamEntry) -> None:
        """Acknowledge an entry that was deleted from the stream."""
        await self._retry(entry, lambda: self._ledger.drop(entry))

    async def index(self, commands: Iterable[tuple[StreamEntry, Command]]) -> None:
        """Add queued commands to the index of deadlines; an error is ignored.

        A command that is missing there is found by the janitor's rounds.
        """
        with suppress(Refused, Unavailable):
            await self._ledger.index(commands)

    async def entry(self, stream: str, entry_id: str) -> StreamEntry:
        """Return one entry of a stream; its content is None if it was deleted."""
        unread = StreamEntry(stream, entry_id, None)
        return await self._retry(unread, lambda: self._ledger.entry(stream, entry_id))

    def _log_lost(self, held: HeldCommand, effect: Effect) -> None:
        self._log.info(
            "command {id} to {device} no longer belongs to this instance: {effect}",
            id=held.command_id,
            device=held.command.device_id,
            effect=effect.value,
        )

    async def _retry(self, entry: StreamEntry, operation: Callable[[], Awaitable[T]]) -> T:
        backoff: Backoff | None = None
        while True:
            try:
                result = await operation()
            except Refused as error:
                self._refused.add(entry.id)
                self._condition.fails(
                    f"{entry.stream}: entry {entry.id} cannot be processed: {error}"
                )
            except Unavailable as error:
                self._log.debug("operation on a command failed, retrying: {error}", error=error)
            else:
                self._accepted(entry)
                return result
            backoff = backoff or Backoff(self._clock, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
            backoff.failed()
            await backoff.wait()
            with suppress(Unavailable):  # the process stops
                await self._ledger.when_connected()

    def _accepted(self, entry: StreamEntry) -> None:
        if entry.id in self._refused:
            self._refused.remove(entry.id)
            if not self._refused:
                self._condition.met()
