"""Repair of rows that earlier versions have stored, and ``tracker-admin repair``."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from attrs import define, evolve
from click.testing import CliRunner, Result

from tests.integration.storage.batches import CHECKPOINT, DEVICE, message, processed, stored
from tests.servers import RedisServer
from tests.waiting import wait_for
from tracker.admin.cli import main
from tracker.clock import DEFAULT_CLOCKS
from tracker.interfaces import Batch, SinkUnusable, StoredPosition
from tracker.keys import DEVICE_MODELS
from tracker.storage.postgresql import batch as postgresql
from tracker.storage.postgresql import repair as postgresql_repair
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import connect
from tracker.storage.repair import FIRST, PAGE_LENGTH, PAGE_ROWS, Counts, Names, Repair
from tracker.storage.sinks import migrate_sink, open_repair
from tracker.storage.sqlite import batch as sqlite
from tracker.storage.sqlite import repair as sqlite_repair
from tracker.vendors.teltonika.vendor import Teltonika

NOW = datetime.fromisoformat("2026-11-22T12:00:00Z")
AHEAD = "2080-01-01T00:00:00.000Z"
ROLLED_OVER = "2007-04-08T10:00:00.000Z"
OPTIONS: dict[str, Any] = {"names": False}
COMMAND = (sys.executable, "-c", "from tracker.admin.cli import main; main()", "repair")


def iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@define
class Database:
    """A database, and a sink without the checks of a processor."""

    url: str
    database: Any

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        found = self.database.execute(query)
        return found.fetchall() if found.description else []

    def store(self, *records: StoredPosition) -> None:
        batch = Batch(list(records), CHECKPOINT)
        if self.url.startswith("sqlite:"):
            sqlite.store(self.database, batch, DEFAULT_CLOCKS)
        else:
            postgresql.store(self.database, batch)

    def store_as_before(self, *records: StoredPosition) -> None:
        """Store records like the version before marks: it trusts times and coordinates."""
        trusted = [one for one in records if one.position.has_fix()]
        self.store(*records)
        for table in ("positions", "messages", "last_positions"):
            self.execute(f"UPDATE {table} SET extra = NULL")
        self.execute("UPDATE last_positions SET clock_error = NULL, clock_error_ts = NULL")
        self.execute("UPDATE last_positions SET clock_error_at = NULL")
        for device in {one.position.device_id for one in records}:
            own = [one for one in records if one.position.device_id == device]
            contact = max(one.position.timestamp for one in own)
            self.execute(
                f"UPDATE last_positions SET last_contact = '{contact}' WHERE device_id = '{device}'"
            )
            fixes = [one for one in own if one in trusted]
            if fixes:
                last = max(fixes, key=lambda one: (one.position.timestamp, one.digest))
                self._point(device, last)

    def _point(self, device: str, last: StoredPosition) -> None:
        columns = [name for name in postgresql.RECORD if name != "extra"]
        hexadecimal = last.digest.hex()
        literal = f"x'{hexadecimal}'" if self.url.startswith("sqlite:") else f"'\\x{hexadecimal}'"
        self.execute(
            f"UPDATE last_positions SET (ts, {', '.join(columns)}) = (SELECT ts, "
            f"{', '.join(columns)} FROM positions AS p WHERE p.device_id = '{device}' "
            f"AND p.ts = '{last.position.timestamp}' AND p.digest = {literal}) "
            f"WHERE device_id = '{device}'"
        )

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows of positions, messages and last positions."""
        return {
            table: sorted(self.execute(f"SELECT {columns} FROM {table}"), key=repr)
            for table, columns in (
                ("positions", "device_id, ts, digest, extra, named"),
                ("messages", "device_id, ts, digest, extra"),
                (
                    "last_positions",
                    f"device_id, last_contact, ts, {', '.join(postgresql.RECORD)}, "
                    "clock_error, clock_error_ts, clock_error_at",
                ),
            )
        }

    def repair(self, names: Names | None = None, **changes: Any) -> Counts:
        """Repair all rows, and return the counts."""
        repair = self.begin(names, **changes)
        try:
            repair.resume()
            return repair.run()
        finally:
            repair.database.close()

    def begin(self, names: Names | None = None, **changes: Any) -> Repair:
        database = open_repair(self.url, DEFAULT_CLOCKS, changes.get("dry_run", False))
        options = changes.pop("options", OPTIONS)
        return Repair(database, DEFAULT_CLOCKS, names or Names(), options, **changes)


Make = Callable[[str], Database]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes a database with the tables of this version."""
    with ExitStack() as stack:

        def made(name: str) -> Database:
            if request.param == "sqlite":
                url = f"sqlite:{tmp_path / name}.sqlite"
                migrate_sink(url)
                file = sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None)
                file.execute("PRAGMA journal_mode = WAL")
                return Database(url, stack.enter_context(closing(file)))
            url = request.getfixturevalue("database")
            if name != "old":
                base = url.rpartition("/")[2].partition("?")[0]
                other = url.replace(base, f"{base}_{name}")
                with psycopg.connect(url, autocommit=True) as admin:
                    admin.execute(f"DROP DATABASE IF EXISTS {base}_{name} WITH (FORCE)")
                    admin.execute(f"CREATE DATABASE {base}_{name}")
                url = other
            return sink(stack, url)

        yield made


def sink(stack: ExitStack, url: str) -> Database:
    migrate_sink(url)
    connection = stack.enter_context(connect(PostgreSQLAddress.from_url(url)))
    connection.execute(postgresql.CREATE_STAGING)
    postgresql.prepare(connection, DEFAULT_CLOCKS)
    return Database(url, connection)


@pytest.fixture
def old(make: Make) -> Database:
    return make("old")


def records(count: int) -> list[StoredPosition]:
    """Return records of seven devices, many of which are not places, as this version stores them.

    The last device has no place at all.
    """
    chance, made = Random(18), []
    for number in range(count):
        device = f"90000000000000{number % 7}"
        arrival = NOW + timedelta(seconds=number)
        time = iso(arrival - timedelta(milliseconds=chance.randrange(5_000)))
        changes: dict[str, Any] = {"longitude": 19 + number / 1e5, "attributes": {"66": number}}
        kind = chance.randrange(12) if number % 7 < 6 else 1
        if kind == 1:
            changes["satellites"] = 0
        elif kind == 2:
            changes |= {"latitude": 0.0, "longitude": 0.0}
        elif kind == 3:
            changes["latitude"] = 91.0
        elif kind == 4:
            time = AHEAD
        elif kind == 5:
            time = ROLLED_OVER
        elif kind == 6:
            time = "1970-01-01T00:00:00.000Z"
        elif kind == 7:
            changes |= dict.fromkeys(("latitude", "longitude", "satellites"))
        one = stored(0, device, timestamp=time, **changes)
        if kind == 8:
            one = message(0, device, message=str(number), message_type=number)
            one = evolve(one, position=evolve(one.position, timestamp=time))
        made.append(processed(one.position, iso(arrival)))
    return made


def test_repaired_database_holds_what_this_version_would_have_stored(make: Make) -> None:
    old, new = make("old"), make("new")
    everything = records(3 * PAGE_ROWS)
    new.store(*everything)
    old.store_as_before(*everything)
    assert old.content() != new.content()
    counts = old.repair()
    assert old.content() == new.content()
    marks = [one.extra for one in everything]
    assert counts == Counts(
        rows=len(everything),
        no_fix=sum(one.fix is False for one in marks),
        wrong_clock=sum(one.clock is not None for one in marks),
        last_positions=6,
    )
    assert old.repair() == Counts(rows=len(everything))
    assert old.content() == new.content()


def test_dry_run_counts_and_changes_nothing(old: Database) -> None:
    old.store_as_before(*records(200))
    before = old.content()
    counts = old.repair(dry_run=True)
    assert old.content() == before
    assert old.execute("SELECT * FROM repairs") == []
    assert old.repair() == counts
    assert old.content() != before


class Killed(BaseException):
    """The end of a process at an arbitrary step."""


def test_interrupted_repair_continues_where_it_was(make: Make) -> None:
    old, new = make("old"), make("new")
    everything = records(3 * PAGE_ROWS)
    new.store(*everything)
    old.store_as_before(*everything)
    seen: list[tuple[str, int]] = []
    for step in (1, 2, 3):
        repair = old.begin()
        repair.resume()
        left = step

        def report(state: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                seen.append((state.table, state.counts.rows))
                raise Killed

        repair.report = report
        with pytest.raises(Killed):
            repair.run()
        repair.database.close()
    assert [table for table, _ in seen] == ["last_positions", "positions", "positions"]
    resumed = old.begin()
    assert resumed.resume()
    assert resumed.state.counts.rows == 2 * PAGE_ROWS
    assert resumed.run().rows == len(everything)
    resumed.database.close()
    assert old.content() == new.content()


def test_repair_with_other_options_begins_again(old: Database) -> None:
    old.store_as_before(*records(20))
    repair = old.begin()
    repair._save()
    repair.database.close()
    for options, resumed in (({"names": True}, False), (OPTIONS, True)):
        other = old.begin(options=options)
        assert other.resume() is resumed
        other.database.close()
    old.repair()
    finished = old.begin()
    assert not finished.resume()
    finished.database.close()


def test_malformed_row_is_counted_and_left_alone(old: Database) -> None:
    old.store_as_before(stored(1), stored(2, satellites=0))
    malformed = "'{\"fix\": 1}'"
    old.execute(f"UPDATE positions SET extra = {malformed} WHERE satellites = 14")
    counts = old.repair()
    assert (counts.malformed, counts.no_fix) == (1, 1)
    assert json.loads(json.dumps(as_document(old, "satellites = 14"))) == {"fix": 1}


def as_document(database: Database, where: str, column: str = "extra") -> Any:
    ((value,),) = database.execute(f"SELECT {column} FROM positions WHERE {where}")
    return json.loads(value) if isinstance(value, str) else value


def test_names_are_computed_again(old: Database) -> None:
    naming: Any = Teltonika().buildNaming({})
    old.store_as_before(*(stored(second, attributes={"66": 12_000 + second}) for second in (1, 2)))
    wrong = '\'{"Wrong": {"id": 66, "value": 1}}\''
    for table in ("positions", "last_positions"):
        old.execute(f"UPDATE {table} SET named = {wrong}")
    names = Names({"teltonika": naming}, {DEVICE: "FMB920"})
    assert old.repair().named == 0
    assert old.repair(names, options={"names": True}).named == 2
    assert old.repair(names, options={"names": True}).named == 0
    expected = naming.named({"66": 12_002}, None, "FMB920")
    assert expected
    assert as_document(old, "ts = '2026-11-22T10:00:02.000Z'", "named") == expected
    ((last,),) = old.execute("SELECT named FROM last_positions")
    assert (json.loads(last) if isinstance(last, str) else last) == expected


def test_page_is_limited_in_characters(old: Database) -> None:
    long = "x" * (PAGE_LENGTH // 2)
    old.store(*(stored(second, attributes={"66": long}) for second in range(5)))
    repair = old.begin()
    try:
        after, pages = FIRST, []
        while page := repair.database.page("positions", after, attributes=True):
            pages.append(len(page))
            after = page[-1].key
    finally:
        repair.database.close()
    assert pages == [2, 2, 1]


def test_facts_that_an_earlier_version_left_at_a_last_position_are_replaced(
    make: Make,
) -> None:
    # After a rollback, that version moves the last position and leaves its column "extra".
    old = make("old")
    place = stored(1)
    old.store(processed(place.position, iso(NOW)))
    old.execute("UPDATE positions SET extra = NULL")
    old.execute('UPDATE last_positions SET extra = \'{"widths": {"2": [66]}}\'')
    count = sqlite_repair if old.url.startswith("sqlite:") else postgresql_repair
    assert old.execute(count.count_wrong(9)) == [(1,)]
    assert old.repair().last_positions == 1
    assert old.execute("SELECT extra FROM last_positions") == [(None,)]
    assert old.execute(count.count_wrong(9)) == [(0,)]


# PostgreSQL


@pytest.fixture
def database_with_tables(database: str) -> Iterator[Database]:
    with ExitStack() as stack:
        yield sink(stack, database)


def test_place_that_is_stored_meanwhile_stays_the_last_position(
    database_with_tables: Database,
) -> None:
    old = database_with_tables
    old.store_as_before(stored(1), evolve_time(stored(2), AHEAD))
    repair = old.begin()
    with psycopg.connect(old.url) as live, ThreadPoolExecutor(1) as pool:
        live.execute(postgresql.CREATE_STAGING)
        live.execute(
            "UPDATE last_positions SET ts = '2026-11-22T10:00:30Z', latitude = 45, "
            "received_at = '2026-11-22T10:00:30Z', last_contact = '2026-11-22T10:00:30Z'"
        )
        repairing = pool.submit(repair.run)
        wait_for(lambda: waiting(old), "the repair waits for the processor")
        live.commit()
        repairing.result()
    repair.database.close()
    assert old.execute("SELECT latitude FROM last_positions") == [(45.0,)]


def evolve_time(one: StoredPosition, time: str) -> StoredPosition:
    return evolve(one, position=evolve(one.position, timestamp=time), received_at=iso(NOW))


def waiting(database: Database) -> bool:
    return bool(
        database.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tracker-repair' "
            "AND wait_event_type = 'Lock'"
        )
    )


def test_repair_attempts_a_step_again_while_another_session_locks_the_rows(
    database_with_tables: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = database_with_tables
    old.store_as_before(stored(1, satellites=0))
    repair = old.begin()
    repair.database._connection.execute("SET lock_timeout = '50ms'")  # type: ignore[attr-defined]
    pauses: list[float] = []
    with psycopg.connect(old.url) as other:
        other.execute("SELECT FROM positions FOR UPDATE")

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                other.rollback()

        monkeypatch.setattr("tracker.storage.repair.time.sleep", pause)
        assert repair.run().no_fix == 1
    repair.database.close()
    assert len(pauses) == 2
    assert as_document(old, "satellites = 0") == {"fix": False}


def test_second_repair_at_a_time_is_refused(database_with_tables: Database) -> None:
    repair = database_with_tables.begin()
    try:
        with pytest.raises(SinkUnusable, match="another repair"):
            database_with_tables.begin()
        database_with_tables.begin(dry_run=True).database.close()
    finally:
        repair.database.close()
    database_with_tables.begin().database.close()


def test_killed_command_continues_after_its_last_commit(database_with_tables: Database) -> None:
    old = database_with_tables
    good = [stored(0, timestamp=iso(NOW + timedelta(seconds=n))) for n in range(PAGE_ROWS)]
    first, last = f"1{DEVICE[1:]}", f"9{DEVICE[1:]}"
    old.store_as_before(stored(1, first, satellites=0), *good, stored(2, last, satellites=0))
    command = [*COMMAND, "--sink", old.url]
    with psycopg.connect(old.url) as blocking:
        blocking.execute(f"SELECT FROM positions WHERE device_id = '{last}' FOR UPDATE")
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            wait_for(lambda: waiting(old), "the second step waits for a lock")
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        # The server has all of the step, and would commit it without the process.
        old.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'tracker-repair'"
        )
        wait_for(lambda: not waiting(old), "the step has ended")
        blocking.rollback()
    assert as_document(old, f"device_id = '{first}'") == {"fix": False}
    assert as_document(old, f"device_id = '{last}'") is None
    done = subprocess.run(
        [*command, "--sink", old.url], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (
        0,
        f"repaired: {len(good) + 2:,} rows read, 2 without a fix, 0 with a wrong time, "
        "0 named anew, 0 last positions wrong\n",
    )
    assert "Continuing in positions after device" in done.stderr
    assert as_document(old, f"device_id = '{last}'") == {"fix": False}


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["repair", *arguments])


def test_command_prints_counts_and_continues_an_interrupted_repair(old: Database) -> None:
    old.store_as_before(stored(1), stored(2, satellites=0), evolve_time(stored(3), AHEAD))
    expected = (
        "3 rows read, 1 without a fix, 1 with a wrong time, 0 named anew, 1 last position wrong\n"
    )
    result = run("--sink", old.url, "--dry-run")
    assert (result.exit_code, result.stdout) == (0, f"dry run, nothing changed: {expected}")
    result = run("--sink", old.url)
    assert (result.exit_code, result.stdout) == (0, f"repaired: {expected}")


def test_command_takes_the_models_from_redis(old: Database, redis: RedisServer) -> None:
    redis.client.hset(DEVICE_MODELS, DEVICE, "FMB920")
    old.store_as_before(stored(1, attributes={"66": 12_000}))
    command = [*COMMAND, "--sink", old.url, "--names", "--redis", redis.url]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 named anew" in done.stdout
    naming: Any = Teltonika().buildNaming({})
    assert as_document(old, "event = 239", "named") == naming.named({"66": 12_000}, None, "FMB920")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (["--sink", "jsonlines:/tmp/p"], 2, "lines in jsonlines are never changed"),
        (["--sink", "sqlite:/nowhere/p"], 1, "/nowhere/p does not exist"),
        (["--sink", "mysql://h"], 2, "unknown sink"),
        (["--sink", "postgresql://tracker:s3cret@127.0.0.1:1/d"], 3,
         "Cannot use the database postgresql://tracker@127.0.0.1:1/d: connection to server"),
        (["--sink", "sqlite:p", "--names-map", "A=b"], 2, "--names-map requires --names."),
        (["--sink", "sqlite:p", "--default-model", "A"], 2, "--default-model requires --names."),
        (["--sink", "sqlite:p", "--names", "--default-model", "A"], 2, "--default-model"),
        (["--sink", "sqlite:p", "--names", "--names-map", "A=/no"], 2, "No such file"),
        (["--sink", "sqlite:p", "--clock-tolerance", "0"], 2, "--clock-tolerance"),
    ],
)  # fmt: skip
def test_command_reports_errors_in_one_line(
    arguments: list[str], exit_code: int, text: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert text in result.output
    assert "s3cret" not in result.output
    assert len(result.output.splitlines()) == 1


def test_command_requires_the_tables_of_this_version(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "p.sqlite")) as database:
        database.execute("CREATE TABLE other (number integer)")
    result = run("--sink", f"sqlite:{tmp_path / 'p.sqlite'}")
    assert result.exit_code == 1
    assert "run tracker-admin migrate --sink sqlite:" in result.output
