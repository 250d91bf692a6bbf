"""Conversions of positions to rows, shared by all sinks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from json import JSONEncoder
from typing import Any, Final, NamedTuple

from tracker.position import MESSAGE, EncodedAttributes

#: Name of the attribute with the type of a message.
_MESSAGE_TYPE: Final = "message_type"
#: Name of the attribute with the name of a message, from vendors that have no types.
_MESSAGE_NAME: Final = "report"
#: Maximum number of rows in a piece, and number of characters after which a piece is complete.
_PIECE_ROWS: Final = 100
_PIECE_LENGTH: Final = 1 << 18
_INT32: Final = range(-(2**31), 2**31)

#: One encoder for all calls; ``json.dumps`` would create one for each call.
_encode: Final = JSONEncoder(separators=(",", ":")).encode


def encode_json(value: Mapping[str, Any]) -> str:
    """Return compact JSON, as in payloads."""
    return value.text if isinstance(value, EncodedAttributes) else _encode(value)


def pieces(rows: Iterable[str]) -> Iterator[str]:
    """Join rows to pieces of limited length, since a whole batch would take much memory."""
    piece: list[str] = []
    length = 0
    for row in rows:
        piece.append(row)
        length += len(row)
        if len(piece) == _PIECE_ROWS or length >= _PIECE_LENGTH:
            yield "".join(piece)
            piece.clear()
            length = 0
    if piece:
        yield "".join(piece)


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as a dict, for use in a larger JSON document."""
    return value.decode() if isinstance(value, EncodedAttributes) else dict(value)


class MessageColumns(NamedTuple):
    """The columns that only messages have; None for an attribute that is missing or not valid."""

    type: int | None
    name: str | None
    message: str | None


def message_columns(attributes: Mapping[str, Any]) -> MessageColumns:
    """Return the columns of a message.

    The content of a message may be bytes, which are stored in the attributes only.
    """
    attributes = plain(attributes)
    type_, name, text = map(attributes.get, (_MESSAGE_TYPE, _MESSAGE_NAME, MESSAGE))
    return MessageColumns(
        type_ if isinstance(type_, int) and type_ is not True and type_ in _INT32 else None,
        name if isinstance(name, str) else None,
        text if isinstance(text, str) else None,
    )
