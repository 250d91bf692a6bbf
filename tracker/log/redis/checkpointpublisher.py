"""Publication of the checkpoint by a member of the group ``processor``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from itertools import takewhile
from typing import Any, Final

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.errors import Refused
from tracker.log.redis.checkpoint import (
    MAX_RECORDED,
    Run,
    advance_checkpoint,
    create_checkpoint,
    record_finished,
)
from tracker.observe.ratelimit import RateLimit
from tracker.redis.connection import RedisConnection

#: Seconds between two log lines that say that the checkpoint cannot be published.
REPORT_INTERVAL: Final = 600.0


class CheckpointPublisher:
    """Records the entries that a member has finished in the checkpoint of their stream.

    New entries of one reply are neighbours in their stream. They are recorded as one run, which
    costs Redis as little as one entry. Redis itself joins the runs of other entries.

    A checkpoint that a client deleted is published anew. If Redis refuses the checkpoint, this is
    logged, and entries are processed all the same.

    :param max_parts: maximum number of replies of a stream that are remembered.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, redis: RedisConnection, max_parts: int) -> None:
        self._redis = redis
        self._max_parts = max_parts
        self._parts: dict[str, dict[str, Sequence[str]]] = {}
        """Stream → first ID of neighbours → their IDs."""
        self._reports = RateLimit(clock, 1, REPORT_INTERVAL)

    async def start(self, stream: str) -> None:
        """Publish the checkpoint of a stream whose group exists, unless it is published already.

        :raises Unavailable: if Redis is down.
        """
        await self._safely(stream, create_checkpoint(self._redis, stream))
        # Redis then knows the script, and does not ask for it after an acknowledgement.
        await self._safely(stream, advance_checkpoint(self._redis, stream))

    def read(self, stream: str, entry_ids: Sequence[str]) -> None:
        """Remember that these entries are neighbours."""
        parts = self._parts.setdefault(stream, {})
        if len(parts) >= self._max_parts:
            parts.clear()  # left over from entries that this member never finished
        parts[entry_ids[0]] = entry_ids

    async def finished(
        self, stream: str, entry_ids: Sequence[str], acknowledge: Callable[[], Deferred[Any]]
    ) -> None:
        """Record finished entries, then acknowledge them.

        :param acknowledge: sends the acknowledgement on the same connection. It is called before
            Redis has replied, so that Redis synchronises both to disk at once.
        :raises Unavailable: if Redis is down.
        """
        runs = self._runs(self._parts.get(stream, {}), entry_ids)
        if earlier := runs[:-MAX_RECORDED]:
            await self._safely(stream, self._record(stream, earlier))
        last = self._record(stream, runs[-MAX_RECORDED:])
        recorded = Deferred.fromCoroutine(self._safely(stream, last))
        both = gatherResults([recorded, acknowledge()], consumeErrors=True)
        await both.addErrback(_first_error)

    async def _record(self, stream: str, runs: Sequence[Run]) -> None:
        if await record_finished(self._redis, stream, runs) is not None:
            return
        if await create_checkpoint(self._redis, stream):
            self._log.warn("{stream}: checkpoint not found; it is published anew", stream=stream)
            await record_finished(self._redis, stream, runs)

    @staticmethod
    def _runs(parts: dict[str, Sequence[str]], entry_ids: Sequence[str]) -> list[Run]:
        """Return the runs of some entries."""
        runs = []
        position = 0
        while position < len(entry_ids):
            first = entry_ids[position]
            part = parts.pop(first, [first])
            length = len(part)
            if entry_ids[position : position + length] != part:
                pairs = zip(part, entry_ids[position:], strict=False)
                length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                if length < len(part):
                    parts[part[length]] = part[length:]
            runs.append((first, part[length - 1]))
            position += length
        return runs

    async def _safely(self, stream: str, publication: Coroutine[Any, Any, Any]) -> None:
        try:
            await publication
        except Refused as error:
            if self._reports.admit() is not None:
                self._log.error(
                    "{stream}: the checkpoint cannot be published: {error}",
                    stream=stream,
                    error=error,
                )


def _first_error(failure: Failure) -> Failure:
    """Return the error of the call that failed first."""
    failure.trap(FirstError)
    error: Any = failure.value
    first: Failure = error.subFailure
    return first
