"""The connection of a client to a control port, which is reconnected whenever it is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,  # noqa: A004
    succeed,
)
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.control.commands import (
    VERSION,
    BadArgument,
    ControlCommand,
    ControlError,
    Hello,
    VersionMismatch,
)
from tracker.control.wire import BoxProtocol, Locator
from tracker.durations import format_duration
from tracker.net.endpoints import keep_alive
from tracker.net.reasons import connect_error
from tracker.runtime.backoff import Backoff
from tracker.runtime.reconnect import stay_connected
from tracker.runtime.waits import Stopped, Waits
from tracker.untrusted import MAX_LINE, shown

#: Seconds for a reply that depends only on the instance and Redis.
REPLY_TIMEOUT: Final = 15.0
#: Seconds for the TLS handshake, for the reply to Hello, and until a call has a usable connection.
GREETING_TIMEOUT: Final = 10.0
#: Seconds between two attempts to connect.
MIN_RETRY_DELAY: Final = 0.5
MAX_RETRY_DELAY: Final = 10.0


class NotConnected(ControlError):
    """The control port cannot be reached, or it was lost; the message gives the reason."""


class State(Enum):
    """State of a connection."""

    STOPPED = "stopped"
    CONNECTING = "connecting, or being prepared"
    READY = "ready for commands"
    WAITING = "waiting for the next attempt"
    FAILED = "failed, without another attempt"


#: States in which commands can be sent, now or after the next attempt.
_ACTIVE_STATES: Final = frozenset({State.CONNECTING, State.READY, State.WAITING})

_REMEDIES: Final = {
    os.strerror(errno.EACCES).lower(): "run both as the same user, or with a common group and "
    "--control unix:PATH in a folder of that group",
    os.strerror(errno.ENOENT).lower(): "an instance on another machine, or in another container, "
    "requires --control ssl:PORT:…",
}

#: Called with None when the connection becomes usable, and with the error when it is lost.
Change = Callable[[ControlError | None], None]


@implementer(IHandshakeListener)
class ClientProtocol(BoxProtocol):
    """The client's side of one connection."""

    def __init__(self, clock: IReactorTime, locator: Locator) -> None:
        super().__init__(locator)
        self._clock = clock
        self.secured: Deferred[None] = Deferred()
        """Fires when commands may be sent: over TLS, when the server's certificate is checked."""
        self.lost: Deferred[str] = Deferred()
        """Fires with the reason when the connection is lost."""

    def connectionMade(self) -> None:
        """See Protocol."""
        keep_alive(self.transport)
        if not ISSLTransport.providedBy(self.transport):
            self.secured.callback(None)

    def handshakeCompleted(self) -> None:
        """See IHandshakeListener."""
        self.secured.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See Protocol."""
        if not self.secured.called:
            self.secured.errback(reason)
        super().connectionLost(reason)
        self.lost.callback(reason_of(reason.value))

    async def greet(self, name: str) -> dict[str, Any]:
        """Send Hello; return the reply.

        :param name: the client's name in the log of the instance.
        """
        try:
            await self.secured.addTimeout(GREETING_TIMEOUT, self._clock)
        except TimeoutError:
            raise NotConnected(
                f"TLS handshake not completed within {format_duration(GREETING_TIMEOUT)}"
            ) from None
        return await self.call(Hello, GREETING_TIMEOUT, {"version": VERSION, "client": name})

    async def call(
        self, command: type[ControlCommand], timeout: float | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Send a command; return the reply.

        :param timeout: seconds for the reply; None: no limit.
        :param arguments: arguments with the value None are left out.
        :raises ControlError: see the command.
        """
        given = _checked(command, arguments)
        try:
            reply: Deferred[dict[str, Any]] = self.dispatcher.callRemote(command, **given)
            if timeout is not None:
                reply.addTimeout(timeout, self._clock)
            return await reply
        except ControlError as error:
            raise type(error)(shown(error, MAX_LINE)) from None
        except CancelledError:  # by the caller; the connection is fine
            raise
        except TimeoutError:
            raise NotConnected(f"no reply within {format_duration(timeout or 0)}") from None
        except amp.UnhandledCommand:
            raise VersionMismatch(
                f"the instance does not support {command.__name__}; upgrade the instance"
            ) from None
        except amp.RemoteAmpError as error:
            code, text = shown(error.errorCode), shown(error.description, MAX_LINE)
            raise ControlError(f"{code}: {text}") from None
        except amp.TooLong:
            raise BadArgument("an argument is too long") from None
        except Exception as error:  # noqa: BLE001 - the connection was lost, for any reason
            raise NotConnected(reason_of(error)) from None


class _UsableConnection:
    """The usable connection, and the calls that wait for it."""

    def __init__(self, clock: IReactorTime) -> None:
        self.state = State.STOPPED
        self._clock = clock
        self._protocol: ClientProtocol | None = None
        self._reason: ControlError = NotConnected("not started")
        self._waiters: list[Deferred[ClientProtocol]] = []

    @property
    def reason(self) -> ControlError:
        """Reason why the connection is not usable."""
        # A new object each time, because raising an exception adds to its traceback.
        return type(self._reason)(str(self._reason))

    async def get(self) -> ClientProtocol:
        """Return the connection, now or when it becomes usable.

        :raises ControlError: if it does not become usable in time.
        """
        if self._protocol is not None:
            return self._protocol
        if self.state not in _ACTIVE_STATES:
            raise self.reason
        waiter: Deferred[ClientProtocol] = Deferred()
        self._waiters.append(waiter)
        try:
            return await waiter.addTimeout(GREETING_TIMEOUT, self._clock)
        except TimeoutError:
            raise self.reason from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def enter(self, state: State) -> None:
        """Enter a state in which the connection is not usable."""
        self.state = state
        self._protocol = None
        if state not in _ACTIVE_STATES:
            self._fail_waiters()

    def ready(self, protocol: ClientProtocol) -> None:
        """Enter the state READY."""
        self.state = State.READY
        self._protocol = protocol
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(protocol)

    def failed(self, error: BaseException) -> None:
        """Set the reason; fail waiting calls if the next attempt will fail for the same reason."""
        if isinstance(error, ControlError):
            self._reason = error
        else:
            self._reason = NotConnected(reason_of(error))
        if not isinstance(self._reason, NotConnected):
            self._fail_waiters()

    def _fail_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(self.reason)


class ControlConnection(Service):
    """A connection to a control port that reconnects whenever it is lost.

    :param retry: False: stop at the first failure or loss.
    :param locator: responds to the commands of the instance.
    :param prepare: called with each new connection, before it is used.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        *,
        retry: bool,
        locator: Locator,
        prepare: Callable[[ClientProtocol], Awaitable[None]],
    ) -> None:
        self.changed: Change = lambda reason: None
        """Called when the connection becomes usable or is lost."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._factory = _Factory.forProtocol(lambda: ClientProtocol(reactor, locator))
        self._retry = retry
        self._prepare = prepare
        self._usable = _UsableConnection(reactor)
        self._waits = Waits(reactor)
        self._connected: ClientProtocol | None = None  # not necessarily usable
        self._loop: Deferred[None] = succeed(None)

    @property
    def state(self) -> State:
        """State of the connection."""
        return self._usable.state

    @property
    def connection_error(self) -> ControlError | None:
        """Reason why commands cannot be sent now; None while the connection is usable."""
        return None if self.state is State.READY else self._usable.reason

    def startService(self) -> None:
        """Start connecting."""
        super().startService()
        self._waits = Waits(self._reactor)
        self._usable.failed(
            NotConnected(f"not connected within {format_duration(GREETING_TIMEOUT)}")
        )
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Disconnect; return a Deferred that fires when the connection is closed."""
        super().stopService()
        self._waits.stop()
        if self._connected is not None:
            self._connected.transport.loseConnection()
        return self._loop

    async def call(
        self, command: type[ControlCommand], timeout: float | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Send a command when the connection is usable; return the reply.

        :param timeout: seconds for the reply; None: no limit.
        :raises ControlError: see the command; :class:`NotConnected` if it cannot be sent in time.
        """
        protocol = await self._usable.get()
        return await protocol.call(command, timeout, arguments)

    async def _run(self) -> None:
        if self._retry:
            backoff = Backoff(self._reactor, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
            await stay_connected(self._waits, backoff, self._serve)
        else:
            await self._serve()
        if self._waits.stopped:
            self._usable.failed(NotConnected("stopped"))
        self._usable.enter(State.STOPPED if self._waits.stopped else State.FAILED)

    async def _serve(self) -> bool:
        """Connect and wait until the connection is lost; return True if it was usable."""
        self._usable.enter(State.CONNECTING)
        usable = await self._connect_once()
        self._usable.enter(State.WAITING)
        return usable

    async def _connect_once(self) -> bool:
        try:
            connecting: Deferred[Any] = self._endpoint.connect(self._factory)
            self._connected = protocol = await self._waits.result(connecting)
        except Exception as error:  # noqa: BLE001 - each endpoint fails in its own way
            self._usable.failed(error)
            return False
        try:
            if self._waits.stopped:  # the attempt could not be cancelled
                raise Stopped
            await self._prepare(protocol)
        except Exception as error:  # noqa: BLE001 - every error is reported as the reason
            self._usable.failed(error)
            protocol.transport.abortConnection()
        else:
            self._usable.ready(protocol)
            self.changed(None)
        reason = NotConnected(await protocol.lost)
        self._connected = None
        if self.state is not State.READY:
            return False
        self._usable.failed(reason)
        self._usable.enter(State.WAITING)
        self.changed(reason)
        return True


class _Factory(Factory):
    noisy = False


def _checked(command: type[ControlCommand], given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are not None, with the types that AMP requires.

    :raises BadArgument: if the command does not have an argument, or its value cannot be sent.
    """
    kinds = {name.decode(): kind for name, kind in command.arguments}
    checked = {}
    for name, value in given.items():
        if name not in kinds:
            raise BadArgument(f"{command.__name__} has no argument {name}")
        if value is not None:
            if isinstance(kinds[name], amp.Float) and isinstance(value, int):
                value = float(value)
            try:
                kinds[name].toStringProto(value, None)
            except Exception as error:  # noqa: BLE001 - each type fails in its own way
                raise BadArgument(f"{name} cannot be sent: {reason_of(error)}") from None
            checked[name] = value
    return checked


def with_remedy(address: str, reason: str) -> str:
    """Return the reason why a control port cannot be used, with a remedy if it is a Unix socket.

    :param address: of the control port; it is not part of the result.
    """
    remedy = _REMEDIES.get(reason) if address.startswith(("unix:", "/")) else None
    return reason if remedy is None else f"{reason}; {remedy}"


def reason_of(error: BaseException | None) -> str:
    """Return an error as one line for people."""
    match error:
        case UnicodeEncodeError():
            return "not UTF-8"
        case SSL.Error() if error.args and error.args[0]:
            # OpenSSL's latest error: library, function, reason. An alert is from the other side.
            return f"TLS: {error.args[0][-1][-1]}"
        case VerificationError():
            return "TLS: the server's certificate is for another name"
        case ConnectionDone():
            return "connection closed by the instance"
        case ConnectionLost():
            return "connection closed by the instance; see its log for the reason"
        case ConnectError() | ConnectTimeout():
            return connect_error(error)
        case _:
            return str(error) or type(error).__name__
