"""Memory of one ingest process for each device that is logged in and idle (plain TCP).

Columns: before: RSS with a few devices, in MiB; idle: the same with all of them logged
in; KiB each: the difference by connection; KiB used: the same after each has delivered a
packet of ten records and waits again. What the kernel keeps for a socket is not in it.

Ingest, and the devices' process too, may have as many connections as a process may have
files: raise the hard limit (ulimit -Hn) for more.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.common import (
    Column,
    Report,
    numbers,
    parser,
    raise_file_limit,
    running_ingest,
    running_redis,
)
from bench.devices import BrokenPromise, log_in
from bench.frames import device_frames
from tests.system.raw import Ingest

#: Connections that are there before the first figure, so that all code is loaded.
_FIRST: Final = 50
#: Files that a process needs for other things than connections.
_RESERVED_FILES: Final = 128
_RECORDS: Final = 10

_COLUMNS: Final = (
    Column("conns", "connections"),
    Column("before MiB", "rss_before_mib", ".1f"),
    Column("idle MiB", "rss_idle_mib", ".1f"),
    Column("KiB each", "kib_per_connection", ".2f"),
    Column("KiB used", "kib_per_used_connection", ".2f"),
)


def measure(connections: int, settle: float) -> dict[str, Any]:
    """Connect so many devices to a new process.

    :param settle: seconds until memory is looked at.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tracker-bench-") as name,
        running_redis(Path(name) / "redis", "everysec") as redis,
        running_ingest(Path(name), redis) as ingest,
    ):
        first = log_in(ingest.port, 0, _FIRST)
        _deliver(first, 0)
        before = _settled(ingest, settle)
        sockets = log_in(ingest.port, _FIRST, connections)
        idle = _settled(ingest, settle)
        _deliver(sockets, _FIRST)
        used = _settled(ingest, settle)
        for connection in first + sockets:
            connection.close()
    return {
        "connections": connections,
        "rss_before_mib": round(before / 1024**2, 1),
        "rss_idle_mib": round(idle / 1024**2, 1),
        "rss_used_mib": round(used / 1024**2, 1),
        "kib_per_connection": round((idle - before) / 1024 / connections, 2),
        "kib_per_used_connection": round((used - before) / 1024 / connections, 2),
    }


def _settled(ingest: Ingest, seconds: float) -> int:
    time.sleep(seconds)
    return ingest.memory()


def _deliver(sockets: list[socket.socket], first: int) -> None:
    """One packet each, one device after the other."""
    for number, connection in enumerate(sockets, first):
        connection.sendall(device_frames(number, _RECORDS, 1)[0])
        if (answer := connection.recv(8)) != _RECORDS.to_bytes(4, "big"):
            raise BrokenPromise(f"acknowledged by {answer!r}")


def options() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--connections", type=numbers, metavar="N,…", help="[1000,10000]")
    given = made.parse_args()
    given.connections = given.connections or ([200] if given.quick else [1000, 10_000])
    if not min(given.connections):
        made.error("--connections: one at least")
    return given


def main() -> None:
    """Measure each number of connections."""
    given = options()
    most = raise_file_limit() - _RESERVED_FILES - _FIRST
    settle = 0.1 if given.quick else 2.0
    with Report("connections", given, _COLUMNS, settle=settle) as report:
        for asked in given.connections:
            report.add(measure(min(asked, most), settle))
            if asked > most:
                report.warn(f"{asked} connections asked for; the limit of open files allows {most}")


if __name__ == "__main__":
    main()
