"""Dead letters on a real server: append, read, retry and drop."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.conftest import Connected
from tests.integration.poison import LAST_ID, position
from tests.servers import REDIS_70, VALKEY, RedisServer
from tracker.log.entries import StreamEntry
from tracker.log.redis.dead import RetryResult, append_dead, drop_dead, read_dead, retry_dead
from tracker.processing.decoding import stored_position

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

STREAM = "telemetry:teltonika"
DEAD = "telemetry:teltonika:dead"

#: An entry with repeated fields, fields named like the added ones, and bytes that are not UTF-8.
ODD = [b"payload", b"\xff\x00", b"_id", b"mine", b"_reason", b"mine", b"payload", b"again"]

#: The entry of a position.
POSITION = [part.encode() for field in position(1).items() for part in field]

#: Field that a retry adds to an entry that was appended in the first second of 1970.
FIRST_ARRIVAL = [b"extra", b'{"arrived":"1970-01-01T00:00:00.001Z"}']


def content(redis: RedisServer, stream: str) -> list[list[bytes]]:
    """Return the alternating names and values of each entry."""
    reply = redis.client.execute_command("EVAL", "return redis.call('XRANGE', KEYS[1], '-', '+')",
                                         1, stream)  # fmt: skip
    return [fields for _, fields in reply]


@ensureDeferred
async def test_dead_letter_keeps_the_entry_with_reason_and_attempts(
    redis: RedisServer, connected: Connected
) -> None:
    await append_dead(
        connected.connection, StreamEntry(STREAM, "1-2", [b"codec", b"8"]), "no payload", 3
    )
    ((_, fields),) = redis.client.xrange(DEAD)
    assert fields == {
        b"_id": b"1-2",
        b"_stream": STREAM.encode(),
        b"_reason": b"no payload",
        b"_attempts": b"3",
        b"codec": b"8",
    }
    (letter,) = await read_dead(connected.connection, STREAM)
    assert (letter.original_id, letter.reason, letter.attempts) == ("1-2", "no payload", 3)
    assert letter.fields == [("codec", "8")]


@ensureDeferred
async def test_retry_appends_the_entry_with_its_first_arrival(
    redis: RedisServer, connected: Connected
) -> None:
    await append_dead(connected.connection, StreamEntry(STREAM, "1-2", ODD), "odd", 1)
    (letter,) = await read_dead(connected.connection, STREAM)
    assert list(letter.content) == ODD
    assert letter.fields[0] == ("payload", "\\xff\x00")
    assert await retry_dead(connected.connection, STREAM, [letter.id]) == RetryResult(1)
    assert content(redis, STREAM) == [[*ODD, *FIRST_ARRIVAL]]
    assert redis.client.xlen(DEAD) == 0


@ensureDeferred
async def test_second_retry_keeps_the_first_arrival(
    redis: RedisServer, connected: Connected
) -> None:
    entry = StreamEntry(STREAM, "1795341600000-0", POSITION)
    await append_dead(connected.connection, entry, "refused", 1)
    (letter,) = await read_dead(connected.connection, STREAM)
    assert list(letter.content) == POSITION
    for _ in range(2):
        (letter,) = await read_dead(connected.connection, STREAM)
        await retry_dead(connected.connection, STREAM, [letter.id])
        (fields,) = content(redis, STREAM)
        retried = StreamEntry(STREAM, redis.client.xrange(STREAM)[0][0].decode(), fields)
        assert stored_position(retried, "teltonika").received_at == "2026-11-22T10:00:00.000Z"
        assert retried.appended_at > "2026-11-22T10:00:00.000Z"
        await append_dead(connected.connection, retried, "refused", 1)
        redis.client.delete(STREAM)


@ensureDeferred
async def test_arrival_is_not_after_the_dead_letter(
    redis: RedisServer, connected: Connected
) -> None:
    entry = StreamEntry(STREAM, LAST_ID, POSITION)
    await append_dead(connected.connection, entry, "refused", 1)
    (letter,) = await read_dead(connected.connection, STREAM)
    await retry_dead(connected.connection, STREAM, [letter.id])
    arrived = StreamEntry(DEAD, letter.id, None).appended_at
    assert content(redis, STREAM)[0][-2:] == [b"extra", b'{"arrived":"%s"}' % arrived.encode()]


@ensureDeferred
async def test_retry_moves_only_the_given_entries(redis: RedisServer, connected: Connected) -> None:
    for number in range(3):
        await append_dead(
            connected.connection,
            StreamEntry(STREAM, f"1-{number}", [b"n", b"%d" % number]),
            "odd",
            1,
        )
    letters = await read_dead(connected.connection, STREAM)
    moved = await retry_dead(connected.connection, STREAM, ["5-5", letters[1].id, letters[1].id])
    assert moved == RetryResult(1)
    assert content(redis, STREAM) == [[b"n", b"1", *FIRST_ARRIVAL]]
    left = await read_dead(connected.connection, STREAM)
    assert [letter.original_id for letter in left] == ["1-0", "1-2"]


@ensureDeferred
async def test_entry_that_cannot_be_appended_stays_a_dead_letter(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.set(STREAM, "not a stream")
    await append_dead(connected.connection, StreamEntry(STREAM, "1-2", ODD), "odd", 1)
    (letter,) = await read_dead(connected.connection, STREAM)
    retried = await retry_dead(connected.connection, STREAM, [letter.id])
    assert retried.moved == 0
    assert retried.failed[letter.id].startswith("WRONGTYPE")
    assert [one.content for one in await read_dead(connected.connection, STREAM)] == [ODD]


@ensureDeferred
async def test_dead_letters_without_added_fields_can_be_retried(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.xadd(DEAD, {"_id": "1-2", "_reason": "old", "codec": "8"})
    redis.client.xadd(DEAD, {"codec": "7"})
    redis.client.xadd(DEAD, {"_id": "nothing else"})
    letters = await read_dead(connected.connection, STREAM)
    assert [(letter.original_id, letter.attempts) for letter in letters] == [
        ("1-2", None),
        ("", None),
        ("nothing else", None),
    ]
    retried = await retry_dead(connected.connection, STREAM, [one.id for one in letters])
    assert (retried.moved, list(retried.failed)) == (2, [letters[2].id])
    first, second = content(redis, STREAM)
    assert first == [b"codec", b"8", *FIRST_ARRIVAL]
    arrived = StreamEntry(DEAD, letters[1].id, None).appended_at
    assert second == [b"codec", b"7", b"extra", b'{"arrived":"%s"}' % arrived.encode()]
    assert content(redis, DEAD) == [[b"_id", b"nothing else"]]


@ensureDeferred
async def test_dead_letter_of_many_fields_is_retried_with_the_others(
    redis: RedisServer, connected: Connected
) -> None:
    wide = [part for number in range(9000) for part in (b"n%d" % number, b"v")]
    for content_ in ([b"n", b"1"], wide, [b"n", b"2"]):
        await append_dead(connected.connection, StreamEntry(STREAM, "1-2", content_), "odd", 1)
    letters = await read_dead(connected.connection, STREAM)
    retried = await retry_dead(connected.connection, STREAM, [one.id for one in letters])
    assert retried == RetryResult(3)
    expected = [[*one, *FIRST_ARRIVAL] for one in ([b"n", b"1"], wide, [b"n", b"2"])]
    assert sorted(content(redis, STREAM)) == sorted(expected)
    assert redis.client.xlen(DEAD) == 0


@ensureDeferred
async def test_malformed_number_of_attempts_is_unknown(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.xadd(DEAD, {"_id": "1-2", "_attempts": "9" * 5000, "codec": "8"})
    (letter,) = await read_dead(connected.connection, STREAM)
    assert letter.attempts is None


@ensureDeferred
async def test_dead_letters_are_read_in_pages(redis: RedisServer, connected: Connected) -> None:
    for number in range(5):
        await append_dead(
            connected.connection, StreamEntry(STREAM, f"1-{number}", [b"n", b"1"]), "odd", 1
        )
    read: list[str] = []
    first = "-"
    while page := await read_dead(connected.connection, STREAM, first, count=2):
        assert len(page) <= 2
        read += [letter.original_id for letter in page]
        first = f"({page[-1].id}"
    assert read == [f"1-{number}" for number in range(5)]


@ensureDeferred
async def test_dropped_dead_letters_are_deleted(redis: RedisServer, connected: Connected) -> None:
    for number in range(3):
        await append_dead(
            connected.connection, StreamEntry(STREAM, f"1-{number}", [b"n", b"1"]), "odd", 1
        )
    letters = await read_dead(connected.connection, STREAM)
    assert await drop_dead(connected.connection, STREAM, [letters[0].id, "9-9"]) == 1
    left = await read_dead(connected.connection, STREAM)
    assert [letter.original_id for letter in left] == ["1-1", "1-2"]
    assert not redis.client.exists(STREAM)
