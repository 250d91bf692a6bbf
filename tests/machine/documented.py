"""The commands that the documentation tells an administrator to type."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

_PAGE: Final = Path(__file__).parents[2] / "docs" / "install.rst"

_PROMPT: Final = "# "


def commands(section: str) -> list[str]:
    """Those of a section of docs/install.rst, in their order, each with the lines it reads.

    :raises AssertionError: when there are none.
    """
    _, found, rest = _PAGE.read_text().partition(f"\n\n{section}\n{'=' * len(section)}\n")
    assert found, f"no section {section}"
    text = rest.partition("\n\n\n")[0]
    typed: list[str] = []
    for block in text.split(".. code-block:: console\n")[1:]:
        indented = [line for line in _until_outdented(block) if line]
        for line in textwrap.dedent("\n".join(indented)).splitlines():
            if line.startswith(_PROMPT):
                typed.append(line.removeprefix(_PROMPT))
            else:
                typed[-1] += f"\n{line}"
    assert typed, f"no commands in {section}"
    return typed


def _until_outdented(block: str) -> list[str]:
    lines = block.splitlines()
    ends = (number for number, line in enumerate(lines) if line and not line.startswith(" "))
    return lines[: next(ends, len(lines))]
