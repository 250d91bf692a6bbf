"""What one piece of a device's traffic says, for those who watch it."""

from __future__ import annotations

from typing import Any

from tracker.outcomes import Fatal
from tracker.vendors.teltonika.document import document
from tracker.vendors.teltonika.login import ACCEPT, REFUSE
from tracker.vendors.teltonika.units import decode_units

_ACKNOWLEDGEMENT = 4
_LOGIN_ANSWERS = {ACCEPT: "accepted", REFUSE: "refused"}


def describe(data: bytes, sent: bool) -> dict[str, Any]:
    """What it says, as ``tracker-admin decode`` shows it.

    :param sent: whether it went to the device: then it is the answer to a login, an
        acknowledgement, or a command.
    """
    if sent and data in _LOGIN_ANSWERS:
        return {"login": _LOGIN_ANSWERS[data]}
    if sent and len(data) == _ACKNOWLEDGEMENT:
        return {"acknowledged": int.from_bytes(data, "big")}
    outcome = decode_units(data)
    if isinstance(outcome, Fatal):
        return {"bad": outcome.reason, "offset": outcome.offset}
    described: dict[str, Any] = document(outcome.value)
    return described
