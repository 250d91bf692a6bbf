"""Exit statuses, for scripts to rely on."""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of a command."""

    DONE = 0
    NO = 1
    """The answer is no: there is no such device, a command has failed, bytes are bad, …"""
    BAD_USE = 2
    UNREACHABLE = 3
    """The control port or Redis cannot be reached or used, or was lost."""
    NOT_PERMITTED = 4
    INTERRUPTED = 128 + signal.SIGINT
    NOT_READ = 128 + signal.SIGPIPE
    """Nobody reads the output any more."""
