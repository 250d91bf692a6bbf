"""Run a command as a child that ends with its parent and has exclusive use of a folder.

``python -m tracker.runtime.childprocess PARENT_PID LOCK_FILE COMMAND…`` replaces itself by the
command. The command

- receives SIGTERM when the parent dies, even by ``kill -9`` (Linux only);
- runs in its own POSIX session: Ctrl-C in the terminal reaches only the parent, which stops its
  services in order;
- holds a lock on the file until it exits. Its start waits for a predecessor that is still
  shutting down.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from typing import Final

#: Exit code if another process holds the lock (EX_TEMPFAIL of sysexits.h).
LOCK_HELD: Final = 75
_LOCK_TIMEOUT: Final = 15.0  # seconds
_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Replace this process by the command."""
    parent, lock_file, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)  # the parent died before prctl
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_TIMEOUT
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
