"""Metrics and details of lag, also while Redis is down."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.errors import Refused
from tracker.log.redis.lagmetrics import LAG_INTERVAL, MAX_FIGURES_AGE, LagMetrics
from tracker.observe.health import Health

STREAM = "telemetry:teltonika"


def script_reply(lag: int | None = 7, pending: int = 2, idle: int = 1500) -> list[Any]:
    """Return the script's reply at second 1000, with an entry of second 940 pending."""
    group = [b"processor", lag, pending, b"940000-0" if pending else None, b"990000-0",
             [[b"one", pending, idle]], 1]  # fmt: skip
    return [[b"1000", b"250000"], [b"length", 50, b"entries-added", 80], [group]]


class LagBench:
    """Metrics of one stream, with a Redis whose replies the test sends."""

    def __init__(self, *streams: str) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.redis = cast("Any", FakeRedis())
        self.health = Health()
        self.metrics_registry = CollectorRegistry()
        self.service = LagMetrics(
            self.clock,
            self.redis,
            streams or (STREAM,),
            health=self.health,
            metrics_registry=self.metrics_registry,
        )

    def reply(self, *replies: Any) -> None:
        for one in replies:
            (((_, *_), deferred),) = self.redis.commands
            self.redis.commands.clear()
            if isinstance(one, Exception):
                deferred.errback(one)
            else:
                deferred.callback(one)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics_registry.get_sample_value(name, {"stream": STREAM, **labels})

    @property
    def lag(self) -> Any:
        return self.health.details["lag"]


def test_lag_metrics_are_absent_before_the_first_read() -> None:
    bench = LagBench()
    assert bench.health.ready
    assert bench.lag == {}
    assert bench.value("tracker_stream_entries") is None


def test_lag_is_read_on_connection_and_at_an_interval() -> None:
    bench = LagBench()
    bench.redis.connected = False
    bench.service.startService()
    assert not bench.redis.commands
    bench.redis.reconnect()
    bench.reply(script_reply())
    assert not bench.redis.commands
    bench.clock.advance(LAG_INTERVAL)
    bench.reply(script_reply(lag=8))
    assert bench.value("tracker_stream_lag_entries", group="processor") == 8
    assert bench.service.stopService().called
    bench.clock.advance(10 * LAG_INTERVAL)
    assert not bench.redis.commands


def test_lag_is_exported_as_metrics() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply(script_reply())
    assert bench.value("tracker_stream_entries") == 50
    assert bench.value("tracker_stream_lag_read_timestamp_seconds") == 1000
    group = {"group": "processor"}
    assert bench.value("tracker_stream_lag_entries", **group) == 7
    assert bench.value("tracker_stream_pending_entries", **group) == 2
    assert bench.value("tracker_stream_oldest_unprocessed_age_seconds", **group) == 60.25
    consumer = {**group, "consumer": "one"}
    assert bench.value("tracker_group_consumer_pending_entries", **consumer) == 2
    assert bench.value("tracker_group_consumer_idle_seconds", **consumer) == 1.5


def test_lag_is_reported_in_the_health_details() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply(script_reply(pending=0))
    bench.clock.advance(2)
    assert bench.lag == {
        STREAM: {
            "read_seconds_ago": 2,
            "entries": 50,
            "groups": {
                "processor": {
                    "lag": 7,
                    "pending": 0,
                    "oldest_unprocessed_age": 10.25,
                    "consumers": {"one": {"pending": 0, "idle": 1.5}},
                }
            },
        }
    }


def test_unknown_lag_has_no_metric() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply(script_reply(lag=None))
    assert bench.value("tracker_stream_lag_entries", group="processor") is None
    assert bench.value("tracker_stream_pending_entries", group="processor") == 2
    assert bench.lag[STREAM]["groups"]["processor"]["lag"] is None


def test_failed_reads_keep_the_last_figures_for_a_while() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply(script_reply())
    for _ in range(int(MAX_FIGURES_AGE / LAG_INTERVAL)):
        bench.clock.advance(LAG_INTERVAL)
        bench.reply(Refused("LOADING"))
    assert bench.value("tracker_stream_lag_entries", group="processor") == 7
    bench.clock.advance(LAG_INTERVAL)
    assert bench.value("tracker_stream_lag_entries", group="processor") is None
    assert bench.value("tracker_stream_lag_read_timestamp_seconds") == 1000
    assert bench.lag[STREAM]["read_seconds_ago"] == MAX_FIGURES_AGE + LAG_INTERVAL
    assert bench.health.ready


def test_lag_metrics_are_absent_while_redis_is_down() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply(script_reply())
    bench.redis.connected = False
    bench.clock.advance(LAG_INTERVAL)
    for name in ("stream_entries", "stream_lag_entries", "group_live_consumers"):
        labels = {} if name == "stream_entries" else {"group": "processor"}
        assert bench.value(f"tracker_{name}", **labels) is None
    assert bench.value("tracker_stream_lag_read_timestamp_seconds") == 1000
    assert bench.lag[STREAM]["read_seconds_ago"] == LAG_INTERVAL
    bench.redis.connected = True
    bench.clock.advance(LAG_INTERVAL)
    bench.reply(script_reply(lag=8))
    assert bench.value("tracker_stream_lag_entries", group="processor") == 8


def test_deleted_stream_has_no_figures() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply(script_reply())
    bench.clock.advance(LAG_INTERVAL)
    bench.reply(None)
    assert bench.lag == {}
    assert bench.value("tracker_stream_entries") is None


def test_unreadable_stream_does_not_hide_others() -> None:
    bench = LagBench("a", STREAM)
    bench.service.startService()
    bench.reply(Refused("WRONGTYPE"), script_reply())
    assert list(bench.lag) == [STREAM]


def test_stop_before_the_first_connection_cancels_the_wait() -> None:
    bench = LagBench()
    bench.redis.connected = False
    bench.service.startService()
    assert bench.service.stopService().called
    assert not bench.redis.waiting


def test_idle_consumer_is_not_live() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply(script_reply())
    assert bench.value("tracker_group_live_consumers", group="processor") == 1
    bench.clock.advance(LAG_INTERVAL)
    bench.reply(script_reply(idle=61_000))
    assert bench.value("tracker_group_live_consumers", group="processor") == 0


def test_number_of_live_consumers_is_absent_if_they_are_too_many_to_read() -> None:
    bench = LagBench()
    bench.service.startService()
    about, facts, (group,) = script_reply()
    bench.reply([about, facts, [[*group[:5], [], 20_000]]])
    assert bench.value("tracker_stream_pending_entries", group="processor") == 2
    assert bench.value("tracker_group_live_consumers", group="processor") is None


def test_stream_without_the_group_has_no_live_consumers() -> None:
    bench = LagBench()
    bench.service.startService()
    bench.reply([*script_reply()[:2], []])
    assert bench.value("tracker_group_live_consumers", group="processor") == 0


def test_stream_of_another_kind_needs_no_group() -> None:
    bench = LagBench()
    other = LagMetrics(
        bench.clock,
        bench.redis,
        (),
        health=Health(),
        metrics_registry=CollectorRegistry(),
        others=["commands:responses"],
    )
    other.startService()
    bench.reply([*script_reply()[:2], []])
    metrics_registry = CollectorRegistry()
    metrics_registry.register(other)
    where = {"stream": "commands:responses"}
    assert metrics_registry.get_sample_value("tracker_stream_entries", where) == 50
    assert not [
        sample
        for family in metrics_registry.collect()
        for sample in family.samples
        if sample.name == "tracker_group_live_consumers"
    ]
