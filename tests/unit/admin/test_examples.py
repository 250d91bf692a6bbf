"""The examples of decode and encode in docs/tracker-admin.rst."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tracker.admin.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "tracker-admin.rst"

#: A command on one or more lines, and its output, up to the next command or the end of the block.
EXAMPLE = re.compile(
    r"^    \$ (?P<command>(?:.*\\\n)*.*)\n(?P<printed>(?:(?:    (?!\$ ).*)?\n)*)", re.MULTILINE
)


def examples() -> Iterator[tuple[str, str]]:
    """Yield the command lines and their output."""
    for example in EXAMPLE.finditer(PAGE.read_text(encoding="utf-8")):
        command = example["command"].replace("\\\n    ", "")
        printed = re.sub(r"^    ", "", example["printed"], flags=re.MULTILINE)
        yield command, printed.strip() + "\n"


def run(command: str) -> str:
    """Return the output of a pipe of tracker-admin, echo and one substitution by sed."""
    text = ""
    for part in command.split(" | "):
        program, *arguments = shlex.split(part)
        if program == "echo":
            text = arguments[0]
        elif program == "sed":
            _, old, new, _ = arguments[0].split("/")
            text = text.replace(old, new)
        else:
            assert program == "tracker-admin"
            text = CliRunner().invoke(main, arguments, input=text).output
    return text


EXAMPLES = [(command, printed) for command, printed in examples() if "xxd" not in command]


def test_documentation_has_more_than_ten_examples() -> None:
    assert len(EXAMPLES) > 10


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_in_the_documentation_prints_the_documented_output(
    command: str, printed: str
) -> None:
    assert run(command) == printed
