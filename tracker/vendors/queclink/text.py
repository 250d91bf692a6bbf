"""The ASCII encoding: head and tail of a report, and the boundaries of frames.

::

    +RESP:GTFRI,060100,135790246811220,NAME, …body… ,20090214093254,11F0$

Header and report, protocol version, device ID (an IMEI or a MEID), for some types a VIN, the
device's name, the body, the send time and the count number. A frame ends with ``$``, and with a
NUL byte in old devices; CR, LF and NUL may follow. Neither a length nor a checksum protects it.

Source: the manufacturer's @Track documents of GL200, GL300, GV200, GV300 and GV500; captured
reports of devices without a version field.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final, NamedTuple

from tracker.command import Answer
from tracker.interfaces import Rejection
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.untrusted import shown
from tracker.vendors.queclink.ids import DEVICE_ID, DEVICE_ID_FORM
from tracker.vendors.queclink.models import MODELS, VIN_TYPES, device_type
from tracker.wording import counted

#: Name of the encoding: the codec of its entries and of all commands.
ASCII: Final = "ascii"

RESPONSE: Final = "+RESP"
BUFFERED: Final = "+BUFF"
ACKNOWLEDGEMENT: Final = "+ACK"
HEARTBEAT: Final = "GTHBD"
#: Reports without a device name.
_NAMELESS: Final = frozenset(("GTGSM",))

#: Bytes between frames.
BLANK: Final = b"\r\n\0 "
#: The start of a frame.
STARTS: Final = (b"+RESP:GT", b"+BUFF:GT", b"+ACK:GT")
_START: Final = re.compile(rb"\+(?:RESP|BUFF|ACK):GT")
_END: Final = re.compile(rb"[$\0]")

_VERSION: Final = re.compile(r"(?:[0-9A-Fa-f]{6}|[0-9A-Fa-f]{10})?")
_REPORT: Final = re.compile(r"(\+[A-Z]{3,4}):(GT[A-Z0-9]{3})")
_VIN: Final = re.compile(r"(?=.*[0-9])[0-9A-HJ-NPR-Z]{17}")
_COUNT: Final = re.compile(r"[0-9A-Fa-f]{4}")
_TIME: Final = re.compile(r"[0-9]{14}")
#: Longitude, latitude and UTC time in consecutive fields: a position.
_PLACE: Final = re.compile(
    r"(?<=,)-?[0-9]{1,3}\.[0-9]{4,8},-?[0-9]{1,3}\.[0-9]{4,8},[0-9]{14}(?=,)"
)
#: Maximum number of positions that are searched for; a report has at most 15.
MAX_PLACES: Final = 256
#: Fields before the first one that can be a longitude: header, and version or device ID.
_HEAD: Final = 2
_PRINTABLE: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


class TextFrame(NamedTuple):
    """A frame in the ASCII encoding."""

    text: str
    """The whole frame, without the end."""
    header: str
    """:data:`RESPONSE`, :data:`BUFFERED` or :data:`ACKNOWLEDGEMENT`."""
    report: str
    """Name of the report, or of the command that is acknowledged: ``GTFRI``."""
    version: str
    """Protocol version, in hex digits; empty if the device sends none."""
    device_id: str
    """IMEI, or MEID in upper case."""
    vin: str
    name: str
    """Name of the device; may be empty."""
    body: tuple[str, ...]
    """Fields between the name and the tail."""
    send_time: str
    """Time by the device's clock, in its own time zone; empty if it is malformed."""
    count_number: str
    """4 hex digits as sent; empty if it is malformed."""
    places: tuple[int, ...]
    """For each position, the index of its longitude in the body."""

    @property
    def is_heartbeat(self) -> bool:
        """True if the device waits for an answer, and reports nothing."""
        return self.report == HEARTBEAT and self.header == ACKNOWLEDGEMENT

    @property
    def message_count(self) -> int:
        """Number of messages among the entries: 1 for a frame without a position."""
        return 0 if self.places or self.is_heartbeat else 1

    @property
    def ack(self) -> bytes:
        """The server's acknowledgement; empty without a count number."""
        if self.is_heartbeat:
            return f"+SACK:{HEARTBEAT},{self.version},{self.count_number}$".encode("ascii")
        return f"+SACK:{self.count_number}$".encode("ascii") if self.count_number else b""

    @property
    def answer(self) -> Answer | None:
        """The frame as the answer to a command; None if it is a report or a heartbeat."""
        if self.header != ACKNOWLEDGEMENT or self.is_heartbeat:
            return None
        serial = self.body[-1] if self.body else ""
        token = serial.upper() if _COUNT.fullmatch(serial) else ""
        return Answer(ASCII, f"{self.text}$", token=token)


def decode_text(
    buffer: bytes | bytearray, limit: int, start: int = 0
) -> Decoded[TextFrame] | Incomplete | Rejected | Fatal:
    """Decode the frame at an offset of ``buffer``.

    :param limit: maximum number of bytes of a frame.
    :param start: the offset, where one of :data:`STARTS` stands.
    :return: ``used`` counts from the offset. ``Rejected`` for a frame without a device ID, and for
        a frame that another one interrupts; ``Fatal`` without an end within the limit.
    """
    end = _END.search(buffer, start, start + limit)
    if end is None and len(buffer) - start < limit:
        return Incomplete(1)
    cut = _START.search(buffer, start + 1, start + limit if end is None else end.start())
    if cut is not None:
        # The rest of a frame was lost together with the end of its connection.
        return Rejected(cut.start() - start, 0, "frame without an end before the next frame")
    if end is None:
        reason = f"no $ within {counted(limit, 'byte')}"
        return Fatal(0, reason, field=Rejection.LENGTH.value, expected="$", found="")
    text = buffer[start : end.start()].decode("utf-8", errors="backslashreplace")
    outcome = parse_text(text if text.isprintable() else text.translate(_PRINTABLE))
    used = end.end() - start
    if isinstance(outcome, str):
        return Rejected(used, 0, outcome)
    return Decoded(outcome, used)


def parse_text(text: str) -> TextFrame | str:
    """Parse a frame without its end.

    :return: the reason in one line if the frame names no report or no device.
    """
    fields = text.split(",")
    head = _REPORT.fullmatch(fields[0])
    if head is None:
        return f"not a report: {shown(fields[0], 40)}"
    header, report = head.groups()
    version = ""
    # The oldest devices send no version.
    at = 1 if DEVICE_ID.fullmatch(fields[1] if len(fields) > 1 else "") else _HEAD
    if at == _HEAD:
        if len(fields) <= at or not _VERSION.fullmatch(fields[1]):
            return f"{report} without a protocol version"
        if not DEVICE_ID.fullmatch(fields[at]):
            return f"{report} without a device ID: it is {DEVICE_ID_FORM}"
        version = fields[1].upper()
    device_id = fields[at].upper()
    end, send_time, count = _tail(fields, at + 1)
    first = at + 1
    vin = name = ""
    kind = device_type(version)
    if at == _HEAD and first < end and report not in _NAMELESS:
        if kind in VIN_TYPES or (kind not in MODELS and _VIN.fullmatch(fields[first])):
            vin = fields[first]
            first += 1
        if first < end:
            name = fields[first]
            first += 1
    places, index, counted_to = [], -first, 0
    for found in islice(_PLACE.finditer(text), MAX_PLACES):
        index += text.count(",", counted_to, found.start())
        counted_to = found.start()
        if 0 <= index < end - first - 2:
            places.append(index)
    return TextFrame(
        text,
        header,
        report,
        version,
        device_id,
        vin,
        name,
        tuple(fields[first:end]),
        send_time,
        count,
        tuple(places),
    )


def _tail(fields: list[str], first: int) -> tuple[int, str, str]:
    """Return the index of the send time, the send time and the count number.

    :param first: index of the first field that may belong to the tail.
    """
    # The oldest devices have a version after the count number of some reports.
    for end in (len(fields) - 2, len(fields) - 3):
        if end >= first and _COUNT.fullmatch(fields[end + 1]):
            time = fields[end]
            if _TIME.fullmatch(time):
                return end, time, fields[end + 1]
            if not time and end == len(fields) - 2:
                return end, "", fields[end + 1]
    return len(fields), "", ""
