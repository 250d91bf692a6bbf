"""What a check finds."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@frozen
class Finding:
    """What one check has seen."""

    status: Status
    seen: str
    mend: str = ""
    """The line that mends it, with its arguments quoted for a shell; empty where none does."""
    check: str = ""
    """The name of the check."""


def ok(seen: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, seen)


def warning(seen: str, mend: str) -> Finding:
    """It works, and might not always."""
    return Finding(Status.WARNING, seen, mend)


def failure(seen: str, mend: str) -> Finding:
    """It does not work, or does not keep what it promises."""
    return Finding(Status.FAILURE, seen, mend)


def skipped(why: str, mend: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(Status.SKIPPED, why, mend)
