"""The boundaries of frames of both encodings, which may follow each other on a connection.

Both begin with ``+``. Bytes that begin no frame are skipped, up to the next ones that do.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tracker.interfaces import Rejection
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.queclink.hexframes import HEX_STARTS, HexFrame
from tracker.vendors.queclink.hexframes import decode_frame as decode_hex
from tracker.vendors.queclink.text import BLANK, STARTS, TextFrame, decode_text
from tracker.wording import counted

_ALL_STARTS: Final = (*STARTS, *HEX_STARTS)
_LONGEST_START: Final = max(map(len, _ALL_STARTS))
#: All starts have this byte, which is searched for in the fastest way.
_PLUS: Final = b"+"
_START: Final = re.compile(
    re.escape(_PLUS)
    + b"(?:%s)" % b"|".join(re.escape(start.removeprefix(_PLUS)) for start in _ALL_STARTS)
)
#: The first byte that is not blank; searched for, because stripping would copy the whole buffer.
_TEXT: Final = re.compile(b"[^%s]" % re.escape(BLANK))


class Blank(NamedTuple):
    """Bytes between frames."""

    size: int


DeviceFrame = TextFrame | HexFrame
Frame = DeviceFrame | Blank


def decode_frame(
    buffer: bytes | bytearray, limit: int
) -> Decoded[Frame] | Incomplete | Rejected | Fatal:
    """Decode the frame at the start of ``buffer``.

    :param limit: maximum number of bytes of a frame.
    :return: ``Rejected`` for bytes that begin no frame; ``Fatal`` if the limit is reached before
        one begins or ends.
    """
    if buffer[0] in BLANK:
        found = _TEXT.search(buffer)
        count = len(buffer) if found is None else found.start()
        return Decoded(Blank(count), count)
    if buffer.startswith(STARTS):
        return decode_text(buffer, limit)
    head = bytes(buffer[:_LONGEST_START])
    if any(start.startswith(head) for start in _ALL_STARTS):
        return Incomplete(1)  # +ACK begins an ASCII frame as well as a HEX frame
    if head.startswith(HEX_STARTS):
        return decode_hex(buffer, limit)
    return _skip(buffer, limit)


def _skip(buffer: bytes | bytearray, limit: int) -> Incomplete | Rejected | Fatal:
    reason, kind = "bytes that begin no frame", Rejection.PREAMBLE.value
    found = _START.search(buffer, 1, limit + _LONGEST_START)
    if found is not None:
        return Rejected(found.start(), 0, reason, field=kind)
    end = buffer.rfind(b"$", 0, limit)
    if end >= 0:
        return Rejected(end + 1, 0, reason, field=kind)
    if len(buffer) >= limit:
        return Fatal(0, f"no frame begins within {counted(limit, 'byte')}", field=kind)
    return Incomplete(1)


def count_starts(data: bytes | bytearray) -> int:
    """Return an estimate of the number of frames in ``data``, without decoding."""
    return len(_START.findall(data))
