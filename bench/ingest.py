"""Records a second that one ingest process takes, beside what Redis alone would take.

Each case starts a Redis with an append-only file and lets a bare writer XADD the same
entries as fast as Redis takes them: the limit. It then starts Redis afresh and one
`twistd tracker ingest`, and connects devices that send a packet, wait for its ACK, and
send the next: the top rate. At half that rate, packets are due at even intervals, and
latencies count from when a packet was due. Every phase lasts as long, after a warm-up.

Columns: ratio: records/s over the limit; "s/M": seconds of CPU for a million records;
p50, p99: ACK latency at half the top rate, in milliseconds; RSS: of ingest, in MiB,
after the top rate; gen %: share of a core that the devices' process took.

By default all records have the same elements, which is what ingestion is quickest at.

Redis holds everything in memory until the phase ends: half a GB and more for every ten
seconds of the limit. What other processes take is told: rates and latencies suffer from
it at once, seconds of CPU least. Where the machine has fewer than four cores to itself,
the devices' process takes its CPU from the two that are measured.
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
    OTHERS_WORTH_A_WARNING,
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
from bench.devices import GENERATOR, BrokenPromise, DeviceProcess, Phase
from bench.frames import ELEMENTS, packet
from bench.limit import REDIS, WRITER, Limit
from tests.servers import RedisServer

_INGEST: Final = "ingest"
_FSYNCS: Final = ("everysec", "always")

#: As many as fit into the 8 KiB that ingestion takes for a frame by default.
_MOST_RECORDS: Final = 60
#: Share of a core from which on the load, and not what is loaded, sets the rate.
_BOTTLENECK: Final = 0.9
#: Share of the packets that were due in the paced phase that have to be acknowledged in it.
_KEPT_UP: Final = 0.98
#: Milliseconds that packets may be sent too late until latencies are to be doubted.
_LATE: Final = 2.0

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
    """What is varied."""

    fsync: str
    """Redis's appendfsync."""
    records: int
    """In a packet."""
    connections: int


@frozen
class Course:
    """What all cases have in common."""

    warm_up: float
    seconds: float
    layouts: int
    own_writer: bool
    data: Path | None


@frozen
class Measured:
    """All phases of one case."""

    limit: Limit
    top: Phase
    asked: float
    """Packets a second in the paced phase."""
    paced: Phase
    rss: int
    """Bytes."""


def measure(case: Case, course: Course) -> Measured:
    """Run the phases of one case, with servers of its own."""
    with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=course.data) as name:
        folder = Path(name)
        with running_redis(folder / "limit", case.fsync) as redis:
            _check_settings(redis, case.fsync)
            highest = limit.measure(redis, course.warm_up, course.seconds, course.own_writer)
        with (
            running_redis(folder / "redis", case.fsync) as redis,
            running_ingest(folder, redis) as ingest,
            DeviceProcess(
                ingest.port,
                case.connections,
                case.records,
                course.layouts,
                {_INGEST: ingest.daemon.pid, REDIS: redis_pid(redis)},
            ) as devices,
        ):
            top = devices.top(course.warm_up, course.seconds)
            check_appended(redis, top, case.records)
            rss = ingest.memory()
            redis.client.flushall()
            asked = top.packets_per_second / 2
            paced = devices.paced(asked, course.warm_up, course.seconds)
            check_appended(redis, paced, case.records)
    return Measured(highest, top, asked, paced, rss)


def _check_settings(redis: RedisServer, fsync: str) -> None:
    wanted = {"appendonly": "yes", "appendfsync": fsync, "maxmemory-policy": "noeviction"}
    for name, value in (wanted | {"save": ""}).items():
        if (there := redis.client.config_get(name)[name]) != value:
            raise RuntimeError(f"Redis has {name} {there!r} instead of {value!r}")


def check_appended(redis: RedisServer, phase: Phase, records: int) -> None:
    """The stream, which was empty before the phase, holds all that was acknowledged in it.

    :param records: in a packet.
    :raises BrokenPromise: when it does not.
    """
    acknowledged = phase.acknowledged * records
    if (length := redis.client.xlen(STREAM)) < acknowledged:
        raise BrokenPromise(f"{acknowledged} records acknowledged, {length} appended")


def result(case: Case, measured: Measured) -> dict[str, Any]:
    """The figures of one case, rounded to what they are worth."""
    top, paced, highest = measured.top, measured.paced, measured.limit
    records = top.packets * case.records
    per_second = records / top.window.seconds

    def per_million(window: Window, process: str, count: int) -> float:
        return round(window.cpu[process] / count * 1_000_000, 2)

    return {
        "fsync": case.fsync,
        "records": case.records,
        "connections": case.connections,
        "seconds": round(top.window.seconds, 3),
        "records_per_second": round(per_second, 1),
        "packets_per_second": round(top.packets_per_second, 1),
        "ingest_cpu_seconds_per_million": per_million(top.window, _INGEST, records),
        "redis_cpu_seconds_per_million": per_million(top.window, REDIS, records),
        "ingest_percent": round(top.window.share(_INGEST) * 100, 1),
        "redis_percent": round(top.window.share(REDIS) * 100, 1),
        "generator_percent": round(top.window.share(GENERATOR) * 100, 1),
        "others_percent": round(top.window.others_share * 100, 1),
        "ingest_rss_mib": round(measured.rss / 1024**2, 1),
        "limit_records_per_second": round(highest.records_per_second, 1),
        "limit_writer": highest.writer,
        "limit_redis_cpu_seconds_per_million": per_million(highest.window, REDIS, highest.records),
        "limit_redis_percent": round(highest.window.share(REDIS) * 100, 1),
        "limit_writer_percent": round(highest.window.share(WRITER) * 100, 1),
        "limit_others_percent": round(highest.window.others_share * 100, 1),
        "ratio": round(per_second / highest.records_per_second, 4),
        "paced_packets_per_second_asked": round(measured.asked, 1),
        "paced_packets_per_second": round(paced.packets_per_second, 1),
        "paced_ingest_percent": round(paced.window.share(_INGEST) * 100, 1),
        "paced_generator_percent": round(paced.window.share(GENERATOR) * 100, 1),
        "paced_others_percent": round(paced.window.others_share * 100, 1),
        "paced_sent_late_p99_ms": round(percentile(paced.lateness, 99) * 1000, 3),
        "ack_p50_ms": round(paced.latency(50), 3),
        "ack_p99_ms": round(paced.latency(99), 3),
        "ack_max_ms": round(paced.latency(100), 3),
    }


def doubts(measured: Measured) -> Iterator[str]:
    """What speaks against the figures of a case."""
    top, paced, highest = measured.top.window, measured.paced.window, measured.limit.window
    if top.share(GENERATOR) > _BOTTLENECK:
        yield f"the devices were the bottleneck: {top.share(GENERATOR):.0%} of a core"
    if highest.share(WRITER) > _BOTTLENECK:
        yield f"the limit's writer was the bottleneck: {highest.share(WRITER):.0%} of a core"
    for name, window in (("limit", highest), ("top rate", top), ("paced", paced)):
        if window.others_share > OTHERS_WORTH_A_WARNING:
            yield f"{name}: other processes took {window.others_share:.1f} cores"
    rate = measured.paced.packets_per_second
    if rate < _KEPT_UP * measured.asked:
        yield f"paced: {measured.asked:,.0f} packets/s were due, {rate:,.0f} acknowledged"
    late = percentile(measured.paced.lateness, 99) * 1000
    if late > _LATE:
        yield f"paced: one packet in a hundred was sent {late:.1f} ms late, or later"


def options() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    fsyncs = ",".join(_FSYNCS)
    made.add_argument("--records", type=numbers, metavar="N,…", help="in a packet [1,10,30]")
    made.add_argument("--connections", type=numbers, metavar="N,…", help="[100,1000]")
    made.add_argument("--fsync", metavar="WHEN,…", help=f"[{fsyncs}]")
    made.add_argument("--seconds", type=float, help="of each phase [10]")
    made.add_argument("--warm-up", type=float, help="seconds before each phase [2]")
    made.add_argument(
        "--layouts", type=int, default=1, help="sets of elements that a device's records have [1]"
    )
    made.add_argument(
        "--own-writer", action="store_true", help="our writer even if there is redis-benchmark"
    )
    made.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="where Redis writes; a tmpfs would make fsync free [the folder for temporary files]",
    )
    given = made.parse_args()
    quick = given.quick
    given.records = given.records or ([10] if quick else [1, 10, 30])
    given.connections = given.connections or ([20] if quick else [100, 1000])
    given.fsync = (given.fsync or (_FSYNCS[0] if quick else fsyncs)).split(",")
    given.seconds = given.seconds or (0.5 if quick else 10.0)
    given.warm_up = (0.2 if quick else 2.0) if given.warm_up is None else given.warm_up
    if not set(given.fsync) <= set(_FSYNCS):
        made.error(f"--fsync: {' or '.join(_FSYNCS)}")
    if not 0 < min(given.records) <= max(given.records) <= _MOST_RECORDS:
        made.error(f"--records: 1 to {_MOST_RECORDS} in a packet")
    if not min(given.connections):
        made.error("--connections: one at least")
    if given.seconds <= 0 or given.warm_up < 0:
        made.error("--seconds, --warm-up: no phase without a duration")
    if not 0 < given.layouts <= ELEMENTS:
        made.error(f"--layouts: 1 to {ELEMENTS}")
    return given


def cases(given: argparse.Namespace) -> Iterable[Case]:
    """All combinations of what is varied."""
    return (Case(*values) for values in product(given.fsync, given.records, given.connections))


def main() -> None:
    """Measure all cases."""
    given = options()
    raise_file_limit()
    course = Course(given.warm_up, given.seconds, given.layouts, given.own_writer, given.data)
    with tempfile.TemporaryDirectory(prefix="tracker-bench-", dir=given.data) as folder:
        fsync_ms = fsync_milliseconds(Path(folder))
    report = Report(
        "ingest",
        given,
        _COLUMNS,
        seconds=course.seconds,
        warm_up=course.warm_up,
        layouts=course.layouts,
        fsync_ms=round(fsync_ms, 3),
        packet_bytes_of_ten=len(packet(0, 10)),
        payload_bytes=round(mean(len(entry.payload) for entry in limit.sample())),
    )
    with report:
        for case in cases(given):
            measured = measure(case, course)
            report.add(result(case, measured))
            for doubt in doubts(measured):
                report.warn(doubt)


if __name__ == "__main__":
    main()
