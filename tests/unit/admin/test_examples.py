"""The examples in docs/tracker-admin.rst: what is printed there is what is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tracker.admin.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "tracker-admin.rst"

#: A command, over several lines perhaps, and what follows up to the next or the block's end.
EXAMPLE = re.compile(
    r"^    \$ (?P<command>(?:.*\\\n)*.*)\n(?P<printed>(?:(?:    (?!\$ ).*)?\n)*)", re.MULTILINE
)


def examples() -> Iterator[tuple[str, str]]:
    """Command lines, and what they print."""
    for example in EXAMPLE.finditer(PAGE.read_text(encoding="utf-8")):
        command = example["command"].replace("\\\n    ", "")
        printed = re.sub(r"^    ", "", example["printed"], flags=re.MULTILINE)
        yield command, printed.strip() + "\n"


def run(command: str) -> str:
    """What a pipe of tracker-admin, echo and one substitution prints."""
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


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) > 10


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_prints_what_the_page_says(command: str, printed: str) -> None:
    assert run(command) == printed
