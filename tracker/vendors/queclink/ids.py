"""Device IDs: the IMEI, or the MEID of a CDMA device."""

from __future__ import annotations

import re
from typing import Final

#: The form of a device ID, for messages.
DEVICE_ID_FORM: Final = "an IMEI of 15 digits or a MEID of 14 hex digits"
#: The digits of a time, in a frame without a device ID, are not a MEID: these begin with a letter
#: or with 99 (3GPP2 S.R0048).
DEVICE_ID: Final = re.compile(r"[0-9]{15}|(?!20[0-9]{12})[0-9A-Fa-f]{14}")


def checked_device_id(text: str) -> str:
    """Return a device ID in upper case.

    :raises ValueError: if it is neither an IMEI nor a MEID.
    """
    if not DEVICE_ID.fullmatch(text):
        raise ValueError(f"must be {DEVICE_ID_FORM}")
    return text.upper()
