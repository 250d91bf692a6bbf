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

#: Seconds between two comments that show, where nothing happens, that the connection lives.
HEARTBEAT: Final = 15.0
#: Streams of all browsers together: an open tab needs one, and one more for live frames.
MOST_STREAMS: Final = 200

_COMMENT: Final = b": still here\n\n"


class TooMany(Exception):
    """There are as many of these as there may be."""


def event(name: str, data: Any) -> bytes:
    """One event with JSON in it."""
    # JSON has no line breaks of its own, so that its data is one line.
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


@implementer(IPushProducer)
class EventStream:
    """One response that goes on until its reader leaves.

    Events for a slow reader are queued: at most ``most`` of them, of which the oldest are
    dropped first, besides up to 64 KiB in the transport. The channel closes the connection
    of a reader that reads nothing for :data:`tracker.net.waits.READ_TIMEOUT` seconds.
    """

    def __init__(self, request: Any, most: int, allowed: Callable[[], bool] = lambda: True) -> None:
        self._allowed = allowed
        self._request = request
        self._waiting: deque[bytes] = deque(maxlen=most)
        self._full = False
        self._ended: Deferred[None] = Deferred()
        self._closed = False
        self.dropped = 0
        """Events that were left out."""
        request.setHeader(b"content-type", b"text/event-stream")
        request.notifyFinish().addBoth(lambda _: self._end())
        request.registerProducer(self, True)
        request.write(b"retry: 2000\n\n")

    @property
    def ended(self) -> Deferred[None]:
        """Fires when the reader has left, or was cut off."""
        return self._ended

    def send(self, event: bytes) -> None:
        """Send an event now, or when the reader has taken what was sent before."""
        if self._closed:
            return
        if not self._full:
            self._request.write(event)
            return
        self.dropped += len(self._waiting) == self._waiting.maxlen
        self._waiting.append(event)

    def beat(self) -> None:
        """Send a comment to keep the connection alive; close it if access has ended."""
        if self._closed:
            return
        if not self._allowed():
            self.close()
        elif not self._full:
            self._request.write(_COMMENT)

    def close(self) -> None:
        """End it, whatever is under way."""
        if not self._closed:
            self._closed = True
            self._waiting.clear()
            self._request.transport.abortConnection()

    def _end(self) -> None:
        self._closed = True
        self._waiting.clear()
        if not self._ended.called:
            self._ended.callback(None)

    def pauseProducing(self) -> None:
        """Queue events: the transport's buffer is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Send the queued events: the transport accepts more."""
        self._full = False
        while self._waiting and not self._full:
            self._request.write(self._waiting.popleft())

    def stopProducing(self) -> None:
        """The reader has left: the request says so next, and has to be the first to know."""


class Broadcast(TimerService):
    """All that read events, and the one timer that keeps their connections alive.

    Each event is encoded once, however many read it.
    """

    def __init__(self, clock: IReactorTime, most: int = MOST_STREAMS) -> None:
        super().__init__(HEARTBEAT, self._beat)
        self.clock = clock
        self._most = most
        self._streams: dict[EventStream, bool] = {}

    @property
    def count(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def stopService(self) -> Deferred[Any]:
        """End all of them."""
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
        most: int = 1,
        public: bool = True,
    ) -> EventStream:
        """Begin a stream.

        :param allowed: whether its reader may go on; asked every :data:`HEARTBEAT` seconds.
        :param first: what is sent at once.
        :param most: events that may wait for a slow reader.
        :param public: whether it is sent what is published.
        :raises TooMany: when there are too many.
        """
        if len(self._streams) >= self._most:
            raise TooMany(f"{self._most} live views are open, as many as there may be")
        stream = EventStream(request, most, allowed)
        self._streams[stream] = public
        stream.ended.addCallback(lambda _: self._streams.pop(stream, None))
        for one in first:
            stream.send(one)
        return stream

    def publish(self, event: bytes) -> None:
        """Send an event to all."""
        for stream, public in list(self._streams.items()):
            if public:
                stream.send(event)

    def _beat(self) -> None:
        for stream in list(self._streams):
            stream.beat()


#: Sends an event to whoever reads.
Publish = Callable[[bytes], None]
