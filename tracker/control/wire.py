"""AMP boxes of limited size, as both ends of a control connection send them."""

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

#: Bytes of a box, which may have any number of values.
MAX_BOX_BYTES: Final = 128 * 1024
#: Values in a box.
MAX_BOX_VALUES: Final = 64
#: Bytes of a value: what its length can say (twisted.protocols.amp).
MAX_VALUE_BYTES: Final = 0xFFFF

#: Answers a box with a box.
Responder = Callable[[Any], Deferred[Any]]


class ConnectionAborted(Exception):
    """This side has closed the connection; the text gives the reason."""


class BoxProtocol(amp.BinaryBoxProtocol):
    """Boxes over a stream, each way.

    Twisted's own ``AMP`` switches to TLS when asked, takes boxes of any size, raises an error at a
    malformed one, and logs each connection.
    """

    # Twisted types it as optional; it is set before any method below is called.
    transport: Any

    def __init__(self, locator: Locator) -> None:
        self.dispatcher = amp.BoxDispatcher(locator)
        super().__init__(self.dispatcher)
        self._box_bytes = 0
        self._box_values = 0
        self._in_value = False  # the next string is a value
        self._ended = ""  # the reason why nothing is read
        self._receiving = False
        self._full = False  # so much is kept unread that the transport must wait

    def dataReceived(self, data: bytes) -> None:
        """Process received boxes, unless they have to wait."""
        if self._ended:
            return  # TLS goes on delivering until the other side closes too
        self._receiving = True
        try:
            super().dataReceived(data)
        finally:
            self._receiving = False
        # Not before: a paused transport does not see its peer leave.
        if self.paused and not self._full and len(self.recvd) > MAX_BOX_BYTES:
            self._full = True
            self.transport.pauseProducing()
        elif self._full and not self.paused:
            self._full = False
            self.transport.resumeProducing()

    def hold(self) -> None:
        """Process no more boxes; received bytes are kept, up to a limit."""
        self.paused = True

    def go_on(self) -> None:
        """Process boxes again."""
        if self._ended:
            return
        self.paused = False
        if not self._receiving:
            self.dataReceived(b"")

    def stringReceived(self, string: bytes) -> None:
        """Count a key or a value; the empty key ends a box."""
        if not (self._in_value or string):
            self._box_bytes = self._box_values = 0
        else:
            self._box_bytes += len(string)
            self._box_values += not self._in_value
            self._in_value = not self._in_value
            if self._box_bytes > MAX_BOX_BYTES:
                self.give_up(f"a box of more than {MAX_BOX_BYTES} bytes")
            elif self._box_values > MAX_BOX_VALUES:
                self.give_up(f"a box of more than {MAX_BOX_VALUES} values")
        if not self._ended:
            try:
                super().stringReceived(string)
            except (amp.NoEmptyBoxes, KeyError):
                self.give_up("a box that is no command, nor the answer to one")

    def lengthLimitExceeded(self, length: int) -> None:
        """Close the connection: a key is too long."""
        self.give_up(f"a key of {length} bytes")

    def unhandledError(self, failure: Failure) -> None:
        """Close the connection: a command has failed that requests no answer."""
        self.give_up("a command that asks for no answer")

    def give_up(self, reason: str) -> None:
        """Close the connection at once, and read nothing more."""
        if not self._ended:
            self._ended = reason
            self.paused = True
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the requests that wait for an answer, with the reason."""
        if self._ended:
            reason = Failure(ConnectionAborted(self._ended))
        self._ended = self._ended or "the connection was lost"
        self.paused = True
        super().connectionLost(reason)


@implementer(amp.IResponderLocator)
class Locator:
    """Find what answers a command.

    An error is sent to the peer that has caused it, and does not end the connection.

    :param responders: command → function of its arguments.
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
            return _error_responder(amp.UNHANDLED_ERROR_CODE, f"there is no command {name[:64]!r}")
        known, responder = command, function
        return lambda box: Deferred.fromCoroutine(self._respond(known, responder, box))

    async def _respond(
        self, command: type[amp.Command], function: Callable[..., Any], box: amp.AmpBox
    ) -> amp.AmpBox:
        try:
            arguments = self._arguments(command, box)
        except BadArgument as error:  # the fault of the peer, whatever errors the command declares
            raise amp.RemoteAmpError(CODES[BadArgument], brief(str(error))) from None
        try:
            objects = await self.answer(command, function, arguments)
            return _checked_size(command.makeResponse(objects, self))
        except ControlError as error:
            if (code := command.errors.get(type(error))) is not None:
                raise amp.RemoteAmpError(code, brief(str(error))) from None
            self._log_fault(command)
        except CancelledError:
            pass  # the peer has left
        except Exception:  # noqa: BLE001 - the peer learns only that there is a fault
            self._log_fault(command)
        text = "a fault in the instance, which its log tells of"
        raise amp.RemoteAmpError(CODES[InternalError], text)

    def _log_fault(self, command: type[amp.Command]) -> None:
        self._log.failure("{command} has failed", command=command.__name__)

    def _arguments(self, command: type[amp.Command], box: amp.AmpBox) -> dict[str, Any]:
        """Return the arguments in a box.

        :raises BadArgument: if one is missing, or is malformed.
        """
        arguments: dict[str, Any] = {}
        strings = dict(box)  # from which they are removed
        for name, argument in command.arguments:
            if name not in box and not argument.optional:
                raise BadArgument(f"{name.decode()} is missing")
            try:
                argument.fromBox(name, strings, arguments, self)
            except Exception as error:  # noqa: BLE001 - each type's parser fails in its own way
                raise BadArgument(f"{name.decode()} cannot be read: {_describe(error)}") from None
        return arguments

    def check(self, command: type[amp.Command] | None) -> None:
        """Check whether a command may be sent now; None is an unknown command.

        :raises ControlError: if not.
        """

    def answer(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Awaitable[Any]:
        """Return the answer to a command.

        :param function: its responder.
        """
        answered: Deferred[Any] = maybeDeferred(function, **arguments)
        return answered


def _error_responder(code: bytes, text: str) -> Responder:
    return lambda box: fail(amp.RemoteAmpError(code, text))


def _checked_size(box: amp.AmpBox) -> amp.AmpBox:
    """Return an answer, unless it cannot be sent: trying would end the connection."""
    for name, value in box.items():
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"{name.decode()} comes to {len(value)} bytes")
    return box


def _describe(error: Exception) -> str:
    # The error's own text may hold all that was sent.
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it is not of that type"
