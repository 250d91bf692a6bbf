"""What both ends of a control connection have in common: AMP boxes, of limited size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, fail
from twisted.protocols import amp
from twisted.python.failure import Failure

#: Bytes of a box, which may have any number of values.
MOST_BYTES: Final = 128 * 1024
#: Values in a box.
MOST_VALUES: Final = 64


class BoxProtocol(amp.BinaryBoxProtocol):
    """Boxes over a stream, each way.

    Twisted's own ``AMP`` would switch to TLS when asked, take boxes of any size, and log each
    connection.
    """

    # Twisted types it as optional; it is set before any method below is called.
    transport: Any

    def __init__(self, locator: Locator) -> None:
        self.dispatcher = amp.BoxDispatcher(locator)
        super().__init__(self.dispatcher)
        self._box_bytes = 0

    def stringReceived(self, string: bytes) -> None:
        """One key or value, or the empty key that ends a box."""
        if string or self._currentKey is not None:
            self._box_bytes += len(string)
            if self._box_bytes > MOST_BYTES or len(self._currentBox or ()) > MOST_VALUES:
                self.transport.abortConnection()
                return
        else:
            self._box_bytes = 0
        super().stringReceived(string)

    def unhandledError(self, failure: Failure) -> None:
        """A box that makes no sense, or an answer to nothing: the other side is confused."""
        self.transport.loseConnection()


class Locator(amp.CommandLocator):
    """Finds who answers a command; arguments that cannot be read are an error like others."""

    #: Made by Twisted of the methods that are responders.
    _commandDispatch: ClassVar[dict[bytes, tuple[type[amp.Command], Callable[..., Any]]]]

    def locateResponder(self, name: bytes) -> Callable[[Any], Deferred[Any]] | None:
        """See ``CommandLocator``."""
        found = self._commandDispatch.get(name)
        if found is None:
            return None
        command, function = found

        def call(**arguments: Any) -> Deferred[Any]:
            return self.answer(command, function, arguments)

        answer = self._wrapWithSerialization(call, command)

        def respond(box: Any) -> Deferred[Any]:
            try:
                command.parseArguments(box.copy(), self)
            except Exception as error:  # noqa: BLE001 - each type's parser fails in its own way
                return fail(
                    amp.RemoteAmpError(b"BAD_ARGUMENT", f"arguments cannot be read: {error!r}")
                )
            result: Deferred[Any] = answer(box)
            return result

        return respond

    def answer(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Deferred[Any]:
        """Answer a command.

        :param function: the responder, to be called with self and the arguments.
        """
        raise NotImplementedError
