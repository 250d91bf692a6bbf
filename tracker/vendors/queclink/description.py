"""Descriptions of a device's traffic, for ``tracker-admin watch`` and the console."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.position import Entry
from tracker.untrusted import parse_json
from tracker.vendors.queclink.framing import Blank, decode_frame
from tracker.vendors.queclink.reader import EntryReader

_SACK: Final = re.compile(rb"\+SACK:(?:GTHBD,[0-9A-Fa-f]*,)?([0-9A-Fa-f]{4})\$")
_MAX_BYTES: Final = 1 << 20
_MAX_JSON: Final = 4 << 20


def describe(data: bytes, sent: bool) -> dict[str, Any]:
    """Return the content of one piece of traffic.

    :param sent: True if the server sent it: an acknowledgement, or a command.
    """
    if sent:
        found = _SACK.fullmatch(data)
        if found is not None:
            return {"acknowledged": found[1].decode("ascii")}
        return {"command": data.decode("utf-8", errors="backslashreplace")}
    outcome = decode_frame(data, _MAX_BYTES) if data else None
    if not isinstance(outcome, Decoded):
        reason = getattr(outcome, "reason", "incomplete frame")
        return {"bad": reason, "offset": getattr(outcome, "offset", len(data))}
    frame = outcome.value
    if isinstance(frame, Blank):
        return {"blank": frame.size}
    if frame.is_heartbeat:
        return {"device_id": frame.device_id, "heartbeat": True}
    described = {
        "device_id": frame.device_id,
        "header": frame.header,
        "report": frame.report,
    }
    reader = EntryReader(Limits(), 0, lambda: None)
    return {**described, "records": _records(reader.read(frame, frame.device_id, 0.0).entries)}


def _records(entries: Sequence[Entry]) -> list[Any]:
    return [parse_json(entry.payload, _MAX_JSON) for entry in entries]
