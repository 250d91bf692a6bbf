"""CONTRIBUTING.rst describes the repository as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.rst").read_text()


def test_map_lists_every_module_and_package_of_tracker() -> None:
    there = {path.name for path in (ROOT / "tracker").glob("*.py")} - {"__init__.py"}
    there |= {f"{path.parent.name}/" for path in (ROOT / "tracker").glob("*/__init__.py")}
    (drawn,) = re.findall(r"^    tracker/ .*?^    twisted/plugins/", TEXT, re.DOTALL | re.MULTILINE)
    names = re.findall(r"^ {6}(\S.*?)(?: {2,}|$)", drawn, re.MULTILINE)
    assert set(" ".join(names).split()) == there


def test_map_lists_every_folder_of_the_repository() -> None:
    (drawn,) = re.findall(r"^    tracker/ .*?^`docs", TEXT, re.DOTALL | re.MULTILINE)
    names = set(re.findall(r"^ {4}(\w+)/", drawn, re.MULTILINE))
    assert names >= {"tracker", "twisted", "tap", "systemd", "packaging", "ops", "docs", "bench"}
    assert all((ROOT / name).is_dir() for name in names)


def test_each_test_has_a_short_name_that_no_other_in_its_folder_has() -> None:
    known: set[tuple[Path, str]] = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE):
            assert len(name) <= 80, name
            assert (path.parent, name) not in known, f"{path}: {name}"
            known.add((path.parent, name))


def test_example_of_a_unit_test_passes() -> None:
    (block,) = re.findall(r"^\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", TEXT, re.MULTILINE)
    names: dict[str, Any] = {}
    exec(re.sub(r"^ {4}", "", block, flags=re.MULTILINE), names)
    tests: list[Callable[[], None]] = [names[name] for name in names if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
