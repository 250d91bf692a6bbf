"""Streams of positions that no processor reads, among all keys of a real server."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from tests.integration.conftest import Connected
from tests.integration.poison import LAST_ID, poison, position
from tests.servers import REDIS_70, VALKEY, RedisServer
from tests.waiting import until
from tracker.errors import Refused
from tracker.log.redis import stranded as module
from tracker.log.redis.stranded import (
    SEARCH_INTERVAL,
    StrandedStream,
    StrandedStreams,
    StreamSearch,
    stranded,
)
from tracker.redis.address import RedisAddress

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

STREAM = "telemetry:teltonika"
WRONG = "telemtry:teltonika"


async def found(connected: Connected) -> list[StrandedStream]:
    """Return the stranded streams after one complete search."""
    search = StreamSearch(connected.connection, Clock())
    assert await search.proceed(60)
    return await stranded(connected.connection, search.streams.values(), [STREAM])


def append(redis: RedisServer, stream: str, count: int = 1, age: float = 100) -> None:
    """Append positions of this age in seconds."""
    milliseconds = int((time.time() - age) * 1000)
    for number in range(count):
        redis.client.xadd(stream, position(number), id=f"{milliseconds}-{number}")


@ensureDeferred
async def test_stream_without_a_group_is_stranded_whatever_its_name(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, STREAM)
    append(redis, WRONG, 3, age=500)
    append(redis, "any ünusual name", 2)
    redis.client.xgroup_create(WRONG, "mine", "$")
    first, second = await found(connected)
    assert (first.name, first.entries) == (WRONG, 3)
    assert 500 <= first.oldest_age < 530
    assert (second.name, second.entries) == ("any ünusual name", 2)


@ensureDeferred
async def test_stream_whose_consumers_are_gone_is_stranded(
    redis: RedisServer, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(redis, WRONG, 3)
    redis.client.xgroup_create(WRONG, "processor", "0")
    assert [one.entries for one in await found(connected)] == [3]
    entries = redis.client.xreadgroup("processor", "other", {WRONG: ">"}, count=2)[0][1]
    assert await found(connected) == []
    monkeypatch.setattr(module, "LIVE_TIMEOUT", 0.0)
    assert [one.entries for one in await found(connected)] == [3]
    redis.client.xack(WRONG, "processor", *(entry_id for entry_id, _ in entries))
    assert [one.entries for one in await found(connected)] == [1]
    ((_, last),) = redis.client.xreadgroup("processor", "other", {WRONG: ">"})
    redis.client.xack(WRONG, "processor", last[0][0])
    assert await found(connected) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.xadd("mine", {"ts": "1", "device_id": "2", "codec": "8"}),
        lambda client: client.xadd("commands:outbound:eu-1", position(1)),
        lambda client: client.xadd(f"{WRONG}:dead", position(1)),
        lambda client: client.xadd("renamed", {"_id": "1-1", **position(1)}),
        lambda client: client.xadd(b"\xff", position(1)),
        lambda client: client.xadd("x" * 256, position(1)),
        lambda client: client.xgroup_create(WRONG, "mine", mkstream=True),
        lambda client: client.hset(WRONG, mapping=position(1)),
    ],
    ids=["fields", "command", "dead", "renamed dead", "bytes", "long", "empty", "hash"],
)
@ensureDeferred
async def test_other_keys_are_not_stranded(
    redis: RedisServer, connected: Connected, write: Callable[..., object]
) -> None:
    write(redis.client)
    assert await found(connected) == []


@ensureDeferred
async def test_position_with_many_fields_and_a_future_id_is_stranded(
    redis: RedisServer, connected: Connected
) -> None:
    more = {f"field{number}": "x" * 1000 for number in range(2000)}
    redis.client.xadd(WRONG, {**position(1), **more}, id=LAST_ID)
    assert await found(connected) == [StrandedStream(WRONG, 1, 0)]


@ensureDeferred
async def test_other_entries_at_the_ends_of_a_stream_do_not_hide_it(
    redis: RedisServer, connected: Connected
) -> None:
    others = {"before": (2, 0), "after": (0, 2), "both": (5, 2)}
    for name, (before, after) in others.items():
        for count, at in ((before, 1), (after, 3)):
            for number in range(count):
                redis.client.xadd(f"{WRONG}:{name}", {"hello": "world"}, id=f"{at}-{number}")
            if at == 1:
                redis.client.xadd(f"{WRONG}:{name}", position(1), id="2-0")
    names = {one.name for one in await found(connected)}
    assert names == {f"{WRONG}:{name}" for name in others}


@ensureDeferred
async def test_search_survives_malformed_keys(redis: RedisServer, connected: Connected) -> None:
    poison(redis)
    append(redis, WRONG, 2, age=1e6)
    assert WRONG in [one.name for one in await found(connected)]


@ensureDeferred
async def test_keys_of_other_users_are_tried_only_once(redis: RedisServer) -> None:
    redis.client.acl_setuser("limited", enabled=True, passwords=["+x"], keys=["telemetry:*"],
                             categories=["+@all"])  # fmt: skip
    append(redis, "elsewhere")
    append(redis, "telemetry:wrong")
    limited = Connected(RedisAddress.from_url(f"redis://limited:x@127.0.0.1:{redis.port}"))
    await limited.usable()
    search = StreamSearch(limited.connection, Clock())
    for _ in range(2):
        assert await search.proceed(60)
        assert list(search.streams) == ["telemetry:wrong"]
    assert [entry["count"] for entry in redis.client.acl_log()] == [1]
    redis.client.acl_setuser("limited", enabled=True, commands=["-evalsha", "-eval"])
    with pytest.raises(Refused, match="NOPERM"):
        await search.proceed(60)
    await limited.connection.stopService()


@ensureDeferred
async def test_search_continues_where_the_last_call_ended(
    redis: RedisServer, connected: Connected
) -> None:
    with redis.client.pipeline() as pipe:
        for number in range(3000):
            pipe.xadd(f"commands:waiting:{number}", {"a": "b"})
        pipe.execute()
    for number in range(9):
        append(redis, f"{WRONG}:{number}")
    search = StreamSearch(connected.connection, Clock())
    calls = 1
    while not await search.proceed(0):
        calls += 1
    assert calls > 2
    assert len(search.streams) == 9
    assert await search.proceed(60)
    assert len(search.streams) == 9


@ensureDeferred
async def test_search_keeps_the_streams_with_the_most_entries(
    redis: RedisServer, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    for count in (1, 3, 2, 4):
        append(redis, f"{WRONG}:{count}", count)
    search = StreamSearch(connected.connection, Clock())
    assert await search.proceed(60)
    assert sorted(search.streams) == [f"{WRONG}:3", f"{WRONG}:4"]
    assert search.left_out == 2


@ensureDeferred
async def test_stranded_streams_have_metrics_and_are_logged_once(
    redis: RedisServer, connected: Connected
) -> None:
    registry, clock = CollectorRegistry(), Clock()
    service = StrandedStreams(clock, connected.connection, [STREAM], metrics_registry=registry)
    assert registry.get_sample_value("tracker_stranded_streams") is None
    append(redis, WRONG, 3)
    with capturedLogs() as captured:
        service.startService()
        await until(lambda: service.streams is not None, "the first search")
    assert registry.get_sample_value("tracker_stranded_streams") == 1
    labels = {"stream": WRONG}
    assert registry.get_sample_value("tracker_stranded_entries", labels) == 3
    age = registry.get_sample_value("tracker_stranded_oldest_age_seconds", labels)
    assert age is not None
    assert 100 <= age < 130
    append(redis, "telemetry:other")
    before = service.streams
    with capturedLogs() as captured_later:
        clock.advance(SEARCH_INTERVAL)
        await until(lambda: service.streams is not before, "the second search")
    assert registry.get_sample_value("tracker_stranded_streams") == 2
    (first,), (second,) = [
        [line for event in events if "no processor" in (line := formatEvent(event))]
        for events in (captured, captured_later)
    ]
    assert first.startswith(f"{WRONG}: ")
    assert second.startswith("telemetry:other: ")
    redis.client.delete(WRONG, "telemetry:other")
    before = service.streams
    clock.advance(SEARCH_INTERVAL)
    await until(lambda: service.streams is not before, "the third search")
    assert registry.get_sample_value("tracker_stranded_streams") == 0
    assert registry.get_sample_value("tracker_stranded_entries", labels) is None
    await service.stopService()
