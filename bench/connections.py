"""Measure the memory of one ingest process per idle device (plain TCP).

Columns:
  before MiB  RSS with a few devices
  idle MiB    RSS with all devices logged in
  KiB each    difference per connection
  KiB used    difference per connection after each device has sent a packet of ten records

The memory of the kernel for sockets is not included.

The hard limit of open files (ulimit -Hn) limits the connections of ingest and of the process
that simulates the devices.
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
from bench.devices import ContractViolation, log_in
from bench.frames import device_frames
from tests.system.raw import Ingest

#: Connections before the first measurement; they cause all code to be loaded.
_FIRST: Final = 50
#: Open files that are not connections.
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
    """Measure one number of connections with a new process.

    :param settle: seconds before each measurement of memory.
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
    """Send one packet from each device, one device after the other."""
    for number, connection in enumerate(sockets, first):
        connection.sendall(device_frames(number, _RECORDS, 1)[0])
        if (answer := connection.recv(8)) != _RECORDS.to_bytes(4, "big"):
            raise ContractViolation(f"unexpected ACK: {answer!r}")


def options() -> argparse.Namespace:
    """Parse the command line."""
    made = parser(__doc__)
    made.add_argument("--connections", type=numbers, metavar="N,…", help="[1000,10000]")
    given = made.parse_args()
    given.connections = given.connections or ([200] if given.quick else [1000, 10_000])
    if not min(given.connections):
        made.error("--connections: the minimum is 1")
    return given


def main() -> None:
    """Measure each number of connections."""
    given = options()
    max_connections = raise_file_limit() - _RESERVED_FILES - _FIRST
    settle = 0.1 if given.quick else 2.0
    with Report("connections", given, _COLUMNS, settle=settle) as report:
        for asked in given.connections:
            report.add(measure(min(asked, max_connections), settle))
            if asked > max_connections:
                report.warn(f"limit of open files allows {max_connections} of {asked} connections")


if __name__ == "__main__":
    main()
