"""Commands to a device, in the ASCII encoding of both kinds of devices.

::

    AT+GTRTO=gl300,1,,,,,,FFFF$

The password (``gl300``), the parameters, and a serial number of 4 hex digits, which the device
repeats in its answer. A device does not answer a command with a wrong password, or one that it
does not know.
Source: the manufacturer's @Track documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from secrets import randbelow
from typing import Final

from tracker.command import CommandFrame
from tracker.vendors.queclink.passwords import OTHERS
from tracker.vendors.queclink.text import ASCII

#: Codecs of commands; the first is that of a command whose codec is not given.
COMMAND_CODECS: Final = (ASCII,)

#: Stands for the password in a command, as an empty field does.
PLACEHOLDER: Final = "{password}"
#: Stands for a serial number; so does an empty field.
ANY_SERIAL: Final = "FFFF"
_MASK: Final = "***"

_COMMAND: Final = re.compile(r"(?:AT\+)?(GT[A-Z0-9]{3})=([^,$]*),([^$]*?)\$?")
_SERIAL: Final = re.compile(r"[0-9A-Fa-f]{4}")
_WRITTEN: Final = re.compile(rb",([0-9A-F]{4})\$\Z")
_TEXT: Final = re.compile(r"[ -~]+")


class Serials:
    """Serial numbers of commands; no two of 60,000 in a row are equal."""

    def __init__(self) -> None:
        # Starts anywhere, so that a late answer to a command of an earlier connection is not taken
        # for that to one of this connection.
        self._numbers = count(randbelow(0xFFFF))

    def next(self) -> str:
        """Return a serial number: 4 hex digits other than :data:`ANY_SERIAL`."""
        return f"{next(self._numbers) % 0xFFFF:04X}"


def command_frame(
    device_id: str,
    content: bytes,
    codec: str,
    *,
    passwords: Mapping[str, str] | None,
    serials: Serials,
) -> CommandFrame:
    """Return the frame of a command.

    :param content: ``GTRTO=,1,,,,,,``: the name of the command, the password, the parameters and
        the serial number. ``AT+`` and ``$`` may be omitted. The password is empty or
        :data:`PLACEHOLDER`: that of the device is inserted. A password in a command would also
        stand in Redis. An empty serial number, or :data:`ANY_SERIAL`, stands for a new one.
    :param codec: :data:`ASCII`; empty for the default.
    :param passwords: see :func:`~tracker.vendors.queclink.passwords.parse_passwords`; None without
        a file.
    :raises ValueError: if the content is not a command, or no password is known. The message is
        one line without a password.
    """
    if codec not in ("", *COMMAND_CODECS):
        raise ValueError(f"unknown codec {codec!r}: commands use {' or '.join(COMMAND_CODECS)}")
    text = content.decode("utf-8", errors="replace").strip()
    found = _COMMAND.fullmatch(text)
    if found is None or not _TEXT.fullmatch(text):
        raise ValueError("not a command: it has the form GTRTO=,1,,,,,, in printable ASCII")
    name, password, rest = found.groups()
    parameters, comma, serial = rest.rpartition(",")
    if serial and not _SERIAL.fullmatch(serial):
        raise ValueError("the last field must be the serial number: leave it empty")
    if password not in ("", PLACEHOLDER):
        raise ValueError(
            "the first field is for the password: leave it empty, "
            "and put the password into the file of --queclink-password-file"
        )
    password = _password(device_id, passwords)
    if serial.upper() in ("", ANY_SERIAL):
        serial = serials.next()
    serial = serial.upper()
    end = f",{parameters}{comma}{serial}$"
    return CommandFrame(
        ASCII,
        f"AT+{name}={password}{end}".encode("ascii"),
        token=serial,
        shown=f"AT+{name}={_MASK}{end}".encode("ascii"),
    )


def written_serial(data: bytes) -> str:
    """Return the serial number in the frame of a command; empty if it has none."""
    found = _WRITTEN.search(data)
    return "" if found is None else found[1].decode("ascii")


def _password(device_id: str, passwords: Mapping[str, str] | None) -> str:
    if passwords is None:
        raise ValueError("no password: start the instance with --queclink-password-file")
    password = passwords.get(device_id, passwords.get(OTHERS))
    if password is None:
        raise ValueError(f"no password: the file has no line for {device_id}, and none for *")
    return password
