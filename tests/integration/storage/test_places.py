"""Last positions, tracks and clock errors of records that are not places."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import psycopg
import pytest
import pytest_twisted
from attrs import define, evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from tests.integration.storage.batches import CHECKPOINT, DEVICE, message, processed, stored
from tracker.clock import DEFAULT_CLOCKS
from tracker.extra import read_extra
from tracker.interfaces import Batch, StoredPosition
from tracker.outcomes import Decoded
from tracker.storage.places import postgresql_place, sqlite_place
from tracker.storage.postgresql import batch as postgresql
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import connect
from tracker.storage.postgresql.schema import upgrade as upgrade_postgresql
from tracker.storage.reader import MAX_ROWS, PositionReader, Search
from tracker.storage.sinks import make_sink, open_reader
from tracker.storage.sqlite import batch as sqlite
from tracker.storage.sqlite.schema import upgrade as upgrade_sqlite
from tracker.vendors.teltonika.avl import decode_packet
from tracker.vendors.teltonika.positions import position

NOW: Final = "2026-11-30T07:30:00.000Z"
EARLY: Final = "2026-11-23T00:00:00.000Z"
LATE: Final = "2026-12-01T07:30:00.000Z"
SEARCH: Final = Search()


class Database(Protocol):
    """A database whose statements can be executed directly."""

    def execute(self, query: str) -> Any: ...

    def store(self, *records: StoredPosition) -> None: ...

    def places(self, table: str) -> list[bytes]:
        """Return the digests of the rows that are places."""


@define
class SQLite:
    database: sqlite3.Connection

    def execute(self, query: str) -> Any:
        return self.database.execute(query)

    def store(self, *records: StoredPosition) -> None:
        sqlite.store(self.database, Batch(list(records), CHECKPOINT), DEFAULT_CLOCKS)

    def places(self, table: str) -> list[bytes]:
        query = f"SELECT digest, {sqlite_place()} FROM {table}"
        found = self.execute(query).fetchall()
        assert {is_place for _, is_place in found} <= {0, 1}
        return sorted(digest for digest, is_place in found if is_place)


@define
class PostgreSQL:
    connection: psycopg.Connection[Any]

    def execute(self, query: str) -> Any:
        return self.connection.execute(query)

    def store(self, *records: StoredPosition) -> None:
        postgresql.store(self.connection, Batch(list(records), CHECKPOINT))

    def places(self, table: str) -> list[bytes]:
        query = f"SELECT digest, {postgresql_place()} FROM {table}"
        found = self.execute(query).fetchall()
        assert {is_place for _, is_place in found} <= {False, True}
        return sorted(digest for digest, is_place in found if is_place)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[SQLite]:
    with closing(sqlite3.connect(tmp_path / "bare.sqlite", isolation_level=None)) as database:
        upgrade_sqlite(database, "")
        yield SQLite(database)


@pytest.fixture
def on_postgresql(database: str) -> Iterator[PostgreSQL]:
    address = PostgreSQLAddress.from_url(database)
    with connect(address) as connection:
        upgrade_postgresql(connection, address)
        connection.execute(postgresql.CREATE_STAGING)
        postgresql.prepare(connection, DEFAULT_CLOCKS)
        yield PostgreSQL(connection)


@pytest.fixture(params=["on_sqlite", "on_postgresql"])
def bare(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


# The rule in three languages.

_EDGES: Final[list[dict[str, Any]]] = [
    {},
    {"satellites": 0},
    {"satellites": None},
    {"satellites": 1},
    {"latitude": None},
    {"longitude": None},
    {"latitude": 0.0},
    {"longitude": -0.0},
    {"latitude": 0.0, "longitude": -0.0},
    {"latitude": 90.0, "longitude": 180.0},
    {"latitude": -90.0, "longitude": -180.0},
    {"latitude": 90.0000001},
    {"latitude": -90.0000001},
    {"longitude": 180.0000001},
    {"longitude": -180.0000001},
    {"latitude": float("nan")},
    {"longitude": float("nan")},
    {"latitude": float("inf")},
    {"longitude": float("-inf")},
    {"timestamp": "2026-11-23T10:00:01.000Z"},
    {"timestamp": "2026-11-23T10:00:02.000Z"},
    {"timestamp": "2024-11-22T10:00:01.000Z"},
    {"timestamp": "2024-11-22T10:00:00.000Z"},
    {"timestamp": "9999-12-31T23:59:59.999Z"},
    {"timestamp": "1970-01-01T00:00:00.000Z"},
]
_FACTS: Final = ("", "{}", '{"fix":true}', '{"fix":false}', '{"fix":null}', '{"clock":"old"}',
                 '{"fix":true,"clock":null}', '{"widths":{"1":[239]}}')  # fmt: skip


def expected(records: Iterable[StoredPosition]) -> list[bytes]:
    """Return the digests of places by the rule in Python, for rows with and without marks."""
    return sorted(
        one.digest
        for one in records
        if one.is_place
        and (one.extra.text or not DEFAULT_CLOCKS.error(one.position.timestamp, one.received_at))
    )


@pytest.mark.parametrize("facts", _FACTS)
def test_sql_finds_the_places_that_python_finds(bare: Database, facts: str) -> None:
    extra = read_extra(facts) if facts else stored(0).extra
    arrival = "2026-11-22T10:00:01.000Z"
    records = [
        evolve(stored(1, event=number, **changes), received_at=arrival, extra=extra)
        for number, changes in enumerate(_EDGES)
    ]
    bare.store(*records)
    assert bare.places("positions") == expected(records)
    assert len(expected(records)) in range(len(_EDGES))


_DEGREES: Final = st.one_of(
    st.none(), st.floats(), st.sampled_from([0.0, -0.0, 90.0, -90.0, 180.0, -180.0, 41.3])
)
_SECONDS: Final = st.one_of(
    st.integers(0, 253_402_300_799),
    st.integers(-800 * 86_400, 3 * 86_400).map(lambda seconds: 1_796_000_000 + seconds),
)


def _iso(seconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z").rjust(24, "0")


_ANY_RECORD: Final = st.builds(
    lambda seconds, facts, changes: evolve(
        stored(0, timestamp=_iso(seconds), **changes),
        received_at=_iso(1_796_000_000),
        extra=read_extra(facts) if facts else stored(0).extra,
    ),
    _SECONDS,
    st.sampled_from(_FACTS),
    st.fixed_dictionaries(
        {
            "latitude": _DEGREES,
            "longitude": _DEGREES,
            "satellites": st.one_of(st.none(), st.integers(0, 12)),
            "event": st.integers(0, 99),
        }
    ),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_ANY_RECORD, min_size=1, max_size=20, unique_by=lambda one: one.digest))
def test_python_and_both_dialects_of_sql_agree(
    on_sqlite: SQLite, on_postgresql: PostgreSQL, records: list[StoredPosition]
) -> None:
    for database in (on_sqlite, on_postgresql):
        database.execute("DELETE FROM positions")
        database.store(*records)
        assert database.places("positions") == expected(records)


# Last positions.


def last(database: Database, columns: str) -> list[tuple[Any, ...]]:
    found = database.execute(f"SELECT {columns} FROM last_positions ORDER BY device_id").fetchall()
    return [tuple(row) for row in found]


_GOOD: Final = stored(0).position
#: Records of two devices, right and wrong, in the order of their digests or not.
_RECORDS: Final = st.lists(
    st.builds(
        lambda device, event, timestamp, satellites: processed(
            evolve(
                _GOOD,
                device_id=device,
                event=event,
                timestamp=timestamp,
                satellites=satellites,
            ),
            NOW,
        ),
        st.sampled_from([DEVICE, "356307042441021"]),
        st.integers(0, 2),
        st.sampled_from(
            [
                *("2026-11-30T07:00:00.000Z", "2026-11-30T07:10:00.000Z"),
                *("2026-12-01T07:30:00.001Z", "2080-01-01T00:00:00.000Z"),
                *("2004-01-01T00:34:43.000Z", "9999-12-31T23:59:59.999Z"),
            ]
        ),
        st.sampled_from([0, 9]),
    ),
    min_size=1,
    max_size=10,
)
_SUMMARY: Final = "device_id, digest, clock_error"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_RECORDS, st.randoms(use_true_random=False))
def test_right_and_wrong_records_in_any_order_give_the_same_last_position(
    on_sqlite: SQLite, on_postgresql: PostgreSQL, records: list[StoredPosition], random: Random
) -> None:
    places: dict[str, tuple[str, bytes]] = {}
    errors: dict[str, tuple[str, str]] = {}
    for one in records:
        device, time = one.position.device_id, one.position.timestamp
        if one.is_place:
            places[device] = max(places.get(device, ("", b"")), (time, one.digest))
        if one.extra.clock is not None:
            errors[device] = max(errors.get(device, ("", "")), (time, one.extra.clock))
    devices = sorted({one.position.device_id for one in records})
    wanted = [
        (device, places.get(device, ("", None))[1], errors.get(device, ("", None))[1])
        for device in devices
    ]
    for database in (on_sqlite, on_postgresql):
        database.execute("DELETE FROM positions")
        database.execute("DELETE FROM last_positions")
        left = random.sample(records, len(records)) + random.choices(records, k=3)
        while left:
            size = random.randint(1, 4)
            database.store(*left[:size])
            del left[:size]
        assert last(database, _SUMMARY) == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": "2080-01-01T00:00:00.000Z"},
        {"timestamp": "9999-12-31T23:59:59.999Z"},
        {"latitude": 0.0, "longitude": 0.0},
        {"latitude": 214.7483647},
    ],
)
def test_last_position_of_an_earlier_version_that_is_wrong_is_replaced(
    bare: Database, changes: dict[str, Any]
) -> None:
    bare.store(stored(30))
    old = stored(30, **changes).position
    bare.execute(
        f"UPDATE last_positions SET ts = '{old.timestamp}', last_contact = '{old.timestamp}', "
        f"latitude = {old.latitude}, longitude = {old.longitude}, extra = NULL"
    )
    bare.store(stored(20, satellites=0))
    assert bare.places("last_positions") == []
    earlier = stored(10)
    bare.store(earlier)
    assert bare.places("last_positions") == [earlier.digest]
    bare.store(stored(5))
    assert bare.places("last_positions") == [earlier.digest]


@pytest.mark.parametrize("contact", ["2080-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"])
def test_last_contact_in_the_future_is_replaced_by_the_next_arrival(
    bare: Database, contact: str
) -> None:
    bare.store(stored(1, timestamp="2020-01-01T00:00:00.000Z"))
    bare.execute(f"UPDATE last_positions SET last_contact = '{contact}'")
    bare.store(stored(1, timestamp="2020-01-02T00:00:00.000Z", satellites=0))
    (found,) = bare.execute("SELECT CAST(last_contact AS text) FROM last_positions").fetchone()
    assert found.startswith("2020-01-02")


def test_last_contact_is_the_latest_arrival(bare: Database) -> None:
    day = "2020-01-0{}T00:00:00.000Z"
    for time, arrival in ((3, 4), (1, 6), (2, 5)):
        record = stored(1, timestamp=day.format(time))
        bare.store(evolve(record, received_at=day.format(arrival)))
    columns = "CAST(last_contact AS text), CAST(ts AS text)"
    ((contact, ts),) = last(bare, columns)
    assert (contact[:10], ts[:10]) == ("2020-01-06", "2020-01-03")


# From frames to what the console shows.

#: Frames of devices, with one identifier of a driver replaced.
FRAMES: Final = {
    "track": "00000000000000990805000001a22b614f9f000f147940209a8ec00064005a09001e00000000000000"
    "0001a22b6176af000f147d28209a92a80064005a09001e000000000000000001a22b619dbf00000000000000"
    "000000000000000000000000000000000001a22b61c4cf000f147d28209a92a8006400000000000000000000"
    "00000001a22b61ebdf000f1484f8209a9a780064005a09001e0000000000000500002816",
    "year 9999": "000000000000002108018000000000000000000f147940209a8ec00064005a09001e000000000000"
    "0100009d51",
    "first": "00000000000000210801000001a22b40d980000f147940209a8ec00064005a09001e00000000000001"
    "000013d5",
    "year 2080": "0000000000000021080100000328392c9c00000f14794020c855800064005a09001e000000000000"
    "010000779f",
    "later": "00000000000000210801000001a22b41c3e0000f14794020a9d1000064005a09001e00000000000001"
    "00005a8e",
    "off the globe": "00000000000000210801000001a22b40e15000800000007fffffff0064005a07001e00000000"
    "00000100008319",
    "zeros": "00000000000000210801000001a22b40dd680000000000000000000064005a05001e00000000000001"
    "00005965",
    "rollover": "000000000000023d080a"
    "000000f9ceda80b8000f147940209a8ec0000000c6090000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ceda59a8000f147940209a8ec0000000c6090000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ceda3298000f147940209a8ec0000000c6080000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ceda07a0000f147940209a8ec0000000c6080000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ced9e090000f147940209a8ec0000000c6070000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ced9b980000f147940209a8ec0000000c6080000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ced99270000f147940209a8ec0000000c6070000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ced96b60000f147940209a8ec0000000c6070000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ced94450000f147940209a8ec0000000c6080000000502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "000000f9ced92128000f147940209a8ec0000000c6090000f00502ef00f00000011000001b74020b3132"
    "3334353637380e3132333435363738"
    "0a0000f0ad",
}


def records_of(name: str, arrival: str) -> list[StoredPosition]:
    """Return the records of a frame as the processor stores them."""
    body = bytes.fromhex(FRAMES[name])[8:-4]
    packet = decode_packet(body)
    assert isinstance(packet, Decoded)
    return [processed(position(DEVICE, record), arrival) for record in packet.value.records]


@define
class Passage:
    """The passage of frames through a database to the console."""

    sink: Any
    reader: PositionReader

    async def receive(self, *names: str, arrival: str = NOW) -> None:
        """Store the records of frames in their order, one batch for each frame."""
        for name in names:
            await self.sink.store(Batch(records_of(name, arrival), CHECKPOINT))

    async def shown(self) -> dict[str, Any]:
        """Return the row of the device, which the table of devices has, too."""
        found = await self.reader.device(DEVICE)
        assert found is not None
        (listed,) = await self.reader.devices(SEARCH)
        assert listed.items() <= found.items()
        return found

    async def coordinates(self) -> tuple[Any, ...]:
        found = await self.shown()
        return found["ts"], found["latitude"], found["longitude"]

    async def track(self) -> Any:
        return await self.reader.track(DEVICE, EARLY, LATE)


@pytest_twisted.async_yield_fixture(params=["sqlite", "postgresql"])
async def passage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Passage]:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    url = f"sqlite:{tmp_path / 'positions.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("database")
    found = Passage(make_sink(reactor, url), open_reader(reactor, url))
    await found.sink.open()
    found.reader.startService()
    yield found
    await found.reader.stopService()
    await found.sink.close()


@ensureDeferred
async def test_track_omits_records_without_a_fix(passage: Passage) -> None:
    await passage.receive("track", arrival="2026-11-30T07:36:10.000Z")
    track = await passage.track()
    assert [point[1:3] for point in track.points] == [
        (54.7, 25.3),
        (54.7001, 25.3001),
        (54.7003, 25.3003),
    ]
    assert (await passage.coordinates())[0] == "2026-11-30T07:36:07.391Z"


@pytest.mark.parametrize("wrong", ["year 2080", "year 9999"])
@ensureDeferred
async def test_clock_ahead_moves_nothing(passage: Passage, wrong: str) -> None:
    await passage.receive("first", wrong)
    assert (await passage.coordinates())[0] == "2026-11-30T07:00:00.000Z"
    await passage.receive("later", arrival="2026-11-30T07:31:00.000Z")
    found = await passage.shown()
    assert (found["ts"], found["last_contact"]) == (
        "2026-11-30T07:01:00.000Z",
        "2026-11-30T07:31:00.000Z",
    )
    assert (found["clock_error"], found["clock_error_at"]) == ("ahead", NOW)
    assert found["clock_error_ts"][:4] == wrong[5:]
    assert len((await passage.track()).points) == 2


@ensureDeferred
async def test_rollover_is_recognised_and_moves_nothing(passage: Passage) -> None:
    await passage.receive("rollover")
    found = await passage.shown()
    assert (found["ts"], found["latitude"], found["last_contact"]) == (None, None, NOW)
    assert (found["clock_error"], found["clock_error_ts"], found["clock_error_at"]) == (
        *("rollover", "2004-01-01T00:34:43.000Z", NOW),
    )
    await passage.receive("first", "rollover")
    assert (await passage.coordinates())[0] == "2026-11-30T07:00:00.000Z"


@pytest.mark.parametrize("wrong", ["zeros", "off the globe"])
@ensureDeferred
async def test_coordinates_that_are_not_a_place_are_stored_and_marked(
    passage: Passage, wrong: str
) -> None:
    (record,) = records_of(wrong, NOW)
    assert json.loads(record.extra.text) == {"fix": False}
    assert record.position.satellites
    await passage.receive("first", wrong)
    assert (await passage.coordinates())[0] == "2026-11-30T07:00:00.000Z"
    assert len((await passage.track()).points) == 1


@ensureDeferred
async def test_message_with_a_wrong_clock_is_a_contact_and_an_error(passage: Passage) -> None:
    late = evolve(message(1).position, timestamp="2080-01-01T00:00:00.000Z")
    await passage.sink.store(Batch([processed(late, NOW)], CHECKPOINT))
    found = await passage.shown()
    assert (found["last_contact"], found["clock_error"]) == (NOW, "ahead")


@ensureDeferred
async def test_many_records_without_a_fix_do_not_hide_the_track(passage: Passage) -> None:
    parked = [
        stored(number % 60, timestamp=_iso(1_796_000_000 + number), satellites=0)
        for number in range(MAX_ROWS + 1)
    ]
    place = stored(1, timestamp=_iso(1_795_999_999))
    await passage.sink.store(Batch([place, *parked], CHECKPOINT))
    track = await passage.track()
    assert (len(track.points), track.complete) == (1, True)


@ensureDeferred
async def test_buffered_record_does_not_move_the_last_position_back(passage: Passage) -> None:
    await passage.receive("later")
    buffered = stored(1, timestamp="2025-01-01T00:00:00.000Z").position
    await passage.sink.store(Batch([processed(buffered, LATE)], CHECKPOINT))
    found = await passage.shown()
    assert (found["ts"], found["last_contact"], found["clock_error"]) == (
        *("2026-11-30T07:01:00.000Z", LATE, None),
    )
