"""Output as tables for terminals and pipes, and as JSON.

On a terminal a table is at most as wide as the terminal, shows times as ages, and has colours,
unless ``NO_COLOR`` is set. Elsewhere columns are as wide as their longest cell, times are ISO 8601,
and nothing is cut or wrapped. In JSON a list is a list of objects, and a missing value is null.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import click
from attrs import frozen
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tracker.durations import age
from tracker.position import iso_milliseconds

_ABSENT: Final = "-"
_HEADING: Final = "bold"
#: Cell → style of the cell on a terminal.
_STYLES: Final = {
    **dict.fromkeys(("responded", "operate"), "green"),
    **dict.fromkeys(("rejected", "failed", "expired"), "red"),
    **dict.fromkeys(("queued", "waiting", "delivered"), "yellow"),
}
_SIZES: Final = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
#: Seconds below which tenths are shown.
_TENTHS: Final = 10
#: Spaces between two columns.
_GAP: Final = 2
#: Width to which a column of prose is narrowed before a column is left out.
_PROSE: Final = 40


class Kind(Enum):
    """The kind of a column's values."""

    TEXT = "text"
    """Names, such as device IDs: folded only where nothing else makes a table fit."""
    PROSE = "prose"
    """Sentences, which are wrapped at their words."""
    LIST = "list"
    """Texts: on a terminal each has a line of its own in the cell."""
    NUMBER = "number"
    SIZE = "size"
    """Bytes; in a table on a terminal with a unit such as kB."""
    TIME = "time"
    """Text in ISO 8601 UTC, or seconds since 1970; in a table on a terminal its age."""
    DURATION = "duration"
    """Seconds; in a table on a terminal in its largest whole unit, such as ``5m``."""


_NUMBERS: Final = (Kind.NUMBER, Kind.SIZE, Kind.DURATION)


@frozen
class Column:
    """A column of a table, which is a field in JSON."""

    name: str
    kind: Kind = Kind.TEXT
    optional: bool = False
    """True if the column is left out on a terminal that is too narrow for all columns."""
    heading: str = ""
    """The heading in a table, by default the name."""

    def __attrs_post_init__(self) -> None:
        if not self.heading:
            object.__setattr__(self, "heading", self.name.upper().replace("_", " "))


def show_rows(
    columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], output: str, *, empty: str
) -> None:
    """Print a list of rows.

    :param rows: mappings of column name → value; a missing value is shown as such.
    :param output: ``table`` or ``json``.
    :param empty: the sentence that says that there are no rows. It is printed on standard error,
        so that the lines of standard output can be counted; JSON needs none.
    """
    rows = list(rows)
    if output == "json":
        click.echo(json.dumps([as_json(columns, row) for row in rows], indent=2))
        return
    if not on_terminal():
        headings = tuple(column.heading for column in columns)
        cells = [tuple(_plain(one, row.get(one.name)) for one in columns) for row in rows]
        click.echo(table([headings, *cells]))
    elif rows:
        screen = terminal()
        drawn, hidden = terminal_table(columns, rows, screen.width)
        screen.print(drawn)
        if hidden:
            click.echo(f"Not shown, as the terminal is too narrow: {', '.join(hidden)}.", err=True)
    if not rows:
        click.echo(empty, err=True)


def show_record(columns: Sequence[Column], record: Mapping[str, Any], output: str) -> None:
    """Print one object: a line for each name and value, or JSON."""
    if output == "json":
        click.echo(json.dumps(as_json(columns, record), indent=2))
        return
    echo_pairs([(column.name, _in_record(column, record.get(column.name))) for column in columns])


def echo_pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, each on a line."""
    if not on_terminal():
        click.echo(table(rows))
        return
    grid = Table.grid(padding=(0, _GAP))
    grid.add_column(style=_HEADING, overflow="fold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(printable(name)), _styled(printable(value)))
    terminal().print(grid)


def as_json(columns: Sequence[Column], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as the object that is printed as JSON."""
    return {
        column.name: _time(record.get(column.name))
        if column.kind is Kind.TIME
        else record.get(column.name)
        for column in columns
    }


def terminal_table(
    columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], width: int
) -> tuple[RenderableType, list[str]]:
    """Return a table for a terminal of a width, and the headings of columns that are left out."""
    cells = [[_lines(column, row.get(column.name)) for column in columns] for row in rows]
    natural = [_natural(column, [row[i] for row in cells]) for i, column in enumerate(columns)]
    kept = _fitting(columns, natural, width)
    hidden = [column.heading for i, column in enumerate(columns) if i not in kept]
    columns = [columns[i] for i in kept]
    widths = _widths(columns, [natural[i] for i in kept], width)
    drawn = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style=_HEADING)
    for column, size in zip(columns, widths, strict=True):
        drawn.add_column(
            Text(column.heading),
            justify="right" if column.kind in _NUMBERS else "left",
            width=size,
            overflow="fold",
        )
    for row in cells:
        drawn.add_row(*(_styled("\n".join(row[i])) for i in kept))
    return drawn, hidden


def _natural(column: Column, cells: Iterable[Sequence[str]]) -> int:
    """Return the width of a column of which only the heading is wrapped."""
    texts = (text for lines in (column.heading.split(), *cells) for text in lines)
    return max(map(cell_len, texts))


def _fitting(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """Return the indexes of the columns that are shown; the last optional ones go first."""
    floor = list(_floors(columns, natural))[1]
    kept = list(range(len(columns)))
    for index in reversed(range(len(columns))):
        if columns[index].optional and _total(floor[i] for i in kept) > width:
            kept.remove(index)
    return kept


def _floors(columns: Sequence[Column], natural: Sequence[int]) -> Iterator[list[int]]:
    """Yield the widths to which columns may be narrowed, least harm first."""

    def narrowed(limit: int, *kinds: Kind) -> list[int]:
        return [
            min(size, limit) if column.kind in kinds else size
            for column, size in zip(columns, natural, strict=True)
        ]

    yield list(natural)
    yield narrowed(_PROSE, Kind.PROSE)
    yield narrowed(_PROSE // 2, Kind.PROSE)
    yield narrowed(_PROSE // 2, Kind.PROSE, Kind.LIST, Kind.TEXT)
    yield narrowed(1, *Kind)


def _widths(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """Return the widths of columns that fit into a width, if anything does."""
    widths = [max(size, cell_len(one.heading)) for size, one in zip(natural, columns, strict=True)]
    excess = _total(widths) - width
    for floor in _floors(columns, natural):
        while excess > 0 and (wide := [i for i, size in enumerate(widths) if size > floor[i]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
            excess -= 1
    return widths


def _total(widths: Iterable[int]) -> int:
    """Return the width of a table with columns of some widths."""
    return sum(size + _GAP for size in widths) - _GAP


def table(rows: Sequence[Sequence[str]]) -> str:
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


def iso(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 UTC."""
    return iso_milliseconds(round(seconds * 1000))


def _plain(column: Column, value: Any) -> str:
    """Return a cell of a table in a pipe."""
    if column.kind is Kind.DURATION and isinstance(value, float | int):
        return f"{value:.1f}s"
    return ", ".join(_texts(column, value))


def _lines(column: Column, value: Any) -> list[str]:
    """Return the lines of a cell of a table on a terminal."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        if column.kind is Kind.DURATION:
            return [f"{value:.1f}s" if value < _TENTHS else age(value)]
        if column.kind is Kind.SIZE:
            return [_size(value)]
    texts = _texts(column, value)
    if column.kind is Kind.TIME:
        return [_age_of(text) or text for text in texts]
    return list(map(printable, texts if column.kind is Kind.LIST else [", ".join(texts)]))


def _in_record(column: Column, value: Any) -> str:
    """Return a value beside its name; on a terminal a time has its age."""
    text = ", ".join(_texts(column, value))
    if column.kind is Kind.TIME and on_terminal() and (ago := _age_of(text)):
        moment = datetime.fromisoformat(text).astimezone(UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%SZ} ({ago})"
    return text


def _texts(column: Column, value: Any) -> list[str]:
    if value is None or value in ("", []):
        return [_ABSENT]
    if column.kind is Kind.TIME:
        return [_time(value) or _ABSENT]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


def _time(value: str | float | None) -> str | None:
    return iso(value) if isinstance(value, float | int) else value


def _age_of(text: str) -> str:
    """Return the age of a time in ISO 8601, such as ``3m ago``; empty if it is not one."""
    try:
        seconds = time.time() - datetime.fromisoformat(text).timestamp()
    except ValueError:
        return ""
    return f"{age(seconds)} ago" if seconds > -1 else f"in {age(-seconds)}"


def _size(count: float) -> str:
    for factor, unit in _SIZES:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return str(count)


def _styled(cell: str) -> Text:
    return Text(cell, style=_STYLES.get(cell, ""))
