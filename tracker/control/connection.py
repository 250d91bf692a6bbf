"""The connection of a client to a control port, which is made again whenever it is lost."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.application.service import Service
from twisted.internet.defer import (
    Deferred,
    TimeoutError,  # noqa: A004
    succeed,
)
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
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
from tracker.net.endpoints import keep_alive
from tracker.runtime.backoff import Backoff
from tracker.runtime.reconnect import stay_connected
from tracker.runtime.waits import Stopped, Waits
from tracker.untrusted import MAX_LINE, shown

#: Seconds for an answer that depends on the instance and Redis only.
REPLY_TIMEOUT: Final = 15.0
#: Seconds within which a connection has to be made and greeted.
GREETING_TIMEOUT: Final = 10.0
#: Seconds between two attempts to connect: at first, and at most.
MIN_RETRY_DELAY: Final = 0.5
MAX_RETRY_DELAY: Final = 10.0


class NotConnected(ControlError):
    """The control port cannot be reached, or the connection was lost; the text gives the reason."""


class State(Enum):
    """The state of a connection."""

    STOPPED = "stopped"
    CONNECTING = "connecting, or being prepared"
    READY = "ready for commands"
    WAITING = "waiting for the next attempt"
    OVER = "failed, without another attempt"


#: States in which, or after which, commands can be sent without another start.
_ACTIVE_STATES: Final = frozenset({State.CONNECTING, State.READY, State.WAITING})

#: Called with None when the connection is usable, else with the reason why it was lost.
Change = Callable[[ControlError | None], None]


@implementer(IHandshakeListener)
class ClientProtocol(BoxProtocol):
    """The client's end of one connection."""

    def __init__(self, clock: IReactorTime, locator: Locator) -> None:
        super().__init__(locator)
        self._clock = clock
        self.secured: Deferred[None] = Deferred()
        """Fires when commands may be sent: over TLS, when the server has proved who it is."""
        self.lost: Deferred[str] = Deferred()
        """Fires when the connection is lost, with the reason."""

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
        """Agree with the instance on the version; return its answer.

        :param name: the client's name in the instance's log.
        """
        try:
            await self.secured.addTimeout(GREETING_TIMEOUT, self._clock)
        except TimeoutError:
            raise NotConnected(f"no TLS within {GREETING_TIMEOUT:g} s") from None
        return await self.ask(Hello, GREETING_TIMEOUT, {"version": VERSION, "client": name})

    async def ask(
        self, command: type[ControlCommand], timeout: float | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the answer to a command.

        :param timeout: seconds; None: wait for it however long it takes.
        :param arguments: those that are None are left out.
        :raises ControlError: see the command.
        """
        given = _checked(command, arguments)
        try:
            asked: Deferred[dict[str, Any]] = self.dispatcher.callRemote(command, **given)
            if timeout is not None:
                asked.addTimeout(timeout, self._clock)
            return await asked
        except ControlError as error:
            raise type(error)(shown(error, MAX_LINE)) from None
        except TimeoutError:
            raise NotConnected(f"no answer within {timeout:g} s") from None
        except amp.UnhandledCommand:
            raise VersionMismatch(
                f"the instance does not know {command.__name__}: it is of an older version"
            ) from None
        except amp.RemoteAmpError as error:
            code, text = shown(error.errorCode), shown(error.description, MAX_LINE)
            raise ControlError(f"{code}: {text}") from None
        except amp.TooLong:
            raise BadArgument("an argument is too long") from None
        except Exception as error:  # noqa: BLE001 - the connection was lost, for any reason
            raise NotConnected(reason_of(error)) from None


class _UsableConnection:
    """The usable connection, and those who wait for it."""

    def __init__(self, clock: IReactorTime) -> None:
        self.state = State.STOPPED
        self._clock = clock
        self._protocol: ClientProtocol | None = None
        self._reason: ControlError = NotConnected("not started")
        self._wanted: list[Deferred[ClientProtocol]] = []

    @property
    def reason(self) -> ControlError:
        """Why there is no usable connection: a new object, as errors remember where they go."""
        return type(self._reason)(str(self._reason))

    async def get(self) -> ClientProtocol:
        """Return the connection, now or when it is usable.

        :raises ControlError: if there will be none, or none in time.
        """
        if self._protocol is not None:
            return self._protocol
        if self.state not in _ACTIVE_STATES:
            raise self.reason
        wanted: Deferred[ClientProtocol] = Deferred()
        self._wanted.append(wanted)
        try:
            return await wanted.addTimeout(GREETING_TIMEOUT, self._clock)
        except TimeoutError:
            raise self.reason from None
        finally:
            if wanted in self._wanted:
                self._wanted.remove(wanted)

    def enter(self, state: State) -> None:
        """Enter a state in which there is no usable connection."""
        self.state = state
        self._protocol = None
        if state not in _ACTIVE_STATES:
            self._refuse()

    def ready(self, protocol: ClientProtocol) -> None:
        """Enter the state in which there is one."""
        self.state = State.READY
        self._protocol = protocol
        wanted, self._wanted = self._wanted, []
        for deferred in wanted:
            deferred.callback(protocol)

    def fails(self, error: BaseException) -> None:
        """Note why there is none; do not wait if the next attempt will fail for the same reason."""
        if isinstance(error, ControlError):
            self._reason = error
        else:
            self._reason = NotConnected(reason_of(error))
        if not isinstance(self._reason, NotConnected):
            self._refuse()

    def _refuse(self) -> None:
        wanted, self._wanted = self._wanted, []
        for deferred in wanted:
            deferred.errback(self.reason)


class ControlConnection(Service):
    """A connection that is made again whenever it is lost.

    :param retry: False: stop at the first failure or loss.
    :param locator: answers the commands of the instance.
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
        """Called when the connection is usable, and when it was lost."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._factory = _Factory.forProtocol(lambda: ClientProtocol(reactor, locator))
        self._retry = retry
        self._prepare = prepare
        self._usable = _UsableConnection(reactor)
        self._waits = Waits(reactor)
        self._made: ClientProtocol | None = None  # not necessarily usable
        self._loop: Deferred[None] = succeed(None)

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self._usable.state

    @property
    def connection_error(self) -> ControlError | None:
        """Why no command can be sent now; None if one can."""
        return None if self.state is State.READY else self._usable.reason

    def startService(self) -> None:
        """Start connecting."""
        super().startService()
        self._waits = Waits(self._reactor)
        self._usable.fails(NotConnected(f"no connection within {GREETING_TIMEOUT:g} s"))
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Disconnect; fires when that is done."""
        super().stopService()
        self._waits.stop()
        if self._made is not None:
            self._made.transport.loseConnection()
        return self._loop

    async def ask(
        self, command: type[ControlCommand], timeout: float | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Send a command when the connection is usable, and return its answer.

        :param timeout: seconds for the answer; None: no limit.
        :raises ControlError: see the command; :class:`NotConnected` if it cannot be sent in time.
        """
        protocol = await self._usable.get()
        return await protocol.ask(command, timeout, arguments)

    async def _run(self) -> None:
        if self._retry:
            backoff = Backoff(self._reactor, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
            await stay_connected(self._waits, backoff, self._serve)
        else:
            await self._serve()
        if self._waits.stopped:
            self._usable.fails(NotConnected("stopped"))
        self._usable.enter(State.STOPPED if self._waits.stopped else State.OVER)

    async def _serve(self) -> bool:
        """Connect, and return when the connection is lost: True if it was usable."""
        self._usable.enter(State.CONNECTING)
        usable = await self._connect_once()
        self._usable.enter(State.WAITING)
        return usable

    async def _connect_once(self) -> bool:
        try:
            connecting: Deferred[Any] = self._endpoint.connect(self._factory)
            self._made = protocol = await self._waits.result(connecting)
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being connected
            self._usable.fails(error)
            return False
        try:
            if self._waits.stopped:  # and the attempt could not be cancelled
                raise Stopped
            await self._prepare(protocol)
        except Exception as error:  # noqa: BLE001 - as above
            self._usable.fails(error)
            protocol.transport.abortConnection()
        else:
            self._usable.ready(protocol)
            self.changed(None)
        reason = NotConnected(await protocol.lost)
        self._made = None
        if self.state is not State.READY:
            return False
        self._usable.fails(reason)
        self._usable.enter(State.WAITING)
        self.changed(reason)
        return True


class _Factory(Factory):
    noisy = False


def _checked(command: type[ControlCommand], given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are not None, as AMP takes them.

    :raises BadArgument: if there is no such argument, or it cannot be sent.
    """
    kinds = {name.decode(): kind for name, kind in command.arguments}
    made = {}
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
            made[name] = value
    return made


def reason_of(error: BaseException | None) -> str:
    """Return one line, for people."""
    match error:
        case UnicodeEncodeError():
            return "is not UTF-8"
        case SSL.Error() if error.args and error.args[0]:
            # What OpenSSL says, last: library, function, reason. An alert is the other side's.
            return f"TLS: {error.args[0][-1][-1]}"
        case VerificationError():
            return "TLS: the server's certificate is for another name"
        case ConnectionDone():
            return "the instance has closed the connection"
        case ConnectionLost():
            return "the connection was cut off: the instance tells why in its log, if it was that"
        case ConnectError() if error.osError is not None:
            return os.strerror(error.osError)
        case _:
            return str(error) or type(error).__name__
