"""Summarise an event on a device's connection in a few words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tracker.admin.output import printable
from tracker.vendors.teltonika.messages import COMMAND, NACK, RESPONSE
from tracker.wording import counted

#: Maximum number of characters of a summary.
MAX_SUMMARY: Final = 200

_MESSAGES: Final = {COMMAND: "command", RESPONSE: "answer", NACK: "refusal"}


def summary(kind: str, decoded: Any) -> tuple[str, str]:
    """Return the kind of a message, and a summary of its content.

    :param kind: of the event, such as ``received``.
    :param decoded: its JSON, as the vendor describes it.
    """
    if not isinstance(decoded, Mapping):
        what, text = kind, _frames(decoded)
    elif kind in ("received", "sent"):
        what, text = _message(kind, decoded)
    else:
        what, text = kind, str(decoded.get("text", ""))
    text = printable(text)
    return what, text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…"


def _message(kind: str, decoded: Mapping[str, Any]) -> tuple[str, str]:
    match decoded:
        case {"login": reply}:
            return "login", str(reply)
        case {"acknowledged": count}:
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
        case {"bad": reason, "offset": offset}:
            return "unreadable", f"offset {offset}: {reason}"
        case {"left_out": reason}:
            return kind, str(reason)
    return kind, json.dumps(decoded, ensure_ascii=False)


def _frames(decoded: Any) -> str:
    """Summarise several frames."""
    if not isinstance(decoded, list):
        return ""
    kinds = [one.get("kind", "?") for one in decoded if isinstance(one, Mapping)]
    return ", ".join(map(str, kinds))


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
