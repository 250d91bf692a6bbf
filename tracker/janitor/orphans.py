"""Sees to what instances have left behind that are gone, and to commands that wait.

An instance is gone when it has no heartbeat. Whatever is taken from it, is by a script that
looks at the heartbeat once more; so is a registry entry, which may have moved meanwhile. So
any number of janitors may work beside each other and beside live traffic.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from attrs import define, field
from twisted.logger import Logger

from tracker.command import EXPIRED, BadCommand, Command, Outcome, Reason, claimed_identity
from tracker.keys import outbound
from tracker.observe.ratelimit import RateLimit
from tracker.streams.advertised import living_instances
from tracker.streams.commands import (
    CommandLedger,
    Step,
    outbound_entries,
    outbound_streams,
    remove_empty_outbound,
    review_waiting,
    waiting_devices,
    waiting_entries,
)
from tracker.streams.connection import RedisConnection, Refused
from tracker.streams.groups import Delivered
from tracker.streams.registry import connections, sweep

#: Who says so when a command expires that no instance has.
JANITOR: Final = "janitor"
#: Lines a minute about what Redis has refused.
REFUSAL_LINES: Final = 10


@define
class Swept:
    """What a round has done."""

    connections: int = 0
    """Entries of the registry that were removed."""
    streams: int = 0
    """Streams of commands that were removed."""
    waiting: int = 0
    """Devices that commands still wait for."""
    living: int = 0
    """Instances that have a heartbeat."""
    commands: Counter[str] = field(factory=Counter)
    """What became of commands → how many."""

    def summary(self) -> str:
        """In words, for the log."""
        done = sorted((+self.commands).items())
        commands = ", ".join(f"{count} {fate}" for fate, count in done)
        return (
            f"{self.connections} stale connections removed, {self.streams} streams of commands "
            f"removed, of their commands {commands or 'none'}; {self.waiting} devices waited for"
        )


class OrphanSweeper:
    """One round after the other, each from the beginning.

    :param wait: whether commands wait for devices that are nowhere; else they fail.
    """

    _log = Logger()

    def __init__(self, clock: Any, redis: RedisConnection, wait: bool) -> None:
        self._clock = clock
        self._redis = redis
        self._wait = wait
        self._refusals = RateLimit(clock, REFUSAL_LINES, 60.0)

    async def sweep(self, swept: Swept, goes_on: Callable[[], bool]) -> None:
        """See to everything once.

        :param goes_on: asked now and then whether there is time for more.
        :raises Refused, Unavailable: when Redis does not go along at all. What it refuses for
            one instance or device is logged, and is nothing to the others.
        """
        living = await living_instances(self._redis)
        swept.living = len(living)
        # The registry first: then commands are not offered to an instance that is gone.
        await self._sweep_connections(living, swept, goes_on)
        async for instance_id in outbound_streams(self._redis):
            if goes_on() and instance_id not in living:
                await self._unless_refused(
                    f"commands of {instance_id}", self._take_over(instance_id, swept, goes_on)
                )
        await self._unless_refused("commands that wait", self._review_all(swept, goes_on))

    async def _unless_refused(self, what: str, seeing_to_it: Awaitable[None]) -> None:
        try:
            await seeing_to_it
        except Refused as error:
            suppressed = self._refusals.admit()
            if suppressed is not None:
                self._log.warn(
                    "{what} cannot be seen to: {error}{more}",
                    what=what,
                    error=error,
                    more=f" (and {suppressed} more, not shown)" if suppressed else "",
                )

    async def _sweep_connections(
        self, living: frozenset[str], swept: Swept, goes_on: Callable[[], bool]
    ) -> None:
        async for page in connections(self._redis):
            stale = defaultdict(list)
            for device_id, owner in page.items():
                if owner not in living:
                    stale[owner].append(device_id)
            for owner, devices in stale.items():
                swept.connections += await sweep(self._redis, owner, devices)
            if not goes_on():
                return

    async def _take_over(self, instance_id: str, swept: Swept, goes_on: Callable[[], bool]) -> None:
        """Bring the commands of an instance that is gone to an end, or to their devices."""
        ledger = CommandLedger(self._clock, self._redis, instance_id, dead=instance_id)
        while goes_on() and (entries := await outbound_entries(self._redis, outbound(instance_id))):
            for entry in entries:
                if await self._see_to(ledger, entry, swept) is Step.LIVES:
                    return
        if goes_on():
            swept.streams += await remove_empty_outbound(self._redis, instance_id)

    async def _see_to(self, ledger: CommandLedger, entry: Delivered, swept: Swept) -> Step:
        try:
            command = Command.from_entry(entry.content or ())
        except BadCommand as error:
            return await self._refuse(ledger, entry, error, swept)
        step = await ledger.recover(entry, command)
        if step is not Step.OPEN:
            if step is Step.OVER:
                swept.commands["ended"] += 1
            return step
        if ledger.now >= command.expires_at:
            step = await ledger.finish(entry, command, EXPIRED)
            swept.commands["expired"] += step is Step.FINISHED
        else:
            step = await ledger.offer(entry, command, self._wait)
            if step in _NAMES:
                swept.commands[_NAMES[step]] += 1
        return step

    async def _review_all(self, swept: Swept, goes_on: Callable[[], bool]) -> None:
        """See to what waits for devices."""
        async for device_id in waiting_devices(self._redis):
            if goes_on():
                await self._unless_refused(
                    f"commands for {device_id}", self._review(device_id, swept)
                )

    async def _review(self, device_id: str, swept: Swept) -> None:
        """See to what waits for one device."""
        moved, entries = await review_waiting(self._redis, device_id)
        swept.commands["moved"] += moved
        ledger = CommandLedger(self._clock, self._redis, JANITOR)
        there, left = bool(entries), 0
        while entries:
            left += sum([await self._goes_on(ledger, entry, swept) for entry in entries])
            entries = await waiting_entries(self._redis, device_id, f"({entries[-1].id}")
        if there and not left:
            await review_waiting(self._redis, device_id)  # removes what is empty now
        swept.waiting += left > 0

    async def _goes_on(self, ledger: CommandLedger, entry: Delivered, swept: Swept) -> bool:
        """End a waiting command that is none or has expired; return whether it goes on."""
        try:
            command = Command.from_entry(entry.content or ())
        except BadCommand as error:
            await self._refuse(ledger, entry, error, swept)
            return False
        if ledger.now < command.expires_at:
            return True
        step = await ledger.finish(entry, command, EXPIRED)
        swept.commands["expired"] += step is Step.FINISHED
        return False

    async def _refuse(
        self, ledger: CommandLedger, entry: Delivered, error: BadCommand, swept: Swept
    ) -> Step:
        command_id, device_id = claimed_identity(entry.fields)
        outcome = Outcome.failed(Reason.MALFORMED, str(error))
        step = await ledger.refuse(entry, command_id, device_id, outcome)
        if step is Step.FINISHED:
            swept.commands["malformed"] += 1
            self._log.warn(
                "{stream}: entry {id} is no command: {why}",
                stream=entry.stream,
                id=entry.id,
                why=error,
            )
        return step


#: Steps that do something → what is counted. The others leave it to somebody else.
_NAMES: Final = {
    Step.MOVED: "moved",
    Step.WAITS: "put to wait",
    Step.FINISHED: "offline",
    Step.OVER: "ended",
}

#: All that may become of a command, as it is counted.
FATES: Final = (*_NAMES.values(), "expired", "malformed")
