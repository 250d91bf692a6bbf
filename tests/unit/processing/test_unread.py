"""Detection of streams that no processor reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.observe.health import Condition
from tracker.processing.unread import CHECK_INTERVAL, LIVE_TIMEOUT_MS, UnreadStreams


class UnreadBench:
    """A processor of ``telemetry:teltonika``, and an instance that also writes ``positions``."""

    def __init__(self, consumers: Any) -> None:
        heartbeat = json.dumps({"streams": ["telemetry:teltonika", "positions"]}).encode()
        self.redis = FakeRedis(
            connected=False,
            replies={
                "SCAN": [b"0", [b"instance:heartbeat:one"]],
                "MGET": lambda *_: [heartbeat],
                "XINFO": consumers,
            },
        )
        self.clock = Clock()
        self.reports: list[str | None] = []
        self.metrics_registry = CollectorRegistry()
        redis: Any = self.redis
        UnreadStreams(
            self.clock,
            redis,
            ["telemetry:teltonika"],
            Condition(self.reports.append),
            metrics_registry=self.metrics_registry,
        ).startService()
        self.redis.reconnect()

    @property
    def unread(self) -> float | None:
        return self.metrics_registry.get_sample_value("tracker_unread_streams")


def consumer(idle: int) -> list[Any]:
    return [b"name", b"other", b"pending", 0, b"idle", idle]


@pytest.mark.parametrize(
    ("consumers", "unread"),
    [
        ([], True),
        ([consumer(LIVE_TIMEOUT_MS)], True),
        ([consumer(LIVE_TIMEOUT_MS - 1)], False),
        ([consumer(LIVE_TIMEOUT_MS), consumer(5)], False),
        ("NOGROUP No such consumer group", True),
        ("ERR no such key", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", True),
    ],
    ids=[
        "no consumer",
        "idle consumer",
        "live consumer",
        "two",
        "no group",
        "no key",
        "not a stream",
    ],
)
def test_stream_without_a_live_consumer_is_unread(consumers: Any, unread: bool) -> None:
    bench = UnreadBench(consumers)
    assert bench.unread == unread
    if unread:
        assert "positions (written by one)" in str(bench.reports[-1])
        assert "telemetry:teltonika" not in str(bench.reports[-1])
    else:
        assert bench.reports == [None, None]


def test_check_that_redis_refuses_is_reported_until_the_next_one() -> None:
    bench = UnreadBench("NOPERM this user has no permissions")
    assert "NOPERM" in str(bench.reports[-1])
    bench.redis.replies = {**(bench.redis.replies or {}), "XINFO": [consumer(0)]}
    bench.clock.advance(CHECK_INTERVAL)
    assert bench.reports[-1] is None


def test_last_report_is_kept_while_redis_is_disconnected() -> None:
    bench = UnreadBench([])
    bench.redis.connected = False
    bench.clock.advance(CHECK_INTERVAL)
    assert len(bench.reports) == 2


def test_number_of_unread_streams_is_unknown_while_redis_is_down() -> None:
    bench = UnreadBench([])
    assert bench.unread == 1
    bench.redis.connected = False
    bench.clock.advance(CHECK_INTERVAL)
    assert bench.unread is None
