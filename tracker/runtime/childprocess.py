"""Runs a command that ends when its parent does and has a folder for itself.

``python -m tracker.runtime.childprocess PARENT_PID LOCK_FILE COMMAND…`` becomes the command,
which from then on

- gets SIGTERM when the parent dies, even by ``kill -9`` (Linux only);
- is out of the terminal's reach: Ctrl-C is for the parent, which stops it in order;
- holds a lock on the file as long as it lives. A predecessor that is still shutting
  down is waited for.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from typing import Final

#: Exit status when somebody else keeps the lock (EX_TEMPFAIL of sysexits.h).
LOCK_HELD: Final = 75
_PATIENCE: Final = 15.0  # seconds
_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Become the command."""
    parent, lock_file, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)  # it died before it could be watched
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit(LOCK_HELD)
            time.sleep(0.05)
    os.set_inheritable(lock, True)
    os.execv(command[0], command)  # noqa: S606 - the parent built it


if __name__ == "__main__":
    main()
