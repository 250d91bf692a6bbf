"""``tracker-admin positions`` with real databases."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.admin import Ended, admin
from tests.integration.storage.batches import CHECKPOINT, DEVICE, message, stored
from tests.servers import free_port
from tests.system.processes import environment
from tracker.admin.exitcodes import ExitCode
from tracker.interfaces import Batch
from tracker.storage.reader import LAST
from tracker.storage.sinks import make_sink, migrate_sink

SILENT = "356307042441021"
"""A device without a place."""


async def filled(url: str) -> str:
    """Store positions of two devices in a sink, and return its URL."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    sink = make_sink(reactor, url)
    await sink.open()
    await sink.store(Batch([stored(1), stored(2, speed=44), message(9, SILENT)], CHECKPOINT))
    await sink.close()
    return url


def positions(*arguments: str, **variables: str) -> Ended:
    return admin("positions", *arguments, env=environment(**variables))


def assert_fails(ended: Ended, code: ExitCode, *texts: str) -> None:
    """Assert that a command has failed with one line of standard error."""
    assert (ended.returncode, ended.stdout) == (code, "")
    (line,) = ended.stderr.splitlines()
    assert all(text in line for text in texts), line


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'positions.sqlite'}"
    found: str = request.getfixturevalue("database")
    return found


@ensureDeferred
async def test_last_position_of_each_device_is_a_row(url: str) -> None:
    ended = positions("--sink", await filled(url))
    assert (ended.returncode, ended.stderr) == (0, "")
    heading, *rows = (line.split() for line in ended.stdout.splitlines())
    assert " ".join(heading) == "DEVICE ID LAST CONTACT TIME LATITUDE LONGITUDE SPEED SATS"
    time = "2026-11-22T10:00:02.000Z"
    assert rows == [
        [DEVICE, time, time, "41.3275", "19.8187", "44", "14"],
        [SILENT, "2026-11-22T10:00:09.000Z", "-", "-", "-", "-", "-"],
    ]


@ensureDeferred
async def test_positions_as_json_have_all_fields(url: str) -> None:
    first, second = json.loads(positions("--sink", await filled(url), "-o", "json").stdout)
    assert tuple(first) == tuple(second) == LAST
    assert (first["latitude"], first["altitude"], first["vendor"]) == (41.3275, -6, "teltonika")
    assert (second["last_contact"], second["ts"]) == ("2026-11-22T10:00:09.000Z", None)


@ensureDeferred
async def test_further_positions_than_the_limit_are_noted(tmp_path: Path) -> None:
    url = await filled(f"sqlite:{tmp_path / 'positions.sqlite'}")
    ended = positions("--sink", url, "--limit", "1")
    assert len(ended.stdout.splitlines()) == 2
    assert "--limit 1" in ended.stderr
    assert positions("--sink", url, "--limit", "2").stderr == ""


@ensureDeferred
async def test_sink_of_positions_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    url = await filled(f"sqlite:{tmp_path / 'positions.sqlite'}")
    secret = tmp_path / "sink"
    secret.write_text(url)
    secret.chmod(0o600)
    for variables in ({"TRACKER_SINK": url}, {"TRACKER_SINK_FILE": str(secret)}):
        assert DEVICE in positions(**variables).stdout


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE last_positions SET latitude = char(27) || '[2J', longitude = x'ff', speed = 1e999",
        "UPDATE last_positions SET ts = 1e300, last_contact = -9e18, vendor = 7, satellites = 'x'",
        "UPDATE last_positions SET ts = 'yesterday', device_id = char(27) || ']0;x' || device_id",
    ],
)
@ensureDeferred
async def test_strange_values_in_the_database_are_printable(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "positions.sqlite"
    url = await filled(f"sqlite:{path}")
    with sqlite3.connect(path) as database:
        database.execute(statement)
    for output in ("table", "json"):
        ended = positions("--sink", url, "-o", output)
        assert ended.returncode == 0
        assert ended.stdout.replace("\n", "").isprintable()


def test_no_positions_yet_is_said(url: str) -> None:
    migrate_sink(url)
    ended = positions("--sink", url)
    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) == 1
    assert "No device has reported yet." in ended.stderr


def test_sink_without_tables_is_an_error_that_says_what_to_do(database: str) -> None:
    ended = positions("--sink", database)
    assert_fails(ended, ExitCode.FAILED, "tracker-admin migrate", "last_positions")


def test_missing_database_of_positions_is_an_error_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite"
    assert_fails(positions("--sink", f"sqlite:{path}"), ExitCode.UNREACHABLE, str(path))
    assert not path.exists()


def test_unreachable_database_of_positions_is_named_without_its_password() -> None:
    url = f"postgresql://fleet:secret@127.0.0.1:{free_port()}/tracker"
    ended = positions("--sink", url)
    assert_fails(ended, ExitCode.UNREACHABLE, "127.0.0.1", "fleet@")
    assert "secret" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [((), "--sink"), (("--sink", "jsonlines:x"), "jsonlines"), (("--sink", "mysql:x"), "mysql")],
)
def test_sink_that_cannot_be_read_is_bad_usage(arguments: tuple[str, ...], text: str) -> None:
    assert_fails(positions(*arguments), ExitCode.BAD_USAGE, text)
