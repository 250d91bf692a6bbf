"""The login of a TCP connection: a length word and the IMEI as digits.

Source: Teltonika wiki, "Teltonika Data Sending Protocols", chapter "Communication
with server". The answer is exactly one byte; anything besides it would shift every
later acknowledgement that the device reads.
"""

from __future__ import annotations

from typing import Final

from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected

ACCEPT: Final = b"\x01"
REFUSE: Final = b"\x00"

IMEI_DIGITS: Final = 15
LENGTH_WORD: Final = IMEI_DIGITS.to_bytes(2, "big")
_SIZE: Final = len(LENGTH_WORD) + IMEI_DIGITS


def decode_login(data: bytes | bytearray) -> Decoded[str] | Incomplete | Rejected | Fatal:
    """Read a login at the start of ``data``.

    :return: the IMEI; ``Rejected`` for what is laid out like a login but names no
        IMEI; ``Fatal`` for anything else, which no Teltonika device sends.
    """
    head = data[:2]
    if head != LENGTH_WORD[: len(head)]:
        expected, found = LENGTH_WORD[: len(head)].hex(), head.hex()
        if head[0] != 0:
            reason = "not a Teltonika login"
        elif head[1] != 0:
            reason = f"an IMEI of {head[1]} instead of {IMEI_DIGITS} digits"
            return Rejected(len(data), 0, reason, field="length", expected=expected, found=found)
        else:
            reason = "a frame before the login"
        return Fatal(0, reason, field="length", expected=expected, found=found)
    imei = bytes(data[2:_SIZE])
    # Digits are checked as they arrive: a peer that sends slowly is rejected at the first letter.
    if imei and not imei.isdigit():
        return Rejected(
            len(data),
            2,
            "an IMEI with other characters than digits",
            field="imei",
            expected=f"{IMEI_DIGITS} digits",
            found=ascii(imei.decode("latin-1")),
        )
    if len(data) < _SIZE:
        return Incomplete(_SIZE - len(data))
    return Decoded(imei.decode("ascii"), _SIZE)


def encode_login(imei: str) -> bytes:
    """Return the bytes with which the device of this IMEI logs in.

    :raises ValueError: if it is not 15 digits.
    """
    if len(imei) != IMEI_DIGITS or not (imei.isascii() and imei.isdigit()):
        raise ValueError(f"an IMEI has {IMEI_DIGITS} digits: {imei!r}")
    return LENGTH_WORD + imei.encode("ascii")
