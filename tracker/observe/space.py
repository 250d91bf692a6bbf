"""Room on disks, and files that may be written."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Final

from tracker.observe.findings import Finding, failure, ok, skipped, warning

#: Bytes that are free.
SPACE_WARNING: Final = 1 << 30
SPACE_FAILURE: Final = 100 << 20


def room(folder: str, also: str = "") -> Finding:
    """How much there is where this folder is."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return skipped(f"{folder}: {error.strerror}", "# run it as a user who may look there: sudo")
    return judge_room(free, folder, also)


def judge_room(free: int, folder: str, also: str = "") -> Finding:
    """What is to be said of so many bytes that are free."""
    seen = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free >= SPACE_WARNING:
        return ok(seen)
    mend = f"du -xh --max-depth=2 {shlex.quote(folder)} | sort -h | tail  {also}".rstrip()
    return (warning if free >= SPACE_FAILURE else failure)(seen, mend)


def may_write(path: str) -> bool:
    """Whether this user may, without trying."""
    return os.access(path, os.W_OK, effective_ids=True)
