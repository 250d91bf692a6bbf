"""Reads of streams within limits, as a member of a group and in ranges."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.integration.conftest import Connected
from tests.servers import REDIS_70, VALKEY, RedisServer
from tests.waiting import until
from tracker.log.allowance import Allowance, size_of
from tracker.log.entries import StreamEntry
from tracker.log.interfaces import IRecordReader
from tracker.log.redis.ranges import read_range
from tracker.log.redis.reader import RedisReader

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

STREAM, OTHER, GROUP = "one", "two", "group"
MIB = 1 << 20
#: An entry of 192 KB, the maximum length of a device's message.
LONG = {"payload": b"x" * 192_000}
SHORT = {"payload": b"x"}


def make(redis: RedisServer, stream: str, *entries: dict[str, bytes]) -> list[str]:
    """Create a stream with an unread group; return the IDs of its entries."""
    redis.client.xgroup_create(stream, GROUP, "0", mkstream=True)
    pipeline = redis.client.pipeline(transaction=False)
    for number, entry in enumerate(entries, 1):
        pipeline.xadd(stream, entry, id=f"{number}-0")
    return [entry_id.decode() for entry_id in pipeline.execute()]


@pytest.fixture
def reader(connected: Connected) -> RedisReader:
    """Return a member with batches of at most 1,000 entries of each stream and 16 MiB."""
    connection = connected.connection
    return RedisReader(connection, connection, group=GROUP, name="me", entries=1000)


def test_redis_reader_provides_its_interface(reader: RedisReader) -> None:
    verifyObject(IRecordReader, reader)


@ensureDeferred
async def test_group_is_created_once(redis: RedisServer, reader: RedisReader) -> None:
    assert await reader.join(STREAM)
    assert not await reader.join(STREAM)
    (group,) = redis.client.xinfo_groups(STREAM)
    assert (group["name"], group["last-delivered-id"]) == (GROUP.encode(), b"0-0")


@ensureDeferred
@pytest.mark.parametrize(("after", "start"), [("1-0", 1), ("2-5", 2), ("3-0", 3), ("9-0", 0)])
async def test_new_group_starts_after_the_given_entry_if_the_stream_reaches_it(
    redis: RedisServer, reader: RedisReader, after: str, start: int
) -> None:
    for number in range(1, 4):
        redis.client.xadd(STREAM, SHORT, id=f"{number}-0")
    assert await reader.join(STREAM, after)
    entries = await reader.read(reader.allowance([STREAM]))
    assert ids(entries) == ["1-0", "2-0", "3-0"][start:]


@ensureDeferred
async def test_oldest_unfinished_entry_is_pending_or_undelivered(
    redis: RedisServer, reader: RedisReader
) -> None:
    first, second, third = make(redis, STREAM, *[SHORT] * 3)
    assert await reader.oldest_unfinished(STREAM) == first
    redis.client.xreadgroup(GROUP, "other", {STREAM: ">"}, count=2)
    await reader.acknowledge(STREAM, [first])
    assert await reader.oldest_unfinished(STREAM) == second
    await reader.acknowledge(STREAM, [second])
    assert await reader.oldest_unfinished(STREAM) == third
    await reader.read(reader.allowance([STREAM]))
    await reader.acknowledge(STREAM, [third])
    assert await reader.oldest_unfinished(STREAM) is None


@ensureDeferred
async def test_dead_letter_is_acknowledged_and_kept_with_its_attempts(
    redis: RedisServer, reader: RedisReader
) -> None:
    make(redis, STREAM, SHORT)
    (entry,) = await reader.read(reader.allowance([STREAM]))
    async for entries in reader.claim_idle(STREAM, 0):
        assert entries == [entry]
    await reader.dead_letter(entry, "no payload")
    assert redis.client.xpending(STREAM, GROUP)["pending"] == 0
    ((_, fields),) = redis.client.xrange(f"{STREAM}:dead")
    assert fields == {
        b"_id": b"1-0",
        b"_stream": STREAM.encode(),
        b"_reason": b"no payload",
        b"_attempts": b"2",
        b"payload": b"x",
    }


@pytest.mark.parametrize("way", ["read", "claim"])
@ensureDeferred
async def test_member_of_a_quiet_stream_is_seen_as_running(
    redis: RedisServer, reader: RedisReader, way: str
) -> None:
    async def ask() -> None:
        if way == "read":
            assert await reader.read(reader.allowance([STREAM]), wait=0.01) == []
        else:
            assert [entries async for entries in reader.claim_idle(STREAM, 60)] == []

    make(redis, STREAM)
    await ask()
    (member,) = redis.client.xinfo_consumers(STREAM, GROUP)
    assert (member["name"], member["pending"]) == (b"me", 0)

    def idle() -> int:
        return int(redis.client.xinfo_consumers(STREAM, GROUP)[0]["idle"])

    await until(lambda: idle() > 200, "the member is idle")
    await ask()
    assert idle() < 200


@ensureDeferred
async def test_kept_entry_is_not_claimed(redis: RedisServer, reader: RedisReader) -> None:
    one, two = make(redis, STREAM, *[SHORT] * 2)
    redis.client.xreadgroup(GROUP, "gone", {STREAM: ">"}, count=2)
    redis.client.xclaim(STREAM, GROUP, "gone", 0, [one, two], idle=60_000)
    await reader.keep(STREAM, [one])
    assert [ids(entries) async for entries in reader.claim_idle(STREAM, 30.0)] == [[two]]


def ids(entries: list[StreamEntry], stream: str = STREAM) -> list[str]:
    return [entry.id for entry in entries if entry.stream == stream]


def length(entries: list[StreamEntry]) -> int:
    return size_of([entry.content for entry in entries])


@ensureDeferred
async def test_new_entries_are_read_up_to_the_limit_of_bytes(
    redis: RedisServer, reader: RedisReader
) -> None:
    made = make(redis, STREAM, *[LONG] * 200)
    allowance = Allowance([STREAM], 1000, 16 * MIB)
    entries = await reader.read(allowance)
    assert 16 * MIB <= length(entries) < 17 * MIB
    assert ids(entries) == made[: len(entries)]
    assert await reader.read(allowance) == []
    assert redis.client.xpending(STREAM, GROUP)["pending"] == len(entries)
    rest = await reader.read(Allowance([STREAM], 1000, 100 * MIB))
    assert ids(entries + rest) == made


@ensureDeferred
async def test_new_entries_are_read_up_to_the_limit_of_entries(
    redis: RedisServer, reader: RedisReader
) -> None:
    made = make(redis, STREAM, *[SHORT] * 300)
    allowance = Allowance([STREAM], 200)
    assert ids(await reader.read(allowance)) == made[:200]


@ensureDeferred
async def test_long_entries_leave_other_streams_their_share(
    redis: RedisServer, reader: RedisReader
) -> None:
    make(redis, STREAM, *[LONG] * 200)
    short = make(redis, OTHER, *[SHORT] * 1000)
    entries = await reader.read(reader.allowance([STREAM, OTHER]), 1.0)
    assert ids(entries, OTHER) == short
    assert length(entries) < 17 * MIB


@ensureDeferred
async def test_pending_entries_are_read_in_batches_within_the_limit(
    redis: RedisServer, reader: RedisReader
) -> None:
    made = make(redis, STREAM, *[LONG] * 120, *[SHORT] * 200)
    redis.client.xreadgroup(GROUP, "me", {STREAM: ">"}, count=1000)
    redis.client.xdel(STREAM, made[0])
    found = list[str]()
    async for entries in reader.unfinished([STREAM]):
        assert length(entries) < 17 * MIB
        assert all((entry.content is None) == (entry.id == made[0]) for entry in entries)
        found += ids(entries)
    assert found == made


@ensureDeferred
async def test_idle_entries_are_claimed_in_batches_within_the_limit(
    redis: RedisServer, reader: RedisReader
) -> None:
    made = make(redis, STREAM, *[LONG] * 120, *[SHORT] * 200)
    redis.client.xreadgroup(GROUP, "gone", {STREAM: ">"}, count=1000)
    redis.client.xdel(STREAM, made[1])
    found = list[StreamEntry]()
    async for entries in reader.claim_idle(STREAM, 0):
        assert length(entries) < 17 * MIB
        found += entries
    assert sorted(ids(found), key=made.index) == made
    assert [entry.id for entry in found if entry.content is None] == [made[1]]
    (consumer,) = [
        one for one in redis.client.xinfo_consumers(STREAM, GROUP) if one["name"] == b"me"
    ]
    assert consumer["pending"] == len(made) - 1


@ensureDeferred
async def test_idle_entry_after_many_busy_ones_is_claimed(
    redis: RedisServer, connected: Connected
) -> None:
    connection = connected.connection
    few = RedisReader(connection, connection, group=GROUP, name="me", entries=10)
    made = make(redis, STREAM, *[SHORT] * 3000)
    redis.client.xreadgroup(GROUP, "busy", {STREAM: ">"}, count=2999)
    redis.client.xreadgroup(GROUP, "gone", {STREAM: ">"})
    hour_ms = 3_600_000
    redis.client.xclaim(STREAM, GROUP, "gone", 0, made[-1:], idle=hour_ms)
    # XAUTOCLAIM examines ten pending entries for each one that it may return.
    assert [ids(entries) async for entries in few.claim_idle(STREAM, 3600.0)] == [made[-1:]]


@ensureDeferred
async def test_range_is_read_up_to_the_limit_of_bytes_in_both_directions(
    redis: RedisServer, connected: Connected
) -> None:
    made = make(redis, STREAM, *[SHORT] * 100, *[LONG] * 100, *[SHORT] * 100)
    oldest = await read_range(connected.connection, STREAM, "-", "+", count=300)
    newest = await read_range(connected.connection, STREAM, "-", "+", count=300, newest=True)
    assert ids(oldest) == made[: len(oldest)]
    assert ids(newest) == made[::-1][: len(newest)]
    for entries in (oldest, newest):
        assert 16 * MIB <= length(entries) < 17 * MIB
    between = await read_range(connected.connection, STREAM, f"({made[0]}", made[3], count=300)
    assert ids(between) == made[1:4]


@ensureDeferred
async def test_waiting_read_returns_the_first_new_entry(
    redis: RedisServer, reader: RedisReader
) -> None:
    make(redis, STREAM)
    make(redis, OTHER)
    allowance = reader.allowance([STREAM, OTHER])
    reading = Deferred.fromCoroutine(reader.read(allowance, 5.0))
    redis.client.xadd(OTHER, SHORT)
    assert [entry.stream for entry in await reading] == [OTHER]
