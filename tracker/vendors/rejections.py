"""The kind of a mistake that a decoder has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracker.interfaces import Rejection

#: Wrong field, as decoders name it; all others are of the content.
_KINDS: Final[Mapping[str, Rejection]] = {
    kind.value: kind
    for kind in (
        Rejection.LOGIN,
        Rejection.PREAMBLE,
        Rejection.LENGTH,
        Rejection.CRC,
        Rejection.CODEC,
    )
}


def rejection(field: str) -> Rejection:
    """Return the kind of a mistake in this field of a frame or datagram."""
    return _KINDS.get(field, Rejection.CONTENT)
