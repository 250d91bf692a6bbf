"""Show what checks find: a table for people, JSON for programs, an exit status for scripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import click

from tracker.admin.output import printable, table
from tracker.observe.findings import Finding, Status


def exit_status(findings: Iterable[Finding]) -> int:
    """0 when nothing has failed, else 1."""
    return int(any(finding.status is Status.FAILURE for finding in findings))


def as_json(findings: Iterable[Finding]) -> str:
    """A list of objects, for programs."""
    return json.dumps(
        [
            {"check": one.check, "status": one.status, "seen": one.seen, "mend": one.mend or None}
            for one in findings
        ],
        indent=2,
    )


_HEADING: Final = ("STATUS", "CHECK", "SEEN")
_COLOURS: Final = {
    Status.OK: "green",
    Status.WARNING: "yellow",
    Status.FAILURE: "red",
    Status.SKIPPED: "bright_black",
}


def as_table(findings: Sequence[Finding]) -> str:
    """A line for each finding, beneath it the one that mends it; with colours.

    ``click.echo`` leaves those out where it does not write to a terminal.
    """
    heading, *lines = table(
        [_HEADING, *((one.status, one.check, " ".join(one.seen.split())) for one in findings)]
    ).splitlines()
    shown = [heading]
    for one, line in zip(findings, lines, strict=True):
        word = click.style(one.status, fg=_COLOURS[one.status], bold=one.status is Status.FAILURE)
        shown.append(word + line.removeprefix(one.status))
        if one.mend:
            shown.append(f"    mend: {printable(one.mend)}")
    counts = Counter(one.status for one in findings)
    shown.append(", ".join(f"{counts[status]} {status}" for status in Status))
    return "\n".join(shown)
