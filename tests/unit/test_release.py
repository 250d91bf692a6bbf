"""The version, and the files that repeat it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tracker import __version__

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.rst").read_text()

#: Sections of the changelog, the latest first.
SECTIONS = re.findall(r"^(Unreleased|\d\S* \(\d{4}-\d\d-\d\d\))\n=+$", CHANGELOG, re.MULTILINE)


def debian_version(tree: Path, version: str) -> str:
    """Return the version of the Debian package of a program of a version."""
    for folder in ("tracker", "packaging"):
        (tree / folder).mkdir(exist_ok=True)
    (tree / "tracker" / "__init__.py").write_text(f'__version__ = "{version}"\n')
    script = tree / "packaging" / "deb.sh"
    script.write_text((ROOT / "packaging" / "deb.sh").read_text())
    ended = subprocess.run(
        ["sh", str(script), "version"], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


def test_changelog_has_a_section_for_this_version_or_for_the_next() -> None:
    assert SECTIONS
    latest = SECTIONS[0].partition(" ")[0]
    assert latest in ("Unreleased", __version__)
    # What is released has its section, and its number is not used again.
    if latest == "Unreleased":
        assert __version__ not in {section.partition(" ")[0] for section in SECTIONS}


def test_changelog_has_each_entry_once() -> None:
    entries = re.findall(r"^- .*(?:\n  .*)*", CHANGELOG, re.MULTILINE)
    assert entries
    assert [entry for entry, times in Counter(entries).items() if times > 1] == []


def test_documents_have_no_rest_of_a_conflict() -> None:
    found = []
    for path in [*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst")]:
        lines = path.read_text().split("\n")
        for at, line in enumerate(lines):
            is_middle = line == "=======" and (not lines[at - 1] or len(lines[at - 1]) > len(line))
            # The line above a title has the same line below it.
            is_above = is_middle and lines[at + 2] == line
            if line.startswith(("<<<<<<<", ">>>>>>>")) or (is_middle and not is_above):
                found.append(f"{path.name}:{at + 1}")
    assert found == []


def test_version_is_one_that_the_release_recipe_knows() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+|\.dev\d+)?", __version__)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.2.0", "0.2.0"),
        ("0.2.0a1", "0.2.0~a1"),
        ("0.2.0rc1", "0.2.0~rc1"),
        ("0.2.0.dev0", "0.2.0~dev0"),
    ],
)
def test_debian_sorts_a_pre_release_before_its_release(
    tmp_path: Path, version: str, expected: str
) -> None:
    assert debian_version(tmp_path, version) == expected


def test_package_for_debian_has_no_epoch_and_conflicts_with_nothing() -> None:
    control = (ROOT / "packaging" / "deb" / "control.in").read_text()
    assert "\nVersion: @VERSION@\n" in control
    assert "\nReplaces: tracker (>= 1:0)\n" in control
    assert not re.search(r"^(Conflicts|Breaks|Provides):", control, re.MULTILINE)
