"""Summarise an event on a device's connection in a few words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tracker.admin.output import printable
from tracker.vendors.inspection import Decoder

#: Maximum number of characters of a summary.
MAX_SUMMARY: Final = 200


class Summaries:
    """Summaries of events, in the words of the vendors.

    :param decoders: those of the installed vendors. An event does not say whose it is.
    """

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self._decoders = decoders

    def summary(self, kind: str, decoded: Any) -> tuple[str, str]:
        """Return the kind of a message, and a summary of its content.

        :param kind: of the event, such as ``received``.
        :param decoded: its JSON, as the vendor describes it.
        """
        if not isinstance(decoded, Mapping):
            what, text = kind, self._frames(kind, decoded)
        elif kind in ("received", "sent"):
            what, text = self._message(kind, decoded)
        else:
            what, text = kind, str(decoded.get("text", ""))
        text = printable(text)
        return what, text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…"

    def _message(self, kind: str, decoded: Mapping[str, Any]) -> tuple[str, str]:
        match decoded:
            case {"bad": reason, "offset": offset}:
                return "unreadable", f"offset {offset}: {reason}"
            case {"left_out": reason}:
                return kind, str(reason)
        for decoder in self._decoders:
            if (found := decoder.summarise(decoded, kind == "sent")) is not None:
                return found
        return kind, json.dumps(decoded, ensure_ascii=False)

    def _frames(self, kind: str, decoded: Any) -> str:
        """Summarise several frames."""
        if not isinstance(decoded, list):
            return ""
        return ", ".join(self._message(kind, one)[0] for one in decoded if isinstance(one, Mapping))
