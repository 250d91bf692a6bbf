"""Which devices are connected where, in a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.waiting import until
from tracker.command import MOST_FIELDS
from tracker.ingestion.registry import INTERVAL, PAGE, RETRY, Registry

KEY = "connections:registry"


class Instance:
    """The registry of an instance whose time the test tells."""

    def __init__(self, connected: Connected, name: str) -> None:
        self.clock = Clock()
        self.moved: list[tuple[str, str]] = []
        self.registry = Registry(
            self.clock, connected.connection, name, lambda *moved: self.moved.append(moved)
        )
        self.registry.startService()

    def enter(self, *devices: str) -> None:
        for device_id in devices:
            self.registry.entered(device_id)
        self.clock.advance(0)

    def leave(self, *devices: str) -> None:
        for device_id in devices:
            self.registry.left(device_id)
        self.clock.advance(0)


def registered(redis: RedisServer) -> dict[str, str]:
    found: dict[bytes, bytes] = redis.client.hgetall(KEY)
    return {device.decode(): owner.decode() for device, owner in found.items()}


@pytest.fixture
def one(connected: Connected) -> Instance:
    return Instance(connected, "one")


@pytest.fixture
def two(connected: Connected) -> Instance:
    return Instance(connected, "two")


@ensureDeferred
async def test_devices_are_entered_and_taken_out(one: Instance, redis: RedisServer) -> None:
    devices = [str(number) for number in range(PAGE + 5)]
    one.enter(*devices)
    await until(lambda: registered(redis) == dict.fromkeys(devices, "one"), "entered")
    one.leave(*devices[1:])
    await until(lambda: registered(redis) == {"0": "one"}, "taken out")


@ensureDeferred
async def test_what_changes_in_one_turn_is_told_as_it_is_in_the_end(
    one: Instance, redis: RedisServer
) -> None:
    one.registry.entered("a")
    one.registry.left("a")
    one.registry.left("b")
    one.registry.entered("b")
    one.clock.advance(0)
    await until(lambda: registered(redis) == {"b": "one"}, "told")


@ensureDeferred
async def test_a_device_that_has_moved_is_not_taken_out_of_its_new_place(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    two.enter("a")
    await until(lambda: registered(redis) == {"a": "two"}, "moved")
    one.leave("a")
    one.enter("b")
    await until(lambda: registered(redis) == {"a": "two", "b": "one"}, "still there")


@ensureDeferred
async def test_the_older_instance_notices_that_a_device_has_moved(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a", "b")
    await until(lambda: len(registered(redis)) == 2, "entered")
    two.enter("a")
    await until(lambda: registered(redis)["a"] == "two", "moved")
    one.clock.advance(INTERVAL)
    await until(lambda: one.moved, "noticed")
    assert one.moved == [("a", "two")]
    two.clock.advance(INTERVAL)
    two.enter("c")
    await until(lambda: "c" in registered(redis), "looked")
    assert two.moved == []


@ensureDeferred
async def test_a_device_that_has_come_back_just_now_has_not_moved(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    two.enter("a")
    await until(lambda: registered(redis) == {"a": "two"}, "moved")
    one.clock.advance(INTERVAL)  # looks …
    one.enter("a")  # … while it comes back
    await until(lambda: registered(redis) == {"a": "one"}, "is back")
    one.clock.advance(INTERVAL)
    one.enter("z")
    await until(lambda: "z" in registered(redis), "looked again")
    assert one.moved == []


@ensureDeferred
async def test_after_a_flush_all_are_entered_again(one: Instance, redis: RedisServer) -> None:
    devices = [str(number) for number in range(2 * PAGE)]
    one.enter(*devices)
    await until(lambda: len(registered(redis)) == len(devices), "entered")
    redis.client.flushall()
    one.clock.advance(INTERVAL)

    def again() -> bool:
        one.clock.advance(0)
        return registered(redis) == dict.fromkeys(devices, "one")

    await until(again, "entered again")


@ensureDeferred
async def test_what_redis_did_not_take_is_told_when_it_is_back(
    one: Instance, redis: RedisServer, connected: Connected
) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    redis.kill()
    await until(lambda: not connected.connection.connected, "gone")
    one.leave("a")
    one.enter("b")
    redis.start()
    await connected.usable()

    def told() -> Any:
        one.clock.advance(RETRY)
        return registered(redis) == {"b": "one"}

    await until(told, "told")


@ensureDeferred
@pytest.mark.parametrize("what", ["no stream", "no set", "huge"])
async def test_what_ails_the_commands_of_one_device_is_nothing_to_the_registry(
    what: str, one: Instance, redis: RedisServer
) -> None:
    waiting = "commands:waiting"
    good = redis.client.xadd(f"{waiting}:b", {"command_id": "good"})
    redis.client.sadd(waiting, "a", "b")
    match what:
        case "no stream":
            redis.client.set(f"{waiting}:a", "x")
        case "no set":
            redis.client.set(waiting, "x")
        case "huge":
            redis.client.xadd(f"{waiting}:a", {f"field {number}": "" for number in range(5000)})
    one.enter("a", "b", "c")
    await until(lambda: registered(redis) == dict.fromkeys("abc", "one"), "entered")
    moved = redis.client.xrange("commands:outbound:one")
    if what == "no set":
        assert redis.client.xrange(f"{waiting}:b") == [(good, {b"command_id": b"good"})]
    else:
        assert moved[-1][1] == {b"command_id": b"good"}
    if what == "huge":
        assert len(moved) == 2
        assert len(moved[0][1]) == MOST_FIELDS + 1  # so it is still seen to be none
        assert not redis.client.exists(f"{waiting}:a")
    one.clock.advance(RETRY)
    one.enter("d")
    await until(lambda: "d" in registered(redis), "goes on")
    assert redis.client.xrange("commands:outbound:one") == moved


@ensureDeferred
async def test_a_stop_takes_out_what_points_here_and_nothing_else(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a", "b", "c")
    await until(lambda: len(registered(redis)) == 3, "entered")
    two.enter("b")
    await until(lambda: registered(redis)["b"] == "two", "moved")
    one.registry.left("c")  # and is not told yet
    await one.registry.stopService()
    assert registered(redis) == {"b": "two"}
    one.registry.entered("d")
    one.clock.advance(60)
    assert registered(redis) == {"b": "two"}
