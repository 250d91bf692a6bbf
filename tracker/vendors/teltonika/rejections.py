"""What kind of a mistake it is that a decoder has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracker.interfaces import Rejection

#: Field that makes no sense, as decoders name it; all others are of the content.
_KINDS: Final[Mapping[str, Rejection]] = {
    kind.value: kind
    for kind in (Rejection.PREAMBLE, Rejection.LENGTH, Rejection.CRC, Rejection.CODEC)
}


def rejection(field: str) -> Rejection:
    """The kind of a mistake in this field of a frame or datagram."""
    return _KINDS.get(field, Rejection.CONTENT)
