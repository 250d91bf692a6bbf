"""Join the consumer group of each stream, and leave out keys that are not streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused
from tracker.keys import PROCESSOR_GROUP
from tracker.log.entries import BEGINNING, entry_order
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition
from tracker.processing.storing import Storing
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import listed

#: Seconds between two looks at keys that are left out.
CHECK_INTERVAL: Final = 10.0


class Joining:
    """Joins the group on behalf of one consumer.

    :param reader: the consumer's membership in the group.
    :param storing: knows which entries are in the sink.
    :param streams: those that are to be read.
    :param condition: met if all of them are streams.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        reader: IRecordReader,
        storing: Storing,
        streams: Iterable[str],
        condition: Condition,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._storing = storing
        self._configured = sorted(streams)
        self._condition = condition
        self.streams: Sequence[str] = self._configured
        """The streams that can be read, as of the last call of :meth:`join`."""
        self._next = inf

    @property
    def is_due(self) -> bool:
        """True if some keys were left out, and it is time to look at them again."""
        return self._clock.seconds() >= self._next

    async def join(self) -> None:
        """Join the group of each stream, and report the keys that are not streams.

        Such a key is left out: Redis would refuse to read the others together with it.

        :raises Refused: if no key is a stream.
        """
        streams, refusals = [], {}
        for stream in self._configured:
            try:
                await self._join(stream)
            except Refused as error:
                if not is_wrong_type(error):
                    raise
                refusals[stream] = error
            else:
                streams.append(stream)
        if not streams:
            raise next(iter(refusals.values()))
        self.streams = streams
        if not refusals:
            self._next = inf
            self._condition.met()
            return
        self._next = self._clock.seconds() + CHECK_INTERVAL
        left_out = listed(refusals)
        self._condition.fails(f"not a stream, and not read: {left_out}. Rename or delete the key.")

    async def _join(self, stream: str) -> None:
        unfinished = await self._storing.unfinished(stream)
        after = BEGINNING
        if unfinished is not None:
            # The group has existed and is lost, with the pending entries of all consumers. What is
            # read again is stored once.
            after = f"{max(0, entry_order(unfinished)[0] - 1)}-0"
        if await self._reader.join(stream, after):
            self._log.warn(
                "group {group} created on {stream}, after {after}",
                group=PROCESSOR_GROUP,
                stream=stream,
                after=after,
            )
