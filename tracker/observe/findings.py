"""Results of checks."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class Status(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@frozen
class Finding:
    """Result of a check, with a command that fixes the problem."""

    status: Status
    seen: str
    """Observation, for people."""
    fix: str = ""
    """Command that fixes the problem, with its arguments quoted for a shell; empty if none."""
    check: str = ""
    """Name of the check."""


def ok(seen: str) -> Finding:
    """Return the finding of a check that has passed."""
    return Finding(Status.OK, seen)


def warning(seen: str, fix: str) -> Finding:
    """Return the finding of a part that works now and may fail later."""
    return Finding(Status.WARNING, seen, fix)


def failure(seen: str, fix: str) -> Finding:
    """Return the finding of a part that fails or breaks a guarantee."""
    return Finding(Status.FAILURE, seen, fix)


def skipped(why: str, fix: str = "") -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(Status.SKIPPED, why, fix)
