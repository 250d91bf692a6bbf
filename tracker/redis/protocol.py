"""The protocol of a connection to Redis or a Sentinel."""

from __future__ import annotations

from typing import Any, Final

import txredisapi
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from tracker.durations import format_duration
from tracker.errors import Refused, Unanswered, Unavailable
from tracker.untrusted import MAX_LINE, shown

#: Redis quotes the arguments after these words of an error: a password, or data of a device.
_QUOTED_ARGUMENTS = ", with args beginning with"
#: Seconds that one reply may take in addition to the reply timeout, even if its bytes arrive
#: steadily. Requests ask for at most 16 MiB by default, which takes 60 s at 2.3 Mbit/s.
MAX_REPLY_TIME: Final = 60.0

#: Beginnings of errors; the last two are those of scripts, since Redis 7.2 and before.
_NOT_PERMITTED: Final = ("NOPERM", "ERR ACL failure in script", "ERR The user executing the script")

#: Reason for closing a connection to a server that is not the master.
READ_ONLY: Final = "a read-only replica"


def is_wrong_type(error: Exception) -> bool:
    """Return True if Redis refused a command because the key holds another type of value."""
    return "WRONGTYPE" in str(error)


def is_not_permitted(error: Exception) -> bool:
    """Return True if Redis refused a command, or one of a script, because of the user's rights."""
    return str(error).startswith(_NOT_PERMITTED)


def is_foreign_key(error: Exception) -> bool:
    """Return True if Redis refused a command because the user may not access the key."""
    text = str(error)
    return text.startswith("NOPERM") and "key" in text


class RedisProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """txredisapi's protocol with the errors of ``tracker.errors``.

    The texts of errors are printable, of bounded length and without a final period, and do
    not quote the arguments of the command. Replies are bytes and numbers without conversion. The
    protocol does not log in.

    :param clock: measures the reply timeout.
    :param reply_timeout: seconds without a byte from Redis, while a reply is due, after which
        the connection is closed; None: no limit. It replaces txredisapi's
        ``replyTimeout``, which limits the time until a reply is complete: a long
        reply over a slow link would never be complete in time.
    """

    close_reason = ""
    """Reason for the end of the connection, known as soon as closing begins."""

    def __init__(self, clock: IReactorTime, reply_timeout: float | None) -> None:
        super().__init__(charset=None, convertNumbers=False, replyTimeout=None)
        self._clock = clock
        self._reply_timeout = reply_timeout
        # One timer serves all commands. It runs while a reply is due. Commands and bytes do not
        # restart it, which would cost time; it compares these times when it fires.
        self._timer: IDelayedCall | None = None
        self._due_since = 0.0  # time of the request whose reply is due, or of the reply before it
        self._last_byte = 0.0  # time of the last byte

    def execute_command(self, *arguments: str | bytes | int, **options: Any) -> Deferred[Any]:
        """Send a command. Fires with its reply."""
        first = not self.replyQueue.waiting
        reply: Deferred[Any] = super().execute_command(*arguments, **options)
        if first:
            self._due_since = self._last_byte = self._clock.seconds()
            if self._timer is None and self._reply_timeout is not None:
                self._timer = self._clock.callLater(self._reply_timeout, self._check_reply)
        if isinstance(self.transport, tcp.Connection) and not self.transport.TLS:
            # Without this call, Twisted writes only in the next reactor turn.
            self.transport.doWrite()
        return reply

    def abort(self, reason: str) -> None:
        """Close the connection at once."""
        self.close_reason = self.close_reason or reason
        self.transport.abortConnection()

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Parse bytes from Redis."""
        self._last_byte = self._clock.seconds()
        super().dataReceived(data, unpause)

    def replyReceived(self, reply: Any) -> None:
        """Handle a complete reply; the timeout of the next one starts now."""
        self._due_since = self._last_byte
        super().replyReceived(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the commands that wait for a reply."""
        self.close_reason = self.close_reason or f"connection lost: {reason.getErrorMessage()}"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connectionLost(reason)

    def _check_reply(self) -> None:
        """Close the connection if a reply is late, else check again when it would be late."""
        assert self._reply_timeout is not None  # noqa: S101 - without it, no timer runs
        self._timer = None
        if not self.replyQueue.waiting:
            return  # the next command starts the timer
        now = self._clock.seconds()
        silence = self._last_byte + self._reply_timeout - now
        total = self._due_since + self._reply_timeout + MAX_REPLY_TIME - now
        if silence > 0 and total > 0:
            self._timer = self._clock.callLater(max(0.001, min(silence, total)), self._check_reply)
            return
        late = f"no reply within {format_duration(self._reply_timeout)}"
        if silence > 0:
            late = (
                f"no complete reply within {format_duration(self._reply_timeout + MAX_REPLY_TIME)}"
            )
        self.close_reason = self.close_reason or late
        while self.replyQueue.waiting:
            self.replyQueue.put(Unanswered(late))
        self.transport.abortConnection()

    def tryConvertData(self, data: Any) -> Any:
        """Return the reply unchanged; txredisapi's conversion of each part would take time."""
        return data

    def handle_reply(self, r: Any) -> Any:
        """Return a reply. If it is an error, raise it as one of ``tracker.errors``."""
        if not isinstance(r, Exception):
            return r
        if isinstance(r, txredisapi.ResponseError):
            text = str(r).partition(_QUOTED_ARGUMENTS)[0]
            # Some errors of Redis end with a period, but the text becomes a part of a longer line.
            text = shown(text.removesuffix("."), MAX_LINE)
            # If a script was refused, Redis before 7.0 puts READONLY in the middle of the line.
            if "READONLY " not in text:
                raise Refused(text)
            # The server was demoted. Reconnecting finds the new master.
            self.abort(READ_ONLY)
            raise Unavailable(READ_ONLY)
        if isinstance(r, txredisapi.ConnectionError):
            raise Unavailable(str(r))
        raise r

    def _build_command(self, *arguments: str | bytes | int, **options: Any) -> bytes:
        # txredisapi's builder takes 2 µs per argument, and a record has three of them; this one
        # takes a fifth of that.
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
    """Factory of :class:`RedisProtocol` with the given parameters."""

    noisy = False

    def __init__(self, clock: IReactorTime, reply_timeout: float | None = None) -> None:
        self._clock = clock
        self._reply_timeout = reply_timeout

    def buildProtocol(self, addr: IAddress | None) -> RedisProtocol:
        """See IProtocolFactory."""
        protocol = RedisProtocol(self._clock, self._reply_timeout)
        protocol.factory = self
        return protocol
