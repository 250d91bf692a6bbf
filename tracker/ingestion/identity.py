"""The identity of a process, which its heartbeat contains."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from tracker.untrusted import parse_json, shown

#: Maximum length of a host name, in characters.
_MAX_NAME: Final = 255
#: States of a process that has ended: zombie and dead; see proc(5).
_ENDED: Final = ("Z", "X")


@frozen
class Identity:
    """The facts that distinguish a process from all others."""

    host: str
    boot: str
    """ID of the machine's boot."""
    pid: int
    began: int
    """Start time of the process, in clock ticks since the boot."""

    def __str__(self) -> str:
        return f"{shown(self.host)}, {self.pid}"

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of a process on this host; None if it does not exist, or has ended.

        A process that has ended is still in the process table until its parent asks for its exit
        status, which some parents never do.
        """
        with suppress(OSError, IndexError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            fields = status(pid)
            if fields[0] not in _ENDED:
                return cls(socket.gethostname(), boot, pid, int(fields[19]))
        return None

    @classmethod
    def in_heartbeat(cls, value: bytes) -> Identity | None:
        """Return the identity in a heartbeat; None if it has no valid one."""
        try:
            facts = parse_json(value)
            texts = [facts["host"], facts["boot"]]
            numbers = [facts["pid"], facts["began"]]
        except (ValueError, KeyError, TypeError):
            return None
        if not all(isinstance(text, str) and len(text) <= _MAX_NAME for text in texts):
            return None
        if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
            return None
        return cls(*texts, *numbers)

    def is_beside(self, other: Identity) -> bool:
        """Return True if both processes run on the same machine, in the same boot."""
        return (self.host, self.boot) == (other.host, other.boot)


def status(pid: int) -> list[str]:
    """Return the fields of a process' status after its name; see proc(5), /proc/pid/stat.

    :raises OSError: if the process does not exist, or is hidden.
    """
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # The name, in brackets, may contain any characters.
    return text.rpartition(")")[2].split()


def is_hidden(pid: int) -> bool:
    """Return True if a process exists whose status cannot be read (proc(5), hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return False
    try:
        status(pid)
    except OSError:
        return True
    return False
