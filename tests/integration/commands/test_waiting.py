"""Tests of commands that wait for their devices, on a real Redis."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.instances import Instances
from tests.integration.commands.ledgers import (
    DEVICE,
    OTHER,
    WAITING,
    append_entry,
    command_ids,
    contents,
    dump_all,
    is_empty,
    outbound,
    record_key,
    register_devices,
    set_heartbeats,
    summaries,
    waiting_stream,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.system.commands import device_registry, fields, responses, statuses
from tracker.commands import scripts
from tracker.commands.deviceregistry import update_registry
from tracker.commands.streams import review_waiting, waiting_devices
from tracker.errors import Refused, Unavailable
from tracker.janitor.orphans import OrphanSweeper, SweepCounts

ONE: Final = outbound("one")


def add_waiting(
    redis: RedisServer, command_id: str, device_id: str = DEVICE, **options: Any
) -> None:
    """Add a command that waits for its device."""
    options = {"expires_in": 86_400, **options}
    append_entry(
        redis, waiting_stream(device_id), fields(command_id, device_id, command_id, **options)
    )
    redis.client.sadd(WAITING, device_id)


def none_waiting(redis: RedisServer) -> bool:
    return not redis.client.keys(f"{WAITING}*")


async def sweep(connected: Connected, clock: Clock, wait: bool = True) -> SweepCounts:
    """Run one sweep of a janitor."""
    swept = SweepCounts()
    await OrphanSweeper(clock, connected.connection, wait).sweep(swept, lambda: True)
    return swept


# Devices that log in.


@ensureDeferred
async def test_waiting_commands_are_moved_in_order_when_the_device_registers(
    connected: Connected, redis: RedisServer
) -> None:
    ids = [f"c{number}" for number in range(20)]
    for command_id in ids:
        add_waiting(redis, command_id)
    add_waiting(redis, "d1", OTHER)
    before = contents(redis, waiting_stream())
    await update_registry(connected.connection, "one", {DEVICE: True})
    assert device_registry(redis) == {DEVICE: "one"}
    assert contents(redis, ONE) == before
    assert command_ids(redis, ONE) == ids
    assert not redis.client.exists(waiting_stream())
    assert redis.client.smembers(WAITING) == [OTHER.encode()]
    assert command_ids(redis, waiting_stream(OTHER)) == ["d1"]
    # A second registration, here or at another instance, moves nothing.
    await update_registry(connected.connection, "one", {DEVICE: True})
    await update_registry(connected.connection, "two", {DEVICE: True})
    assert contents(redis, ONE) == before
    assert not redis.client.exists(outbound("two"))


@ensureDeferred
async def test_unregistering_a_device_does_not_move_waiting_commands(
    connected: Connected, redis: RedisServer
) -> None:
    register_devices(redis, "one", DEVICE, OTHER)
    add_waiting(redis, "c1")
    add_waiting(redis, "d1", OTHER)
    await update_registry(connected.connection, "one", {DEVICE: False, OTHER: True})
    assert device_registry(redis) == {OTHER: "one"}
    assert command_ids(redis, waiting_stream()) == ["c1"]
    assert command_ids(redis, ONE) == ["d1"]


@ensureDeferred
async def test_many_devices_register_in_one_call(connected: Connected, redis: RedisServer) -> None:
    devices = [f"35630704244{number:04}" for number in range(1000)]
    for number, device_id in enumerate(devices):
        if number % 3 == 0:
            add_waiting(redis, f"{device_id}-a", device_id)
            add_waiting(redis, f"{device_id}-b", device_id)
    await update_registry(connected.connection, "one", dict.fromkeys(devices, True))
    expected = [f"{device_id}-{which}" for device_id in devices[::3] for which in "ab"]
    assert command_ids(redis, ONE) == expected
    assert none_waiting(redis)
    assert len(device_registry(redis)) == 1000


@ensureDeferred
async def test_registration_out_of_memory_changes_nothing(
    connected: Connected, redis: RedisServer
) -> None:
    add_waiting(redis, "c1")
    before = dump_all(redis)
    redis.client.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="OOM"):
        await update_registry(connected.connection, "one", {DEVICE: True})
    assert dump_all(redis) == before
    redis.client.config_set("maxmemory", 0)
    await update_registry(connected.connection, "one", {DEVICE: True})
    assert command_ids(redis, ONE) == ["c1"]


@ensureDeferred
async def test_waiting_commands_are_delivered_when_the_device_logs_in(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.send("c1")  # the instance passes it on
    await one.until(lambda: command_ids(redis, waiting_stream()) == ["c1"], "waits")
    add_waiting(redis, "c2")
    add_waiting(redis, "c3")
    device = one.login()
    for written in (["c1"], ["c1", "c2"], ["c1", "c2", "c3"]):
        await one.wait_written(device, *written)
        device.answer("an answer")
    await one.until(lambda: len(statuses(redis)) == 3, "all are answered")
    assert set(statuses(redis).values()) == {"responded"}
    await one.until(lambda: is_empty(redis, ONE), "nothing is left")
    assert none_waiting(redis)
    assert one.fetched == []


@ensureDeferred
async def test_device_that_logs_in_while_its_command_starts_waiting_receives_it(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    devices = []
    # The device is registered before the command waits, so the registration does not move it.
    one.redis.interrupt(scripts.OFFER, before=lambda: devices.append(one.login()))
    one.send("c1")
    await one.until(lambda: devices, "logged in")
    await one.wait_written(devices[0], "c1")
    assert one.fetched == [DEVICE]
    devices[0].answer("an answer")
    await one.until(lambda: statuses(redis) == {"c1": "responded"}, "answered")
    assert none_waiting(redis)


@ensureDeferred
async def test_device_that_reconnects_while_commands_are_passed_on_receives_them(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    ids = [f"c{number}" for number in range(4)]
    for command_id in ids:
        one.send(command_id)
    await one.wait_held(4)
    newer = []
    one.redis.interrupt(scripts.OFFER, before=lambda: newer.append(one.login()))
    device.close()
    await one.until(lambda: newer, "reconnected")
    for number in range(1, 5):
        await one.wait_written(newer[0], *ids[:number])
        newer[0].answer("an answer")
    await one.until(lambda: len(statuses(redis)) == 4, "all are answered")
    assert set(statuses(redis).values()) == {"responded"}
    assert DEVICE in one.fetched
    assert device.written == []
    assert none_waiting(redis)


@ensureDeferred
@pytest.mark.parametrize("when", ["queued", "not logged in"])
async def test_command_starts_waiting_once_if_the_reply_of_redis_was_lost(
    when: str, instances: Instances, redis: RedisServer
) -> None:
    def lose() -> None:
        raise Unavailable("the reply is lost")

    one = await instances.start()
    one.redis.interrupt(scripts.OFFER, after=lose)
    if when == "queued":
        device = one.login(busy=True)
        one.send("c1")
        await one.wait_held(1)
        device.close()
    else:
        one.send("c1")
    await one.until(lambda: one.redis.happened, "the reply is lost")
    newer = one.login()
    await one.wait_written(newer, "c1", step=0.1)
    newer.answer("an answer")
    await one.until(lambda: statuses(redis) == {"c1": "responded"}, "answered")
    await one.until(lambda: is_empty(redis, ONE), "nothing is left", step=0.1)
    await one.wait_idle()
    assert none_waiting(redis)


# Reviews of waiting commands by a janitor.


@ensureDeferred
async def test_review_moves_waiting_commands_to_the_instance_of_the_device(
    connected: Connected, redis: RedisServer
) -> None:
    for number in range(3):
        add_waiting(redis, f"c{number}")
    before = contents(redis, waiting_stream())
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    assert await review_waiting(connected.connection, DEVICE) == (3, [])
    assert contents(redis, ONE) == before
    assert none_waiting(redis)
    assert await review_waiting(connected.connection, DEVICE) == (0, [])


@ensureDeferred
@pytest.mark.parametrize("owner", ["none", "dead"])
async def test_review_leaves_waiting_commands_of_an_unconnected_device(
    owner: str, connected: Connected, redis: RedisServer
) -> None:
    add_waiting(redis, "c1")
    add_waiting(redis, "c2")
    if owner == "dead":
        register_devices(redis, "dead", DEVICE)
    before = dump_all(redis)
    moved, entries = await review_waiting(connected.connection, DEVICE)
    assert moved == 0
    assert [entry.content for entry in entries] == contents(redis, waiting_stream())
    assert {entry.stream for entry in entries} == {waiting_stream()}
    assert dump_all(redis) == before


@ensureDeferred
@pytest.mark.parametrize("left", ["no stream", "empty stream"])
async def test_review_removes_a_device_without_waiting_commands(
    left: str, connected: Connected, redis: RedisServer
) -> None:
    redis.client.sadd(WAITING, DEVICE)
    if left == "empty stream":
        redis.client.xtrim(append_entry(redis, waiting_stream(), {"a": "b"}).stream, maxlen=0)
    assert await review_waiting(connected.connection, DEVICE) == (0, [])
    assert none_waiting(redis)


@ensureDeferred
async def test_list_of_devices_with_waiting_commands_is_complete(
    connected: Connected, redis: RedisServer
) -> None:
    devices = {f"35630704244{number:04}" for number in range(2500)}
    redis.client.sadd(WAITING, *devices)
    found = {device_id async for device_id in waiting_devices(connected.connection)}
    assert found == devices


# Expiry.


@ensureDeferred
async def test_waiting_command_expires_with_one_response(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    add_waiting(redis, "c1", expires_in=60)
    add_waiting(redis, "c2", expires_in=6000)
    add_waiting(redis, "c3", expires_in=60)
    add_waiting(redis, "d1", OTHER, expires_in=60)
    swept = await sweep(connected, clock)
    assert summaries(redis) == []
    assert swept.waiting == 2
    clock.advance(61)
    swept = await sweep(connected, clock)
    assert statuses(redis) == dict.fromkeys(("c1", "c3", "d1"), "expired")
    assert swept.commands["expired"] == 3
    assert swept.waiting == 1
    assert command_ids(redis, waiting_stream()) == ["c2"]
    assert redis.client.smembers(WAITING) == [DEVICE.encode()]
    assert not redis.client.exists(waiting_stream(OTHER))
    clock.advance(6000)
    assert (await sweep(connected, clock)).waiting == 0
    assert statuses(redis) == dict.fromkeys(("c1", "c2", "c3", "d1"), "expired")
    assert none_waiting(redis)
    assert (await sweep(connected, clock)).commands.total() == 0
    assert [len(given) for given in responses(redis).values()] == [1, 1, 1, 1]
    assert responses(redis)["c1"][0]["instance_id"] == "janitor"
    assert {key.decode() for key in redis.client.keys("commands:sent:*")} == {
        record_key(command_id) for command_id in ("c1", "c2", "c3", "d1")
    }


@ensureDeferred
async def test_second_entry_of_an_ended_command_is_removed_without_a_response(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    redis.client.set(record_key("c1"), "done responded 1-1")
    for _ in range(2):
        add_waiting(redis, "c1", expires_in=60)
        add_waiting(redis, "c2", expires_in=60)
    clock.advance(61)
    swept = await sweep(connected, clock)
    assert summaries(redis) == [("c2", "expired", "")]
    assert none_waiting(redis)
    assert swept.commands["expired"] == 1


@ensureDeferred
async def test_expired_waiting_command_of_a_connected_device_is_moved(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    add_waiting(redis, "c1", expires_in=60)
    clock.advance(61)
    swept = await sweep(connected, clock)
    assert swept.commands["moved"] == 1
    assert command_ids(redis, ONE) == ["c1"]
    assert summaries(redis) == []
    assert none_waiting(redis)


MALFORMED: Final[dict[str, dict[Any, Any]]] = {
    "a bad expiry": {"expires_at": "tomorrow"},
    "no UTF-8": {"payload": b"\xff"},
    "many fields": {f"field{number}": "" for number in range(100)},
    "more fields than a script can pass on": {f"field{number}": "" for number in range(5000)},
}


@ensureDeferred
@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_waiting_entry_is_refused(
    case: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    add_waiting(redis, "c1")
    append_entry(redis, waiting_stream(), fields("c2", DEVICE) | MALFORMED[case])
    append_entry(redis, waiting_stream(), {"colour": "red"})
    swept = await sweep(connected, clock)
    assert summaries(redis) == [("c2", "failed", "malformed"), ("", "failed", "malformed")]
    assert command_ids(redis, waiting_stream()) == ["c1"]
    assert (swept.commands["malformed"], swept.waiting) == (2, 1)
    clock.advance(100_000)
    await sweep(connected, clock)
    assert none_waiting(redis)


@ensureDeferred
@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_waiting_entry_does_not_prevent_registration(
    case: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    add_waiting(redis, "c1")
    append_entry(redis, waiting_stream(), fields("c2", DEVICE) | MALFORMED[case])
    append_entry(redis, waiting_stream(), {"colour": "red"})
    add_waiting(redis, "c3")
    add_waiting(redis, "d1", OTHER)
    device, other = one.login(), one.login(OTHER)
    for connection, written in ((device, ["c1"]), (device, ["c1", "c3"]), (other, ["d1"])):
        await one.wait_written(connection, *written)
        connection.answer("an answer")
    await one.until(lambda: len(statuses(redis)) == 5, "all have ended")
    assert statuses(redis) == {
        "c1": "responded",
        "c3": "responded",
        "d1": "responded",
        "c2": "failed/malformed",
        "": "failed/malformed",
    }
    await one.until(lambda: is_empty(redis, ONE), "nothing is left")
    assert none_waiting(redis)
    assert device_registry(redis) == {DEVICE: "one", OTHER: "one"}
