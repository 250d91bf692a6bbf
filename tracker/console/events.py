"""Server-sent events (HTML Living Standard, section 9.2), in bounded memory."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

#: Seconds between two comments that keep an idle connection alive.
KEEPALIVE_INTERVAL: Final = 15.0
#: Open streams of all browsers: a tab needs one, and another one for live frames.
MAX_STREAMS: Final = 200

_COMMENT: Final = b": still here\n\n"


class TooManyStreams(Exception):
    """Refusal of a stream beyond the maximum number of streams, or of watched devices."""


def event(name: str, data: Any) -> bytes:
    """Return an event with JSON data."""
    # json.dumps escapes line breaks, which would otherwise split the data into several lines.
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


@implementer(IPushProducer)
class EventStream:
    """A response that continues until its reader disconnects.

    The transport buffers up to 64 KiB for a slow reader. Beyond that, at most ``max_queued`` events
    are queued; then the oldest is dropped. The channel closes the connection of a reader that
    reads nothing for :data:`tracker.net.waits.READ_TIMEOUT` seconds.

    :param allowed: returns True while the reader may read.
    """

    def __init__(
        self, request: Any, max_queued: int, allowed: Callable[[], bool] = lambda: True
    ) -> None:
        self._allowed = allowed
        self._request = request
        self._queued: deque[bytes] = deque(maxlen=max_queued)
        self._full = False
        self._ended: Deferred[None] = Deferred()
        self._closed = False
        self.dropped = 0
        """Number of dropped events."""
        request.setHeader(b"content-type", b"text/event-stream")
        request.notifyFinish().addBoth(lambda _: self._end())
        request.registerProducer(self, True)
        request.write(b"retry: 2000\n\n")

    @property
    def ended(self) -> Deferred[None]:
        """Deferred that fires when the connection has ended."""
        return self._ended

    def send(self, event: bytes) -> None:
        """Send an event, or queue it while the transport's buffer is full."""
        if self._closed:
            return
        if not self._full:
            self._request.write(event)
            return
        self.dropped += len(self._queued) == self._queued.maxlen
        self._queued.append(event)

    def keep_alive(self) -> None:
        """Send a comment, or close the connection if the reader may no longer read."""
        if self._closed:
            return
        if not self._allowed():
            self.close()
        elif not self._full:
            self._request.write(_COMMENT)

    def close(self) -> None:
        """Abort the connection."""
        if not self._closed:
            self._closed = True
            self._queued.clear()
            self._request.transport.abortConnection()

    def _end(self) -> None:
        self._closed = True
        self._queued.clear()
        if not self._ended.called:
            self._ended.callback(None)

    def pauseProducing(self) -> None:
        """Queue further events, because the transport's buffer is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Send the queued events, because the transport's buffer has space."""
        self._full = False
        while self._queued and not self._full:
            self._request.write(self._queued.popleft())

    def stopProducing(self) -> None:
        """Do nothing: the request reports the end of the connection through notifyFinish."""


class Broadcast(TimerService):
    """All open streams, with one timer that keeps them alive.

    An event is encoded once for all readers.
    """

    def __init__(self, clock: IReactorTime, max_streams: int = MAX_STREAMS) -> None:
        super().__init__(KEEPALIVE_INTERVAL, self._keep_alive)
        self.clock = clock
        self._max_streams = max_streams
        self._streams: dict[EventStream, bool] = {}

    @property
    def count(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def stopService(self) -> Deferred[Any]:
        """Close all streams."""
        for stream in list(self._streams):
            stream.close()
        stopped: Deferred[Any] = super().stopService()
        return stopped

    def open(
        self,
        request: Any,
        allowed: Callable[[], bool],
        *,
        first: Iterable[bytes] = (),
        max_queued: int = 1,
        published: bool = True,
    ) -> EventStream:
        """Start a stream.

        :param allowed: returns True while the reader may read; called every
            :data:`KEEPALIVE_INTERVAL` seconds.
        :param first: events that are sent at once.
        :param max_queued: events that are queued for a slow reader.
        :param published: True if the stream gets the events of :meth:`publish`.
        :raises TooManyStreams: if the maximum number of streams is open.
        """
        if len(self._streams) >= self._max_streams:
            raise TooManyStreams(f"too many live views: the limit is {self._max_streams}")
        stream = EventStream(request, max_queued, allowed)
        self._streams[stream] = published
        stream.ended.addCallback(lambda _: self._streams.pop(stream, None))
        for one in first:
            stream.send(one)
        return stream

    def publish(self, event: bytes) -> None:
        """Send an event to all streams that were opened with ``published``."""
        for stream, published in list(self._streams.items()):
            if published:
                stream.send(event)

    def _keep_alive(self) -> None:
        for stream in list(self._streams):
            stream.keep_alive()


#: Sends an event to all readers.
Publish = Callable[[bytes], None]
