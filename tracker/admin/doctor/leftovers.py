"""Check for leftovers of instances that are gone, and for expired commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from tracker.admin.doctor.streams import Traffic
from tracker.command import BadCommand, Command
from tracker.commands.deviceregistry import connections
from tracker.commands.streams import outbound_entries, outbound_streams, waiting_devices
from tracker.errors import Refused
from tracker.keys import outbound, waiting_commands
from tracker.log.entries import StreamEntry
from tracker.observe.findings import Finding, ok, warning
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import listed, shown
from tracker.wording import counted

#: Seconds after its expiry at which a command should have its final status: a janitor runs every
#: minute.
OVERDUE: Final = 180
#: Maximum number of devices, and of instances, whose commands are read.
_MAX_READ: Final = 200

_JANITOR: Final = "systemctl start tracker-janitor"


async def device_registry(traffic: Traffic) -> Finding:
    """Check that devices are registered at running instances only."""
    living = await traffic.living()
    owners: Counter[str] = Counter()
    async for page in connections(traffic.server.redis):
        owners.update(page.values())
    stale = {name: count for name, count in owners.items() if name not in living}
    return judge_device_registry(owners.total(), stale)


def judge_device_registry(devices: int, stale: Mapping[str, int]) -> Finding:
    """Judge the device registry.

    :param devices: number of registered devices.
    :param stale: instance that is gone → number of its devices.
    """
    if not devices:
        return ok("no devices are registered")
    if not stale:
        return ok(f"{counted(devices, 'device')} registered, all at running instances")
    return warning(
        f"{sum(stale.values()):,} of {counted(devices, 'device')} registered at instances that are "
        f"gone: {listed(sorted(stale))}",
        _JANITOR,
    )


async def orphans(traffic: Traffic) -> Finding:
    """Check that no command waits for an instance that is gone."""
    living, redis = await traffic.living(), traffic.server.redis
    gone = {
        name: await redis.execute("XLEN", outbound(name))
        async for name in outbound_streams(redis)
        if name not in living
    }
    return judge_orphans(gone)


def judge_orphans(gone: Mapping[str, int]) -> Finding:
    """Judge the command streams of instances that are gone (instance → number of entries)."""
    if not gone:
        return ok("no commands for instances that are gone")
    commands = counted(sum(gone.values()), "command")
    return warning(f"{commands} for instances that are gone: {listed(sorted(gone))}", _JANITOR)


async def commands(traffic: Traffic, clock: IReactorTime) -> list[Finding]:
    """Check that waiting commands get their final status when they expire."""
    redis, now = traffic.server.redis, int(clock.seconds() * 1000)
    devices, overdue = 0, 0
    malformed: list[str] = []
    found = []
    try:
        async for device in waiting_devices(redis):
            devices += 1
            if devices <= _MAX_READ:
                entries = await _entries(redis, waiting_commands(device), malformed)
                overdue += _overdue(entries, now)
    except Refused as error:
        if not is_wrong_type(error):
            raise  # the check key-types reports the wrong type
    else:
        found.append(judge_waiting(devices, overdue))
    for name in sorted(await traffic.living())[:_MAX_READ]:
        entries = await _entries(redis, outbound(name), malformed)
        found.append(judge_outbound(shown(name), len(entries), _overdue(entries, now)))
    if malformed:
        found.append(judge_malformed(malformed))
    return found


async def _entries(redis: RedisConnection, key: str, malformed: list[str]) -> list[StreamEntry]:
    try:
        return await outbound_entries(redis, key)
    except Refused as error:
        if not is_wrong_type(error):
            raise
        malformed.append(key)
        return []


def judge_malformed(keys: Sequence[str]) -> Finding:
    """Return the finding on keys of command streams that are of another type."""
    return warning(f"not a stream: {listed(keys)}; rename or delete the key", "")


def judge_waiting(devices: int, overdue: int) -> Finding:
    """Judge the commands that wait for devices.

    :param devices: number of devices with waiting commands.
    :param overdue: number of commands that have expired.
    """
    if not devices:
        return ok("no commands are waiting")
    seen = f"commands are waiting for {counted(devices, 'device')}"
    return warning(f"{seen}; {_expired(overdue)}", _JANITOR) if overdue else ok(seen)


def judge_outbound(name: str, entries: int, overdue: int) -> Finding:
    """Judge the commands of a running instance.

    :param name: the instance, as shown.
    :param entries: number of its commands.
    :param overdue: number of those that have expired.
    """
    commands = counted(entries, "command") if entries else "no commands"
    seen = f"{name} has {commands} to deliver"
    if not overdue:
        return ok(seen)
    return warning(
        f"{seen}; {_expired(overdue)}",
        "systemctl restart 'tracker-ingest@*'  # after journalctl -u 'tracker-ingest@*'",
    )


def _expired(count: int) -> str:
    return f"{count:,} expired without a final status"


def _overdue(entries: list[Any], now: int) -> int:
    count = 0
    for entry in entries:
        try:
            expires_at = Command.from_entry(entry.content or ()).expires_at
        except BadCommand:
            continue  # the reader of the stream reports it
        count += now - expires_at > OVERDUE * 1000
    return count
