"""Compare the records per second of one ingest process with those of another checkout.

Both run at the same time, each with its own Redis and devices. In each round, first the devices
of one side send at full speed while the others are silent, then those of the other side. The
order alternates, therefore a slow period of the machine affects both sides. The result is the
median of the ratios of all rounds. On a machine with other load, the ratio of CPU seconds is more
reliable than that of the rates.

The metrics of this checkout are fetched every few seconds, as Prometheus does.

    git worktree add ../before COMMIT
    python bench/versus.py ../before

Columns:
  s/M  CPU seconds of ingest per million records
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from attrs import define, field

from bench.common import (
    INGEST_OPTIONS,
    OTHERS_WARNING_CORES,
    ROOT,
    Column,
    Report,
    parser,
    raise_file_limit,
    redis_pid,
    running_redis,
)
from bench.devices import DeviceProcess, Phase
from bench.ingest import check_appended
from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon

_INGEST: Final = "ingest"
_COLUMNS: Final = (
    *(Column("round", "round"), Column("side", "side")),
    *(Column("rec/s", "records_per_second", ",.0f"), Column("pkt/s", "packets_per_second", ",.0f")),
    Column("ingest s/M", "ingest_cpu_seconds_per_million", ".2f"),
    *(Column("ratio rec/s", "rate_ratio", ".3f"), Column("ratio s/M", "cpu_ratio", ".3f")),
)


@define
class Side:
    """Ingest of one checkout, with its Redis and devices."""

    name: str
    redis: RedisServer
    daemon: Daemon
    devices: DeviceProcess
    rates: list[float] = field(factory=list)
    """Records per second of each round."""
    cpu: list[float] = field(factory=list)
    """CPU seconds per million records of each round."""

    def run_phase(self, given: argparse.Namespace) -> Phase:
        """Measure one phase at full speed."""
        phase = self.devices.full_speed(given.warm_up, given.seconds)
        check_appended(self.redis, phase, given.records)
        self.redis.client.flushall()
        records = phase.packets * given.records
        self.rates.append(records / phase.window.seconds)
        self.cpu.append(phase.window.cpu[_INGEST] / records * 1_000_000)
        return phase


@contextmanager
def running(name: str, checkout: Path, folder: Path, given: argparse.Namespace) -> Iterator[Side]:
    """Start ingest, Redis and devices of one side."""
    port = free_port()
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(folder / name, given.fsync))
        daemon = Daemon(
            *(folder, f"{name}-ingest", "ingest", "--redis", redis.url),
            *("--listen", f"teltonika=tcp:{port}:interface=127.0.0.1", *INGEST_OPTIONS),
            variables={"PYTHONPATH": str(checkout.resolve())},
        )
        stack.callback(daemon.kill)
        daemon.start()
        watched = {_INGEST: daemon.pid, "redis": redis_pid(redis)}
        devices = DeviceProcess(port, given.connections, given.records, 1, watched)
        yield Side(name, redis, daemon, stack.enter_context(devices))


@contextmanager
def scraped(daemon: Daemon, interval: float) -> Iterator[None]:
    """Fetch the metrics of ``daemon`` every ``interval`` seconds."""
    ended = threading.Event()
    url = daemon.url("/metrics")

    def scrape() -> None:
        while not ended.wait(interval):
            with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own
                response.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def options() -> argparse.Namespace:
    """Parse the command line."""
    made = parser(__doc__)
    made.add_argument("other", type=Path, help="folder of the other checkout")
    made.add_argument("--records", type=int, default=10, help="records in a packet [10]")
    made.add_argument("--connections", type=int, default=100, help="devices per side [100]")
    made.add_argument("--fsync", choices=("everysec", "always"), default="everysec")
    made.add_argument("--rounds", type=int, help="number of rounds [8]")
    made.add_argument("--seconds", type=float, help="duration of each phase [5]")
    made.add_argument("--warm-up", type=float, help="seconds before each phase [1]")
    made.add_argument(
        "--scrape", type=float, default=5.0, help="seconds between two fetches of the metrics [5]"
    )
    given = made.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 8)
    given.seconds = given.seconds or (0.5 if given.quick else 5.0)
    given.warm_up = (0.2 if given.quick else 1.0) if given.warm_up is None else given.warm_up
    if not (given.other / "tracker" / "__init__.py").is_file():
        made.error(f"{given.other} is not a checkout of Tracker")
    return given


def main() -> None:
    """Measure all rounds."""
    given = options()
    raise_file_limit()
    kept = ("records", "connections", "fsync", "seconds", "warm_up", "scrape")
    report = Report("versus", given, _COLUMNS, **{name: getattr(given, name) for name in kept})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tracker-bench-")))
        this = stack.enter_context(running("this", ROOT, folder, given))
        other = stack.enter_context(running("other", given.other, folder, given))
        stack.enter_context(scraped(this.daemon, given.scrape))
        stack.enter_context(report)
        for number in range(given.rounds):
            for side in (this, other) if number % 2 else (other, this):
                phase = side.run_phase(given)
                report.add(_result(side, number + 1, phase))
                if phase.window.others_share > OTHERS_WARNING_CORES:
                    report.warn(f"other processes used {phase.window.others_share:.1f} cores")
        report.add(
            {
                "side": "this/other",
                "rate_ratio": _ratio(this.rates, other.rates),
                "cpu_ratio": _ratio(this.cpu, other.cpu),
            }
        )


def _ratio(these: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios of all rounds."""
    return round(median(this / other for this, other in zip(these, others, strict=True)), 4)


def _result(side: Side, number: int, phase: Phase) -> dict[str, Any]:
    return {
        "round": number,
        "side": side.name,
        "records_per_second": round(side.rates[-1], 1),
        "packets_per_second": round(phase.packets_per_second, 1),
        "ingest_cpu_seconds_per_million": round(side.cpu[-1], 3),
        "others_percent": round(phase.window.others_share * 100, 1),
    }


if __name__ == "__main__":
    main()
