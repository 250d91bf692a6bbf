"""Descriptions of a device's traffic, for ``tracker-admin watch`` and the console."""

from __future__ import annotations

from typing import Any

from tracker.outcomes import Fatal
from tracker.vendors.teltonika.document import document
from tracker.vendors.teltonika.frames import decode_frames
from tracker.vendors.teltonika.login import ACCEPT, REFUSE

_ACK_BYTES = 4
_LOGIN_ANSWERS = {ACCEPT: "accepted", REFUSE: "refused"}


def describe(data: bytes, sent: bool) -> dict[str, Any]:
    """Return the content of one piece of traffic, in the form of ``tracker-admin decode``.

    :param sent: True if the server sent it: the reply to a login, an ACK, or a command.
    """
    if sent and data in _LOGIN_ANSWERS:
        return {"login": _LOGIN_ANSWERS[data]}
    if sent and len(data) == _ACK_BYTES:
        return {"acknowledged": int.from_bytes(data, "big")}
    outcome = decode_frames(data)
    if isinstance(outcome, Fatal):
        return {"bad": outcome.reason, "offset": outcome.offset}
    described: dict[str, Any] = document(outcome.value)
    return described
