"""The PostgreSQL sink on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import psycopg
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.storage.batches import CHECKPOINT, DEVICE, message, stored
from tests.integration.storage.conftest import Closing
from tests.integration.storage.postgres import LAST, rows, sink_to
from tracker.clock import ClockRule
from tracker.extra import read_extra
from tracker.interfaces import (
    Batch,
    BatchRefused,
    StoredPosition,
)
from tracker.storage.postgresql import batch as batches
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import connect
from tracker.storage.postgresql.schema import upgrade
from tracker.storage.postgresql.writer import PostgreSQLSink

# Positions and messages.


@ensureDeferred
async def test_all_fields_of_a_position_are_stored(sink: PostgreSQLSink, database: str) -> None:
    named = {"Ignition": {"id": 239, "value": 1}, "odd \\N": {}}
    plain = stored(1, generation_type=5, timestamp="2026-11-22T10:00:01.125Z")
    position = evolve(plain, named=named)
    assert await sink.store(Batch([position], CHECKPOINT)) == 1
    query = (
        "SELECT device_id, ts::text, digest, vendor, codec, latitude, longitude, altitude, angle,"
        " speed, satellites, priority, event, generation_type, attributes, named,"
        " received_at::text FROM positions"
    )
    assert rows(database, query) == [
        (
            *(DEVICE, "2026-11-22 10:00:01.125+00", position.digest, "teltonika", "8E"),
            *(41.3275, 19.8187, -6, 214, 43, 14, 0, 239, 5),
            *({"239": 1, "78": {"__bigint": "13835058055282163712"}}, named),
            "2026-11-22 10:00:01.125+00",
        )
    ]
    assert rows(database, LAST.format("digest, generation_type, named")) == [
        (position.digest, 5, named)
    ]
    await sink.store(Batch([stored(2)], CHECKPOINT))
    assert rows(database, "SELECT named FROM positions ORDER BY ts") == [(named,), (None,)]


@ensureDeferred
async def test_position_without_coordinates_is_stored(sink: PostgreSQLSink, database: str) -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("latitude", "longitude", "altitude", "angle", "speed", "satellites")
    )
    assert await sink.store(Batch([stored(1, **nothing)], CHECKPOINT)) == 1
    columns = "latitude, longitude, altitude, angle, speed, satellites, generation_type"
    assert rows(database, f"SELECT {columns} FROM positions") == [(None,) * 7]


@pytest.mark.parametrize(
    "text", ["a\tb\nc\rd", "\\N", "\\.", 'say "\\"', "Tirana ë 🚗", "{}", " ", "\x01", "\\\\x41"]
)
@ensureDeferred
async def test_special_characters_are_stored_unchanged(
    text: str, sink: PostgreSQLSink, database: str
) -> None:
    text_message = message(1, message=text, message_type=6)
    odd = StoredPosition(
        stored(1, attributes={text: text}).position,
        b"\\x\t\n" * 4,
        "v\\",
        text,
        text_message.received_at,
    )
    assert await sink.store(Batch([text_message, odd], CHECKPOINT)) == 2
    assert rows(database, "SELECT message FROM messages") == [(text,)]
    assert rows(database, "SELECT codec, vendor, digest, attributes FROM positions") == [
        (text, "v\\", b"\\x\t\n" * 4, {text: text})
    ]


@ensureDeferred
async def test_facts_of_an_entry_may_have_any_whitespace_between_them(
    sink: PostgreSQLSink, database: str
) -> None:
    extra = read_extra('{\r\n\t"fix": false,\n\t"note": "a\\n\\t\\\\b"\n}')
    assert await sink.store(Batch([evolve(stored(1), extra=extra)], CHECKPOINT)) == 1
    expected = {"fix": False, "note": "a\n\t\\b"}
    assert rows(database, "SELECT extra FROM positions") == [(expected,)]


@ensureDeferred
async def test_smallest_and_largest_times_are_stored(sink: PostgreSQLSink, database: str) -> None:
    ends = ("0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z")
    await sink.store(Batch([stored(1, timestamp=one) for one in ends], CHECKPOINT))
    assert rows(database, "SELECT ts::text FROM positions ORDER BY ts") == [
        ("0001-01-01 00:00:00+00",),
        ("9999-12-31 23:59:59.999+00",),
    ]


@ensureDeferred
async def test_duplicates_are_stored_once(sink: PostgreSQLSink, database: str) -> None:
    batch = Batch([stored(1), stored(2), stored(1), message(1), message(1)], CHECKPOINT)
    assert await sink.store(batch) == 3
    assert await sink.store(batch) == 0
    assert rows(database, "SELECT count(*) FROM positions") == [(2,)]
    assert rows(database, "SELECT count(*) FROM messages") == [(1,)]


@ensureDeferred
async def test_different_records_of_one_millisecond_are_both_stored(sink: PostgreSQLSink) -> None:
    assert await sink.store(Batch([stored(1), stored(1, event=240)], CHECKPOINT)) == 2


@ensureDeferred
async def test_messages_are_stored_in_their_own_table(sink: PostgreSQLSink, database: str) -> None:
    text_message = message(1)
    binary = message(2, message={"__buffer_b64": "AP8="}, message_type=6, imei="1")
    odd = message(3, message="x", message_type=2**40, report="GT\tINF")
    assert await sink.store(Batch([text_message, binary, odd], CHECKPOINT)) == 3
    assert rows(database, "SELECT count(*) FROM positions") == [(0,)]
    assert rows(database, "SELECT type, name, message, attributes FROM messages ORDER BY ts") == [
        (6, None, "RV:07 GPS:1", text_message.position.attributes),
        (6, None, None, binary.position.attributes),
        (None, "GT\tINF", "x", odd.position.attributes),
    ]
    assert rows(database, LAST.format("last_contact::text, ts")) == [
        ("2026-11-22 10:00:03+00", None)
    ]


@ensureDeferred
async def test_different_messages_of_one_millisecond_are_both_stored(sink: PostgreSQLSink) -> None:
    assert await sink.store(Batch([message(1), message(1, message="another")], CHECKPOINT)) == 2


# Last positions.


@ensureDeferred
async def test_older_position_does_not_replace_the_last_one(
    sink: PostgreSQLSink, database: str
) -> None:
    await sink.store(Batch([stored(30, speed=30)], CHECKPOINT))
    await sink.store(Batch([stored(20, speed=20)], CHECKPOINT))
    assert rows(database, LAST.format("ts::text, speed, last_contact::text")) == [
        ("2026-11-22 10:00:30+00", 30, "2026-11-22 10:00:30+00")
    ]


@ensureDeferred
async def test_record_without_a_fix_updates_the_last_contact_only(
    sink: PostgreSQLSink, database: str
) -> None:
    query = LAST.format("ts::text, latitude, last_contact::text")
    await sink.store(Batch([stored(10, satellites=0)], CHECKPOINT))
    assert rows(database, query) == [(None, None, "2026-11-22 10:00:10+00")]
    await sink.store(Batch([stored(20), stored(30, satellites=0, latitude=0.0)], CHECKPOINT))
    known = ("2026-11-22 10:00:20+00", 41.3275, "2026-11-22 10:00:30+00")
    assert rows(database, query) == [known]
    await sink.store(Batch([stored(15, latitude=1.0)], CHECKPOINT))
    assert rows(database, query) == [known]


_RECORDS = st.lists(
    st.builds(
        stored,
        st.integers(0, 4),
        st.sampled_from(["356307042441013", "356307042441021"]),
        event=st.integers(0, 2),
        satellites=st.sampled_from([0, 9]),
        latitude=st.sampled_from([None, 41.0]),
    ),
    min_size=1,
    max_size=12,
)


def _expected(records: list[StoredPosition]) -> list[tuple[Any, ...]]:
    """Return the expected rows of last_positions, computed independently."""
    expected = []
    for device in sorted({one.position.device_id for one in records}):
        own = [one for one in records if one.position.device_id == device]
        fixes = [one for one in own if one.is_place]
        latest = max(fixes, key=lambda one: (one.position.timestamp, one.digest), default=None)
        contact = max(one.position.timestamp for one in own)
        expected.append((device, contact, None if latest is None else latest.digest))
    return expected


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_RECORDS, st.randoms(use_true_random=False))
def test_last_positions_do_not_depend_on_the_order_of_records(
    bare: psycopg.Connection[Any], records: list[StoredPosition], random: Random
) -> None:
    bare.execute("TRUNCATE positions, last_positions")
    left = random.sample(records, len(records)) + random.choices(records, k=3)
    while left:
        size = random.randint(1, 5)
        batches.store(bare, Batch(left[:size], CHECKPOINT))
        del left[:size]
    contact = "to_char(last_contact AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
    cursor = bare.execute(LAST.format(f"device_id, {contact}, digest"))
    assert cursor.fetchall() == _expected(records)


@pytest.fixture
def bare(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection like that of the sink, for tests that do not run on the reactor."""
    address = PostgreSQLAddress.from_url(database)
    with connect(address) as connection:
        upgrade(connection, address)
        connection.execute(batches.CREATE_STAGING)
        batches.prepare(connection, ClockRule())
        yield connection


# Checkpoints.


@ensureDeferred
async def test_checkpoint_is_the_highest_entry(sink: PostgreSQLSink, database: str) -> None:
    key = ("telemetry:teltonika", "processor")
    assert await sink.checkpoint(*key) is None
    for entry_id in ("999-5", "1000-2", "1000-10", "1000-9", "2-0"):
        assert await sink.store(Batch([], {key: entry_id})) == 0
    assert rows(database, "SELECT * FROM checkpoints") == [(*key, "1000-10")]
    assert await sink.checkpoint(*key) == "1000-10"


@ensureDeferred
async def test_largest_possible_ids_are_ordered(sink: PostgreSQLSink) -> None:
    for entry_id in (f"{2**64 - 1}-{2**64 - 2}", f"{2**64 - 1}-{2**64 - 1}", "5-5"):
        await sink.store(Batch([], {("s", "g"): entry_id}))
    assert await sink.checkpoint("s", "g") == f"{2**64 - 1}-{2**64 - 1}"


# Refused batches.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributes": {"1": "\0"}}, "attributes: unsupported Unicode escape sequence"),
        ({"attributes": {"1": "\ud800"}}, "attributes: invalid input syntax for type json"),
        ({"event": 2**31}, "event: value"),
        ({"altitude": -(2**31) - 1}, "altitude: value"),
        ({"timestamp": "2026-02-30T00:00:00.000Z"}, "ts: date/time field value out of range"),
        ({"priority": None}, "null value in column"),
    ],
)
@ensureDeferred
async def test_batch_with_invalid_data_is_refused(
    changes: dict[str, Any], message: str, sink: PostgreSQLSink, database: str
) -> None:
    if "priority" in changes:
        rows(database, "ALTER TABLE positions ADD CHECK (priority <> 3)")
        changes, message = {"priority": 3}, "violates check constraint"
    with pytest.raises(BatchRefused) as error:
        await sink.store(Batch([stored(1), stored(2, **changes)], CHECKPOINT))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert rows(database, "SELECT count(*) FROM positions") == [(0,)]
    assert rows(database, "SELECT count(*) FROM checkpoints") == [(0,)]
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1  # on the same connection
    assert rows(database, _BACKENDS) == [(1,)]


_BACKENDS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = 'tracker-process' AND datname = current_database()"
)


@ensureDeferred
async def test_nul_in_the_codec_is_refused(sink: PostgreSQLSink) -> None:
    one = stored(1)
    odd = StoredPosition(one.position, one.digest, one.vendor, "8\0E", one.received_at)
    with pytest.raises(BatchRefused):
        await sink.store(Batch([odd], CHECKPOINT))


# Several processors.


@ensureDeferred
async def test_three_processors_with_the_same_devices_have_no_deadlocks(
    database: str, closing: Closing
) -> None:
    devices = [f"{356307042441000 + number}" for number in range(40)]
    records = [
        stored(second, device, event=event)
        for second in range(3)
        for device in devices
        for event in range(2)
    ] + [message(second, device) for second in range(3) for device in devices]
    sinks = [closing(sink_to(database)) for _ in range(3)]
    await gatherResults([sink.open() for sink in sinks])

    async def everything(seed: int) -> int:
        random = Random(seed)
        new = 0
        for number in range(15):
            part = random.sample(records, len(records))
            new += await sinks[seed].store(Batch(part, {("s", "g"): f"{number}-{seed}"}))
        return new

    counts = await gatherResults([Deferred.fromCoroutine(everything(seed)) for seed in range(3)])
    assert sum(counts) == len(records)
    assert rows(database, "SELECT count(*) FROM positions") == [(240,)]
    assert rows(database, "SELECT deadlocks FROM pg_stat_database WHERE datname ="
                          " current_database()") == [(0,)]  # fmt: skip
    assert await sinks[0].checkpoint("s", "g") == "14-2"


@ensureDeferred
async def test_commits_are_synchronous(database: str, closing: Closing) -> None:
    for default, used in (("off", "on"), ("remote_apply", "remote_apply")):
        sink = closing(sink_to(f"{database}?options=-c%20synchronous_commit%3D{default}"))
        await sink.open()
        assert sink._connection is not None
        row = sink._connection.execute("SHOW synchronous_commit").fetchone()
        assert row == (used,)


@ensureDeferred
async def test_sink_can_be_closed_before_opening_and_repeatedly(database: str) -> None:
    never_opened = sink_to(database)
    await never_opened.close()
    opened = sink_to(database)
    await opened.open()
    await opened.close()
    await opened.close()
