"""The kind of a protocol error that a decoder has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracker.interfaces import Rejection

#: Name of the invalid field, as decoders give it → kind. All other fields are content.
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
    """Return the kind of an error in this field of a frame or datagram.

    :param field: ``field`` of :class:`~tracker.outcomes.Rejected` or
        :class:`~tracker.outcomes.Fatal`.
    """
    return _KINDS.get(field, Rejection.CONTENT)
