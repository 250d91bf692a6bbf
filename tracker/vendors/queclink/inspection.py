"""Queclink's tools for people who examine bytes.

A document of a frame has its fields as they are on the wire; a frame in the HEX encoding has its
bytes instead. The other fields of a document, such as ``records``, help the reader only. Line ends
between frames are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected, as_fatal
from tracker.vendors.documents import BadDocument, Node
from tracker.vendors.queclink.description import describe
from tracker.vendors.queclink.framing import Blank, decode_frame
from tracker.vendors.queclink.text import ACKNOWLEDGEMENT, BUFFERED, RESPONSE, TextFrame
from tracker.wording import counted

#: Fields that are ignored when a document is encoded.
DERIVED: Final = frozenset({"device_id", "heartbeat", "records"})

_MAX_BYTES: Final = 1 << 20
_MAX_FIELDS: Final = 1 << 12
_HEX_HEADER_BYTES: Final = 4
_NUL: Final = "\0"
#: What the server sends: acknowledgements and commands.
_SERVER: Final = re.compile(rb"(\+SACK):([^$]{0,100})\$|(AT\+)(GT[A-Z0-9]{3})=([^$]{0,8192})\$")
_STARTS: Final = (b"+", b"AT+GT")
_NAME: Final = r"GT[A-Z0-9]{3}"
#: Header → form of the frame.
_FORMS: Final = {
    **dict.fromkeys((RESPONSE, BUFFERED, ACKNOWLEDGEMENT), "{header}:{report},{fields}"),
    "+SACK": "{header}:{fields}",
    "AT+": "{header}{report}={fields}",
}


class QueclinkDecoder:
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
            if (found := _SERVER.match(data, at)) is not None:
                documents.append(_of_server(found))
                at = found.end()
                continue
            outcome = decode_frame(data[at:], _MAX_BYTES)
            if isinstance(outcome, Incomplete):
                return _truncated(data, at)
            if isinstance(outcome, Rejected | Fatal):
                return as_fatal(outcome, at)
            frame = data[at : at + outcome.used]
            if not isinstance(outcome.value, Blank):
                documents.append(_document(frame, outcome.value))
            at += outcome.used
        return Decoded(documents[0] if len(documents) == 1 else documents, at)

    def summarise(self, document: Mapping[str, Any], sent: bool) -> tuple[str, str] | None:
        """See Decoder."""
        match document:
            case {"acknowledged": str() as count}:
                return "ack", f"count {count}"
            case {"command": str() as text} if len(document) == 1:
                return "command", text
            case {"blank": int() as size}:
                return "blank", counted(size, "byte")
            case {"device_id": _, "heartbeat": True}:
                return "heartbeat", ""
            case {"device_id": _, "records": [*records]}:
                what = "answer" if document.get("header") == ACKNOWLEDGEMENT else "report"
                facts = [document.get("report"), *_facts(records)]
                return what, ", ".join(str(fact) for fact in facts if fact)
        return None


class QueclinkEncoder:
    """See :class:`tracker.vendors.inspection.Encoder`."""

    key = "header"

    def encode(self, document: Any) -> bytes:
        """See Encoder."""
        whole = Node("", document, DERIVED)
        nodes = whole.items(1, len(document)) if isinstance(document, list) else [whole]
        return b"".join(map(_encoded, nodes))


def _document(frame: bytes, decoded: Any) -> dict[str, Any]:
    described = describe(frame, sent=False)
    if not isinstance(decoded, TextFrame):
        header = frame[:_HEX_HEADER_BYTES].decode("ascii", errors="backslashreplace")
        return {"header": header, "bytes": frame.hex(), **described}
    made: dict[str, Any] = {"header": decoded.header, "report": decoded.report}
    # The description adds the records to the same fields.
    made |= described
    made["fields"] = decoded.text.split(",")[1:]
    if frame.endswith(_NUL.encode()):
        made["end"] = _NUL
    return made


def _of_server(found: re.Match[bytes]) -> dict[str, Any]:
    header, fields, command, name, parameters = (
        None if part is None else part.decode("utf-8", errors="backslashreplace")
        for part in found.groups()
    )
    if fields is not None:
        return {"header": header, "fields": fields.split(",")}
    assert parameters is not None  # noqa: S101 - the other branch of the pattern
    return {"header": command, "report": name, "fields": parameters.split(",")}


def _encoded(node: Node) -> bytes:
    fields = node.object()
    if "bytes" in fields:
        fields.take("header")
        fields.take("report", "")  # of this encoding, it only helps the reader
        encoded = fields.take("bytes").hex()
        fields.done()
        return encoded
    form = fields.choice("header", _FORMS)
    report = ""
    if "{report}" in form:
        report = fields.take("report").matching(_NAME, "a name such as GTFRI in quotes")
    values = []
    for one in fields.take("fields").items(1, _MAX_FIELDS):
        value = one.text().decode()
        if set(value) & set(f",${_NUL}"):
            raise BadDocument(one.path, "a text without comma, $ and NUL", ascii(value[:60]))
        values.append(value)
    end = fields.take("end", "$").matching(rf"[${_NUL}]", r'"$" or "\u0000"')
    fields.done()
    text = form.format(header=node.value["header"], report=report, fields=",".join(values))
    return f"{text}{end}".encode()


def _facts(records: list[Any]) -> list[Any]:
    """Return number, time, coordinates and speed of the records; the last three of the last."""
    if not records or not isinstance(records[-1], Mapping):
        return []
    last = records[-1]
    facts = [counted(len(records), "record"), last.get("timestamp")]
    if last.get("latitude") is not None:
        facts.append(f"{last['latitude']},{last.get('longitude')}")
        if last.get("speed") is not None:
            facts.append(f"{last['speed']} km/h")
    return facts


def _truncated(data: bytes, at: int) -> Fatal:
    return Fatal(
        at,
        "the frame is truncated",
        field="frame",
        expected="$" if data[at : at + 1] in (b"+", b"A") else "+",
        found=f"{counted(len(data) - at, 'byte')} up to the end",
    )
