"""Cleanup after instances that are gone, and expiry of waiting commands.

An instance is gone if it has no heartbeat. Each script that moves or ends a command, or removes a
device from the device registry, checks the heartbeat again. Any number of janitors may therefore
work at the same time, and while devices are served.
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
from tracker.log.entries import StreamEntry, exclusive_start
from tracker.log.redis.heartbeats import MAX_NAME, living_instances
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.observe.ratelimit import LimitedLog
from tracker.redis.connection import RedisConnection
from tracker.untrusted import shown
from tracker.wording import counted

T = TypeVar("T")

#: Name of the janitor in responses.
JANITOR: Final = "janitor"

REPAIR: Final = "Rename or delete the key, or stop what writes it."


@define
class SweepCounts:
    """The counts of one round."""

    connections: int = 0
    """Removed entries of the device registry."""
    streams: int = 0
    """Removed command streams."""
    waiting: int = 0
    """Devices for which commands still wait."""
    living: int = 0
    """Instances that have a heartbeat."""
    commands: Counter[str] = field(factory=Counter)
    """Result, one of :data:`RESULTS` → number of commands."""

    def done(self, trimmed: int) -> str:
        """Return what the round has done, for the log; empty if it had nothing to do.

        :param trimmed: the number of trimmed entries.
        """
        done = [
            counted(trimmed, "entry", "entries") + " trimmed",
            counted(self.connections, "stale connection") + " removed",
            counted(self.streams, "command stream") + " removed",
        ]
        for result, count in sorted(self.commands.items()):
            done.append(f"{counted(count, 'command')} {result}")
        return ", ".join(one for one in done if not one.startswith("0 "))

    @property
    def left(self) -> str:
        """Work that the round has left for later, for the log; empty if none."""
        return f"; commands wait for {counted(self.waiting, 'device')}" if self.waiting else ""


class OrphanSweeper:
    """Sweeps the device registry, command streams and waiting commands, in rounds.

    :param wait: commands wait for devices that are not connected anywhere; if False, they fail.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, redis: RedisConnection, wait: bool) -> None:
        self._clock = clock
        self._redis = redis
        self._wait = wait
        self._malformed_keys = MalformedKeyLog(clock, self._log)
        self._rejections = LimitedLog(clock, self._log)

    async def sweep(self, counts: SweepCounts, may_continue: Callable[[], bool]) -> None:
        """Sweep all keys once.

        :param counts: updated by the sweep.
        :param may_continue: returns False if the sweep must end; called frequently.
        :raises Unavailable: if Redis is down. Errors of a single key, instance, device or
            command are logged and do not stop the sweep.
        """
        living = await living_instances(self._redis)
        counts.living = len(living)
        # The device registry is first, so that commands are not moved to an instance that is gone.
        await self._safely(CONNECTIONS, self._sweep_connections(living, counts, may_continue))
        async for raw_id in raw_outbound_streams(self._redis):
            if not may_continue():
                break
            instance_id = _text(raw_id)
            if instance_id is None:
                key = outbound("").encode() + raw_id
                self._malformed_keys.report(key, "not a valid instance ID", REPAIR)
            elif instance_id not in living:
                taking_over = self._take_over(instance_id, counts, may_continue)
                await self._safely(outbound(instance_id), taking_over)
        await self._safely(WAITING, self._review_all(counts, may_continue))

    async def _safely(self, key: str, sweeping: Awaitable[T]) -> T | None:
        """Wait until a key is swept; if that fails, log the error and return None."""
        try:
            return await sweeping
        except Unavailable:
            raise
        except Refused as error:
            self._malformed_keys.report(key, f"cannot be swept: {error}", REPAIR)
        except Exception:  # noqa: BLE001 - a failure must not affect the other keys
            self._log.failure("{key}: cannot be swept", key=shown(key))
        return None

    async def _sweep_connections(
        self, living: frozenset[str], counts: SweepCounts, may_continue: Callable[[], bool]
    ) -> None:
        alive = {instance_id.encode() for instance_id in living}
        async for page in raw_connections(self._redis):
            stale = defaultdict(list)
            for device_id, owner in page.items():
                if owner not in alive:
                    stale[owner].append(device_id)
            for owner, devices in stale.items():
                counts.connections += await sweep(self._redis, owner, devices)
            if not may_continue():
                return

    async def _take_over(
        self, instance_id: str, counts: SweepCounts, may_continue: Callable[[], bool]
    ) -> None:
        """Move the commands of an instance that is gone to their devices, or end them.

        Each entry is tried once. An entry that Redis refuses to move does not stop the next ones.
        """
        ledger = CommandLedger(self._clock, self._redis, instance_id, dead=instance_id)
        stream, first = outbound(instance_id), "-"
        while may_continue() and (entries := await outbound_entries(self._redis, stream, first)):
            for entry in entries:
                key = f"{shown(stream)} {entry.id}"
                if await self._safely(key, self._recover(ledger, entry, counts)) is Effect.ALIVE:
                    return
            following = exclusive_start(entries[-1].id)
            if following is None:
                break
            first = following
        if may_continue():
            counts.streams += await remove_empty_outbound(self._redis, instance_id)

    async def _recover(
        self, ledger: CommandLedger, entry: StreamEntry, counts: SweepCounts
    ) -> Effect:
        try:
            command = Command.from_entry(entry.content or ())
        except BadCommand as error:
            return await self._refuse(ledger, entry, error, counts)
        effect = await ledger.recover(entry, command)
        if effect is not Effect.OPEN:
            if effect is Effect.OVER:
                counts.commands["ended"] += 1
            return effect
        if ledger.now >= command.expires_at:
            effect = await ledger.finish(entry, command, EXPIRED)
            counts.commands["expired"] += effect is Effect.FINISHED
        else:
            effect = await ledger.offer(entry, command, self._wait)
            if effect in _NAMES:
                counts.commands[_NAMES[effect]] += 1
        return effect

    async def _review_all(self, counts: SweepCounts, may_continue: Callable[[], bool]) -> None:
        """Review all commands that wait for devices."""
        async for device in raw_waiting_devices(self._redis):
            if not may_continue():
                return
            device_id = _text(device)
            if device_id is not None:
                key = waiting_commands(device_id)
                await self._safely(key, self._review(device_id, counts, may_continue))
            elif await unlist_waiting(self._redis, device):
                problem = f"{shown(device)} is not a device ID; it was removed"
                self._malformed_keys.report(WAITING, problem, "Find out what adds such members.")

    async def _review(
        self, device_id: str, counts: SweepCounts, may_continue: Callable[[], bool]
    ) -> None:
        """Review the commands that wait for one device."""
        moved, entries = await review_waiting(self._redis, device_id)
        counts.commands["moved"] += moved
        ledger = CommandLedger(self._clock, self._redis, JANITOR)
        found, left = bool(entries), 0
        while entries:
            left += len(entries)
            for entry in entries:
                key = f"{entry.stream} {entry.id}"
                left -= bool(await self._safely(key, self._end_if_expired(ledger, entry, counts)))
            first = exclusive_start(entries[-1].id) if may_continue() else None
            entries = [] if first is None else await waiting_entries(self._redis, device_id, first)
        if found and not left:
            await review_waiting(self._redis, device_id)  # removes the stream, which is empty now
        counts.waiting += left > 0

    async def _end_if_expired(
        self, ledger: CommandLedger, entry: StreamEntry, counts: SweepCounts
    ) -> bool:
        """End a waiting command if it has expired or is malformed; return True in that case."""
        try:
            command = Command.from_entry(entry.content or ())
        except BadCommand as error:
            await self._refuse(ledger, entry, error, counts)
            return True
        if ledger.now < command.expires_at:
            return False
        effect = await ledger.finish(entry, command, EXPIRED)
        counts.commands["expired"] += effect is Effect.FINISHED
        return True

    async def _refuse(
        self, ledger: CommandLedger, entry: StreamEntry, error: BadCommand, counts: SweepCounts
    ) -> Effect:
        command_id, device_id = claimed_identity(entry.fields)
        update = StatusUpdate.failed(Reason.MALFORMED, str(error))
        effect = await ledger.refuse(entry, command_id, device_id, update)
        if effect is Effect.FINISHED:
            counts.commands["malformed"] += 1
            self._rejections.warn(
                "{stream}: entry {id} is not a command: {why}",
                stream=shown(entry.stream),
                id=entry.id,
                why=shown(error),
            )
        return effect


def _text(name: bytes) -> str | None:
    """Return the decoded ID of an instance or a device; None if it is not valid."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= MAX_NAME else None


#: Effect → the result that is counted. After any other effect, another process owns the command.
_NAMES: Final = {
    Effect.MOVED: "moved",
    Effect.WAITS: "waiting",
    Effect.FINISHED: "offline",
    Effect.OVER: "ended",
}

#: All results of commands that are counted.
RESULTS: Final = (*_NAMES.values(), "expired", "malformed")
