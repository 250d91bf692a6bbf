"""Many commands in one instance, some of which are in the way of others, on a real server."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import Instances, have_ended, is_told
from tests.integration.commands.ledgers import (
    DEVICE,
    OTHER,
    command_ids,
    is_empty,
    outbound,
    waiting,
)
from tests.servers import RedisServer
from tests.system.commands import fates
from tracker.commands.delivery import RETRY

STREAM: Final = outbound("one")


@ensureDeferred
async def test_one_of_the_other_entries_takes_the_place_of_one_that_is_lost(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    first, *_ = [one.send("c1") for _ in range(4)]
    await one.until(lambda: one.delivery._entries == 4, "all are known")
    redis.client.xack(STREAM, "ingest", first)
    redis.client.xdel(STREAM, first)
    device.free()
    await one.has_written(device, "c1")
    device.say("an answer")
    await is_told(one, redis, {"c1": "responded"})
    one.send("c2")
    await one.has_written(device, "c1", "c2")
    assert one.delivery._entries == 1


@ensureDeferred
async def test_what_redis_refuses_for_one_device_is_nothing_to_the_others(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    redis.client.set(waiting(OTHER), "no stream")
    one.send("c1", OTHER)
    one.send("c2")
    await one.has_written(device, "c2")
    device.say("an answer")
    await one.until(have_ended(redis, 1), "answered")
    report = one.reports[-1] or ""
    assert "commands:outbound:one" in report
    assert "WRONGTYPE" in report
    redis.client.delete(waiting(OTHER))
    await one.until(lambda: redis.client.xlen(waiting(OTHER)) == 1, "waits", step=0.5)
    await one.until(lambda: one.reports[-1] is None, "well again")
    assert one.delivery._entries == 0
    assert fates(redis) == {"c2": "responded"}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are held at once, and fewer for one device."""
    monkeypatch.setattr("tracker.commands.delivery.MOST_HELD", 4)
    monkeypatch.setattr("tracker.commands.delivery.MOST_OF_ONE", 2)


@ensureDeferred
async def test_many_commands_for_one_device_leave_room_for_those_of_others(
    few: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device, other = one.login(busy=True), one.login(OTHER)
    ids = [f"c{number}" for number in range(10)]
    for command_id in ids:
        one.send(command_id)
    one.send("other", OTHER)
    await one.has_written(other, "other")
    other.say("an answer")
    await one.has_read(10)
    assert one.delivery.load(DEVICE) == (10, False)
    assert one.delivery._entries == 2
    device.free()
    for number in range(1, 10):
        await one.has_written(device, *ids[:number])
        device.say("an answer")
    await one.has_written(device, *ids)
    one.send("late")
    device.say("an answer")
    await one.has_written(device, *ids, "late")
    device.say("an answer")
    await is_told(one, redis, dict.fromkeys([*ids, "other", "late"], "responded"))
    assert one.delivery._behind == {}
    assert one.delivery._ids_behind == 0


@ensureDeferred
async def test_what_is_behind_goes_along_when_the_device_leaves(
    few: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    ids = [one.send(f"c{number}") for number in range(9)]
    lost = ids[5]
    one.send("short", expires_in=30)
    await one.has_read(10)
    redis.client.xack(STREAM, "ingest", lost)
    redis.client.xdel(STREAM, lost)
    redis.kill()
    redis.start()
    await one.connected()
    await one.has_read(10)
    one.clock.advance(60)
    device.close()
    await one.until(lambda: is_empty(redis, STREAM), "passed on", step=RETRY)
    await one.is_idle()
    assert command_ids(redis, waiting()) == [f"c{number}" for number in range(9) if number != 5]
    assert fates(redis) == {"short": "expired"}


@ensureDeferred
async def test_what_is_behind_is_left_to_the_next_start_by_a_stop(
    few: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login(busy=True)
    for number in range(9):
        one.send(f"c{number}")
    await one.has_read(9)
    await one.stop_delivery()
    left = redis.client.xlen(STREAM)
    assert left + redis.client.xlen(waiting()) == 9
    assert redis.client.xpending(STREAM, "ingest")["pending"] == left


@ensureDeferred
async def test_a_command_expires_behind_one_that_waits(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", timeout=3000)
    await one.has_written(device, "c1")
    one.send("long")
    one.send("short", expires_in=60)
    one.send("shorter", expires_in=30)
    await one.has_read(4)
    one.clock.advance(31)
    await one.until(lambda: fates(redis) == {"shorter": "expired"}, "one has expired")
    assert one.delivery.load(DEVICE) == (2, True)
    one.clock.advance(30)
    await one.until(lambda: fates(redis).get("short") == "expired", "both have")
    device.say("an answer")
    await one.has_written(device, "c1", "long")
    device.say("an answer")
    await is_told(
        *(one, redis),
        {"c1": "responded", "long": "responded", "short": "expired", "shorter": "expired"},
    )
