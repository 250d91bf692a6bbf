"""``tracker-admin`` on a real Redis: lag, dead letters, replay."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.admin import admin as tracker_admin
from tests.servers import RedisServer, free_port
from tests.system.processes import environment, stored
from tracker.admin.output import table
from tracker.position import Position, iso_milliseconds

STREAM = "telemetry:teltonika"
DEAD = "telemetry:teltonika:dead"


def admin(redis: RedisServer, *arguments: str, status: int = 0) -> str:
    """Run a command; what it prints."""
    ended = tracker_admin(*arguments, env=environment(REDIS_URL=redis.url))
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout if status == 0 else ended.stdout + ended.stderr


def append(redis: RedisServer, *ages: float) -> list[str]:
    """Positions appended so many seconds ago, oldest first; their IDs."""
    ids = []
    for number, age in enumerate(ages):
        appended = int((time.time() - age) * 1000)
        position = Position(
            "356307042441013", iso_milliseconds(appended), 41.3, 19.8, 110, 214, 43, 14, 0, 0,
            {"239": number},
        )  # fmt: skip
        entry_id = f"{appended}-{number}"
        redis.client.xadd(STREAM, position.to_entry("8E")._asdict(), id=entry_id)
        ids.append(entry_id)
    return ids


def put_aside(redis: RedisServer, count: int) -> list[str]:
    return [
        redis.client.xadd(DEAD, {
            "_id": f"1-{number}", "_stream": STREAM, "_reason": f"reason {number}",
            "_attempts": number, "codec": "8", "payload": b"\xff",
        }).decode()
        for number in range(count)
    ]  # fmt: skip


def test_lag_is_a_table(redis: RedisServer) -> None:
    append(redis, 100, 50, 10)
    assert re.search(rf"^{STREAM} +-$", admin(redis, "lag"), re.MULTILINE)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xreadgroup("processor", "host-1", {STREAM: ">"}, count=1)
    heading, row = admin(redis, "lag").splitlines()
    assert heading.split()[:5] == ["STREAM", "GROUP", "LAG", "PENDING", "OLDEST"]
    stream, group, lag, pending, oldest, consumer = row.split(maxsplit=5)
    assert (stream, group, lag, pending) == (STREAM, "processor", "2", "1")
    assert 100 <= float(oldest.removesuffix("s")) < 130
    assert consumer.startswith("host-1 (1, ")
    redis.client.xdel(STREAM, redis.client.xrange(STREAM)[1][0])
    assert admin(redis, "lag").splitlines()[1].split()[2] == "?"


def test_lag_is_json(redis: RedisServer) -> None:
    assert json.loads(admin(redis, "lag", "-o", "json")) == []
    append(redis, 100)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.set("instance:heartbeat:eu-1", json.dumps({"streams": ["telemetry:new"]}))
    redis.client.xgroup_create("telemetry:new", "other", "0", mkstream=True)
    rows = json.loads(admin(redis, "lag", "-o", "json"))
    assert [(row["stream"], row["group"], row["lag"]) for row in rows] == [
        ("telemetry:new", "other", 0),
        (STREAM, "processor", 1),
    ]
    assert rows[1]["oldest_unprocessed_age"] == pytest.approx(100, abs=30)
    (row,) = json.loads(admin(redis, "lag", "-o", "json", "--stream", STREAM))
    assert row["consumers"] == {}
    assert "there is no stream nowhere" in admin(redis, "lag", "--stream", "nowhere", status=1)


def test_dead_letters_are_listed_in_pages(redis: RedisServer) -> None:
    ids = put_aside(redis, 5)
    listed = tracker_admin("dead", "list", "--redis", redis.url, "--limit", "2")
    rows = listed.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["ID", *ids[:2]]
    assert "1-1" in rows[2]
    assert "reason 1" in rows[2]
    assert listed.stderr == f"There are more: --after {ids[1]}\n"
    rest = json.loads(admin(redis, "dead", "list", "--after", ids[1], "-o", "json"))
    assert [one["id"] for one in rest] == ids[2:]
    assert rest[0] == {
        "id": ids[2], "original_id": "1-2", "attempts": 2, "reason": "reason 2",
    }  # fmt: skip
    assert json.loads(admin(redis, "dead", "list", "--stream", "other", "-o", "json")) == []


def test_dead_letters_that_do_not_fit_into_one_read_are_all_listed_and_retried(
    redis: RedisServer,
) -> None:
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(20):
        pipeline.xadd(DEAD, {"_id": f"1-{number}", "payload": "x" * 1_000_000})
    ids = [entry_id.decode() for entry_id in pipeline.execute()]
    listed = tracker_admin("dead", "list", "--redis", redis.url, "-o", "json")
    assert [one["id"] for one in json.loads(listed.stdout)] == ids
    assert listed.stderr == ""
    assert admin(redis, "dead", "retry", "--all") == "20 retried\n"


def test_a_dead_letter_is_shown_whole(redis: RedisServer) -> None:
    _, entry_id = put_aside(redis, 2)
    shown = admin(redis, "dead", "show", entry_id)
    assert re.search(r"^reason +reason 1$", shown, re.MULTILINE)
    assert re.search(r"^payload +\\xff$", shown, re.MULTILINE)
    document = json.loads(admin(redis, "dead", "show", entry_id, "-o", "json", "--stream", DEAD))
    assert document["fields"] == [["codec", "8"], ["payload", "\\xff"]]
    assert "has no entry 5-5" in admin(redis, "dead", "show", "5-5", status=1)


def test_dead_letters_are_retried(redis: RedisServer) -> None:
    ids = put_aside(redis, 4)
    assert admin(redis, "dead", "retry", ids[0], ids[0]) == "1 retried\n"
    assert "1 retried, 1 not" in admin(redis, "dead", "retry", ids[1], "5-5", status=1)
    assert [fields for _, fields in redis.client.xrange(STREAM)] == [
        {b"codec": b"8", b"payload": b"\xff"}
    ] * 2
    assert admin(redis, "dead", "retry", "--all") == "2 retried\n"
    assert (redis.client.xlen(STREAM), redis.client.xlen(DEAD)) == (4, 0)
    assert admin(redis, "dead", "retry", "--all") == "0 retried\n"


def test_a_dead_letter_that_cannot_be_retried_is_listed_and_does_not_stop_others(
    redis: RedisServer,
) -> None:
    first, last = put_aside(redis, 2)
    empty = redis.client.xadd(DEAD, {"_id": "1-1", "_reason": "\x1b[31m" + "x" * 100_000}).decode()
    fields = [text for number in range(9000) for text in (f"n{number}", "v")]
    redis.client.execute_command("XADD", DEAD, "*", *fields)
    listed = admin(redis, "dead", "list")
    assert len(listed) < 2000
    assert "\x1b" not in listed
    assert "x" * 100_000 in admin(redis, "dead", "show", empty)
    told = admin(redis, "dead", "retry", "--all", status=1)
    assert "3 retried, 1 not" in told
    assert empty in told
    assert first not in told
    assert last not in told
    assert [entry_id.decode() for entry_id, _ in redis.client.xrange(DEAD)] == [empty]
    assert redis.client.xlen(STREAM) == 3


def test_dead_letters_are_dropped(redis: RedisServer) -> None:
    ids = put_aside(redis, 1200)
    assert admin(redis, "dead", "drop", *ids[:3]) == "3 dropped\n"
    assert "0 dropped, 1 not" in admin(redis, "dead", "drop", ids[0], status=1)
    assert admin(redis, "dead", "drop", "--all", "--vendor", "other") == "0 dropped\n"
    assert admin(redis, "dead", "drop", "--all") == "1197 dropped\n"
    assert redis.client.xlen(DEAD) == 0


def test_what_the_processor_puts_aside_comes_back_after_a_retry(
    redis: RedisServer, tmp_path: Path
) -> None:
    ids = append(redis, 50, 40)
    sink = f"sqlite:{tmp_path / 'positions.sqlite'}"
    redis.client.xadd(DEAD, {"_id": ids[0], "_reason": "?", **redis.client.xrange(STREAM)[0][1]})
    redis.client.delete(STREAM)
    assert admin(redis, "dead", "retry", "--all") == "1 retried\n"
    assert "1 read, 1 new, 0 known, 0 bad" in admin(
        redis, "replay", "--stream", STREAM, "--sink", sink
    )


def replay(redis: RedisServer, sink: Path, *arguments: str, status: int = 0) -> str:
    where = ("--stream", STREAM, "--sink", f"sqlite:{sink}")
    said = admin(redis, "replay", *where, *arguments, status=status)
    return said.strip()


def test_replay_stores_what_is_missing(redis: RedisServer, tmp_path: Path) -> None:
    sink = tmp_path / "positions.sqlite"
    append(redis, *[100 - 0.01 * number for number in range(2500)])
    redis.client.xgroup_create(STREAM, "processor", "0")
    groups = redis.client.xinfo_groups(STREAM)
    assert replay(redis, sink) == "replay: 2500 read, 2500 new, 0 known, 0 bad"
    assert len(stored(sink)) == 2500
    assert replay(redis, sink) == "replay: 2500 read, 0 new, 2500 known, 0 bad"
    assert redis.client.xinfo_groups(STREAM) == groups
    assert checkpoints(sink) == []


def checkpoints(sink: Path) -> list[Any]:
    connection = sqlite3.connect(sink)
    try:
        return connection.execute("SELECT * FROM checkpoints").fetchall()
    finally:
        connection.close()


def test_replay_of_a_part(redis: RedisServer, tmp_path: Path) -> None:
    sink = tmp_path / "positions.sqlite"
    ids = append(redis, 100, 90, 80, 70)
    first, last = (
        iso_milliseconds(int(entry_id.partition("-")[0])) for entry_id in (ids[1], ids[2])
    )
    part = ("--from", first, "--to", last)
    assert replay(redis, sink, *part) == "replay: 2 read, 2 new, 0 known, 0 bad"
    part = ("--from", ids[2], "--to", ids[3])
    assert replay(redis, sink, *part) == "replay: 2 read, 1 new, 1 known, 0 bad"
    assert replay(redis, sink, "--to", "1000") == "replay: 0 read, 0 new, 0 known, 0 bad"
    assert replay(redis, sink) == "replay: 4 read, 1 new, 3 known, 0 bad"


def test_replay_shows_what_is_bad(redis: RedisServer, tmp_path: Path) -> None:
    append(redis, 100)
    bad = [redis.client.xadd(STREAM, {"codec": "8"}).decode() for _ in range(25)]
    said = replay(redis, tmp_path / "positions.sqlite", status=1)
    assert "replay: 26 read, 1 new, 0 known, 25 bad" in said
    assert f"{bad[0]}: the field payload is missing" in said
    assert bad[20] not in said
    assert "and 5 more bad ones" in said


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("lag", "--redis", "http://x"), 2, "redis://"),
        (("lag", "-o", "xml"), 2, "'xml' is not one of"),
        (("dead", "show", "now"), 2, "'now' is no ID"),
        (("dead", "retry"), 2, "say which"),
        (("dead", "drop", "1-1", "--all"), 2, "say which"),
        (("replay", "--stream", STREAM), 2, "--sink"),
        (("replay", "--stream", "no", "--sink", "sqlite:x"), 1, "there is no stream no"),
        (("replay", "--stream", STREAM, "--sink", "x:y"), 2, "unknown sink"),
        (("replay", "--stream", STREAM, "--sink", "sqlite:/no/such/x"), 1, "/no/such/x"),
        (("replay", "--stream", STREAM, "--sink", "sqlite:x", "--from", "noon"), 2, "'noon'"),
        (("replay", "--stream", STREAM, "--sink", "sqlite:x", "--to", "20261122"), 2, "'20261122'"),
    ],
)
def test_a_mistake_is_told(
    redis: RedisServer, arguments: tuple[str, ...], status: int, told: str
) -> None:
    append(redis, 1)
    said = admin(redis, *arguments, status=status)
    assert told in said
    assert said.startswith("tracker-admin: ")
    assert len(said.splitlines()) == 1


def test_a_redis_that_is_away_is_told_and_not_waited_for() -> None:
    url = f"redis://:s3cret@127.0.0.1:{free_port()}/0"
    for command in (("lag",), ("dead", "list")):
        ended = tracker_admin(*command, "--redis", url)
        assert ended.returncode == 3
        assert len(ended.stderr.splitlines()) == 1
        assert "refused" in ended.stderr
        assert "s3cret" not in ended.stderr


def test_a_table_holds_nothing_that_a_terminal_obeys() -> None:
    assert table([("A", "B"), ("x\x1b[2J", "one\ntwo")]) == "A         B\nx\\x1b[2J  one\\ntwo"
