"""Going through a stream page by page, whatever IDs its entries have."""

from __future__ import annotations

from typing import Final

#: The largest ID there can be: nothing can be appended behind such an entry.
LAST_ID: Final = "18446744073709551615-18446744073709551615"


def behind(entry_id: str) -> str | None:
    """Return the start of an XRANGE that begins behind an entry; None if there can be nothing.

    Redis refuses a range that begins behind :data:`LAST_ID`.
    """
    return None if entry_id == LAST_ID else f"({entry_id}"
