"""Consumers of real streams, and the entries they acknowledge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.integration.processing.processors import (
    STREAM,
    Processing,
    append,
    lag,
    pending,
    stored_times,
)
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.processing.consumer import BatchOptions


@ensureDeferred
async def test_invalid_entry_becomes_an_unchanged_dead_letter(redis: RedisServer) -> None:
    append(redis, 1)
    bad = redis.client.xadd(STREAM, {"codec": "8E", "payload": "{}", "other": "kept"})
    redis.client.xadd(STREAM, {"nothing": "of the kind"})
    append(redis, 1, start=1)
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    await processing.stop()
    assert sum(len(batch.positions) for batch in sink.batches) == 2
    dead = [fields for _, fields in redis.client.xrange(f"{STREAM}:dead")]
    assert len(dead) == 2
    assert dead[0][b"_id"] == bad
    assert b"attributes" in dead[0][b"_reason"]
    assert dead[0][b"other"] == b"kept"
    assert dead[0][b"_attempts"] == b"1"
    assert b"codec" in dead[1][b"_reason"]


@ensureDeferred
async def test_positions_refused_by_the_sink_become_dead_letters(redis: RedisServer) -> None:
    append(redis, 100)
    refused = {f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z" for number in (0, 63, 99)}
    sink = FakeSink(refused=set(refused))
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    await processing.stop()
    stored = [row.position.timestamp for batch in sink.batches for row in batch.positions]
    assert len(stored) == len(set(stored)) == 97
    assert not refused & set(stored)
    dead = [fields for _, fields in redis.client.xrange(f"{STREAM}:dead")]
    assert {fields[b"ts"].decode() for fields in dead} == refused
    assert all(b"no room for" in fields[b"_reason"] for fields in dead)


@ensureDeferred
async def test_refusal_after_an_outage_ends_the_outage(redis: RedisServer) -> None:
    append(redis, 2)
    failures: list[Exception] = [RuntimeError("not now")]
    sink = FakeSink(failures=failures, refused={"2026-11-22T10:00:01.000Z"})
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    assert processing.health.ready
    await processing.stop()
    assert redis.client.xlen(f"{STREAM}:dead") == 1


@ensureDeferred
async def test_entries_appended_one_by_one_are_stored_in_large_batches(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink, options=BatchOptions(batch_size=50, batch_delay=0.5))
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 120)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    sizes = [len(batch.positions) for batch in sink.batches]
    assert max(sizes) <= 100  # a read, filled up by a second one
    assert len(sizes) <= 5
    assert len(stored_times(sink)) == 120


@ensureDeferred
async def test_next_batch_is_read_during_a_commit(redis: RedisServer) -> None:
    sink = FakeSink(busy=Deferred())
    processing = Processing(redis, sink, options=BatchOptions(batch_size=10, batch_delay=0))
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 100)
    await until(lambda: pending(redis) > 10, "read ahead")
    assert pending(redis) <= 30
    assert not sink.batches
    assert sink.busy is not None
    busy, sink.busy = sink.busy, None
    busy.callback(None)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    assert len(stored_times(sink)) == 100


@ensureDeferred
async def test_stop_leaves_entries_read_ahead_pending(redis: RedisServer) -> None:
    append(redis, 100)
    sink = FakeSink(busy=Deferred())
    options = BatchOptions(batch_size=10, batch_delay=0)
    processing = Processing(redis, sink, options=options)
    await until(lambda: pending(redis) > 10, "read ahead")
    stopped = Deferred.fromCoroutine(processing.stop())
    assert sink.busy is not None
    sink.busy.callback(None)
    await stopped
    again = FakeSink()
    processing = Processing(redis, again, options=options)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    times = stored_times(sink, again)
    assert len(times) == len(set(times)) == 100


# Unread streams.


def set_heartbeat(redis: RedisServer, *streams: str) -> None:
    redis.client.set("instance:heartbeat:one", json.dumps({"streams": streams}), ex=90)


@ensureDeferred
async def test_advertised_stream_without_a_processor_is_reported(redis: RedisServer) -> None:
    set_heartbeat(redis, STREAM, "positions:teltonika")
    redis.client.set("instance:heartbeat:odd", "no json")
    processing = Processing(redis, FakeSink())
    await until(lambda: "streams" in processing.health.reasons, "reported")
    reason = processing.health.reasons["streams"]
    assert reason == "streams that no processor reads: positions:teltonika (written by one)"
    await processing.stop()


@ensureDeferred
async def test_stream_name_with_a_key_of_another_type_does_not_block_others(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.processing.joining.CHECK_INTERVAL", 0.1)
    monkeypatch.setattr("tracker.processing.reading.READ_WAIT", 0.1)
    redis.client.set("telemetry:wrong", "text")
    append(redis, 3)
    sink = FakeSink()
    processing = Processing(redis, sink, streams=(STREAM, "telemetry:wrong"))
    await until(lambda: lag(redis) == 0, "the other stream is processed")
    await until(
        lambda: "telemetry:wrong" in processing.health.reasons.get("consumer", ""), "reported"
    )
    redis.client.delete("telemetry:wrong")
    await until(lambda: processing.health.ready, "the key is a stream again")
    append(redis, 2, start=3)
    await until(lambda: lag(redis) == 0, "processed")
    await processing.stop()
    assert sum(len(batch.positions) for batch in sink.batches) == 5


@ensureDeferred
async def test_entry_id_that_is_not_a_time_does_not_block_others(
    redis: RedisServer, tmp_path: Path
) -> None:
    append(redis, 1)
    ((_, fields),) = redis.client.xrange(STREAM)
    redis.client.xadd(STREAM, fields, id="1700000000000000-1")  # microseconds
    redis.client.xadd(STREAM, fields, id="18446744073709551615-1")
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    received = [stored.received_at for batch in sink.batches for stored in batch.positions]
    assert len(received) == 3
    assert not processing.aborted
    await processing.stop()


def raw_content(redis: RedisServer, stream: str) -> list[bytes]:
    """Return the alternating names and values of the only entry of a stream."""
    connection = redis.client.connection_pool.get_connection("XRANGE")
    try:
        connection.send_command("XRANGE", stream, "-", "+")
        ((_, content),) = connection.read_response()
        return list(content)
    finally:
        redis.client.connection_pool.release(connection)


@ensureDeferred
async def test_repeated_field_is_kept_in_a_dead_letter(redis: RedisServer) -> None:
    redis.client.execute_command("XADD", STREAM, "*", "a", "1", "a", "2")
    processing = Processing(redis, FakeSink())
    await until(lambda: redis.client.exists(f"{STREAM}:dead"), "moved to dead letters")
    await processing.stop()
    assert raw_content(redis, f"{STREAM}:dead")[-4:] == [b"a", b"1", b"a", b"2"]
