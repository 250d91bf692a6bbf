"""Checks of real databases and files, with and without problems."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import evolve
from click.testing import CliRunner
from pytest_twisted import ensureDeferred

from tests.integration.admin.doctor import Report
from tests.integration.storage.batches import CHECKPOINT, processed, stored
from tests.replyproxy import reply_proxy
from tests.servers import PostgresServer, free_port
from tests.waiting import wait_for
from tracker.admin.cli import main
from tracker.interfaces import Batch, StoredPosition
from tracker.observe.examination import Examination
from tracker.observe.findings import Finding, Status
from tracker.storage.checks import examine_sink
from tracker.storage.migrations import migrations
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.checks import reachable
from tracker.storage.postgresql.connection import Connection
from tracker.storage.sinks import make_sink, migrate_sink

WARNING, FAILURE, SKIPPED, OK = Status.WARNING, Status.FAILURE, Status.SKIPPED, Status.OK


async def examine(url: str | None, seconds: float = 10.0) -> Report:
    """Examine a sink."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    examination = Examination(reactor, seconds)
    await examine_sink(reactor, examination, url)
    return Report(examination.findings)


def shown(url: str) -> str:
    """Return a URL without its password, as findings show it."""
    return url.replace(f":{PostgresServer.PASSWORD}@", "@")


def apply_fix(fix: str, url: str) -> None:
    """Check that a fix is a migration, and run it."""
    program, *arguments = fix.split()
    assert program == "tracker-admin"
    assert arguments[:2] == ["migrate", "--sink"]
    result = CliRunner().invoke(main, ["migrate", "--sink", url])
    assert result.exit_code == 0, result.output


# PostgreSQL


@pytest.fixture
def healthy(postgres: PostgresServer) -> PostgresServer:
    """Return a durable server with our tables."""
    postgres.restart("-c", "fsync=on")
    migrate_sink(postgres.url)
    return postgres


@ensureDeferred
async def test_healthy_database_passes_all_checks(healthy: PostgresServer) -> None:
    report = await examine(healthy.url)
    assert {one.check: one.status for one in report.findings} == {
        f"sink-{name}": OK
        for name in (
            "reachable",
            "schema",
            "version",
            "durability",
            "connections",
            "clocks",
            "rows",
        )
    }
    assert PostgresServer.PASSWORD not in repr(report.findings)


@ensureDeferred
async def test_missing_database_server_is_a_failure() -> None:
    number = free_port()
    report = await examine(f"postgresql://u:s3cret@127.0.0.1:{number}/x")
    finding = report.one("sink-reachable")
    assert finding.status is FAILURE
    assert "refused" in finding.seen
    assert finding.fix.startswith("systemctl start postgresql")
    assert {one.status for one in report.findings[1:]} == {SKIPPED}
    assert len(report.findings) == 7
    assert "s3cret" not in repr(report.findings)


@ensureDeferred
async def test_hanging_database_server_is_a_failure_after_the_time_limit(
    postgres: PostgresServer,
) -> None:
    postgres.suspend()
    begun = time.monotonic()
    try:
        report = await examine(postgres.url, seconds=1)
    finally:
        postgres.resume()
    assert time.monotonic() - begun < 5
    finding = report.one("sink-reachable")
    assert (finding.status, finding.seen) == (
        FAILURE, f"{shown(postgres.url)}: not done within 1s",
    )  # fmt: skip
    assert finding.fix.startswith(f"pg_isready -h 127.0.0.1 -p {postgres.port}")


@ensureDeferred
async def test_refused_database_login_is_a_failure(postgres: PostgresServer) -> None:
    url = postgres.url.replace(PostgresServer.PASSWORD, "wr0ng")
    finding = (await examine(url)).one("sink-reachable")
    assert finding.status is FAILURE
    assert "password authentication failed" in finding.seen
    assert finding.fix.startswith(f"echo 127.0.0.1:{postgres.port}:postgres:tracker:PASSWORD >>")
    assert "wr0ng" not in repr(finding)
    finding = (await examine(postgres.url_of("nowhere"))).one("sink-reachable")
    assert finding.status is FAILURE
    assert finding.fix == f"createdb -h 127.0.0.1 -p {postgres.port} -O tracker nowhere"


@ensureDeferred
async def test_other_schema_versions_of_a_database_are_failures(database: str) -> None:
    latest = len(migrations("postgresql"))
    finding = (await examine(database)).one("sink-schema")
    assert finding.status is FAILURE
    assert finding.fix == f"tracker-admin migrate --sink {shown(database)}"
    apply_fix(finding.fix, database)
    assert (await examine(database)).one("sink-schema").status is OK
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_version (version) VALUES (99)")
    finding = (await examine(database)).one("sink-schema")
    assert finding.status is FAILURE
    assert f"has schema version 99, but this Tracker supports only {latest}" in finding.seen
    assert finding.fix == "/opt/tracker/bin/pip install --upgrade tracker-plane"


@ensureDeferred
async def test_missing_hypertable_is_a_failure(database: str) -> None:
    migrate_sink(database)
    finding = (await examine(f"{database}?timescale=1")).one("sink-schema")
    assert finding.status is FAILURE
    assert "positions is not a hypertable" in finding.seen
    assert finding.fix == f"tracker-admin migrate --sink '{shown(database)}?timescale=1'"


@pytest.mark.parametrize(
    ("option", "others", "status"),
    [
        ("fsync", (), FAILURE),
        ("full_page_writes", ("-c", "fsync=on"), FAILURE),
        ("synchronous_commit", ("-c", "fsync=on"), WARNING),
    ],
)
@ensureDeferred
async def test_server_without_durability_is_reported(
    option: str, others: tuple[str, ...], status: Status, postgres: PostgresServer
) -> None:
    postgres.restart(*others, "-c", f"{option}=off")
    finding = (await examine(postgres.url)).one("sink-durability")
    assert finding.status is status
    assert finding.seen.startswith(f"{option} is off: ")
    assert finding.fix == (
        f"psql {shown(postgres.url)} "
        f"-c 'ALTER SYSTEM SET {option} = on' -c 'SELECT pg_reload_conf()'"
    )


@ensureDeferred
async def test_few_free_connections_are_reported(postgres: PostgresServer) -> None:
    postgres.restart("-c", "max_connections=8", "-c", "superuser_reserved_connections=0")
    finding = (await examine(postgres.url)).one("sink-connections")
    assert finding.status is WARNING
    assert finding.seen.endswith(" of 8")
    assert "ALTER SYSTEM SET max_connections = 16" in finding.fix

    def connection() -> Any:
        """Return a connection; None while connections closed just before still count."""
        with suppress(psycopg.OperationalError):
            return psycopg.connect(postgres.url)
        return None

    with ExitStack() as others:
        for _ in range(7):
            others.enter_context(wait_for(connection, "a connection is free"))
        finding = (await examine(postgres.url)).one("sink-connections")
        assert (finding.status, finding.seen) == (FAILURE, "free connections: 0 of 8")
        others.enter_context(wait_for(connection, "a connection is free"))
        finding = (await examine(postgres.url)).one("sink-reachable")
        assert finding.status is FAILURE
        assert "ALTER SYSTEM SET max_connections" in finding.fix


@ensureDeferred
async def test_unsupported_version_is_a_failure(healthy: PostgresServer) -> None:
    with psycopg.connect(healthy.url) as connection:
        version = str(connection.info.server_version).encode()
    with reply_proxy(healthy.port, lambda reply: reply.replace(version, b"120005")) as port:
        url = healthy.url.replace(f":{healthy.port}/", f":{port}/")
        finding = (await examine(url)).one("sink-version")
    assert finding.status is FAILURE
    assert finding.seen.endswith("13 or later is required")
    assert finding.fix.startswith("apt-get install postgresql")


@ensureDeferred
async def test_connection_of_the_checks_is_read_only(database: str) -> None:
    await examine(database)
    connections: list[Connection] = []
    assert reachable(PostgreSQLAddress.from_url(database), connections).status is OK
    (connection,) = connections
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("CREATE TABLE mark (number integer)")
    assert connection.execute("SELECT to_regclass('schema_version')").fetchone() == (None,)
    connection.close()


# SQLite and files


@ensureDeferred
async def test_healthy_file_passes_all_checks(tmp_path: Path) -> None:
    for url in (f"sqlite:{tmp_path / 'a'}", f"jsonlines:{tmp_path / 'b'}"):
        migrate_sink(url)
        (tmp_path / "b").touch()
        report = await examine(url)
        assert {one.status for one in report.findings} == {OK}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]
    assert [one.seen for one in (await examine("jsonlines:-")).findings] == ["standard output"]


@ensureDeferred
async def test_open_database_file_stays_unchanged(tmp_path: Path) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    url = f"sqlite:{tmp_path / 'a'}"
    sink = make_sink(reactor, url)
    await sink.open()
    try:
        files = sorted(tmp_path.iterdir())
        assert (await examine(url)).one("sink-schema").seen.endswith("schema version 4")
        assert sorted(tmp_path.iterdir()) == files
    finally:
        await sink.close()


@ensureDeferred
async def test_database_file_of_a_killed_processor_stays_unchanged(tmp_path: Path) -> None:
    path, left = tmp_path / "a", tmp_path / "left"
    migrate_sink(f"sqlite:{path}")
    left.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA user_version = 99")
        for one in tmp_path.glob("a*"):
            shutil.copy(one, left)  # a copy of the open files
    before = {one.name: one.stat().st_size for one in left.iterdir()}
    assert set(before) == {"a", "a-wal", "a-shm"}
    assert (
        "has schema version 99" in (await examine(f"sqlite:{left / 'a'}")).one("sink-schema").seen
    )
    assert {one.name: one.stat().st_size for one in left.iterdir()} == before


@ensureDeferred
async def test_other_schema_versions_of_a_file_are_failures(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    url = f"sqlite:{path}"
    finding = (await examine(url)).one("sink-schema")
    assert finding.status is FAILURE
    assert finding.fix == f"tracker-admin migrate --sink '{url}'"
    assert not path.exists()
    database = sqlite3.connect(path)
    database.executescript(migrations("sqlite")[0].script)
    database.execute("PRAGMA user_version = 1")
    finding = (await examine(url)).one("sink-schema")
    latest = len(migrations("sqlite"))
    assert (finding.status, finding.seen) == (
        FAILURE, f"{path} has schema version 1, but this Tracker requires {latest}",
    )  # fmt: skip
    assert CliRunner().invoke(main, ["migrate", "--sink", url]).exit_code == 0
    assert (await examine(url)).one("sink-schema").status is OK
    database.execute("PRAGMA user_version = 99")
    database.close()
    finding = (await examine(url)).one("sink-schema")
    assert finding.fix == "/opt/tracker/bin/pip install --upgrade tracker-plane"


@ensureDeferred
async def test_file_that_is_not_a_database_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("no database, but long enough for a header of one\n" * 100)
    finding = (await examine(f"sqlite:{path}")).one("sink-schema")
    assert finding.status is FAILURE
    assert "not a database" in finding.seen
    assert finding.fix == f"sqlite3 {path} 'PRAGMA integrity_check'"


@pytest.mark.parametrize("kind", ["sqlite", "jsonlines"])
@ensureDeferred
async def test_path_that_is_a_folder_or_is_in_a_missing_one_is_a_failure(
    tmp_path: Path, kind: str
) -> None:
    finding = (await examine(f"{kind}:{tmp_path / 'no' / 'a'}")).one("sink-reachable")
    assert finding == Finding(
        *(FAILURE, f"folder {tmp_path / 'no'} does not exist"),
        *(f"install -d -o tracker -g tracker {tmp_path / 'no'}", "sink-reachable"),
    )
    finding = (await examine(f"{kind}:{tmp_path}")).one("sink-reachable")
    assert finding.status is FAILURE
    assert finding.fix == f"TRACKER_SINK={kind}:{tmp_path / 'positions'}"


@contextmanager
def unprivileged_user() -> Iterator[None]:
    """Run the block with the effective user id of an unprivileged user."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(before)


@ensureDeferred
async def test_missing_write_permissions_are_failures() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tracker-doctor-"))  # not in pytest's private folder
    path = folder / "a"
    try:
        migrate_sink(f"sqlite:{path}")
        folder.chmod(0o777)
        path.chmod(0o444)
        with unprivileged_user():
            finding = (await examine(f"sqlite:{path}")).one("sink-reachable")
        assert (finding.status, finding.fix) == (FAILURE, f"chown tracker:tracker {path}*")
        folder.chmod(0o555)
        with unprivileged_user():
            finding = (await examine(f"sqlite:{path}")).one("sink-reachable")
        assert (finding.status, finding.fix) == (FAILURE, f"chown tracker:tracker {folder}")
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@ensureDeferred
async def test_full_file_system_is_a_failure() -> None:
    finding = (await examine("jsonlines:/proc/positions")).one("sink-space")
    assert (finding.status, finding.seen) == (FAILURE, "0.0 GiB free in /proc")
    assert finding.fix.startswith("du -xh --max-depth=2 /proc")


@ensureDeferred
async def test_checks_are_skipped_without_a_sink() -> None:
    finding = (await examine(None)).one("sink-reachable")
    assert (finding.status, finding.fix) == (SKIPPED, "tracker-admin doctor --sink URL")


# Wrong clocks


def wrong(device_id: str, timestamp: str) -> StoredPosition:
    """Return a record that arrives now."""
    position = evolve(stored(1).position, device_id=device_id, timestamp=timestamp)
    return processed(position, datetime.now(UTC).isoformat(timespec="milliseconds"))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@ensureDeferred
async def test_devices_with_wrong_clocks_are_a_warning(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    url = f"sqlite:{tmp_path / 'clocks.sqlite'}"
    if kind == "postgresql":
        url = request.getfixturevalue("database")
    assert (await examine(url)).one("sink-clocks").status is SKIPPED
    sink = make_sink(reactor, url)
    await sink.open()
    try:
        assert (await examine(url)).one("sink-clocks").status is OK
        late = [wrong(str(number), "9999-01-01T00:00:00.000Z") for number in range(7)]
        old = evolve(wrong("8", "1970-01-01T00:00:00.000Z"), received_at="2000-01-01T00:00:00.000Z")
        await sink.store(Batch([*late, old], CHECKPOINT))
        finding = (await examine(url)).one("sink-clocks")
    finally:
        await sink.close()
    assert finding.status is WARNING
    assert finding.seen.startswith("7 devices")
    assert finding.seen.endswith(" and 2 more")
    assert finding.seen.count("(ahead)") == 5
    assert finding.fix.startswith("tracker-admin watch ")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@ensureDeferred
async def test_wrong_last_positions_of_an_earlier_version_are_a_warning(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    url = f"sqlite:{tmp_path / 'rows.sqlite'}"
    if kind == "postgresql":
        url = request.getfixturevalue("database")
    assert (await examine(url)).one("sink-rows").status is SKIPPED
    sink = make_sink(reactor, url)
    await sink.open()
    try:
        assert (await examine(url)).one("sink-rows").status is OK
        position = evolve(stored(1).position, timestamp="2080-01-01T00:00:00.000Z")
        await sink.store(Batch([evolve(stored(1), position=position)], CHECKPOINT))
        finding = (await examine(url)).one("sink-rows")
        assert finding.status is WARNING
        assert ": 1, stored" in finding.seen
        assert finding.fix == f"tracker-admin repair --sink {shown(url)}"
        assert CliRunner().invoke(main, ["repair", "--sink", url]).exit_code == 0
        assert (await examine(url)).one("sink-rows").status is OK
    finally:
        await sink.close()
