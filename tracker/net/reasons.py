"""Reasons of failed connections, in the words of the operating system."""

from __future__ import annotations

import os

from twisted.internet.error import ConnectError
from twisted.internet.error import TimeoutError as ConnectTimeout


def connect_error(error: BaseException | None) -> str:
    """Return the reason of a failed attempt to connect, in one line."""
    if isinstance(error, ConnectTimeout):
        return "the connection timed out"
    # A failed lookup has a negative code, and Twisted passes on whatever code it gets.
    if isinstance(error, ConnectError) and isinstance(error.osError, int) and error.osError > 0:
        return os.strerror(error.osError).lower()
    return str(error)
