"""``tracker-admin streams adopt``, ``replay`` and ``dead`` with the streams of several vendors."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.integration.admin.test_streams import STREAM, admin, append_dead
from tests.servers import RedisServer
from tests.unit.plainvendor import install
from tracker.position import Position, iso_milliseconds


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the stream of a second vendor, whose positions have the codec ``plain``."""
    install(monkeypatch)
    return "telemetry:acme"


def append_plain(redis: RedisServer, stream: str, codec: str = "plain") -> None:
    """Append a position of the second vendor."""
    entry = Position("1234", iso_milliseconds(0), None, None, None, None, None, None, 0, 0, {})
    redis.client.xadd(stream, entry.to_entry(codec)._asdict())


@pytest.mark.parametrize("name", ["telemtry:acme", "positions"])
def test_adopted_entries_go_to_the_stream_of_their_vendor(
    redis: RedisServer, acme: str, name: str
) -> None:
    append_plain(redis, name, "8" if name == "telemtry:acme" else "plain")
    assert admin(redis, "streams", "adopt", name).startswith(f"1 entry moved to {acme};")


def test_entries_are_not_adopted_by_the_stream_of_another_vendor(
    redis: RedisServer, acme: str
) -> None:
    append_plain(redis, "positions")
    output = admin(redis, "streams", "adopt", "positions", "--to", STREAM, code=2)
    assert f"--to {STREAM}: the positions in positions are of acme, not of teltonika." in output
    assert redis.client.xlen("positions") == 1


def test_adoption_of_positions_of_an_unknown_vendor_requires_a_target(
    redis: RedisServer, acme: str
) -> None:
    append_plain(redis, "positions", "other")
    output = admin(redis, "streams", "adopt", "positions", code=2)
    assert "Vendor of stream positions unknown. Add --to: " in output
    assert acme in output
    assert "moved to" in admin(redis, "streams", "adopt", "positions", "--to", acme)


@pytest.mark.parametrize(
    ("stream", "codec", "arguments", "vendor"),
    [
        ("telemetry:acme", "8", (), "acme"),
        ("positions", "plain", (), "acme"),
        ("positions", "8", (), "teltonika"),
        ("positions", "other", ("--vendor", "acme"), "acme"),
        ("positions", "plain", ("--vendor", "acme"), "acme"),
    ],
)
def test_replayed_positions_get_the_vendor_of_their_stream(
    redis: RedisServer, acme: str, tmp_path: Path, *, stream: str, codec: str,
    arguments: tuple[str, ...], vendor: str,
) -> None:  # fmt: skip
    append_plain(redis, stream, codec)
    sink = tmp_path / "positions.sqlite"
    admin(redis, "replay", "--stream", stream, "--sink", f"sqlite:{sink}", *arguments)
    with sqlite3.connect(sink) as database:
        assert database.execute("SELECT vendor FROM positions").fetchall() == [(vendor,)]


@pytest.mark.parametrize(
    ("codec", "arguments", "reason"),
    [
        ("other", (), "Vendor of stream positions unknown. Add --vendor: "),
        ("plain", ("--vendor", "teltonika"), "the positions in positions are of acme."),
        ("plain", ("--vendor", "unknown"), "Unknown vendor 'unknown'."),
    ],
)
def test_replay_for_a_wrong_vendor_stores_nothing(
    redis: RedisServer, acme: str, *, codec: str, arguments: tuple[str, ...], reason: str
) -> None:
    append_plain(redis, "positions", codec)
    command = ("replay", "--stream", "positions", "--sink", "jsonlines:-", *arguments)
    output = admin(redis, *command, code=2)
    assert reason in output
    assert "device_id" not in output


def test_dead_letters_of_each_vendor_are_in_its_own_stream(redis: RedisServer, acme: str) -> None:
    append_dead(redis, 1)
    assert json.loads(admin(redis, "dead", "list", "--vendor", "acme", "-o", "json")) == []
    assert len(json.loads(admin(redis, "dead", "list", "-o", "json"))) == 1
    both = ("--vendor", "acme", "--stream", STREAM)
    assert "Give --vendor or --stream, not both." in admin(redis, "dead", "list", *both, code=2)
