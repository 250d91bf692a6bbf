"""Lag of groups on a real server, also if the server reports none or a wrong one."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.conftest import Connected
from tests.servers import REDIS_70, VALKEY, RedisServer
from tests.waiting import wait_for
from tracker.errors import Refused
from tracker.log.redis.lag import (
    MAX_CONSUMERS,
    MAX_COUNTED,
    MAX_COUNTED_BYTES,
    MAX_GROUPS,
    MAX_READ,
    GroupLag,
    repair_lag,
    stream_lag,
)

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

STREAM = "telemetry:teltonika"
GROUP = "processor"


def milliseconds_ago(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def append(redis: RedisServer, *ages: float) -> list[str]:
    """Append entries with these ages in seconds, oldest first; return their IDs."""
    ids = [f"{milliseconds_ago(age)}-{number}" for number, age in enumerate(ages)]
    for entry_id in ids:
        redis.client.xadd(STREAM, {"payload": "x" * 1000}, id=entry_id)
    return ids


def read(redis: RedisServer, count: int, consumer: str = "one") -> list[Any]:
    entries = redis.client.xreadgroup(GROUP, consumer, {STREAM: ">"}, count=count)
    return [entry_id for entry_id, _ in entries[0][1]] if entries else []


async def lag(connected: Connected) -> GroupLag:
    found = await stream_lag(connected.connection, STREAM)
    assert found is not None
    group = found.group(GROUP)
    assert group is not None
    return group


@ensureDeferred
async def test_missing_stream_has_no_lag(redis: RedisServer, connected: Connected) -> None:
    assert await stream_lag(connected.connection, STREAM) is None


@ensureDeferred
async def test_lag_of_a_key_of_another_type_is_refused(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.set(STREAM, "text")
    with pytest.raises(Refused, match="WRONGTYPE"):
        await stream_lag(connected.connection, STREAM)


@ensureDeferred
async def test_stream_without_groups_has_no_lag(redis: RedisServer, connected: Connected) -> None:
    append(redis, 3, 2)
    found = await stream_lag(connected.connection, STREAM)
    assert found is not None
    assert (found.entries, found.added, found.groups) == (2, 2, [])
    assert found.group(GROUP) is None


@ensureDeferred
async def test_unread_entries_are_counted_as_undelivered(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 100, 50, 10)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    group = await lag(connected)
    assert (group.undelivered, group.pending, group.total) == (3, 0, 3)
    assert group.oldest_age == pytest.approx(100, abs=5)
    assert group.consumers == []


@ensureDeferred
async def test_entries_that_were_read_are_pending_until_acknowledged(
    redis: RedisServer, connected: Connected
) -> None:
    ids = append(redis, 100, 50, 10)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    read(redis, 2)
    group = await lag(connected)
    assert (group.undelivered, group.pending, group.total) == (1, 2, 3)
    assert group.oldest_age == pytest.approx(100, abs=5)
    (consumer,) = group.consumers
    assert (consumer.name, consumer.pending) == ("one", 2)
    assert 0 <= consumer.idle < 5
    redis.client.xack(STREAM, GROUP, ids[0])
    assert (await lag(connected)).oldest_age == pytest.approx(50, abs=5)
    redis.client.xack(STREAM, GROUP, ids[1])
    assert (await lag(connected)).oldest_age == pytest.approx(10, abs=5)
    redis.client.xack(STREAM, GROUP, *read(redis, 2))
    group = await lag(connected)
    assert (group.total, group.oldest_age) == (0, 0)


def add_consumers(redis: RedisServer, group: str, count: int) -> None:
    redis.client.config_set("appendfsync", "no")
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(count):
        pipeline.xgroup_createconsumer(STREAM, group, f"c{number}")
    pipeline.execute()


@ensureDeferred
async def test_consumers_with_the_most_pending_entries_are_returned(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 100, 50, 10)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    add_consumers(redis, GROUP, MAX_CONSUMERS)
    read(redis, 2, "z")
    read(redis, 1, "y")
    group = await lag(connected)
    assert [(one.name, one.pending) for one in group.consumers[:2]] == [("z", 2), ("y", 1)]
    assert (len(group.consumers), group.consumer_count) == (MAX_CONSUMERS, MAX_CONSUMERS + 2)


@pytest.mark.parametrize("crowded", [GROUP, "a"])
@ensureDeferred
async def test_group_with_too_many_consumers_is_returned_without_them(
    redis: RedisServer, connected: Connected, crowded: str
) -> None:
    """Reading very many consumers would block Redis and this process."""
    append(redis, 100)
    for name in (GROUP, "a"):
        redis.client.xgroup_create(STREAM, name, "0")
        redis.client.xreadgroup(name, "one", {STREAM: ">"})
    add_consumers(redis, crowded, MAX_READ)
    found = await stream_lag(connected.connection, STREAM)
    assert found is not None
    groups = {group.name: group for group in found.groups}
    assert (groups[crowded].pending, groups[crowded].consumer_count) == (1, MAX_READ + 1)
    assert groups.pop(crowded).consumers == []
    (other,) = groups.values()
    assert [(one.name, one.pending) for one in other.consumers] == [("one", 1)]


@ensureDeferred
async def test_group_of_processors_is_returned_even_among_too_many_groups(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 100)
    redis.client.config_set("appendfsync", "no")
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(MAX_GROUPS + 1):
        pipeline.xgroup_create(STREAM, f"g{number:04}", "0")
    pipeline.execute()
    redis.client.xgroup_create(STREAM, GROUP, "0")  # the last one by name
    found = await stream_lag(connected.connection, STREAM)
    assert found is not None
    assert len(found.groups) == MAX_GROUPS
    assert found.group(GROUP) is not None


@ensureDeferred
async def test_lag_that_redis_does_not_report_is_counted(
    redis: RedisServer, connected: Connected
) -> None:
    ids = append(redis, 100, 80, 60, 40, 20)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    redis.client.xgroup_setid(STREAM, GROUP, ids[1])  # without ENTRIESREAD
    assert redis.client.xinfo_groups(STREAM)[0]["lag"] is None
    group = await lag(connected)
    assert (group.undelivered, group.total) == (3, 3)
    assert group.oldest_age == pytest.approx(60, abs=5)


@ensureDeferred
async def test_lag_is_counted_after_entries_were_deleted(
    redis: RedisServer, connected: Connected
) -> None:
    ids = append(redis, 100, 80, 60, 40, 20)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    read(redis, 1)
    redis.client.xdel(STREAM, ids[2])
    assert redis.client.xinfo_groups(STREAM)[0]["lag"] is None
    group = await lag(connected)
    assert (group.undelivered, group.pending) == (3, 1)
    assert group.oldest_age == pytest.approx(100, abs=5)
    redis.client.xack(STREAM, GROUP, ids[0])
    assert (await lag(connected)).oldest_age == pytest.approx(80, abs=5)
    redis.client.xdel(STREAM, ids[1])
    assert (await lag(connected)).oldest_age == pytest.approx(40, abs=5)
    assert await repair_lag(connected.connection, STREAM) == {}  # no counter is wrong


def append_many(redis: RedisServer, count: int, size: int = 1) -> None:
    redis.client.config_set("appendfsync", "no")
    pipeline = redis.client.pipeline(transaction=False)
    for _ in range(count):
        pipeline.xadd(STREAM, {"payload": "x" * size})
    pipeline.execute()


def finish(redis: RedisServer, count: int) -> None:
    while count and (done := read(redis, min(count, 100))):
        redis.client.xack(STREAM, GROUP, *done)
        count -= len(done)


@pytest.mark.parametrize(("count", "size"), [(MAX_COUNTED + 1, 1), (100, MAX_COUNTED_BYTES // 80)])
@ensureDeferred
async def test_lag_that_can_be_neither_counted_nor_believed_is_unknown(
    redis: RedisServer, connected: Connected, count: int, size: int
) -> None:
    append_many(redis, count, size)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    assert (await lag(connected)).undelivered == count  # as Redis reports it
    redis.client.xgroup_setid(STREAM, GROUP, "0", entries_read=count)
    assert redis.client.xinfo_groups(STREAM)[0]["lag"] == 0
    assert (await lag(connected)).undelivered is None
    assert await repair_lag(connected.connection, STREAM) == {}


@ensureDeferred
async def test_other_groups_are_counted_up_to_a_common_limit(
    redis: RedisServer, connected: Connected
) -> None:
    _, second = append(redis, 9, 8)
    append_many(redis, MAX_COUNTED * 2 // 3)
    for name in (GROUP, "a", "b"):
        redis.client.xgroup_create(STREAM, name, "0")
        redis.client.xgroup_setid(STREAM, name, second)  # without ENTRIESREAD
    found = await stream_lag(connected.connection, STREAM)
    assert found is not None
    lags = {group.name: group.undelivered for group in found.groups}
    assert lags == {GROUP: found.entries - 2, "a": found.entries - 2, "b": None}


def rewrite_and_restart(redis: RedisServer) -> None:
    """Rewrite the append-only file, finish entries after that, and restart the server."""
    append_many(redis, 300)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    finish(redis, 300)
    redis.client.bgrewriteaof()
    wait_for(
        lambda: not redis.client.info("persistence")["aof_rewrite_in_progress"], "file rewritten"
    )
    append_many(redis, 2000)
    finish(redis, 1990)
    redis.stop()
    redis.start()


@ensureDeferred
async def test_lag_is_right_after_a_rewritten_file_was_loaded(
    redis: RedisServer, redis_program: str
) -> None:
    rewrite_and_restart(redis)
    if redis_program == REDIS_70:
        assert redis.client.xinfo_groups(STREAM)[0]["lag"] == 2000
    connected = Connected(redis.address)
    await connected.usable()
    assert (await lag(connected)).undelivered == 10
    finish(redis, 10)
    group = await lag(connected)
    await connected.connection.stopService()
    assert (group.undelivered, group.total, group.oldest_age) == (0, 0, 0)


@ensureDeferred
async def test_wrong_counter_is_repaired_without_moving_the_group(
    redis: RedisServer, connected: Connected
) -> None:
    append_many(redis, 300)
    ids = append(redis, -10, -20)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    read(redis, 301)
    redis.client.xgroup_setid(STREAM, GROUP, ids[0], entries_read=7)
    assert await repair_lag(connected.connection, STREAM) == {GROUP: (295, 1)}
    (facts,) = redis.client.xinfo_groups(STREAM)
    assert (facts["entries-read"], facts["lag"]) == (301, 1)
    assert (facts["last-delivered-id"].decode(), facts["pending"]) == (ids[0], 301)
    assert await repair_lag(connected.connection, STREAM) == {}
    redis.client.xgroup_setid(STREAM, GROUP, ids[0])  # without ENTRIESREAD
    assert await repair_lag(connected.connection, STREAM) == {GROUP: (None, 1)}


@ensureDeferred
async def test_new_group_gets_a_counter_without_a_correction_of_its_lag(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    assert await repair_lag(connected.connection, STREAM) == {}
    assert redis.client.xinfo_groups(STREAM)[0]["entries-read"] == 0


@ensureDeferred
async def test_lag_of_a_missing_stream_needs_no_repair(
    redis: RedisServer, connected: Connected
) -> None:
    assert await repair_lag(connected.connection, STREAM) == {}
    assert redis.client.keys() == []


@ensureDeferred
async def test_lag_reports_the_age_of_the_oldest_pending_or_undelivered_entry(
    redis: RedisServer, connected: Connected
) -> None:
    ids = append(redis, 100, 80, 60)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    redis.client.xack(STREAM, GROUP, *read(redis, 2))
    read(redis, 1)
    assert (await lag(connected)).oldest_age == pytest.approx(60, abs=5)
    redis.client.xgroup_setid(STREAM, GROUP, ids[0])  # the group is set back
    assert (await lag(connected)).oldest_age == pytest.approx(80, abs=5)


@ensureDeferred
async def test_each_group_has_its_own_lag(redis: RedisServer, connected: Connected) -> None:
    append(redis, 100, 50)
    redis.client.xgroup_create(STREAM, GROUP, "0")
    redis.client.xgroup_create(STREAM, "other", "$")
    found = await stream_lag(connected.connection, STREAM)
    assert found is not None
    assert {group.name: group.total for group in found.groups} == {GROUP: 2, "other": 0}


@ensureDeferred
async def test_entry_id_that_is_not_a_time_has_age_zero(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.xadd(STREAM, {"a": "b"}, id="18446744073709551615-18446744073709551615")
    redis.client.xgroup_create(STREAM, GROUP, "0")
    assert (await lag(connected)).oldest_age == 0
    read(redis, 1)  # the largest possible ID
    group = await lag(connected)
    assert (group.pending, group.oldest_age) == (1, 0)
