"""IMEIs and their check digit (3GPP TS 23.003, annex B: the Luhn formula)."""

from __future__ import annotations


def check_digit(digits: str) -> str:
    """The digit that makes a valid IMEI of the fourteen before it."""
    total = 0
    for index, digit in enumerate(map(int, digits)):
        doubled = 2 * digit if index % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def has_valid_check_digit(imei: str) -> bool:
    """Whether the last of fifteen digits fits the others."""
    return check_digit(imei[:-1]) == imei[-1]
