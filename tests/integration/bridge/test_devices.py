"""The copy of the devices in a real Redis is complete at any time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.bridge.bridges import Bridges
from tests.servers import RedisServer
from tests.unit.bridge.double import CannedResponse
from tests.waiting import until
from tracker.bridge.devices import DeviceSync
from tracker.errors import Unavailable

ALLOWED: Final = "devices:allowed"
MODELS: Final = "devices:models"
VENDORS: Final = "devices:vendors"
FIRST: Final = 356307042000000


def replace_devices(bridges: Bridges, count: int, model: str, start: int = 0) -> set[bytes]:
    """Replace all devices in Directus; return the expected members in Redis."""
    imeis = [str(FIRST + start + number) for number in range(count)]
    rows = bridges.double.rows("devices")
    rows.clear()
    common = {"model": model, "vendor": "concox", "enabled": True}
    rows.update({one: {"imei": one, **common} for one in imeis})
    return {one.encode() for one in imeis}


def allowed(bridges: Bridges) -> set[bytes]:
    return set(bridges.redis.client.smembers(ALLOWED))


def temporary_keys(bridges: Bridges) -> list[bytes]:
    """Return the temporary keys in Redis."""
    keys: list[bytes] = bridges.redis.client.keys("devices:*:*")
    return keys


@contextmanager
def observed_sizes(redis: RedisServer) -> Iterator[set[tuple[int, int]]]:
    """Collect the sizes of both keys, which another client reads together all the time."""
    seen: set[tuple[int, int]] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            with redis.client.pipeline(transaction=True) as access:
                access.scard(ALLOWED).hlen(MODELS)
                seen.add(tuple(access.execute()))

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    over.set()
    thread.join(20)


@ensureDeferred
async def test_all_keys_are_replaced_atomically(bridges: Bridges) -> None:
    expected = replace_devices(bridges, 2500, "A")
    sync = await bridges.devices()
    await until(lambda: allowed(bridges) == expected, "written")
    with observed_sizes(bridges.redis) as seen:
        for count, model in ((3100, "B"), (1200, "C"), (2000, "D")):
            expected = replace_devices(bridges, count, model, start=count)
            sync.announce()
            await until(lambda e=expected: allowed(bridges) == e, "written")  # type: ignore[misc]
    whole = {(2500, 2500), (3100, 3100), (1200, 1200), (2000, 2000)}
    assert seen <= whole
    assert len(seen) > 1, "the sizes were never read"
    assert not temporary_keys(bridges)
    assert {bridges.redis.client.ttl(key) for key in (ALLOWED, MODELS, VENDORS)} == {-1}
    assert set(bridges.redis.client.hvals(VENDORS)) == {b"concox"}
    assert set(bridges.redis.client.hkeys(VENDORS)) == expected


@ensureDeferred
async def test_two_bridges_do_not_mix_their_copies(bridges: Bridges) -> None:
    replace_devices(bridges, 1500, "A")
    with observed_sizes(bridges.redis) as seen:
        syncs = [await bridges.devices(), await bridges.devices()]
        await until(lambda: len(allowed(bridges)) == 1500, "written")
        for count, model in ((1700, "B"), (1600, "C")):
            expected = replace_devices(bridges, count, model, start=count)
            for sync in syncs:
                sync.announce()
            await until(lambda e=expected: allowed(bridges) == e, "written")  # type: ignore[misc]
    assert seen <= {(0, 0), (1500, 1500), (1700, 1700), (1600, 1600)}
    await until(lambda: not temporary_keys(bridges), "both copies are complete")


@ensureDeferred
async def test_temporary_keys_of_a_killed_bridge_expire(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = replace_devices(bridges, 1500, "A")
    sync = await bridges.devices()
    await until(lambda: allowed(bridges) == expected, "written")

    async def died(*_: object) -> None:
        raise Unavailable("the bridge was killed")

    replace_devices(bridges, 1700, "B")
    with monkeypatch.context() as dying:
        dying.setattr("tracker.bridge.devices.Script.run", died)
        sync.announce()
        await until(lambda: temporary_keys(bridges), "temporary keys exist")
        await until(lambda: bridges.last_report, "the failure is reported")
    assert allowed(bridges) == expected
    assert all(0 < bridges.redis.client.ttl(key) <= 600 for key in temporary_keys(bridges))


@ensureDeferred
async def test_lost_temporary_keys_replace_nothing(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = replace_devices(bridges, 1500, "A")
    sync = await bridges.devices()
    await until(lambda: allowed(bridges) == expected, "written")
    filled = DeviceSync._fill

    async def filled_and_gone(self: DeviceSync, key: str, *more: object) -> None:
        await filled(self, key, *more)  # type: ignore[arg-type]
        bridges.redis.client.delete(key)

    changed = replace_devices(bridges, 1700, "B")
    with monkeypatch.context() as losing:
        losing.setattr(DeviceSync, "_fill", filled_and_gone)
        sync.announce()
        await until(lambda: bridges.last_report, "the failure is reported")
        assert allowed(bridges) == expected
    await until(lambda: allowed(bridges) == changed, "written by a later read")
    await until(lambda: bridges.last_report is None, "the recovery is reported")


@ensureDeferred
async def test_copy_recovers_after_outages_of_directus_and_redis(bridges: Bridges) -> None:
    expected = replace_devices(bridges, 100, "A")
    sync = await bridges.devices(interval=0.3)
    await until(lambda: allowed(bridges) == expected, "written")
    await bridges.stop_directus()
    await until(lambda: bridges.last_report, "the failure is reported")
    assert allowed(bridges) == expected
    changed = replace_devices(bridges, 120, "B")
    bridges.start_directus()
    await until(lambda: allowed(bridges) == changed, "written")
    bridges.double.canned += [CannedResponse(503)] * 3
    sync.announce()
    await until(lambda: not bridges.double.canned, "the reads are retried")
    assert allowed(bridges) == changed
    bridges.redis.kill()
    bridges.redis.start()
    bridges.redis.client.flushall()
    await until(lambda: allowed(bridges) == changed, "written again")
    await until(lambda: bridges.last_report is None, "the recovery is reported")
