"""Checks of sinks that are files."""

from __future__ import annotations

import os
import shlex

from tracker.observe.findings import Finding, failure, ok
from tracker.observe.space import check_free_space, may_write


def writable(kind: str, path: str) -> Finding:
    """Check that this user can write to the file, and create files beside it."""
    folder = os.path.dirname(os.path.abspath(path))
    inside = shlex.quote(folder)
    if not os.path.isdir(folder):
        return failure(
            f"folder {folder} does not exist", f"install -d -o tracker -g tracker {inside}"
        )
    if not may_write(folder):
        return failure(f"this user may not write to {folder}", f"chown tracker:tracker {inside}")
    if os.path.isdir(path):
        name = shlex.quote(os.path.join(path, "positions"))
        return failure(f"{path} is a folder", f"TRACKER_SINK={kind}:{name}")
    if not os.path.exists(path):
        return ok(f"{path} does not exist yet; a processor creates it")
    if not may_write(path):
        return failure(
            f"this user may not write to {path}", f"chown tracker:tracker {shlex.quote(path)}*"
        )
    return ok(f"{path} is writable")


def space(path: str) -> Finding:
    """Check the free space of the file system that holds the file."""
    return check_free_space(os.path.dirname(os.path.abspath(path)))
