"""Reads of real databases, which a sink writes at the same time."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from attrs import define, evolve
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.storage.batches import CHECKPOINT, DEVICE, message, stored
from tests.servers import PostgresServer
from tracker.extra import read_extra
from tracker.interfaces import Batch, StoredPosition
from tracker.storage import reader as module
from tracker.storage.reader import PositionReader, QueryFailed, Search
from tracker.storage.sinks import make_sink, open_reader

OTHER = "356307042441021"
EARLY = "2026-11-22T00:00:00.000Z"
LATE = "2026-11-23T00:00:00.000Z"


@define
class Database:
    """A sink and its reader."""

    sink: Any
    positions: PositionReader

    async def store(self, *records: StoredPosition) -> None:
        await self.sink.store(Batch(list(records), CHECKPOINT))

    async def find(self, **search: Any) -> list[str]:
        return [row["device_id"] for row in await self.positions.devices(Search(**search))]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'positions.sqlite'}"
    found: str = request.getfixturevalue("database")
    return found


@pytest_twisted.async_yield_fixture
async def stored_in(url: str) -> AsyncIterator[Database]:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    found = Database(make_sink(reactor, url), open_reader(reactor, url))
    await found.sink.open()
    found.positions.startService()
    yield found
    await found.positions.stopService()
    await found.sink.close()


def devices(count: int) -> list[StoredPosition]:
    """Return positions of ``count`` devices, with times in another order than their ids."""
    return [stored((number * 7) % count, f"35630704244{number:04}") for number in range(count)]


@ensureDeferred
async def test_all_fields_of_a_device_are_read(stored_in: Database) -> None:
    await stored_in.store(stored(1), stored(2, speed=44), message(9))
    found = await stored_in.positions.device(DEVICE)
    assert found == {
        "device_id": DEVICE,
        "last_contact": "2026-11-22T10:00:09.000Z",
        "ts": "2026-11-22T10:00:02.000Z",
        "vendor": "teltonika",
        "codec": "8E",
        "latitude": 41.3275,
        "longitude": 19.8187,
        "altitude": -6,
        "angle": 214,
        "speed": 44,
        "satellites": 14,
        "priority": 0,
        "event": 239,
        "attributes": {"239": 1, "78": {"__bigint": "13835058055282163712"}},
        "received_at": "2026-11-22T10:00:02.000Z",
        "clock_error": None,
        "clock_error_ts": None,
        "clock_error_at": None,
        "named": None,
        "extra": None,
    }
    assert await stored_in.positions.device("000000000000000") is None


@ensureDeferred
async def test_extra_facts_of_a_device_are_read(stored_in: Database) -> None:
    facts = {"widths": {"1": [239]}, "serial": 7}
    await stored_in.store(evolve(stored(1), extra=read_extra(json.dumps(facts))))
    found = await stored_in.positions.device(DEVICE)
    assert found is not None
    assert found["extra"] == facts


@ensureDeferred
async def test_device_without_coordinates_is_found(stored_in: Database) -> None:
    await stored_in.store(message(9))
    found = await stored_in.positions.device(DEVICE)
    assert found is not None
    assert (found["latitude"], found["ts"], found["attributes"]) == (None, None, None)
    assert await stored_in.find() == [DEVICE]


@ensureDeferred
async def test_all_devices_are_read_by_id_in_pages_of_any_size(stored_in: Database) -> None:
    records = devices(7)
    strange = ("\u0101" * 90, "a'b", "\x1b[2J")  # as shown, some sort before themselves
    records += [stored(1, device_id) for device_id in strange]
    await stored_in.store(*records)
    wanted = [row["device_id"] for row in await stored_in.positions.devices(Search(limit=100))]
    assert len(wanted) == len(records)
    for size in (1, 3, 10, 100):
        found = [row["device_id"] async for row in stored_in.positions.all_devices(size)]
        assert found == wanted


@ensureDeferred
async def test_devices_are_read_in_pages(stored_in: Database) -> None:
    records = devices(25)
    await stored_in.store(*records)
    by_id = [record.position.device_id for record in records]
    latest = sorted(records, key=lambda one: one.position.timestamp, reverse=True)
    by_contact = [record.position.device_id for record in latest]
    for order, wanted in ((False, by_id), (True, by_contact)):
        found: list[str] = []
        after = None
        while True:
            page = await stored_in.positions.devices(Search("", order, after, 10))
            if not page:
                break
            found += [row["device_id"] for row in page]
            after = (page[-1]["last_contact"], page[-1]["device_id"])
        assert found == wanted


@pytest.mark.parametrize(
    ("text", "count"), [("", 25), ("0007", 1), ("35630704244", 25), ("001", 11), ("9999", 0)]
)
@ensureDeferred
async def test_devices_are_found_by_part_of_their_id(
    stored_in: Database, text: str, count: int
) -> None:
    await stored_in.store(*devices(25))
    assert len(await stored_in.find(text=text)) == count


@ensureDeferred
async def test_search_text_is_not_a_pattern_or_sql(stored_in: Database) -> None:
    await stored_in.store(*devices(3))
    for text in ("%", "_", "' OR '1'='1", "%s", "?"):
        assert await stored_in.find(text=text) == []


@ensureDeferred
async def test_track_consists_of_the_coordinates_of_a_device(stored_in: Database) -> None:
    here = [stored(second, latitude=41.0 + second / 1000) for second in (3, 1, 2)]
    await stored_in.store(*here, stored(2, "356307042441021"), message(5))
    track = await stored_in.positions.track(DEVICE, EARLY, LATE)
    assert [point[1] for point in track.points] == [41.001, 41.002, 41.003]
    assert track.points[0] == (1_795_341_601_000, 41.001, 19.8187, 43, 214)
    assert (track.read, track.complete) == (3, True)
    later = await stored_in.positions.track(DEVICE, "2026-11-22T10:00:02.000Z", LATE)
    assert later.read == 2
    assert (await stored_in.positions.track("000000000000000", EARLY, LATE)).points == []


@ensureDeferred
async def test_long_track_is_thinned_and_very_long_track_is_cut(
    stored_in: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_POINTS", 10)
    monkeypatch.setattr(module, "MAX_ROWS", 40)
    await stored_in.store(*(stored(second) for second in range(30)))
    track = await stored_in.positions.track(DEVICE, EARLY, LATE)
    assert (len(track.points), track.read, track.complete) == (10, 30, True)
    first, last = track.points[0], track.points[-1]
    assert (first[0], last[0]) == (1_795_341_600_000, 1_795_341_629_000)
    await stored_in.store(*(stored(second) for second in range(30, 60)))
    track = await stored_in.positions.track(DEVICE, EARLY, LATE)
    assert (track.read, track.complete) == (40, False)
    assert track.points[-1][0] == 1_795_341_659_000


@ensureDeferred
async def test_number_of_waiting_queries_is_limited(
    stored_in: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_QUERIES", 2)
    queries = [Deferred.fromCoroutine(stored_in.positions.device(DEVICE)) for _ in range(5)]
    results = await gatherResults(
        [one.addCallbacks(lambda _: "", lambda failure: str(failure.value)) for one in queries]
    )
    assert results == ["", "", *["too many queries are waiting for the database"] * 3]


@ensureDeferred
async def test_reader_is_read_only(stored_in: Database) -> None:
    await stored_in.store(stored(1))
    with pytest.raises(QueryFailed) as caught:
        await stored_in.positions._query(
            stored_in.positions._select,  # type: ignore[attr-defined]
            "DELETE FROM positions",
            (),
        )
    assert re.search("read-?only", caught.value.detail)


@ensureDeferred
async def test_missing_file_is_read_once_it_exists(tmp_path: Path) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    url = f"sqlite:{tmp_path / 'later.sqlite'}"
    positions = open_reader(reactor, url)
    positions.startService()
    try:
        with pytest.raises(QueryFailed):
            await positions.devices(Search())
        assert list(tmp_path.iterdir()) == []
        sink = make_sink(reactor, url)
        await sink.open()
        assert await positions.devices(Search()) == []
        await sink.close()
    finally:
        await positions.stopService()


@ensureDeferred
async def test_query_succeeds_after_a_restart_of_the_server(postgres: PostgresServer) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    sink = make_sink(reactor, postgres.url)
    await sink.open()
    await sink.close()
    positions = open_reader(reactor, postgres.url)
    positions.startService()
    try:
        assert await positions.devices(Search()) == []
        postgres.stop()
        with pytest.raises(QueryFailed) as caught:
            await positions.devices(Search())
        assert postgres.PASSWORD not in caught.value.detail
        host, port = str(urlsplit(postgres.url).hostname), str(urlsplit(postgres.url).port)
        assert port in caught.value.detail
        assert not {host, port} & set(re.split(r"[^\w.]", str(caught.value)))
        postgres.start()
        assert await positions.devices(Search()) == []
    finally:
        await positions.stopService()


@ensureDeferred
async def test_slow_query_is_cancelled(
    stored_in: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = "SELECT 1 FROM generate_series(1, 100000000) a, generate_series(1, 1000) b"
    if "SQLite" in type(stored_in.positions).__name__:
        monkeypatch.setattr("tracker.storage.sqlite.reader.QUERY_TIMEOUT", 0.2)
        numbers = (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
        )
    else:
        await stored_in.positions._query(
            stored_in.positions._select,  # type: ignore[attr-defined]
            "SELECT 1 FROM set_config('statement_timeout', '200', false)",
            (),
        )
        numbers = f"SELECT count(*) FROM ({numbers}) c"
    with pytest.raises(QueryFailed):
        await stored_in.positions._query(
            stored_in.positions._select,  # type: ignore[attr-defined]
            numbers,
            (),
        )


@ensureDeferred
async def test_malformed_values_are_left_out(tmp_path: Path) -> None:
    """SQLite's columns accept any value from any program that can write to the file."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    path = tmp_path / "positions.sqlite"
    database = Database(
        make_sink(reactor, f"sqlite:{path}"), open_reader(reactor, f"sqlite:{path}")
    )
    await database.sink.open()
    await database.store(stored(1), stored(2), stored(3))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE positions SET latitude = 'x' WHERE ts LIKE '%:01.000Z'")
        connection.execute("UPDATE positions SET longitude = 9e999 WHERE ts LIKE '%:02.000Z'")
        connection.execute("UPDATE positions SET speed = 'x' WHERE ts LIKE '%:03.000Z'")
        connection.execute(
            "UPDATE last_positions SET attributes = ?, named = ?, speed = ?, angle = ?, vendor = ?",
            ("[" * 100_000, "9" * 3_000_000, b"\xff" * 1000, 9e999, "\x1b[31m" * 100_000),
        )
    database.positions.startService()
    try:
        row = await database.positions.device(DEVICE)
        (listed,) = await database.positions.devices(Search())
        track = await database.positions.track(DEVICE, EARLY, LATE)
    finally:
        await database.positions.stopService()
        await database.sink.close()
    assert row is not None
    assert (row["attributes"], row["named"], row["angle"]) == (None, None, None)
    assert len(json.dumps([row, listed], allow_nan=False)) < 5000
    assert track.points == []


@ensureDeferred
async def test_deeply_nested_attributes_do_not_hide_the_device(stored_in: Database) -> None:
    nested: Any = 1
    for _ in range(500):
        nested = [nested]
    await stored_in.store(stored(1, attributes={"a": nested}), stored(1, OTHER))
    row = await stored_in.positions.device(DEVICE)
    assert row is not None
    assert row["attributes"] is None
    assert len(await stored_in.find()) == 2
