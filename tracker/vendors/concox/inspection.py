"""Concox' tools for people who examine bytes.

A document of a frame has its number, its serial number and its content: in hex, or in parts if the
frame is a login, a command, or begins with a GPS block. Numbers of a GPS block are those of the
wire. ``fields`` and ``crc`` help the reader only, and so do degrees, course and time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected, as_fatal
from tracker.position import iso_milliseconds
from tracker.vendors.concox.commands import MAX_FLAG, command_frame
from tracker.vendors.concox.content import COMMAND, HEARTBEATS, TIME, read_content
from tracker.vendors.concox.description import describe
from tracker.vendors.concox.fields import (
    DATE_BYTES,
    GPS_BYTES,
    IMEI_BYTES,
    POSITIONED,
    Gps,
    milliseconds,
    read_gps,
    read_imei,
    write_gps,
    write_imei,
)
from tracker.vendors.concox.frames import (
    EXTENDED_START,
    SHORT_START,
    Frame,
    decode_frame,
    encode_frame,
)
from tracker.vendors.concox.login import NUMBER as LOGIN
from tracker.vendors.documents import BadDocument, Fields, Node
from tracker.wording import counted

#: Fields that are ignored when a document is encoded.
DERIVED: Final = frozenset(
    {"fields", "crc", "time", "latitude_degrees", "longitude_degrees", "course", "fix"}
)

_STARTS: Final = (SHORT_START, EXTENDED_START)
_NUMBER: Final = "0x[0-9a-fA-F]{2}"
_FLAG: Final = slice(1, 5)
_MAX_U32: Final = (1 << 32) - 1


class ConcoxDecoder:
    """See :class:`tracker.vendors.inspection.Decoder`."""

    kinds = ()

    def recognises(self, data: bytes) -> bool:
        """See Decoder."""
        return data.startswith(_STARTS)

    def names(self, model: str | None) -> None:
        """See Decoder."""

    def decode(
        self, data: bytes, kind: str | None = None, names: None = None
    ) -> Decoded[Any] | Fatal:
        """See Decoder."""
        documents: list[dict[str, Any]] = []
        at = 0
        while at < len(data):
            outcome = decode_frame(data[at:])
            if isinstance(outcome, Incomplete):
                return _truncated(len(data), at, outcome)
            if isinstance(outcome, Rejected):
                return as_fatal(outcome, at)
            end = at + outcome.used
            documents.append(_document(data[at:end], outcome.value))
            at = end
        return Decoded(documents[0] if len(documents) == 1 else documents, at)

    def summarise(self, document: Mapping[str, Any], sent: bool) -> tuple[str, str] | None:
        """See Decoder."""
        match document:
            case {"number": str() as number, "serial": int() as serial}:
                if sent:
                    return _summary_of_sent(document, number, serial)
                return _summary_of_received(document, number)
        return None


class ConcoxEncoder:
    """See :class:`tracker.vendors.inspection.Encoder`."""

    key = "number"

    def encode(self, document: Any) -> bytes:
        """See Encoder."""
        whole = Node("", document, DERIVED)
        nodes = whole.items(1, len(document)) if isinstance(document, list) else [whole]
        return b"".join(map(_encoded, nodes))


def _document(data: bytes, frame: Frame) -> dict[str, Any]:
    number, content, serial, extended = frame
    made: dict[str, Any] = {"number": f"{number:#04x}", "serial": serial}
    if extended:
        made["extended"] = True
    made |= _parts(frame)
    is_server = number == COMMAND or not content
    described = describe(data, is_server)
    known = {*made, *made.get("gps", ())}
    fields = {name: value for name, value in described.items() if name not in known}
    if fields:
        made["fields"] = fields
    return {**made, "crc": f"0x{data[-4:-2].hex()}"}


def _parts(frame: Frame) -> dict[str, Any]:
    """Return the content in parts, if they restore it; else the content."""
    number, content, _, _ = frame
    parts: dict[str, Any] | None = None
    if number == LOGIN and (imei := read_imei(content)) is not None:
        parts = {"imei": imei, "rest": content[IMEI_BYTES:].hex()}
    elif number == COMMAND and content and content[0] >= _FLAG.stop - 1:
        end = content[0] + 1
        command = content[_FLAG.stop : end].decode("ascii", errors="replace")
        flag = int.from_bytes(content[_FLAG], "big")
        parts = {"server_flag": flag, "command": command, "rest": content[end:].hex()}
    elif (reading := read_content(frame)) is not None and reading.gps is not None:
        parts = {"gps": _gps(read_gps(content)), "rest": content[GPS_BYTES:].hex()}
    if parts is not None and _content(number, Node("", parts, DERIVED).object()) == content:
        return parts
    return {"content": content.hex()}


def _gps(gps: Gps) -> dict[str, Any]:
    time, degrees = milliseconds(gps.date), gps.degrees or (None, None)
    return {
        "date": gps.date.hex(),
        "time": None if time is None else iso_milliseconds(time),
        "satellites": gps.satellites,
        "latitude": gps.latitude,
        "latitude_degrees": degrees[0],
        "longitude": gps.longitude,
        "longitude_degrees": degrees[1],
        "speed": gps.speed,
        "flags": gps.flags,
        "course": gps.course,
        "fix": bool(gps.flags & POSITIONED),
    }


def _encoded(node: Node) -> bytes:
    fields = node.object()
    text = fields.take("number").matching(_NUMBER, 'a number such as "0x22"')
    number = int(text, 16)
    serial = fields.take("serial").integer(0, 0xFFFF)
    is_extended = False
    if "extended" in fields:
        flag = fields.take("extended")
        if not isinstance(flag.value, bool):
            raise flag.bad("true or false")
        is_extended = flag.value
    frame = Frame(number, _content(number, fields), serial, is_extended)
    try:
        return encode_frame(frame)
    except ValueError as error:
        raise ValueError(f"{node.path or 'document'}: {error}") from None


def _content(number: int, fields: Fields) -> bytes:
    if "content" in fields:
        content = fields.take("content").hex()
    elif number == LOGIN:
        content = write_imei(fields.take("imei").matching("[0-9]{15}", "15 digits in quotes"))
        content += fields.take("rest", "").hex()
    elif number == COMMAND:
        content = _command(fields) + fields.take("rest", "").hex()
    elif "gps" in fields:
        content = _gps_block(fields.take("gps").object()) + fields.take("rest", "").hex()
    else:
        content = fields.take("content").hex()
    fields.done()
    return content


def _command(fields: Fields) -> bytes:
    flag = fields.take("server_flag").integer(0, MAX_FLAG)
    node = fields.take("command")
    try:
        return command_frame(node.text(), flag).content
    except ValueError as error:
        raise BadDocument(node.path, "a command that fits into a frame", str(error)) from None


def _gps_block(fields: Fields) -> bytes:
    gps = Gps(
        fields.take("date").hex(DATE_BYTES),
        fields.take("satellites").integer(0, 0x0F),
        fields.take("latitude").integer(0, _MAX_U32),
        fields.take("longitude").integer(0, _MAX_U32),
        fields.take("speed").integer(0, 0xFF),
        fields.take("flags").integer(0, 0xFFFF),
    )
    fields.done()
    return write_gps(gps)


def _summary_of_sent(document: Mapping[str, Any], number: str, serial: int) -> tuple[str, str]:
    if "command" in document:
        return "command", f'"{document["command"]}"'
    if "date" in document:
        return "time", str(document["date"])
    return "ack", f"{number}, serial {serial}"


def _summary_of_received(document: Mapping[str, Any], number: str) -> tuple[str, str]:
    match document:
        case {"imei": imei}:
            return "login", str(imei)
        case {"latitude": latitude, "longitude": longitude, "date": date}:
            facts = [number, str(date)]
            if latitude is not None:
                facts.append(f"{latitude},{longitude}")
            facts.append(f"{document.get('speed')} km/h")
            return "position", ", ".join(facts)
        case {"text": text}:
            return "text", f'{number}, "{text}"'
    if number in _HEARTBEATS:
        return "heartbeat", ""
    return ("time", "") if number == _TIME else ("message", number)


_HEARTBEATS: Final = frozenset(f"{number:#04x}" for number in HEARTBEATS)
_TIME: Final = f"{TIME:#04x}"


def _truncated(size: int, at: int, outcome: Incomplete) -> Fatal:
    left = size - at
    return Fatal(
        at,
        "the frame is truncated",
        field="frame",
        expected=f"{counted(left + outcome.missing, 'byte')} or more",
        found=f"{counted(left, 'byte')} up to the end",
    )
