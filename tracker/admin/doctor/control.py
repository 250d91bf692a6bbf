"""Check that clients reach the control ports of the instances."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from tracker.admin.doctor.streams import Traffic
from tracker.control.connection import with_remedy
from tracker.ingestion.identity import Identity
from tracker.log.redis.heartbeats import InstanceHeartbeat, heartbeats
from tracker.net.endpoints import split
from tracker.net.socketpaths import MAX_SOCKET_PATH, connect_error_number
from tracker.observe.findings import Finding, ok, skipped, warning
from tracker.untrusted import listed, shown
from tracker.wording import counted

#: Maximum number of sockets that are connected to, and of findings on them.
MAX_SOCKETS: Final = 200
MAX_FINDINGS: Final = 5

#: Errors of a socket with a listener that is busy.
_BUSY: Final = (0, errno.EAGAIN)


async def control_ports(traffic: Traffic) -> list[Finding]:
    """Check that each instance has a control port, and that this user may use those here."""
    found = await heartbeats(traffic.server.redis, max_aged=0)
    without = [one.instance_id for one in found if one.control is None]
    findings = [judge_control_ports(len(found), without)]
    return [*findings, *islice(_unreachable(found), MAX_FINDINGS)]


def judge_control_ports(instances: int, without: Sequence[str]) -> Finding:
    """Judge the control ports in the heartbeats.

    :param instances: number of live instances.
    :param without: those without a control port.
    """
    if not instances:
        return skipped("no ingest instance is running")
    if not without:
        return ok("each instance has a control port")
    return warning(
        f"{counted(len(without), 'instance')} without a control port: {listed(sorted(without))}; "
        "tracker-admin, the console and the bridge cannot reach them",
        "journalctl -u 'tracker-ingest@*' | grep 'no control port'  # then start each without "
        "--control none, or with --control unix:PATH",
    )


def judge_socket(instance_id: str, address: str, reason: str) -> Finding:
    """Return the finding on a control socket on this machine that cannot be connected to."""
    why = with_remedy(address, reason)
    return warning(f"{shown(instance_id)}: cannot connect to {shown(address)}: {why}", "")


def _unreachable(found: Sequence[InstanceHeartbeat]) -> Iterator[Finding]:
    """Yield a finding for each socket of a process on this machine that this user cannot use."""
    here = Identity.of(os.getpid())
    for one in [one for one in found if (one.control or "").startswith("unix:")][:MAX_SOCKETS]:
        facts, address = one.facts, one.control or ""
        if here is None or (facts.get("host"), facts.get("boot")) != (here.host, here.boot):
            continue
        path = split(address)[1][:1]
        if path and len(os.fsencode(path[0])) <= MAX_SOCKET_PATH:
            number = connect_error_number(Path(path[0]))
            if number not in _BUSY:
                yield judge_socket(one.instance_id, address, os.strerror(number).lower())
