"""The watch on lag: what it tells, and what stays when Redis cannot be asked."""

from __future__ import annotations

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.errors import Refused
from tracker.log.redis.lagwatch import INTERVAL, LagWatch
from tracker.observe.health import Health

STREAM = "telemetry:teltonika"


def answer(lag: int | None = 7, pending: int = 2, idle: int = 1500) -> list[Any]:
    """What the script answers at second 1000, with an entry of second 940 pending."""
    group = [b"processor", lag, pending, b"940000-0" if pending else None, b"990000-0",
             [[b"one", pending, idle]], 1]  # fmt: skip
    return [[b"1000", b"250000"], [b"length", 50, b"entries-added", 80], [group]]


class Watched:
    """A watch over one stream, whose Redis is the test."""

    def __init__(self, *streams: str) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.redis = cast("Any", FakeRedis())
        self.health = Health()
        self.metrics_registry = CollectorRegistry()
        self.watch = LagWatch(
            self.clock,
            self.redis,
            streams or (STREAM,),
            health=self.health,
            metrics_registry=self.metrics_registry,
        )

    def reply(self, *answers: Any) -> None:
        for one in answers:
            (((_, *_), asked),) = self.redis.commands
            self.redis.commands.clear()
            if isinstance(one, Exception):
                asked.errback(one)
            else:
                asked.callback(one)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics_registry.get_sample_value(name, {"stream": STREAM, **labels})

    @property
    def lag(self) -> Any:
        return self.health.details["lag"]


def test_before_the_first_look_nothing_is_known() -> None:
    watched = Watched()
    assert watched.health.ready
    assert watched.lag == {}
    assert watched.value("tracker_stream_entries") is None


def test_it_looks_as_soon_as_redis_is_there_and_then_regularly() -> None:
    watched = Watched()
    watched.redis.connected = False
    watched.watch.startService()
    assert not watched.redis.commands
    watched.redis.return_()
    watched.reply(answer())
    assert not watched.redis.commands
    watched.clock.advance(INTERVAL)
    watched.reply(answer(lag=8))
    assert watched.value("tracker_stream_lag_entries", group="processor") == 8
    assert watched.watch.stopService().called
    watched.clock.advance(10 * INTERVAL)
    assert not watched.redis.commands


def test_figures_are_metrics() -> None:
    watched = Watched()
    watched.watch.startService()
    watched.reply(answer())
    assert watched.value("tracker_stream_entries") == 50
    assert watched.value("tracker_stream_lag_read_timestamp_seconds") == 1000
    group = {"group": "processor"}
    assert watched.value("tracker_stream_lag_entries", **group) == 7
    assert watched.value("tracker_stream_pending_entries", **group) == 2
    assert watched.value("tracker_stream_oldest_unprocessed_age_seconds", **group) == 60.25
    consumer = {**group, "consumer": "one"}
    assert watched.value("tracker_group_consumer_pending_entries", **consumer) == 2
    assert watched.value("tracker_group_consumer_idle_seconds", **consumer) == 1.5


def test_figures_are_details() -> None:
    watched = Watched()
    watched.watch.startService()
    watched.reply(answer(pending=0))
    watched.clock.advance(2)
    assert watched.lag == {
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


def test_what_redis_cannot_tell_is_no_zero() -> None:
    watched = Watched()
    watched.watch.startService()
    watched.reply(answer(lag=None))
    assert watched.value("tracker_stream_lag_entries", group="processor") is None
    assert watched.value("tracker_stream_pending_entries", group="processor") == 2
    assert watched.lag[STREAM]["groups"]["processor"]["lag"] is None


@pytest.mark.parametrize("failure", [Refused("LOADING"), None], ids=["refused", "away"])
def test_after_a_failure_the_last_figures_stay_and_age(failure: Exception | None) -> None:
    watched = Watched()
    watched.watch.startService()
    watched.reply(answer())
    for _ in range(3):
        if failure is None:
            watched.redis.connected = False
            watched.clock.advance(INTERVAL)
        else:
            watched.clock.advance(INTERVAL)
            watched.reply(failure)
    assert watched.value("tracker_stream_lag_entries", group="processor") == 7
    assert watched.value("tracker_stream_lag_read_timestamp_seconds") == 1000
    assert watched.lag[STREAM]["read_seconds_ago"] == 3 * INTERVAL
    assert watched.health.ready


def test_a_stream_that_has_gone_has_no_figures() -> None:
    watched = Watched()
    watched.watch.startService()
    watched.reply(answer())
    watched.clock.advance(INTERVAL)
    watched.reply(None)
    assert watched.lag == {}
    assert watched.value("tracker_stream_entries") is None


def test_one_stream_that_cannot_be_read_hides_no_other() -> None:
    watched = Watched("a", STREAM)
    watched.watch.startService()
    watched.reply(Refused("WRONGTYPE"), answer())
    assert list(watched.lag) == [STREAM]


def test_a_stop_before_redis_was_there_leaves_nothing_waiting() -> None:
    watched = Watched()
    watched.redis.connected = False
    watched.watch.startService()
    assert watched.watch.stopService().called
    assert not watched.redis.waiting


def test_a_consumer_that_asks_is_alive_and_one_that_is_silent_is_not() -> None:
    watched = Watched()
    watched.watch.startService()
    watched.reply(answer())
    assert watched.value("tracker_group_live_consumers", group="processor") == 1
    watched.clock.advance(INTERVAL)
    watched.reply(answer(idle=61_000))
    assert watched.value("tracker_group_live_consumers", group="processor") == 0


def test_consumers_that_are_too_many_to_be_read_are_not_said_to_be_dead() -> None:
    watched = Watched()
    watched.watch.startService()
    about, facts, (group,) = answer()
    watched.reply([about, facts, [[*group[:5], [], 20_000]]])
    assert watched.value("tracker_stream_pending_entries", group="processor") == 2
    assert watched.value("tracker_group_live_consumers", group="processor") is None


def test_a_stream_without_its_group_has_no_consumer() -> None:
    watched = Watched()
    watched.watch.startService()
    watched.reply([*answer()[:2], []])
    assert watched.value("tracker_group_live_consumers", group="processor") == 0


def test_of_other_streams_no_group_is_expected() -> None:
    watched = Watched()
    other = LagWatch(
        watched.clock,
        watched.redis,
        (),
        health=Health(),
        metrics_registry=CollectorRegistry(),
        others=["commands:responses"],
    )
    other.startService()
    watched.reply([*answer()[:2], []])
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
