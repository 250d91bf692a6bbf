"""The login of a connection: the IMEI, on newer devices also the model and the time zone.

Source: GT06 protocol 1.8 and Concox protocol 3.1, chapter "Login packet".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tracker.vendors.concox.fields import IMEI_BYTES, read_imei, write_imei, zone_minutes, zone_word
from tracker.vendors.concox.frames import Frame

NUMBER: Final = 0x01

_MODEL_END: Final = IMEI_BYTES + 2
_ZONE_END: Final = _MODEL_END + 2


class Login(NamedTuple):
    """The content of a login."""

    imei: str
    model: int | None = None
    """Code of the model; None if the login does not have it."""
    zone: int | None = None
    """Time zone in minutes east of UTC; None if the login has none, or an impossible one."""
    language: int = 0
    """1 is Chinese, 2 is English; not all devices follow that."""


def read_login(content: bytes) -> Login | None:
    """Return the content of a login; None if it does not begin with an IMEI."""
    imei = read_imei(content)
    if imei is None:
        return None
    model = content[IMEI_BYTES:_MODEL_END]
    word = content[_MODEL_END:_ZONE_END]
    if len(word) < 2:
        return Login(imei, int.from_bytes(model, "big") if len(model) == 2 else None)
    number = int.from_bytes(word, "big")
    return Login(imei, int.from_bytes(model, "big"), zone_minutes(number), number & 3)


def login_frame(login: Login, serial: int) -> Frame:
    """Return the frame of a login: the inverse of :func:`read_login`.

    :raises ValueError: if the IMEI is not of 15 digits, or a number does not fit its field.
    """
    content = write_imei(login.imei)
    try:
        if login.model is not None or login.zone is not None:
            content += (login.model or 0).to_bytes(2, "big")
        if login.zone is not None:
            content += (zone_word(login.zone) | login.language).to_bytes(2, "big")
    except OverflowError:
        raise ValueError(f"{login!r} does not fit the fields of a login") from None
    return Frame(NUMBER, content, serial)
