"""The login of a TCP connection: a length word and the IMEI as digits.

Source: Teltonika wiki, "Teltonika Data Sending Protocols", chapter "Communication
with server". The reply is exactly one byte: more bytes would shift every later ACK that the
device reads.
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
    """Decode the login at the start of ``data``.

    :return: the IMEI; ``Rejected`` for a login without a valid IMEI; ``Fatal`` for anything else,
        which a Teltonika device does not send.
    """
    head = data[:2]
    if head != LENGTH_WORD[: len(head)]:
        expected, found = LENGTH_WORD[: len(head)].hex(), head.hex()
        if head[0] != 0:
            reason = "not a Teltonika login"
        elif head[1] != 0:
            reason = f"IMEI length {head[1]} is wrong: an IMEI has {IMEI_DIGITS} digits"
            return Rejected(len(data), 0, reason, field="length", expected=expected, found=found)
        else:
            reason = "frame before the login: the IMEI must come first"
        return Fatal(0, reason, field="length", expected=expected, found=found)
    imei = bytes(data[2:_SIZE])
    # Checked before the login is complete: a slow peer is rejected at its first letter.
    if imei and not imei.isdigit():
        return Rejected(
            len(data),
            2,
            f"IMEI has invalid characters: an IMEI has {IMEI_DIGITS} digits",
            field="imei",
            expected=f"{IMEI_DIGITS} digits",
            found=ascii(imei.decode("latin-1")),
        )
    if len(data) < _SIZE:
        return Incomplete(_SIZE - len(data))
    return Decoded(imei.decode("ascii"), _SIZE)


def encode_login(imei: str) -> bytes:
    """Return the login of the device with this IMEI.

    :raises ValueError: if the IMEI does not have 15 digits.
    """
    if len(imei) != IMEI_DIGITS or not (imei.isascii() and imei.isdigit()):
        raise ValueError(f"{imei!r} is not an IMEI: an IMEI has {IMEI_DIGITS} digits")
    return LENGTH_WORD + imei.encode("ascii")
