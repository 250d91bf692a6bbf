"""Samples: once for all, an hour of them, in words, and whatever Redis says."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.console.browsing import NOTHING, NOW, Browser, Server
from tests.unit.console.test_events import told
from tracker.console.history import POINTS, STEP, History
from tracker.console.look import Look
from tracker.console.sampler import INTERVAL, Thresholds
from tracker.errors import Refused, Unavailable
from tracker.log.redis.lag import ConsumerLag, GroupLag, StreamLag

STREAM = "telemetry:teltonika"


def seen(added: int, undelivered: int | None, age: float, pending: int = 0) -> Look:
    consumers = [ConsumerLag("one", pending, 0.5)]
    group = GroupLag("processor", undelivered, pending, age, consumers)
    lag = StreamLag(STREAM, added, added, [group])
    return Look([lag], None, [], 25, 0, 0, [], [])


def sample(server: Server) -> dict[str, Any]:
    """Take one, and what a browser is told then."""
    Deferred.fromCoroutine(server.sampler.sample())
    connection = Browser(server).begin("GET", "/api/events")
    events = told(connection)
    connection.leave()
    assert [name for name, _ in events] == ["history", "overview"]
    overview: Any = events[1][1]
    return {**overview, "history": events[0][1]}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.parametrize(
    ("age", "word"),
    [
        *((0.0, "up to date"), (9.999, "up to date"), (10.0, "behind"), (59.999, "behind")),
        *((60.0, "far behind"), (86_400.0, "far behind")),
    ],
)
def test_how_far_behind_is_said_in_words(server: Server, age: float, word: str) -> None:
    server.look = seen(100, 1, age)
    assert sample(server)["lag"][0]["word"] == word


def test_thresholds_are_given() -> None:
    group = GroupLag("processor", 0, 0, 5.0, [])
    assert Thresholds(1, 5).word(group) == "far behind"
    assert Thresholds(5, 6).word(group) == "behind"
    assert Thresholds(6, 7).word(group) == "up to date"


def test_a_stream_that_nobody_reads_is_the_worst(server: Server) -> None:
    server.look = Look([StreamLag(STREAM, 5, 5, [])], None, [], 0, 0, 0, [], [])
    (lag,) = sample(server)["lag"]
    assert (lag["word"], lag["group"], lag["total"]) == ("not read", None, None)


def test_a_lag_that_redis_cannot_tell_is_unknown(server: Server) -> None:
    server.look = seen(100, None, 3.0)
    found = sample(server)
    assert found["lag"][0]["total"] is None
    assert found["rates"]["out"] is None
    assert f"entries {STREAM} processor" not in found["point"]["figures"]
    assert found["point"]["figures"][f"age {STREAM} processor"] == 3.0


def test_rates_are_of_some_seconds(server: Server) -> None:
    server.look = seen(1000, 0, 0)
    assert sample(server)["rates"] == {"in": None, "out": None}
    server.clock.advance(2)
    server.look = seen(1100, 60, 1)
    assert sample(server)["rates"] == {"in": 50.0, "out": 20.0}
    server.clock.advance(2)
    server.look = seen(1100, 0, 0)
    assert sample(server)["rates"] == {"in": 25.0, "out": 25.0}


def test_a_stream_that_was_made_anew_has_no_rate_below_nothing(server: Server) -> None:
    server.look = seen(1000, 0, 0)
    sample(server)
    server.clock.advance(2)
    server.look = seen(4, 0, 0)
    assert sample(server)["rates"] == {"in": 0.0, "out": 0.0}


@pytest.mark.parametrize("error", [Unavailable("gone"), Refused("LOADING"), ValueError("a fault")])
def test_what_keeps_it_from_looking_is_told_and_it_looks_again(
    server: Server, error: Exception
) -> None:
    look = server.look

    async def fails() -> Look:
        raise error

    server.sampler._see = fails
    reason = sample(server)["redis"]
    assert reason
    assert str(error) not in reason

    async def sees() -> Look:
        return look

    server.sampler._see = sees
    assert sample(server)["redis"] is None


def test_redis_is_asked_once_for_all_who_watch(server: Server) -> None:
    looks = []

    async def see() -> Look:
        looks.append(server.clock.seconds())
        return NOTHING

    server.sampler._see = see
    connections = [Browser(server).begin("GET", "/api/events") for _ in range(50)]
    server.sampler.startService()
    asked = len(server.redis.asked)
    for _ in range(5):
        server.clock.advance(INTERVAL)
    assert len(looks) == 6
    assert len(server.redis.asked) - asked <= 5  # the stream of responses
    assert all(len(told(one)) == 7 for one in connections)
    server.sampler.stopService()


def test_many_consumers_are_not_all_told(server: Server) -> None:
    consumers = [ConsumerLag(f"c{number}", number, 1.0) for number in range(100)]
    group = GroupLag("processor", 0, 4950, 1.0, consumers)
    server.look = Look([StreamLag(STREAM, 1, 1, [group])], None, [], 0, 0, 0, [], [])
    (lag,) = sample(server)["lag"]
    assert lag["consumer_count"] == 100
    assert [one["name"] for one in lag["consumers"][:2]] == ["c99", "c98"]
    assert len(lag["consumers"]) == 30


def test_the_worst_of_each_step_is_kept() -> None:
    history = History()
    for second, value in enumerate([1, 9, 2]):
        point = history.add(NOW + second * 3, {"lag": value, "unknown": None})
    assert point == {"at": int(NOW), "figures": {"lag": 9}}
    history.add(NOW + STEP, {"lag": 3})
    assert history.as_json()["series"] == {"lag": [9, 3]}


def test_an_hour_is_kept_and_no_more() -> None:
    history = History()
    for number in range(POINTS + 10):
        history.add(NOW + number * STEP, {"n": number})
    kept = history.as_json()
    assert len(kept["times"]) == POINTS
    assert kept["series"]["n"][0] == 10
    assert kept["times"][-1] - kept["times"][0] == (POINTS - 1) * STEP


def test_series_that_come_and_go_stay_aligned() -> None:
    history = History()
    history.add(NOW, {"a": 1})
    history.add(NOW + STEP, {"b": 2})
    assert history.as_json()["series"] == {"a": [1, None], "b": [None, 2]}


def test_a_sample_is_taken_as_soon_as_redis_is_there(server: Server) -> None:
    looks = []

    async def see() -> Look:
        looks.append(server.clock.seconds())
        if len(looks) == 1:
            raise Unavailable("not connected")
        return NOTHING

    server.sampler._see = see
    server.sampler.redis_is("Connection refused")
    server.sampler.startService()
    connection = Browser(server).begin("GET", "/api/events")
    server.sampler.redis_is(None)
    told_of: list[Any] = [data for name, data in told(connection) if name == "overview"]
    assert [one["redis"] for one in told_of] == ["no answer; see the console's log", None]
    assert server.clock.seconds() == NOW
    server.sampler.stopService()


def test_a_slow_look_is_not_begun_twice(server: Server) -> None:
    waiting: list[Deferred[None]] = []

    async def see() -> Look:
        waiting.append(Deferred())
        await waiting[-1]
        return NOTHING

    server.sampler._see = see
    server.sampler.startService()
    server.sampler.redis_is(None)
    server.clock.advance(10 * INTERVAL)
    assert len(waiting) == 1
    waiting[0].callback(None)
    server.clock.advance(INTERVAL)
    assert len(waiting) == 2
    waiting[1].callback(None)
    server.sampler.stopService()
