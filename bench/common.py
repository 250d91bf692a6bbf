"""What all measurements share: servers, what a process used, options and the report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TextIO

from attrs import field, frozen

import tracker
from tests.servers import RedisServer
from tests.system.raw import Ingest
from tracker.keys import telemetry_stream

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "bench" / "results"
STREAM: Final = telemetry_stream("teltonika")

#: Cores' worth of work of others from which on a figure is to be doubted.
OTHERS_WORTH_A_WARNING: Final = 0.2

# Rewriting the append-only file forks in the middle of a measurement, or does not, as it
# happens; each measurement has a new file instead.
_REDIS_OPTIONS: Final = ("--auto-aof-rewrite-percentage", "0")
#: All devices come from one address, and at once.
INGEST_OPTIONS: Final = (
    *("--connection-rate", "1000000", "--connection-rate-per-address", "1000000"),
)


@contextmanager
def running_redis(folder: Path, fsync: str) -> Iterator[RedisServer]:
    """A server that evicts nothing and writes an append-only file.

    :param fsync: ``everysec`` or ``always``.
    """
    redis = RedisServer(folder, *_REDIS_OPTIONS, "--appendfsync", fsync)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


@contextmanager
def running_ingest(folder: Path, redis: RedisServer) -> Iterator[Ingest]:
    """``twistd tracker ingest`` that no limit throttles."""
    ingest = Ingest(folder, redis, *INGEST_OPTIONS, "--connections-per-address", "10000000")
    ingest.daemon.start()
    try:
        yield ingest
    finally:
        ingest.daemon.kill()


def redis_pid(redis: RedisServer) -> int:
    """Its process id."""
    pid: int = redis.client.info("server")["process_id"]
    return pid


@frozen
class Usage:
    """What processes had used up to a moment."""

    time: float
    """Seconds of the monotonic clock."""
    cpu: Mapping[str, float]
    """Name of the process → its seconds of CPU, of all its threads."""
    machine: float
    """Seconds of CPU that all cores have worked."""

    @classmethod
    def now(
        cls, processes: Mapping[str, int], parents: Mapping[str, int] = MappingProxyType({})
    ) -> Usage:
        """What they have used.

        :param processes: name → process id.
        :param parents: the same of those that work by way of children.
        """
        cpu = {name: _cpu_seconds(pid) for name, pid in processes.items()}
        cpu |= {name: _family_seconds(pid) for name, pid in parents.items()}
        return cls(time.monotonic(), cpu, _machine_seconds())


@frozen
class Window:
    """What was used between two moments."""

    seconds: float
    cpu: Mapping[str, float] = field(factory=dict)
    """Name of the process → its seconds of CPU."""
    others: float = 0.0
    """Seconds of CPU of all other processes together."""

    @classmethod
    def between(cls, before: Usage, after: Usage) -> Window:
        """From ``before`` to ``after``."""
        cpu = {name: seconds - before.cpu[name] for name, seconds in after.cpu.items()}
        others = after.machine - before.machine - sum(cpu.values())
        return cls(after.time - before.time, cpu, max(0.0, others))

    def share(self, name: str) -> float:
        """How much of one core a process had."""
        return self.cpu[name] / self.seconds

    @property
    def others_share(self) -> float:
        """How many cores others had."""
        return self.others / self.seconds


def _cpu_seconds(pid: int) -> float:
    user, system, *_ = _ticks(pid)
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _family_seconds(pid: int) -> float:
    """Of a process, its children, and the children that it has had."""
    ticks = 0
    for child in _children(pid):
        with suppress(OSError):  # it has just ended, and counts as one that it has had
            ticks += sum(_ticks(child))
    # The parent last: better to count one twice that ends just now than not at all.
    return (ticks + sum(_ticks(pid))) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> Sequence[int]:
    """utime, stime, cutime and cstime, which are fields 14 to 17."""
    # The name, in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def _children(parent: int) -> Sequence[int]:
    # Of its main thread, which is the only one that those we ask about have.
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def resident_bytes(pid: int) -> int:
    """The memory that a process has now."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _machine_seconds() -> float:
    # user nice system idle iowait irq softirq steal; guests' time is in user already.
    with Path("/proc/stat").open() as stat:
        user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed; not a number when there is none.

    :param ordered: values in ascending order.
    """
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def raise_file_limit() -> int:
    """Let this process, and those it starts, have as many files as they may; that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fsync_milliseconds(folder: Path) -> float:
    """What it costs to make 4 KiB durable there; on a tmpfs, nothing."""
    took = []
    file = folder / "fsync"
    with file.open("wb", buffering=0) as written:
        for _ in range(50):
            written.write(bytes(4096))
            start = time.perf_counter()
            os.fdatasync(written.fileno())
            took.append(time.perf_counter() - start)
    file.unlink()
    return percentile(sorted(took), 50) * 1000


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all measurements have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="only see whether it works")
    made.add_argument(
        "--output", type=Path, metavar="FILE", help="where the JSON goes [bench/results/…]"
    )
    made.add_argument(
        "--json", action="store_true", help="JSON to the standard output, the table to stderr"
    )
    return made


def numbers(text: str) -> list[int]:
    """``1,10,30`` → those numbers."""
    try:
        found = [int(part.replace("_", "")) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between: {text!r}")
    return found


@frozen
class Column:
    """One column of the table."""

    title: str
    key: str
    """Of a result."""
    layout: str = ""
    """As in ``format()``."""

    def cell(self, result: Mapping[str, Any]) -> str:
        """What stands in it; a dash where a result has no such figure."""
        value = result.get(self.key)
        return "-" if value is None else format(value, self.layout)


class Report:
    """The table, printed as results come, and the JSON document, written in the end.

    As a context manager: what there is is written even when a measurement fails.
    """

    def __init__(
        self,
        benchmark: str,
        options: argparse.Namespace,
        columns: Sequence[Column],
        **settings: Any,
    ) -> None:
        """:param settings: what the results depend on, for the document."""
        self._columns = columns
        self._to_stdout: bool = options.json
        self._table: TextIO = sys.stderr if options.json else sys.stdout
        self._output: Path | None = options.output
        if self._output is None and not options.json:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            self._output = RESULTS / f"{benchmark}-{stamp}.json"
        self._document: dict[str, Any] = {
            "benchmark": benchmark,
            "machine": _machine(),
            "settings": settings,
            "results": [],
        }

    def __enter__(self) -> Report:
        self._print([column.title for column in self._columns])
        return self

    def __exit__(self, *exception: object) -> None:
        text = json.dumps(self._document, indent=2)
        if self._to_stdout:
            print(text)
        if self._output is not None:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            self._output.write_text(text + "\n")
            print(f"written to {self._output}", file=self._table)

    def add(self, result: Mapping[str, Any]) -> None:
        """A row of the table; what no column shows is in the document only."""
        self._document["results"].append(result)
        self._print([column.cell(result) for column in self._columns])

    def warn(self, text: str) -> None:
        """Something that makes the row above doubtful."""
        self._document["results"][-1].setdefault("warnings", []).append(text)
        print(f"  warning: {text}", file=self._table, flush=True)

    def _print(self, cells: Sequence[str]) -> None:
        widths = [max(len(column.title), 8) for column in self._columns]
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        print(line, file=self._table, flush=True)


def _machine() -> dict[str, Any]:
    model = commit = ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    with suppress(OSError):
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git there is
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        commit = described.stdout.strip()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "tracker": tracker.__version__,
        "commit": commit,
    }
