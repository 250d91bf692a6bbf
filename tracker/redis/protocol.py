"""What is ours in every conversation with Redis or a Sentinel."""

from __future__ import annotations

from typing import Any, Final

import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tracker.errors import Refused, Unanswered, Unavailable
from tracker.untrusted import MAX_LINE, shown

#: From here on an error repeats what it was told: a password, or what a device has sent.
_REPEATED = ", with args beginning with"
#: Seconds that one reply may take, however steadily its bytes arrive, beyond the silence that
#: is allowed before its first one. 16 MiB, which is what a request asks for at most unless an
#: option says otherwise, then need 2.3 Mbit/s.
MAX_REPLY_TIME: Final = 60.0


def is_wrong_type(error: Exception) -> bool:
    """Return whether Redis refused a command because the key holds another type of value."""
    return "WRONGTYPE" in str(error)


class RedisProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """txredisapi's protocol, which raises errors without the arguments of the command.

    Their texts are printable and of bounded length.

    Replies are bytes and numbers as they came: it is made with ``charset=None`` and
    ``convertNumbers=False``.

    :param clock: measures the reply timeout.
    :param reply_timeout: seconds without a byte from Redis, while a reply is due, after which
        the connection is closed; None: wait for ever. It replaces txredisapi's
        ``replyTimeout``, which is the time until a reply is complete: over a slow link a long
        reply would never be complete in time.
    """

    def __init__(self, clock: IReactorTime, reply_timeout: float | None, **options: Any) -> None:
        super().__init__(charset=None, convertNumbers=False, replyTimeout=None, **options)
        self._watch = None if reply_timeout is None else _ReplyWatch(clock, reply_timeout)

    def execute_command(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        """Send a command; fires with its reply."""
        first = not self.replyQueue.waiting
        reply: Deferred[Any] = super().execute_command(*arguments, **options)
        if first and self._watch is not None:
            self._watch.begin(self._check_reply)
        return reply

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Read what Redis has sent."""
        if self._watch is not None:
            self._watch.heard()
        super().dataReceived(data, unpause)

    def replyReceived(self, reply: Any) -> None:
        """Pass on a complete reply."""
        if self._watch is not None:
            self._watch.completed()
        super().replyReceived(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the commands that wait for a reply."""
        if self._watch is not None:
            self._watch.end()
        super().connectionLost(reason)

    def _check_reply(self) -> None:
        assert self._watch is not None  # noqa: S101 - it calls this
        if not self.replyQueue.waiting:
            return  # the next command starts the timer
        late = self._watch.late()
        if late is None:
            self._watch.go_on(self._check_reply)
            return
        while self.replyQueue.waiting:
            self.replyQueue.put(Unanswered(late))
        self.transport.abortConnection()

    def tryConvertData(self, data: Any) -> Any:
        """The same: looking at each part of a reply to find nothing to do takes its time."""
        return data

    @staticmethod
    def handle_reply(r: Any) -> Any:
        """Return a reply; raise it if it is an error, as one of ours."""
        if not isinstance(r, Exception):
            return r
        if isinstance(r, txredisapi.ResponseError):
            raise Refused(shown(str(r).partition(_REPEATED)[0], MAX_LINE))
        if isinstance(r, txredisapi.ConnectionError):
            raise Unavailable(str(r))
        raise r


class _ReplyWatch:
    """The times from which the next reply of a connection has been due, and of its last byte.

    One timer serves all commands. It runs while a reply is due, is not restarted by commands
    and bytes, and compares these times when it fires.
    """

    def __init__(self, clock: IReactorTime, timeout: float) -> None:
        self._clock = clock
        self._timeout = timeout
        self._since = 0.0  # of the reply that is due: the request, or the reply before it
        self._heard = 0.0
        self._timer: IDelayedCall | None = None

    def begin(self, check: Any) -> None:
        """Note that a reply is due, and start the timer. (None was due before.)"""
        self._since = self._heard = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(self._timeout, self._fire, check)

    def heard(self) -> None:
        """Note that bytes have arrived."""
        self._heard = self._clock.seconds()

    def completed(self) -> None:
        """Note that a reply is complete. The next one, if any, is due from now on."""
        self._since = self._heard

    def late(self) -> str | None:
        """Return in one line why the reply is late; None if it is not."""
        now = self._clock.seconds()
        if now - self._heard >= self._timeout:
            return f"no answer within {self._timeout:g} s"
        if now - self._since >= self._timeout + MAX_REPLY_TIME:
            return f"no complete answer within {self._timeout + MAX_REPLY_TIME:g} s"
        return None

    def go_on(self, check: Any) -> None:
        """Restart the timer for the moment at which the reply would be late."""
        now = self._clock.seconds()
        silence = self._heard + self._timeout - now
        total = self._since + self._timeout + MAX_REPLY_TIME - now
        self._timer = self._clock.callLater(max(0.001, min(silence, total)), self._fire, check)

    def end(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self, check: Any) -> None:
        self._timer = None
        check()
