"""Appends to a real stream."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.waiting import until
from tracker.ingestion.publisher import StreamPublisher
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition
from tracker.position import Entry

STREAM = "telemetry:teltonika"


def entries(count: int, device: str = "356307042441013") -> list[Entry]:
    return [Entry(f"t{number}", device, "8E", f'{{"n":{number}}}') for number in range(count)]


def publisher_on(connected: Connected, reports: list[str | None]) -> StreamPublisher:
    from twisted.internet import reactor

    publisher = StreamPublisher(
        reactor, RedisWriter(connected.connection, STREAM), Condition(reports.append)
    )
    publisher.startService()
    return publisher


@ensureDeferred
async def test_entry_has_a_fifth_field_only_with_extra_facts(
    connected: Connected, redis: RedisServer
) -> None:
    publisher = publisher_on(connected, [])
    first, second = entries(2)
    await publisher.publish([first, second._replace(extra='{"fix":false}')])
    stored = [fields for _, fields in redis.client.xrange(STREAM)]
    assert stored == [
        {b"ts": b"t0", b"device_id": b"356307042441013", b"codec": b"8E", b"payload": b'{"n":0}'},
        {
            b"ts": b"t1",
            b"device_id": b"356307042441013",
            b"codec": b"8E",
            b"payload": b'{"n":1}',
            b"extra": b'{"fix":false}',
        },
    ]


@ensureDeferred
async def test_entries_keep_their_order_and_fields_whatever_they_share(
    connected: Connected, redis: RedisServer
) -> None:
    publisher = publisher_on(connected, [])
    given = [
        Entry(f"t{number}", f"d{number}", codec, f'{{"n":{number}}}', extra)
        for number, (codec, extra) in enumerate(
            [("8", ""), ("8", ""), ("8", "{}"), ("8E", "{}"), ("8", "{}"), ("12", ""), ("8", "")]
        )
    ]
    await publisher.publish(given)
    stored = [
        Entry(*(fields.get(name, b"").decode() for name in map(str.encode, Entry._fields)))
        for _, fields in redis.client.xrange(STREAM)
    ]
    assert stored == given


@ensureDeferred
async def test_restart_of_redis_loses_no_confirmed_entry(
    connected: Connected, redis: RedisServer
) -> None:
    publisher = publisher_on(connected, [])
    await publisher.publish(entries(10))
    redis.kill()
    await until(lambda: not connected.connection.connected, "disconnected")
    waiting = publisher.publish(entries(5, "356307042441021"))
    redis.start()  # the restarted server does not know the script
    await waiting
    assert redis.client.xlen(STREAM) == 15


@ensureDeferred
async def test_redis_without_memory_is_reported_until_it_recovers(
    connected: Connected, redis: RedisServer
) -> None:
    reports: list[str | None] = []
    publisher = publisher_on(connected, reports)
    await publisher.publish(entries(1))
    redis.client.config_set("maxmemory", 1)
    waiting = publisher.publish(entries(3))
    await until(lambda: reports[-1] is not None, "the refusal is reported")
    assert "OOM" in (reports[-1] or "")
    assert redis.client.xlen(STREAM) == 1
    redis.client.config_set("maxmemory", 0)
    await waiting
    assert redis.client.xlen(STREAM) == 4
    assert reports[-1] is None


@pytest.mark.parametrize("outage", ["killed", "hanging", "without memory"])
@ensureDeferred
async def test_log_confirms_again_after_an_outage(
    connected: Connected, redis: RedisServer, outage: str
) -> None:
    publisher = publisher_on(connected, [])
    await publisher.publish(entries(1))
    assert publisher.confirms
    if outage == "killed":
        redis.kill()
    elif outage == "hanging":
        redis.suspend()
    else:
        redis.client.config_set("maxmemory", 1)
    waiting = publisher.publish(entries(3))
    await until(lambda: not publisher.confirms, "the log does not confirm")
    assert not waiting.called
    if outage == "killed":
        redis.start()
    elif outage == "hanging":
        redis.resume()
    else:
        redis.client.config_set("maxmemory", 0)
    await until(lambda: publisher.confirms, "the log confirms")
    await waiting
