"""The memory of a processor with a backlog of long messages."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

from tests.servers import RedisServer
from tests.system.processes import Daemon
from tests.system.raw import STREAM
from tests.waiting import wait_for
from tracker.keys import PROCESSOR_GROUP
from tracker.position import Position
from tracker.processing.consumer import BatchOptions

ATTACKER, NEIGHBOUR = "356307042441013", "356307042441021"
MIB = 1 << 20
#: Messages of 192 KB, 183 MB in total: one batch of them would exceed the allowed memory three
#: times.
MESSAGES = 1000
RECORDS = 500


def append(redis: RedisServer) -> None:
    unknown = (None,) * 6
    attributes = {"message_type": 6, "message": "я" * 32_000}
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(MESSAGES + RECORDS):
        at = f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z"
        if number < MESSAGES:
            position = Position(ATTACKER, at, *unknown, 0, 0, attributes)
        else:
            position = Position(NEIGHBOUR, at, 41.3, 19.8, 1, 2, 3, 4, 0, 0, {"239": 1})
        pipeline.xadd(STREAM, position.to_entry("13" if number < MESSAGES else "8E")._asdict())
        if len(pipeline) == 100:
            pipeline.execute()


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of a process, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def documented_memory() -> int:
    """Return the bound in docs/architecture.rst for the default of ``--batch-bytes``."""
    text = (Path(__file__).parents[2] / "docs" / "architecture.rst").read_text()
    found = re.search(r"(\d+) MiB \+ (\d+) × ``--batch-bytes``", text)
    assert found is not None
    return int(found[1]) * MIB + int(found[2]) * BatchOptions().batch_bytes


def test_backlog_of_long_messages_is_stored_within_the_documented_memory(
    tmp_path: Path, redis: RedisServer, database: str
) -> None:
    redis.client.config_set("appendfsync", "no")
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0", mkstream=True)
    append(redis)
    # This processor has read half of the backlog before its restart.
    redis.client.xreadgroup(PROCESSOR_GROUP, "one", {STREAM: ">"}, count=MESSAGES // 2)
    processor = Daemon(
        *(tmp_path, "process", "process", "--redis", redis.url, "--consumer", "one"),
        *("--sink", database),
    )

    def done() -> bool:
        (group,) = redis.client.xinfo_groups(STREAM)
        return processor.running and group["lag"] == group["pending"] == 0

    try:
        processor.start()
        wait_for(done, "all is stored", timeout=120)
        peak = peak_memory(processor.pid)
        assert processor.stop() == 0
    finally:
        processor.kill()
    with psycopg.connect(database) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM positions)"
        ).fetchone()
    assert counts == (MESSAGES, RECORDS)
    assert not redis.client.exists(f"{STREAM}:dead")
    assert peak <= documented_memory(), f"{peak / MIB:.0f} MiB"
