"""Rows a second that one process moves from a full stream into a database, beside its limit.

For each way in which devices send, a Redis gets a stream of entries; then one `twistd
tracker process` after the other moves all of them into an empty PostgreSQL and an empty
SQLite. What Redis' group has acknowledged is counted from a tenth of the stream to its
end; then the rows are. The limit is measured right afterwards, with the rows that came
about and tables like theirs: for PostgreSQL, COPY from a file on the same server, the
median of three runs; for SQLite, executemany, as many rows a transaction as in a batch.

The last row is the whole way: ingest, process and PostgreSQL, with devices that send
records at an even rate. Some of them are probes: each of their records is looked for in the
database, every 3 ms, and its time counts from when it was due to be sent. So a time is
too long by the rest of such an interval and by the query, never too short.

Columns: rec/pkt: records that a device sends at once, one behind the other in the stream;
ratio: rows/s over the limit; "s/M": seconds of CPU for a million rows, of PostgreSQL all
its processes; RSS: of process, in MiB, in the end; p50, p99: from the device to a row that
others see, in milliseconds.

Commits are durable: fsync is on in all three servers. What other processes take is told.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any, Final

from attrs import frozen

from bench.common import (
    OTHERS_WORTH_A_WARNING,
    STREAM,
    Column,
    Report,
    Usage,
    Window,
    fsync_milliseconds,
    numbers,
    parser,
    percentile,
    raise_file_limit,
    redis_pid,
    resident_bytes,
    running_ingest,
    running_redis,
)
from bench.devices import GENERATOR, DeviceProcess, Phase
from bench.frames import fleet_entries
from bench.limit import REDIS, command, sample
from bench.probes import Probes, Seen
from bench.sinks import (
    POSTGRESQL,
    SQLITE,
    Inserted,
    Key,
    PostgreSQL,
    Sink,
    SQLiteSink,
    running_postgresql,
)
from tests.servers import RedisServer
from tests.system.processes import Daemon
from tests.waiting import wait_for
from tracker.keys import PROCESSOR_GROUP
from tracker.processing.consumer import BatchOptions

_INGEST: Final = "ingest"
_PROCESS: Final = "process"
_END_TO_END: Final = "end to end"
_SINKS: Final = (POSTGRESQL, SQLITE)

#: Share of the stream that is moved before measuring begins.
_WARM: Final = 0.1
_BATCH: Final = BatchOptions().batch_size
#: Commands that are sent to Redis at once; their replies fit into a socket's buffer.
_PIPELINE: Final = 500
#: Records a second of the probes.
_PROBES: Final = 50.0
_PATIENCE: Final = 600.0  # seconds for a whole stream
#: Milliseconds that packets may be sent too late until latencies are to be doubted.
_LATE: Final = 5.0

_COLUMNS: Final = (
    *(Column("sink", "sink"), Column("rec/pkt", "records")),
    Column("rows/s", "rows_per_second", ",.0f"),
    *(Column("limit/s", "limit_rows_per_second", ",.0f"), Column("ratio", "ratio", ".3f")),
    Column("process s/M", "process_cpu_seconds_per_million", ".1f"),
    Column("redis s/M", "redis_cpu_seconds_per_million", ".1f"),
    Column("postgres s/M", "postgresql_cpu_seconds_per_million", ".1f"),
    Column("RSS MiB", "process_rss_mib", ".1f"),
    *(Column("p50 ms", "visible_p50_ms", ".1f"), Column("p99 ms", "visible_p99_ms", ".1f")),
)


class BrokenProcess(Exception):
    """The rows are not those that were in the stream."""


@frozen
class Course:
    """What all measurements have in common."""

    devices: int
    entries: int
    fsync: str
    """Redis's appendfsync."""
    rate: float
    """Records a second, end to end."""
    warm_up: float
    seconds: float
    data: Path | None


@frozen
class Moved:
    """What one process did with a stream."""

    rows: int
    """Within the window."""
    window: Window
    rss: int
    """Bytes."""
    limit: Inserted


@frozen
class Passage:
    """What became of records on the whole way."""

    phase: Phase
    seen: Seen
    rss: int
    """Of process, in bytes."""


@contextmanager
def running_process(folder: Path, redis: RedisServer, sink: str) -> Iterator[Daemon]:
    """``twistd tracker process``, not started yet, with the options that are the default."""
    daemon = Daemon(
        *(folder, _PROCESS, _PROCESS, "--redis", redis.url),
        *("--consumer", "bench", "--sink", sink),
    )
    try:
        yield daemon
    finally:
        daemon.kill()


def fill(redis: RedisServer, course: Course, records: int) -> dict[Key, int]:
    """Append the entries of a fleet; their keys → their places in the stream."""
    order: dict[Key, int] = {}
    entries = fleet_entries(course.devices, records, course.entries)
    with socket.create_connection(("127.0.0.1", redis.port)) as connection:
        while some := list(islice(entries, _PIPELINE)):
            connection.sendall(b"".join(map(command, some)))
            lines = 2 * len(some)  # $15, an ID
            while lines > 0:
                lines -= connection.recv(65536).count(b"\n")
            for entry in some:
                order[entry.device_id, entry.ts] = len(order)
    if not redis.client.xlen(STREAM) == len(order) >= course.entries:
        raise BrokenProcess("the stream does not hold what was appended")
    return order


def acknowledged(redis: RedisServer) -> int:
    """Entries that are committed, so that the group is done with them."""
    for group in redis.client.xinfo_groups(STREAM):
        if group["name"].decode() == PROCESSOR_GROUP and group["entries-read"] is not None:
            return int(group["entries-read"] - group["pending"])
    return 0


def move(folder: Path, redis: RedisServer, sink: Sink, order: Mapping[Key, int]) -> Moved:
    """Move a stream into an empty database, then measure the limit with what is in it."""
    redis.client.xgroup_destroy(STREAM, PROCESSOR_GROUP)  # of the sink before

    def reach(count: int) -> int:
        def passed() -> int:
            found = acknowledged(redis)
            return found if daemon.running and found >= count else 0

        return wait_for(passed, f"{count} entries are acknowledged", _PATIENCE)

    with running_process(folder, redis, sink.url) as daemon:
        daemon.start(ready=False)
        processes = {_PROCESS: daemon.pid, REDIS: redis_pid(redis)}
        first = reach(int(len(order) * _WARM))
        before = Usage.now(processes, sink.parents)
        last = reach(len(order))
        window = Window.between(before, Usage.now(processes, sink.parents))
        rss = resident_bytes(daemon.pid)
        if (stopped := daemon.stop()) != 0:
            raise BrokenProcess(f"process has ended with {stopped}")
    limit = sink.limit(order, _BATCH)
    for rows in (sink.count(), limit.rows):
        if rows != len(order):
            raise BrokenProcess(f"{rows} rows of {len(order)} entries")
    return Moved(last - first, window, rss, limit)


def pass_through(folder: Path, postgresql: PostgreSQL, course: Course) -> Passage:
    """Have devices send at the rate of the course, with everything up to the database running."""
    rate = course.rate - _PROBES
    frames = ceil(rate * (course.warm_up + course.seconds) / course.devices)
    with (
        postgresql.database() as sink,
        running_redis(folder / "redis", course.fsync) as redis,
        running_ingest(folder, redis) as ingest,
        running_process(folder, redis, sink.url) as process,
        DeviceProcess(ingest.port, course.devices, 1, 1, {}, frames) as devices,
        ThreadPoolExecutor(1) as thread,
    ):
        process.start()
        processes = {
            _INGEST: ingest.daemon.pid,
            _PROCESS: process.pid,
            REDIS: redis_pid(redis),
        }
        usage = partial(Usage.now, processes, postgresql.parents)
        with closing(Probes(ingest.port, course.devices, sink.url)) as probes:
            sending = thread.submit(devices.paced, rate, course.warm_up, course.seconds)
            seen = probes.run(_PROBES, course.warm_up, course.seconds, usage)
            phase = sending.result()
        sent = phase.acknowledged + seen.sent
        wait_for(lambda: acknowledged(redis) >= sent, "all is acknowledged")
        rss = resident_bytes(process.pid)
        if (rows := sink.count()) != sent:
            raise BrokenProcess(f"{rows} rows of {sent} records that were sent")
    return Passage(phase, seen, rss)


def moved_result(name: str, records: int, course: Course, moved: Moved) -> dict[str, Any]:
    """The figures of one sink, rounded to what they are worth."""
    per_second = moved.rows / moved.window.seconds
    highest = moved.limit
    return {
        "sink": name,
        "records": records,
        "entries": course.entries,
        "devices": course.devices,
        "seconds": round(moved.window.seconds, 3),
        "rows_per_second": round(per_second, 1),
        "limit_rows_per_second": round(highest.per_second, 1),
        "ratio": round(per_second / highest.per_second, 4),
        **_cpu(moved.window, moved.rows),
        **{
            f"limit_{process}_cpu_seconds_per_million": round(seconds / highest.rows * 1e6, 2)
            for process, seconds in highest.window.cpu.items()
        },
        "limit_others_percent": round(highest.window.others_share * 100, 1),
        "process_rss_mib": round(moved.rss / 1024**2, 1),
    }


def passage_result(course: Course, passage: Passage) -> dict[str, Any]:
    """The figures of the whole way."""
    seen, phase = passage.seen, passage.phase
    per_second = phase.packets_per_second + _PROBES
    return {
        "sink": _END_TO_END,
        "records": 1,
        "devices": course.devices,
        "seconds": round(seen.window.seconds, 3),
        "rows_per_second": round(per_second, 1),
        **_cpu(seen.window, round(per_second * seen.window.seconds)),
        "generator_percent": round(phase.window.share(GENERATOR) * 100, 1),
        "process_rss_mib": round(passage.rss / 1024**2, 1),
        "probes": len(seen.latencies),
        "look_ms": round(seen.look * 1000, 3),
        "sent_late_p99_ms": round(percentile(seen.lateness, 99) * 1000, 3),
        "ack_p50_ms": round(phase.latency(50), 3),
        "ack_p99_ms": round(phase.latency(99), 3),
        "visible_p50_ms": round(percentile(seen.latencies, 50) * 1000, 2),
        "visible_p99_ms": round(percentile(seen.latencies, 99) * 1000, 2),
        "visible_max_ms": round(percentile(seen.latencies, 100) * 1000, 2),
    }


def _cpu(window: Window, rows: int) -> dict[str, float]:
    result = {}
    for process, seconds in window.cpu.items():
        result[f"{process}_cpu_seconds_per_million"] = round(seconds / rows * 1e6, 2)
        result[f"{process}_percent"] = round(window.share(process) * 100, 1)
    result["others_percent"] = round(window.others_share * 100, 1)
    return result


def doubts(**windows: Window) -> Iterator[str]:
    """What speaks against figures."""
    for name, window in windows.items():
        if window.others_share > OTHERS_WORTH_A_WARNING:
            yield f"{name}: other processes took {window.others_share:.1f} cores"


def options() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--records", type=numbers, metavar="N,…", help="in a packet [1,10]")
    made.add_argument("--sinks", metavar="SINK,…", help=f"[{','.join(_SINKS)}]")
    made.add_argument("--entries", type=int, metavar="N", help="in the stream [300000]")
    made.add_argument("--devices", type=int, metavar="N", help="that they come from [1000]")
    made.add_argument("--fsync", default="always", help="Redis' appendfsync [always]")
    made.add_argument(
        "--rate", type=float, metavar="N", help="records a second end to end; 0: not at all [2000]"
    )
    made.add_argument("--seconds", type=float, help="of the end-to-end phase [30]")
    made.add_argument("--warm-up", type=float, help="seconds before it [5]")
    made.add_argument(
        "--data", type=Path, metavar="FOLDER", help="where Redis and SQLite write [temporary files]"
    )
    given = made.parse_args()
    quick = given.quick
    given.records = given.records or ([10] if quick else [1, 10])
    given.sinks = (
        list(_SINKS) if given.sinks is None else list(filter(None, given.sinks.split(",")))
    )
    given.entries = (3 * _BATCH if quick else 300_000) if given.entries is None else given.entries
    given.devices = (50 if quick else 1000) if given.devices is None else given.devices
    given.rate = (500.0 if quick else 2000.0) if given.rate is None else given.rate
    given.seconds = given.seconds or (0.5 if quick else 30.0)
    given.warm_up = (0.2 if quick else 5.0) if given.warm_up is None else given.warm_up
    if not set(given.sinks) <= set(_SINKS):
        made.error(f"--sinks: {' or '.join(_SINKS)}")
    if given.fsync not in ("always", "everysec"):
        made.error("--fsync: always or everysec")
    if not min(given.records):
        made.error("--records: one at least")
    if given.entries < 2 * _BATCH:
        made.error(f"--entries: two batches at least, {2 * _BATCH}")
    if given.devices < 1:
        made.error("--devices: one at least")
    if given.rate and given.rate <= _PROBES:
        made.error(f"--rate: more than {_PROBES:g}, which the probes send")
    if given.seconds <= 0 or given.warm_up < 0:
        made.error("--seconds, --warm-up: no phase without a duration")
    return given


def _moves(
    given: argparse.Namespace, course: Course, postgresql: PostgreSQL, report: Report
) -> None:
    for records in given.records:
        with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=course.data) as name:
            folder = Path(name)
            with running_redis(folder / "redis", course.fsync) as redis:
                order = fill(redis, course, records)
                for sink in given.sinks:
                    if sink == SQLITE:
                        moved = move(folder, redis, SQLiteSink(folder / SQLITE), order)
                    else:
                        with postgresql.database() as database:
                            moved = move(folder, redis, database, order)
                    report.add(moved_result(sink, records, course, moved))
                    for doubt in doubts(process=moved.window, limit=moved.limit.window):
                        report.warn(doubt)


def _passage(course: Course, postgresql: PostgreSQL, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=course.data) as folder:
        passage = pass_through(Path(folder), postgresql, course)
    report.add(passage_result(course, passage))
    # The devices, and the probes themselves, are among the others here.
    share = passage.seen.window.others_share - passage.phase.window.share(GENERATOR)
    if share > 2 * OTHERS_WORTH_A_WARNING:
        report.warn(f"the probes and other processes took {share:.1f} cores")
    late = percentile(passage.seen.lateness, 99) * 1000
    if late > _LATE:
        report.warn(f"one probe in a hundred was sent {late:.1f} ms late, or later")


def main() -> None:
    """Measure all sinks, then the whole way."""
    given = options()
    raise_file_limit()
    course = Course(
        devices=given.devices,
        entries=given.entries,
        fsync=given.fsync,
        rate=given.rate,
        warm_up=given.warm_up,
        seconds=given.seconds,
        data=given.data,
    )
    with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=given.data) as folder:
        fsync_ms = fsync_milliseconds(Path(folder))
    with running_postgresql() as postgresql:
        report = Report(
            "process",
            given,
            _COLUMNS,
            entries=course.entries,
            devices=course.devices,
            batch=_BATCH,
            fsync=course.fsync,
            fsync_ms=round(fsync_ms, 3),
            postgresql=postgresql.version,
            payload_bytes=round(mean(len(entry.payload) for entry in sample())),
        )
        with report:
            _moves(given, course, postgresql, report)
            if course.rate:
                _passage(course, postgresql, report)


if __name__ == "__main__":
    main()
