"""Commands in the documentation, in the order in which a reader types them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
README: Final = _ROOT / "README.rst"
INSTALL: Final = _ROOT / "docs" / "install.rst"

_DIRECTIVE: Final = ".. code-block:: console"
_HEREDOC: Final = re.compile(r"<<(?P<end>\w+)$")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    :ivar prompt: ``$`` for an ordinary user, ``#`` for root.
    :ivar text: the command, with the lines of its input.
    :ivar output: the output that the page shows; may be empty.
    """

    prompt: str
    text: str
    output: str


def blocks(page: Path, section: str) -> list[list[Command]]:
    """Return the console blocks of a section, each with its commands.

    :raises AssertionError: if the page has no such section, or the section no console block.
    """
    found = [commands for heading, commands in _all_blocks(page) if heading == section]
    assert found, f"{page.name}: no console block in a section {section!r}"
    return found


def all_commands(page: Path) -> list[Command]:
    """Return the commands of all console blocks of a page."""
    return [command for _, commands in _all_blocks(page) for command in commands]


def root_commands(section: str) -> list[str]:
    """Return the commands of a section of docs/install.rst, each with its input."""
    commands = [command for block in blocks(INSTALL, section) for command in block]
    assert all(command.prompt == "#" for command in commands), section
    return [command.text for command in commands]


def packages() -> list[str]:
    """Return the packages of Debian that both pages install."""
    commands = [command.text for page in (README, INSTALL) for command in all_commands(page)]
    lines = [command.partition("apt install ")[2] for command in commands]
    return sorted({name for line in lines for name in line.split() if name[0].isalpha()})


def _all_blocks(page: Path) -> Iterator[tuple[str, list[Command]]]:
    heading = ""
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        if number and re.fullmatch("=+|-+", line) and len(line) >= len(lines[number - 1]) > 0:
            heading = lines[number - 1]
        if line.strip() == _DIRECTIVE:
            indented = takewhile(lambda one: not one or one.startswith(" "), lines[number + 1 :])
            # The options of the directive precede the first blank line.
            body = "\n".join(indented).partition("\n\n" if lines[number + 1] else "\n")[2]
            yield heading, list(_commands(textwrap.dedent(body).strip().splitlines()))


def _commands(lines: Iterable[str]) -> Iterator[Command]:
    prompt, text, output = "", "", ""
    end: str | None = None  # line that ends the input of a here-document
    for line in lines:
        if text and (text.endswith("\\") or end):
            text += f"\n{line}"
            end = None if line == end else end
        elif line[:2] in ("$ ", "# "):
            if text:
                yield Command(prompt, text, output.strip())
            prompt, text, output = line[0], line[2:], ""
            heredoc = _HEREDOC.search(text)
            end = heredoc["end"] if heredoc else None
        else:
            assert text, f"not a command: {line}"
            output += f"{line}\n"
    if text:
        yield Command(prompt, text, output.strip())
