"""The rule for times of records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.clock import AHEAD, MAX_ROLLOVER_AGE, OLD, ROLLOVER, ROLLOVER_WEEKS, ClockRule
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds

RULE = ClockRule()
ARRIVAL = "2026-11-30T10:00:30.500Z"
DAY = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, MAX_TIMESTAMP_MS)


def milliseconds(text: str) -> int:
    return round((datetime.fromisoformat(text) - EPOCH) / timedelta(milliseconds=1))


@pytest.mark.parametrize(
    ("timestamp", "kind"),
    [
        (ARRIVAL, None),
        ("2026-11-30T10:00:00.000Z", None),
        ("2026-12-01T10:00:30.500Z", None),
        ("2026-12-01T10:00:30.501Z", AHEAD),
        ("2080-01-01T00:00:00.000Z", AHEAD),
        ("9999-12-31T23:59:59.999Z", AHEAD),
        ("2024-11-30T10:00:30.500Z", None),
        ("2024-11-30T10:00:30.499Z", OLD),
        # A GPS receiver that is a cycle behind, and one that is two cycles behind.
        ("2007-04-16T10:00:30.500Z", ROLLOVER),
        ("1987-08-31T10:00:30.500Z", ROLLOVER),
        ("2004-01-01T00:34:43.000Z", ROLLOVER),
        ("2007-04-17T10:00:30.500Z", ROLLOVER),
        ("2007-04-17T10:00:30.501Z", OLD),
        ("2002-04-16T10:00:30.499Z", OLD),
        # Clocks that start again at a fixed time.
        ("1970-01-01T00:00:00.000Z", OLD),
        ("1980-01-06T00:00:00.000Z", OLD),
        ("2000-01-01T00:00:00.000Z", OLD),
        ("2010-01-01T00:00:00.000Z", OLD),
        ("2020-01-01T00:00:00.000Z", OLD),
        ("0001-01-01T00:00:00.000Z", OLD),
    ],
)
def test_time_is_compared_with_the_arrival(timestamp: str, kind: str | None) -> None:
    assert RULE.error(timestamp, ARRIVAL) == kind


@pytest.mark.parametrize("arrival", ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"])
def test_every_arrival_has_right_times(arrival: str) -> None:
    assert RULE.error(arrival, arrival) is None


def test_settings_move_the_range_of_right_times() -> None:
    rule = ClockRule(clock_tolerance=60, oldest=86_400)
    assert rule.error("2026-11-30T10:01:30.500Z", ARRIVAL) is None
    assert rule.error("2026-11-30T10:01:30.501Z", ARRIVAL) == AHEAD
    assert rule.error("2026-11-29T10:00:30.500Z", ARRIVAL) is None
    assert rule.error("2026-11-29T10:00:30.499Z", ARRIVAL) == OLD


@given(
    st.builds(ClockRule, st.integers(60, 10**6), st.integers(86_400, MAX_ROLLOVER_AGE)),
    TIMES,
    TIMES,
)
def test_time_has_the_error_that_arithmetic_finds(rule: ClockRule, time: int, arrival: int) -> None:
    ahead = time - arrival
    kind: str | None = OLD
    if ahead > rule.clock_tolerance * 1000:
        kind = AHEAD
    elif ahead >= -rule.oldest * 1000:
        kind = None
    elif any(
        -MAX_ROLLOVER_AGE * 1000 <= ahead + weeks * 7 * DAY <= rule.clock_tolerance * 1000
        for weeks in ROLLOVER_WEEKS
    ):
        kind = ROLLOVER
    assert rule.error(iso_milliseconds(time), iso_milliseconds(arrival)) == kind


@given(TIMES, st.integers(-800 * DAY, 2 * DAY))
def test_time_near_the_arrival_has_the_error_that_arithmetic_finds(
    arrival: int, difference: int
) -> None:
    time = min(max(0, arrival + difference), MAX_TIMESTAMP_MS)
    wrong = not -730 * DAY <= time - arrival <= DAY
    assert (RULE.error(iso_milliseconds(time), iso_milliseconds(arrival)) is not None) is wrong


def test_value_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="between 1m"):
        ClockRule(clock_tolerance=59)
    with pytest.raises(ValueError, match="between 1d"):
        ClockRule(oldest=0)


@pytest.mark.parametrize("start", ["1999-08-22", "2019-04-07"])
def test_week_number_returns_to_zero_at_known_dates(start: str) -> None:
    weeks = milliseconds(f"{start}T00:00:00.000Z") - milliseconds("1980-01-06T00:00:00.000Z")
    assert weeks / (7 * DAY) in ROLLOVER_WEEKS
