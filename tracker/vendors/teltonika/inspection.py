"""Teltonika's tools for people who examine bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from tracker.interfaces import UnknownModel
from tracker.outcomes import Decoded, Fatal
from tracker.vendors.teltonika.document import document
from tracker.vendors.teltonika.frames import Kind, decode_frames, encode_any_frame, recognises
from tracker.vendors.teltonika.messages import COMMAND, NACK, RESPONSE
from tracker.vendors.teltonika.naming import Names, Naming, NoList
from tracker.vendors.teltonika.parsing import parse
from tracker.wording import counted

_MESSAGES: Final = {COMMAND: "command", RESPONSE: "answer", NACK: "refusal"}


class TeltonikaDecoder:
    """See :class:`tracker.vendors.inspection.Decoder`."""

    kinds = ("login", "frame", "datagram")

    def recognises(self, data: bytes) -> bool:
        """See Decoder."""
        return recognises(data)

    def names(self, model: str | None) -> Names:
        """See Decoder."""
        try:
            return Naming({}, model).names(None)
        except NoList as error:
            raise UnknownModel(str(error)) from None

    def decode(
        self, data: bytes, kind: str | None = None, names: Names | None = None
    ) -> Decoded[Any] | Fatal:
        """See Decoder."""
        outcome = decode_frames(data, cast("Kind | None", kind))
        if isinstance(outcome, Fatal):
            return outcome
        return Decoded(document(outcome.value, names), outcome.used)

    def summarise(self, document: Mapping[str, Any], sent: bool) -> tuple[str, str] | None:
        """See Decoder."""
        match document:
            case {"login": reply}:
                return "login", str(reply)
            case {"acknowledged": int() as count} if len(document) == 1:
                return "ack", _count(count)
            case {"kind": "login", "imei": imei}:
                return "login", str(imei)
            case {"kind": "ping", "count": count}:
                return "ping", counted(count, "byte") if count != 1 else ""
            case {"codec": codec, "records": [*records]}:
                return "records", f"codec {codec}, {_count(len(records))}{_last(records)}"
            case {"codec": codec, "type": int() as type_, "text": text}:
                return _MESSAGES.get(type_, "message"), f'codec {codec}, "{text}"'
            case {"codec": codec, "type": int() as type_, "hex": digits}:
                return _MESSAGES.get(type_, "message"), f"codec {codec}, {digits}"
        return None


class TeltonikaEncoder:
    """See :class:`tracker.vendors.inspection.Encoder`."""

    key = "kind"

    def encode(self, document: Any) -> bytes:
        """See Encoder."""
        return b"".join(map(encode_any_frame, parse(document)))


def _last(records: list[Any]) -> str:
    """Return time, coordinates and speed of the newest record."""
    if not records or not isinstance(records[-1], Mapping):
        return ""
    record = records[-1]
    facts = [record.get("time")]
    if "latitude_degrees" in record and "longitude_degrees" in record:
        facts.append(f"{record['latitude_degrees']},{record['longitude_degrees']}")
    if "speed" in record:
        facts.append(f"{record['speed']} km/h")
    return "".join(f", {fact}" for fact in facts if fact)


def _count(count: Any) -> str:
    return counted(count, "record")
