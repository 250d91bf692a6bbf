"""Read a stream page by page, whatever IDs its entries have."""

from __future__ import annotations

from typing import Final

#: The largest possible ID: nothing can be appended after such an entry.
LAST_ID: Final = "18446744073709551615-18446744073709551615"


def behind(entry_id: str) -> str | None:
    """Return the start of an XRANGE that begins after an entry; None after the last possible ID.

    Redis refuses a range that begins after :data:`LAST_ID`.
    """
    return None if entry_id == LAST_ID else f"({entry_id}"
