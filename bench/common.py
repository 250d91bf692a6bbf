"""Shared parts of the benchmarks: servers, resource usage, options and the report."""

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

#: Cores used by other processes above which a warning is printed.
OTHERS_WARNING_CORES: Final = 0.2

# Each measurement starts with a new append-only file. A rewrite during a measurement would fork
# at an arbitrary time.
_REDIS_OPTIONS: Final = ("--auto-aof-rewrite-percentage", "0")
#: Options that let all devices connect from one address at the same time.
INGEST_OPTIONS: Final = (
    *("--connection-rate", "1000000", "--connection-rate-per-address", "1000000"),
)


@contextmanager
def running_redis(folder: Path, fsync: str) -> Iterator[RedisServer]:
    """Run a Redis server with an append-only file and without eviction.

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
    """Run ``twistd tracker ingest`` without limits on connections."""
    ingest = Ingest(folder, redis, *INGEST_OPTIONS, "--connections-per-address", "10000000")
    ingest.daemon.start()
    try:
        yield ingest
    finally:
        ingest.daemon.kill()


def redis_pid(redis: RedisServer) -> int:
    """Return the process id of a server."""
    pid: int = redis.client.info("server")["process_id"]
    return pid


@frozen
class Usage:
    """CPU time that processes have used up to one moment."""

    time: float
    """Time of the monotonic clock, in seconds."""
    cpu: Mapping[str, float]
    """Name of the process → CPU seconds of all its threads."""
    machine: float
    """CPU seconds of all processes of the machine."""

    @classmethod
    def now(
        cls, processes: Mapping[str, int], parents: Mapping[str, int] = MappingProxyType({})
    ) -> Usage:
        """Return the usage up to now.

        :param processes: name → process id.
        :param parents: name → process id; their children are included.
        """
        cpu = {name: _cpu_seconds(pid) for name, pid in processes.items()}
        cpu |= {name: _family_seconds(pid) for name, pid in parents.items()}
        return cls(time.monotonic(), cpu, _machine_seconds())


@frozen
class Window:
    """CPU time that was used between two moments."""

    seconds: float
    cpu: Mapping[str, float] = field(factory=dict)
    """Name of the process → CPU seconds."""
    others: float = 0.0
    """CPU seconds of all other processes."""

    @classmethod
    def between(cls, before: Usage, after: Usage) -> Window:
        """Return the window from ``before`` to ``after``."""
        cpu = {name: seconds - before.cpu[name] for name, seconds in after.cpu.items()}
        others = after.machine - before.machine - sum(cpu.values())
        return cls(after.time - before.time, cpu, max(0.0, others))

    def share(self, name: str) -> float:
        """Return the share of one core that a process has used."""
        return self.cpu[name] / self.seconds

    @property
    def others_share(self) -> float:
        """Number of cores that other processes have used."""
        return self.others / self.seconds


def _cpu_seconds(pid: int) -> float:
    user, system, *_ = _ticks(pid)
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _family_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, its children and its ended children."""
    ticks = 0
    for child in _children(pid):
        with suppress(OSError):  # the child has ended and is counted with its parent
            ticks += sum(_ticks(child))
    # The parent comes last: a child that ends meanwhile is counted twice rather than never.
    return (ticks + sum(_ticks(pid))) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> Sequence[int]:
    """Return utime, stime, cutime and cstime (fields 14 to 17 of the file)."""
    # The name of the process, in parentheses, may contain any character.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def _children(parent: int) -> Sequence[int]:
    # Only those of the main thread: the measured parents have no other.
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _machine_seconds() -> float:
    # Fields: user nice system idle iowait irq softirq steal; user includes guests.
    with Path("/proc/stat").open() as stat:
        user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile; NaN without values.

    :param ordered: values in ascending order.
    """
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def raise_file_limit() -> int:
    """Raise the limit of open files to the hard limit and return it; child processes inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fsync_milliseconds(folder: Path) -> float:
    """Return the median time of an fsync of 4 KiB in a folder; about 0 on a tmpfs."""
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
    """Return a parser with the options of all benchmarks."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick", action="store_true", help="run briefly, only to check that the benchmark works"
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the JSON document to FILE [bench/results/…]",
    )
    made.add_argument(
        "--json",
        action="store_true",
        help="write the JSON document to stdout and the table to stderr",
    )
    return made


def numbers(text: str) -> list[int]:
    """Parse numbers with commas between them, such as ``1,10,30``."""
    try:
        found = [int(part.replace("_", "")) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers with commas between them"
        )
    return found


@frozen
class Column:
    """One column of the table."""

    title: str
    key: str
    """Key in the results."""
    layout: str = ""
    """Format specification, see ``format()``."""

    def cell(self, result: Mapping[str, Any]) -> str:
        """Return the text of the cell; a dash if the result has no such figure."""
        value = result.get(self.key)
        return "-" if value is None else format(value, self.layout)


class Report:
    """A table that is printed row by row, and a JSON document that is written at the end.

    A context manager: the document is written even if a measurement fails.
    """

    def __init__(
        self,
        benchmark: str,
        options: argparse.Namespace,
        columns: Sequence[Column],
        **settings: Any,
    ) -> None:
        """Prepare a report.

        :param settings: settings of the benchmark, for the document.
        """
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
            print(f"Results written to {self._output}.", file=self._table)

    def add(self, result: Mapping[str, Any]) -> None:
        """Add a result; figures without a column are only in the document."""
        self._document["results"].append(result)
        self._print([column.cell(result) for column in self._columns])

    def warn(self, text: str) -> None:
        """Add a warning about the last result."""
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
            ["git", "describe", "--always", "--dirty"],  # noqa: S607 - any installed git
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
