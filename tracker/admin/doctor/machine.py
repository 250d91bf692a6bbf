"""Check the set-up of this machine."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol

from tracker.observe.findings import Finding, failure, ok, skipped, warning
from tracker.reactor import Reactor
from tracker.redis.sentinel import connect_error

#: Files that an ingest process may have open, at least.
FILES: Final = 65_536
#: Connections that the kernel keeps for a process to accept: what ingest asks for.
BACKLOG: Final = 1_024
#: Seconds for a port to accept a connection.
CONNECT_TIMEOUT: Final = 3.0
#: Microseconds by which a synchronised clock may be wrong. Source: the kernel's NTP_PHASE_LIMIT
#: (include/linux/timex.h), at which it gives up, and which timedatectl goes by.
_MAX_ERROR: Final = 16_000_000

_ROOT: Final = Path("/")


class _Timex(ctypes.Structure):
    """The beginning of struct timex, and room for the rest. Source: adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_byte * 512),
    )


def clock() -> Finding:
    """Check that the clock is synchronised."""
    timex = _Timex()  # with modes 0 it is only read
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return skipped(f"the kernel does not tell: {os.strerror(ctypes.get_errno())}")
    return judge_clock(timex.maxerror)


def judge_clock(max_error: int) -> Finding:
    """Judge the microseconds by which the clock may be wrong."""
    if max_error < _MAX_ERROR:
        return ok("the clock is synchronised")
    return warning(
        "the clock is not synchronised",
        "timedatectl set-ntp true  # or apt-get install chrony",
    )


def files() -> Finding:
    """Check that a process may have many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_files(None if hard == resource.RLIM_INFINITY else hard)


def judge_files(hard: int | None) -> Finding:
    """Judge the number of files that a process may have open; None: no limit."""
    if hard is None or hard >= FILES:
        return ok(f"{'any number of' if hard is None else hard} open files")
    return warning(
        f"a process started here may have {hard} files open, and so fewer devices",
        f"LimitNOFILE={FILES}  # under [Service], systemctl edit tracker-ingest@",
    )


def backlog(root: Path = _ROOT) -> Finding:
    """Check that the kernel keeps new connections while ingest is busy."""
    most = int(_read(root, "proc/sys/net/core/somaxconn"))
    if most >= BACKLOG:
        return ok(f"net.core.somaxconn {most}")
    return warning(
        f"net.core.somaxconn {most}: when a fleet reconnects, some devices are turned away",
        f"sysctl -w net.core.somaxconn={BACKLOG}  # and in /etc/sysctl.d/tracker.conf",
    )


def overcommit(root: Path = _ROOT) -> Finding:
    """Check that Redis can fork to rewrite its log."""
    value = _read(root, "proc/sys/vm/overcommit_memory")
    if value == "1":
        return ok("vm.overcommit_memory 1")
    return warning(
        f"vm.overcommit_memory {value}: Redis may fail to fork for a rewrite",
        "sysctl -w vm.overcommit_memory=1  # and in /etc/sysctl.d/tracker.conf",
    )


def huge_pages(root: Path = _ROOT) -> Finding:
    """Check that Redis is not slowed down after a fork."""
    name = "sys/kernel/mm/transparent_hugepage/enabled"
    try:
        value = _read(root, name)
    except FileNotFoundError:
        return ok("the kernel has no transparent huge pages")
    if "[always]" not in value:
        return ok(f"transparent huge pages: {value}")
    return warning(
        "transparent huge pages always: Redis answers late while it rewrites its log",
        f"echo madvise > /{name}  # at each boot",
    )


async def port(reactor: Reactor, host: str, number: int) -> Finding:
    """Check that a port accepts connections."""
    place = f"{f'[{host}]' if ':' in host else host}:{number}"
    endpoint = HostnameEndpoint(reactor, host, number, timeout=CONNECT_TIMEOUT)
    try:
        protocol: Any = await endpoint.connect(Factory.forProtocol(Protocol))
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no connection
        return failure(
            f"{place} accepts no connection: {connect_error(error)}",
            f"systemctl start tracker-ingest@1  # it listens by --listen teltonika=tcp:{number}; "
            "or the firewall",
        )
    protocol.transport.abortConnection()
    return ok(f"{place} accepts connections")


def _read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="ascii").strip()
