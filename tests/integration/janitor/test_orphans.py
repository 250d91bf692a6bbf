"""What instances leave behind that are gone: it is seen to once, and the living keep theirs."""

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
from tracker.janitor.orphans import OrphanSweeper, Swept

DEAD = outbound("dead")
ANSWERED = StatusUpdate(Status.RESPONDED, response="an answer")


class Sweeping:
    """Rounds of a janitor."""

    def __init__(self, connection: Any, clock: Clock, wait: bool = True) -> None:
        self._sweeper = OrphanSweeper(clock, connection, wait)

    async def __call__(self, goes_on: Callable[[], bool] = lambda: True) -> Swept:
        swept = Swept()
        await self._sweeper.sweep(swept, goes_on)
        return swept


@pytest.fixture
def sweep(connected: Connected, clock: Clock) -> Sweeping:
    return Sweeping(connected.connection, clock)


def fates_of(swept: Swept) -> dict[str, int]:
    return dict(+swept.commands)


class Meanwhile(Intercepted):
    """A connection on which something happens once, before a certain command."""

    def __init__(self, connected: Connected, command: str, do: Callable[[], object]) -> None:
        super().__init__(connected.connection, self._happen)
        self._command = command
        self._do = do
        self.happened = False

    def _happen(self, command: str, *_: Any) -> None:
        if not self.happened and command == self._command:
            self.happened = True
            self._do()


# The device registry.


@ensureDeferred
async def test_connections_of_instances_that_are_gone_are_removed(
    sweep: Sweeping, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", "a", "b")
    register_devices(redis, "dead", "c", "d")
    register_devices(redis, "gone", "e")
    register_devices(redis, "", "f")
    swept = await sweep()
    assert device_registry(redis) == {"a": "one", "b": "one"}
    assert swept.connections == 4
    assert (await sweep()).connections == 0


@ensureDeferred
async def test_a_registry_of_many_pages_is_swept(
    sweep: Sweeping, connected: Connected, redis: RedisServer
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
async def test_what_has_changed_since_the_look_is_left_alone(
    connected: Connected, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", "a")
    register_devices(redis, "dead", "b", "c")
    # It was seen at the dead instance, and has moved.
    assert await sweep_registry(connected.connection, "dead", ["a", "b", "nowhere"]) == 1
    assert device_registry(redis) == {"a": "one", "c": "dead"}
    set_heartbeats(redis, "dead")
    assert await sweep_registry(connected.connection, "dead", ["a", "c"]) == 0
    assert device_registry(redis) == {"a": "one", "c": "dead"}


@ensureDeferred
async def test_a_device_that_moves_during_a_round_stays_where_it_is(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "dead", DEVICE, OTHER)
    meanwhile = Meanwhile(connected, "EVALSHA", do=lambda: register_devices(redis, "one", DEVICE))
    swept = await Sweeping(meanwhile, clock)()
    assert meanwhile.happened
    assert device_registry(redis) == {DEVICE: "one"}
    assert swept.connections == 1


# The commands of an instance that is gone.


@ensureDeferred
async def test_what_was_left_in_each_state_is_seen_to(
    sweep: Sweeping, connected: Connected, redis: RedisServer, clock: Clock
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
    append_entry(redis, DEAD, fields("pending", DEVICE))  # once more
    append_entry(redis, DEAD, fields("claimed", DEVICE))
    moving = contents(redis, DEAD)
    swept = await sweep()
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
    assert not redis.client.exists(DEAD)  # nor its group
    assert device_registry(redis) == {OTHER: "two"}
    assert (swept.streams, swept.connections, swept.waiting) == (1, 1, 1)
    assert fates_of(swept) == {
        "ended": 4,
        "expired": 1,
        "malformed": 2,
        "put to wait": 3,
        "moved": 1,
    }
    assert responses(redis)["claimed"][-1]["instance_id"] == "dead"
    before = dump_all(redis)
    assert fates_of(await sweep()) == {}
    assert dump_all(redis) == before


@ensureDeferred
async def test_where_nobody_waits_what_is_left_fails(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "two")
    register_devices(redis, "two", OTHER)
    queued_command(redis, "c1", "dead")
    queued_command(redis, "c2", "dead", OTHER)
    swept = await Sweeping(connected.connection, clock, wait=False)()
    assert statuses(redis) == {"c1": "failed/offline"}
    assert command_ids(redis, outbound("two")) == ["c2"]
    assert fates_of(swept) == {"offline": 1, "moved": 1}
    assert not redis.client.exists(WAITING)


@ensureDeferred
@pytest.mark.parametrize("owner", ["dead", "gone"])
async def test_commands_are_not_moved_from_one_instance_that_is_gone_to_another(
    owner: str, sweep: Sweeping, redis: RedisServer
) -> None:
    register_devices(redis, owner, DEVICE)
    queued_command(redis, "c1", "dead")
    queued_command(redis, "c2", "gone")
    swept = await sweep()
    assert sorted(command_ids(redis, waiting_stream())) == ["c1", "c2"]
    assert redis.client.keys("commands:outbound:*") == []
    assert (swept.streams, swept.connections) == (2, 1)


@ensureDeferred
async def test_several_pages_of_commands_keep_their_order(
    sweep: Sweeping, redis: RedisServer
) -> None:
    ids = [f"c{number}" for number in range(250)]
    for command_id in ids:
        append_entry(redis, DEAD, fields(command_id, DEVICE))
    read_new(redis, DEAD)
    swept = await sweep()
    assert command_ids(redis, waiting_stream()) == ids
    assert fates_of(swept) == {"put to wait": 250}


@ensureDeferred
@pytest.mark.parametrize("group", [True, False], ids=["with its group", "without"])
async def test_an_empty_stream_goes_with_its_instance(
    group: bool, sweep: Sweeping, redis: RedisServer
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
async def test_an_instance_that_lives_keeps_what_it_has(
    sweep: Sweeping, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    ledger = CommandLedger(clock, connected.connection, "one")
    await ledger.claim(*queued_command(redis, "claimed"))
    queued_command(redis, "expired", expires_in=-10)
    append_entry(redis, outbound("one"), {"colour": "red"})
    before = dump_all(redis)
    swept = await sweep()
    assert dump_all(redis) == before
    assert fates_of(swept) == {}


@ensureDeferred
@pytest.mark.parametrize("first", ["a command", "a claimed one", "an expired one", "none at all"])
@pytest.mark.parametrize("when", ["XRANGE", "EVALSHA"])
async def test_an_instance_that_comes_to_life_in_a_round_keeps_what_it_has(
    when: str, first: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    match first:
        case "a command":
            queued_command(redis, "c1", "dead")
        case "a claimed one":
            ledger = CommandLedger(clock, connected.connection, "dead")
            await ledger.claim(*queued_command(redis, "c1", "dead"))
        case "an expired one":
            queued_command(redis, "c1", "dead", expires_in=-10)
        case "none at all":
            append_entry(redis, DEAD, {"colour": "red"})
    queued_command(redis, "c2", "dead")
    before = dump_all(redis)
    meanwhile = Meanwhile(connected, when, do=lambda: set_heartbeats(redis, "dead"))
    swept = await Sweeping(meanwhile, clock)()
    assert meanwhile.happened
    assert dump_all(redis) == before | {
        b"instance:heartbeat:dead": redis.client.dump("instance:heartbeat:dead")
    }
    assert fates_of(swept) == {}
    assert swept.streams == 0


@ensureDeferred
async def test_an_instance_that_comes_to_life_between_two_steps_keeps_the_command(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    queued_command(redis, "c1", "dead")
    queued_command(redis, "c2", "dead")
    steps = 0

    def count(command: str, *_: Any) -> None:
        nonlocal steps
        steps += command == "EVALSHA"
        if steps == 2:  # recovered, and not yet passed on
            set_heartbeats(redis, "dead")

    before = contents(redis, DEAD)
    swept = await Sweeping(Intercepted(connected.connection, count), clock)()
    assert steps >= 2
    assert contents(redis, DEAD) == before
    assert fates_of(swept) == {}


@ensureDeferred
async def test_a_round_ends_where_it_may_not_go_on(sweep: Sweeping, redis: RedisServer) -> None:
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
async def test_out_of_memory_nothing_is_lost(
    sweep: Sweeping, redis: RedisServer, clock: Clock
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
async def test_three_janitors_at_once_bring_each_command_to_one_end(
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
    sweepings = [Sweeping(one.connection, clock) for one in janitors]
    rounds = [Deferred.fromCoroutine(sweeping()) for sweeping in sweepings]
    swept = await gatherResults(rounds)
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
    # What they say they have done is what was done.
    total: Counter[str] = Counter()
    for its in swept:
        total += its.commands
    assert total == {
        "ended": 50,
        "expired": 50,
        "malformed": 50,
        "moved": 50,
        "put to wait": 100,
    }
    assert sum(one.streams for one in swept) == 2
    for one in janitors:
        await one.connection.stopService()


@ensureDeferred
async def test_three_janitors_at_once_give_what_waits_one_end(
    redis: RedisServer, clock: Clock
) -> None:
    janitors = [Connected(redis.address) for _ in range(3)]
    for one in janitors:
        await one.usable()
    redis.client.sadd(WAITING, DEVICE)
    for number in range(100):
        append_entry(redis, waiting_stream(), fields(f"c{number}", DEVICE, expires_in=-10))
        append_entry(redis, waiting_stream(), {"colour": "red"})
    sweepings = [Sweeping(one.connection, clock) for one in janitors]
    swept = await gatherResults([Deferred.fromCoroutine(sweeping()) for sweeping in sweepings])
    counted = Counter(command_id for command_id, _, _ in summaries(redis))
    assert counted == {"": 100} | {f"c{number}": 1 for number in range(100)}
    assert not redis.client.exists(WAITING, waiting_stream())
    total: Counter[str] = Counter()
    for its in swept:
        total += its.commands
    assert total == {"expired": 100, "malformed": 100}
    for one in janitors:
        await one.connection.stopService()


@ensureDeferred
async def test_a_waiting_command_that_expired_behind_many_others_is_ended(
    sweep: Sweeping, redis: RedisServer
) -> None:
    redis.client.sadd(WAITING, DEVICE)
    ids = [f"c{number}" for number in range(150)]
    for command_id in ids:
        append_entry(redis, waiting_stream(), fields(command_id, DEVICE))
    append_entry(redis, waiting_stream(), fields("late", DEVICE, expires_in=-10))
    swept = await sweep()
    assert fates_of(swept) == {"expired": 1}
    assert swept.waiting == 1
    assert command_ids(redis, waiting_stream()) == ids


@ensureDeferred
async def test_stop_does_not_wait_for_all_commands_of_a_device(
    sweep: Sweeping, redis: RedisServer
) -> None:
    redis.client.sadd(WAITING, DEVICE)
    for number in range(150):
        append_entry(redis, waiting_stream(), fields(f"c{number}", DEVICE, expires_in=-10))
    asked: list[bool] = []

    def goes_on() -> bool:
        asked.append(len(asked) < 2)  # at the device, and behind its first page
        return asked[-1]

    await sweep(goes_on)
    left = command_ids(redis, waiting_stream())
    assert 0 < len(left) < 150
    assert (await sweep()).commands["expired"] == len(left)
