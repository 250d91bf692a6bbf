"""Durations: their parser, their exact text, and their text in tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.durations import (
    MAX_DURATION,
    age,
    check_bounds,
    format_duration,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("500ms", 0.5), ("20ms", 0.02), ("0s", 0), ("10s", 10), ("1.5s", 1.5), (".5m", 30)),
        *(("5m", 300), ("24h", 86_400), ("7d", 604_800), ("36500d", MAX_DURATION)),
    ],
)
def test_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("0.5", 0.5), (".5", 0.5), ("5.", 5)])
def test_bare_number_is_seconds_only_where_that_is_allowed(text: str, seconds: float) -> None:
    assert parse_duration(text, bare=True) == seconds
    with pytest.raises(ValueError, match="must be like 500ms, 10s, 5m, 24h or 7d"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "s",
            ".",
            ".s",
            "-1s",
            "+1s",
            "1S",
            "1H",
            "1 s",
            " 1s",
            "1s\n",
            "1w",
            "1h30m",
            "1e3s",
        ),
        *("nan", "inf", "infs", "soon", "٣s", "1,5s", "1_0s", "9" * 13 + "s"),
    ],
)
def test_other_text_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be like") as raised:
        parse_duration(text, bare=True)
    assert str(raised.value).endswith(f", not {text!r}")


def test_duration_of_more_than_a_hundred_years_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at most 36500d, not '36501d'"):
        parse_duration("36501d")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0s"), (0.02, "20ms"), (0.0005, "0.5ms"), (1.5, "1.5s"), (90, "90s"), (600, "10m")),
        *((5400, "90m"), (86_400, "1d"), (90_000, "25h"), (63_072_000, "730d")),
    ],
)
def test_text_has_the_largest_unit_without_a_fraction(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, MAX_DURATION).map(lambda seconds: round(seconds, 3)))
def test_text_of_a_duration_is_read_as_the_same_duration(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-9)


@given(st.text(alphabet="0123456789.msh d", max_size=20))
def test_text_is_a_duration_or_refused_in_one_line(text: str) -> None:
    seconds, refusal = 0.0, ""
    try:
        seconds = parse_duration(text, bare=True)
    except ValueError as error:
        refusal = str(error)
    assert 0 <= seconds <= MAX_DURATION
    assert "\n" not in refusal


def test_bounds_are_shown_as_durations() -> None:
    check_bounds(1, 1, 3600)
    check_bounds(3600, 1, 3600)
    with pytest.raises(ValueError, match="must be between 1s and 1h, not 500ms"):
        check_bounds(0.5, 1, 3600)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86_399, "23h"), (200_000, "2d")],
)
def test_age_is_shown_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text
