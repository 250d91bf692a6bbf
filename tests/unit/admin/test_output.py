"""Tables for pipes and terminals, and JSON."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import lists, text, tuples

from tracker.admin.output import (
    Column,
    Kind,
    iso,
    printable,
    sentence,
    show_record,
    show_rows,
    table,
    terminal,
    terminal_table,
)
from tracker.durations import age

COLUMNS = (
    Column("device_id"),
    Column("last_heard", Kind.TIME),
    Column("records", Kind.NUMBER),
    Column("here"),
)
ROW: dict[str, Any] = {"device_id": "356307042441013", "last_heard": 1795341600.5, "records": 7}


class TerminalOutput(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> TerminalOutput:
    """Replace standard output by a terminal and return it.

    This is not a fixture, since pytest captures standard output after the fixtures.
    """
    shown = TerminalOutput()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return shown


def test_rows_written_to_a_pipe_are_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(COLUMNS, [{**ROW, "here": True}, {"device_id": "1"}], "table", empty="None.")
    assert capsys.readouterr().out == (
        "DEVICE ID        LAST HEARD                RECORDS  HERE\n"
        "356307042441013  2026-11-22T10:00:00.500Z  7        yes\n"
        "1                -                         -        -\n"
    )


def test_json_rows_are_objects_with_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(COLUMNS, [ROW], "json", empty="None.")
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row.items()) == [
        ("device_id", "356307042441013"),
        ("last_heard", "2026-11-22T10:00:00.500Z"),
        ("records", 7),
        ("here", None),
    ]


def test_empty_list_says_so_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_rows(COLUMNS, [], "json", empty="No devices.")
    assert capsys.readouterr() == ("[]\n", "")
    show_rows(COLUMNS, [], "table", empty="No devices.")
    assert capsys.readouterr() == ("DEVICE ID  LAST HEARD  RECORDS  HERE\n", "No devices.\n")
    written = on_terminal(monkeypatch)
    show_rows(COLUMNS, [], "table", empty="No devices.")
    assert (written.getvalue(), capsys.readouterr().err) == ("", "No devices.\n")


def test_single_row_is_shown_with_one_line_for_each_column(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_record(COLUMNS, {**ROW, "records": 0, "here": False}, "table")
    assert capsys.readouterr().out == (
        "device_id   356307042441013\n"
        "last_heard  2026-11-22T10:00:00.500Z\n"
        "records     0\n"
        "here        no\n"
    )
    show_record((Column("streams"), Column("none")), {"streams": ["a", "b"], "none": []}, "table")
    assert capsys.readouterr().out == "streams  a, b\nnone     -\n"


def test_time_on_a_terminal_has_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_terminal(monkeypatch)
    monkeypatch.setattr(time, "time", lambda: 1795341612.9)
    show_record(COLUMNS, ROW, "table")
    assert "2026-11-22T10:00:00Z (12s ago)" in written.getvalue()
    show_rows(COLUMNS, [ROW], "table", empty="None.")
    assert "  12s ago  " in written.getvalue()
    show_record(COLUMNS, ROW, "json")
    assert "2026-11-22T10:00:00.500Z" in written.getvalue()


def test_terminal_table_wraps_prose_before_names_and_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = on_terminal(monkeypatch)
    columns = (Column("device"), Column("text", Kind.PROSE), Column("n", Kind.NUMBER))
    row = {"device": "356307042441013", "text": "word " * 30, "n": 12345678}
    terminal().print(terminal_table(columns, [row], 60)[0])
    lines = written.getvalue().splitlines()
    assert max(map(len, lines[1:])) <= 60
    assert "356307042441013" in lines[1]
    assert "12345678" in lines[1]
    assert len(lines) > 3


def test_terminal_table_has_a_line_for_each_text_of_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, row = (Column("a", Kind.LIST), Column("b")), {"a": ["x y", "z"], "b": "1"}
    show_rows(columns, [row], "table", empty="None.")
    assert capsys.readouterr().out == "A       B\nx y, z  1\n"
    written = on_terminal(monkeypatch)
    show_rows(columns, [row], "table", empty="None.")
    assert [line.split() for line in written.getvalue().splitlines()[1:]] == [
        ["x", "y", "1"],
        ["z"],
    ]


def test_durations_and_sizes_on_a_terminal_have_units(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = (Column("a", Kind.DURATION), Column("b", Kind.SIZE))
    rows = [{"a": 0.44, "b": 999}, {"a": 7200.0, "b": 2_345_678}]
    show_rows(columns, rows, "table", empty="None.")
    assert capsys.readouterr().out == "A        B\n0.4s     999\n7200.0s  2345678\n"
    written = on_terminal(monkeypatch)
    show_rows(columns, rows, "table", empty="None.")
    assert [line.split() for line in written.getvalue().splitlines()[1:]] == [
        ["0.4s", "999"],
        ["2h", "2.3", "MB"],
    ]


def test_markup_and_escape_sequences_are_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_terminal(monkeypatch)
    rows = [{"a": "[red]:smile:[/]"}, {"a": "\x1b[2J"}]
    terminal().print(terminal_table((Column("a"),), rows, 80)[0])
    assert "[red]:smile:[/]" in written.getvalue()
    assert "\\x1b[2J" in written.getvalue()


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_variable_no_color_disables_colours(
    monkeypatch: pytest.MonkeyPatch, variable: str, coloured: bool
) -> None:
    written = on_terminal(monkeypatch)
    if variable:
        monkeypatch.setenv("NO_COLOR", variable)
    terminal().print(terminal_table((Column("status"),), [{"status": "failed"}], 80)[0])
    assert ("\x1b[31m" in written.getvalue()) is coloured


@given(lists(tuples(text(), text()), min_size=1, max_size=5))
def test_plain_table_has_one_printable_line_for_each_row(rows: list[tuple[str, str]]) -> None:
    assert table(rows).split("\n") == [line.rstrip() for line in table(rows).split("\n")]
    assert len(table(rows).split("\n")) == len(rows)
    assert table(rows).replace("\n", "").isprintable()


@given(text())
def test_printable_text_is_not_escaped(value: str) -> None:
    shown = printable(value)
    assert shown.isprintable()
    if value.isprintable():
        assert shown == value


def test_only_unprintable_characters_are_escaped() -> None:
    assert printable("é\x1b[2J\n\x9b\u202e\udcff") == "é\\x1b[2J\\n\\x9b\\u202e\\udcff"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (3600, "1h"), (200_000, "2d")],
)
def test_age_is_shown_in_the_largest_whole_unit(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_iso_time_has_milliseconds_and_is_in_utc() -> None:
    assert iso(1795341600.0004) == "2026-11-22T10:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no password given", "No password given."),
        ("the database is newer.", "The database is newer."),
        ("/etc/x: does not exist", "/etc/x: does not exist."),
        ("--client a: is reserved", "--client a: is reserved."),
    ],
)
def test_message_is_completed_to_a_sentence(text: str, expected: str) -> None:
    assert sentence(text) == expected
