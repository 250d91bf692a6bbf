"""Run a command with the restrictions of a systemd unit.

Usage: ``python -m tests.confined UNIT COMMAND …``. It applies the restrictions that need neither
root nor systemd: filters of system calls and of socket families, and resource limits. Those of
folders, users and networks need a machine with systemd.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterable
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, Final

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
#: libseccomp's code for comparing arguments for equality.
_EQUAL: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_LIMITS: Final = {"LimitNOFILE": resource.RLIMIT_NOFILE, "LimitCORE": resource.RLIMIT_CORE}


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Several(dict[str, Any]):
    """Settings of a unit; the values of a repeated setting are joined by newlines."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def settings(unit: Path) -> dict[str, list[str]]:
    """Return name → values of the settings in a unit's section [Service]."""
    parser = RawConfigParser(strict=False, dict_type=_Several, comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit.read_text())
    return {name: value.split("\n") for name, value in parser["Service"].items()}


class _Seccomp:
    """A seccomp filter, built with libseccomp, on which systemd depends."""

    def __init__(self, action: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(action)))

    def rule(self, action: int, name: str, *comparisons: tuple[int, int, int, int]) -> None:
        """Add a rule for a system call, unless this architecture does not have the call."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        made = (_Comparison * len(comparisons))(*(_Comparison(*one) for one in comparisons))
        failed = self._library.seccomp_rule_add_array(
            self._filter, ctypes.c_uint32(action), number, len(comparisons), made
        )
        assert not failed, (name, failed)

    def load(self) -> None:
        """Apply the filter to this process and its later child processes."""
        failed = self._library.seccomp_load(self._filter)
        assert not failed, failed


def _denied(number: int) -> int:
    return _ERRNO | number


def _calls(groups: Iterable[str]) -> set[str]:
    """Return the system calls in systemd's groups (``@name``)."""
    found: set[str] = set()
    for name in groups:
        if not name.startswith("@"):
            found.add(name)
            continue
        listing = subprocess.run(
            ["systemd-analyze", "--no-pager", "syscall-filter", name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        lines = (line.strip() for line in listing.splitlines()[1:])
        found |= _calls(line for line in lines if line and not line.startswith("#"))
    return found


def confine(unit: Path) -> None:
    """Apply the restrictions of a unit to this process."""
    given = settings(unit)
    for name, which in _LIMITS.items():
        (text,) = given[name]
        _, hard = resource.getrlimit(which)
        limit = int(text) if hard == resource.RLIM_INFINITY else min(int(text), hard)
        resource.setrlimit(which, (limit, limit))
    allowed = _calls(["@default"])
    for groups in given["SystemCallFilter"]:
        if groups.startswith("~"):
            allowed -= _calls(groups[1:].split())
        else:
            allowed |= _calls(groups.split())
    (families,) = given["RestrictAddressFamilies"]
    assert ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    known = {getattr(socket, name) for name in families.split()}
    filters = []
    calls = _Seccomp(_denied(errno.EPERM))
    for name in allowed:
        calls.rule(_ALLOW, name)
    filters.append(calls)
    sockets = _Seccomp(_ALLOW)
    for family in set(range(50)) - known:
        sockets.rule(_denied(errno.EAFNOSUPPORT), "socket", (0, _EQUAL, family, 0))
    filters.append(sockets)
    for one in reversed(filters):  # calls last: that filter forbids loading another one
        one.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
