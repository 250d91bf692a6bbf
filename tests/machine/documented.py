"""Commands for an administrator in the documentation."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

_PAGE: Final = Path(__file__).parents[2] / "docs" / "install.rst"

_PROMPT: Final = "# "


def commands(section: str) -> list[str]:
    """Return the commands of a section of docs/install.rst, each with its input lines.

    :raises AssertionError: if the section has no commands.
    """
    _, found, rest = _PAGE.read_text().partition(f"\n\n{section}\n{'=' * len(section)}\n")
    assert found, f"no section {section}"
    text = rest.partition("\n\n\n")[0]
    entered: list[str] = []
    for block in text.split(".. code-block:: console\n")[1:]:
        indented = [line for line in _until_outdented(block) if line]
        for line in textwrap.dedent("\n".join(indented)).splitlines():
            if line.startswith(_PROMPT):
                entered.append(line.removeprefix(_PROMPT))
            else:
                entered[-1] += f"\n{line}"
    assert entered, f"no commands in {section}"
    return entered


def _until_outdented(block: str) -> list[str]:
    lines = block.splitlines()
    ends = (number for number, line in enumerate(lines) if line and not line.startswith(" "))
    return lines[: next(ends, len(lines))]
