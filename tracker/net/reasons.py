"""Reasons of failed connections and listeners, in the words of the operating system."""

from __future__ import annotations

import errno
import os
from typing import Final

from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.error import TimeoutError as ConnectTimeout

#: Lowest port that needs no privilege (ip_unprivileged_port_start, by default).
_UNPRIVILEGED: Final = 1024


def connect_error(error: BaseException | None) -> str:
    """Return the reason of a failed attempt to connect, in one line."""
    if isinstance(error, ConnectTimeout):
        return "the connection timed out"
    # A failed lookup has a negative code, and Twisted passes on whatever code it gets.
    if isinstance(error, ConnectError) and isinstance(error.osError, int) and error.osError > 0:
        return os.strerror(error.osError).lower()
    return str(error)


def listen_error(error: BaseException | None) -> str:
    """Return the reason why a process cannot listen, in one line, and if known what to do."""
    reason = error.socketError if isinstance(error, CannotListenError) else error
    if not isinstance(reason, OSError) or not reason.strerror:
        return str(reason)
    text = reason.strerror.lower()
    if reason.errno == errno.EADDRINUSE:
        return f"{text}. Stop the process that uses it, or choose another port."
    if reason.errno == errno.EACCES and _is_privileged(error):
        return (
            f"{text}. Choose a port from {_UNPRIVILEGED} on, "
            "or give the process CAP_NET_BIND_SERVICE."
        )
    return text


def _is_privileged(error: BaseException | None) -> bool:
    # The port of a Unix socket is its path.
    port = getattr(error, "port", None)
    return isinstance(port, int) and 0 < port < _UNPRIVILEGED
