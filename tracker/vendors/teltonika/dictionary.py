"""Names, units and scales of IO elements, from the table beside this module.

The wire tells neither the sign nor the scale of a value, nor the device's model, on
which the meaning of an id depends. So an entry holds only for values of its own size:
the same id in another size is another thing, or one of another family.
Source: Teltonika wiki, the pages "AVL ID" of the families named in column ``models``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Final

from attrs import frozen

_TABLE: Final = "avl_ids.csv"


@frozen
class AvlId:
    """What is known of an IO id, in one size."""

    id: int
    name: str
    size: int
    """Bytes of the value; 0 for a variable-length one."""
    signed: bool
    multiplier: Decimal
    unit: str
    """Empty where a value has none."""
    models: str
    """The families for which it holds, as ``FMB/FMC/FMM``."""

    def scaled(self, value: int) -> int | float:
        """The value in :attr:`unit`, from the unsigned integer on the wire."""
        if self.signed and value >> (8 * self.size - 1):
            value -= 1 << (8 * self.size)
        if self.multiplier == 1:
            return value
        # By way of a decimal, so that 13920 mV are 13.92 V and not nearly so.
        return float(value * self.multiplier)


@frozen
class Dictionary:
    """IO ids and what they mean."""

    entries: Mapping[tuple[int, int], AvlId]
    """(id, size) → entry."""

    def find(self, element_id: int, size: int) -> AvlId | None:
        """The entry of an id in this size (0: variable-length), if there is one."""
        return self.entries.get((element_id, size))


def load() -> Dictionary:
    """Read the table that is part of this package."""
    text = files(__package__).joinpath(_TABLE).read_text(encoding="utf-8")
    return read(text.splitlines())


def read_file(file: Path) -> Dictionary:
    """A dictionary of one's own.

    :raises OSError: when the file cannot be read.
    :raises ValueError: when something in it makes no sense; in one line.
    """
    try:
        return read(file.read_text(encoding="utf-8-sig").splitlines())
    except KeyError as error:
        raise ValueError(f"{file}: the column {error} is missing") from None
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error or 'not a number'}") from None


def read(lines: Iterable[str]) -> Dictionary:
    """A dictionary from the lines of a CSV file, its header the first.

    :raises ValueError: for a value that is none, or an id that stands there twice in
        one size.
    """
    entries: dict[tuple[int, int], AvlId] = {}
    for row in csv.DictReader(lines):
        entry = AvlId(
            id=int(row["id"]),
            name=row["name"],
            size=int(row["size"]),
            signed=row["signed"] == "1",
            multiplier=Decimal(row["multiplier"]),
            unit=row["unit"],
            models=row["models"],
        )
        key = entry.id, entry.size
        if key in entries:
            raise ValueError(f"id {entry.id} of {entry.size} bytes stands there twice")
        entries[key] = entry
    return Dictionary(entries)
