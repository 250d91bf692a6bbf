"""The SQLite sink on a real file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from pytest_twisted import ensureDeferred

from tests.integration.storage.batches import CHECKPOINT, message, stored
from tests.integration.storage.conftest import Closing
from tracker.interfaces import Batch, BatchRefused, SinkUnusable, StoredPosition
from tracker.storage.sqlite import batch
from tracker.storage.sqlite.schema import upgrade
from tracker.storage.sqlite.writer import SQLiteSink


def sink_at(path: Path, migrate: bool = True) -> SQLiteSink:
    from twisted.internet import reactor

    running: Any = reactor
    return SQLiteSink(running, str(path), migrate=migrate)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "positions.sqlite"


@pytest_twisted.async_fixture
async def sink(path: Path, closing: Closing) -> SQLiteSink:
    sink = closing(sink_at(path))
    await sink.open()
    return sink


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


@ensureDeferred
async def test_sqlite_stores_all_fields_of_a_position(sink: SQLiteSink, path: Path) -> None:
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1
    ((*row, digest_),) = rows(
        path,
        "SELECT device_id, ts, vendor, codec, latitude, longitude, altitude, angle, speed,"
        " satellites, priority, event, attributes, received_at, digest FROM positions",
    )
    assert row == [
        "356307042441013", "2026-11-22T10:00:01.000Z", "teltonika", "8E", 41.3275, 19.8187, -6,
        214, 43, 14, 0, 239, '{"239":1,"78":{"__bigint":"13835058055282163712"}}',
        "2026-11-22T10:00:01.000Z",
    ]  # fmt: skip
    assert digest_ == stored(1).digest


@ensureDeferred
async def test_sqlite_stores_duplicates_once(sink: SQLiteSink, path: Path) -> None:
    batch = Batch([stored(1), stored(2), stored(1)], CHECKPOINT)
    assert await sink.store(batch) == 2
    assert await sink.store(batch) == 0
    assert rows(path, "SELECT count(*) FROM positions") == [(2,)]


@ensureDeferred
async def test_sqlite_stores_different_records_of_one_millisecond(
    sink: SQLiteSink, path: Path
) -> None:
    assert await sink.store(Batch([stored(1), stored(1, event=240)], CHECKPOINT)) == 2


@ensureDeferred
async def test_sqlite_keeps_the_last_position_if_an_older_one_arrives(
    sink: SQLiteSink, path: Path
) -> None:
    await sink.store(Batch([stored(30, speed=30)], CHECKPOINT))
    await sink.store(Batch([stored(20, speed=20)], CHECKPOINT))
    assert rows(path, "SELECT ts, speed, last_contact FROM last_positions") == [
        ("2026-11-22T10:00:30.000Z", 30, "2026-11-22T10:00:30.000Z")
    ]


@ensureDeferred
async def test_sqlite_updates_only_the_last_contact_by_a_record_without_a_fix(
    sink: SQLiteSink, path: Path
) -> None:
    query = "SELECT ts, latitude, last_contact FROM last_positions"
    await sink.store(Batch([stored(10, satellites=0)], CHECKPOINT))
    assert rows(path, query) == [(None, None, "2026-11-22T10:00:10.000Z")]
    await sink.store(Batch([stored(20), stored(30, satellites=0, latitude=0.0)], CHECKPOINT))
    assert rows(path, query) == [("2026-11-22T10:00:20.000Z", 41.3275, "2026-11-22T10:00:30.000Z")]


@ensureDeferred
async def test_last_positions_in_sqlite_do_not_depend_on_the_order_of_records(
    tmp_path: Path, closing: Closing
) -> None:
    positions = [
        stored(second, device, event=event, satellites=satellites)
        for second in range(5)
        for device in ("356307042441013", "356307042441021")
        for event in range(3)
        for satellites in (0, 9)
    ]
    results = set()
    for seed in range(5):
        random = Random(seed)
        random.shuffle(positions)
        sink = closing(sink_at(tmp_path / f"{seed}.sqlite"))
        await sink.open()
        left = list(positions)
        while left:
            size = random.randint(1, 20)
            await sink.store(Batch(left[:size], CHECKPOINT))
            del left[:size]
        results.add(tuple(rows(tmp_path / f"{seed}.sqlite", "SELECT * FROM last_positions")))
    assert len(results) == 1


@ensureDeferred
async def test_checkpoint_in_sqlite_is_the_highest_entry(sink: SQLiteSink, path: Path) -> None:
    key = ("telemetry:teltonika", "processor")
    for entry_id in ("999-5", "1000-2", "1000-10", "1000-9", "2-0"):
        await sink.store(Batch([], {key: entry_id}))
    assert rows(path, "SELECT * FROM checkpoints") == [(*key, "1000-10")]


@ensureDeferred
async def test_sqlite_stores_nothing_of_a_failed_batch(sink: SQLiteSink, path: Path) -> None:
    huge = stored(3, event=2**70)  # fails within the transaction
    with pytest.raises(BatchRefused):
        await sink.store(Batch([stored(1), huge], CHECKPOINT))
    assert rows(path, "SELECT count(*) FROM positions") == [(0,)]
    assert rows(path, "SELECT count(*) FROM checkpoints") == [(0,)]
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1


@ensureDeferred
async def test_existing_database_is_opened_again(path: Path, closing: Closing) -> None:
    for second in (1, 2):
        sink = closing(sink_at(path))
        await sink.open()
        await sink.store(Batch([stored(second)], CHECKPOINT))
        await sink.close()
    assert rows(path, "SELECT count(*) FROM positions") == [(2,)]


@ensureDeferred
async def test_commits_to_sqlite_are_synchronous(sink: SQLiteSink) -> None:
    # With WAL, SQLite synchronises at checkpoints only; with FULL, at each commit.
    assert sink._database is not None
    modes = await sink._thread.run(
        lambda database: [
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ],
        sink._database,
    )
    assert modes == ["wal", 2]


@ensureDeferred
async def test_invalid_checkpoint_rolls_back_the_positions(sink: SQLiteSink, path: Path) -> None:
    await sink.store(Batch([stored(1)], {("s", "g"): "1-0"}))
    with pytest.raises(ValueError, match="invalid literal"):
        await sink.store(Batch([stored(2)], {("s", "g"): "not an entry ID"}))
    assert rows(path, "SELECT count(*) FROM positions") == [(1,)]


@ensureDeferred
async def test_deleted_database_file_is_an_error(sink: SQLiteSink, path: Path) -> None:
    await sink.store(Batch([stored(1)], CHECKPOINT))
    path.unlink()
    with pytest.raises(RuntimeError, match="deleted or replaced"):
        await sink.store(Batch([stored(2)], CHECKPOINT))


@pytest.mark.parametrize("kind", ["missing folder", "a folder", "not a database", "newer schema"])
@ensureDeferred
async def test_unusable_sqlite_file_is_reported_in_one_line(
    kind: str, tmp_path: Path, closing: Closing
) -> None:
    path = tmp_path / "positions.sqlite"
    if kind == "missing folder":
        path = tmp_path / "missing" / "positions.sqlite"
    elif kind == "a folder":
        path.mkdir()
    elif kind == "not a database":
        path.write_text("this is not a database file" * 20)
    else:
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 999")
        database.close()
    sink = closing(sink_at(path))
    with pytest.raises(SinkUnusable) as error:
        await sink.open()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "invalid",
    [
        stored(2, event=2**63),
        stored(2, device="\ud800"),
        message(2, message="\ud800"),
        StoredPosition(stored(2).position, stored(2).digest, "teltonika", "8E", None),  # type: ignore[arg-type]
    ],
    ids=["number", "text", "message", "missing"],
)
@ensureDeferred
async def test_sqlite_refuses_a_batch_with_invalid_data(
    invalid: StoredPosition, sink: SQLiteSink, path: Path
) -> None:
    with pytest.raises(BatchRefused):
        await sink.store(Batch([stored(1), invalid], CHECKPOINT))
    assert rows(path, "SELECT count(*) FROM positions") == [(0,)]


@ensureDeferred
async def test_sqlite_stores_messages_in_their_own_table(sink: SQLiteSink, path: Path) -> None:
    binary = message(2, message={"__buffer_b64": "AP8="}, message_type="x", report="GTINF")
    with_names = evolve(stored(3, generation_type=5), named={"Ignition": {"value": 1}})
    batch = Batch([message(1), binary, with_names], CHECKPOINT)
    assert await sink.store(batch) == 3
    assert await sink.store(batch) == 0
    assert rows(path, "SELECT type, name, message, attributes FROM messages ORDER BY ts") == [
        (6, None, "RV:07 GPS:1", '{"message":"RV:07 GPS:1","message_type":6}'),
        (
            *(None, "GTINF", None),
            '{"message":{"__buffer_b64":"AP8="},"message_type":"x","report":"GTINF"}',
        ),
    ]
    assert rows(path, "SELECT generation_type, named FROM positions") == [
        (5, '{"Ignition":{"value":1}}')
    ]
    assert rows(path, "SELECT generation_type, named FROM last_positions") == [
        (5, '{"Ignition":{"value":1}}')
    ]


@ensureDeferred
async def test_sqlite_stores_different_messages_of_one_millisecond(sink: SQLiteSink) -> None:
    assert await sink.store(Batch([message(1), message(1, message="another")], CHECKPOINT)) == 2


_INSERT_AT_1 = """
INSERT INTO positions (
    device_id, ts, digest, vendor, codec, latitude, longitude, altitude, angle, speed,
    satellites, priority, event, attributes, received_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@ensureDeferred
async def test_upgraded_database_equals_a_new_one(tmp_path: Path, closing: Closing) -> None:
    # The content is compared, too: version 1 stored messages in the table positions.
    no_coordinates: dict[str, Any] = dict.fromkeys(
        ("latitude", "longitude", "altitude", "angle", "speed", "satellites"), None
    )
    records = [
        *(stored(1), stored(2, satellites=0), stored(3, **no_coordinates), message(4)),
        message(5, message={"__buffer_b64": "AP8="}, message_type=6),
        message(6, message='say "ë\\"', imei="1"),
        message(7, message=None, message_type=6),
    ]
    fresh = closing(sink_at(tmp_path / "fresh.sqlite"))
    await fresh.open()
    await fresh.store(Batch(records, CHECKPOINT))
    old = sqlite3.connect(tmp_path / "upgraded.sqlite", isolation_level=None)
    assert upgrade(old, "", target=1) == (0, 1)
    for one in records:
        old.execute(_INSERT_AT_1, batch._row(one)[:-3])
    old.execute("ATTACH DATABASE ? AS fresh", (str(tmp_path / "fresh.sqlite"),))
    columns = ", ".join(row[1] for row in old.execute("PRAGMA main.table_info(last_positions)"))
    for table, kept in (("last_positions", columns), ("checkpoints", "*")):
        into = f"({columns})" if kept == columns else ""
        old.execute(f"INSERT INTO main.{table} {into} SELECT {kept} FROM fresh.{table}")
    old.close()
    upgraded = closing(sink_at(tmp_path / "upgraded.sqlite"))
    await upgraded.open()

    def everything(path: Path) -> dict[str, Any]:
        tables = rows(path, "SELECT name, sql FROM sqlite_master ORDER BY name")
        names = [name for name, sql in tables if sql and sql.startswith("CREATE TABLE")]
        names.remove("schema_migrations")  # with the time of the upgrade
        return {"": tables} | {name: rows(path, f"SELECT * FROM {name}") for name in names}

    assert everything(tmp_path / "upgraded.sqlite") == everything(tmp_path / "fresh.sqlite")
    assert len(rows(tmp_path / "fresh.sqlite", "SELECT * FROM messages")) == 4


@pytest.mark.parametrize("version", [0, 1])
@ensureDeferred
async def test_old_database_is_upgraded_only_with_permission(
    version: int, path: Path, closing: Closing
) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    upgrade(database, "", target=version)
    database.close()
    before = rows(path, "SELECT * FROM sqlite_master")
    with pytest.raises(SinkUnusable, match=rf"\b{version}\b.*tracker-admin migrate --sink"):
        await closing(sink_at(path, migrate=False)).open()
    assert rows(path, "SELECT * FROM sqlite_master") == before
    await closing(sink_at(path)).open()
    await closing(sink_at(path, migrate=False)).open()
