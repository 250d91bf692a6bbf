"""The watch on Redis itself: what it tells of what Redis tells."""

from __future__ import annotations

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.errors import Refused
from tracker.redis.watch import INTERVAL, RedisWatch, is_durable

WELL = {"aof_enabled": "1", "aof_last_write_status": "ok", "maxmemory_policy": "noeviction"}


def info(**facts: str) -> bytes:
    told = WELL | {"used_memory": "2048", "maxmemory": "4096"} | facts
    return b"# Memory\r\n" + b"\r\n".join(
        f"{name}:{value}".encode() for name, value in told.items()
    )


class Watched:
    """A watch whose Redis is the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.redis = cast("Any", FakeRedis())
        self.metrics_registry = CollectorRegistry()
        self.watch = RedisWatch(self.clock, self.redis, self.metrics_registry)
        self.watch.startService()

    def reply(self, answer: Any) -> None:
        ((_, asked),) = self.redis.commands
        self.redis.commands.clear()
        if isinstance(answer, Exception):
            asked.errback(answer)
        else:
            asked.callback(answer)

    def value(self, name: str) -> float | None:
        return self.metrics_registry.get_sample_value(f"tracker_redis_{name}")


def test_figures_are_metrics() -> None:
    watched = Watched()
    assert watched.value("durable") is None
    watched.reply(info())
    assert watched.value("durable") == 1
    assert watched.value("used_memory_bytes") == 2048
    assert watched.value("maxmemory_bytes") == 4096
    watched.clock.advance(INTERVAL)
    watched.reply(info(used_memory="1", aof_enabled="0"))
    assert watched.value("durable") == 0
    assert watched.value("used_memory_bytes") == 1


@pytest.mark.parametrize("failure", [Refused("NOPERM"), None], ids=["refused", "away"])
def test_while_redis_does_not_tell_there_are_no_figures(failure: Exception | None) -> None:
    watched = Watched()
    watched.reply(info())
    if failure is None:
        watched.redis.connected = False
    watched.clock.advance(INTERVAL)
    if failure is not None:
        watched.reply(failure)
    assert watched.value("durable") is None
    assert watched.value("used_memory_bytes") is None


def test_what_is_durable() -> None:
    assert is_durable(WELL)


@pytest.mark.parametrize(
    "fact",
    [
        {"aof_enabled": "0"},
        {"aof_last_write_status": "err"},
        {"maxmemory_policy": "allkeys-lru"},
    ],
)
def test_what_is_not(fact: dict[str, str]) -> None:
    assert not is_durable(WELL | fact)
