"""Cleanup after instances that are gone, which does not affect live instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    OTHER,
    WAITING,
    append_entry,
    command_ids,
    contents,
    dump_all,
    outbound,
    queued_command,
    read_new,
    record_key,
    register_devices,
    set_heartbeats,
    summaries,
    waiting_stream,
)
from tests.integration.conftest import Connected
from tests.integration.intercepted import Intercepted
from tests.servers import RedisServer
from tests.system.commands import device_registry, fields, responses, statuses
from tracker.command import Status, StatusUpdate
from tracker.commands.deviceregistry import connections
from tracker.commands.deviceregistry import sweep as sweep_registry
from tracker.commands.ledger import CommandLedger
from tracker.janitor.orphans import OrphanSweeper, SweepCounts

DEAD = outbound("dead")
ANSWERED = StatusUpdate(Status.RESPONDED, response="an answer")


class Sweep:
    """Callable that makes a round of a janitor."""

    def __init__(self, connection: Any, clock: Clock, wait: bool = True) -> None:
        self._sweeper = OrphanSweeper(clock, connection, wait)

    async def __call__(self, may_continue: Callable[[], bool] = lambda: True) -> SweepCounts:
        counts = SweepCounts()
        await self._sweeper.sweep(counts, may_continue)
        return counts


@pytest.fixture
def sweep(connected: Connected, clock: Clock) -> Sweep:
    return Sweep(connected.connection, clock)


def results_of(counts: SweepCounts) -> dict[str, int]:
    return dict(+counts.commands)


class InterruptedConnection(Intercepted):
    """A connection that calls a function once, before a given command is sent."""

    def __init__(self, connected: Connected, command: str, do: Callable[[], object]) -> None:
        super().__init__(connected.connection, self._call_once)
        self._command = command
        self._do = do
        self.called = False

    def _call_once(self, command: str, *_: Any) -> None:
        if not self.called and command == self._command:
            self.called = True
            self._do()


# The device registry.


@ensureDeferred
async def test_connections_of_dead_instances_are_removed(sweep: Sweep, redis: RedisServer) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", "a", "b")
    register_devices(redis, "dead", "c", "d")
    register_devices(redis, "gone", "e")
    register_devices(redis, "", "f")
    counts = await sweep()
    assert device_registry(redis) == {"a": "one", "b": "one"}
    assert counts.connections == 4
    assert (await sweep()).connections == 0


@ensureDeferred
async def test_device_registry_of_many_pages_is_swept(
    sweep: Sweep, connected: Connected, redis: RedisServer
) -> None:
    devices = [f"35630704244{number:04}" for number in range(2500)]
    set_heartbeats(redis, "one")
    register_devices(redis, "one", *devices[::5])
    register_devices(redis, "dead", *devices[1::5], *devices[2::5])
    register_devices(redis, "gone", *devices[3::5], *devices[4::5])
    pages = [page async for page in connections(connected.connection)]
    assert len(pages) > 1
    assert set().union(*pages) == set(devices)
    assert (await sweep()).connections == 2000
    assert device_registry(redis) == dict.fromkeys(devices[::5], "one")


@ensureDeferred
async def test_entry_that_has_changed_since_the_scan_is_kept(
    connected: Connected, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", "a")
    register_devices(redis, "dead", "b", "c")
    # Device "a" was registered for the dead instance, and has moved.
    assert await sweep_registry(connected.connection, "dead", ["a", "b", "nowhere"]) == 1
    assert device_registry(redis) == {"a": "one", "c": "dead"}
    set_heartbeats(redis, "dead")
    assert await sweep_registry(connected.connection, "dead", ["a", "c"]) == 0
    assert device_registry(redis) == {"a": "one", "c": "dead"}


@ensureDeferred
async def test_device_that_moves_during_a_round_stays_registered(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "dead", DEVICE, OTHER)
    connection = InterruptedConnection(
        connected, "EVALSHA", do=lambda: register_devices(redis, "one", DEVICE)
    )
    counts = await Sweep(connection, clock)()
    assert connection.called
    assert device_registry(redis) == {DEVICE: "one"}
    assert counts.connections == 1


# Commands of a dead instance.


@ensureDeferred
async def test_commands_of_a_dead_instance_are_moved_or_ended(
    sweep: Sweep, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "two")
    register_devices(redis, "two", OTHER)
    register_devices(redis, "dead", DEVICE)
    ledger = CommandLedger(clock, connected.connection, "dead")
    queued_command(redis, "pending", "dead")
    await ledger.claim(*queued_command(redis, "claimed", "dead"))
    delivered = queued_command(redis, "delivered", "dead")
    await ledger.claim(*delivered)
    await ledger.delivered(*delivered)
    over = queued_command(redis, "over", "dead")
    await ledger.finish(*over, ANSWERED, written=True)
    append_entry(redis, DEAD, fields("over", DEVICE))
    queued_command(redis, "expired", "dead", expires_in=-10)
    append_entry(redis, DEAD, fields("malformed", DEVICE) | {"expires_at": "tomorrow"})
    append_entry(redis, DEAD, {"colour": "red"})
    append_entry(redis, DEAD, fields("unread", DEVICE))
    append_entry(redis, DEAD, fields("elsewhere", OTHER))
    append_entry(redis, DEAD, fields("pending", DEVICE))  # a duplicate entry
    append_entry(redis, DEAD, fields("claimed", DEVICE))
    moving = contents(redis, DEAD)
    counts = await sweep()
    assert statuses(redis) == {
        "claimed": "failed/in_doubt",
        "delivered": "failed/in_doubt",
        "over": "responded",
        "expired": "expired",
        "malformed": "failed/malformed",
        "": "failed/malformed",
    }
    assert Counter(
        command_id for command_id, status, _ in summaries(redis) if status != "delivered"
    ) == dict.fromkeys(statuses(redis), 1)
    assert command_ids(redis, waiting_stream()) == ["pending", "unread", "pending"]
    assert command_ids(redis, outbound("two")) == ["elsewhere"]
    assert all(
        one in moving
        for one in [*contents(redis, waiting_stream()), *contents(redis, outbound("two"))]
    )
    assert not redis.client.exists(DEAD)  # and its group is gone, too
    assert device_registry(redis) == {OTHER: "two"}
    assert (counts.streams, counts.connections, counts.waiting) == (1, 1, 1)
    assert results_of(counts) == {
        "ended": 4,
        "expired": 1,
        "malformed": 2,
        "waiting": 3,
        "moved": 1,
    }
    assert responses(redis)["claimed"][-1]["instance_id"] == "dead"
    before = dump_all(redis)
    assert results_of(await sweep()) == {}
    assert dump_all(redis) == before


@ensureDeferred
async def test_commands_for_offline_devices_fail_if_they_may_not_wait(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "two")
    register_devices(redis, "two", OTHER)
    queued_command(redis, "c1", "dead")
    queued_command(redis, "c2", "dead", OTHER)
    counts = await Sweep(connected.connection, clock, wait=False)()
    assert statuses(redis) == {"c1": "failed/offline"}
    assert command_ids(redis, outbound("two")) == ["c2"]
    assert results_of(counts) == {"offline": 1, "moved": 1}
    assert not redis.client.exists(WAITING)


@ensureDeferred
@pytest.mark.parametrize("owner", ["dead", "gone"])
async def test_commands_are_not_moved_to_another_dead_instance(
    owner: str, sweep: Sweep, redis: RedisServer
) -> None:
    register_devices(redis, owner, DEVICE)
    queued_command(redis, "c1", "dead")
    queued_command(redis, "c2", "gone")
    counts = await sweep()
    assert sorted(command_ids(redis, waiting_stream())) == ["c1", "c2"]
    assert redis.client.keys("commands:outbound:*") == []
    assert (counts.streams, counts.connections) == (2, 1)


@ensureDeferred
async def test_order_of_many_commands_is_kept(sweep: Sweep, redis: RedisServer) -> None:
    ids = [f"c{number}" for number in range(250)]
    for command_id in ids:
        append_entry(redis, DEAD, fields(command_id, DEVICE))
    read_new(redis, DEAD)
    counts = await sweep()
    assert command_ids(redis, waiting_stream()) == ids
    assert results_of(counts) == {"waiting": 250}


@ensureDeferred
@pytest.mark.parametrize("group", [True, False], ids=["with its group", "without"])
async def test_empty_stream_of_a_dead_instance_is_removed(
    group: bool, sweep: Sweep, redis: RedisServer
) -> None:
    for instance_id in ("dead", "one"):
        redis.client.xtrim(append_entry(redis, outbound(instance_id), {"a": "b"}).stream, maxlen=0)
        if group:
            redis.client.xgroup_create(outbound(instance_id), "ingest", "0")
    set_heartbeats(redis, "one")
    assert (await sweep()).streams == 1
    assert redis.client.keys("commands:*") == [outbound("one").encode()]
    assert (await sweep()).streams == 0


@ensureDeferred
async def test_commands_of_a_live_instance_are_kept(
    sweep: Sweep, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    ledger = CommandLedger(clock, connected.connection, "one")
    await ledger.claim(*queued_command(redis, "claimed"))
    queued_command(redis, "expired", expires_in=-10)
    append_entry(redis, outbound("one"), {"colour": "red"})
    before = dump_all(redis)
    counts = await sweep()
    assert dump_all(redis) == before
    assert results_of(counts) == {}


@ensureDeferred
@pytest.mark.parametrize(
    "first", ["a command", "a claimed command", "an expired command", "a malformed entry"]
)
@pytest.mark.parametrize("when", ["XRANGE", "EVALSHA"])
async def test_commands_are_kept_if_their_instance_returns_during_a_round(
    when: str, first: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    match first:
        case "a command":
            queued_command(redis, "c1", "dead")
        case "a claimed command":
            ledger = CommandLedger(clock, connected.connection, "dead")
            await ledger.claim(*queued_command(redis, "c1", "dead"))
        case "an expired command":
            queued_command(redis, "c1", "dead", expires_in=-10)
        case "a malformed entry":
            append_entry(redis, DEAD, {"colour": "red"})
    queued_command(redis, "c2", "dead")
    before = dump_all(redis)
    connection = InterruptedConnection(connected, when, do=lambda: set_heartbeats(redis, "dead"))
    counts = await Sweep(connection, clock)()
    assert connection.called
    assert dump_all(redis) == before | {
        b"instance:heartbeat:dead": redis.client.dump("instance:heartbeat:dead")
    }
    assert results_of(counts) == {}
    assert counts.streams == 0


@ensureDeferred
async def test_command_is_kept_if_its_instance_returns_between_two_steps(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    queued_command(redis, "c1", "dead")
    queued_command(redis, "c2", "dead")
    steps = 0

    def count(command: str, *_: Any) -> None:
        nonlocal steps
        steps += command == "EVALSHA"
        if steps == 2:  # the command is recovered, but not moved yet
            set_heartbeats(redis, "dead")

    before = contents(redis, DEAD)
    counts = await Sweep(Intercepted(connected.connection, count), clock)()
    assert steps >= 2
    assert contents(redis, DEAD) == before
    assert results_of(counts) == {}


@ensureDeferred
async def test_stopped_round_is_completed_by_the_next_one(sweep: Sweep, redis: RedisServer) -> None:
    register_devices(redis, "dead", DEVICE)
    queued_command(redis, "c1", "dead")
    append_entry(redis, waiting_stream(OTHER), {"colour": "red"})
    redis.client.sadd(WAITING, OTHER)
    await sweep(lambda: False)
    assert command_ids(redis, DEAD) == ["c1"]
    assert summaries(redis) == []
    await sweep()
    assert command_ids(redis, waiting_stream()) == ["c1"]


@ensureDeferred
async def test_commands_are_kept_while_redis_is_out_of_memory(
    sweep: Sweep, redis: RedisServer, clock: Clock
) -> None:
    register_devices(redis, "dead", DEVICE)
    queued_command(redis, "c1", "dead")
    queued_command(redis, "c2", "dead", expires_in=-10)
    redis.client.config_set("maxmemory", 1)
    await sweep()
    assert command_ids(redis, DEAD) == ["c1", "c2"]
    assert summaries(redis) == []
    redis.client.config_set("maxmemory", 0)
    await sweep()
    assert command_ids(redis, waiting_stream()) == ["c1"]
    assert statuses(redis) == {"c2": "expired"}
    assert not redis.client.exists(DEAD)


@ensureDeferred
async def test_three_concurrent_janitors_end_or_move_each_command_once(
    redis: RedisServer, clock: Clock
) -> None:
    janitors = [Connected(redis.address) for _ in range(3)]
    for one in janitors:
        await one.usable()
    set_heartbeats(redis, "two")
    register_devices(redis, "two", OTHER)
    ledger = CommandLedger(clock, janitors[0].connection, "dead")
    expected = {}
    moved, waits = [], []
    for number in range(300):
        command_id, instance_id = f"c{number}", ("dead", "gone")[number % 2]
        match number % 6:
            case 0:
                entry = queued_command(redis, command_id, "dead")
                await ledger.claim(*entry)
                if number % 4:
                    await ledger.delivered(*entry)
                expected[command_id] = "failed/in_doubt"
            case 1:
                queued_command(redis, command_id, instance_id, expires_in=-10)
                expected[command_id] = "expired"
            case 2:
                append_entry(
                    redis,
                    outbound(instance_id),
                    fields(command_id, DEVICE) | {"expires_at": "tomorrow"},
                )
                expected[command_id] = "failed/malformed"
            case 3:
                queued_command(redis, command_id, instance_id, OTHER)
                moved.append(command_id)
            case 4 | 5:
                queued_command(redis, command_id, instance_id)
                waits.append(command_id)
    sweepings = [Sweep(one.connection, clock) for one in janitors]
    rounds = [Deferred.fromCoroutine(sweeping()) for sweeping in sweepings]
    counts = await gatherResults(rounds)
    assert statuses(redis) == expected
    finals = Counter(
        command_id for command_id, status, _ in summaries(redis) if status != "delivered"
    )
    assert finals == dict.fromkeys(expected, 1)
    assert sorted(command_ids(redis, outbound("two"))) == sorted(moved)
    assert sorted(command_ids(redis, waiting_stream())) == sorted(waits)
    assert redis.client.keys("commands:outbound:*") == [outbound("two").encode()]
    assert {record_key(command_id) for command_id in expected} == {
        key.decode() for key in redis.client.keys("commands:sent:*")
    }
    # The counts of all janitors add up to the real changes.
    total: Counter[str] = Counter()
    for each in counts:
        total += each.commands
    assert total == {
        "ended": 50,
        "expired": 50,
        "malformed": 50,
        "moved": 50,
        "waiting": 100,
    }
    assert sum(one.streams for one in counts) == 2
    for one in janitors:
        await one.connection.stopService()


@ensureDeferred
async def test_three_concurrent_janitors_end_each_waiting_command_once(
    redis: RedisServer, clock: Clock
) -> None:
    janitors = [Connected(redis.address) for _ in range(3)]
    for one in janitors:
        await one.usable()
    redis.client.sadd(WAITING, DEVICE)
    for number in range(100):
        append_entry(redis, waiting_stream(), fields(f"c{number}", DEVICE, expires_in=-10))
        append_entry(redis, waiting_stream(), {"colour": "red"})
    sweepings = [Sweep(one.connection, clock) for one in janitors]
    counts = await gatherResults([Deferred.fromCoroutine(sweeping()) for sweeping in sweepings])
    counted = Counter(command_id for command_id, _, _ in summaries(redis))
    assert counted == {"": 100} | {f"c{number}": 1 for number in range(100)}
    assert not redis.client.exists(WAITING, waiting_stream())
    total: Counter[str] = Counter()
    for each in counts:
        total += each.commands
    assert total == {"expired": 100, "malformed": 100}
    for one in janitors:
        await one.connection.stopService()


@ensureDeferred
async def test_expired_command_after_many_waiting_ones_is_ended(
    sweep: Sweep, redis: RedisServer
) -> None:
    redis.client.sadd(WAITING, DEVICE)
    ids = [f"c{number}" for number in range(150)]
    for command_id in ids:
        append_entry(redis, waiting_stream(), fields(command_id, DEVICE))
    append_entry(redis, waiting_stream(), fields("late", DEVICE, expires_in=-10))
    counts = await sweep()
    assert results_of(counts) == {"expired": 1}
    assert counts.waiting == 1
    assert command_ids(redis, waiting_stream()) == ids


@ensureDeferred
async def test_stop_ends_a_round_between_two_pages_of_commands(
    sweep: Sweep, redis: RedisServer
) -> None:
    redis.client.sadd(WAITING, DEVICE)
    for number in range(150):
        append_entry(redis, waiting_stream(), fields(f"c{number}", DEVICE, expires_in=-10))
    calls: list[bool] = []

    def may_continue() -> bool:
        calls.append(len(calls) < 2)  # for the device, and after its first page
        return calls[-1]

    await sweep(may_continue)
    left = command_ids(redis, waiting_stream())
    assert 0 < len(left) < 150
    assert (await sweep()).commands["expired"] == len(left)
