"""Measure the records per second of one ingest process, and compare them with Redis alone.

Each case has three phases of the same length, each after a warm-up:
  limit       a writer sends the same entries to Redis by XADD, as fast as Redis accepts them
  full speed  devices each send a packet to `twistd tracker ingest`, wait for its ACK, and
              send the next one
  paced       packets are due at even intervals, at half the rate of the full-speed phase

Columns:
  ratio       records/s at full speed, divided by the limit
  s/M         CPU seconds per million records, at full speed
  p50, p99    ACK latency in milliseconds in the paced phase, from the due time of a packet
  RSS MiB     resident memory of ingest after the full-speed phase
  gen %       share of one core that the process of the devices used

By default, all records have the same elements, for which ingestion is fastest.

Redis keeps all entries in memory until a phase ends: 500 MB or more per ten seconds of the
limit phase. A warning is printed if other processes use the CPU: this affects rates and
latencies most, and CPU seconds least. On a machine with fewer than four free cores, the process
of the devices competes with ingest and Redis for the CPU.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, Final

from attrs import frozen

from bench import limit
from bench.common import (
    OTHERS_WARNING_CORES,
    STREAM,
    Column,
    Report,
    Window,
    fsync_milliseconds,
    numbers,
    parser,
    percentile,
    raise_file_limit,
    redis_pid,
    running_ingest,
    running_redis,
)
from bench.devices import GENERATOR, ContractViolation, DeviceProcess, Phase
from bench.frames import ELEMENTS, packet
from bench.limit import REDIS, WRITER, Limit
from tests.servers import RedisServer

_INGEST: Final = "ingest"
_FSYNCS: Final = ("everysec", "always")

#: Records that fit into the default limit of a frame, 8 KiB.
_MAX_RECORDS: Final = 60
#: Share of a core above which the load generator limits the rate.
_BOTTLENECK_SHARE: Final = 0.9
#: Minimum share of the due packets that are acknowledged in the paced phase.
_MIN_ACKNOWLEDGED_SHARE: Final = 0.98
#: Lateness of packets above which latencies are doubtful, in milliseconds.
_MAX_LATENESS_MS: Final = 2.0

_COLUMNS: Final = (
    *(Column("fsync", "fsync"), Column("rec/pkt", "records"), Column("conns", "connections")),
    *(Column("rec/s", "records_per_second", ",.0f"), Column("pkt/s", "packets_per_second", ",.0f")),
    *(Column("limit/s", "limit_records_per_second", ",.0f"), Column("ratio", "ratio", ".3f")),
    Column("ingest s/M", "ingest_cpu_seconds_per_million", ".1f"),
    Column("redis s/M", "redis_cpu_seconds_per_million", ".1f"),
    *(Column("p50 ms", "ack_p50_ms", ".2f"), Column("p99 ms", "ack_p99_ms", ".2f")),
    *(Column("RSS MiB", "ingest_rss_mib", ".1f"), Column("gen %", "generator_percent", ".0f")),
)


@frozen
class Case:
    """Parameters that vary between measurements."""

    fsync: str
    """Setting ``appendfsync`` of Redis."""
    records: int
    """Records in a packet."""
    connections: int


@frozen
class Settings:
    """Parameters that are the same in all cases."""

    warm_up: float
    seconds: float
    layouts: int
    own_writer: bool
    data: Path | None


@frozen
class Measured:
    """Measurements of all phases of one case."""

    limit: Limit
    full_speed: Phase
    due_rate: float
    """Due packets per second in the paced phase."""
    paced: Phase
    rss_bytes: int


def measure(case: Case, settings: Settings) -> Measured:
    """Run the phases of one case with new servers."""
    with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=settings.data) as name:
        folder = Path(name)
        with running_redis(folder / "limit", case.fsync) as redis:
            _check_settings(redis, case.fsync)
            highest = limit.measure(redis, settings.warm_up, settings.seconds, settings.own_writer)
        with (
            running_redis(folder / "redis", case.fsync) as redis,
            running_ingest(folder, redis) as ingest,
            DeviceProcess(
                ingest.port,
                case.connections,
                case.records,
                settings.layouts,
                {_INGEST: ingest.daemon.pid, REDIS: redis_pid(redis)},
            ) as devices,
        ):
            full_speed = devices.full_speed(settings.warm_up, settings.seconds)
            check_appended(redis, full_speed, case.records)
            rss = ingest.memory()
            redis.client.flushall()
            due_rate = full_speed.packets_per_second / 2
            paced = devices.paced(due_rate, settings.warm_up, settings.seconds)
            check_appended(redis, paced, case.records)
    return Measured(highest, full_speed, due_rate, paced, rss)


def _check_settings(redis: RedisServer, fsync: str) -> None:
    wanted = {"appendonly": "yes", "appendfsync": fsync, "maxmemory-policy": "noeviction"}
    for name, value in (wanted | {"save": ""}).items():
        if (actual := redis.client.config_get(name)[name]) != value:
            raise RuntimeError(f"Redis has {name} {actual!r} instead of {value!r}")


def check_appended(redis: RedisServer, phase: Phase, records: int) -> None:
    """Check that the stream, empty before the phase, has all records acknowledged in it.

    :param records: records in a packet.
    :raises ContractViolation: if records are missing.
    """
    acknowledged = phase.acknowledged * records
    if (length := redis.client.xlen(STREAM)) < acknowledged:
        raise ContractViolation(f"{acknowledged} records acknowledged, {length} appended")


def result(case: Case, measured: Measured) -> dict[str, Any]:
    """Return the figures of one case, rounded to their precision."""
    full, paced, highest = measured.full_speed, measured.paced, measured.limit
    records = full.packets * case.records
    per_second = records / full.window.seconds

    def per_million(window: Window, process: str, count: int) -> float:
        return round(window.cpu[process] / count * 1_000_000, 2)

    return {
        "fsync": case.fsync,
        "records": case.records,
        "connections": case.connections,
        "seconds": round(full.window.seconds, 3),
        "records_per_second": round(per_second, 1),
        "packets_per_second": round(full.packets_per_second, 1),
        "ingest_cpu_seconds_per_million": per_million(full.window, _INGEST, records),
        "redis_cpu_seconds_per_million": per_million(full.window, REDIS, records),
        "ingest_percent": round(full.window.share(_INGEST) * 100, 1),
        "redis_percent": round(full.window.share(REDIS) * 100, 1),
        "generator_percent": round(full.window.share(GENERATOR) * 100, 1),
        "others_percent": round(full.window.others_share * 100, 1),
        "ingest_rss_mib": round(measured.rss_bytes / 1024**2, 1),
        "limit_records_per_second": round(highest.records_per_second, 1),
        "limit_writer": highest.writer,
        "limit_redis_cpu_seconds_per_million": per_million(highest.window, REDIS, highest.records),
        "limit_redis_percent": round(highest.window.share(REDIS) * 100, 1),
        "limit_writer_percent": round(highest.window.share(WRITER) * 100, 1),
        "limit_others_percent": round(highest.window.others_share * 100, 1),
        "ratio": round(per_second / highest.records_per_second, 4),
        "paced_packets_per_second_asked": round(measured.due_rate, 1),
        "paced_packets_per_second": round(paced.packets_per_second, 1),
        "paced_ingest_percent": round(paced.window.share(_INGEST) * 100, 1),
        "paced_generator_percent": round(paced.window.share(GENERATOR) * 100, 1),
        "paced_others_percent": round(paced.window.others_share * 100, 1),
        "paced_sent_late_p99_ms": round(percentile(paced.lateness, 99) * 1000, 3),
        "ack_p50_ms": round(paced.latency(50), 3),
        "ack_p99_ms": round(paced.latency(99), 3),
        "ack_max_ms": round(paced.latency(100), 3),
    }


def warnings_about(measured: Measured) -> Iterator[str]:
    """Yield the reasons why the figures of a case are doubtful."""
    full, paced, highest = (
        measured.full_speed.window,
        measured.paced.window,
        measured.limit.window,
    )
    if full.share(GENERATOR) > _BOTTLENECK_SHARE:
        yield f"the devices were the bottleneck: {full.share(GENERATOR):.0%} of a core"
    if highest.share(WRITER) > _BOTTLENECK_SHARE:
        yield f"the writer of the limit was the bottleneck: {highest.share(WRITER):.0%} of a core"
    for name, window in (("limit", highest), ("full speed", full), ("paced", paced)):
        if window.others_share > OTHERS_WARNING_CORES:
            yield f"{name}: other processes used {window.others_share:.1f} cores"
    rate = measured.paced.packets_per_second
    if rate < _MIN_ACKNOWLEDGED_SHARE * measured.due_rate:
        yield f"paced: {measured.due_rate:,.0f} packets/s were due, {rate:,.0f} were acknowledged"
    late = percentile(measured.paced.lateness, 99) * 1000
    if late > _MAX_LATENESS_MS:
        yield f"paced: 1 % of the packets were sent at least {late:.1f} ms late"


def options() -> argparse.Namespace:
    """Parse the command line."""
    made = parser(__doc__)
    fsyncs = ",".join(_FSYNCS)
    made.add_argument(
        "--records", type=numbers, metavar="N,…", help="records in a packet [1,10,30]"
    )
    made.add_argument("--connections", type=numbers, metavar="N,…", help="devices [100,1000]")
    made.add_argument("--fsync", metavar="WHEN,…", help=f"appendfsync of Redis [{fsyncs}]")
    made.add_argument("--seconds", type=float, help="duration of each phase [10]")
    made.add_argument("--warm-up", type=float, help="seconds before each phase [2]")
    made.add_argument(
        "--layouts",
        type=int,
        default=1,
        help="sets of elements among which the records of a device alternate [1]",
    )
    made.add_argument(
        "--own-writer",
        action="store_true",
        help="measure the limit without redis-benchmark, even if it is installed",
    )
    made.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="data folder of Redis; not on a tmpfs, where fsync costs nothing [a temporary folder]",
    )
    given = made.parse_args()
    quick = given.quick
    given.records = given.records or ([10] if quick else [1, 10, 30])
    given.connections = given.connections or ([20] if quick else [100, 1000])
    given.fsync = (given.fsync or (_FSYNCS[0] if quick else fsyncs)).split(",")
    given.seconds = given.seconds or (0.5 if quick else 10.0)
    given.warm_up = (0.2 if quick else 2.0) if given.warm_up is None else given.warm_up
    if not set(given.fsync) <= set(_FSYNCS):
        made.error(f"--fsync: choose from {fsyncs}")
    if not 0 < min(given.records) <= max(given.records) <= _MAX_RECORDS:
        made.error(f"--records: choose from 1 to {_MAX_RECORDS}")
    if not min(given.connections):
        made.error("--connections: the minimum is 1")
    if given.seconds <= 0 or given.warm_up < 0:
        made.error("--seconds must be above 0, and --warm-up must not be negative")
    if not 0 < given.layouts <= ELEMENTS:
        made.error(f"--layouts: choose from 1 to {ELEMENTS}")
    return given


def cases(given: argparse.Namespace) -> Iterable[Case]:
    """Return all cases."""
    return (Case(*values) for values in product(given.fsync, given.records, given.connections))


def main() -> None:
    """Measure all cases."""
    given = options()
    raise_file_limit()
    settings = Settings(given.warm_up, given.seconds, given.layouts, given.own_writer, given.data)
    with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=given.data) as folder:
        fsync_ms = fsync_milliseconds(Path(folder))
    report = Report(
        "ingest",
        given,
        _COLUMNS,
        seconds=settings.seconds,
        warm_up=settings.warm_up,
        layouts=settings.layouts,
        fsync_ms=round(fsync_ms, 3),
        packet_bytes_of_ten=len(packet(0, 10)),
        payload_bytes=round(mean(len(entry.payload) for entry in limit.sample())),
    )
    with report:
        for case in cases(given):
            measured = measure(case, settings)
            report.add(result(case, measured))
            for warning in warnings_about(measured):
                report.warn(warning)


if __name__ == "__main__":
    main()
