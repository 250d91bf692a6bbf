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
    fix: str = ""
    """Command that fixes it, with its arguments quoted for a shell; empty if there is none."""
    check: str = ""
    """The name of the check."""


def ok(seen: str) -> Finding:
    """Return the finding that nothing is wrong."""
    return Finding(Status.OK, seen)


def warning(seen: str, fix: str) -> Finding:
    """Return the finding of something that works now and may fail later."""
    return Finding(Status.WARNING, seen, fix)


def failure(seen: str, fix: str) -> Finding:
    """Return the finding of something that fails, or breaks a promise."""
    return Finding(Status.FAILURE, seen, fix)


def skipped(why: str, fix: str = "") -> Finding:
    """Return the finding of something that could not be checked."""
    return Finding(Status.SKIPPED, why, fix)
