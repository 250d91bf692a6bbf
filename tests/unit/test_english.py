"""Docstrings open with a sentence, and words that readers stumbled over are not used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
#: Folders whose text is checked. docs/ is not yet among them.
FOLDERS: Final = ("tracker", "tests", "bench", "twisted", "tap", "systemd", "packaging", "ops")

#: Openings of a clause or a fragment.
FRAGMENT: Final = re.compile(
    r"(What|Whether|Who|Whose|Where|When|How|Which|That|Those|The same|Of|Nothing|Nobody|As|If|"
    r"From|Behind|Before|After)\b"
)
#: Words that are hard to read at first sight, and what the field says instead.
PLAINER: Final = {
    r"tells? of|told": "report, log, notify, given",
    r"becomes? of": "result, final status",
    r"who(ever|mever)|somebody|(?<!\")nobody": "the user, a client, no one",
    r"sees? to|seen to": "handle, check",
    r"mends?|mended|ails?": "repair, fix, fail",
    r"goes along": "accept, succeed",
    r"lets? go": "release, close, drop",
    r"any ?more|no more": "no longer",
    r"maximal": "maximum",
    r"for ever": "forever",
    r"is no (?!longer\b)[a-z]+|are none": "is not a …, no … exist",
}


def sources(pattern: str) -> Iterator[Path]:
    """Yield all files of this name, except this one with its list of words."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob(pattern):
            if path.is_file() and path != Path(__file__) and "__pycache__" not in path.parts:
                yield path


def test_docstrings_open_with_a_sentence_or_a_noun_phrase() -> None:
    found = []
    for path in sources("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if FRAGMENT.match(docstring):
                    found.append(f"{path.relative_to(ROOT)}: {docstring.splitlines()[0]}")
    assert not found


@pytest.mark.parametrize(("words", "plainer"), PLAINER.items())
def test_plainer_words_are_used(words: str, plainer: str) -> None:
    pattern = re.compile(rf"\b({words})\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}: {plainer}"
        for path in (*sources("*"), ROOT / "Makefile")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found
