"""Tests of the registration of devices, on a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tests.integration.intercepted import Intercepted
from tests.servers import RedisServer
from tests.waiting import until
from tracker.command import MAX_FIELDS
from tracker.commands.registration import CHECK_INTERVAL, MIN_RETRY_DELAY, PAGE, DeviceRegistration

KEY = "connections:registry"


class Instance:
    """The registration of an instance whose clock the test controls."""

    def __init__(self, connected: Connected, name: str, connection: Any = None) -> None:
        self.clock = Clock()
        self.moved: list[tuple[str, str]] = []
        self.registration = DeviceRegistration(
            *(self.clock, connection or connected.connection, name),
            lambda *moved: self.moved.append(moved),
        )
        self.registration.startService()

    def enter(self, *devices: str) -> None:
        for device_id in devices:
            self.registration.register(device_id)
        self.clock.advance(0)

    def leave(self, *devices: str) -> None:
        for device_id in devices:
            self.registration.unregister(device_id)
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
async def test_devices_are_registered_and_unregistered(one: Instance, redis: RedisServer) -> None:
    devices = [str(number) for number in range(PAGE + 5)]
    one.enter(*devices)
    await until(lambda: registered(redis) == dict.fromkeys(devices, "one"), "entered")
    one.leave(*devices[1:])
    await until(lambda: registered(redis) == {"0": "one"}, "taken out")


@ensureDeferred
async def test_only_the_last_state_of_a_device_in_a_reactor_turn_is_registered(
    one: Instance, redis: RedisServer
) -> None:
    one.registration.register("a")
    one.registration.unregister("a")
    one.registration.unregister("b")
    one.registration.register("b")
    one.clock.advance(0)
    await until(lambda: registered(redis) == {"b": "one"}, "registered")


@ensureDeferred
async def test_device_that_moved_stays_registered_at_its_new_instance(
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
async def test_older_instance_reports_a_device_that_has_moved(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a", "b")
    await until(lambda: len(registered(redis)) == 2, "entered")
    two.enter("a")
    await until(lambda: registered(redis)["a"] == "two", "moved")
    one.clock.advance(CHECK_INTERVAL)
    await until(lambda: one.moved, "noticed")
    assert one.moved == [("a", "two")]
    two.clock.advance(CHECK_INTERVAL)
    two.enter("c")
    await until(lambda: "c" in registered(redis), "checked")
    assert two.moved == []


@ensureDeferred
async def test_device_that_reconnects_during_the_check_has_not_moved(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    two.enter("a")
    await until(lambda: registered(redis) == {"a": "two"}, "moved")
    one.clock.advance(CHECK_INTERVAL)  # a check starts …
    one.enter("a")  # … and the device reconnects during the check
    await until(lambda: registered(redis) == {"a": "one"}, "reconnected")
    one.clock.advance(CHECK_INTERVAL)
    one.enter("z")
    await until(lambda: "z" in registered(redis), "checked again")
    assert one.moved == []


@ensureDeferred
async def test_all_devices_are_registered_again_after_a_flush(
    one: Instance, redis: RedisServer
) -> None:
    devices = [str(number) for number in range(2 * PAGE)]
    one.enter(*devices)
    await until(lambda: len(registered(redis)) == len(devices), "entered")
    redis.client.flushall()
    one.clock.advance(CHECK_INTERVAL)

    def again() -> bool:
        one.clock.advance(0)
        return registered(redis) == dict.fromkeys(devices, "one")

    await until(again, "entered again")


@ensureDeferred
async def test_changes_during_an_outage_are_registered_afterwards(
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

    def is_updated() -> Any:
        one.clock.advance(MIN_RETRY_DELAY)
        return registered(redis) == {"b": "one"}

    await until(is_updated, "registry updated")


@ensureDeferred
@pytest.mark.parametrize("what", ["not a stream", "not a set", "huge"])
async def test_malformed_waiting_commands_do_not_prevent_registration(
    what: str, one: Instance, redis: RedisServer
) -> None:
    waiting = "commands:waiting"
    good = redis.client.xadd(f"{waiting}:b", {"command_id": "good"})
    redis.client.sadd(waiting, "a", "b")
    match what:
        case "not a stream":
            redis.client.set(f"{waiting}:a", "x")
        case "not a set":
            redis.client.set(waiting, "x")
        case "huge":
            redis.client.xadd(f"{waiting}:a", {f"field {number}": "" for number in range(5000)})
    one.enter("a", "b", "c")
    await until(lambda: registered(redis) == dict.fromkeys("abc", "one"), "entered")
    moved = redis.client.xrange("commands:outbound:one")
    if what == "not a set":
        assert redis.client.xrange(f"{waiting}:b") == [(good, {b"command_id": b"good"})]
    else:
        assert moved[-1][1] == {b"command_id": b"good"}
    if what == "huge":
        assert len(moved) == 2
        assert len(moved[0][1]) == MAX_FIELDS + 1  # still too many fields for a command
        assert not redis.client.exists(f"{waiting}:a")
    one.clock.advance(MIN_RETRY_DELAY)
    one.enter("d")
    await until(lambda: "d" in registered(redis), "next device registered")
    assert redis.client.xrange("commands:outbound:one") == moved


@ensureDeferred
async def test_stop_unregisters_only_devices_of_this_instance(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a", "b", "c")
    await until(lambda: len(registered(redis)) == 3, "entered")
    two.enter("b")
    await until(lambda: registered(redis)["b"] == "two", "moved")
    one.registration.unregister("c")  # not sent to Redis yet
    await one.registration.stopService()
    assert registered(redis) == {"b": "two"}
    one.registration.register("d")
    one.clock.advance(60)
    assert registered(redis) == {"b": "two"}


@ensureDeferred
async def test_stop_unregisters_all_devices_in_one_call(one: Instance, redis: RedisServer) -> None:
    devices = [str(number) for number in range(2 * PAGE + 5)]
    one.enter(*devices)
    await until(lambda: len(registered(redis)) == len(devices), "entered")
    before = script_calls(redis)
    await one.registration.stopService()
    assert script_calls(redis) == before + 1
    assert registered(redis) == {}


@ensureDeferred
async def test_stop_waits_for_the_registration_in_progress(
    one: Instance, redis: RedisServer
) -> None:
    devices = [str(number) for number in range(3 * PAGE)]
    one.enter(*devices)  # the first of several calls is in progress
    await one.registration.stopService()
    assert registered(redis) == {}
    one.clock.advance(MIN_RETRY_DELAY)
    assert registered(redis) == {}


def script_calls(redis: RedisServer) -> int:
    stats = redis.client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


# Devices that an earlier process with the same instance ID has left registered.


def register_leftovers(redis: RedisServer, owner: str, *devices: str) -> None:
    redis.client.hset(KEY, mapping=dict.fromkeys(devices, owner))


@ensureDeferred
async def test_only_leftovers_of_the_same_instance_are_unregistered(
    one: Instance, redis: RedisServer
) -> None:
    left = [f"left {number}" for number in range(2 * PAGE + 5)]
    others = [f"other {number}" for number in range(PAGE)]
    register_leftovers(redis, "one", *left, "a", "b")
    register_leftovers(redis, "two", *others)
    register_leftovers(redis, "one more", "c")
    redis.client.xadd("commands:waiting:left 1", {"payload": "x"})
    redis.client.sadd("commands:waiting", "left 1")
    one.enter("a", "d")  # a has reconnected, d is new
    await until(lambda: registered(redis).get("d") == "one", "entered")
    await one.registration.unregister_leftovers()

    def is_unregistered() -> bool:
        one.clock.advance(0)
        return len(registered(redis)) == PAGE + 3

    await until(is_unregistered, "leftovers unregistered")
    expected = dict.fromkeys(others, "two") | {"a": "one", "c": "one more", "d": "one"}
    assert registered(redis) == expected
    assert redis.client.xlen("commands:waiting:left 1") == 1
    one.leave("a", "d")
    await until(lambda: len(registered(redis)) == PAGE + 1, "left")


class Scanned(Intercepted):
    """A connection to Redis that calls functions while the device registry is scanned."""

    def __init__(self, connected: Connected) -> None:
        super().__init__(connected.connection, self._before, self._after)
        self.actions: dict[tuple[str, int], Callable[[], None]] = {}
        """("before" or "after", number of a page) → function."""
        self.pages = 0

    def _before(self, command: str, *_: Any) -> None:
        if command == "HSCAN":
            self.pages += 1
            self._call("before")

    def _after(self, command: str, *_: Any) -> None:
        if command == "HSCAN":
            self._call("after")

    def _call(self, when: str) -> None:
        self.actions.get((when, self.pages - 1), lambda: None)()


@ensureDeferred
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("flushed", [True, False], ids=["sent", "not sent yet"])
@pytest.mark.parametrize("page", [0, 1, 2])
async def test_device_that_logs_in_during_the_scan_stays_registered(
    page: int, flushed: bool, when: str, connected: Connected, redis: RedisServer
) -> None:
    scanned = Scanned(connected)
    one = Instance(connected, "one", scanned)
    left = [f"left {number}" for number in range(4 * PAGE)]
    register_leftovers(redis, "one", *left)
    back = left[::10]

    def reconnect() -> None:
        if flushed:
            one.enter(*back)  # also sends the leftovers that were found before
        else:
            for device_id in back:
                one.registration.register(device_id)

    scanned.actions[when, page] = reconnect
    await one.registration.unregister_leftovers()
    assert scanned.pages > 2

    def is_unregistered() -> bool:
        one.clock.advance(0)
        return len(registered(redis)) <= len(back)

    await until(is_unregistered, "leftovers unregistered")
    one.enter("z")  # sent after all other changes
    await until(lambda: "z" in registered(redis), "all changes sent")
    assert registered(redis) == dict.fromkeys([*back, "z"], "one")


@ensureDeferred
async def test_device_that_connects_and_disconnects_during_the_scan_is_unregistered(
    connected: Connected, redis: RedisServer
) -> None:
    scanned = Scanned(connected)
    one = Instance(connected, "one", scanned)
    register_leftovers(redis, "one", "a", "b")

    def connect_and_disconnect() -> None:
        one.enter("a")
        one.leave("a")

    scanned.actions["after", 0] = connect_and_disconnect
    await one.registration.unregister_leftovers()
    one.clock.advance(0)
    await until(lambda: registered(redis) == {}, "removed")


@ensureDeferred
async def test_leftover_devices_stay_registered_during_an_outage(
    one: Instance, redis: RedisServer, connected: Connected
) -> None:
    register_leftovers(redis, "one", "a")
    redis.kill()
    await until(lambda: not connected.connection.connected, "gone")
    await one.registration.unregister_leftovers()
    redis.start()
    await connected.usable()
    assert registered(redis) == {"a": "one"}


@ensureDeferred
async def test_leftover_devices_stay_registered_after_a_stop(
    one: Instance, redis: RedisServer
) -> None:
    register_leftovers(redis, "one", "a")
    await one.registration.stopService()
    await one.registration.unregister_leftovers()
    one.clock.advance(MIN_RETRY_DELAY)
    assert registered(redis) == {"a": "one"}


# Commands that wait although their device is connected.


@ensureDeferred
async def test_registering_again_moves_waiting_commands_of_a_connected_device(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    for device_id in ("a", "b"):
        redis.client.xadd(f"commands:waiting:{device_id}", {"payload": device_id})
        redis.client.sadd("commands:waiting", device_id)
    for device_id in ("a", "b"):  # b is not connected
        one.registration.register_again(device_id)
        two.registration.register_again(device_id)
    for instance in (one, two):
        instance.clock.advance(0)
    await until(lambda: redis.client.exists("commands:outbound:one"), "moved")
    ((_, content),) = redis.client.xrange("commands:outbound:one")
    assert content == {b"payload": b"a"}
    assert redis.client.smembers("commands:waiting") == [b"b"]
    assert registered(redis) == {"a": "one"}
    assert not redis.client.exists("commands:outbound:two")


@ensureDeferred
async def test_device_that_disconnects_in_the_same_turn_is_not_registered_again(
    one: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    one.registration.register_again("a")
    one.registration.unregister("a")
    one.clock.advance(0)
    await until(lambda: registered(redis) == {}, "left")


@ensureDeferred
async def test_device_is_not_registered_again_after_a_stop(
    one: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    await one.registration.stopService()
    one.registration.register_again("a")
    one.clock.advance(MIN_RETRY_DELAY)
    assert registered(redis) == {}
