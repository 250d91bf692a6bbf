"""From entries of a stream to rows of the database."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from tracker.interfaces import StoredPosition
from tracker.log.entries import Delivered
from tracker.position import BadEntry, EncodedAttributes, Position, digest
from tracker.storage.rows import encode_json

#: Characters of a codec's name.
MAX_CODEC: Final = 64


def stored_position(entry: Delivered, vendor: str) -> StoredPosition:
    """What is stored of an entry.

    :param entry: one whose content is still there.
    :raises BadEntry: when it is no position.
    """
    fields = entry.fields
    try:
        codec = fields[b"codec"].decode("ascii")
        payload = fields[b"payload"].decode("utf-8")
    except KeyError as error:
        raise BadEntry(f"the field {error.args[0].decode()} is missing") from None
    except UnicodeDecodeError as error:
        raise BadEntry(f"not text: {error}") from None
    if not (0 < len(codec) <= MAX_CODEC and codec.isprintable()):
        raise BadEntry("codec is not a short ASCII text")
    position = Position.from_payload(payload)
    if not isinstance(position.attributes, EncodedAttributes):
        # A batch is bounded by the bytes of its entries; decoded objects would take many times
        # as much memory.
        position = evolve(position, attributes=EncodedAttributes(encode_json(position.attributes)))
    return StoredPosition(position, digest(payload), vendor, codec, entry.appended_at)
