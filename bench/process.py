"""Measure the rows per second that one process stores, and compare them with the database alone.

For each number of records in a packet, a stream in Redis is filled with entries. Then
`twistd tracker process` moves all of them into an empty PostgreSQL database and an empty SQLite
database. The rate is that of the entries that the consumer group acknowledges between a tenth of
the stream and its end. Then the limit of the database is measured with the same rows and equal
tables: for PostgreSQL, COPY from a file on the server, the median of three runs; for SQLite,
executemany, with transactions of the batch size.

The last result, "end to end", uses ingest, process and PostgreSQL with devices that send records
at an even rate. Some of them are probes: the database is polled for each of their records every
3 ms. A latency starts at the due time of a record; it includes the rest of a polling interval and
the duration of the query.

Columns:
  rec/pkt    records in a packet; they are consecutive in the stream
  ratio      rows/s divided by the limit
  s/M        CPU seconds per million rows; those of PostgreSQL include all its processes
  RSS MiB    resident memory of process at the end
  p50, p99   latency from the device to the visible row, in milliseconds

Commits are durable: fsync is on in Redis and in both databases. A warning is printed if other
processes use the CPU.
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
    OTHERS_WARNING_CORES,
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
from bench.probes import Probes, Visibility
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

#: Share of the stream that is moved before the measurement begins.
_WARM_UP_SHARE: Final = 0.1
_BATCH: Final = BatchOptions().batch_size
#: Commands that are sent to Redis at once; their replies fit into the buffer of a socket.
_PIPELINE: Final = 500
#: Records per second of the probes.
_PROBE_RATE: Final = 50.0
_TIMEOUT: Final = 600.0  # seconds for a whole stream
#: Lateness of packets above which latencies are doubtful, in milliseconds.
_MAX_LATENESS_MS: Final = 5.0

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


class ProcessError(Exception):
    """Rows are missing, or process has failed."""


@frozen
class Settings:
    """Parameters that are the same in all measurements."""

    devices: int
    entries: int
    fsync: str
    """Setting ``appendfsync`` of Redis."""
    rate: float
    """Records per second, end to end."""
    warm_up: float
    seconds: float
    data: Path | None


@frozen
class Moved:
    """Measurements of one process with one sink."""

    rows: int
    """Rows stored within the window."""
    window: Window
    rss_bytes: int
    limit: Inserted


@frozen
class EndToEnd:
    """Measurements from the devices to the database."""

    phase: Phase
    visibility: Visibility
    rss_bytes: int
    """Resident memory of process."""


@contextmanager
def running_process(folder: Path, redis: RedisServer, sink: str) -> Iterator[Daemon]:
    """Prepare ``twistd tracker process`` with default options; it is killed at the end."""
    daemon = Daemon(
        *(folder, _PROCESS, _PROCESS, "--redis", redis.url),
        *("--consumer", "bench", "--sink", sink),
    )
    try:
        yield daemon
    finally:
        daemon.kill()


def fill(redis: RedisServer, settings: Settings, records: int) -> dict[Key, int]:
    """Append the entries of a fleet and return their keys with their indexes in the stream."""
    order: dict[Key, int] = {}
    entries = fleet_entries(settings.devices, records, settings.entries)
    with socket.create_connection(("127.0.0.1", redis.port)) as connection:
        while some := list(islice(entries, _PIPELINE)):
            connection.sendall(b"".join(map(command, some)))
            lines = 2 * len(some)  # $15, an ID
            while lines > 0:
                lines -= connection.recv(65536).count(b"\n")
            for entry in some:
                order[entry.device_id, entry.ts] = len(order)
    if not redis.client.xlen(STREAM) == len(order) >= settings.entries:
        raise ProcessError("entries are missing in the stream")
    return order


def acknowledged(redis: RedisServer) -> int:
    """Return the number of entries that the consumer group has acknowledged."""
    for group in redis.client.xinfo_groups(STREAM):
        if group["name"].decode() == PROCESSOR_GROUP and group["entries-read"] is not None:
            return int(group["entries-read"] - group["pending"])
    return 0


def move(folder: Path, redis: RedisServer, sink: Sink, order: Mapping[Key, int]) -> Moved:
    """Move a stream into an empty database, then measure the limit with its rows."""
    redis.client.xgroup_destroy(STREAM, PROCESSOR_GROUP)  # of the previous sink

    def reach(count: int) -> int:
        def passed() -> int:
            found = acknowledged(redis)
            return found if daemon.running and found >= count else 0

        return wait_for(passed, f"{count} entries are acknowledged", _TIMEOUT)

    with running_process(folder, redis, sink.url) as daemon:
        daemon.start(ready=False)
        processes = {_PROCESS: daemon.pid, REDIS: redis_pid(redis)}
        first = reach(int(len(order) * _WARM_UP_SHARE))
        before = Usage.now(processes, sink.parents)
        last = reach(len(order))
        window = Window.between(before, Usage.now(processes, sink.parents))
        rss = resident_bytes(daemon.pid)
        if (stopped := daemon.stop()) != 0:
            raise ProcessError(f"process has exited with code {stopped}")
    limit = sink.limit(order, _BATCH)
    for rows in (sink.count(), limit.rows):
        if rows != len(order):
            raise ProcessError(f"{rows} rows stored, {len(order)} expected")
    return Moved(last - first, window, rss, limit)


def run_end_to_end(folder: Path, postgresql: PostgreSQL, settings: Settings) -> EndToEnd:
    """Measure devices at the given rate, with ingest, process and database."""
    rate = settings.rate - _PROBE_RATE
    frames = ceil(rate * (settings.warm_up + settings.seconds) / settings.devices)
    with (
        postgresql.database() as sink,
        running_redis(folder / "redis", settings.fsync) as redis,
        running_ingest(folder, redis) as ingest,
        running_process(folder, redis, sink.url) as process,
        DeviceProcess(ingest.port, settings.devices, 1, 1, {}, frames) as devices,
        ThreadPoolExecutor(1) as thread,
    ):
        process.start()
        processes = {
            _INGEST: ingest.daemon.pid,
            _PROCESS: process.pid,
            REDIS: redis_pid(redis),
        }
        usage = partial(Usage.now, processes, postgresql.parents)
        with closing(Probes(ingest.port, settings.devices, sink.url)) as probes:
            sending = thread.submit(devices.paced, rate, settings.warm_up, settings.seconds)
            visibility = probes.run(_PROBE_RATE, settings.warm_up, settings.seconds, usage)
            phase = sending.result()
        sent = phase.acknowledged + visibility.sent
        wait_for(lambda: acknowledged(redis) >= sent, "all entries are acknowledged")
        rss = resident_bytes(process.pid)
        if (rows := sink.count()) != sent:
            raise ProcessError(f"{rows} rows stored, {sent} records sent")
    return EndToEnd(phase, visibility, rss)


def moved_result(name: str, records: int, settings: Settings, moved: Moved) -> dict[str, Any]:
    """Return the figures of one sink, rounded to their precision."""
    per_second = moved.rows / moved.window.seconds
    highest = moved.limit
    return {
        "sink": name,
        "records": records,
        "entries": settings.entries,
        "devices": settings.devices,
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
        "process_rss_mib": round(moved.rss_bytes / 1024**2, 1),
    }


def end_to_end_result(settings: Settings, measured: EndToEnd) -> dict[str, Any]:
    """Return the end-to-end figures."""
    visibility, phase = measured.visibility, measured.phase
    per_second = phase.packets_per_second + _PROBE_RATE
    return {
        "sink": _END_TO_END,
        "records": 1,
        "devices": settings.devices,
        "seconds": round(visibility.window.seconds, 3),
        "rows_per_second": round(per_second, 1),
        **_cpu(visibility.window, round(per_second * visibility.window.seconds)),
        "generator_percent": round(phase.window.share(GENERATOR) * 100, 1),
        "process_rss_mib": round(measured.rss_bytes / 1024**2, 1),
        "probes": len(visibility.latencies),
        "query_ms": round(visibility.query * 1000, 3),
        "sent_late_p99_ms": round(percentile(visibility.lateness, 99) * 1000, 3),
        "ack_p50_ms": round(phase.latency(50), 3),
        "ack_p99_ms": round(phase.latency(99), 3),
        "visible_p50_ms": round(percentile(visibility.latencies, 50) * 1000, 2),
        "visible_p99_ms": round(percentile(visibility.latencies, 99) * 1000, 2),
        "visible_max_ms": round(percentile(visibility.latencies, 100) * 1000, 2),
    }


def _cpu(window: Window, rows: int) -> dict[str, float]:
    result = {}
    for process, seconds in window.cpu.items():
        result[f"{process}_cpu_seconds_per_million"] = round(seconds / rows * 1e6, 2)
        result[f"{process}_percent"] = round(window.share(process) * 100, 1)
    result["others_percent"] = round(window.others_share * 100, 1)
    return result


def warnings_about(**windows: Window) -> Iterator[str]:
    """Yield the reasons why figures are doubtful."""
    for name, window in windows.items():
        if window.others_share > OTHERS_WARNING_CORES:
            yield f"{name}: other processes used {window.others_share:.1f} cores"


def options() -> argparse.Namespace:
    """Parse the command line."""
    made = parser(__doc__)
    made.add_argument("--records", type=numbers, metavar="N,…", help="records in a packet [1,10]")
    made.add_argument("--sinks", metavar="SINK,…", help=f"databases [{','.join(_SINKS)}]")
    made.add_argument("--entries", type=int, metavar="N", help="entries in the stream [300000]")
    made.add_argument("--devices", type=int, metavar="N", help="number of devices [1000]")
    made.add_argument("--fsync", default="always", help="appendfsync of Redis [always]")
    made.add_argument(
        "--rate", type=float, metavar="N", help="records per second end to end; 0 to skip [2000]"
    )
    made.add_argument("--seconds", type=float, help="duration of the end-to-end phase [30]")
    made.add_argument("--warm-up", type=float, help="seconds before the end-to-end phase [5]")
    made.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="data folder of Redis and SQLite [a temporary folder]",
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
        made.error(f"--sinks: choose from {','.join(_SINKS)}")
    if given.fsync not in ("always", "everysec"):
        made.error("--fsync: choose always or everysec")
    if not min(given.records):
        made.error("--records: the minimum is 1")
    if given.entries < 2 * _BATCH:
        made.error(f"--entries: the minimum is {2 * _BATCH}, two batches")
    if given.devices < 1:
        made.error("--devices: the minimum is 1")
    if given.rate and given.rate <= _PROBE_RATE:
        made.error(f"--rate: must exceed that of the probes, {_PROBE_RATE:g}")
    if given.seconds <= 0 or given.warm_up < 0:
        made.error("--seconds must be above 0, and --warm-up must not be negative")
    return given


def _measure_sinks(
    given: argparse.Namespace, settings: Settings, postgresql: PostgreSQL, report: Report
) -> None:
    for records in given.records:
        with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=settings.data) as name:
            folder = Path(name)
            with running_redis(folder / "redis", settings.fsync) as redis:
                order = fill(redis, settings, records)
                for sink in given.sinks:
                    if sink == SQLITE:
                        moved = move(folder, redis, SQLiteSink(folder / SQLITE), order)
                    else:
                        with postgresql.database() as database:
                            moved = move(folder, redis, database, order)
                    report.add(moved_result(sink, records, settings, moved))
                    for warning in warnings_about(process=moved.window, limit=moved.limit.window):
                        report.warn(warning)


def _measure_end_to_end(settings: Settings, postgresql: PostgreSQL, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=settings.data) as folder:
        measured = run_end_to_end(Path(folder), postgresql, settings)
    report.add(end_to_end_result(settings, measured))
    # Devices and probes count as other processes here.
    share = measured.visibility.window.others_share - measured.phase.window.share(GENERATOR)
    if share > 2 * OTHERS_WARNING_CORES:
        report.warn(f"the probes and other processes used {share:.1f} cores")
    late = percentile(measured.visibility.lateness, 99) * 1000
    if late > _MAX_LATENESS_MS:
        report.warn(f"1 % of the probes were sent at least {late:.1f} ms late")


def main() -> None:
    """Measure all sinks, then end to end."""
    given = options()
    raise_file_limit()
    settings = Settings(
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
            entries=settings.entries,
            devices=settings.devices,
            batch=_BATCH,
            fsync=settings.fsync,
            fsync_ms=round(fsync_ms, 3),
            postgresql=postgresql.version,
            payload_bytes=round(mean(len(entry.payload) for entry in sample())),
        )
        with report:
            _measure_sinks(given, settings, postgresql, report)
            if settings.rate:
                _measure_end_to_end(settings, postgresql, report)


if __name__ == "__main__":
    main()
