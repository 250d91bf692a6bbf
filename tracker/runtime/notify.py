"""Notifications for systemd: sd_notify(3), sd_watchdog_enabled(3).

Each message is a datagram of lines NAME=VALUE. NOTIFY_SOCKET names the Unix socket that receives
it: a path, or @ and a name in the abstract namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

from attrs import frozen

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"

#: Limit of a status, of which systemctl shows one line.
_MAX_STATUS_CHARACTERS: Final = 400


def status(text: str) -> str:
    """Return the line that sets the text in ``systemctl status``."""
    return f"STATUS={' '.join(text.split())[:_MAX_STATUS_CHARACTERS]}"


class INotifier(Protocol):
    """Receives notifications of a process."""

    @property
    def watchdog(self) -> float | None:
        """Seconds without ``WATCHDOG=1`` after which the process is ended; None: never."""

    def send(self, *lines: str) -> bool:
        """Send one message without blocking; return False if it could not be sent."""


@frozen
class Notifier:
    """Sends notifications to the systemd that runs this process."""

    address: str
    """Value of NOTIFY_SOCKET."""
    watchdog: float | None = None
    """Seconds without ``WATCHDOG=1`` after which systemd ends the process; None: never."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier | None:
        """Return the notifier of this process, or None if systemd expects no notifications."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@"):
            return None
        return cls(address, _watchdog(environ))

    def send(self, *lines: str) -> bool:
        """Send one message without blocking; return False if it could not be sent."""
        address = self.address
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)
            return True
        return False


def _watchdog(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # the watchdog is that of a parent process
    with suppress(ValueError):
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
        if microseconds > 0:
            return microseconds / 1e6
    return None
