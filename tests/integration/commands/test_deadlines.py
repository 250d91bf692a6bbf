"""Tests of the index of deadlines, by which expired commands are found, on a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    append_entry,
    entry_at,
    is_empty,
    outbound,
    queued_command,
    record_key,
    register_devices,
    set_heartbeats,
    summaries,
    waiting_stream,
)
from tests.integration.conftest import Connected
from tests.servers import REDIS_70, VALKEY, RedisServer
from tests.system.commands import fields
from tracker.command import Command, Reason, StatusUpdate
from tracker.commands.deadlines import GRACE_MS, MAX_PAGES, PAGE, end_expired
from tracker.commands.deviceregistry import update_registry
from tracker.commands.ledger import CommandLedger, Effect
from tracker.commands.streams import review_waiting
from tracker.errors import Refused
from tracker.keys import DEADLINES
from tracker.log.entries import StreamEntry

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

EXPIRED = ("c1", "expired", "")
MALFORMED = StatusUpdate.failed(Reason.MALFORMED, "no such thing")
#: Seconds from the expiry of a command until a look finds it.
GRACE = GRACE_MS / 1000


@pytest.fixture
def janitor(connected: Connected, clock: Clock) -> CommandLedger:
    return CommandLedger(clock, connected.connection, "janitor")


def command(clock: Clock, command_id: str = "c1", expires_in: float = 10.0) -> Command:
    expires_at = int((clock.seconds() + expires_in) * 1000)
    return Command(command_id, DEVICE, "getinfo", expires_at, sender="anna")


def only_entry(redis: RedisServer, stream: str) -> StreamEntry:
    ((entry_id, _),) = redis.client.xrange(stream)
    return entry_at(redis, stream, entry_id.decode())


def deadlines(redis: RedisServer) -> dict[str, float]:
    members: list[tuple[bytes, float]] = redis.client.zrange(DEADLINES, 0, -1, withscores=True)
    return {member.decode(): score for member, score in members}


@ensureDeferred
async def test_waiting_command_is_ended_after_its_expiry_and_not_before(
    connected: Connected, clock: Clock, janitor: CommandLedger, redis: RedisServer
) -> None:
    await janitor.submit(command(clock))
    for seconds in (0, 9.9, 0.1, GRACE - 0.01):
        clock.advance(seconds)
        assert await end_expired(connected.connection, janitor) == 0
        assert summaries(redis) == []
    clock.advance(0.02)
    assert await end_expired(connected.connection, janitor) == 1
    assert summaries(redis) == [EXPIRED]
    assert is_empty(redis, waiting_stream())
    assert deadlines(redis) == {}
    assert await end_expired(connected.connection, janitor) == 0


@ensureDeferred
@pytest.mark.parametrize("heartbeat", [True, False], ids=["alive", "dead"])
async def test_command_in_the_queue_of_an_instance_is_ended_after_its_expiry(
    heartbeat: bool,
    connected: Connected,
    clock: Clock,
    ledger: CommandLedger,
    janitor: CommandLedger,
    redis: RedisServer,
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    queued = command(clock)
    assert await janitor.submit(queued) == (Effect.MOVED, "one")
    entry = only_entry(redis, outbound("one"))
    if not heartbeat:
        redis.client.delete("instance:heartbeat:one")
    clock.advance(10 + GRACE)
    assert await end_expired(connected.connection, janitor) == 1
    assert summaries(redis) == [EXPIRED]
    assert await ledger.claim(entry, queued) is Effect.GONE


@ensureDeferred
async def test_claimed_command_is_left_to_its_instance_when_it_expires(
    connected: Connected,
    clock: Clock,
    ledger: CommandLedger,
    janitor: CommandLedger,
    redis: RedisServer,
) -> None:
    entry, _ = queued_command(redis)
    queued = command(clock)
    await ledger.index([(entry, queued)])
    assert await ledger.claim(entry, queued) is Effect.WON
    clock.advance(10_000)
    assert await end_expired(connected.connection, janitor) == 0
    assert summaries(redis) == []
    assert deadlines(redis) == {}
    assert redis.client.get(record_key("c1")).startswith(b"sent ")


@ensureDeferred
async def test_deadline_of_a_command_follows_it_to_another_stream(
    connected: Connected, clock: Clock, ledger: CommandLedger, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one", "two")
    queued = command(clock)
    await ledger.submit(queued)
    await update_registry(connected.connection, "one", {DEVICE: True})
    entry = only_entry(redis, outbound("one"))
    assert deadlines(redis) == {f"{entry.stream} {entry.id}": queued.expires_at}
    await update_registry(connected.connection, "one", {DEVICE: False})
    assert await ledger.offer(entry, queued, waits=True) is Effect.WAITS
    entry = only_entry(redis, waiting_stream())
    assert deadlines(redis) == {f"{entry.stream} {entry.id}": queued.expires_at}
    register_devices(redis, "two", DEVICE)
    assert await review_waiting(connected.connection, DEVICE) == (1, [])
    entry = only_entry(redis, outbound("two"))
    assert deadlines(redis) == {f"{entry.stream} {entry.id}": queued.expires_at}
    await CommandLedger(clock, connected.connection, "two").refuse(entry, "c1", DEVICE, MALFORMED)
    assert deadlines(redis) == {}


@ensureDeferred
async def test_command_of_an_earlier_version_is_moved_without_a_deadline(
    connected: Connected, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one")
    redis.client.sadd("commands:waiting", DEVICE)
    append_entry(redis, waiting_stream(), fields("c1", DEVICE))
    await update_registry(connected.connection, "one", {DEVICE: True})
    assert redis.client.xlen(outbound("one")) == 1
    assert deadlines(redis) == {}


@ensureDeferred
async def test_wrong_deadline_in_the_index_ends_no_command_early(
    connected: Connected, clock: Clock, janitor: CommandLedger, redis: RedisServer
) -> None:
    queued = command(clock)
    await janitor.submit(queued)
    (member,) = deadlines(redis)
    redis.client.zadd(DEADLINES, {member: 1})
    assert await end_expired(connected.connection, janitor) == 0
    assert summaries(redis) == []
    assert deadlines(redis) == {member: queued.expires_at}


@ensureDeferred
async def test_useless_members_of_the_index_are_removed(
    connected: Connected, janitor: CommandLedger, redis: RedisServer
) -> None:
    position = append_entry(redis, "telemetry:teltonika", {"ts": "x"})
    malformed = append_entry(redis, waiting_stream(), fields("c1", DEVICE) | {"expires_at": "x"})
    redis.client.set("commands:outbound:text", "x")
    members = [
        f"{position.stream} {position.id}",
        f"{malformed.stream} {malformed.id}",
        f"{outbound('one')} 1-1",
        f"{outbound('text')} 1-1",
        f"{outbound('one')} {'9' * 20}-1",
        f"{outbound('one')} tomorrow",
        f"{outbound('one')}",
        "",
        b"commands:outbound:\xff 1-1",
        f"{outbound('x' * 2000)} 1-1",
    ]
    redis.client.zadd(DEADLINES, dict.fromkeys(members, 1))
    assert await end_expired(connected.connection, janitor) == 0
    assert deadlines(redis) == {}
    assert redis.client.xlen("telemetry:teltonika") == redis.client.xlen(waiting_stream()) == 1
    assert summaries(redis) == []


@ensureDeferred
async def test_each_expired_command_is_ended_once_by_several_janitors(
    connected: Connected, clock: Clock, janitor: CommandLedger, redis: RedisServer
) -> None:
    ids = [f"c{number}" for number in range(PAGE + 20)]
    for one in ids:
        await janitor.submit(command(clock, one))
    clock.advance(11)
    looks = [Deferred.fromCoroutine(end_expired(connected.connection, janitor)) for _ in range(3)]
    assert sum(await gatherResults(looks)) == len(ids)
    assert sorted(summaries(redis)) == sorted((one, "expired", "") for one in ids)


@ensureDeferred
async def test_look_for_expired_commands_is_bounded(
    connected: Connected, janitor: CommandLedger, redis: RedisServer
) -> None:
    useless = [f"member {number}" for number in range(PAGE * MAX_PAGES + 7)]
    redis.client.zadd(DEADLINES, dict.fromkeys(useless, 1))
    await end_expired(connected.connection, janitor)
    assert len(deadlines(redis)) == 7


@ensureDeferred
async def test_index_of_another_type_does_not_affect_commands(
    connected: Connected, clock: Clock, ledger: CommandLedger, redis: RedisServer
) -> None:
    redis.client.set(DEADLINES, "x")
    set_heartbeats(redis, "one")
    queued: Any = command(clock)
    assert await ledger.submit(queued) == (Effect.WAITS, "")
    await update_registry(connected.connection, "one", {DEVICE: True})
    entry = only_entry(redis, outbound("one"))
    assert await ledger.claim(entry, queued) is Effect.WON
    assert await ledger.offer(entry, queued, waits=True, unwritten=True) is Effect.WAITS
    assert await ledger.expire(only_entry(redis, waiting_stream()), queued) is Effect.FINISHED
    assert summaries(redis) == [EXPIRED]
    with pytest.raises(Refused):
        await end_expired(connected.connection, ledger)
