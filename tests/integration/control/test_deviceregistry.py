"""Tests of listing the device registry, and of the vendors of registered devices."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

from pytest_twisted import ensureDeferred

from tests.integration.commands.ledgers import (
    DEVICE,
    register_devices,
)
from tests.integration.conftest import Connected
from tests.integration.control.bench import ControlBench
from tests.servers import RedisServer
from tests.waiting import until
from tracker.commands.deviceregistry import sweep
from tracker.commands.registration import CHECK_INTERVAL, DeviceRegistration
from tracker.control.commands import (
    ListDeviceRegistry,
)

VENDORS = "connections:vendors"
REGISTRY = "connections:registry"


COUNT = 5_000

FILTERS: list[dict[str, Any]] = [
    {"prefix": "3563070400"},
    {"prefix": "9"},
    {"vendor": "b"},
    {"vendor": "unknown"},
    {"instance_id": "two"},
    {"instance_id": "three"},
    {"prefix": "356307040", "vendor": "c", "instance_id": "one"},
    {"vendor": "a", "limit": 7, "prefix": "3563070400"},
]


def register(redis: RedisServer, devices: dict[str, tuple[str, str]]) -> None:
    """Register devices.

    :param devices: device ID → instance ID and vendor.
    """
    redis.client.hset(REGISTRY, mapping={one: owner for one, (owner, _) in devices.items()})
    redis.client.hset(VENDORS, mapping={one: vendor for one, (_, vendor) in devices.items()})


def fleet(count: int = COUNT) -> dict[str, tuple[str, str]]:
    """Return devices of two instances and three vendors."""
    chosen = random.Random(20)
    numbers = chosen.sample(range(10**6), count)
    return {
        f"35630704{number:07}": (chosen.choice(["one", "two"]), chosen.choice(["a", "b", "c"]))
        for number in numbers
    }


async def pages(bench: ControlBench, between: Any = None, **filters: Any) -> list[dict[str, Any]]:
    """Return the rows of all pages; call ``between`` after each page."""
    rows: list[dict[str, Any]] = []
    more = True
    while more:
        after = rows[-1]["device_id"] if rows else None
        given = filters if after is None else filters | {"after": after}
        page = await bench.ask(ListDeviceRegistry, **given)
        rows += page["devices"]
        more = page["more"]
        assert page["devices"] or not more
        if between is not None:
            between()
    return rows


@ensureDeferred
async def test_large_device_registry_is_listed_completely(
    bench: ControlBench, redis: RedisServer
) -> None:
    devices = fleet()
    register(redis, devices)
    rows = await pages(bench)
    assert [row["device_id"] for row in rows] == sorted(devices)
    for row in rows:
        assert (row["instance_id"], row["vendor"]) == devices[row["device_id"]]
    for filters in FILTERS:
        assert [row["device_id"] for row in await pages(bench, **filters)] == [
            device_id
            for device_id, (owner, vendor) in sorted(devices.items())
            if device_id.startswith(filters.get("prefix", ""))
            and filters.get("vendor", vendor) == vendor
            and filters.get("instance_id", owner) == owner
        ], filters


@ensureDeferred
async def test_unchanged_devices_are_listed_while_others_change(
    bench: ControlBench, redis: RedisServer
) -> None:
    devices = fleet()
    staying = dict(list(devices.items())[: COUNT // 2])
    leaving = list(devices)[COUNT // 2 :]
    register(redis, devices)
    coming = iter([f"3563070{chosen}{number:07}" for number in range(5000) for chosen in "35"])

    def change() -> None:
        # Hundreds at a time, so that the hash grows and shrinks during the scan.
        gone = [leaving.pop() for _ in range(min(200, len(leaving)))]
        if gone:
            redis.client.hdel(REGISTRY, *gone)
            redis.client.hdel(VENDORS, *gone)
        if new := list(islice(coming, 300)):
            register(redis, dict.fromkeys(new, ("two", "a")))

    listed = [row["device_id"] for row in await pages(bench, change)]
    assert listed == sorted(set(listed)), "sorted, without duplicates"
    assert set(staying) <= set(listed)


@ensureDeferred
async def test_device_registry_without_vendors_is_listed(
    bench: ControlBench, redis: RedisServer
) -> None:
    register_devices(redis, "old", DEVICE)
    (row,) = await pages(bench)
    assert row == {"device_id": DEVICE, "instance_id": "old", "vendor": None}
    assert await pages(bench, vendor="teltonika") == []


@ensureDeferred
async def test_malformed_device_ids_are_not_listed(bench: ControlBench, redis: RedisServer) -> None:
    register_devices(redis, "one", DEVICE, "x" * 65, "x" * 70_000)
    redis.client.hset(REGISTRY, b"\xff", b"\xfe" * 100)
    rows = await pages(bench)
    assert [row["device_id"] for row in rows] == [DEVICE, r"\xff"]


# connections:vendors changes together with the device registry.


class Registered:
    """The registration of an instance, and the two hashes that it writes."""

    def __init__(self, bench: ControlBench, name: str) -> None:
        self.redis = bench.redis
        self.clock = bench.clock
        self.registration = DeviceRegistration(self.clock, bench.connection, name, lambda *_: None)
        self.registration.startService()

    async def changed(self, **wanted: tuple[str, str]) -> None:
        """Wait until both hashes have this content: device ID → instance ID and vendor."""
        self.clock.advance(0)

        def is_registered() -> bool:
            self.clock.advance(0)
            owners, vendors = (self.redis.client.hgetall(key) for key in (REGISTRY, VENDORS))
            return {
                one.decode(): (owner.decode(), vendors.get(one, b"").decode())
                for one, owner in owners.items()
            } == wanted and set(vendors) == set(owners)

        await until(is_registered, f"registered: {wanted}")


@ensureDeferred
async def test_vendors_change_together_with_the_device_registry(
    bench: ControlBench, connected: Connected
) -> None:
    one, two = Registered(bench, "one"), Registered(bench, "two")
    for device_id, vendor in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")):
        one.registration.register(device_id, vendor)
    await one.changed(a=("one", "x"), b=("one", "y"), c=("one", "x"), d=("one", "y"))
    one.registration.unregister("b")
    await one.changed(a=("one", "x"), c=("one", "x"), d=("one", "y"))
    # The older instance does not change a device that has moved and has another vendor there.
    two.registration.register("a", "z")
    await two.changed(a=("two", "z"), c=("one", "x"), d=("one", "y"))
    one.registration.unregister("a")
    await one.changed(a=("two", "z"), c=("one", "x"), d=("one", "y"))
    # A janitor sweeps the devices of an instance that is gone.
    assert await sweep(connected.connection, "two", ["a", "c"]) == 1
    await one.changed(c=("one", "x"), d=("one", "y"))
    await one.registration.stopService()
    await two.changed()
    await two.registration.stopService()


@ensureDeferred
async def test_vendors_are_registered_again_after_a_flush(bench: ControlBench) -> None:
    one = Registered(bench, "one")
    one.registration.register("a", "x")
    await one.changed(a=("one", "x"))
    bench.redis.client.flushall()
    one.clock.advance(CHECK_INTERVAL)
    await one.changed(a=("one", "x"))
    await one.registration.stopService()
    await one.changed()


@ensureDeferred
async def test_leftovers_are_unregistered_with_their_vendors(bench: ControlBench) -> None:
    register(bench.redis, {"a": ("one", "x"), "b": ("two", "y")})
    one = Registered(bench, "one")
    await one.registration.unregister_leftovers()
    await one.changed(b=("two", "y"))
    await one.registration.stopService()
