"""Findings of checks as a table, as JSON, and as an exit code."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import click

from tracker.admin.output import on_terminal, printable, table, terminal
from tracker.observe.findings import Finding, Status
from tracker.wording import counted


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 1 if a check has failed, else 0."""
    return int(any(finding.status is Status.FAILURE for finding in findings))


def as_json(findings: Iterable[Finding]) -> str:
    """Return findings as a list of objects."""
    return json.dumps(
        [
            {"check": one.check, "status": one.status, "seen": one.seen, "fix": one.fix or None}
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
    """Return a coloured line for each finding, and below it its fix.

    A line is wrapped at the width of a terminal; a fix is not, so that it can be copied whole.
    ``click.echo`` removes the colours if it does not write to a terminal.
    """
    heading, *lines = table(
        [_HEADING, *((one.status, one.check, " ".join(one.seen.split())) for one in findings)]
    ).splitlines()
    if on_terminal():
        lines = [_wrapped(line, heading.index(_HEADING[-1]), terminal().width) for line in lines]
    shown = [heading]
    for one, line in zip(findings, lines, strict=True):
        word = click.style(one.status, fg=_COLOURS[one.status], bold=one.status is Status.FAILURE)
        shown.append(word + line.removeprefix(one.status))
        if one.fix:
            shown.append(f"    fix: {printable(one.fix)}")
    counts = Counter(one.status for one in findings)
    warnings, failures = (
        counted(counts[status], status) for status in (Status.WARNING, Status.FAILURE)
    )
    shown.append(
        f"{counts[Status.OK]} ok, {warnings}, {failures}, {counts[Status.SKIPPED]} skipped"
    )
    return "\n".join(shown)


def _wrapped(line: str, indent: int, width: int) -> str:
    """Wrap the last cell of a line below its beginning."""
    if width < 2 * indent:  # too narrow for that
        return line
    first, *rest = textwrap.wrap(line[indent:], width - indent, break_on_hyphens=False) or [""]
    return "\n".join([f"{line[:indent]}{first}", *(" " * indent + part for part in rest)])
