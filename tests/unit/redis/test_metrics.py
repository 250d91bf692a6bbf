"""Metrics of Redis itself."""

from __future__ import annotations

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.errors import Refused
from tracker.redis.metrics import INFO_INTERVAL, RedisMetrics, is_durable

HEALTHY = {"aof_enabled": "1", "aof_last_write_status": "ok", "maxmemory_policy": "noeviction"}


def info(**changes: str) -> bytes:
    fields = HEALTHY | {"used_memory": "2048", "maxmemory": "4096"} | changes
    return b"# Memory\r\n" + b"\r\n".join(
        f"{name}:{value}".encode() for name, value in fields.items()
    )


class MetricsBench:
    """Metrics of a Redis whose replies the test sends."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.redis = cast("Any", FakeRedis())
        self.metrics_registry = CollectorRegistry()
        self.service = RedisMetrics(self.clock, self.redis, self.metrics_registry)
        self.service.startService()

    def reply(self, value: Any) -> None:
        ((_, deferred),) = self.redis.commands
        self.redis.commands.clear()
        if isinstance(value, Exception):
            deferred.errback(value)
        else:
            deferred.callback(value)

    def value(self, name: str) -> float | None:
        return self.metrics_registry.get_sample_value(f"tracker_redis_{name}")


def test_metrics_show_the_fields_of_info() -> None:
    bench = MetricsBench()
    assert bench.value("durable") is None
    bench.reply(info())
    assert bench.value("durable") == 1
    assert bench.value("used_memory_bytes") == 2048
    assert bench.value("maxmemory_bytes") == 4096
    bench.clock.advance(INFO_INTERVAL)
    bench.reply(info(used_memory="1", aof_enabled="0"))
    assert bench.value("durable") == 0
    assert bench.value("used_memory_bytes") == 1


@pytest.mark.parametrize("failure", [Refused("NOPERM"), None], ids=["refused", "disconnected"])
def test_metrics_have_no_values_while_info_fails(failure: Exception | None) -> None:
    bench = MetricsBench()
    bench.reply(info())
    if failure is None:
        bench.redis.connected = False
    bench.clock.advance(INFO_INTERVAL)
    if failure is not None:
        bench.reply(failure)
    assert bench.value("durable") is None
    assert bench.value("used_memory_bytes") is None


def test_server_with_safe_settings_is_durable() -> None:
    assert is_durable(HEALTHY)


@pytest.mark.parametrize(
    "change",
    [
        {"aof_enabled": "0"},
        {"aof_last_write_status": "err"},
        {"maxmemory_policy": "allkeys-lru"},
    ],
)
def test_server_with_unsafe_settings_is_not_durable(change: dict[str, str]) -> None:
    assert not is_durable(HEALTHY | change)
