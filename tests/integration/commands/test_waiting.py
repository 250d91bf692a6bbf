"""Commands that wait for their devices: until they come, or until it is too late."""

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
    command_ids,
    connect,
    is_empty,
    live,
    outbound,
    put,
    raw,
    said,
    sent,
    snapshot,
    waiting,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.system.commands import device_registry, fields, responses, statuses
from tracker.commands import scripts
from tracker.commands.deviceregistry import update_registry
from tracker.commands.streams import review_waiting, waiting_devices
from tracker.errors import Refused, Unavailable
from tracker.janitor.orphans import OrphanSweeper, Swept

ONE: Final = outbound("one")


def wait(redis: RedisServer, command_id: str, device_id: str = DEVICE, **options: Any) -> None:
    """A command that waits for its device."""
    options = {"expires_in": 86_400, **options}
    put(redis, waiting(device_id), fields(command_id, device_id, command_id, **options))
    redis.client.sadd(WAITING, device_id)


def nobody_waits(redis: RedisServer) -> bool:
    return not redis.client.keys(f"{WAITING}*")


async def sweep(connected: Connected, clock: Clock, wait: bool = True) -> Swept:
    """One round of a janitor."""
    swept = Swept()
    await OrphanSweeper(clock, connected.connection, wait).sweep(swept, lambda: True)
    return swept


# A device comes.


@ensureDeferred
async def test_what_waits_follows_its_device_in_order(
    connected: Connected, redis: RedisServer
) -> None:
    ids = [f"c{number}" for number in range(20)]
    for command_id in ids:
        wait(redis, command_id)
    wait(redis, "d1", OTHER)
    before = raw(redis, waiting())
    await update_registry(connected.connection, "one", {DEVICE: True})
    assert device_registry(redis) == {DEVICE: "one"}
    assert raw(redis, ONE) == before
    assert command_ids(redis, ONE) == ids
    assert not redis.client.exists(waiting())
    assert redis.client.smembers(WAITING) == [OTHER.encode()]
    assert command_ids(redis, waiting(OTHER)) == ["d1"]
    # Said once more, or by the next one: there is nothing to follow any more.
    await update_registry(connected.connection, "one", {DEVICE: True})
    await update_registry(connected.connection, "two", {DEVICE: True})
    assert raw(redis, ONE) == before
    assert not redis.client.exists(outbound("two"))


@ensureDeferred
async def test_what_waits_does_not_follow_a_device_that_leaves(
    connected: Connected, redis: RedisServer
) -> None:
    connect(redis, "one", DEVICE, OTHER)
    wait(redis, "c1")
    wait(redis, "d1", OTHER)
    await update_registry(connected.connection, "one", {DEVICE: False, OTHER: True})
    assert device_registry(redis) == {OTHER: "one"}
    assert command_ids(redis, waiting()) == ["c1"]
    assert command_ids(redis, ONE) == ["d1"]


@ensureDeferred
async def test_many_devices_come_at_once(connected: Connected, redis: RedisServer) -> None:
    devices = [f"35630704244{number:04}" for number in range(1000)]
    for number, device_id in enumerate(devices):
        if number % 3 == 0:
            wait(redis, f"{device_id}-a", device_id)
            wait(redis, f"{device_id}-b", device_id)
    await update_registry(connected.connection, "one", dict.fromkeys(devices, True))
    expected = [f"{device_id}-{which}" for device_id in devices[::3] for which in "ab"]
    assert command_ids(redis, ONE) == expected
    assert nobody_waits(redis)
    assert len(device_registry(redis)) == 1000


@ensureDeferred
async def test_out_of_memory_a_device_is_registered_with_all_that_waits_or_not(
    connected: Connected, redis: RedisServer
) -> None:
    wait(redis, "c1")
    before = snapshot(redis)
    redis.client.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="OOM"):
        await update_registry(connected.connection, "one", {DEVICE: True})
    assert snapshot(redis) == before
    redis.client.config_set("maxmemory", 0)
    await update_registry(connected.connection, "one", {DEVICE: True})
    assert command_ids(redis, ONE) == ["c1"]


@ensureDeferred
async def test_what_waits_is_delivered_when_its_device_comes(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.send("c1")  # is passed on from there
    await one.until(lambda: command_ids(redis, waiting()) == ["c1"], "waits")
    wait(redis, "c2")
    wait(redis, "c3")
    device = one.login()
    for written in (["c1"], ["c1", "c2"], ["c1", "c2", "c3"]):
        await one.has_written(device, *written)
        device.say("an answer")
    await one.until(lambda: len(statuses(redis)) == 3, "all are answered")
    assert set(statuses(redis).values()) == {"responded"}
    await one.until(lambda: is_empty(redis, ONE), "nothing is left")
    assert nobody_waits(redis)
    assert one.fetched == []


@ensureDeferred
async def test_a_device_that_comes_while_its_command_begins_to_wait_gets_it(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    devices = []
    # It is registered before the command waits, so nothing follows it by itself.
    one.redis.interrupt(scripts.OFFER, before=lambda: devices.append(one.login()))
    one.send("c1")
    await one.until(lambda: devices, "has come")
    await one.has_written(devices[0], "c1")
    assert one.fetched == [DEVICE]
    devices[0].say("an answer")
    await one.until(lambda: statuses(redis) == {"c1": "responded"}, "answered")
    assert nobody_waits(redis)


@ensureDeferred
async def test_a_device_that_comes_back_while_its_commands_are_passed_on_gets_them(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    ids = [f"c{number}" for number in range(4)]
    for command_id in ids:
        one.send(command_id)
    await one.has_read(4)
    newer = []
    one.redis.interrupt(scripts.OFFER, before=lambda: newer.append(one.login()))
    device.close()
    await one.until(lambda: newer, "is back")
    for number in range(1, 5):
        await one.has_written(newer[0], *ids[:number])
        newer[0].say("an answer")
    await one.until(lambda: len(statuses(redis)) == 4, "all are answered")
    assert set(statuses(redis).values()) == {"responded"}
    assert DEVICE in one.fetched
    assert device.written == []
    assert nobody_waits(redis)


@ensureDeferred
@pytest.mark.parametrize("when", ["queued", "not logged in"])
async def test_a_command_waits_once_though_the_answer_was_lost(
    when: str, instances: Instances, redis: RedisServer
) -> None:
    def lose() -> None:
        raise Unavailable("the answer is lost")

    one = await instances.start()
    one.redis.interrupt(scripts.OFFER, after=lose)
    if when == "queued":
        device = one.login(busy=True)
        one.send("c1")
        await one.has_read(1)
        device.close()
    else:
        one.send("c1")
    await one.until(lambda: one.redis.happened, "the answer is lost")
    newer = one.login()
    await one.has_written(newer, "c1", step=0.1)
    newer.say("an answer")
    await one.until(lambda: statuses(redis) == {"c1": "responded"}, "answered")
    await one.until(lambda: is_empty(redis, ONE), "nothing is left", step=0.1)
    await one.is_idle()
    assert nobody_waits(redis)


# Nobody has told that the device is there.


@ensureDeferred
async def test_a_review_moves_what_waits_to_where_its_device_is(
    connected: Connected, redis: RedisServer
) -> None:
    for number in range(3):
        wait(redis, f"c{number}")
    before = raw(redis, waiting())
    live(redis, "one")
    connect(redis, "one", DEVICE)
    assert await review_waiting(connected.connection, DEVICE) == (3, [])
    assert raw(redis, ONE) == before
    assert nobody_waits(redis)
    assert await review_waiting(connected.connection, DEVICE) == (0, [])


@ensureDeferred
@pytest.mark.parametrize("owner", ["nobody", "dead"])
async def test_a_review_leaves_what_waits_for_a_device_that_is_nowhere(
    owner: str, connected: Connected, redis: RedisServer
) -> None:
    wait(redis, "c1")
    wait(redis, "c2")
    if owner == "dead":
        connect(redis, "dead", DEVICE)
    before = snapshot(redis)
    moved, entries = await review_waiting(connected.connection, DEVICE)
    assert moved == 0
    assert [entry.content for entry in entries] == raw(redis, waiting())
    assert {entry.stream for entry in entries} == {waiting()}
    assert snapshot(redis) == before


@ensureDeferred
@pytest.mark.parametrize("left", ["no stream", "an empty stream"])
async def test_a_review_forgets_a_device_that_nothing_waits_for(
    left: str, connected: Connected, redis: RedisServer
) -> None:
    redis.client.sadd(WAITING, DEVICE)
    if left == "an empty stream":
        redis.client.xtrim(put(redis, waiting(), {"a": "b"}).stream, maxlen=0)
    assert await review_waiting(connected.connection, DEVICE) == (0, [])
    assert nobody_waits(redis)


@ensureDeferred
async def test_all_devices_that_are_waited_for_are_found(
    connected: Connected, redis: RedisServer
) -> None:
    devices = {f"35630704244{number:04}" for number in range(2500)}
    redis.client.sadd(WAITING, *devices)
    found = {device_id async for device_id in waiting_devices(connected.connection)}
    assert found == devices


# It is too late.


@ensureDeferred
async def test_what_waits_expires_with_one_response(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    wait(redis, "c1", expires_in=60)
    wait(redis, "c2", expires_in=6000)
    wait(redis, "c3", expires_in=60)
    wait(redis, "d1", OTHER, expires_in=60)
    swept = await sweep(connected, clock)
    assert said(redis) == []
    assert swept.waiting == 2
    clock.advance(61)
    swept = await sweep(connected, clock)
    assert statuses(redis) == dict.fromkeys(("c1", "c3", "d1"), "expired")
    assert swept.commands["expired"] == 3
    assert swept.waiting == 1
    assert command_ids(redis, waiting()) == ["c2"]
    assert redis.client.smembers(WAITING) == [DEVICE.encode()]
    assert not redis.client.exists(waiting(OTHER))
    clock.advance(6000)
    assert (await sweep(connected, clock)).waiting == 0
    assert statuses(redis) == dict.fromkeys(("c1", "c2", "c3", "d1"), "expired")
    assert nobody_waits(redis)
    assert (await sweep(connected, clock)).commands.total() == 0
    assert [len(answers) for answers in responses(redis).values()] == [1, 1, 1, 1]
    assert responses(redis)["c1"][0]["instance_id"] == "janitor"
    assert {key.decode() for key in redis.client.keys("commands:sent:*")} == {
        sent(command_id) for command_id in ("c1", "c2", "c3", "d1")
    }


@ensureDeferred
async def test_a_second_entry_of_what_is_over_goes_without_a_response(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    redis.client.set(sent("c1"), "done responded 1-1")
    for _ in range(2):
        wait(redis, "c1", expires_in=60)
        wait(redis, "c2", expires_in=60)
    clock.advance(61)
    swept = await sweep(connected, clock)
    assert said(redis) == [("c2", "expired", "")]
    assert nobody_waits(redis)
    assert swept.commands["expired"] == 1


@ensureDeferred
async def test_what_waits_does_not_expire_in_the_hands_of_its_instance(
    connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    live(redis, "one")
    connect(redis, "one", DEVICE)
    wait(redis, "c1", expires_in=60)
    clock.advance(61)
    swept = await sweep(connected, clock)
    assert swept.commands["moved"] == 1
    assert command_ids(redis, ONE) == ["c1"]
    assert said(redis) == []
    assert nobody_waits(redis)


BAD: Final[dict[str, dict[Any, Any]]] = {
    "a bad expiry": {"expires_at": "tomorrow"},
    "no UTF-8": {"payload": b"\xff"},
    "many fields": {f"field{number}": "" for number in range(100)},
    "more fields than a script can pass on": {f"field{number}": "" for number in range(5000)},
}


@ensureDeferred
@pytest.mark.parametrize("bad", BAD)
async def test_what_is_no_command_does_not_wait(
    bad: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    wait(redis, "c1")
    put(redis, waiting(), fields("c2", DEVICE) | BAD[bad])
    put(redis, waiting(), {"colour": "red"})
    swept = await sweep(connected, clock)
    assert said(redis) == [("c2", "failed", "malformed"), ("", "failed", "malformed")]
    assert command_ids(redis, waiting()) == ["c1"]
    assert (swept.commands["malformed"], swept.waiting) == (2, 1)
    clock.advance(100_000)
    await sweep(connected, clock)
    assert nobody_waits(redis)


@ensureDeferred
@pytest.mark.parametrize("bad", BAD)
async def test_what_is_no_command_keeps_no_device_from_being_registered(
    bad: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    wait(redis, "c1")
    put(redis, waiting(), fields("c2", DEVICE) | BAD[bad])
    put(redis, waiting(), {"colour": "red"})
    wait(redis, "c3")
    wait(redis, "d1", OTHER)
    device, other = one.login(), one.login(OTHER)
    for connection, written in ((device, ["c1"]), (device, ["c1", "c3"]), (other, ["d1"])):
        await one.has_written(connection, *written)
        connection.say("an answer")
    await one.until(lambda: len(statuses(redis)) == 5, "all have ended")
    assert statuses(redis) == {
        "c1": "responded",
        "c3": "responded",
        "d1": "responded",
        "c2": "failed/malformed",
        "": "failed/malformed",
    }
    await one.until(lambda: is_empty(redis, ONE), "nothing is left")
    assert nobody_waits(redis)
    assert device_registry(redis) == {DEVICE: "one", OTHER: "one"}
