"""Memory for what an instance keeps although its connection may close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Part of the limit that unread frames may use if their connections have sent no positions.
MESSAGES_SHARE: Final = 1 / 16


class KeptMemory:
    """Budget of an instance, in bytes, for what its devices never send again.

    There are two parts. *Entries* were handed to the log, and are not confirmed yet. While they use
    up the limit, no connection handles a further frame with such entries; a connection is then read
    up to its buffer limit, and nothing is dropped. Therefore entries exceed the limit by one frame
    at most. *Unread* frames are those of connections that have ended. They may use as much again,
    and messages a smaller part of that. What exceeds it is lost, and counted. That takes many
    connections that have sent positions before, and end while they are held.

    :param limit: bytes of each part.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.entries = 0
        self.unread = 0
        # A dict for its order and for removal anywhere in it at no cost.
        self._waiting: dict[Callable[[], None], None] = {}
        self._resumes = False

    @property
    def used_up(self) -> bool:
        """True if no frame with further entries may be handled."""
        return self.entries >= self.limit

    def begin(self, size: int) -> None:
        """Count entries that were handed to the log."""
        self.entries += size

    def end(self, size: int) -> None:
        """Count entries that the log has confirmed, or that were given up; resume who waits."""
        self.entries -= size
        if self._waiting and not self._resumes:
            self._resume()

    def has_room(self, size: int, *, positions: bool) -> bool:
        """Return True if unread frames of an ended connection may be kept.

        :param positions: True if the connection has sent positions.
        """
        share = 1 if positions else MESSAGES_SHARE
        return self.unread + size <= self.limit * share

    def when_free(self, resume: Callable[[], None]) -> None:
        """Call a function once, as soon as the limit is not used up; the first come first."""
        self._waiting[resume] = None

    def forget(self, resume: Callable[[], None]) -> None:
        """Do not call a function that was given to :meth:`when_free`."""
        self._waiting.pop(resume, None)

    def _resume(self) -> None:
        self._resumes = True
        try:
            while self._waiting and not self.used_up:
                resume = next(iter(self._waiting))
                del self._waiting[resume]
                resume()
        finally:
            self._resumes = False
