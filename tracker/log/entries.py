"""Entries of a stream, and the order of their IDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.redis.replies import mapping

#: An ID that is smaller than that of any entry.
BEGINNING: Final = "0-0"
#: The largest possible ID: nothing can be appended after such an entry.
LAST_ID: Final = "18446744073709551615-18446744073709551615"


@frozen
class Delivered:
    """An entry as it was read."""

    stream: str
    id: str
    content: Sequence[bytes] | None
    """Names and values in turn; None if the entry was deleted after it was delivered."""

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """Name → value; the last one where a name occurs twice."""
        return mapping(self.content or ())

    @property
    def appended_at(self) -> str:
        """Time at which it was appended, by its ID; ISO 8601 UTC."""
        # The client that appends may choose any ID, and so one that is not a time.
        return iso_milliseconds(min(int(self.id.partition("-")[0]), MAX_TIMESTAMP_MS))


def entry_order(entry_id: str) -> tuple[int, int]:
    """Return the sort key of an entry's ID within its stream.

    :raises ValueError: if it is not an ID.
    """
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def behind(entry_id: str) -> str | None:
    """Return the start of a range that begins after an entry; None after the last possible ID.

    Redis refuses a range that begins after :data:`LAST_ID`.
    """
    return None if entry_id == LAST_ID else f"({entry_id}"
