"""Paths of Unix sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

#: Bytes of the longest path that a Unix socket can have (unix(7): sun_path, less its final
#: zero).
MAX_SOCKET_PATH: Final = 107


def connect_error_number(path: Path) -> int:
    """Try to connect to a Unix socket, without waiting; return the error number, 0 if connected."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path))
