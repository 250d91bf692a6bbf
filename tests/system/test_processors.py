"""Several processors that share one stream, and outages of their database."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.servers import PostgresServer, RedisServer
from tests.system.processes import Daemon
from tests.system.raw import STREAM
from tests.waiting import wait_for
from tracker.position import Position, digest, iso_milliseconds

DEVICES = 30
START = 1_790_000_000_000


def entries(numbers: range) -> list[dict[str, str]]:
    """Return the fields of stream entries, not in the order of their times."""
    chance = random.Random(numbers.start)
    made = []
    for number in numbers:
        position = Position(
            device_id=f"9{number % DEVICES:014}",
            timestamp=iso_milliseconds(START + chance.randrange(1_000_000)),
            latitude=chance.randrange(900) / 10,
            longitude=number / 1000,
            altitude=1,
            angle=2,
            speed=3,
            satellites=chance.choice((0, 7, 9)),
            priority=0,
            event=0,
            attributes={"239": number},
        )
        made.append(position.to_entry("8E")._asdict())
    return made


@pytest.fixture
def processors(tmp_path: Path, redis: RedisServer, database: str) -> Iterator[list[Daemon]]:
    """Yield three processors with one database, not started yet."""
    with ExitStack() as stack:
        daemons = [
            Daemon(
                *(tmp_path, name, "process", "--redis", redis.url, "--consumer", name),
                *("--sink", database, "--claim-after", "3", "--batch-size", "200"),
            )
            for name in ("one", "two", "three")
        ]
        for daemon in daemons:
            stack.callback(daemon.kill)
        yield daemons


def unfinished(redis: RedisServer) -> int:
    """Return the number of entries that the group has not acknowledged."""
    groups = redis.client.xinfo_groups(STREAM)
    if not groups:  # a processor is ready before it has created the group
        return int(redis.client.xlen(STREAM))
    return int(groups[0]["lag"]) + int(groups[0]["pending"])


def pending(redis: RedisServer) -> int:
    """Return the number of entries that were read and not acknowledged."""
    return int(redis.client.xinfo_groups(STREAM)[0]["pending"])


def rows(database: str, statement: str) -> list[Any]:
    with psycopg.connect(database) as connection:
        return connection.execute(statement).fetchall()


def latest(redis: RedisServer) -> dict[str, tuple[str, float, str]]:
    """Return device → time and longitude of its latest coordinates, and its last arrival."""
    contact: dict[str, str] = {}
    coordinates: dict[str, tuple[str, bytes, float]] = {}
    for entry_id, raw in redis.client.xrange(STREAM):
        entry = {name.decode(): value.decode() for name, value in raw.items()}
        position = Position.from_payload(entry["payload"])
        device = position.device_id
        contact[device] = iso_milliseconds(int(entry_id.partition(b"-")[0]))
        if position.has_fix() and position.longitude is not None:
            moment = (position.timestamp, digest(entry["payload"]), position.longitude)
            coordinates[device] = max(coordinates.get(device, moment), moment)
    return {
        device: (at, longitude, contact[device])
        for device, (at, _, longitude) in coordinates.items()
    }


def test_remaining_processor_stores_the_entries_of_a_killed_and_a_hanging_one(
    processors: list[Daemon], redis: RedisServer, database: str
) -> None:
    killed, hanging, _ = processors
    appended = entries(range(20_000))

    def append(some: list[dict[str, str]]) -> None:
        pipeline = redis.client.pipeline(transaction=False)
        for entry in some:
            pipeline.xadd(STREAM, entry)
        pipeline.execute()

    append(appended[:2000])
    for daemon in processors:
        daemon.start(ready=False)
    for daemon in processors:
        daemon.wait_until_ready()
    append(appended[2000:10_000])
    os.kill(hanging.pid, signal.SIGSTOP)
    killed.kill()
    try:
        append(appended[10_000:])
        wait_for(lambda: unfinished(redis) == 0, "all entries are claimed and stored", timeout=120)
    finally:
        os.kill(hanging.pid, signal.SIGCONT)
    # The processor that hung now commits its batch as well, which changes nothing.
    append(appended[:500])  # devices repeat records
    wait_for(lambda: unfinished(redis) == 0, "all entries are stored", timeout=60)
    wait_for(lambda: hanging.readyz()[0] == 200, "the processor that hung is ready")
    killed.start()
    assert [daemon.stop() for daemon in processors] == [0, 0, 0]

    keys = rows(database, "SELECT attributes->>'239' FROM positions")
    assert sorted(int(number) for (number,) in keys) == list(range(20_000))
    found = rows(
        database,
        "SELECT device_id, to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), "
        "longitude, to_char(last_contact AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') "
        "FROM last_positions",
    )
    assert {device: tuple(rest) for device, *rest in found} == latest(redis)
    for daemon in processors:
        assert "Traceback" not in daemon.text, daemon.text


def test_outages_of_the_database_are_retried(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer
) -> None:
    appended = entries(range(900))

    def append(some: list[dict[str, str]]) -> None:
        for entry in some:
            redis.client.xadd(STREAM, entry)

    def count() -> int:
        ((number,),) = rows(postgres.url, "SELECT count(*) FROM positions")
        return int(number)

    append(appended[:300])
    postgres.stop()
    processor = Daemon(tmp_path, "process", "process", "--redis", redis.url, "--sink", postgres.url)
    try:
        processor.start(ready=False)
        wait_for(lambda: "cannot open the sink" in str(processor.readyz()), "reported")
        postgres.start()
        wait_for(lambda: processor.readyz()[0] == 200, "ready")
        wait_for(lambda: unfinished(redis) == 0 and count() == 300, "stored")
        postgres.kill()
        append(appended[300:600])
        wait_for(lambda: "cannot store positions" in str(processor.readyz()), "reported")
        postgres.start()
        wait_for(lambda: unfinished(redis) == 0 and count() == 600, "stored", timeout=40)
        postgres.suspend()
        append(appended[600:])
        wait_for(lambda: pending(redis) > 0, "a batch was read")
        postgres.resume()
        wait_for(lambda: unfinished(redis) == 0 and count() == 900, "stored", timeout=60)
        assert processor.stop() == 0
    finally:
        processor.kill()
    assert "Traceback" not in processor.text, processor.text
    assert PostgresServer.PASSWORD not in processor.text


def test_stream_of_ingest_without_a_processor_is_reported(
    processors: list[Daemon], redis: RedisServer, tmp_path: Path
) -> None:
    processor = processors[0]
    ingest = Daemon(
        *(tmp_path, "ingest", "ingest", "--redis", redis.url, "--instance-id", "other"),
        *("--listen", "teltonika=tcp:0:interface=127.0.0.1"),
        variables={"REDIS_TELEMETRY_STREAM": "positions:{vendor}"},
    )
    try:
        ingest.start()
        processor.start(ready=False)

        def reported() -> str:
            reason: str = processor.readyz()[1].get("reasons", {}).get("streams", "")
            return reason if "no processor reads" in reason else ""

        reason = wait_for(reported, "the reason is reported")
        assert "positions:teltonika (written by other)" in reason
        assert "positions:teltonika" in processor.text
    finally:
        ingest.kill()


def test_lost_group_restarts_at_the_checkpoint_of_the_database(
    processors: list[Daemon], redis: RedisServer, database: str
) -> None:
    processor = processors[0]
    appended = entries(range(1000))
    for entry in appended[:500]:
        redis.client.xadd(STREAM, entry)
    processor.start()
    wait_for(lambda: unfinished(redis) == 0, "the first half is stored")
    redis.client.flushall()
    for entry in appended[250:]:  # repeated and new records
        redis.client.xadd(STREAM, entry)

    def count() -> int:
        ((number,),) = rows(database, "SELECT count(*) FROM positions")
        return int(number)

    wait_for(lambda: count() == 1000, "all entries are stored, once")
    wait_for(lambda: processor.readyz()[0] == 200, "ready again")
    wait_for(lambda: unfinished(redis) == 0, "all entries are acknowledged")
    ((last,),) = rows(database, "SELECT entry_id FROM checkpoints WHERE group_name = 'processor'")
    assert last == redis.client.xinfo_stream(STREAM)["last-generated-id"].decode()
