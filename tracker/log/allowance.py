"""Limits of one read from streams, in entries and in bytes.

Redis can limit a reply only by its number of entries, and one entry may be a thousand times as
long as another. Entries are therefore requested in steps. Each step requests as many entries as
fit into the remaining bytes, by the average length of the entries in the last step. An average
below a sixty-fourth of all bytes is rounded up to it. A read thus exceeds its bytes by less than
one entry if no entry is longer than that, and otherwise by less than :data:`STEPS` entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

#: Minimum number of steps that use up the bytes of one stream, which is also the maximum number
#: of entries in one step. A reply of 64 records of 600 bytes is about as long as one of Twisted's
#: reads from a socket: smaller replies cost more, larger ones hardly less.
STEPS: Final = 64
#: Bytes that each name or value of an entry counts in addition to its length: a Python object
#: and a reference to it. Without them an entry of many empty fields would cost nothing.
OVERHEAD: Final = 48
#: Default limit of one read, and therefore of one batch, in bytes.
READ_BYTES: Final = 16 << 20

Content = Sequence[bytes] | None
"""Alternating names and values of an entry; None if it was deleted."""


class Allowance:
    """The remaining entries and bytes of a read, which may take several calls.

    :param streams: the streams to read. Each gets an equal share of the bytes, so that no stream
        can use up the share of another.
    :param entries: maximum number of entries of each stream.
    :param size: maximum number of bytes of all streams together.
    :param lengths: stream → average bytes of an entry in the last step. It is updated, and should
        be passed to the next allowance.
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
        self._min_length = share / STEPS
        self._entries = dict.fromkeys(names, entries)
        self._bytes = dict.fromkeys(names, share)

    def open(self) -> list[str]:
        """Return the streams from which more entries may be read."""
        left = self._bytes
        return [name for name, count in self._entries.items() if count > 0 and left[name] > 0]

    def step(self, streams: Sequence[str]) -> int:
        """Return the number of entries to request from each of these open streams."""
        counts = [self._entries[stream] for stream in streams]
        for stream in streams:
            expected = max(self._min_length, self._lengths.get(stream, 0.0))
            counts.append(max(1, int(self._bytes[stream] / expected)))
        return min(counts)

    def take(self, stream: str, contents: Sequence[Content]) -> None:
        """Subtract entries that were read."""
        if contents:
            used = size_of(contents)
            self._entries[stream] -= len(contents)
            self._bytes[stream] -= used
            self._lengths[stream] = used / len(contents)


def size_of(contents: Sequence[Content]) -> int:
    """Return the bytes that entries use up of an allowance."""
    parts = list(chain.from_iterable(filter(None, contents)))
    return OVERHEAD * len(parts) + sum(map(len, parts))
