"""Reading streams in bounded pieces."""

from __future__ import annotations

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tracker.log.redis.allowance import Allowance, size_of
from tracker.log.redis.groups import (
    FIRST,
    Delivered,
    claim_idle,
    read_new,
    read_pending,
    read_range,
)

STREAM, OTHER, GROUP = "one", "two", "group"
MIB = 1 << 20
#: An entry of 192 KB, which is as long as messages of devices get.
LONG = {"payload": b"x" * 192_000}
SHORT = {"payload": b"x"}


def make(redis: RedisServer, stream: str, *entries: dict[str, bytes]) -> list[str]:
    """A stream with a group that has read nothing; the IDs of its entries."""
    redis.client.xgroup_create(stream, GROUP, "0", mkstream=True)
    pipeline = redis.client.pipeline(transaction=False)
    for number, entry in enumerate(entries, 1):
        pipeline.xadd(stream, entry, id=f"{number}-0")
    return [entry_id.decode() for entry_id in pipeline.execute()]


def ids(entries: list[Delivered], stream: str = STREAM) -> list[str]:
    return [entry.id for entry in entries if entry.stream == stream]


def length(entries: list[Delivered]) -> int:
    return size_of([entry.content for entry in entries])


@ensureDeferred
async def test_new_entries_are_read_up_to_the_bytes(
    redis: RedisServer, connected: Connected
) -> None:
    made = make(redis, STREAM, *[LONG] * 200)
    where = (connected.connection, GROUP, "me")
    allowance = Allowance([STREAM], 1000, 16 * MIB)
    entries = await read_new(*where, allowance)
    assert 16 * MIB <= length(entries) < 17 * MIB
    assert ids(entries) == made[: len(entries)]
    assert await read_new(*where, allowance) == []
    assert redis.client.xpending(STREAM, GROUP)["pending"] == len(entries)
    rest = await read_new(*where, Allowance([STREAM], 1000, 100 * MIB))
    assert ids(entries + rest) == made


@ensureDeferred
async def test_new_entries_are_read_up_to_their_number(
    redis: RedisServer, connected: Connected
) -> None:
    made = make(redis, STREAM, *[SHORT] * 300)
    allowance = Allowance([STREAM], 200)
    assert ids(await read_new(connected.connection, GROUP, "me", allowance)) == made[:200]


@ensureDeferred
async def test_a_stream_of_long_entries_leaves_another_one_its_share(
    redis: RedisServer, connected: Connected
) -> None:
    make(redis, STREAM, *[LONG] * 200)
    short = make(redis, OTHER, *[SHORT] * 1000)
    allowance = Allowance([STREAM, OTHER], 1000, 16 * MIB)
    entries = await read_new(connected.connection, GROUP, "me", allowance, 1000)
    assert ids(entries, OTHER) == short
    assert length(entries) < 17 * MIB


@ensureDeferred
async def test_pending_entries_are_read_up_to_the_bytes_and_from_there_on(
    redis: RedisServer, connected: Connected
) -> None:
    made = make(redis, STREAM, *[LONG] * 120, *[SHORT] * 200)
    redis.client.xreadgroup(GROUP, "me", {STREAM: ">"}, count=1000)
    redis.client.xdel(STREAM, made[0])
    after, found = {STREAM: "0"}, list[str]()
    while entries := await read_pending(
        connected.connection, GROUP, "me", after, Allowance(after, 1000, 16 * MIB)
    ):
        assert length(entries) < 17 * MIB
        assert all((entry.content is None) == (entry.id == made[0]) for entry in entries)
        found += ids(entries)
        after = {STREAM: entries[-1].id}
    assert found == made


@ensureDeferred
async def test_idle_entries_are_claimed_up_to_the_bytes_and_from_there_on(
    redis: RedisServer, connected: Connected
) -> None:
    made = make(redis, STREAM, *[LONG] * 120, *[SHORT] * 200)
    redis.client.xreadgroup(GROUP, "gone", {STREAM: ">"}, count=1000)
    redis.client.xdel(STREAM, made[1])
    found, cursor, calls = list[Delivered](), FIRST, 0
    while not calls or cursor != FIRST:
        allowance = Allowance([STREAM], 1000, 16 * MIB)
        where = (connected.connection, GROUP, "me", 0, STREAM)
        entries, cursor = await claim_idle(*where, cursor, allowance)
        assert length(entries) < 17 * MIB
        found += entries
        calls += 1
    assert sorted(ids(found), key=made.index) == made
    assert [entry.id for entry in found if entry.content is None] == [made[1]]
    (consumer,) = [
        one for one in redis.client.xinfo_consumers(STREAM, GROUP) if one["name"] == b"me"
    ]
    assert consumer["pending"] == len(made) - 1


@ensureDeferred
async def test_an_idle_entry_behind_many_that_are_not_is_claimed(
    redis: RedisServer, connected: Connected
) -> None:
    made = make(redis, STREAM, *[SHORT] * 3000)
    redis.client.xreadgroup(GROUP, "busy", {STREAM: ">"}, count=2999)
    redis.client.xreadgroup(GROUP, "gone", {STREAM: ">"})
    hour_ms = 3_600_000
    redis.client.xclaim(STREAM, GROUP, "gone", 0, made[-1:], idle=hour_ms)
    # One call of Redis looks at ten pending entries for each one that it may return.
    where = (connected.connection, GROUP, "me", hour_ms, STREAM, FIRST)
    assert ids((await claim_idle(*where, Allowance([STREAM], 10)))[0]) == made[-1:]


@ensureDeferred
async def test_a_range_is_read_up_to_the_bytes_in_either_direction(
    redis: RedisServer, connected: Connected
) -> None:
    made = make(redis, STREAM, *[SHORT] * 100, *[LONG] * 100, *[SHORT] * 100)
    oldest = await read_range(connected.connection, STREAM, "-", "+", 300)
    newest = await read_range(connected.connection, STREAM, "-", "+", 300, newest=True)
    assert ids(oldest) == made[: len(oldest)]
    assert ids(newest) == made[::-1][: len(newest)]
    for entries in (oldest, newest):
        assert 16 * MIB <= length(entries) < 17 * MIB
    between = await read_range(connected.connection, STREAM, f"({made[0]}", made[3], 300)
    assert ids(between) == made[1:4]


@ensureDeferred
async def test_a_blocking_read_returns_the_first_entry_that_comes(
    redis: RedisServer, connected: Connected
) -> None:
    make(redis, STREAM)
    make(redis, OTHER)
    allowance = Allowance([STREAM, OTHER], 10)
    reading = Deferred.fromCoroutine(read_new(connected.connection, GROUP, "me", allowance, 5000))
    redis.client.xadd(OTHER, SHORT)
    assert [entry.stream for entry in await reading] == [OTHER]
