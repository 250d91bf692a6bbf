"""Reasons why a database of SQLite cannot be opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from unittest.mock import patch

import pytest

from tracker.interfaces import SinkUnusable
from tracker.storage.sqlite.connection import cannot_open, connect


def reason(path: Path) -> str:
    """Return the reason why SQLite cannot open a path."""
    with pytest.raises(sqlite3.OperationalError) as raised:
        connect(str(path)).execute("CREATE TABLE t (x)")
    error = cannot_open(str(path), raised.value)
    assert isinstance(error, SinkUnusable)
    return str(error).removeprefix(f"cannot open the database {path}: ")


def test_missing_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    assert reason(folder / "x") == f"{folder}: no such directory; create it first"


def test_missing_folder_of_a_relative_path_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "missing") in reason(Path("missing/x"))


def test_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert reason(tmp_path) == "Is a directory"


def test_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert reason(file / "x") == f"{file}: Not a directory"


def test_missing_permission_is_named(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    with patch.object(os, "access", return_value=False):  # root may write everywhere
        assert str(cannot_open("/x", error)).endswith(": Permission denied")


def test_unknown_obstacle_leaves_the_text_of_sqlite(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    assert str(cannot_open(str(tmp_path / "x"), error)).endswith(": unable to open database file")


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY])
def test_busy_database_is_tried_again(code: int) -> None:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    assert not isinstance(cannot_open("/x", error), SinkUnusable)
