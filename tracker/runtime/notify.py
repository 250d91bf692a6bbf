"""What a process tells the systemd that runs it: sd_notify(3), sd_watchdog_enabled(3).

Each message is a datagram of lines NAME=VALUE, sent to the Unix socket that NOTIFY_SOCKET
names: a path, or after @ a name in the abstract namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from attrs import frozen

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"

#: Characters of a status; systemctl shows one line.
_MAX_STATUS_CHARACTERS: Final = 400


def status(text: str) -> str:
    """The line that has ``systemctl status`` show a text."""
    return f"STATUS={' '.join(text.split())[:_MAX_STATUS_CHARACTERS]}"


@frozen
class Notifier:
    """Tells the systemd that runs this process."""

    address: str
    watchdog: float | None = None
    """Seconds after which systemd ends a process that has not said that it lives; None: never."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier | None:
        """The one of this process; None where no systemd wants to hear of it."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@"):
            return None
        return cls(address, _watchdog(environ))

    def send(self, *lines: str) -> bool:
        """Send one message; whether systemd has it. It is never waited for."""
        address = self.address
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            sending.sendto("\n".join(lines).encode(), address)
            return True
        return False


def _watchdog(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # another process is meant, which has started this one
    with suppress(ValueError):
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
        if microseconds > 0:
            return microseconds / 1e6
    return None
