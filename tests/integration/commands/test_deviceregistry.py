"""Which devices are connected where, in a real Redis."""

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
from tracker.commands.registration import INTERVAL, MIN_RETRY_DELAY, PAGE, DeviceRegistration

KEY = "connections:registry"


class Instance:
    """The device registry of an instance whose time the test tells."""

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
    one.registration.register("a")
    one.registration.unregister("a")
    one.registration.unregister("b")
    one.registration.register("b")
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
        one.clock.advance(MIN_RETRY_DELAY)
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
        assert len(moved[0][1]) == MAX_FIELDS + 1  # so it is still seen to be none
        assert not redis.client.exists(f"{waiting}:a")
    one.clock.advance(MIN_RETRY_DELAY)
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
    one.registration.unregister("c")  # and is not told yet
    await one.registration.stopService()
    assert registered(redis) == {"b": "two"}
    one.registration.register("d")
    one.clock.advance(60)
    assert registered(redis) == {"b": "two"}


@ensureDeferred
async def test_a_stop_takes_all_out_in_one_call(one: Instance, redis: RedisServer) -> None:
    devices = [str(number) for number in range(2 * PAGE + 5)]
    one.enter(*devices)
    await until(lambda: len(registered(redis)) == len(devices), "entered")
    before = script_calls(redis)
    await one.registration.stopService()
    assert script_calls(redis) == before + 1
    assert registered(redis) == {}


@ensureDeferred
async def test_a_stop_comes_after_what_is_being_told(one: Instance, redis: RedisServer) -> None:
    devices = [str(number) for number in range(3 * PAGE)]
    one.enter(*devices)  # the first call is under way, others would follow
    await one.registration.stopService()
    assert registered(redis) == {}
    one.clock.advance(MIN_RETRY_DELAY)
    assert registered(redis) == {}


def script_calls(redis: RedisServer) -> int:
    stats = redis.client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


# What a process of the same id has left that died.


def leave(redis: RedisServer, owner: str, *devices: str) -> None:
    redis.client.hset(KEY, mapping=dict.fromkeys(devices, owner))


@ensureDeferred
async def test_what_an_earlier_process_has_left_is_removed_and_nothing_else(
    one: Instance, redis: RedisServer
) -> None:
    left = [f"left {number}" for number in range(2 * PAGE + 5)]
    others = [f"other {number}" for number in range(PAGE)]
    leave(redis, "one", *left, "a", "b")
    leave(redis, "two", *others)
    leave(redis, "one more", "c")
    redis.client.xadd("commands:waiting:left 1", {"payload": "x"})
    redis.client.sadd("commands:waiting", "left 1")
    one.enter("a", "d")  # the one has come back, the other is new
    await until(lambda: registered(redis).get("d") == "one", "entered")
    await one.registration.unregister_leftovers()

    def disowned() -> bool:
        one.clock.advance(0)
        return len(registered(redis)) == PAGE + 3

    await until(disowned, "removed")
    expected = dict.fromkeys(others, "two") | {"a": "one", "c": "one more", "d": "one"}
    assert registered(redis) == expected
    assert redis.client.xlen("commands:waiting:left 1") == 1
    one.leave("a", "d")
    await until(lambda: len(registered(redis)) == PAGE + 1, "left")


class Scanned(Intercepted):
    """A connection on which something happens while the device registry is scanned."""

    def __init__(self, connected: Connected) -> None:
        super().__init__(connected.connection, self._asked, self._answered)
        self.happens: dict[tuple[str, int], Callable[[], None]] = {}
        """("before" or "after" a page is read, its number) → what happens then."""
        self.pages = 0

    def _asked(self, command: str, *_: Any) -> None:
        if command == "HSCAN":
            self.pages += 1
            self._happen("before")

    def _answered(self, command: str, *_: Any) -> None:
        if command == "HSCAN":
            self._happen("after")

    def _happen(self, when: str) -> None:
        self.happens.get((when, self.pages - 1), lambda: None)()


@ensureDeferred
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "not told yet"])
@pytest.mark.parametrize("page", [0, 1, 2])
async def test_a_device_that_logs_in_during_the_scan_stays(
    page: int, told: bool, when: str, connected: Connected, redis: RedisServer
) -> None:
    scanned = Scanned(connected)
    one = Instance(connected, "one", scanned)
    left = [f"left {number}" for number in range(4 * PAGE)]
    leave(redis, "one", *left)
    back = left[::10]

    def come_back() -> None:
        if told:
            one.enter(*back)  # also tells what was found before
        else:
            for device_id in back:
                one.registration.register(device_id)

    scanned.happens[when, page] = come_back
    await one.registration.unregister_leftovers()
    assert scanned.pages > 2

    def disowned() -> bool:
        one.clock.advance(0)
        return len(registered(redis)) <= len(back)

    await until(disowned, "removed")
    one.enter("z")  # whatever is told of the others has been told before
    await until(lambda: "z" in registered(redis), "told")
    assert registered(redis) == dict.fromkeys([*back, "z"], "one")


@ensureDeferred
async def test_a_device_that_comes_and_goes_during_the_scan_is_removed(
    connected: Connected, redis: RedisServer
) -> None:
    scanned = Scanned(connected)
    one = Instance(connected, "one", scanned)
    leave(redis, "one", "a", "b")

    def come_and_go() -> None:
        one.enter("a")
        one.leave("a")

    scanned.happens["after", 0] = come_and_go
    await one.registration.unregister_leftovers()
    one.clock.advance(0)
    await until(lambda: registered(redis) == {}, "removed")


@ensureDeferred
async def test_what_is_left_stays_while_redis_is_away(
    one: Instance, redis: RedisServer, connected: Connected
) -> None:
    leave(redis, "one", "a")
    redis.kill()
    await until(lambda: not connected.connection.connected, "gone")
    await one.registration.unregister_leftovers()
    redis.start()
    await connected.usable()
    assert registered(redis) == {"a": "one"}


@ensureDeferred
async def test_after_a_stop_nothing_is_removed(one: Instance, redis: RedisServer) -> None:
    leave(redis, "one", "a")
    await one.registration.stopService()
    await one.registration.unregister_leftovers()
    one.clock.advance(MIN_RETRY_DELAY)
    assert registered(redis) == {"a": "one"}


# What has begun to wait though its device is here.


@ensureDeferred
async def test_what_waits_for_a_device_that_is_here_is_brought_here(
    one: Instance, two: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    for device_id in ("a", "b"):
        redis.client.xadd(f"commands:waiting:{device_id}", {"payload": device_id})
        redis.client.sadd("commands:waiting", device_id)
    for device_id in ("a", "b"):  # and that one is not here
        one.registration.register_again(device_id)
        two.registration.register_again(device_id)
    for instance in (one, two):
        instance.clock.advance(0)
    await until(lambda: redis.client.exists("commands:outbound:one"), "brought")
    ((_, content),) = redis.client.xrange("commands:outbound:one")
    assert content == {b"payload": b"a"}
    assert redis.client.smembers("commands:waiting") == [b"b"]
    assert registered(redis) == {"a": "one"}
    assert not redis.client.exists("commands:outbound:two")


@ensureDeferred
async def test_a_repetition_in_the_turn_in_which_a_device_leaves_says_that_it_has_left(
    one: Instance, redis: RedisServer
) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    one.registration.register_again("a")
    one.registration.unregister("a")
    one.clock.advance(0)
    await until(lambda: registered(redis) == {}, "left")


@ensureDeferred
async def test_after_a_stop_nothing_is_repeated(one: Instance, redis: RedisServer) -> None:
    one.enter("a")
    await until(lambda: registered(redis) == {"a": "one"}, "entered")
    await one.registration.stopService()
    one.registration.register_again("a")
    one.clock.advance(MIN_RETRY_DELAY)
    assert registered(redis) == {}
