"""Entries of a stream, and the order of their IDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.redis.replies import mapping

#: ID that is smaller than the ID of any entry.
BEGINNING: Final = "0-0"
#: Largest possible ID: no entry can be appended after it.
LAST_ID: Final = "18446744073709551615-18446744073709551615"


@frozen
class StreamEntry:
    """An entry of a stream, as it was read."""

    stream: str
    id: str
    content: Sequence[bytes] | None
    """Alternating names and values; None if the entry was deleted after its delivery."""

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """Name → value; if a name is repeated, its last value counts."""
        return mapping(self.content or ())

    @property
    def appended_at(self) -> str:
        """Time of the append, from the entry's ID; ISO 8601 UTC."""
        # A client may choose any ID when it appends, also one that is not a valid time.
        return iso_milliseconds(min(int(self.id.partition("-")[0]), MAX_TIMESTAMP_MS))


def entry_order(entry_id: str) -> tuple[int, int]:
    """Return the sort key of an entry's ID within its stream.

    :raises ValueError: if the text is not an ID.
    """
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def exclusive_start(entry_id: str) -> str | None:
    """Return the start of a range that excludes an entry; None if it is the last possible ID.

    Redis refuses a range that starts after :data:`LAST_ID`.
    """
    return None if entry_id == LAST_ID else f"({entry_id}"
