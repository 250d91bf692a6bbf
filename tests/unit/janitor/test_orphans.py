"""Keys that a sweep of the janitor changes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.janitor.orphans import OrphanSweeper, SweepCounts
from tracker.keys import heartbeat, outbound

DEVICE = b"356307042441013"


def redis_with(*keys: str, owner: str) -> FakeRedis:
    """Return a Redis with these keys and one device in the device registry.

    :param owner: the instance to which the device is connected.
    """

    def scan(*arguments: Any) -> list[Any]:
        pattern = arguments[2]
        prefix = (pattern.encode() if isinstance(pattern, str) else pattern).rstrip(b"*")
        return [b"0", [key.encode() for key in keys if key.encode().startswith(prefix)]]

    return FakeRedis(
        replies={
            "SCAN": scan,
            "HSCAN": [b"0", [DEVICE, owner.encode()]],
            "SSCAN": [b"0", []],
            "XRANGE": [],
            "EVALSHA": 1,
        }
    )


def sweep(redis: FakeRedis) -> SweepCounts:
    counts = SweepCounts()
    sweeper = OrphanSweeper(Clock(), redis, wait=True)  # type: ignore[arg-type]
    swept_all = Deferred.fromCoroutine(sweeper.sweep(counts, lambda: True))
    assert swept_all.called
    swept_all.addErrback(lambda failure: failure.raiseException())
    return counts


def test_sweep_runs_no_script_for_a_live_instance() -> None:
    redis = redis_with(heartbeat("one"), outbound("one"), owner="one")
    counts = sweep(redis)
    assert (counts.living, counts.connections, counts.streams) == (1, 0, 0)
    assert {command for command, *_ in redis.sent} == {"SCAN", "HSCAN", "SSCAN"}


def test_sweep_removes_connections_and_stream_of_a_dead_instance() -> None:
    redis = redis_with(outbound("dead"), owner="dead")
    counts = sweep(redis)
    assert (counts.living, counts.connections, counts.streams) == (0, 1, 1)
