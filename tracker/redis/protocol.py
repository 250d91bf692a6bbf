"""The protocol of a connection to Redis or a Sentinel."""

from __future__ import annotations

from typing import Any, Final

import txredisapi
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from tracker.errors import Refused, Unanswered, Unavailable
from tracker.untrusted import MAX_LINE, shown

#: From here on an error repeats arguments: a password, or data of a device.
_REPEATED = ", with args beginning with"
#: Seconds that one reply may take, however steadily its bytes arrive, beyond the silence that
#: is allowed before its first one. 16 MiB, which is what a request asks for at most unless an
#: option says otherwise, then need 2.3 Mbit/s.
MAX_REPLY_TIME: Final = 60.0

#: Why a connection to a server is closed that was the master, or never was.
READ_ONLY: Final = "a read-only replica"


def is_wrong_type(error: Exception) -> bool:
    """Return whether Redis refused a command because the key holds another type of value."""
    return "WRONGTYPE" in str(error)


class RedisProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """txredisapi's protocol, which raises our errors, without the arguments of the command.

    Their texts are printable and of bounded length.

    Replies are bytes and numbers as they came. It does not log in.

    :param clock: measures the reply timeout.
    :param reply_timeout: seconds without a byte from Redis, while a reply is due, after which
        the connection is closed; None: wait for ever. It replaces txredisapi's
        ``replyTimeout``, which is the time until a reply is complete: over a slow link a long
        reply would never be complete in time.
    """

    why = ""
    """Why the connection has ended, or is about to."""

    def __init__(self, clock: IReactorTime, reply_timeout: float | None) -> None:
        super().__init__(charset=None, convertNumbers=False, replyTimeout=None)
        self._clock = clock
        self._reply_timeout = reply_timeout
        # One timer serves all commands. It runs while a reply is due, is not restarted by commands
        # and bytes, and compares these times when it fires.
        self._timer: IDelayedCall | None = None
        self._due = 0.0  # time of the request whose reply is due, or of the reply before it
        self._heard = 0.0  # time of the last byte

    def execute_command(self, *arguments: str | bytes | int, **options: Any) -> Deferred[Any]:
        """Send a command; fires with its reply."""
        first = not self.replyQueue.waiting
        reply: Deferred[Any] = super().execute_command(*arguments, **options)
        if first:
            self._due = self._heard = self._clock.seconds()
            if self._timer is None and self._reply_timeout is not None:
                self._timer = self._clock.callLater(self._reply_timeout, self._check_reply)
        if isinstance(self.transport, tcp.Connection) and not self.transport.TLS:
            # Else it would wait until the reactor has read all that can be read.
            self.transport.doWrite()
        return reply

    def give_up(self, why: str) -> None:
        """Close the connection at once."""
        self.why = self.why or why
        self.transport.abortConnection()

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Read what Redis has sent."""
        self._heard = self._clock.seconds()
        super().dataReceived(data, unpause)

    def replyReceived(self, reply: Any) -> None:
        """Pass on a complete reply. The next one, if any, is due from now on."""
        self._due = self._heard
        super().replyReceived(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the commands that wait for a reply."""
        self.why = self.why or f"connection lost: {reason.getErrorMessage()}"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connectionLost(reason)

    def _check_reply(self) -> None:
        """Close the connection if a reply is late, else look again when it would be."""
        assert self._reply_timeout is not None  # noqa: S101 - else there is no timer
        self._timer = None
        if not self.replyQueue.waiting:
            return  # the next command starts the timer
        now = self._clock.seconds()
        silence = self._heard + self._reply_timeout - now
        total = self._due + self._reply_timeout + MAX_REPLY_TIME - now
        if silence > 0 and total > 0:
            self._timer = self._clock.callLater(max(0.001, min(silence, total)), self._check_reply)
            return
        late = f"no answer within {self._reply_timeout:g} s"
        if silence > 0:
            late = f"no complete answer within {self._reply_timeout + MAX_REPLY_TIME:g} s"
        self.why = self.why or late
        while self.replyQueue.waiting:
            self.replyQueue.put(Unanswered(late))
        self.transport.abortConnection()

    def tryConvertData(self, data: Any) -> Any:
        """Return a reply as it is. txredisapi would examine each part of it, which takes time."""
        return data

    def handle_reply(self, r: Any) -> Any:
        """Return a reply; raise it if it is an error, as one of ours."""
        if not isinstance(r, Exception):
            return r
        if isinstance(r, txredisapi.ResponseError):
            text = shown(str(r).partition(_REPEATED)[0], MAX_LINE)
            # Where a script was refused, Redis before 7.0 says so in the middle of the line.
            if "READONLY " not in text:
                raise Refused(text)
            # It was the master. The next attempt to connect finds the server that is now.
            self.give_up(READ_ONLY)
            raise Unavailable(READ_ONLY)
        if isinstance(r, txredisapi.ConnectionError):
            raise Unavailable(str(r))
        raise r

    def _build_command(self, *arguments: str | bytes | int, **options: Any) -> bytes:
        # txredisapi's takes 2 µs an argument, of which each record has four; this a fifth of it.
        parts = [f"*{len(arguments)}\r\n"]
        for argument in arguments:
            if isinstance(argument, int):
                argument = str(argument)
            elif not isinstance(argument, str) or not argument.isascii():
                command: bytes = super()._build_command(*arguments, **options)
                return command
            parts.append(f"${len(argument)}\r\n{argument}\r\n")
        return "".join(parts).encode("ascii")


class RedisFactory(Factory):
    """Builds :class:`RedisProtocol` with these parameters."""

    noisy = False

    def __init__(self, clock: IReactorTime, reply_timeout: float | None = None) -> None:
        self._clock = clock
        self._reply_timeout = reply_timeout

    def buildProtocol(self, addr: IAddress | None) -> RedisProtocol:
        """See IProtocolFactory."""
        protocol = RedisProtocol(self._clock, self._reply_timeout)
        protocol.factory = self
        return protocol
