"""Untrusted text: parsing it, and showing it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracker.untrusted import MAX_DEPTH, MAX_DIGITS, is_unicode, listed, parse_json, shown


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1) + "0" + "}" * (MAX_DEPTH + 1),
        "9" * 3_000_000,
        "-" + "9" * MAX_DIGITS,
        "9" * 3_000_000 + ".5",
        "1e999999",
        "NaN",
        "-Infinity",
        '"' + "x" * 3_000_000,
        "",
        "nonsense",
        b"\xff",
        b'{"a": "\xed\xa0\x80"}',
        "[1]".encode("utf-16"),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_malformed_json_is_a_short_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is tested below
        parse_json(text, 10_000_000)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 100
    assert "999" not in str(caught.value)


def test_size_is_checked_before_parsing() -> None:
    with pytest.raises(ValueError, match="longer"):
        parse_json(b"[]" + b" " * 9, 10)
    assert parse_json(b"[]" + b" " * 8, 10) == []


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2.5, None, True, "ü", {"b": {}}]},
        [[]] * 500,
        int("9" * MAX_DIGITS),
        "\ud800",
    ],
    ids=lambda value: repr(value)[:8],
)
def test_json_within_the_limits_is_parsed(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


def test_deepest_parsed_value_can_be_encoded_again() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text)) == text


def test_text_with_half_a_surrogate_pair_is_not_unicode() -> None:
    assert is_unicode("telemetry:ü\U0001f600")
    assert not is_unicode("telemetry:\ud800")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("telemetry:teltonika", "telemetry:teltonika"),
        ("ü und 😀", "ü und 😀"),
        ("a\nb\x1b[31m\0\u2028", "a\\nb\\x1b[31m\\x00\\u2028"),
        ("\ud800", "\\ud800"),
        (b"\xff\n", "\\xff\\n"),
        ("ü".encode(), "ü"),
        ("", ""),
        (ValueError("a\nb"), "a\\nb"),
        (ValueError(), "ValueError"),
    ],
)
def test_text_is_shown_on_one_printable_line(text: Any, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 10 + "… (11 characters)"),
        ("x" * 3_000_000, "x" * 10 + "… (3,000,000 characters)"),
        ("\0" * 3, "\\x00\\x00\\x… (3 characters)"),
        (b"x" * 3_000_000, "x" * 10 + "… (3,000,000 bytes)"),
        ("ü".encode() * 1000, "ü" * 10 + "… (2,000 bytes)"),
        (b"x" + "😀".encode() * 1000, "x" + "😀" * 9 + "… (4,001 bytes)"),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_long_text_is_cut_and_its_length_is_given(text: Any, expected: str) -> None:
    assert shown(text, 10) == expected
    assert is_unicode(shown(text, 10))


def test_long_list_is_cut_and_the_omitted_items_are_counted() -> None:
    assert listed(["a", "b\n"]) == "a, b\\n"
    assert listed([]) == ""
    assert listed(map(str, range(1000)), 3) == "0, 1, 2 and 997 more"
