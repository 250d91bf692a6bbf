"""Trimming of streams on a real server."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.conftest import Connected
from tests.servers import REDIS_70, VALKEY, RedisServer
from tracker.errors import Refused
from tracker.log.redis.checkpoint import create_checkpoint, record_finished
from tracker.log.redis.trim import TrimResult, remove_idle_consumers, trim, trim_dead
from tracker.redis.connection import RedisConnection

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

STREAM = "telemetry:teltonika"
HOUR = 3600.0


@pytest.fixture
def redis(redis: RedisServer) -> RedisServer:
    """Return a server that removes single entries even with ``~``."""
    redis.client.config_set("stream-node-max-entries", 1)
    return redis


def append(redis: RedisServer, *ages: float, size: int = 1, stream: str = STREAM) -> list[str]:
    """Append entries with these ages in seconds, oldest first; return their IDs."""
    ids = [f"{int((time.time() - age) * 1000)}-{number}" for number, age in enumerate(ages)]
    for entry_id in ids:
        redis.client.xadd(stream, {"payload": "x" * size}, id=entry_id)
    return ids


def ids(redis: RedisServer, stream: str = STREAM) -> list[str]:
    return [entry_id.decode() for entry_id, _ in redis.client.xrange(stream)]


def read(redis: RedisServer, count: int, group: str = "processor") -> list[str]:
    entries: Any = redis.client.xreadgroup(group, "one", {STREAM: ">"}, count=count)
    return [entry_id.decode() for entry_id, _ in entries[0][1]] if entries else []


def finish(redis: RedisServer, count: int, group: str = "processor") -> None:
    if done := read(redis, count, group):
        redis.client.xack(STREAM, group, *done)


async def trim_all(
    redis: RedisConnection, retain: float | None, retain_bytes: int | None = None
) -> TrimResult:
    """Trim until a call removes nothing; return the last result."""
    while True:
        done = await trim(redis, STREAM, retain, retain_bytes)
        assert done is not None
        if not done.removed:
            return done


@ensureDeferred
async def test_entries_after_the_checkpoint_are_kept(
    redis: RedisServer, connected: Connected
) -> None:
    appended = append(redis, 5 * HOUR, 4 * HOUR, 3 * HOUR, 2 * HOUR)
    redis.client.xgroup_create(STREAM, "processor", "0")
    await create_checkpoint(connected.connection, STREAM)
    finish(redis, 4)
    await record_finished(connected.connection, STREAM, [(appended[0], appended[0])])
    done = await trim_all(connected.connection, HOUR)
    assert (done.exceeded, done.floor, done.skipped) == ("age", appended[1], True)
    assert ids(redis) == appended[1:]
    done = await trim_all(connected.connection, None, 1)
    assert (done.exceeded, done.skipped) == ("bytes", True)
    assert ids(redis) == appended[1:]
    await record_finished(connected.connection, STREAM, [(appended[1], appended[2])])
    done = await trim_all(connected.connection, HOUR)
    assert (done.floor, ids(redis)) == (appended[3], appended[3:])
    await record_finished(connected.connection, STREAM, [(appended[3], appended[3])])
    done = await trim_all(connected.connection, HOUR)
    assert (done.exceeded, done.floor, done.skipped, ids(redis)) == ("", "", False, [])


@ensureDeferred
async def test_unfinished_entry_before_a_skipped_one_is_named_first(
    redis: RedisServer, connected: Connected
) -> None:
    appended = append(redis, 5 * HOUR, 4 * HOUR, 3 * HOUR)
    redis.client.xgroup_create(STREAM, "processor", "0")
    await create_checkpoint(connected.connection, STREAM)
    read(redis, 3)
    redis.client.xack(STREAM, "processor", appended[1])
    done = await trim_all(connected.connection, HOUR)
    assert (done.group, done.floor, done.skipped) == ("processor", appended[0], False)


@ensureDeferred
async def test_trim_does_not_create_a_missing_stream(
    redis: RedisServer, connected: Connected
) -> None:
    assert await trim(connected.connection, STREAM, 1, 1) is None
    assert not redis.client.exists(STREAM)


@ensureDeferred
async def test_trim_of_a_key_of_another_type_is_refused(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.set(STREAM, "text")
    with pytest.raises(Refused, match="WRONGTYPE"):
        await trim(connected.connection, STREAM, 1, 1)


@ensureDeferred
async def test_old_finished_entries_are_removed(redis: RedisServer, connected: Connected) -> None:
    appended = append(redis, 5 * HOUR, 4 * HOUR, 2 * HOUR, HOUR)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finish(redis, 4)
    done = await trim(connected.connection, STREAM, 3 * HOUR, None)
    assert done is not None
    assert (done.removed, done.exceeded, done.entries) == (2, "", 2)
    assert ids(redis) == appended[2:]
    done = await trim_all(connected.connection, 0)
    assert (done.exceeded, done.floor, done.group) == ("", "", "")
    assert redis.client.exists(STREAM)
    assert redis.client.xinfo_groups(STREAM)[0]["name"] == b"processor"


@ensureDeferred
async def test_stream_without_a_limit_is_kept(redis: RedisServer, connected: Connected) -> None:
    appended = append(redis, 5 * HOUR, HOUR)
    redis.client.xgroup_create(STREAM, "processor", "$")
    done = await trim_all(connected.connection, None)
    assert done.exceeded == ""
    assert ids(redis) == appended


@ensureDeferred
@pytest.mark.parametrize("limits", [(HOUR, None), (None, 1), (HOUR, 1)])
async def test_stream_without_a_group_is_kept(
    redis: RedisServer, connected: Connected, limits: tuple[float | None, int | None]
) -> None:
    appended = append(redis, 5 * HOUR, 4 * HOUR)
    done = await trim_all(connected.connection, *limits)
    assert done.exceeded == ("bytes" if limits[0] is None else "age")
    assert (done.groups, done.group) == (0, "")
    assert ids(redis) == appended


@ensureDeferred
async def test_unread_entries_are_kept_and_reported(
    redis: RedisServer, connected: Connected
) -> None:
    appended = append(redis, 5 * HOUR, 4 * HOUR, 3 * HOUR, HOUR)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xgroup_create(STREAM, "other", "0")
    finish(redis, 4)
    finish(redis, 1, "other")
    done = await trim_all(connected.connection, 2 * HOUR)
    assert (done.exceeded, done.group, done.floor) == ("age", "other", appended[1])
    assert ids(redis) == appended[1:]
    finish(redis, 2, "other")
    done = await trim_all(connected.connection, 2 * HOUR)
    assert (done.exceeded, done.group, done.floor) == ("", "other", appended[3])
    assert ids(redis) == appended[3:]


@ensureDeferred
async def test_pending_entries_are_kept(redis: RedisServer, connected: Connected) -> None:
    appended = append(redis, 5 * HOUR, 4 * HOUR, 3 * HOUR)
    redis.client.xgroup_create(STREAM, "processor", "0")
    read(redis, 3)
    redis.client.xack(STREAM, "processor", appended[0], appended[2])
    done = await trim_all(connected.connection, HOUR)
    assert (done.exceeded, done.floor) == ("age", appended[1])
    assert ids(redis) == appended[1:]


@ensureDeferred
async def test_entries_for_a_group_that_was_set_back_are_kept(
    redis: RedisServer, connected: Connected
) -> None:
    appended = append(redis, 5 * HOUR, 4 * HOUR, 3 * HOUR)
    redis.client.xgroup_create(STREAM, "processor", "0")
    read(redis, 3)
    redis.client.xack(STREAM, "processor", appended[0], appended[1])
    redis.client.xgroup_setid(STREAM, "processor", appended[0])
    await trim_all(connected.connection, HOUR)
    assert ids(redis) == appended[1:]


@ensureDeferred
async def test_oldest_entries_beyond_the_limit_of_bytes_are_removed(
    redis: RedisServer, connected: Connected
) -> None:
    appended = append(redis, *[HOUR] * 1000, size=2000)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finish(redis, 1000)
    done = await trim_all(connected.connection, None, 1_000_000)
    assert done.exceeded == ""
    assert redis.client.memory_usage(STREAM, samples=0) <= 1_000_000
    left = ids(redis)
    assert left == appended[-len(left) :]
    assert 300 < len(left) < 500


@ensureDeferred
async def test_unfinished_entries_beyond_the_limit_of_bytes_are_kept_and_reported(
    redis: RedisServer, connected: Connected
) -> None:
    appended = append(redis, *[HOUR] * 1000, size=2000)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finish(redis, 100)
    done = await trim_all(connected.connection, None, 1_000_000)
    assert (done.exceeded, done.group, done.floor) == ("bytes", "processor", appended[100])
    assert done.bytes > 1_000_000
    assert ids(redis) == appended[100:]


@ensureDeferred
async def test_one_call_removes_a_limited_number_of_entries(
    redis: RedisServer, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.log.redis.trim.BATCH", 10)
    append(redis, *[HOUR] * 25)
    redis.client.xgroup_create(STREAM, "processor", "$")
    removed = []
    for _ in range(4):
        done = await trim(connected.connection, STREAM, 60, None)
        assert done is not None
        removed.append(done.removed)
    assert removed == [10, 10, 5, 0]


@ensureDeferred
async def test_entry_ids_of_different_lengths_are_ordered_by_value(
    redis: RedisServer, connected: Connected
) -> None:
    appended = ["9-9", "9-10", "10-1", "999-5", "1000-0"]
    for entry_id in appended:
        redis.client.xadd(STREAM, {"a": "b"}, id=entry_id)
    redis.client.xgroup_create(STREAM, "processor", "9-9")
    redis.client.xgroup_create(STREAM, "other", "999-5")
    done = await trim_all(connected.connection, HOUR)
    assert (done.floor, done.group) == ("9-10", "processor")
    assert ids(redis) == appended[1:]


@ensureDeferred
async def test_stream_that_ends_with_the_largest_id_is_trimmed(
    redis: RedisServer, connected: Connected
) -> None:
    last = "18446744073709551615-18446744073709551615"
    append(redis, 5 * HOUR)
    redis.client.xadd(STREAM, {"a": "b"}, id=last)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finish(redis, 2)
    done = await trim_all(connected.connection, HOUR)
    assert (done.exceeded, done.floor) == ("", "")
    assert ids(redis) == [last]


@ensureDeferred
async def test_dead_letters_are_trimmed_exactly_and_without_a_group(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.config_set("stream-node-max-entries", 100)
    dead = f"{STREAM}:dead"
    appended = append(redis, 50 * HOUR, 40 * HOUR, 20 * HOUR, stream=dead)
    done = await trim_dead(connected.connection, dead, 30 * HOUR)
    assert done is not None
    assert (done.removed, done.exceeded) == (2, "")
    assert ids(redis, dead) == appended[2:]


@ensureDeferred
async def test_dead_letters_unread_by_a_group_are_kept(
    redis: RedisServer, connected: Connected
) -> None:
    dead = f"{STREAM}:dead"
    appended = append(redis, 50 * HOUR, 40 * HOUR, stream=dead)
    redis.client.xgroup_create(dead, "people", appended[0])
    done = await trim_dead(connected.connection, dead, 30 * HOUR)
    assert done is not None
    assert (done.removed, done.exceeded, done.group) == (1, "age", "people")
    assert ids(redis, dead) == appended[1:]


@ensureDeferred
async def test_only_idle_consumers_without_pending_entries_are_removed(
    redis: RedisServer, connected: Connected
) -> None:
    assert await remove_idle_consumers(connected.connection, STREAM, "processor", 0) == []
    append(redis, HOUR, HOUR)
    for group in ("processor", "other"):
        redis.client.xgroup_create(STREAM, group, "0")
        redis.client.xgroup_createconsumer(STREAM, group, "gone")
    read(redis, 1)
    time.sleep(0.02)
    assert await remove_idle_consumers(connected.connection, STREAM, "processor", HOUR) == []
    assert await remove_idle_consumers(connected.connection, STREAM, "processor", 0) == ["gone"]
    names = [
        [consumer["name"] for consumer in redis.client.xinfo_consumers(STREAM, group)]
        for group in ("processor", "other")
    ]
    assert names == [[b"one"], [b"gone"]]
    assert redis.client.xpending(STREAM, "processor")["pending"] == 1


class Model:
    """Model of a stream and its groups; entries are numbered from 0."""

    STEP = 100  # seconds between two entries
    COUNT = 60  # maximum number of entries

    def __init__(self, redis: RedisServer, stream: str, choose: random.Random) -> None:
        self._client = redis.client
        self._stream = stream
        self._choose = choose
        self._start = int(time.time()) - self.STEP * self.COUNT
        self.present: list[int] = []
        self.appended = 0
        self.delivered: dict[str, int] = {}
        self.pending: dict[str, set[int]] = {}

    def id(self, number: int) -> str:
        return f"{(self._start + self.STEP * number) * 1000}-{number}"

    def act(self) -> None:
        """Perform a random action of a client."""
        name = self._choose.choice(["append"] * 5 + ["read"] * 4 + ["ack"] * 4 + [
            "create", "destroy", "set_back", "delete", "claim"])  # fmt: skip
        if name == "append":
            self._append()
        elif name == "create":
            self._create()
        elif self.delivered:
            getattr(self, f"_{name}")(self._choose.choice(sorted(self.delivered)))

    def unfinished(self) -> set[int]:
        """Return the entries that must never be removed."""
        undelivered = {
            number
            for number in self.present
            if any(number >= delivered for delivered in self.delivered.values())
        }
        return undelivered | set().union(*self.pending.values()) & set(self.present)

    def floor(self) -> int:
        """Return the first entry that some group has not finished, even if it was deleted."""
        pending = set().union(*self.pending.values())
        undelivered = {
            number
            for number in self.present
            if any(number >= delivered for delivered in self.delivered.values())
        }
        return min(pending | undelivered, default=self.appended)

    def trimmed(self, keep: float) -> list[int]:
        """Return the entries left after trimming those older than ``keep`` steps."""
        if not self.delivered:
            return self.present
        cut = min(self.COUNT - keep, self.floor())
        return [number for number in self.present if number >= cut]

    def read_back(self) -> list[int]:
        return [
            int(entry_id.partition(b"-")[2]) for entry_id, _ in self._client.xrange(self._stream)
        ]

    def _append(self) -> None:
        for _ in range(self._choose.randint(1, 4)):
            if self.appended < self.COUNT:
                self._client.xadd(self._stream, {"a": "b"}, id=self.id(self.appended))
                self.present.append(self.appended)
                self.appended += 1

    def _create(self) -> None:
        name = self._choose.choice("abc")
        if name not in self.delivered and self.appended:
            start = self._choose.randint(0, self.appended)
            after = "0" if start == 0 else self.id(start - 1)
            self._client.xgroup_create(self._stream, name, after)
            self.delivered[name] = start
            self.pending[name] = set()

    def _destroy(self, group: str) -> None:
        self._client.xgroup_destroy(self._stream, group)
        del self.delivered[group], self.pending[group]

    def _set_back(self, group: str) -> None:
        start = self._choose.randint(1, self.appended)
        self._client.xgroup_setid(self._stream, group, self.id(start - 1))
        self.delivered[group] = start

    def _read(self, group: str) -> None:
        count = self._choose.randint(1, 4)
        self._client.xreadgroup(group, self._choose.choice("xy"), {self._stream: ">"}, count=count)
        read = [number for number in self.present if number >= self.delivered[group]][:count]
        self.pending[group].update(read)
        if read:
            self.delivered[group] = read[-1] + 1

    def _ack(self, group: str) -> None:
        if self.pending[group]:
            some = self._choose.sample(
                sorted(self.pending[group]), self._choose.randint(1, len(self.pending[group]))
            )
            self._client.xack(self._stream, group, *map(self.id, some))
            self.pending[group].difference_update(some)

    def _claim(self, group: str) -> None:
        there = sorted(self.pending[group] & set(self.present))
        if there:
            self._client.xclaim(self._stream, group, "z", 0, [self.id(self._choose.choice(there))])

    def _delete(self, group: str) -> None:
        if self.present:
            number = self._choose.choice(self.present)
            self._client.xdel(self._stream, self.id(number))
            self.present.remove(number)


@ensureDeferred
@pytest.mark.parametrize("node", [1, 7])
async def test_random_trims_never_remove_unfinished_entries(
    redis: RedisServer, connected: Connected, node: int
) -> None:
    redis.client.config_set("stream-node-max-entries", node)
    trims = 0
    for seed in range(60):
        choose = random.Random(seed)
        stream = f"telemetry:{seed}"
        model = Model(redis, stream, choose)
        for _ in range(60):
            for _ in range(choose.randint(1, 8)):
                model.act()
            retain_bytes = choose.choice([None, None, 0, 2000])
            keep = choose.randint(0, model.COUNT) + 0.5
            done = await trim(connected.connection, stream, keep * model.STEP, retain_bytes)
            left = model.read_back()
            assert model.unfinished() <= set(left), seed
            assert left == model.present[len(model.present) - len(left) :], seed
            if not model.delivered:
                assert left == model.present, seed
            if node == 1 and retain_bytes is None and done is not None:
                assert left == model.trimmed(keep), seed
            if done is not None and model.delivered:
                held = retain_bytes is None and done.exceeded == "age"
                oldest = min(left, default=model.COUNT)
                assert not held or oldest < model.COUNT - keep, seed
            trims += len(model.present) - len(left)
            model.present = left
    assert trims > 500
