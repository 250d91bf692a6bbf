"""Skipped entries on a real Redis: ``skipped``, ``replay`` and the doctor's findings."""

from __future__ import annotations

import json
import shlex
import sqlite3
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tests.admin import admin as tracker_admin
from tests.integration.admin.test_streams import STREAM, admin, append
from tests.servers import RedisServer
from tests.system.processes import BIN, environment, stored
from tracker.keys import checkpoint

KEY = checkpoint(STREAM)


def wide(entry_id: str) -> str:
    milliseconds, _, sequence = entry_id.partition("-")
    return f"{milliseconds.zfill(20)}-{sequence.zfill(20)}"


@pytest.fixture
def skipped(redis: RedisServer) -> list[str]:
    """Append entries of which the group has skipped all but the first two; return their IDs."""
    ids = append(redis, *range(20, 0, -1))
    redis.client.xgroup_create(STREAM, "processor", "$")
    redis.client.zadd(KEY, {f"{wide('0-0')}:{wide(ids[1])}": 0})
    return ids


@pytest.fixture
def sink(tmp_path: Path) -> Path:
    """Return a database with the checkpoint of a processor."""
    path = tmp_path / "positions.sqlite"
    tracker_admin("migrate", "--sink", f"sqlite:{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO checkpoints VALUES (?, 'processor', '1-0')", [STREAM])
    return path


def ranges(redis: RedisServer) -> list[tuple[str, str, int]]:
    ended = tracker_admin("skipped", "list", "-o", "json", env=environment(REDIS_URL=redis.url))
    found = [(one["first"], one["last"], one["entries"]) for one in json.loads(ended.stdout)]
    assert ended.returncode == bool(found)
    return found


def test_skipped_entries_are_listed(redis: RedisServer, skipped: list[str]) -> None:
    assert ranges(redis) == [(skipped[2], skipped[19], 18)]
    heading, row = admin(redis, "skipped", "list", code=1).splitlines()
    assert heading.split()[:2] == ["STREAM", "ENTRIES"]
    assert row.split()[:4] == [STREAM, "18", skipped[2], skipped[19]]


def test_stream_without_a_checkpoint_is_named(redis: RedisServer) -> None:
    append(redis, 1)
    ended = tracker_admin("skipped", "list", env=environment(REDIS_URL=redis.url))
    assert ended.returncode == 0
    assert f"{STREAM}: no processor has published a checkpoint" in ended.stderr


def test_key_that_is_not_a_checkpoint_is_an_error(redis: RedisServer, skipped: list[str]) -> None:
    redis.client.delete(KEY)
    redis.client.set(KEY, "text")
    assert "not a sorted set" in admin(redis, "skipped", "list", code=1)


def test_replay_settles_the_entries_that_it_stores(
    redis: RedisServer, skipped: list[str], sink: Path
) -> None:
    ended = tracker_admin(
        *("replay", "--stream", STREAM, "--from", skipped[4], "--to", skipped[9]),
        *("--sink", f"sqlite:{sink}"),
        env=environment(REDIS_URL=redis.url),
    )
    assert ended.returncode == 0
    assert "6 skipped entries settled, 12 left" in ended.stderr
    assert len(stored(sink)) == 6
    assert ranges(redis) == [(skipped[2], skipped[3], 2), (skipped[10], skipped[19], 10)]


def test_replay_does_not_settle_malformed_entries(
    redis: RedisServer, skipped: list[str], sink: Path
) -> None:
    redis.client.xadd(STREAM, {"payload": "{"})
    last = redis.client.xadd(STREAM, {"payload": "{"}).decode()
    append(redis, -5, -6)
    redis.client.xgroup_setid(STREAM, "processor", "$")
    ended = tracker_admin(
        *("replay", "--stream", STREAM, "--sink", f"sqlite:{sink}"),
        env=environment(REDIS_URL=redis.url),
    )
    assert ended.returncode == 1
    assert "20 skipped entries settled, 2 left" in ended.stderr
    ((_, found, entries),) = ranges(redis)
    assert (found, entries) == (last, 2)
    output = admin(redis, "skipped", "discard", STREAM, "--yes")
    assert f"to {last} (" in output
    assert f"{STREAM}: 2 entries discarded" in output
    assert ranges(redis) == []
    assert redis.client.zcard(KEY) == 1
    assert "no skipped entries" in admin(redis, "skipped", "discard", STREAM, "--yes")


def test_replay_into_another_database_settles_nothing(
    redis: RedisServer, skipped: list[str], tmp_path: Path
) -> None:
    ended = tracker_admin(
        *("replay", "--stream", STREAM, "--sink", f"sqlite:{tmp_path / 'copy.sqlite'}"),
        env=environment(REDIS_URL=redis.url),
    )
    assert ended.returncode == 0
    assert "Skipped entries are not settled" in ended.stderr
    assert len(ranges(redis)) == 1


def test_discard_asks_for_confirmation(redis: RedisServer, skipped: list[str]) -> None:
    assert "Add --yes" in admin(redis, "skipped", "discard", STREAM, code=2)
    assert len(ranges(redis)) == 1


def test_fix_of_the_doctor_settles_skipped_entries(
    redis: RedisServer, skipped: list[str], sink: Path
) -> None:
    variables = environment(REDIS_URL=redis.url, TRACKER_SINK=f"sqlite:{sink}")

    def findings() -> list[dict[str, str]]:
        ended = tracker_admin("doctor", "-o", "json", env=variables)
        return [one for one in json.loads(ended.stdout) if one["check"] == "skipped-entries"]

    (finding,) = findings()
    assert finding["status"] == "failure"
    assert {"18", skipped[2], skipped[19]} <= set(finding["seen"].split())
    command = finding["fix"].replace('"$TRACKER_SINK"', f"sqlite:{sink}")
    assert tracker_admin(*shlex.split(command)[1:], env=variables).returncode == 0
    (finding,) = findings()
    assert finding["status"] == "ok"


def test_lag_reports_skipped_entries(redis: RedisServer, skipped: list[str]) -> None:
    ended = tracker_admin("lag", env=environment(REDIS_URL=redis.url))
    assert f"Streams with skipped entries: {STREAM}." in ended.stderr
    (row,) = json.loads(admin(redis, "lag", "-o", "json"))
    assert row["skipped"] == 18
    assert admin(redis, "lag").splitlines()[1].endswith(" 18 skipped")
    redis.client.delete(KEY)
    (row,) = json.loads(admin(redis, "lag", "-o", "json"))
    assert row["skipped"] is None


def test_missing_stream_and_other_key_are_errors(redis: RedisServer, skipped: list[str]) -> None:
    redis.client.set("text", "x")
    for command in (("list", "--stream"), ("discard", "--yes")):
        assert "not found" in admin(redis, "skipped", *command, "nothing", code=1)
        assert "not a stream" in admin(redis, "skipped", *command, "text", code=1)
    redis.client.delete(KEY)
    assert "No processor" in admin(redis, "skipped", "discard", "--yes", STREAM, code=1)


def test_all_entries_are_discarded_or_settled_however_many(
    redis: RedisServer, skipped: list[str], sink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.log.redis.checkpoint.MAX_EXAMINED", 1)
    append(redis, *range(-10, -1210, -1))
    redis.client.xgroup_setid(STREAM, "processor", "$")
    before = redis.client.zrange(KEY, 0, -1)
    assert f"{STREAM}: 1,218 entries discarded" in admin(
        redis, "skipped", "discard", STREAM, "--yes"
    )
    assert ranges(redis) == []
    redis.client.delete(KEY)
    redis.client.zadd(KEY, dict.fromkeys(before, 0))
    fixes = [
        fix
        for one in json.loads(admin(redis, "doctor", "-o", "json", code=1))
        if one["check"] == "skipped-entries" and (fix := one.get("fix"))
    ]
    command = shlex.split(fixes[-1].replace("$TRACKER_SINK", f"sqlite:{sink}"))
    ended = tracker_admin(*command[1:], env=environment(REDIS_URL=redis.url))
    assert ended.returncode == 0
    assert ranges(redis) == []


def test_lag_that_follows_reports_skipped_entries(redis: RedisServer, skipped: list[str]) -> None:
    command = [str(BIN / "tracker-admin"), "lag", "--follow"]
    variables = environment(REDIS_URL=redis.url)
    with Popen(command, stdout=PIPE, text=True, env=variables) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(" consumers=0 18 skipped\n")
        process.terminate()
