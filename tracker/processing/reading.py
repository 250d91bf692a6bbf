"""Reads of batches from the streams, one batch ahead of the sink."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred

from tracker.errors import Refused, Unavailable
from tracker.log.allowance import Allowance
from tracker.log.interfaces import IRecordReader
from tracker.processing.decoding import DecodedEntries, EntryDecoder
from tracker.runtime.waits import Stopped, Waits

#: Maximum seconds that a read waits for an entry.
READ_WAIT: Final = 5.0


@frozen
class _Read:
    """A read that is under way or complete."""

    allowance: Allowance
    decoded: DecodedEntries
    """Entries read so far; none of them is stored."""
    complete: Deferred[DecodedEntries]
    """Fires with them when the read is complete."""


class BatchReader:
    """Reader of one consumer's batches.

    :param reader: the consumer's membership in the group.
    :param decoder: decodes entries to rows.
    :param size: number of entries of each stream in a full batch.
    :param delay: seconds that a batch waits for more entries if it is not full.
    """

    def __init__(
        self, *, waits: Waits, reader: IRecordReader, decoder: EntryDecoder, size: int, delay: float
    ) -> None:
        self._waits = waits
        self._reader = reader
        self._decoder = decoder
        self._size = size
        self._delay = delay
        self._ahead: _Read | None = None

    @property
    def ahead(self) -> DecodedEntries:
        """Entries read ahead, which were not returned yet."""
        return DecodedEntries() if self._ahead is None else self._ahead.decoded

    async def next(self, streams: Sequence[str]) -> DecodedEntries:
        """Return a full batch, or the entries that arrive within the delay, and read ahead.

        The batch is empty if no entry arrived within :data:`READ_WAIT`.

        :raises Stopped: if the batch is not full. Its entries stay pending, and are read first
            after the next start.
        """
        idle = self._ahead is None
        ahead, self._ahead = self._ahead or self._start(streams), None
        decoded = await self._waits.result(ahead.complete)
        if 0 < decoded.count < self._size:
            # A read during the last commit was already delayed enough.
            if idle:
                await self._waits.sleep(self._delay)
            if self._waits.stopped:
                raise Stopped
            if ahead.allowance.open():
                self._decoder.decode(await self._reader.read(ahead.allowance), decoded)
        if decoded.count:
            self._ahead = self._start(streams)
        return decoded

    def _start(self, streams: Sequence[str]) -> _Read:
        allowance = self._reader.allowance(streams)
        read = Deferred.fromCoroutine(self._reader.read(allowance, READ_WAIT))
        decoded = DecodedEntries()
        return _Read(allowance, decoded, read.addCallback(self._decoder.decode, decoded))

    async def discard(self) -> None:
        """Wait for the end of a read under way, and leave its entries pending."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            with suppress(Refused, Unavailable):
                await self._waits.result(ahead.complete)

    def cancel(self) -> None:
        """Cancel a read under way, and leave its entries pending."""
        if self._ahead is not None:
            self._ahead.complete.addErrback(lambda _: None).cancel()
