"""Checks of disk space and of permissions to write."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Final

from tracker.observe.findings import Finding, failure, ok, skipped, warning

#: Free bytes below which a file system is a warning, or a failure.
SPACE_WARNING: Final = 1 << 30
SPACE_FAILURE: Final = 100 << 20


def check_free_space(folder: str, also: str = "") -> Finding:
    """Check the free space of the file system that holds a folder.

    :param also: a remark that is added to the command that shows what uses the space.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return skipped(
            f"{folder}: {error.strerror}", "# run the doctor as a user with access: sudo"
        )
    return judge_free_space(free, folder, also)


def judge_free_space(free: int, folder: str, also: str = "") -> Finding:
    """Return the finding for a number of free bytes."""
    seen = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free >= SPACE_WARNING:
        return ok(seen)
    fix = f"du -xh --max-depth=2 {shlex.quote(folder)} | sort -h | tail  {also}".rstrip()
    return (warning if free >= SPACE_FAILURE else failure)(seen, fix)


def may_write(path: str) -> bool:
    """Return True if this user may write to a file or folder."""
    return os.access(path, os.W_OK, effective_ids=True)
