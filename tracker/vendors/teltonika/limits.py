"""What a Teltonika connection may cost."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, le


@frozen
class Limits:
    """Limits that are checked before a byte is buffered.

    The vendor documents packets of up to 1,280 bytes; captures hold some larger
    ones, so the default stands well above both.
    """

    frame_bytes: int = field(default=8192, validator=[ge(64), le(1 << 20)])
    """Largest data length of a frame (its codec id to its second count)."""

    @property
    def buffer_bytes(self) -> int:
        """Unread bytes of a connection above which it is not read any further."""
        return 2 * self.frame_bytes
