"""The check digit of an IMEI."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.imei import check_digit, has_valid_check_digit


@pytest.mark.parametrize(
    "imei",
    [
        "490154203237518",  # the example of 3GPP TS 23.003
        "356307042441013",
        "352093081452251",
        "000000000000000",
        "999999999999994",
    ],
)
def test_right_check_digit_is_valid(imei: str) -> None:
    assert check_digit(imei[:14]) == imei[14]
    assert has_valid_check_digit(imei)


@pytest.mark.parametrize("digit", "012345679")
def test_every_other_check_digit_is_invalid(digit: str) -> None:
    assert not has_valid_check_digit("49015420323751" + digit)


@given(st.text("0123456789", min_size=14, max_size=14))
def test_one_check_digit_of_ten_is_valid(digits: str) -> None:
    assert [d for d in "0123456789" if has_valid_check_digit(digits + d)] == [check_digit(digits)]


@given(
    st.text("0123456789", min_size=14, max_size=14),
    st.integers(0, 13),
    st.integers(1, 9),
)
def test_check_digit_detects_any_wrong_digit(digits: str, index: int, difference: int) -> None:
    wrong = str((int(digits[index]) + difference) % 10)
    changed = digits[:index] + wrong + digits[index + 1 :]
    assert not has_valid_check_digit(changed + check_digit(digits))
