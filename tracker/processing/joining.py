"""Joining of the consumer group of each stream, except keys that are not streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from tracker.errors import Refused
from tracker.keys import PROCESSOR_GROUP
from tracker.log.entries import BEGINNING, entry_order
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition
from tracker.processing.storing import Storer
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import listed

#: Seconds between two checks of keys that are left out.
CHECK_INTERVAL: Final = 10.0


class GroupJoiner:
    """Joins the group for one consumer.

    :param reader: the consumer's membership in the group.
    :param storer: gives the checkpoint of the sink.
    :param streams: the streams to read.
    :param condition: met if all of these keys are streams.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        reader: IRecordReader,
        storer: Storer,
        streams: Iterable[str],
        condition: Condition,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._storer = storer
        self._configured = sorted(streams)
        self._condition = condition
        self.streams: Sequence[str] = self._configured
        """Streams that can be read, as found by the last call of :meth:`join`."""
        self._next_check = inf

    @property
    def is_due(self) -> bool:
        """True if some keys were left out and must be checked again."""
        return self._clock.seconds() >= self._next_check

    async def join(self) -> None:
        """Join the group of each stream, and report the keys that are not streams.

        Such keys are left out, because Redis would refuse to read the others together with them.

        :raises Refused: if none of the keys is a stream.
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
            self._next_check = inf
            self._condition.met()
            return
        self._next_check = self._clock.seconds() + CHECK_INTERVAL
        left_out = listed(refusals)
        self._condition.fails(f"keys that are not streams: {left_out}; rename or delete them")

    async def _join(self, stream: str) -> None:
        unfinished = await self._storer.unfinished(stream)
        after = BEGINNING
        if unfinished is not None:
            # The group existed and is lost, with the pending entries of all consumers. Entries
            # that are read again are stored once.
            after = f"{max(0, entry_order(unfinished)[0] - 1)}-0"
        if await self._reader.join(stream, after):
            self._log.emit(
                LogLevel.info if unfinished is None else LogLevel.warn,
                "{stream}: group {group} created; it starts after entry {after}",
                stream=stream,
                group=PROCESSOR_GROUP,
                after=after,
            )
