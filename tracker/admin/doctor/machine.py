"""Check the configuration of this machine."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol

from tracker.admin.vendors import vendor_names
from tracker.net.reasons import connect_error
from tracker.observe.findings import Finding, failure, ok, skipped, warning
from tracker.reactor import Reactor
from tracker.untrusted import listed

#: Number of files that an ingest process must be able to open.
MIN_FILES: Final = 65_536
#: Number of connections that the kernel queues for accept(): the backlog of ingest's ports.
MIN_BACKLOG: Final = 1_024
#: Seconds in which a port must accept a connection.
CONNECT_TIMEOUT: Final = 3.0
#: Maximum error of a synchronised clock, in microseconds. Source: NTP_PHASE_LIMIT in the kernel's
#: include/linux/timex.h, above which the kernel and timedatectl report an unsynchronised clock.
_MAX_CLOCK_ERROR: Final = 16_000_000

_ROOT: Final = Path("/")


class _Timex(ctypes.Structure):
    """The first fields of struct timex, and space for the rest. Source: adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_byte * 512),
    )


def clock() -> Finding:
    """Check that the clock is synchronised."""
    timex = _Timex()  # with modes 0, adjtimex changes nothing
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return skipped(f"adjtimex failed: {os.strerror(ctypes.get_errno())}")
    return judge_clock(timex.maxerror)


def judge_clock(max_error: int) -> Finding:
    """Judge the estimated error of the clock, in microseconds."""
    if max_error < _MAX_CLOCK_ERROR:
        return ok("the clock is synchronised")
    return warning(
        "the clock is not synchronised",
        "timedatectl set-ntp true  # or apt-get install chrony",
    )


def files() -> Finding:
    """Check the open-file limit, since each connection is an open file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_files(None if hard == resource.RLIM_INFINITY else hard)


def judge_files(hard: int | None) -> Finding:
    """Judge the hard open-file limit; None means no limit."""
    if hard is None:
        return ok("no open-file limit")
    if hard >= MIN_FILES:
        return ok(f"open-file limit is {hard:,}")
    return warning(
        f"open-file limit is {hard:,}: a process started here can serve fewer devices than that",
        f"LimitNOFILE={MIN_FILES}  # under [Service], systemctl edit tracker-ingest@",
    )


def backlog(root: Path = _ROOT) -> Finding:
    """Check that the kernel can queue new connections while ingest is busy."""
    limit = int(_read(root, "proc/sys/net/core/somaxconn"))
    if limit >= MIN_BACKLOG:
        return ok(f"net.core.somaxconn {limit}")
    return warning(
        f"net.core.somaxconn {limit}: some devices are refused when a fleet reconnects",
        f"sysctl -w net.core.somaxconn={MIN_BACKLOG}  # and in /etc/sysctl.d/tracker.conf",
    )


def overcommit(root: Path = _ROOT) -> Finding:
    """Check that Redis can fork to rewrite its append-only file."""
    value = _read(root, "proc/sys/vm/overcommit_memory")
    if value == "1":
        return ok("vm.overcommit_memory 1")
    return warning(
        f"vm.overcommit_memory {value}: Redis may fail to fork for a rewrite",
        "sysctl -w vm.overcommit_memory=1  # and in /etc/sysctl.d/tracker.conf",
    )


def huge_pages(root: Path = _ROOT) -> Finding:
    """Check that huge pages do not slow Redis down after a fork."""
    name = "sys/kernel/mm/transparent_hugepage/enabled"
    try:
        value = _read(root, name)
    except FileNotFoundError:
        return ok("the kernel has no transparent huge pages")
    if "[always]" not in value:
        return ok(f"transparent huge pages: {value}")
    return warning(
        "transparent huge pages always: Redis is slow while it rewrites its append-only file",
        f"echo madvise > /{name}  # at each boot",
    )


async def port(reactor: Reactor, host: str, number: int) -> Finding:
    """Check that a port accepts connections."""
    address = f"{f'[{host}]' if ':' in host else host}:{number}"
    endpoint = HostnameEndpoint(reactor, host, number, timeout=CONNECT_TIMEOUT)
    try:
        protocol: Any = await endpoint.connect(Factory.forProtocol(Protocol))
    except Exception as error:  # noqa: BLE001 - each kind of endpoint fails in its own way
        return failure(
            f"{address} does not accept connections: {connect_error(error)}",
            f"systemctl start tracker-ingest@1  # it listens by --listen VENDOR=tcp:{number}, "
            f"VENDOR: {listed(vendor_names())}; or check the firewall",
        )
    protocol.transport.abortConnection()
    return ok(f"{address} accepts connections")


def _read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="ascii").strip()
