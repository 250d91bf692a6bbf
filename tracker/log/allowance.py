"""Bounds of one read from streams, in entries and in bytes.

A reply of Redis is bounded by its number of entries only, and one entry may be a thousand times as
long as another. So entries are requested in steps. Each step asks for as many entries as fit
into the remaining bytes, by the average length of the entries in the last step; a length below
a sixty-fourth of the whole counts as that. Therefore a read exceeds its bytes by less than one
entry if no entry is longer than that, and by less than :data:`STEPS` entries otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

#: Minimal number of steps in which the bytes of one stream are used up, and so the maximal number
#: of entries in a step. A reply of 64 records of 600 bytes is about as long as one of Twisted's
#: reads from a socket: smaller replies cost more, larger ones hardly less.
STEPS: Final = 64
#: Bytes that are counted for each name or value of an entry in addition to its own: an object
#: and a reference to it in Python. Without them an entry of many empty fields would cost
#: nothing.
OVERHEAD: Final = 48
#: Bytes of one read, and so of one batch, unless a reader has an option for it.
READ_BYTES: Final = 16 << 20

Content = Sequence[bytes] | None
"""Names and values of an entry in turn; None when it was deleted."""


class Allowance:
    """The remaining entries and bytes of a read, which may take several calls.

    :param streams: the streams to be read. The bytes are divided equally, so that no stream can
        use up the share of another one.
    :param entries: entries of each stream.
    :param size: bytes of all streams together.
    :param lengths: stream → average bytes of an entry in the last step. It is updated, and meant
        to be passed to the next allowance.
    """

    def __init__(
        self,
        streams: Iterable[str],
        entries: int,
        size: int = READ_BYTES,
        lengths: dict[str, float] | None = None,
    ) -> None:
        names = list(streams)
        self._lengths = {} if lengths is None else lengths
        share = size / len(names)
        self._least = share / STEPS
        self._entries = dict.fromkeys(names, entries)
        self._bytes = dict.fromkeys(names, share)

    def open(self) -> list[str]:
        """Return the streams of which more entries may be read."""
        left = self._bytes
        return [name for name, count in self._entries.items() if count > 0 and left[name] > 0]

    def step(self, streams: Sequence[str]) -> int:
        """Return how many entries of each of these open streams may be requested at once."""
        counts = [self._entries[stream] for stream in streams]
        for stream in streams:
            expected = max(self._least, self._lengths.get(stream, 0.0))
            counts.append(max(1, int(self._bytes[stream] / expected)))
        return min(counts)

    def take(self, stream: str, contents: Sequence[Content]) -> None:
        """Count entries that were read."""
        if contents:
            used = size_of(contents)
            self._entries[stream] -= len(contents)
            self._bytes[stream] -= used
            self._lengths[stream] = used / len(contents)


def size_of(contents: Sequence[Content]) -> int:
    """Return the bytes that entries take, as they are counted against an allowance."""
    parts = list(chain.from_iterable(filter(None, contents)))
    return OVERHEAD * len(parts) + sum(map(len, parts))
