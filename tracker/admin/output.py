"""What is printed: tables for people, plain ones for pipes, JSON for programs.

On a terminal a table is as wide as the terminal and has colours, unless ``NO_COLOR`` is set.
Elsewhere its columns are as wide as they must be, and nothing is cut or wrapped. In JSON a
list is a list of objects, and whatever is absent is null.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import click
from attrs import frozen
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tracker.position import iso_milliseconds

Row = tuple[str, ...]

_ABSENT: Final = "-"
_HEADING: Final = "bold"
#: How to show some values that stand alone in a cell.
_STYLES: Final = {
    **dict.fromkeys(("responded", "operate"), "green"),
    **dict.fromkeys(("rejected", "failed", "expired"), "red"),
    **dict.fromkeys(("queued", "waiting", "delivered"), "yellow"),
}
_AGES: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


class Kind(Enum):
    """What a column holds."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    """ISO 8601 UTC, or seconds since 1970."""


@frozen
class Column:
    """One of a table, and one field in JSON."""

    name: str
    kind: Kind = Kind.TEXT

    @property
    def heading(self) -> str:
        """Above the column."""
        return self.name.upper().replace("_", " ")


def show_rows(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], output: str) -> None:
    """Print a list; each row has the names of columns that it has a value for."""
    if output == "json":
        click.echo(json.dumps([as_json(columns, row) for row in rows], indent=2))
        return
    # Shortly, so that a cell with a time is broken before its age.
    cells = [tuple(_cell(column, row.get(column.name), "") for column in columns) for row in rows]
    numbers = [index for index, column in enumerate(columns) if column.kind is Kind.NUMBER]
    echo_table([tuple(column.heading for column in columns), *cells], numbers)


def show_record(columns: Sequence[Column], record: Mapping[str, Any], output: str) -> None:
    """Print one object: a name and a value a line, or JSON."""
    if output == "json":
        click.echo(json.dumps(as_json(columns, record), indent=2))
        return
    echo_pairs([(column.name, _cell(column, record.get(column.name), " ")) for column in columns])


def echo_pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, each on a line."""
    if not on_terminal():
        click.echo(table(rows))
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=_HEADING, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), _styled(value))
    console().print(grid)


def as_json(columns: Sequence[Column], record: Mapping[str, Any]) -> dict[str, Any]:
    """The object that a program is shown."""
    return {
        column.name: _time(record.get(column.name))
        if column.kind is Kind.TIME
        else record.get(column.name)
        for column in columns
    }


def echo_table(rows: Sequence[Row], numbers: Sequence[int] = ()) -> None:
    """Print rows as a table; the first one is the heading.

    :param numbers: the columns that are numbers.
    """
    if on_terminal():
        console().print(drawn(rows, numbers))
    else:
        click.echo(table(rows))


def drawn(rows: Sequence[Row], numbers: Sequence[int] = ()) -> RenderableType:
    """A table for a terminal."""
    made = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style=_HEADING,
    )
    for index, name in enumerate(rows[0]):
        number = index in numbers
        # What it is about, and numbers, must not be taken for others.
        whole = number or index == 0
        made.add_column(
            Text(name),
            justify="right" if number else "left",
            no_wrap=whole,
            overflow="ellipsis" if whole else "fold",
        )
    for row in rows[1:]:
        made.add_row(*map(_styled, row))
    return made


def table(rows: Sequence[Row]) -> str:
    """Rows as columns that are as wide as they must be; the first row is the heading.

    What a terminal might take for a command of its own is escaped.
    """
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def printable(text: str) -> str:
    """The text with what a terminal might obey, or not show, escaped."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def on_terminal() -> bool:
    """Whether people watch what is printed."""
    return sys.stdout.isatty()


def console() -> Console:
    """The terminal; nothing in a text means anything to it."""
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def age(seconds: float, space: str = " ") -> str:
    """``12 s``, ``5 min``, ``3 h`` or ``2 d``."""
    for length, unit in _AGES:
        if seconds >= length:
            return f"{int(seconds // length)}{space}{unit}"
    return f"{max(0, int(seconds))}{space}s"


def iso(seconds: float) -> str:
    """ISO 8601 UTC, from seconds since 1970."""
    return iso_milliseconds(round(seconds * 1000))


def _cell(column: Column, value: Any, space: str) -> str:
    if value is None or value in ("", []):
        return _ABSENT
    if column.kind is Kind.TIME:
        return _time_for_people(_time(value) or _ABSENT, space)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _time(value: str | float | None) -> str | None:
    return iso(value) if isinstance(value, float | int) else value


def _time_for_people(text: str, space: str) -> str:
    """On a terminal, without the milliseconds and with its age."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if not on_terminal():
        return text
    shown = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{shown} ({age(time.time() - moment.timestamp(), space)}{space and ' ago'})"


def _styled(cell: str) -> Text:
    return Text(printable(cell), style=_STYLES.get(cell, ""))
