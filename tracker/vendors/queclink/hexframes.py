"""The boundaries and the content of frames in the HEX encoding.

::

    +RSP | type 1 | mask 4 | length 2 | device type, versions | unique ID 8 | … | CRC 2 | CR LF

The header is text; all numbers are big-endian. The length counts the whole frame. The CRC-16 is
that of CCITT with an initial value of FFFF, over the bytes from the end of the header up to the
CRC. Masks, which ``AT+GTHRM`` sets, say which fields a frame has. Where the length stands depends
on the header, and for two kinds of frames on the model; the CRC decides between them.

No document says how a server acknowledges a frame in this encoding. The open-source server
queclink-go answers as in the ASCII encoding, with the count number in hex digits; so does this one.

Sources: see :mod:`tracker.vendors.queclink.hexfields`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from fastcrc.crc16 import ibm_3740 as crc16

from tracker.command import Answer
from tracker.interfaces import Rejection
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.queclink.hexfields import (
    ID_BYTES,
    TIME_BYTES,
    Groups,
    read_groups,
    read_head,
    read_imei,
    read_name,
    time_digits,
)
from tracker.vendors.queclink.text import ASCII, HEARTBEAT
from tracker.wording import counted

#: The end of a frame.
END: Final = b"\r\n"
HEADER_BYTES: Final = 4
#: Bytes of the CRC and the end.
TRAILER_BYTES: Final = 4

_COUNT_BYTES: Final = 2
_VERSION_BYTES: Final = 2
#: A first byte of the device type that announces two more.
_LONG_TYPE: Final = b"\x80"
#: Bytes of a command's answer before the send time: an ID and the serial number.
_ANSWER_BYTES: Final = 3


#: Fields of a frame with its versions.
_VERSIONS: Final = ("protocol", "firmware")


def _bits(*fields: str) -> Mapping[str, int]:
    return {field: bit for bit, field in enumerate(fields) if field}


class Form(NamedTuple):
    """Properties of all frames of a header."""

    kind: str
    """Letters of the header of a frame that was sent at once."""
    type_bytes: int
    mask_bytes: int
    length_bytes: int
    bits: Mapping[str, int]
    """Field → bit of the mask that selects it. ``name``: the unique ID is the device's name."""
    id_first: bool = False
    """True if the unique ID precedes the device type."""
    lengths_at: tuple[int, ...] = (0,)
    """Offsets of the length, from the end of the mask. Some models have a second mask."""


#: Fields that a mask selects, by their bit; empty for another field. See ``AT+GTHRM``.
_REPORT_BITS: Final = _bits("", "", "", "", "time", "count", "name", "length", "type", *_VERSIONS)
_INFORMATION_BITS: Final = _bits("length", "name", "type", *_VERSIONS, "time", "count")
_ACK_BITS: Final = _bits("length", "type", *_VERSIONS, "name", "time", "count")
_LOGIN_BITS: Final = _bits("length", "", "type", *_VERSIONS, "time", "count")

_REPORT: Final = Form("RSP", 1, 4, 2, _REPORT_BITS)
_EXTENDED_REPORT: Final = _REPORT._replace(lengths_at=(4,))
_EVENT: Final = Form("EVT", 1, 4, 2, _REPORT_BITS)
_INFORMATION: Final = Form("INF", 1, 2, 2, _INFORMATION_BITS, id_first=True, lengths_at=(0, 2))
_CRASH: Final = Form("CRD", 0, 2, 2, _INFORMATION_BITS)
#: Header → form. ``B`` as its second letter marks a frame that was stored and sent later.
_FORMS: Final[Mapping[bytes, Form]] = {
    **dict.fromkeys((b"+RSP", b"+BSP"), _REPORT),
    **dict.fromkeys((b"+EVT", b"+BVT"), _EVENT),
    **dict.fromkeys((b"+INF", b"+BNF"), _INFORMATION),
    **dict.fromkeys((b"+CRD", b"+BRD"), _CRASH),
    b"+ACK": Form("ACK", 1, 1, 1, _ACK_BITS),
    b"+HBD": Form("HBD", 0, 1, 1, {**_ACK_BITS, "id": 7}),
    b"+LGN": Form("LGN", 0, 2, 2, _LOGIN_BITS),
}
#: The start of a frame. ``+ACK`` is followed by a colon in the ASCII encoding.
HEX_STARTS: Final = tuple(_FORMS)


def _reports(names: Mapping[int, str]) -> Mapping[int, str]:
    """Return type → report from the first type of a row and the names of the row."""
    return {
        number: f"GT{name}"
        for first, row in names.items()
        for number, name in enumerate(row.split(), first)
    }


#: Kind → type → report. The numbers of further events differ by model.
_REPORTS: Final[Mapping[str, Mapping[int, str]]] = {
    "RSP": _reports(
        {1: "TOW", 3: "LBC EPS DIS IOB FRI GEO SPD SOS RTL DOG", 14: "AIS HBM IGL IDA ERI"}
    ),
    "EVT": _reports(
        {1: "PNA PFA MPN MPF", 6: "BPL BTC STC STT ANT", 12: "PDP IGN IGF UPD IDN IDF DAT"}
        | {20: "JDR GSS"}
    ),
    "INF": _reports({1: "INF GPS", 4: "CID CSQ VER BAT IOS TMZ GIR"}),
    "ACK": _reports({0: "BSI SRI QSS", 4: "CFG TOW EPS DIS OUT IOB TMA FRI GEO SPD SOS CAN RTO"}),
    "HBD": {0: HEARTBEAT},
    "CRD": {0: "GTCRD"},
    "LGN": {0: "GTLGN"},
}
_EXTENDED: Final = 18
#: Type of ``+RSP`` with differences between positions, whose layout is in no public document.
_COMPRESSED: Final = 100


class HexFrame(NamedTuple):
    """A frame in the HEX encoding."""

    header: str
    """``+RSP``, or ``+BSP`` if the frame was stored and sent later, …"""
    kind: str
    """``RSP``, ``EVT``, ``INF``, ``ACK``, ``HBD``, ``CRD`` or ``LGN``."""
    number: int
    """Type of the frame; 0 if its kind has none."""
    mask: int
    second_mask: bytes
    """A mask between the first one and the length; empty without one."""
    version: str
    """Device type and protocol version in hex digits, as in the ASCII encoding."""
    firmware: str
    """Firmware version, 4 hex digits; empty if the mask omits it."""
    device_id: str
    """IMEI; empty if only the connection shows which device has sent the frame."""
    name: str
    """Name of the device; empty if the frame has its IMEI."""
    body: bytes
    """Bytes between the unique ID and the send time."""
    send_time: str
    """``YYYYMMDDHHMMSS`` by the device's clock, in its own time zone; may be empty."""
    count_number: str
    """4 hex digits; empty if the mask omits it."""
    content: bytes
    """The frame without header, CRC and end. That of a repetition is the same."""
    head_end: int = 0
    """Offset in the body after the fields that the mask selects."""
    groups: Groups | None = None
    """The position groups; None without any."""

    @property
    def report(self) -> str:
        """Name of the report as in the ASCII encoding; kind and type if it is not known."""
        return _REPORTS[self.kind].get(self.number) or f"{self.kind}{self.number}"

    @property
    def is_heartbeat(self) -> bool:
        """True if the device waits for an answer, and reports nothing."""
        return self.kind == "HBD"

    @property
    def has_place(self) -> bool:
        """True if one of the position groups has coordinates."""
        groups = self.groups
        return groups is not None and any(one.longitude is not None for one in groups.groups)

    @property
    def message_count(self) -> int:
        """Number of messages among the entries: 1 for a frame without a position."""
        return 0 if self.has_place or self.is_heartbeat else 1

    @property
    def ack(self) -> bytes:
        """The server's acknowledgement; empty without a count number."""
        if not self.count_number:
            return b""
        start = f"{HEARTBEAT},," if self.is_heartbeat else ""
        return f"+SACK:{start}{self.count_number}$".encode("ascii")

    @property
    def serial(self) -> str:
        """The serial number of the command that the frame answers; empty if it does not say."""
        if self.kind != "ACK" or len(self.body) < _ANSWER_BYTES:
            return ""
        return self.body[1:_ANSWER_BYTES].hex().upper()

    @property
    def answer(self) -> Answer | None:
        """The frame as the answer to a command, in the form of the ASCII encoding."""
        if self.kind != "ACK":
            return None
        head = f"+ACK:{self.report},{self.version},{self.device_id},{self.name}"
        text = f"{head},{self.serial},{self.send_time},{self.count_number}$"
        return Answer(ASCII, text, token=self.serial)


def decode_frame(
    buffer: bytes | bytearray, limit: int
) -> Decoded[HexFrame] | Incomplete | Rejected | Fatal:
    """Decode the frame at the start of ``buffer``, where one of :data:`HEX_STARTS` stands.

    :param limit: maximum number of bytes of a frame.
    :return: ``Rejected`` for a frame with a wrong length or CRC, or without an IMEI.
    """
    header = bytes(buffer[:HEADER_BYTES])
    form = _FORMS[header]
    mask_at = HEADER_BYTES + form.type_bytes
    mask_end = mask_at + form.mask_bytes
    if len(buffer) < mask_end:
        return Incomplete(mask_end - len(buffer))
    if form is _REPORT and buffer[HEADER_BYTES] == _EXTENDED:
        form = _EXTENDED_REPORT
    mask = int.from_bytes(buffer[mask_at:mask_end])
    if not _has(mask, form, "length"):
        # Nothing else shows where the frame ends.
        reason = f"{header.decode()} without a length: set bit {form.bits['length']} of its mask"
        return Rejected(HEADER_BYTES, mask_at, reason, field=Rejection.LENGTH.value)
    lengths_end = mask_end + form.lengths_at[-1] + form.length_bytes
    if len(buffer) < lengths_end:
        return Incomplete(lengths_end - len(buffer))
    at = {length: end for length, end in _lengths(buffer, form, mask_end) if length <= limit}
    shortest = lengths_end + TRAILER_BYTES
    if max(at, default=0) < shortest:
        reason = f"length of {header.decode()} is not from {shortest} to {counted(limit, 'byte')}"
        return Rejected(HEADER_BYTES, mask_end, reason, field=Rejection.LENGTH.value)
    used = 0
    for length in sorted(at):
        if length < shortest:
            continue
        if len(buffer) < length:
            return Incomplete(length - len(buffer))
        if not buffer.startswith(END, length - len(END)):
            continue
        frame = bytes(buffer[:length])
        content = frame[HEADER_BYTES:-TRAILER_BYTES]
        if crc16(content) == int.from_bytes(frame[-TRAILER_BYTES : -len(END)]):
            outcome = _parse(frame, form, mask, slice(mask_end, at[length]))
            if isinstance(outcome, str):
                return Rejected(length, 0, outcome, field=Rejection.LOGIN.value)
            return Decoded(outcome, length)
        used = used or length
    reason = f"wrong CRC of {header.decode()}" if used else f"{header.decode()} without its end"
    kind = Rejection.CRC if used else Rejection.LENGTH
    # Without its end, the length is wrong, and the next frame begins anywhere.
    return Rejected(used or HEADER_BYTES, 0, reason, field=kind.value)


def _has(mask: int, form: Form, field: str) -> bool:
    return bool(mask >> form.bits[field] & 1)


def _lengths(buffer: bytes | bytearray, form: Form, mask_end: int) -> Iterator[tuple[int, int]]:
    """Yield the values of what may be the length, and the offset after each."""
    for offset in form.lengths_at:
        start = mask_end + offset
        end = start + form.length_bytes
        yield int.from_bytes(buffer[start:end]), end


def _parse(frame: bytes, form: Form, mask: int, length_at: slice) -> HexFrame | str:
    """Return a frame whose CRC is right.

    :param length_at: the bytes from the end of the mask to the end of the length.
    :return: the reason in one line if the frame is too short, or has no IMEI where it should.
    """
    at, end = length_at.stop, len(frame) - TRAILER_BYTES
    header = frame[:HEADER_BYTES].decode()
    count = send_time = b""
    if _has(mask, form, "count"):
        end -= _COUNT_BYTES
        count = frame[end : end + _COUNT_BYTES]
    if _has(mask, form, "time"):
        end -= TIME_BYTES
        send_time = frame[end : end + TIME_BYTES]
    unique_id = b""
    has_id = "id" not in form.bits or _has(mask, form, "id")
    if form.id_first and has_id:
        unique_id, at = frame[at : at + ID_BYTES], at + ID_BYTES
    device_type = b""
    if _has(mask, form, "type"):
        size = 3 if frame.startswith(_LONG_TYPE, at) else 1
        device_type, at = frame[at : at + size], at + size
    versions = {"protocol": b"", "firmware": b""}
    for name in versions:
        if _has(mask, form, name):
            versions[name], at = frame[at : at + _VERSION_BYTES], at + _VERSION_BYTES
    if form.kind == "LGN":
        at += _VERSION_BYTES  # of the hardware
    if not form.id_first and has_id:
        unique_id, at = frame[at : at + ID_BYTES], at + ID_BYTES
    if at > end:
        return f"{header} is too short for the fields of its mask"
    is_name = "name" in form.bits and _has(mask, form, "name")
    device_id = "" if is_name or not has_id else read_imei(unique_id)
    if has_id and not is_name and not device_id:
        return f"{header} without an IMEI"
    body = frame[at:end]
    digits = time_digits(send_time) if send_time else ""
    made = HexFrame(
        header=header,
        kind=form.kind,
        number=frame[HEADER_BYTES] if form.type_bytes else 0,
        mask=mask,
        second_mask=frame[length_at.start : length_at.stop - form.length_bytes],
        version=(device_type + versions["protocol"]).hex().upper(),
        firmware=versions["firmware"].hex().upper(),
        device_id=device_id,
        name=read_name(unique_id) if is_name else "",
        body=body,
        send_time=digits if len(digits) == 2 * TIME_BYTES else "",
        count_number=count.hex().upper(),
        content=frame[HEADER_BYTES:-TRAILER_BYTES],
    )
    if form.bits is not _REPORT_BITS or (form is _REPORT and made.number == _COMPRESSED):
        return made
    _, head_end = read_head(body, mask)
    kind = device_type[0] if device_type else 0
    groups = read_groups(body, mask, start=head_end, device_type=kind)
    return made._replace(head_end=head_end, groups=groups)
