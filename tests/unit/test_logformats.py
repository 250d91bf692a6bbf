"""Log formats name fields that their call gives."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("tracker", "twisted", "tap", "tests", "bench")
LEVELS: Final = frozenset({"debug", "info", "warn", "error", "critical", "failure"})
#: Arguments of Logger.emit, and a field of LimitedLog: no call may give them.
RESERVED: Final = frozenset({"level", "format", "more"})

SAMPLES: Final = {
    'self._log.info("{name}: started", name=name)': None,
    'log.warn("{stream}: {count} lost", stream=stream)': "not given: count",
    'self._losses.warn("{one.name} lost", one=one)': None,
    'log.failure("{name} failed", failure, name=name)': None,
    'log.info(f"{name}: started")': "not a constant",
    'log.info("at {level}", level=level)': "reserved: level",
    'log.info("{a} " "{b}", a=1)': "not given: b",
    'log.info("{}", name)': "unnamed field",
    'response.error("{message}")': None,
}


def is_log(node: ast.expr, names: frozenset[str]) -> bool:
    """Return True for an expression that is a log by its name, or by its assignment."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name.strip("_") in ("log", "audit") or name in names


def log_names(tree: ast.AST) -> frozenset[str]:
    """Return the names and attributes that a module assigns a Logger or a LimitedLog to."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value.func)
            if made in ("Logger", "LimitedLog"):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    found.add(target.attr if isinstance(target, ast.Attribute) else "")
                    found.add(getattr(target, "id", ""))
    return frozenset(found - {""})


def problem_of(call: ast.Call) -> str | None:
    """Return the reason why a log call could not be formatted; None if it can."""
    if not call.args:
        return None
    text = call.args[0]
    if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
        return "not a constant"
    fields = [field for _, field, _, _ in Formatter().parse(text.value) if field is not None]
    if "" in fields:
        return "unnamed field"
    given = {keyword.arg for keyword in call.keywords}
    if reserved := sorted(RESERVED & given):
        return f"reserved: {', '.join(reserved)}"
    names = {field.partition(".")[0].partition("[")[0].removesuffix("()") for field in fields}
    if None in given:  # **fields
        return None
    missing = sorted(name for name in names - given if not name.startswith("log_"))
    return f"not given: {', '.join(missing)}" if missing else None


def problems(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and reason of each log call that cannot be formatted."""
    tree = ast.parse(source)
    names = log_names(tree)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and is_log(node.func.value, names)
            and (problem := problem_of(node))
        ):
            yield node.lineno, problem


@pytest.mark.parametrize(("source", "problem"), SAMPLES.items())
def test_calls_without_a_field_are_found(source: str, problem: str | None) -> None:
    source = f"self._losses = LimitedLog(clock, log)\n{source}"
    assert [reason for _, reason in problems(source)] == ([problem] if problem else [])


def test_log_calls_give_each_field_of_their_format() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, problem in problems(path.read_text(encoding="utf-8"))
    ]
    assert not found
