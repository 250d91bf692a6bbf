"""Output as tables for terminals and pipes, and as JSON.

On a terminal a table is as wide as the terminal and has colours, unless ``NO_COLOR`` is set.
Elsewhere columns are as wide as their longest cell, and nothing is cut or wrapped. In JSON a
list is a list of objects, and a missing value is null.
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
#: Cell → style of the cell on a terminal.
_STYLES: Final = {
    **dict.fromkeys(("responded", "operate"), "green"),
    **dict.fromkeys(("rejected", "failed", "expired"), "red"),
    **dict.fromkeys(("queued", "waiting", "delivered"), "yellow"),
}
_AGES: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


class Kind(Enum):
    """The kind of a column's values."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    """Text in ISO 8601 UTC, or seconds since 1970."""


@frozen
class Column:
    """A column of a table, which is a field in JSON."""

    name: str
    kind: Kind = Kind.TEXT

    @property
    def heading(self) -> str:
        """The heading in a table."""
        return self.name.upper().replace("_", " ")


def show_rows(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], output: str) -> None:
    """Print a list of rows.

    :param rows: mappings of column name → value; a missing value is shown as such.
    :param output: ``table`` or ``json``.
    """
    if output == "json":
        click.echo(json.dumps([as_json(columns, row) for row in rows], indent=2))
        return
    # Without spaces in the age, a cell with a time wraps before its age.
    cells = [tuple(_cell(column, row.get(column.name), "") for column in columns) for row in rows]
    numbers = [index for index, column in enumerate(columns) if column.kind is Kind.NUMBER]
    echo_table([tuple(column.heading for column in columns), *cells], numbers)


def show_record(columns: Sequence[Column], record: Mapping[str, Any], output: str) -> None:
    """Print one object: a line for each name and value, or JSON."""
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
    terminal().print(grid)


def as_json(columns: Sequence[Column], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as the object that is printed as JSON."""
    return {
        column.name: _time(record.get(column.name))
        if column.kind is Kind.TIME
        else record.get(column.name)
        for column in columns
    }


def echo_table(rows: Sequence[Row], numbers: Sequence[int] = ()) -> None:
    """Print rows as a table; the first row is the heading.

    :param numbers: indexes of the columns that are numbers.
    """
    if on_terminal():
        terminal().print(terminal_table(rows, numbers))
    else:
        click.echo(table(rows))


def terminal_table(rows: Sequence[Row], numbers: Sequence[int] = ()) -> RenderableType:
    """Return a table for a terminal; see :func:`echo_table`."""
    drawn = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style=_HEADING,
    )
    for index, name in enumerate(rows[0]):
        number = index in numbers
        # The first column and numbers must not be wrapped: a part would be mistaken for the whole.
        whole = number or index == 0
        drawn.add_column(
            Text(name),
            justify="right" if number else "left",
            no_wrap=whole,
            overflow="ellipsis" if whole else "fold",
        )
    for row in rows[1:]:
        drawn.add_row(*map(_styled, row))
    return drawn


def table(rows: Sequence[Row]) -> str:
    """Return rows as aligned columns of plain text; the first row is the heading.

    Control characters are escaped.
    """
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def printable(text: str) -> str:
    """Return a text with characters escaped that a terminal obeys or does not show."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def sentence(text: str) -> str:
    """Return the text of an error as one line: a sentence with a capital and one final mark.

    Texts of libraries end with or without a period, or with a question. A text that begins with a
    name from outside puts its kind before it ("Stream x"), so that the name stays as it is.
    """
    text = " ".join(text.split())
    first = text.partition(" ")[0]
    text = f"{text[:1].upper() if first.isalpha() else text[:1]}{text[1:].rstrip('.')}"
    return text if text.endswith(("?", "!", ".)")) else f"{text}."


def only_first(limit: int) -> str:
    """Return the beginning of a note that only the first rows are shown."""
    return f"Only the first {limit} are shown" if limit > 1 else "Only the first row is shown"


def on_terminal() -> bool:
    """Return True if standard output is a terminal."""
    return sys.stdout.isatty()


def terminal() -> Console:
    """Return the terminal, which prints texts without interpreting markup."""
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def age(seconds: float, space: str = " ") -> str:
    """Return a duration such as ``12 s``, ``5 min``, ``3 h`` or ``2 d``."""
    for length, unit in _AGES:
        if seconds >= length:
            return f"{int(seconds // length)}{space}{unit}"
    return f"{max(0, int(seconds))}{space}s"


def iso(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 UTC."""
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
    """Return a time; for a terminal, without milliseconds and with its age."""
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
