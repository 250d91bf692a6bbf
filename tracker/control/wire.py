"""What both ends of a control connection have in common: AMP boxes, of limited size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from tracker.control.commands import CODES, BadArgument, ControlError, InternalError, brief

#: Bytes of a box, which may have any number of values.
MOST_BYTES: Final = 128 * 1024
#: Values in a box.
MOST_VALUES: Final = 64
#: Bytes of a value: what its length can say (twisted.protocols.amp).
MOST_VALUE: Final = 0xFFFF

Responder = Callable[[Any], Deferred[Any]]


class CutOff(Exception):
    """The connection was ended from here; the text says why."""


class BoxProtocol(amp.BinaryBoxProtocol):
    """Boxes over a stream, each way.

    Twisted's own ``AMP`` would switch to TLS when asked, take boxes of any size, raise at one
    that makes no sense, and log each connection.
    """

    # Twisted types it as optional; it is set before any method below is called.
    transport: Any

    def __init__(self, locator: Locator) -> None:
        self.dispatcher = amp.BoxDispatcher(locator)
        super().__init__(self.dispatcher)
        self._box_bytes = 0
        self._ended = ""  # why nothing is read any more
        self._receiving = False
        self._full = False  # so much is kept unread that the transport must wait

    def dataReceived(self, data: bytes) -> None:
        """Take boxes in, unless they are to wait."""
        if self._ended:
            return  # TLS goes on delivering until the other side closes too
        self._receiving = True
        try:
            super().dataReceived(data)
        finally:
            self._receiving = False
        # Not before: a paused transport does not see its peer leave.
        if self.paused and not self._full and len(self._unprocessed) > MOST_BYTES:
            self._full = True
            self.transport.pauseProducing()
        elif self._full and not self.paused:
            self._full = False
            self.transport.resumeProducing()

    def hold(self) -> None:
        """Take in no more boxes; what comes is kept, up to a limit."""
        self.paused = True

    def go_on(self) -> None:
        """Take them in again."""
        if self._ended:
            return
        self.paused = False
        if not self._receiving:
            self.dataReceived(b"")

    def stringReceived(self, string: bytes) -> None:
        """One key or value, or the empty key that ends a box."""
        values = len(self._currentBox or ())
        if self._currentKey is not None or string:
            self._box_bytes += len(string)
            if self._box_bytes > MOST_BYTES:
                self.give_up(f"a box of more than {MOST_BYTES} bytes")
            elif self._currentKey is None and values >= MOST_VALUES:
                self.give_up(f"a box of more than {MOST_VALUES} values")
        else:
            self._box_bytes = 0
        if not self._ended:
            try:
                super().stringReceived(string)
            except (amp.NoEmptyBoxes, KeyError):
                self.give_up("a box that is no command, nor the answer to one")

    def lengthLimitExceeded(self, length: int) -> None:
        """A key that is none."""
        self.give_up(f"a key of {length} bytes")

    def unhandledError(self, failure: Failure) -> None:
        """A command failed that nobody wants the answer of: the other side is confused."""
        self.give_up("a command that asks for no answer")

    def give_up(self, reason: str) -> None:
        """Cut the other side off, and read nothing more."""
        if not self._ended:
            self._ended = reason
            self.paused = True
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever waits for an answer is told why there will be none."""
        if self._ended:
            reason = Failure(CutOff(self._ended))
        self._ended = self._ended or "the connection was lost"
        self.paused = True
        self._unprocessed = b""
        super().connectionLost(reason)


class Locator(amp.CommandLocator):
    """Finds who answers a command.

    Whatever goes wrong with one is told to whoever has asked, and the connection lives on.
    """

    _log = Logger()

    #: Made by Twisted of the methods that are responders.
    _commandDispatch: ClassVar[dict[bytes, tuple[type[amp.Command], Callable[..., Any]]]]

    def locateResponder(self, name: bytes) -> Responder:
        """See ``CommandLocator``."""
        command, function = self._commandDispatch.get(name, (None, None))
        try:
            self.check(command)
        except ControlError as error:
            return _failing(CODES[type(error)], str(error))
        if command is None or function is None:
            return _failing(amp.UNHANDLED_ERROR_CODE, f"there is no command {name[:64]!r}")
        return self._responder(command, function)

    def _responder(self, command: type[amp.Command], function: Callable[..., Any]) -> Responder:
        def call(**arguments: Any) -> Deferred[Any]:
            return self.answer(command, function, arguments)

        answer = self._wrapWithSerialization(call, command)

        def respond(box: Any) -> Deferred[Any]:
            try:
                self._read(command, box)
            except BadArgument as error:
                return fail(amp.RemoteAmpError(CODES[BadArgument], brief(str(error))))
            answered: Deferred[Any] = answer(box)
            return answered.addCallback(_sendable).addErrback(self._told, command)

        return respond

    def _read(self, command: type[amp.Command], box: Any) -> None:
        """See whether all arguments are there, and can be read."""
        for name, argument in command.arguments:
            if name not in box:
                if not argument.optional:
                    raise BadArgument(f"{name.decode()} is missing")
                continue
            try:
                argument.fromStringProto(box[name], self)
            except Exception as error:  # noqa: BLE001 - each type's parser fails in its own way
                raise BadArgument(f"{name.decode()} cannot be read: {_why(error)}") from None

    def _told(self, failure: Failure, command: type[amp.Command]) -> Failure:
        """What is sent of an error."""
        error: Any = failure.value
        if isinstance(error, amp.RemoteAmpError):
            return Failure(amp.RemoteAmpError(error.errorCode, brief(error.description)))
        if isinstance(error, amp.BadLocalReturn):
            failure = error.enclosed  # its own text has the whole answer in it
        if not failure.check(CancelledError):  # as when whoever has asked is gone
            self._log.failure("{command} has failed", failure, command=command.__name__)
        text = "a fault in the instance, which its log tells of"
        return Failure(amp.RemoteAmpError(CODES[InternalError], text))

    def check(self, command: type[amp.Command] | None) -> None:
        """Whether a command may be asked for now; None is one that is not known.

        :raises ControlError: if not.
        """

    def answer(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Deferred[Any]:
        """Answer a command.

        :param function: the responder, to be called with self and the arguments.
        """
        raise NotImplementedError


def _failing(code: bytes, text: str) -> Responder:
    return lambda box: fail(amp.RemoteAmpError(code, text))


def _sendable(box: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The box of an answer, unless it cannot be sent: to try would end the connection."""
    for name, value in box.items():
        if len(value) > MOST_VALUE:
            raise ValueError(f"{name.decode()} comes to {len(value)} bytes")
    return box


def _why(error: Exception) -> str:
    # Not what it says of itself: that may have all that was sent in it.
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it is not of that type"
