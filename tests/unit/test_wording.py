"""Plurals: their helper, and its use wherever a text holds a number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tracker.wording import counted

ROOT: Final = Path(__file__).parents[2]

#: Nouns that are counted in messages, log lines and pages.
NOUNS: Final = (
    *("attempts", "bytes", "characters", "columns", "commands", "connections", "datagrams"),
    *(
        "devices",
        "digits",
        "entries",
        "errors",
        "events",
        "fields",
        "files",
        "frames",
        "heartbeats",
    ),
    *("instances", "items", "keys", "letters", "lines", "logins", "members", "messages", "names"),
    *("operators", "pieces", "places", "positions", "ranges", "records", "rows", "slots"),
    *("sockets", "statements", "streams"),
)
#: A number is to be put before these: "{} entries", "{} more entries".
COUNTED: Final = rf" (?!(?:of|for|accepts|leaves) )(?:[a-z][a-z-]* )?(?:{'|'.join(NOUNS)})\b"
#: A number that is known when the text is written, such as ``MAX_NAMES``, or a name.
CONSTANT: Final = re.compile(r"([\w.]+\.)?_?[A-Z][A-Z_]+|vendor")


@pytest.mark.parametrize(
    ("count", "many", "text"),
    [
        (0, "", "0 devices"),
        (1, "", "1 device"),
        (2, "pieces", "2 pieces"),
        (20_000, "", "20,000 devices"),
    ],
)
def test_noun_agrees_with_its_number(count: int, many: str, text: str) -> None:
    assert counted(count, "device", many) == text


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a module, with {} for each number that a text is completed with."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(part, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"\{[a-z_]+(:[^{}]*)?\}", "{}", node.value)


def part(node: ast.expr) -> str:
    if not isinstance(node, ast.FormattedValue):
        return str(ast.literal_eval(node))
    return "0" if CONSTANT.fullmatch(ast.unparse(node.value)) else "{}"


def test_texts_of_modules_count_with_the_helper() -> None:
    wrong = re.compile(rf"(?<!:)\{{\}}{COUNTED}|\b1{COUNTED}|\w\((s|es|ies)\)(?!\w)")
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in sorted((ROOT / "tracker").rglob("*.py"))
        for text in texts(path)
        if wrong.search(text)
    ]
    assert not found


def test_texts_of_the_console_count_with_the_helper() -> None:
    wrong = re.compile(rf"\$\{{[^{{}}]*\}}{COUNTED}|\w\((s|es|ies)\)(?!\w)")
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted((ROOT / "tracker" / "console" / "static").glob("*.js"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if wrong.search(line)
    ]
    assert not found
