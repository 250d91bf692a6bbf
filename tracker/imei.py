"""IMEIs and their check digit (3GPP TS 23.003, annex B: the Luhn formula)."""

from __future__ import annotations

import re
from typing import Final

#: The form of an IMEI, for messages.
IMEI_FORM: Final = "an IMEI of 15 digits"
#: The same as a regular expression, as JavaScript has it, too.
IMEI_PATTERN: Final = "[0-9]{15}"
_IMEI: Final = re.compile(IMEI_PATTERN)


def checked_imei(text: str) -> str:
    """Return an IMEI whose check digit may be wrong.

    :raises ValueError: if it is not of 15 digits.
    """
    if not is_imei(text):
        raise ValueError(f"must be {IMEI_FORM}")
    return text


def is_imei(device_id: str) -> bool:
    """Return True for 15 digits; the check digit may be wrong."""
    return _IMEI.fullmatch(device_id) is not None


def check_digit(digits: str) -> str:
    """Return the check digit that completes an IMEI.

    :param digits: the first fourteen digits.
    """
    total = 0
    for index, digit in enumerate(map(int, digits)):
        doubled = 2 * digit if index % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def has_valid_check_digit(imei: str) -> bool:
    """Return True if the last of fifteen digits is the check digit of the others."""
    return check_digit(imei[:-1]) == imei[-1]
