"""Clean up after instances that are gone, and end waiting commands that have expired.

An instance is gone if it has no heartbeat. Each script that takes over an entry, or removes a
device from the device registry, checks the heartbeat again. So any number of janitors may work
beside each other and beside live traffic.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.command import (
    EXPIRED,
    BadCommand,
    Command,
    Reason,
    StatusUpdate,
    claimed_identity,
)
from tracker.commands.deviceregistry import raw_connections, sweep
from tracker.commands.ledger import CommandLedger, Effect
from tracker.commands.streams import (
    outbound_entries,
    raw_outbound_streams,
    raw_waiting_devices,
    remove_empty_outbound,
    review_waiting,
    unlist_waiting,
    waiting_entries,
)
from tracker.errors import Refused, Unavailable
from tracker.keys import CONNECTIONS, WAITING, outbound, waiting_commands
from tracker.log.entries import Delivered, exclusive_start
from tracker.log.redis.heartbeats import MAX_NAME, living_instances
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.observe.ratelimit import LimitedLog
from tracker.redis.connection import RedisConnection
from tracker.untrusted import shown

T = TypeVar("T")

#: Name of the janitor in responses.
JANITOR: Final = "janitor"

_REPAIR: Final = "Rename or delete the key, or stop what writes it."


@define
class Swept:
    """The counts of one round."""

    connections: int = 0
    """Entries of the device registry that were removed."""
    streams: int = 0
    """Streams of commands that were removed."""
    waiting: int = 0
    """Devices that commands still wait for."""
    living: int = 0
    """Instances that have a heartbeat."""
    commands: Counter[str] = field(factory=Counter)
    """What became of commands → their number."""

    def summary(self) -> str:
        """Return the counts in words, for the log."""
        done = sorted((+self.commands).items())
        commands = ", ".join(f"{count} {result}" for result, count in done)
        return (
            f"{self.connections} stale connections removed, {self.streams} streams of commands "
            f"removed, of their commands {commands or 'none'}; {self.waiting} devices waited for"
        )


class OrphanSweeper:
    """Sweeps all keys, in rounds that each start from the beginning.

    :param wait: True: commands wait for devices that are not connected anywhere; False: they fail.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, redis: RedisConnection, wait: bool) -> None:
        self._clock = clock
        self._redis = redis
        self._wait = wait
        self._malformed_keys = MalformedKeyLog(clock, self._log)
        self._rejections = LimitedLog(clock, self._log)

    async def sweep(self, swept: Swept, goes_on: Callable[[], bool]) -> None:
        """Sweep all keys once.

        :param goes_on: returns whether there is time for more; called now and then.
        :raises Unavailable: if Redis is down. Errors for a single key, instance, device or
            command are logged and do not stop the sweep.
        """
        living = await living_instances(self._redis)
        swept.living = len(living)
        # The device registry first, so that commands are not moved to an instance that is gone.
        await self._safely(CONNECTIONS, self._sweep_connections(living, swept, goes_on))
        async for raw_id in raw_outbound_streams(self._redis):
            if not goes_on():
                break
            instance_id = _text(raw_id)
            if instance_id is None:
                key = outbound("").encode() + raw_id
                self._malformed_keys.report(key, "not the name of an instance", _REPAIR)
            elif instance_id not in living:
                taking_over = self._take_over(instance_id, swept, goes_on)
                await self._safely(outbound(instance_id), taking_over)
        await self._safely(WAITING, self._review_all(swept, goes_on))

    async def _safely(self, key: str, sweeping: Awaitable[T]) -> T | None:
        """Wait until a key is swept; log an error and return None if that fails."""
        try:
            return await sweeping
        except Unavailable:
            raise
        except Refused as error:
            self._malformed_keys.report(key, f"cannot be swept: {error}", _REPAIR)
        except Exception:  # noqa: BLE001 - the other keys must be swept all the same
            self._log.failure("{key} cannot be swept", key=shown(key))
        return None

    async def _sweep_connections(
        self, living: frozenset[str], swept: Swept, goes_on: Callable[[], bool]
    ) -> None:
        alive = {instance_id.encode() for instance_id in living}
        async for page in raw_connections(self._redis):
            stale = defaultdict(list)
            for device_id, owner in page.items():
                if owner not in alive:
                    stale[owner].append(device_id)
            for owner, devices in stale.items():
                swept.connections += await sweep(self._redis, owner, devices)
            if not goes_on():
                return

    async def _take_over(self, instance_id: str, swept: Swept, goes_on: Callable[[], bool]) -> None:
        """End the commands of an instance that is gone, or move them to their devices.

        Each entry is tried once: one that Redis refuses to move does not stop the ones after it.
        """
        ledger = CommandLedger(self._clock, self._redis, instance_id, dead=instance_id)
        stream, first = outbound(instance_id), "-"
        while goes_on() and (entries := await outbound_entries(self._redis, stream, first)):
            for entry in entries:
                key = f"{shown(stream)} {entry.id}"
                if await self._safely(key, self._see_to(ledger, entry, swept)) is Effect.ALIVE:
                    return
            following = exclusive_start(entries[-1].id)
            if following is None:
                break
            first = following
        if goes_on():
            swept.streams += await remove_empty_outbound(self._redis, instance_id)

    async def _see_to(self, ledger: CommandLedger, entry: Delivered, swept: Swept) -> Effect:
        try:
            command = Command.from_entry(entry.content or ())
        except BadCommand as error:
            return await self._refuse(ledger, entry, error, swept)
        step = await ledger.recover(entry, command)
        if step is not Effect.OPEN:
            if step is Effect.OVER:
                swept.commands["ended"] += 1
            return step
        if ledger.now >= command.expires_at:
            step = await ledger.finish(entry, command, EXPIRED)
            swept.commands["expired"] += step is Effect.FINISHED
        else:
            step = await ledger.offer(entry, command, self._wait)
            if step in _NAMES:
                swept.commands[_NAMES[step]] += 1
        return step

    async def _review_all(self, swept: Swept, goes_on: Callable[[], bool]) -> None:
        """Review the commands that wait for devices."""
        async for device in raw_waiting_devices(self._redis):
            if not goes_on():
                return
            device_id = _text(device)
            if device_id is not None:
                key = waiting_commands(device_id)
                await self._safely(key, self._review(device_id, swept, goes_on))
            elif await unlist_waiting(self._redis, device):
                why = f"{shown(device)} is not a device id; it was removed"
                self._malformed_keys.report(WAITING, why, "Find out what adds such members.")

    async def _review(self, device_id: str, swept: Swept, goes_on: Callable[[], bool]) -> None:
        """Review the commands that wait for one device."""
        moved, entries = await review_waiting(self._redis, device_id)
        swept.commands["moved"] += moved
        ledger = CommandLedger(self._clock, self._redis, JANITOR)
        there, left = bool(entries), 0
        while entries:
            left += len(entries)
            for entry in entries:
                key = f"{entry.stream} {entry.id}"
                left -= bool(await self._safely(key, self._end_if_over(ledger, entry, swept)))
            first = exclusive_start(entries[-1].id) if goes_on() else None
            entries = [] if first is None else await waiting_entries(self._redis, device_id, first)
        if there and not left:
            await review_waiting(self._redis, device_id)  # removes what is empty now
        swept.waiting += left > 0

    async def _end_if_over(self, ledger: CommandLedger, entry: Delivered, swept: Swept) -> bool:
        """End a waiting command that has expired, or is malformed; return whether it was."""
        try:
            command = Command.from_entry(entry.content or ())
        except BadCommand as error:
            await self._refuse(ledger, entry, error, swept)
            return True
        if ledger.now < command.expires_at:
            return False
        step = await ledger.finish(entry, command, EXPIRED)
        swept.commands["expired"] += step is Effect.FINISHED
        return True

    async def _refuse(
        self, ledger: CommandLedger, entry: Delivered, error: BadCommand, swept: Swept
    ) -> Effect:
        command_id, device_id = claimed_identity(entry.fields)
        update = StatusUpdate.failed(Reason.MALFORMED, str(error))
        step = await ledger.refuse(entry, command_id, device_id, update)
        if step is Effect.FINISHED:
            swept.commands["malformed"] += 1
            self._rejections.warn(
                "{stream}: entry {id} is not a command: {why}",
                stream=shown(entry.stream),
                id=entry.id,
                why=shown(error),
            )
        return step


def _text(name: bytes) -> str | None:
    """Decode the id of an instance or a device; return None if it cannot be one."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= MAX_NAME else None


#: Steps that do something → what is counted. After any other step, somebody else owns the command.
_NAMES: Final = {
    Effect.MOVED: "moved",
    Effect.WAITS: "put to wait",
    Effect.FINISHED: "offline",
    Effect.OVER: "ended",
}

#: All that may become of a command, as counted.
RESULTS: Final = (*_NAMES.values(), "expired", "malformed")
