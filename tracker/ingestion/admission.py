"""Who may connect, and how often: checked before a byte is read."""

from __future__ import annotations

import resource
import sys
from typing import Any, Final

from tracker.limits import Limits

#: Files that the process needs for other things than connections of devices: 64 connections to
#: the health port (HEALTH_LIMITS in tracker/observe/http.py), 64 to the control port
#: (MOST_CONNECTIONS in tracker/control/server.py), and 64 for Redis, listening sockets and so on.
RESERVED_FILES: Final = 192


def most_files() -> int:
    """Files that this process may have open once it has raised its limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


class ConnectionLimiter:
    """Counts the connections of a process, and new ones of each second and address."""

    def __init__(self, clock: Any, limits: Limits, file_limit: int = sys.maxsize) -> None:
        """Begin with no connection.

        :param file_limit: files that the process may have open.
        :raises ValueError: when that leaves none for devices.
        """
        if file_limit <= RESERVED_FILES:
            raise ValueError(
                f"a limit of {file_limit} open files leaves none for devices: {RESERVED_FILES} are "
                "needed for other things (ulimit -n, LimitNOFILE)"
            )
        self._clock = clock
        self._limits = limits
        self._most = min(limits.connections, file_limit - RESERVED_FILES)
        self._open = 0
        self._second = 0
        self._new = 0
        # Emptied every second, and no larger than what one second lets in.
        self._new_by_host: dict[str, int] = {}

    def admit(self, host: str) -> str | None:
        """Count a new connection in; or say, in one line, which limit it breaks."""
        second = int(self._clock.seconds())
        if second != self._second:
            self._second = second
            self._new = 0
            self._new_by_host.clear()
        limits = self._limits
        if self._open >= self._most:
            return f"there are {self._most} connections already"
        if self._new >= limits.connection_rate:
            return f"more than {limits.connection_rate} new connections a second"
        from_host = self._new_by_host.get(host, 0)
        if from_host >= limits.connection_rate_per_address:
            return f"more than {limits.connection_rate_per_address} a second from one address"
        self._new += 1
        self._new_by_host[host] = from_host + 1
        self._open += 1
        return None

    def ended(self) -> None:
        """A connection that was counted in has ended."""
        self._open -= 1
