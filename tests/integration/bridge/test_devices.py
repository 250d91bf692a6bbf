"""The devices of Directus in a real Redis: whole, at any moment."""

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
FIRST: Final = 356307042000000


def put(bridges: Bridges, count: int, model: str, start: int = 0) -> set[bytes]:
    """Let these be all that Directus has."""
    imeis = [str(FIRST + start + number) for number in range(count)]
    rows = bridges.double.rows("devices")
    rows.clear()
    rows.update({one: {"imei": one, "model": model, "enabled": True} for one in imeis})
    return {one.encode() for one in imeis}


def allowed(bridges: Bridges) -> set[bytes]:
    return set(bridges.redis.client.smembers(ALLOWED))


def left_over(bridges: Bridges) -> list[bytes]:
    """Keys beside the two."""
    keys: list[bytes] = bridges.redis.client.keys("devices:*:*")
    return keys


@contextmanager
def watched(redis: RedisServer) -> Iterator[set[tuple[int, int]]]:
    """How many there are in both at once, as another one sees it all the time."""
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
async def test_both_change_in_one_step_and_are_never_empty(bridges: Bridges) -> None:
    expected = put(bridges, 2500, "A")
    sync = await bridges.devices()
    await until(lambda: allowed(bridges) == expected, "written")
    with watched(bridges.redis) as seen:
        for count, model in ((3100, "B"), (1200, "C"), (2000, "D")):
            expected = put(bridges, count, model, start=count)
            sync.announce()
            await until(lambda e=expected: allowed(bridges) == e, "written")  # type: ignore[misc]
    whole = {(2500, 2500), (3100, 3100), (1200, 1200), (2000, 2000)}
    assert seen <= whole
    assert len(seen) > 1, "unprivileged has looked"
    assert not left_over(bridges)
    assert bridges.redis.client.ttl(ALLOWED) == bridges.redis.client.ttl(MODELS) == -1


@ensureDeferred
async def test_two_bridges_at_once_do_not_mix(bridges: Bridges) -> None:
    put(bridges, 1500, "A")
    with watched(bridges.redis) as seen:
        syncs = [await bridges.devices(), await bridges.devices()]
        await until(lambda: len(allowed(bridges)) == 1500, "written")
        for count, model in ((1700, "B"), (1600, "C")):
            expected = put(bridges, count, model, start=count)
            for sync in syncs:
                sync.announce()
            await until(lambda e=expected: allowed(bridges) == e, "written")  # type: ignore[misc]
    assert seen <= {(0, 0), (1500, 1500), (1700, 1700), (1600, 1600)}
    await until(lambda: not left_over(bridges), "both are done")


@ensureDeferred
async def test_who_dies_over_it_leaves_nothing_for_long(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = put(bridges, 1500, "A")
    sync = await bridges.devices()
    await until(lambda: allowed(bridges) == expected, "written")

    async def died(*_: object) -> None:
        raise Unavailable("as kill -9 would leave it")

    put(bridges, 1700, "B")
    with monkeypatch.context() as dying:
        dying.setattr("tracker.bridge.devices.Script.run", died)
        sync.announce()
        await until(lambda: left_over(bridges), "left beside")
        await until(lambda: bridges.last_report, "told")
    assert allowed(bridges) == expected
    assert all(0 < bridges.redis.client.ttl(key) <= 600 for key in left_over(bridges))


@ensureDeferred
async def test_what_is_gone_before_it_is_swapped_takes_nobodys_place(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = put(bridges, 1500, "A")
    sync = await bridges.devices()
    await until(lambda: allowed(bridges) == expected, "written")
    filled = DeviceSync._fill

    async def filled_and_gone(self: DeviceSync, key: str, *more: object) -> None:
        await filled(self, key, *more)  # type: ignore[arg-type]
        bridges.redis.client.delete(key)

    changed = put(bridges, 1700, "B")
    with monkeypatch.context() as losing:
        losing.setattr(DeviceSync, "_fill", filled_and_gone)
        sync.announce()
        await until(lambda: bridges.last_report, "told")
        assert allowed(bridges) == expected
    await until(lambda: allowed(bridges) == changed, "written after all")
    await until(lambda: bridges.last_report is None, "well again")


@ensureDeferred
async def test_directus_and_redis_go_and_come(bridges: Bridges) -> None:
    expected = put(bridges, 100, "A")
    sync = await bridges.devices(interval=0.3)
    await until(lambda: allowed(bridges) == expected, "written")
    await bridges.stop_directus()
    await until(lambda: bridges.last_report, "told")
    assert allowed(bridges) == expected
    changed = put(bridges, 120, "B")
    bridges.start_directus()
    await until(lambda: allowed(bridges) == changed, "written")
    bridges.double.canned += [CannedResponse(503)] * 3
    sync.announce()
    await until(lambda: not bridges.double.canned, "tried again")
    assert allowed(bridges) == changed
    bridges.redis.kill()
    bridges.redis.start()
    bridges.redis.client.flushall()
    await until(lambda: allowed(bridges) == changed, "written anew")
    await until(lambda: bridges.last_report is None, "well again")
