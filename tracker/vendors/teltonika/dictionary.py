"""Names, units and scales of IO elements, read from ``avl_ids.csv``.

The protocol transmits neither the sign nor the scale of a value, nor the device's model, which
decides what an id means. An entry therefore applies only to values of its own size: the same id
with another size is a different element, or one of another family.
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
    """Meaning of an IO ID for values of one size."""

    id: int
    name: str
    size: int
    """Size of the value in bytes; 0 for a variable-length one."""
    signed: bool
    multiplier: Decimal
    unit: str
    """Unit of the scaled value; empty if it has none."""
    models: str
    """Families to which the entry applies, such as ``FMB/FMC/FMM``."""

    def scaled(self, value: int) -> int | float:
        """Return the value in :attr:`unit`.

        :param value: the unsigned integer of the wire.
        """
        if self.signed and value >> (8 * self.size - 1):
            value -= 1 << (8 * self.size)
        if self.multiplier == 1:
            return value
        # Decimal arithmetic, because 13920 mV have to be exactly 13.92 V.
        return float(value * self.multiplier)


@frozen
class Dictionary:
    """Meanings of IO IDs."""

    entries: Mapping[tuple[int, int], AvlId]
    """(id, size) → entry."""

    def find(self, element_id: int, size: int) -> AvlId | None:
        """Return the entry of an id, or None.

        :param size: size of the value in bytes; 0 for a variable-length one.
        """
        return self.entries.get((element_id, size))


def load() -> Dictionary:
    """Return the dictionary of this package."""
    text = files(__package__).joinpath(_TABLE).read_text(encoding="utf-8")
    return read(text.splitlines())


def read_file(file: Path) -> Dictionary:
    """Return a dictionary that a user has written.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if its content is invalid; the message is one line.
    """
    try:
        return read(file.read_text(encoding="utf-8-sig").splitlines())
    except KeyError as error:
        raise ValueError(f"{file}: column {error} is missing") from None
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error or 'not a number'}") from None


def read(lines: Iterable[str]) -> Dictionary:
    """Return the dictionary in the lines of a CSV file; the first line is the header.

    :raises ValueError: if a value is invalid, or an id has two entries of the same size.
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
            raise ValueError(f"id {entry.id} of size {entry.size} has more than one entry")
        entries[key] = entry
    return Dictionary(entries)
