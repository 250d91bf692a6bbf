"""The checkpoint of a stream on a real server: what is finished, and what was skipped."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from tests.integration.conftest import Connected
from tests.servers import REDIS_70, VALKEY, RedisServer
from tracker.keys import PROCESSOR_GROUP, checkpoint
from tracker.log.entries import StreamEntry
from tracker.log.redis.checkpoint import (
    MAX_EXAMINED,
    MAX_RUNS,
    Skipped,
    advance_checkpoint,
    create_checkpoint,
    find_skipped,
    record_finished,
)
from tracker.log.redis.checkpointpublisher import CheckpointPublisher
from tracker.log.redis.reader import RedisReader

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

STREAM = "telemetry:teltonika"
KEY = checkpoint(STREAM)


def append(redis: RedisServer, first: int, last: int) -> None:
    """Append the entries first-0 to last-0."""
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(first, last + 1):
        pipeline.xadd(STREAM, {"payload": "x"}, id=f"{number}-0")
    pipeline.execute()


def member(connected: Connected, name: str = "one", entries: int = 1000) -> RedisReader:
    connection = connected.connection
    publisher = CheckpointPublisher(Clock(), connection, 4 * entries)
    return RedisReader(
        connection,
        connection,
        group=PROCESSOR_GROUP,
        name=name,
        entries=entries,
        publisher=publisher,
    )


async def read(reader: RedisReader) -> list[str]:
    return [entry.id for entry in await reader.read(reader.allowance([STREAM]))]


def of(*numbers: int) -> list[str]:
    return [f"{number}-0" for number in numbers]


def ranges(skipped: Skipped) -> list[tuple[int, int, int]]:
    return [
        (int(one.first.removesuffix("-0")), int(one.last.removesuffix("-0")), one.entries)
        for one in skipped.ranges
    ]


async def skipped(connected: Connected, *, thorough: bool = True) -> Any:
    """Return the committed entry and the skipped ranges, with numbers instead of IDs."""
    found = await find_skipped(connected.connection, STREAM, thorough=thorough)
    assert found.complete
    assert found.committed is not None
    return int(found.committed.removesuffix("-0")), ranges(found)


def runs(redis: RedisServer) -> list[tuple[int, int]]:
    found = [one.decode().split(":") for one in redis.client.zrange(KEY, 0, -1)]
    return [(int(first.split("-")[0]), int(last.split("-")[0])) for first, last in found]


@ensureDeferred
async def test_stream_without_a_checkpoint_has_no_skipped_entries(
    redis: RedisServer, connected: Connected
) -> None:
    assert await find_skipped(connected.connection, STREAM) == Skipped(None)
    append(redis, 1, 3)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "$")
    assert await find_skipped(connected.connection, STREAM) == Skipped(None)
    await record_finished(connected.connection, STREAM, [("1-0", "2-0")])
    assert not redis.client.exists(KEY)


@ensureDeferred
async def test_checkpoint_follows_entries_that_are_acknowledged(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 500)
    reader = member(connected)
    assert await reader.join(STREAM)
    assert await skipped(connected) == (0, [])
    entries = await read(reader)
    assert len(entries) == 500
    assert await skipped(connected) == (0, [])
    await reader.acknowledge(STREAM, entries)
    assert await skipped(connected) == (500, [])
    assert runs(redis) == [(0, 500)]


@ensureDeferred
async def test_entries_acknowledged_in_parts_become_one_run(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    reader = member(connected)
    await reader.join(STREAM)
    await read(reader)
    await reader.acknowledge(STREAM, of(3, 4, 5))
    await reader.acknowledge(STREAM, of(8, 10))
    assert runs(redis) == [(0, 0), (3, 5), (8, 8), (10, 10)]
    assert await skipped(connected) == (0, [])
    await reader.acknowledge(STREAM, of(1, 6, 9))
    assert runs(redis) == [(0, 1), (3, 6), (8, 10)]
    await reader.acknowledge(STREAM, of(7))
    assert runs(redis) == [(0, 1), (3, 10)]
    await reader.acknowledge(STREAM, of(2, 2, 5))
    assert runs(redis) == [(0, 10)]


@ensureDeferred
async def test_deleted_entries_do_not_hold_the_checkpoint(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    reader = member(connected)
    await reader.join(STREAM)
    await read(reader)
    await reader.acknowledge(STREAM, of(3, 4))
    redis.client.xdel(STREAM, *of(4))
    await reader.acknowledge(STREAM, of(5))
    redis.client.xdel(STREAM, *of(1, 2))
    await reader.acknowledge(STREAM, of(7, 8))
    assert runs(redis) == [(0, 0), (3, 5), (7, 8)]
    await advance_checkpoint(connected.connection, STREAM)
    assert runs(redis) == [(0, 5), (7, 8)]
    assert await skipped(connected) == (5, [])


@ensureDeferred
async def test_checkpoint_of_an_existing_group_starts_with_what_it_has_finished(
    redis: RedisServer, connected: Connected
) -> None:
    """The acknowledgements of a previous version are not recorded."""
    append(redis, 1, 20)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0")
    redis.client.xreadgroup(PROCESSOR_GROUP, "old", {STREAM: ">"}, count=15)
    redis.client.xack(STREAM, PROCESSOR_GROUP, *of(1, 2, 5, 6, 9, 10, 14))
    redis.client.xdel(STREAM, *of(8))
    assert not await member(connected).join(STREAM)
    assert runs(redis) == [(0, 2), (5, 6), (9, 10), (14, 14)]
    assert await skipped(connected) == (2, [])
    redis.client.xgroup_delconsumer(STREAM, PROCESSOR_GROUP, "old")
    assert await skipped(connected) == (2, [(3, 4, 2), (7, 7, 1), (11, 13, 3), (15, 15, 1)])


@ensureDeferred
async def test_checkpoint_of_a_group_that_was_set_back_covers_only_delivered_entries(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 20)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0")
    redis.client.xreadgroup(PROCESSOR_GROUP, "old", {STREAM: ">"}, count=15)
    redis.client.xack(STREAM, PROCESSOR_GROUP, *of(1, 2, 5, 6, 9, 10, 14))
    redis.client.xgroup_setid(STREAM, PROCESSOR_GROUP, "5-0")
    await member(connected).join(STREAM)
    assert runs(redis) == [(0, 2), (5, 5)]


@ensureDeferred
async def test_entries_that_a_group_after_the_end_never_reads_are_skipped(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "1000-0")
    for first in (11, 31):
        assert await create_checkpoint(connected.connection, STREAM) is (first == 11)
        append(redis, first, first + 19)
        assert await skipped(connected) == (10, [(11, first + 19, first + 9)])


@ensureDeferred
async def test_checkpoint_of_a_finished_group_is_its_last_entry(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 20)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "20-0")
    await member(connected).join(STREAM)
    await member(connected).join(STREAM)
    assert runs(redis) == [(0, 20)]


@ensureDeferred
async def test_pending_entries_of_a_removed_consumer_are_skipped(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 30)
    one, dead = member(connected, "one", 12), member(connected, "dead", 3)
    await one.join(STREAM)
    await one.acknowledge(STREAM, await read(one))
    assert await read(dead) == of(13, 14, 15)
    await one.acknowledge(STREAM, await read(one))
    await one.acknowledge(STREAM, await read(one))
    assert await skipped(connected) == (12, [])
    redis.client.xgroup_delconsumer(STREAM, PROCESSOR_GROUP, "dead")
    for thorough in (True, False):
        assert await skipped(connected, thorough=thorough) == (12, [(13, 15, 3)])


@ensureDeferred
async def test_entries_that_a_group_jumped_over_are_skipped(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 20)
    reader = member(connected, entries=2)
    await reader.join(STREAM)
    await reader.acknowledge(STREAM, await read(reader))
    redis.client.xgroup_setid(STREAM, PROCESSOR_GROUP, "$")
    assert await skipped(connected) == (2, [(3, 20, 18)])
    append(redis, 21, 22)
    await reader.acknowledge(STREAM, await read(reader))
    assert await skipped(connected, thorough=False) == (2, [(3, 20, 18)])


@ensureDeferred
async def test_entries_that_were_acknowledged_by_hand_are_skipped(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    reader = member(connected)
    await reader.join(STREAM)
    await read(reader)
    redis.client.xack(STREAM, PROCESSOR_GROUP, *of(4, 5, 7))
    assert await skipped(connected, thorough=False) == (0, [])
    assert await skipped(connected) == (0, [(4, 5, 2), (7, 7, 1)])
    await reader.acknowledge(STREAM, of(1, 2, 3, 6, 8, 9, 10))
    assert await skipped(connected, thorough=False) == (3, [(4, 5, 2), (7, 7, 1)])


@ensureDeferred
async def test_group_that_was_created_again_at_the_end_has_skipped_entries(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    reader = member(connected, entries=4)
    await reader.join(STREAM)
    await reader.acknowledge(STREAM, await read(reader))
    redis.client.xgroup_destroy(STREAM, PROCESSOR_GROUP)
    assert await skipped(connected) == (4, [])  # they are undelivered to the next group
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "$")
    await reader.join(STREAM)
    assert await skipped(connected) == (4, [(5, 10, 6)])


@ensureDeferred
async def test_checkpoint_of_an_earlier_stream_of_the_same_name_is_replaced(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    reader = member(connected)
    await reader.join(STREAM)
    await reader.acknowledge(STREAM, await read(reader))
    redis.client.delete(STREAM)
    append(redis, 1, 5)
    await reader.join(STREAM)
    assert await skipped(connected) == (0, [])
    await reader.acknowledge(STREAM, await read(reader))
    assert await skipped(connected) == (5, [])


@ensureDeferred
async def test_recorded_runs_settle_skipped_entries(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 20)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0")
    await member(connected).join(STREAM)
    redis.client.xgroup_setid(STREAM, PROCESSOR_GROUP, "20-0")
    await record_finished(connected.connection, STREAM, [("3-0", "7-0")])
    assert await skipped(connected) == (0, [(1, 2, 2), (8, 20, 13)])
    await record_finished(connected.connection, STREAM, [("8-0", "20-0"), ("1-0", "2-0")])
    assert await skipped(connected) == (20, [])


@ensureDeferred
async def test_search_for_skipped_entries_is_limited(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.config_set("appendfsync", "no")
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0", mkstream=True)
    await member(connected).join(STREAM)
    append(redis, 1, 2500)
    redis.client.xgroup_setid(STREAM, PROCESSOR_GROUP, "$")
    assert await skipped(connected) == (0, [(1, 2500, 2500)])
    append(redis, 2501, MAX_EXAMINED + 1000)
    redis.client.xgroup_setid(STREAM, PROCESSOR_GROUP, "$")
    found = await find_skipped(connected.connection, STREAM)
    assert not found.complete
    ((first, _, count),) = ranges(found)
    assert (first, found.count) == (1, f"{count} or more")
    assert MAX_EXAMINED * 0.9 < count <= MAX_EXAMINED


@ensureDeferred
async def test_number_of_runs_is_limited(redis: RedisServer, connected: Connected) -> None:
    redis.client.config_set("appendfsync", "no")
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0", mkstream=True)
    await member(connected).join(STREAM)
    append(redis, 1, 2 * MAX_RUNS + 10)
    every_other = [(f"{one}-0", f"{one}-0") for one in range(2, 2 * MAX_RUNS + 10, 2)]
    assert await record_finished(connected.connection, STREAM, every_other) == 5
    assert redis.client.zcard(KEY) == MAX_RUNS
    assert await record_finished(connected.connection, STREAM, [("1-0", "1-0")]) == 0
    assert runs(redis)[0] == (0, 2)


@ensureDeferred
async def test_checkpoint_is_recorded_when_redis_is_full(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0")
    redis.client.config_set("maxmemory", 1)
    reader = member(connected)
    await reader.join(STREAM)
    await reader.acknowledge(STREAM, await read(reader))
    assert await skipped(connected) == (10, [])


@ensureDeferred
async def test_checkpoint_that_was_deleted_is_published_anew(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 30)
    reader = member(connected, entries=10)
    await reader.join(STREAM)
    first, second = await read(reader), await read(reader)
    redis.client.delete(KEY)
    with capturedLogs() as captured:
        await reader.acknowledge(STREAM, second)
    assert [event["log_format"] for event in captured if "anew" in event["log_format"]]
    assert await skipped(connected) == (0, [])
    await reader.acknowledge(STREAM, first)
    assert await skipped(connected) == (20, [])
    await read(reader)
    redis.client.xgroup_delconsumer(STREAM, PROCESSOR_GROUP, "one")
    assert await skipped(connected) == (20, [(21, 30, 10)])


@ensureDeferred
async def test_entries_are_acknowledged_even_if_the_checkpoint_is_refused(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    redis.client.set(KEY, "text")
    reader = member(connected)
    with capturedLogs() as captured:
        await reader.join(STREAM)
        await reader.acknowledge(STREAM, await read(reader))
    assert redis.client.xpending(STREAM, PROCESSOR_GROUP)["pending"] == 0
    (event,) = [event for event in captured if "checkpoint" in event["log_format"]]
    assert "WRONGTYPE" in str(event["error"])


@ensureDeferred
async def test_members_other_than_runs_are_ignored(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 10)
    reader = member(connected)
    await reader.join(STREAM)
    await read(reader)
    await reader.acknowledge(STREAM, of(3))
    redis.client.zadd(KEY, {"x": 0, "0": 0, "00000000000000000005": 0, "": 0})
    await reader.acknowledge(STREAM, of(5, 1, 2))
    redis.client.zadd(KEY, {"00000000000000000004": 0})
    assert await skipped(connected) == (3, [])
    redis.client.xack(STREAM, PROCESSOR_GROUP, *of(4))
    assert await skipped(connected) == (3, [(4, 4, 1)])
    await reader.acknowledge(STREAM, of(4, 7))
    assert await skipped(connected) == (5, [])


@ensureDeferred
async def test_largest_ids_are_finished(redis: RedisServer, connected: Connected) -> None:
    largest = "18446744073709551615-18446744073709551615"
    for entry_id in ("9007199254740993-1", "18446744073709551615-18446744073709551614", largest):
        redis.client.xadd(STREAM, {"payload": "x"}, id=entry_id)
    reader = member(connected)
    await reader.join(STREAM)
    entries = await read(reader)
    redis.client.xack(STREAM, PROCESSOR_GROUP, entries[1])
    await reader.acknowledge(STREAM, [entries[0]])
    found = await find_skipped(connected.connection, STREAM)
    assert [one.first for one in found.ranges] == [entries[1]]
    await reader.acknowledge(STREAM, entries[1:])
    assert await find_skipped(connected.connection, STREAM) == Skipped(largest)


class Model:
    """Random members of the group, some of which die; what each entry must be is known."""

    def __init__(self, redis: RedisServer, connected: Connected, seed: int) -> None:
        self.redis, self.connected = redis, connected
        self.random = random.Random(seed)
        self.appended = 0
        self.finished: set[str] = set()
        self.foul: set[str] = set()
        self.members: dict[str, RedisReader] = {}
        self.held: dict[str, list[str]] = {}

    async def start(self, name: str) -> None:
        self.members[name] = member(self.connected, name, self.random.choice([1, 5, 200]))
        self.held[name] = []
        await self.members[name].join(STREAM)

    def _hold(self, name: str, entries: Sequence[StreamEntry]) -> None:
        self.held[name] += [one.id for one in entries if one.id not in self.held[name]]

    async def step(self) -> None:
        name = self.random.choice(list(self.members))
        reader, held = self.members[name], self.held[name]
        match self.random.randrange(8):
            case 0 | 1:
                count = self.random.choice([1, 3, 40])
                append(self.redis, self.appended + 1, self.appended + count)
                self.appended += count
            case 2 | 3:
                self._hold(name, await reader.read(reader.allowance([STREAM])))
            case 4 | 5 if held:
                count = self.random.randint(1, len(held))
                done = sorted(self.random.sample(held, count), key=lambda one: int(one[:-2]))
                if self.random.random() < 0.5:
                    done = held[:count]
                self.finished.update(done)
                await reader.acknowledge(STREAM, done)
                self.held[name] = [one for one in held if one not in done]
            case 6:
                async for entries in reader.claim_idle(STREAM, 0):
                    self._hold(name, entries)
            case 7 if self.appended:
                await self.disturb(name)

    async def disturb(self, name: str) -> None:
        if self.random.random() < 0.5:
            deleted = of(self.random.randint(1, self.appended))
            self.redis.client.xdel(STREAM, *deleted)
            return
        await self.start(name)  # it was killed
        async for entries in self.members[name].unfinished([STREAM]):
            self._hold(name, entries)

    def existing(self) -> set[str]:
        return {entry_id.decode() for entry_id, _ in self.redis.client.xrange(STREAM)}

    async def check(self) -> None:
        found = await find_skipped(self.connected.connection, STREAM)
        assert found.committed is not None
        committed = int(found.committed.split("-")[0])
        passed = {one for one in self.existing() if int(one[:-2]) <= committed}
        assert passed <= self.finished
        missing = self.existing() & self.foul
        assert found.entries == len(missing)
        for one in found.ranges:
            first, last = int(one.first[:-2]), int(one.last[:-2])
            assert sum(first <= int(i[:-2]) <= last for i in missing) == one.entries


@pytest.mark.parametrize("seed", range(8))
@ensureDeferred
async def test_random_processing_skips_nothing_and_manual_skips_are_found(
    redis: RedisServer, connected: Connected, seed: int
) -> None:
    model = Model(redis, connected, seed)
    for name in ("one", "two", "three"):
        await model.start(name)
    for _ in range(60):
        await model.step()
        await model.check()
    if seed % 2:
        pending = redis.client.xpending_range(STREAM, PROCESSOR_GROUP, "-", "+", 1000)
        hit = [one["message_id"].decode() for one in pending[:: model.random.randint(2, 5)]]
        if hit:
            redis.client.xack(STREAM, PROCESSOR_GROUP, *hit)
            model.foul = set(hit) - model.finished
            for held in model.held.values():
                held[:] = [one for one in held if one not in hit]
    for _ in range(30):
        await model.step()
        model.foul -= model.finished
        await model.check()
    one = model.members["one"]
    async for entries in one.claim_idle(STREAM, 0):
        await one.acknowledge(STREAM, [entry.id for entry in entries])
    while done := await read(one):
        await one.acknowledge(STREAM, done)
    await advance_checkpoint(connected.connection, STREAM)
    assert redis.client.xpending(STREAM, PROCESSOR_GROUP)["pending"] == 0
    found = await find_skipped(connected.connection, STREAM)
    assert found.entries == len(model.existing() & model.foul)
    if not model.foul:
        assert len(runs(redis)) == 1
        assert runs(redis)[0][1] >= max(int(one[:-2]) for one in model.existing())


@ensureDeferred
async def test_checkpoint_of_a_missing_group_is_not_created(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 1, 3)
    assert not await create_checkpoint(connected.connection, STREAM)
    assert not redis.client.exists(KEY)
