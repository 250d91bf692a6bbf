"""``tracker-admin lag``, ``streams``, ``dead`` and ``replay`` on a real Redis."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from tests.admin import admin as tracker_admin
from tests.lags import make_lag_unknown
from tests.servers import RedisServer, free_port
from tests.system.processes import BIN, environment, stored
from tests.system.terminal import Terminal, on_terminal
from tracker.admin.output import table
from tracker.keys import telemetry_stream
from tracker.position import Position, iso_milliseconds
from tracker.vendors.installed import installed_vendors

STREAM = "telemetry:teltonika"
DEAD = "telemetry:teltonika:dead"
WRONG = "telemtry:teltonika"
KNOWN = ", ".join(telemetry_stream(vendor) for vendor in installed_vendors())


def admin(redis: RedisServer, *arguments: str, code: int = 0) -> str:
    """Run a command and return its output; with standard error if it fails."""
    ended = tracker_admin(*arguments, env=environment(REDIS_URL=redis.url))
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout if code == 0 else ended.stdout + ended.stderr


def append(redis: RedisServer, *ages: float) -> list[str]:
    """Append positions of these ages in seconds, oldest first, and return their IDs."""
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


def append_dead(redis: RedisServer, count: int) -> list[str]:
    """Append dead letters and return their IDs."""
    return [
        redis.client.xadd(DEAD, {
            "_id": f"1-{number}", "_stream": STREAM, "_reason": f"reason {number}",
            "_attempts": number, "codec": "8", "payload": b"\xff",
        }).decode()
        for number in range(count)
    ]  # fmt: skip


def test_lag_is_shown_as_a_table(redis: RedisServer) -> None:
    append(redis, 100, 50, 10)
    assert re.search(rf"^{STREAM}( +-){{5}}$", admin(redis, "lag"), re.MULTILINE)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xreadgroup("processor", "host-1", {STREAM: ">"}, count=1)
    heading, row = admin(redis, "lag").splitlines()
    assert heading.split()[:5] == ["STREAM", "GROUP", "LAG", "PENDING", "OLDEST"]
    stream, group, lag, pending, oldest, consumer = row.split(maxsplit=5)
    assert (stream, group, lag, pending) == (STREAM, "processor", "2", "1")
    assert 100 <= float(oldest.removesuffix("s")) < 130
    assert consumer.startswith("host-1 (1, ")
    make_lag_unknown(redis, STREAM)
    assert admin(redis, "lag").splitlines()[1].split()[2] == "?"


def test_lag_is_shown_as_json(redis: RedisServer) -> None:
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
    assert "Stream nowhere not found" in admin(redis, "lag", "--stream", "nowhere", code=1)


def test_dead_letters_are_listed_in_pages(redis: RedisServer) -> None:
    ids = append_dead(redis, 5)
    listed = tracker_admin("dead", "list", "--redis", redis.url, "--limit", "2")
    rows = listed.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["ID", *ids[:2]]
    assert "1-1" in rows[2]
    assert "reason 1" in rows[2]
    assert listed.stderr == f"Only the first 2 are shown. Next page: --after {ids[1]}\n"
    rest = json.loads(admin(redis, "dead", "list", "--after", ids[1], "-o", "json"))
    assert [one["id"] for one in rest] == ids[2:]
    assert rest[0] == {
        "id": ids[2], "original_id": "1-2", "attempts": 2, "reason": "reason 2",
    }  # fmt: skip


def test_list_without_dead_letters_names_their_stream(redis: RedisServer) -> None:
    listed = tracker_admin("dead", "list", "--redis", redis.url)
    assert listed.returncode == 0
    assert listed.stderr == f"No dead letters in {DEAD}.\n"
    assert admin(redis, "dead", "list", "--stream", "commands:responses", "-o", "json") == "[]\n"


@pytest.mark.parametrize("command", [("list",), ("show", "1-1"), ("retry", "--all")])
def test_mistake_in_the_name_of_a_stream_or_vendor_of_dead_letters_is_an_error(
    redis: RedisServer, command: tuple[str, ...]
) -> None:
    output = admin(redis, "dead", *command, "--stream", "other", code=1)
    assert f"Stream other not found. Known: {KNOWN}." in output
    output = admin(redis, "dead", *command, "--vendor", "other", code=2)
    assert f"Unknown vendor 'other'. Known: {', '.join(installed_vendors())}." in output


def test_dead_letters_are_those_of_the_stream_that_processors_read(redis: RedisServer) -> None:
    append_dead(redis, 1)
    variables = environment(REDIS_URL=redis.url, REDIS_TELEMETRY_STREAM="pinned")
    assert "pinned:dead" in tracker_admin("dead", "list", env=variables).stderr
    variables["REDIS_TELEMETRY_STREAM"] = f"pinned,{STREAM}"
    ended = tracker_admin("dead", "list", env=variables)
    assert (ended.returncode, "Add --stream: pinned, " in ended.stderr) == (2, True)


def test_dead_letters_larger_than_one_read_are_all_listed_and_retried(
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


def test_dead_letter_is_shown_with_all_fields(redis: RedisServer) -> None:
    _, entry_id = append_dead(redis, 2)
    shown = admin(redis, "dead", "show", entry_id)
    assert re.search(r"^reason +reason 1$", shown, re.MULTILINE)
    assert re.search(r"^payload +\\xff$", shown, re.MULTILINE)
    document = json.loads(admin(redis, "dead", "show", entry_id, "-o", "json", "--stream", DEAD))
    assert document["fields"] == [["codec", "8"], ["payload", "\\xff"]]
    assert "Entry 5-5 not found" in admin(redis, "dead", "show", "5-5", code=1)


def test_retried_dead_letters_are_appended_to_their_stream(redis: RedisServer) -> None:
    ids = append_dead(redis, 4)
    assert admin(redis, "dead", "retry", ids[0], ids[0]) == "1 retried\n"
    assert "1 retried, 1 not found\n" in admin(redis, "dead", "retry", ids[1], "5-5", code=1)
    assert [fields for _, fields in redis.client.xrange(STREAM)] == [
        {b"codec": b"8", b"payload": b"\xff", b"extra": b'{"arrived":"%s"}' % arrived}
        for arrived in [b"1970-01-01T00:00:00.001Z"] * 2
    ]
    assert admin(redis, "dead", "retry", "--all") == "2 retried\n"
    assert (redis.client.xlen(STREAM), redis.client.xlen(DEAD)) == (4, 0)
    assert admin(redis, "dead", "retry", "--all") == "0 retried\n"


def strand(redis: RedisServer, *ages: float) -> list[str]:
    """Append positions of these ages to a stranded stream, and return their times of arrival."""
    ids = append(redis, *ages)
    redis.client.rename(STREAM, WRONG)
    return [iso_milliseconds(int(entry_id.partition("-")[0])) for entry_id in ids]


def test_lag_includes_stranded_streams(redis: RedisServer) -> None:
    strand(redis, 100, 50)
    for stream in ("telemetry:advertised", "telemetry:left"):
        redis.client.copy(WRONG, stream)
    redis.client.set("instance:heartbeat:eu-1", '{"streams": ["telemetry:advertised"]}')
    redis.client.xgroup_create("telemetry:left", "processor", "0")
    redis.client.xgroup_create(WRONG, "mine", "$")
    append(redis, 5)
    rows = json.loads(admin(redis, "lag", "-o", "json"))
    assert [(row["stream"], row["group"], row["lag"], row["stranded"]) for row in rows] == [
        ("telemetry:advertised", None, 2, True),
        ("telemetry:left", "processor", 2, True),
        (STREAM, None, None, False),
        (WRONG, "mine", 0, False),
        (WRONG, None, 2, True),
    ]
    assert all(100 <= row["oldest_unprocessed_age"] < 130 for row in rows if row["stranded"])
    assert all(row["entries"] == 2 for row in rows if row["stranded"])
    ended = tracker_admin("lag", env=environment(REDIS_URL=redis.url))
    stream, group, lag, pending, _, state = ended.stdout.splitlines()[-1].split()
    assert (stream, group, lag, pending, state) == (WRONG, "-", "2", "0", "stranded")
    assert WRONG in ended.stderr
    assert "adopt" in ended.stderr


def test_streams_are_listed_with_their_state(redis: RedisServer) -> None:
    strand(redis, 100, 50)
    append(redis, 5)
    append_dead(redis, 3)
    redis.client.copy(STREAM, "read")
    redis.client.xgroup_create("read", "processor", "0")
    redis.client.xreadgroup("processor", "other", {"read": ">"})
    redis.client.copy(STREAM, "finished")
    redis.client.xgroup_create("finished", "processor", "$")
    rows = json.loads(admin(redis, "streams", "list", "-o", "json"))
    found = {row["stream"]: (row["state"], row["entries"], row["unprocessed"]) for row in rows}
    assert found == {
        STREAM: ("not read", 1, 1),
        DEAD: ("dead letters", 3, None),
        WRONG: ("stranded", 2, 2),
        "read": ("read", 1, 1),
        "finished": ("finished", 1, 0),
    }
    assert 100 <= {row["stream"]: row["oldest_age"] for row in rows}[WRONG] < 130


def test_adopted_entries_are_stored_with_their_first_arrival(
    redis: RedisServer, tmp_path: Path
) -> None:
    arrived = strand(redis, 300_000, 200_000, 100)
    (entry, *_) = redis.client.xrange(WRONG)
    redis.client.xadd(STREAM, entry[1])  # one of them was adopted before
    redis.client.xgroup_create(WRONG, "processor", "0")
    redis.client.xreadgroup("processor", "dead", {WRONG: ">"}, count=1)
    redis.client.xgroup_delconsumer(WRONG, "processor", "dead")
    result = admin(redis, "streams", "adopt", WRONG)
    assert result == f"3 entries moved to {STREAM}; {WRONG} deleted\n"
    assert (redis.client.xlen(STREAM), redis.client.exists(WRONG)) == (4, 0)
    redis.client.xdel(STREAM, redis.client.xrange(STREAM)[0][0])
    sink = tmp_path / "positions.sqlite"
    assert replay(redis, sink) == "replay: 3 read, 3 new, 0 known, 0 bad"
    with sqlite3.connect(sink) as database:
        query = "SELECT received_at FROM positions ORDER BY ts"
        assert [time for (time,) in database.execute(query)] == arrived
    assert f"{WRONG} not found" in admin(redis, "streams", "adopt", WRONG, code=1)


def test_adoption_continues_after_a_kill(redis: RedisServer) -> None:
    count = 3000
    ages = [float(count - number) for number in range(count)]
    arrived = strand(redis, *ages)
    command = [str(BIN / "tracker-admin"), "streams", "adopt", WRONG]
    with Popen(command, env=environment(REDIS_URL=redis.url)) as process:
        while redis.client.xlen(STREAM) < 100:
            assert process.poll() is None
        process.kill()
    assert 0 < redis.client.xlen(WRONG) < count
    redis.client.xadd(WRONG, redis.client.xrange(WRONG, count=1)[0][1])
    assert f"{WRONG} deleted" in admin(redis, "streams", "adopt", WRONG)
    extras = [json.loads(fields[b"extra"])["arrived"] for _, fields in redis.client.xrange(STREAM)]
    assert sorted(extras)[:-1] == arrived
    assert len(extras) == count + 1


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [("maxmemory", "1", "OOM"), ("min-replicas-to-write", "1", "NOREPLICAS")],
)
def test_adoption_that_redis_refuses_loses_nothing(
    redis: RedisServer, setting: str, value: str, reason: str
) -> None:
    strand(redis, 3, 2, 1)
    redis.client.config_set(setting, value)
    output = admin(redis, "streams", "adopt", WRONG, code=1)
    assert reason in output
    assert "Entries moved: 0" in output
    redis.client.config_set(setting, "0")
    assert (redis.client.xlen(WRONG), redis.client.xlen(STREAM)) == (3, 0)
    assert "3 entries moved" in admin(redis, "streams", "adopt", WRONG)


def test_stream_of_a_group_of_another_client_is_emptied_and_kept(redis: RedisServer) -> None:
    strand(redis, 2, 1)
    redis.client.xgroup_create(WRONG, "mine", "0")
    assert "not deleted: it has other groups" in admin(redis, "streams", "adopt", WRONG)
    assert (redis.client.xlen(WRONG), redis.client.xlen(STREAM)) == (0, 2)


def test_streams_that_must_not_be_adopted_are_refused(redis: RedisServer) -> None:
    strand(redis, 2, 1)
    redis.client.rename(WRONG, "read")
    redis.client.xgroup_create("read", "processor", "0")
    redis.client.xreadgroup("processor", "host-1", {"read": ">"})
    redis.client.copy("read", "written")
    redis.client.set("instance:heartbeat:eu-1", json.dumps({"streams": ["written"]}))
    redis.client.xadd("mine", {"a": "b"})
    redis.client.set("text", "")
    append_dead(redis, 1)
    for stream, reason, code in (
        ("read", "A processor reads read: host-1.", 1),
        ("written", "Instance eu-1 writes written.", 1),
        ("mine", "Key mine is not a stream of positions, or is empty.", 1),
        ("text", "Key text is not a stream of positions, or is empty.", 1),
        ("nowhere", "Stream nowhere not found.", 1),
        (DEAD, f"dead retry --stream {STREAM}.", 1),
        (STREAM, f"Processors with this environment read {STREAM}.", 2),
        ("\udcff", "Invalid name of a stream: ", 2),
        ("", "Invalid name of a stream: ''.", 2),
    ):
        assert reason in admin(redis, "streams", "adopt", stream, code=code)
    output = admin(redis, "streams", "adopt", "mine", "--to", "other", code=2)
    assert "--to other: processors with this environment read " in output
    assert STREAM in output
    assert redis.client.xlen("read") == redis.client.xlen("written") == 2


def test_dead_letter_that_cannot_be_appended_is_reported_and_others_are_retried(
    redis: RedisServer,
) -> None:
    first, last = append_dead(redis, 2)
    empty = redis.client.xadd(DEAD, {"_id": "1-1", "_reason": "\x1b[31m" + "x" * 100_000}).decode()
    fields = [text for number in range(9000) for text in (f"n{number}", "v")]
    redis.client.execute_command("XADD", DEAD, "*", *fields)
    listed = admin(redis, "dead", "list")
    assert len(listed) < 2000
    assert "\x1b" not in listed
    assert "x" * 100_000 in admin(redis, "dead", "show", empty)
    output = admin(redis, "dead", "retry", "--all", code=1)
    assert "3 retried, 1 failed\n" in output
    assert empty in output
    assert first not in output
    assert last not in output
    assert [entry_id.decode() for entry_id, _ in redis.client.xrange(DEAD)] == [empty]
    assert redis.client.xlen(STREAM) == 3


def test_dropped_dead_letters_are_deleted(redis: RedisServer) -> None:
    ids = append_dead(redis, 1200)
    assert admin(redis, "dead", "drop", *ids[:3]) == "3 deleted\n"
    assert "0 deleted, 1 not found\n" in admin(redis, "dead", "drop", ids[0], code=1)
    assert admin(redis, "dead", "drop", "--all", "--yes") == "1197 deleted\n"
    assert redis.client.xlen(DEAD) == 0
    assert admin(redis, "dead", "drop", "--all", "--yes") == "0 deleted\n"


def test_all_dead_letters_are_deleted_only_after_confirmation(redis: RedisServer) -> None:
    append_dead(redis, 2)
    assert "Add --yes to proceed." in admin(redis, "dead", "drop", "--all", code=2)
    command = ("tracker-admin", "dead", "drop", "--redis", redis.url, "--all")
    for answer, code, left in (("n", 1, 2), ("y", 0, 0)):
        terminal = Terminal(*command)
        terminal.read_until(rf"Delete 2 dead letters of {STREAM} for good\? \[y/N\]: ")
        terminal.type(f"{answer}\n")
        assert terminal.end() == code
        assert redis.client.xlen(DEAD) == left
    assert on_terminal(*command) == (0, "0 deleted\n")


def test_retried_dead_letter_is_stored(redis: RedisServer, tmp_path: Path) -> None:
    ids = append(redis, 50, 40)
    sink = f"sqlite:{tmp_path / 'positions.sqlite'}"
    redis.client.xadd(DEAD, {"_id": ids[0], "_reason": "?", **redis.client.xrange(STREAM)[0][1]})
    redis.client.delete(STREAM)
    assert admin(redis, "dead", "retry", "--all") == "1 retried\n"
    assert "1 read, 1 new, 0 known, 0 bad" in admin(
        redis, "replay", "--stream", STREAM, "--sink", sink
    )


def replay(redis: RedisServer, sink: Path, *arguments: str, code: int = 0) -> str:
    options = ("--stream", STREAM, "--sink", f"sqlite:{sink}")
    return admin(redis, "replay", *options, *arguments, code=code).strip()


def test_replay_stores_missing_positions_and_changes_no_group(
    redis: RedisServer, tmp_path: Path
) -> None:
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


def test_replay_of_a_range_stores_only_that_range(redis: RedisServer, tmp_path: Path) -> None:
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


def test_replay_reports_the_first_malformed_entries(redis: RedisServer, tmp_path: Path) -> None:
    append(redis, 100)
    bad = [redis.client.xadd(STREAM, {"codec": "8"}).decode() for _ in range(25)]
    output = replay(redis, tmp_path / "positions.sqlite", code=1)
    assert "replay: 26 read, 1 new, 0 known, 25 bad" in output
    assert f"{bad[0]}: " in output
    assert "payload" in output
    assert bad[20] not in output
    assert "5 more malformed entries" in output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("lag", "--redis", "http://x"), 2, "redis://"),
        (("lag", "-o", "xml"), 2, "'xml' is not one of"),
        (("dead", "show", "now"), 2, "'now' is not an entry ID"),
        (("dead", "retry"), 2, "or --all"),
        (("dead", "drop", "1-1", "--all"), 2, "or --all"),
        (("replay", "--stream", STREAM), 2, "--sink"),
        (("replay", "--stream", "no", "--sink", "sqlite:x"), 1, "Stream no not found"),
        (("replay", "--stream", STREAM, "--sink", "x:y"), 2, "unknown sink"),
        (("replay", "--stream", STREAM, "--sink", "sqlite:/no/such/x"), 1, "/no/such/x"),
        (("replay", "--stream", STREAM, "--sink", "sqlite:x", "--from", "noon"), 2, "'noon'"),
        (("replay", "--stream", STREAM, "--sink", "sqlite:x", "--to", "20261122"), 2, "'20261122'"),
    ],
)
def test_error_is_reported_in_one_line(
    redis: RedisServer, arguments: tuple[str, ...], code: int, text: str
) -> None:
    append(redis, 1)
    output = admin(redis, *arguments, code=code)
    assert text in output
    assert output.startswith("tracker-admin: ")
    assert len(output.splitlines()) == 1


def test_unreachable_redis_is_reported_without_a_retry() -> None:
    url = f"redis://:s3cret@127.0.0.1:{free_port()}/0"
    for command in (("lag",), ("dead", "list")):
        ended = tracker_admin(*command, "--redis", url)
        assert ended.returncode == 3
        assert len(ended.stderr.splitlines()) == 1
        assert "refused" in ended.stderr
        assert "s3cret" not in ended.stderr


def test_control_characters_in_a_table_are_escaped() -> None:
    assert table([("A", "B"), ("x\x1b[2J", "one\ntwo")]) == "A         B\nx\\x1b[2J  one\\ntwo"
