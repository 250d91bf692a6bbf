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
    """One result of a check, with the command that fixes what is wrong."""

    status: Status
    seen: str
    mend: str = ""
    """Command that fixes it, with its arguments quoted for a shell; empty if there is none."""
    check: str = ""
    """The name of the check."""


def ok(seen: str) -> Finding:
    """Return the finding that nothing is wrong."""
    return Finding(Status.OK, seen)


def warning(seen: str, mend: str) -> Finding:
    """Return the finding of something that works now and may fail later."""
    return Finding(Status.WARNING, seen, mend)


def failure(seen: str, mend: str) -> Finding:
    """Return the finding of something that fails, or breaks a promise."""
    return Finding(Status.FAILURE, seen, mend)


def skipped(why: str, mend: str = "") -> Finding:
    """Return the finding of something that could not be checked."""
    return Finding(Status.SKIPPED, why, mend)
