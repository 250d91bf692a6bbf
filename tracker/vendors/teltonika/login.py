"""The login of a TCP connection: a length word and the IMEI as digits.

Source: Teltonika wiki, "Teltonika Data Sending Protocols", chapter "Communication
with server". The answer is exactly one byte; anything besides it would shift every
later acknowledgement that the device reads.
"""

from __future__ import annotations

from typing import Final

from tracker.vendors.outcomes import Decoded, Fatal, Incomplete, Rejected

ACCEPT: Final = b"\x01"
REFUSE: Final = b"\x00"

IMEI_DIGITS: Final = 15
_LENGTH_WORD: Final = IMEI_DIGITS.to_bytes(2, "big")
_SIZE: Final = len(_LENGTH_WORD) + IMEI_DIGITS


def decode_login(data: bytes | bytearray) -> Decoded[str] | Incomplete | Rejected | Fatal:
    """Read a login at the start of ``data``.

    :return: the IMEI; ``Rejected`` for what is laid out like a login but names no
        IMEI; ``Fatal`` for anything else, which is no Teltonika device.
    """
    head = data[:2]
    if len(head) == 2 and head != _LENGTH_WORD:
        if head == b"\x00\x00":
            return Fatal(0, "a frame before the login")
        if head[0] == 0:
            return Rejected(len(data), 0, f"an IMEI of {head[1]} instead of {IMEI_DIGITS} digits")
        return Fatal(0, "not a Teltonika login")
    if len(head) == 1 and head[0] != 0:
        return Fatal(0, "not a Teltonika login")
    imei = bytes(data[2:_SIZE])
    # Digits are checked as they come: a stranger who dribbles is known by the first letter.
    if imei and not imei.isdigit():
        return Rejected(len(data), 2, "an IMEI with other characters than digits")
    if len(data) < _SIZE:
        return Incomplete(_SIZE - len(data))
    return Decoded(imei.decode("ascii"), _SIZE)


def encode_login(imei: str) -> bytes:
    """The bytes with which the device of this IMEI logs in.

    :raises ValueError: when it is not 15 digits.
    """
    if len(imei) != IMEI_DIGITS or not (imei.isascii() and imei.isdigit()):
        raise ValueError(f"an IMEI has {IMEI_DIGITS} digits: {imei!r}")
    return _LENGTH_WORD + imei.encode("ascii")
