"""Which streams count as read by nobody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.observe.health import Condition
from tracker.processing.drift import ALIVE_MS, INTERVAL, DriftGuard


class Guarded:
    """A guard of ``telemetry:teltonika``, and an instance that also writes ``positions``."""

    def __init__(self, consumers: Any) -> None:
        beat = json.dumps({"streams": ["telemetry:teltonika", "positions"]}).encode()
        self.redis = FakeRedis(
            connected=False,
            answers={
                "SCAN": [b"0", [b"instance:heartbeat:one"]],
                "MGET": lambda *_: [beat],
                "XINFO": consumers,
            },
        )
        self.clock = Clock()
        self.reports: list[str | None] = []
        self.metrics_registry = CollectorRegistry()
        redis: Any = self.redis
        DriftGuard(
            self.clock,
            redis,
            ["telemetry:teltonika"],
            Condition(self.reports.append),
            metrics_registry=self.metrics_registry,
        ).startService()
        self.redis.return_()

    @property
    def unread(self) -> float | None:
        return self.metrics_registry.get_sample_value("tracker_unread_streams")


def consumer(idle: int) -> list[Any]:
    return [b"name", b"other", b"pending", 0, b"idle", idle]


@pytest.mark.parametrize(
    ("consumers", "unread"),
    [
        ([], True),
        ([consumer(ALIVE_MS)], True),
        ([consumer(ALIVE_MS - 1)], False),
        ([consumer(ALIVE_MS), consumer(5)], False),
        ("NOGROUP No such consumer group", True),
        ("ERR no such key", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", True),
    ],
    ids=["no consumer", "one that is gone", "one", "two", "no group", "no key", "no stream"],
)
def test_a_stream_is_read_if_a_consumer_is_alive(consumers: Any, unread: bool) -> None:
    guarded = Guarded(consumers)
    assert guarded.unread == unread
    if unread:
        assert "positions (written by one)" in str(guarded.reports[-1])
        assert "telemetry:teltonika" not in str(guarded.reports[-1])
    else:
        assert guarded.reports == [None, None]


def test_a_refusal_is_reported_and_the_next_look_is_made() -> None:
    guarded = Guarded("NOPERM this user has no permissions")
    assert "NOPERM" in str(guarded.reports[-1])
    guarded.redis.answers = {**(guarded.redis.answers or {}), "XINFO": [consumer(0)]}
    guarded.clock.advance(INTERVAL)
    assert guarded.reports[-1] is None


def test_a_lost_connection_changes_nothing() -> None:
    guarded = Guarded([])
    guarded.redis.connected = False
    guarded.clock.advance(INTERVAL)
    assert len(guarded.reports) == 2
    assert guarded.unread == 1
