"""Read batches from the streams: the next one while the last one is stored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred

from tracker.errors import Refused, Unavailable
from tracker.log.allowance import Allowance
from tracker.log.interfaces import IRecordReader
from tracker.processing.taking import Taken, Taker
from tracker.runtime.waits import Stopped, Waits

#: Seconds that a read waits for an entry.
READ_WAIT: Final = 5.0


@frozen
class _Read:
    """A batch that is being read."""

    allowance: Allowance
    came: Taken
    """Entries that have come so far; none of them is stored."""
    taken: Deferred[Taken]
    """Fires with that when the read is complete."""


class BatchReader:
    """Reads the batches of one consumer.

    :param reader: the consumer's membership in the group.
    :param taker: makes rows of entries.
    :param size: entries of each stream in a full batch.
    :param delay: seconds that a batch waits for more entries if there are fewer.
    """

    def __init__(
        self, *, waits: Waits, reader: IRecordReader, taker: Taker, size: int, delay: float
    ) -> None:
        self._waits = waits
        self._reader = reader
        self._taker = taker
        self._size = size
        self._delay = delay
        self._ahead: _Read | None = None

    @property
    def ahead(self) -> Taken:
        """The batch that was read and not returned yet."""
        return Taken() if self._ahead is None else self._ahead.came

    async def next(self, streams: Sequence[str]) -> Taken:
        """Return a full batch, or what arrives within the delay; start to read the next one.

        The batch is empty if no entry came for :data:`READ_WAIT`.

        :raises Stopped: the entries of a batch that is not full stay pending, and are read first
            after the next start.
        """
        idle = self._ahead is None
        ahead, self._ahead = self._ahead or self._start(streams), None
        taken = await self._waits.result(ahead.taken)
        if 0 < taken.count < self._size:
            # If it was under way while the last batch was committed, that was delay enough.
            if idle:
                await self._waits.sleep(self._delay)
            if self._waits.stopped:
                raise Stopped
            if ahead.allowance.open():
                self._taker.take(await self._reader.read(ahead.allowance), taken)
        if taken.count:
            self._ahead = self._start(streams)
        return taken

    def _start(self, streams: Sequence[str]) -> _Read:
        allowance = self._reader.allowance(streams)
        read = Deferred.fromCoroutine(self._reader.read(allowance, READ_WAIT))
        came = Taken()
        return _Read(allowance, came, read.addCallback(self._taker.take, came))

    async def discard(self) -> None:
        """Wait for the end of a read that is under way; its entries are pending then."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            with suppress(Refused, Unavailable):
                await self._waits.result(ahead.taken)

    def cancel(self) -> None:
        """End a read that is under way; its entries are pending then."""
        if self._ahead is not None:
            self._ahead.taken.addErrback(lambda _: None).cancel()
