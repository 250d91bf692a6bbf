"""Instances whose keys a sweep of the janitor may touch."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.janitor.orphans import OrphanSweeper, Swept
from tracker.keys import heartbeat, outbound

DEVICE = b"356307042441013"


def redis_with(*keys: str, owner: str) -> FakeRedis:
    """Return a Redis that has these keys, and a device registry with one device.

    :param owner: the instance that the device is connected to.
    """

    def scan(*arguments: Any) -> list[Any]:
        pattern = arguments[2]
        prefix = (pattern.encode() if isinstance(pattern, str) else pattern).rstrip(b"*")
        return [b"0", [key.encode() for key in keys if key.encode().startswith(prefix)]]

    return FakeRedis(
        answers={
            "SCAN": scan,
            "HSCAN": [b"0", [DEVICE, owner.encode()]],
            "SSCAN": [b"0", []],
            "XRANGE": [],
            "EVALSHA": 1,
        }
    )


def sweep(redis: FakeRedis) -> Swept:
    swept = Swept()
    sweeper = OrphanSweeper(Clock(), redis, wait=True)  # type: ignore[arg-type]
    swept_all = Deferred.fromCoroutine(sweeper.sweep(swept, lambda: True))
    assert swept_all.called
    swept_all.addErrback(lambda failure: failure.raiseException())
    return swept


def test_a_living_instance_costs_a_sweep_no_script() -> None:
    redis = redis_with(heartbeat("one"), outbound("one"), owner="one")
    swept = sweep(redis)
    assert (swept.living, swept.connections, swept.streams) == (1, 0, 0)
    assert {command for command, *_ in redis.asked} == {"SCAN", "HSCAN", "SSCAN"}


def test_a_dead_instance_loses_its_connections_and_its_stream() -> None:
    redis = redis_with(outbound("dead"), owner="dead")
    swept = sweep(redis)
    assert (swept.living, swept.connections, swept.streams) == (0, 1, 1)
