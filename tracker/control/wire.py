"""AMP boxes of limited size, for both sides of a control connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.control.commands import CODES, BadArgument, ControlError, InternalError, brief
from tracker.wording import counted

#: Bytes of a box.
MAX_BOX_BYTES: Final = 128 * 1024
#: Values of a box.
MAX_BOX_VALUES: Final = 64
#: Bytes of a value: the maximum of AMP's two-byte length (twisted.protocols.amp).
MAX_VALUE_BYTES: Final = 0xFFFF

#: Responds to a box with a box.
Responder = Callable[[Any], Deferred[Any]]


class ConnectionAborted(Exception):
    """This side has closed the connection; the message gives the reason."""


class BoxProtocol(amp.BinaryBoxProtocol):
    """Boxes over a stream, in both directions.

    Twisted's own ``AMP`` is not used because it lets the peer switch to TLS, accepts boxes of any
    size, raises an error for a malformed one, and logs each connection.
    """

    # Twisted declares it as optional, but it is set before any method below is called.
    transport: Any

    def __init__(self, locator: Locator) -> None:
        self.dispatcher = amp.BoxDispatcher(locator)
        super().__init__(self.dispatcher)
        self._box_bytes = 0
        self._box_values = 0
        self._in_value = False  # the next string is a value
        self._end_reason = ""  # set when the connection has ended
        self._receiving = False
        self._full = False  # the transport is paused because too many bytes are buffered

    def dataReceived(self, data: bytes) -> None:
        """Process received boxes, unless processing is paused."""
        if self._end_reason:
            return  # TLS delivers bytes until the other side closes, too
        self._receiving = True
        try:
            super().dataReceived(data)
        finally:
            self._receiving = False
        # Pause the transport as late as possible: a paused one does not notice a disconnect.
        if self.paused and not self._full and len(self.recvd) > MAX_BOX_BYTES:
            self._full = True
            self.transport.pauseProducing()
        elif self._full and not self.paused:
            self._full = False
            self.transport.resumeProducing()

    def pause(self) -> None:
        """Pause the processing of boxes; received bytes are buffered, up to a limit."""
        self.paused = True

    def resume(self) -> None:
        """Resume the processing of boxes."""
        if self._end_reason:
            return
        self.paused = False
        if not self._receiving:
            self.dataReceived(b"")

    def stringReceived(self, string: bytes) -> None:
        """Count the bytes and values of a box, which ends with an empty key."""
        if not (self._in_value or string):
            self._box_bytes = self._box_values = 0
        else:
            self._box_bytes += len(string)
            self._box_values += not self._in_value
            self._in_value = not self._in_value
            if self._box_bytes > MAX_BOX_BYTES:
                self.abort(f"a box of more than {MAX_BOX_BYTES} bytes")
            elif self._box_values > MAX_BOX_VALUES:
                self.abort(f"a box of more than {MAX_BOX_VALUES} values")
        if not self._end_reason:
            try:
                super().stringReceived(string)
            except (amp.NoEmptyBoxes, KeyError):
                self.abort("a box that is neither a command nor a reply")

    def lengthLimitExceeded(self, length: int) -> None:
        """Close the connection because a key is too long."""
        self.abort(f"a key of {counted(length, 'byte')}")

    def unhandledError(self, failure: Failure) -> None:
        """Close the connection because a command without a reply has failed."""
        self.abort("a command that requests no reply")

    def abort(self, reason: str) -> None:
        """Close the connection at once, without processing further bytes."""
        if not self._end_reason:
            self._end_reason = reason
            self.paused = True
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail commands that wait for a reply, with the reason."""
        if self._end_reason:
            reason = Failure(ConnectionAborted(self._end_reason))
        self._end_reason = self._end_reason or "connection lost"
        self.paused = True
        super().connectionLost(reason)


@implementer(amp.IResponderLocator)
class Locator:
    """Finds the responder of a command.

    An error is sent to the peer, and does not end the connection.

    :param responders: command → function that takes its arguments and returns the reply.
    """

    _log = Logger()

    def __init__(self, responders: Mapping[type[amp.Command], Callable[..., Any]]) -> None:
        self._responders = {
            command.commandName: (command, function) for command, function in responders.items()
        }

    def locateResponder(self, name: bytes) -> Responder:
        """See ``IResponderLocator``."""
        command, function = self._responders.get(name, (None, None))
        try:
            self.check(command)
        except ControlError as error:
            return _error_responder(CODES[type(error)], str(error))
        if command is None or function is None:
            return _error_responder(amp.UNHANDLED_ERROR_CODE, f"unknown command {name[:64]!r}")
        known, responder = command, function
        return lambda box: Deferred.fromCoroutine(self._respond_box(known, responder, box))

    async def _respond_box(
        self, command: type[amp.Command], function: Callable[..., Any], box: amp.AmpBox
    ) -> amp.AmpBox:
        try:
            arguments = self._arguments(command, box)
        except BadArgument as error:  # sent even if the command does not declare this error
            raise amp.RemoteAmpError(CODES[BadArgument], brief(str(error))) from None
        try:
            objects = await self.respond(command, function, arguments)
            return _checked_size(command.makeResponse(objects, self))
        except ControlError as error:
            if (code := command.errors.get(type(error))) is not None:
                raise amp.RemoteAmpError(code, brief(str(error))) from None
            self._log_fault(command)
        except CancelledError:
            pass  # the peer has disconnected
        except Exception:  # noqa: BLE001 - details are logged, and not sent to the peer
            self._log_fault(command)
        text = "internal error; see the log of the instance"
        raise amp.RemoteAmpError(CODES[InternalError], text)

    def _log_fault(self, command: type[amp.Command]) -> None:
        self._log.failure("{command} failed", command=command.__name__)

    def _arguments(self, command: type[amp.Command], box: amp.AmpBox) -> dict[str, Any]:
        """Return the arguments in a box.

        :raises BadArgument: if one is missing, or is malformed.
        """
        arguments: dict[str, Any] = {}
        strings = dict(box)  # fromBox removes the strings that it has read
        for name, argument in command.arguments:
            if name not in box and not argument.optional:
                raise BadArgument(f"{name.decode()} is missing")
            try:
                argument.fromBox(name, strings, arguments, self)
            except Exception as error:  # noqa: BLE001 - each type's parser fails in its own way
                raise BadArgument(f"{name.decode()} is malformed: {_describe(error)}") from None
        return arguments

    def check(self, command: type[amp.Command] | None) -> None:
        """Check that the peer may send a command now.

        :param command: None for an unknown command.
        :raises ControlError: if the peer may not send it.
        """

    def respond(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Awaitable[Any]:
        """Return the reply to a command.

        :param function: the responder of the command.
        """
        reply: Deferred[Any] = maybeDeferred(function, **arguments)
        return reply


def _error_responder(code: bytes, text: str) -> Responder:
    return lambda box: fail(amp.RemoteAmpError(code, text))


def _checked_size(box: amp.AmpBox) -> amp.AmpBox:
    """Return a reply; raise ValueError if it is too long to be sent."""
    for name, value in box.items():
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"{name.decode()} has {counted(len(value), 'byte')}")
    return box


def _describe(error: Exception) -> str:
    # The text of the error may contain everything that was sent.
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "wrong type"
