"""The exit codes of ``tracker-admin``, on which scripts may rely."""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command."""

    DONE = 0
    FAILED = 1
    """The command could not do its work, or its result is negative: the device is not found, bytes
    are malformed, the device rejected the command, …
    """
    BAD_USAGE = 2
    """The command line, the configuration file or an address is malformed."""
    UNREACHABLE = 3
    """A server that the command needs cannot be reached or used, or the connection was lost."""
    NOT_PERMITTED = 4
    """The client's permission, or the Redis user's rights, do not allow the command."""
    INTERRUPTED = 128 + signal.SIGINT
    OUTPUT_CLOSED = 128 + signal.SIGPIPE
    """The reader of standard output has closed it."""
