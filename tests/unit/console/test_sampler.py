"""Samples of the console, their history, and failures of Redis."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from tests.unit.console.browsing import EMPTY_SNAPSHOT, NOW, Browser, Server
from tests.unit.console.test_events import received_events
from tracker.console.history import POINTS, STEP, History
from tracker.console.sampler import INTERVAL, Thresholds
from tracker.console.snapshot import Part, Snapshot
from tracker.errors import Refused, Unavailable
from tracker.log.redis.lag import ConsumerLag, GroupLag, StreamLag
from tracker.log.redis.stranded import StrandedStream

STREAM = "telemetry:teltonika"


def lagging(added: int, undelivered: int | None, age: float, pending: int = 0) -> Snapshot:
    consumers = [ConsumerLag("one", pending, 0.5)]
    group = GroupLag("processor", undelivered, pending, age, consumers)
    lag = StreamLag(STREAM, added, added, [group])
    return Snapshot([lag], None, [], 25, 0, 0, [], [])


def sample(server: Server) -> dict[str, Any]:
    """Take a sample; return the overview and the history that a browser receives."""
    Deferred.fromCoroutine(server.sampler.sample())
    connection = Browser(server).start_request("GET", "/api/events")
    events = received_events(connection)
    connection.disconnect()
    assert [name for name, _ in events] == ["history", "overview"]
    overview: Any = events[1][1]
    return {**overview, "history": events[0][1]}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.parametrize(
    ("age", "state"),
    [
        *((0.0, "up to date"), (9.999, "up to date"), (10.0, "behind"), (59.999, "behind")),
        *((60.0, "far behind"), (86_400.0, "far behind")),
    ],
)
def test_age_of_the_oldest_entry_determines_the_state_of_the_lag(
    server: Server, age: float, state: str
) -> None:
    server.snapshot = lagging(100, 1, age)
    assert sample(server)["lag"][0]["state"] == state


def test_thresholds_determine_the_state_of_the_lag() -> None:
    group = GroupLag("processor", 0, 0, 5.0, [])
    assert Thresholds(1, 5).lag_state(group) == "far behind"
    assert Thresholds(5, 6).lag_state(group) == "behind"
    assert Thresholds(6, 7).lag_state(group) == "up to date"


def test_stream_with_entries_but_without_a_group_is_shown_as_not_read(server: Server) -> None:
    server.snapshot = Snapshot([StreamLag(STREAM, 5, 5, [])], None, [], 0, 0, 0, [], [])
    (lag,) = sample(server)["lag"]
    assert (lag["state"], lag["group"], lag["total"]) == ("not read", None, None)


def test_stranded_stream_is_shown_as_not_read(server: Server) -> None:
    stranded = [StrandedStream("telemtry", 5, 93_000.0), StrandedStream("a\nb", None, 1.0)]
    server.snapshot = Snapshot([], None, [], 0, 0, 0, [], [], stranded=stranded)
    first, second = sample(server)["lag"]
    assert (first["stream"], first["stranded"], first["state"]) == ("telemtry", True, "not read")
    assert (first["total"], first["stream_entries"], first["age"]) == (5, 5, 93_000.0)
    assert (second["stream"], second["total"]) == ("a\\nb", None)


def test_skipped_entries_are_shown_at_the_group_of_processors(server: Server) -> None:
    groups = [GroupLag(name, 0, 0, 0.0, []) for name in ("processor", "other")]
    lags = [StreamLag(STREAM, 1, 1, groups)]
    server.snapshot = Snapshot(lags, None, [], 0, 0, 0, [], [], skipped={STREAM: 18})
    first, second = sample(server)["lag"]
    assert (first["skipped"], first["state"]) == (18, "skipped")
    assert ("skipped" in second, second["state"]) == (False, "up to date")


def test_skipped_entries_that_cannot_be_read_are_unknown(server: Server) -> None:
    lags = [StreamLag(STREAM, 1, 1, [GroupLag("processor", 0, 0, 0.0, [])])]
    server.snapshot = Snapshot(lags, None, [], 0, 0, 0, [], [], skipped={STREAM: None})
    (row,) = sample(server)["lag"]
    assert (row["skipped"], row["state"]) == (None, "up to date")


def test_lag_that_redis_does_not_report_is_unknown(server: Server) -> None:
    server.snapshot = lagging(100, None, 3.0)
    found = sample(server)
    assert found["lag"][0]["total"] is None
    assert found["rates"]["out"] is None
    assert f"entries {STREAM} processor" not in found["point"]["figures"]
    assert found["point"]["figures"][f"age {STREAM} processor"] == 3.0


def test_rates_are_averages_over_several_samples(server: Server) -> None:
    server.snapshot = lagging(1000, 0, 0)
    assert sample(server)["rates"] == {"in": None, "out": None}
    server.clock.advance(2)
    server.snapshot = lagging(1100, 60, 1)
    assert sample(server)["rates"] == {"in": 50.0, "out": 20.0}
    server.clock.advance(2)
    server.snapshot = lagging(1100, 0, 0)
    assert sample(server)["rates"] == {"in": 25.0, "out": 25.0}


def test_rate_of_a_recreated_stream_is_not_negative(server: Server) -> None:
    server.snapshot = lagging(1000, 0, 0)
    sample(server)
    server.clock.advance(2)
    server.snapshot = lagging(4, 0, 0)
    assert sample(server)["rates"] == {"in": 0.0, "out": 0.0}


@pytest.mark.parametrize("error", [Unavailable("gone"), Refused("LOADING"), ValueError("a fault")])
def test_failed_sample_is_published_without_its_error_and_retried(
    server: Server, error: Exception
) -> None:
    async def fails() -> Snapshot:
        raise error

    server.sampler._take_snapshot = fails
    reason = sample(server)["redis"]
    assert reason
    assert str(error) not in reason

    async def succeeds() -> Snapshot:
        return server.snapshot

    server.sampler._take_snapshot = succeeds
    assert sample(server)["redis"] is None


def test_part_that_is_unknown_does_not_hide_the_others(server: Server) -> None:
    reason = "telemetry:teltonika:dead is not a stream: rename or delete it"
    server.snapshot = evolve(
        lagging(100, 0, 0), unknown={Part.DEAD: reason, Part.CONNECTED: "x"}, connected=None
    )
    found = sample(server)
    assert found["unknown"] == {"dead": reason, "connected": "x"}
    assert (found["dead"]["total"], found["connected"]) == (None, None)
    assert (found["redis"], found["instance_count"], len(found["lag"])) == (None, 0, 1)
    server.snapshot = evolve(EMPTY_SNAPSHOT, unknown={Part.INSTANCES: "x"})
    assert sample(server)["instance_count"] is None


@pytest.mark.parametrize("error", ["WRONGTYPE key", "NOPERM no permission"])
def test_responses_that_cannot_be_read_make_only_commands_unknown(
    server: Server, error: str
) -> None:
    server.redis.replies["XREVRANGE"] = error
    assert server.sampler.commands_error == "no data yet"
    server.snapshot = lagging(100, 0, 0)
    found = sample(server)
    assert found["unknown"].keys() == {"commands"}
    assert len(found["lag"]) == 1
    assert server.sampler.commands_error == found["unknown"]["commands"]
    server.redis.replies["XREVRANGE"] = []
    assert sample(server)["unknown"] == {}
    assert server.sampler.commands_error is None


def test_one_sample_serves_all_browsers(server: Server) -> None:
    snapshots = []

    async def take_snapshot() -> Snapshot:
        snapshots.append(server.clock.seconds())
        return EMPTY_SNAPSHOT

    server.sampler._take_snapshot = take_snapshot
    connections = [Browser(server).start_request("GET", "/api/events") for _ in range(50)]
    server.sampler.startService()
    commands_before = len(server.redis.sent)
    for _ in range(5):
        server.clock.advance(INTERVAL)
    assert len(snapshots) == 6
    assert len(server.redis.sent) - commands_before <= 5  # the stream of responses
    assert all(len(received_events(one)) == 7 for one in connections)
    server.sampler.stopService()


def test_number_of_consumers_is_limited(server: Server) -> None:
    consumers = [ConsumerLag(f"c{number}", number, 1.0) for number in range(100)]
    group = GroupLag("processor", 0, 4950, 1.0, consumers)
    server.snapshot = Snapshot([StreamLag(STREAM, 1, 1, [group])], None, [], 0, 0, 0, [], [])
    (lag,) = sample(server)["lag"]
    assert lag["consumer_count"] == 100
    assert [one["name"] for one in lag["consumers"][:2]] == ["c99", "c98"]
    assert len(lag["consumers"]) == 30


def test_history_keeps_the_maximum_of_each_step() -> None:
    history = History()
    for second, value in enumerate([1, 9, 2]):
        point = history.add(NOW + second * 3, {"lag": value, "unknown": None})
    assert point == {"at": int(NOW), "figures": {"lag": 9}}
    history.add(NOW + STEP, {"lag": 3})
    assert history.as_json()["series"] == {"lag": [9, 3]}


def test_history_is_limited_to_an_hour() -> None:
    history = History()
    for number in range(POINTS + 10):
        history.add(NOW + number * STEP, {"n": number})
    kept = history.as_json()
    assert len(kept["times"]) == POINTS
    assert kept["series"]["n"][0] == 10
    assert kept["times"][-1] - kept["times"][0] == (POINTS - 1) * STEP


def test_series_with_missing_points_stay_aligned() -> None:
    history = History()
    history.add(NOW, {"a": 1})
    history.add(NOW + STEP, {"b": 2})
    assert history.as_json()["series"] == {"a": [1, None], "b": [None, 2]}


def test_sample_is_taken_when_redis_becomes_usable(server: Server) -> None:
    snapshots = []

    async def take_snapshot() -> Snapshot:
        snapshots.append(server.clock.seconds())
        if len(snapshots) == 1:
            raise Unavailable("not connected")
        return EMPTY_SNAPSHOT

    server.sampler._take_snapshot = take_snapshot
    server.sampler.redis_is("Connection refused")
    server.sampler.startService()
    connection = Browser(server).start_request("GET", "/api/events")
    server.sampler.redis_is(None)
    overviews: list[Any] = [
        data for name, data in received_events(connection) if name == "overview"
    ]
    assert [one["redis"] for one in overviews] == [
        "Redis is not available; see the console's log",
        None,
    ]
    assert server.clock.seconds() == NOW
    server.sampler.stopService()


def test_slow_sample_is_not_started_twice(server: Server) -> None:
    waiting: list[Deferred[None]] = []

    async def take_snapshot() -> Snapshot:
        waiting.append(Deferred())
        await waiting[-1]
        return EMPTY_SNAPSHOT

    server.sampler._take_snapshot = take_snapshot
    server.sampler.startService()
    server.sampler.redis_is(None)
    server.clock.advance(10 * INTERVAL)
    assert len(waiting) == 1
    waiting[0].callback(None)
    server.clock.advance(INTERVAL)
    assert len(waiting) == 2
    waiting[1].callback(None)
    server.sampler.stopService()
