"""One connection to Redis that is always there or on its way back."""

from __future__ import annotations

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tracker.errors import Refused, Unanswered, Unavailable
from tracker.observe.health import Condition
from tracker.redis.address import CONNECT_TIMEOUT, RedisAddress
from tracker.redis.protocol import RedisProtocol
from tracker.redis.sentinel import NotFound, SentinelEndpoint, why_not_connected

#: Seconds without a byte, while a reply is due, after which a connection counts as dead.
REPLY_TIMEOUT: Final = 4.0
#: Seconds between two attempts to connect: at first, and at most.
FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 1.0
#: Seconds from an answer to the next question whether the server still is what it was.
CHECK_INTERVAL: Final = 1.0
# Service is to resume within 5 seconds of Redis' return. So these must stay below 5:
# REPLY_TIMEOUT + FIRST_RETRY, for an answer that is lost on the way, and
# CONNECT_TIMEOUT + LAST_RETRY, for an attempt that began just before the return.

_READ_ONLY: Final = "a read-only replica"


class RedisConnection(Service):
    """A connection that is made again whenever it is lost.

    Commands go out at once, in order and without waiting for each other; none is
    kept for later: while the connection is down they fail with ``Unavailable``.

    txredisapi's own pools are not used: they keep commands while Redis is away, which
    would give up the bound on memory, and stop for good when a login fails.

    Usable is a connection to a master that answers. While nothing else is asked, it is
    asked for that every second, so that an outage is known before a device suffers it.

    :param condition: met when the connection is usable; each failed attempt is reported.
    :param reply_timeout: seconds without a byte from Redis, while a reply is due, after which
        the connection is closed; must exceed the time that any command may block.
    :param demanding: whether it is so; else any server is usable that lets us log in, and
        is asked for nothing by itself: for those who want to know what is wrong with it.
    """

    def __init__(
        self,
        reactor: Any,
        address: RedisAddress,
        condition: Condition,
        reply_timeout: float = REPLY_TIMEOUT,
        demanding: bool = True,
    ) -> None:
        self._reactor = reactor
        self._demanding = demanding
        self._address = address
        self._condition = condition
        self._reply_timeout = reply_timeout
        self.connections = 0
        """How many connections have been usable so far."""
        self._made: _Protocol | None = None
        self._protocol: _Protocol | None = None  # the same, once it is usable
        self._connected_once: list[Deferred[None]] = []
        self._attempt: Deferred[Any] | None = None
        self._loop: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._stay_connected())

    def stopService(self) -> Deferred[None]:
        """Disconnect; commands under way fail. Fires when the connection is gone."""
        super().stopService()
        waiting, self._connected_once = self._connected_once, []
        for deferred in waiting:
            deferred.errback(Unavailable("stopped"))
        if self._attempt is not None:
            self._attempt.cancel()
        if self._made is not None:
            self._made.give_up("stopped")
        return self._loop

    def execute(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command; fires with its answer (bulk strings as bytes).

        Fails with :class:`~tracker.errors.Unavailable` or :class:`~tracker.errors.Refused`.
        """
        if self._protocol is None:
            return fail(Unavailable("not connected"))
        return self._protocol.ask(*arguments)

    @property
    def connected(self) -> bool:
        """Whether a command would be sent."""
        return self._protocol is not None

    def when_connected(self) -> Deferred[None]:
        """Fires as soon as a command would be sent: now, or after the next connection.

        Fails with :class:`~tracker.errors.Unavailable` when the service stops before.
        """
        if self._protocol is not None:
            return succeed(None)
        deferred: Deferred[None] = Deferred(self._connected_once.remove)
        self._connected_once.append(deferred)
        return deferred

    async def _stay_connected(self) -> None:
        delay = FIRST_RETRY
        while self.running:
            factory = _Factory(self._reactor, self._address, self._reply_timeout)
            try:
                endpoint = self._address.endpoint(self._reactor)
                protocol = await self._cancellable(endpoint.connect(factory))
            except CancelledError:
                break
            except Exception as error:  # noqa: BLE001 - told, and tried again
                reason = why_not_connected(error)
            else:
                if await self._use(protocol, endpoint):
                    delay = FIRST_RETRY
                reason = protocol.server + protocol.why
            if not self.running:
                break
            self._condition.fails(f"{reason} ({self._address})")
            try:
                await self._cancellable(deferLater(self._reactor, delay))
            except CancelledError:
                break
            delay = min(2 * delay, LAST_RETRY)

    async def _use(self, protocol: _Protocol, endpoint: IStreamClientEndpoint) -> bool:
        """Serve commands by this connection until it is lost; whether it ever did."""
        lost = protocol.whenDisconnected()
        self._made = protocol
        watched = Deferred.fromCoroutine(self._watch(protocol, endpoint))
        await lost
        was_usable = self._protocol is not None
        self._made = self._protocol = None
        watched.cancel()
        return was_usable

    async def _watch(self, protocol: _Protocol, endpoint: IStreamClientEndpoint) -> None:
        """Let the connection be used as soon, and only as long, as it is fit for use."""
        overdue = self._reactor.callLater(
            CONNECT_TIMEOUT, protocol.give_up, f"no answer within {CONNECT_TIMEOUT:g} s"
        )
        try:
            # Connected is not yet usable: TLS may fail after this, the server may want a
            # password, be loading its data, or be a replica.
            await protocol.whenConnected()
            if self._demanding:
                await protocol.check()
            overdue.cancel()
            self._admit(protocol)
            while self._demanding:
                await deferLater(self._reactor, CHECK_INTERVAL)
                await protocol.check()
                if isinstance(endpoint, SentinelEndpoint):
                    await endpoint.confirm()
        except CancelledError:
            return
        except (Refused, Unavailable, NotFound) as error:
            protocol.give_up(str(error))
        finally:
            if overdue.active():
                overdue.cancel()

    def _admit(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self.connections += 1
        self._condition.met()
        waiting, self._connected_once = self._connected_once, []
        for deferred in waiting:
            deferred.callback(None)

    async def _cancellable(self, deferred: Deferred[Any]) -> Any:
        self._attempt = deferred
        try:
            return await deferred
        finally:
            self._attempt = None


class _Protocol(RedisProtocol):
    """txredisapi's protocol, which remembers why it ended."""

    why = ""
    server = ""
    """Which one it is, where the address does not say so."""

    def ask(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command; fires with its answer."""
        answer: Deferred[Any] = self.execute_command(*arguments)
        if isinstance(self.transport, tcp.Connection) and not self.transport.TLS:
            # Else it would wait until the reactor has read all that can be read.
            self.transport.doWrite()
        return answer.addErrback(self._explain)

    def _explain(self, failure: Failure) -> Failure:
        if failure.check(Unanswered):
            self.why = self.why or failure.getErrorMessage()
        # Where a script was refused, Redis before 7.0 says so in the middle of the line.
        elif failure.check(Refused) and "READONLY " in failure.getErrorMessage():
            # It was the master. Who is now, the next attempt to connect will tell.
            self.give_up(_READ_ONLY)
            return Failure(Unavailable(_READ_ONLY))
        return failure

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

    async def check(self) -> None:
        """Return when the server answers and is a master.

        :raises Refused, Unavailable: with the reason if not.
        """
        await self.ask("PING")
        try:
            role, *_ = await self.ask("ROLE")
        except Refused as error:
            # Some users may not ask, and some servers that stand for others cannot tell.
            if str(error).startswith(("NOPERM", "ERR unknown command")):
                return
            raise
        if role != b"master":
            raise Unavailable(_READ_ONLY if role == b"slave" else f"a {role.decode()}, no server")

    def give_up(self, why: str) -> None:
        """Close the connection at once."""
        self.why = self.why or why
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.why = self.why or f"connection lost: {reason.getErrorMessage()}"
        super().connectionLost(reason)


class _Factory(Factory):
    """What :class:`_Protocol` expects of its factory."""

    noisy = False
    isLazy = False

    def __init__(self, reactor: Any, address: RedisAddress, reply_timeout: float) -> None:
        self._reactor = reactor
        self._address = address
        self._reply_timeout = reply_timeout
        self._built: _Protocol | None = None

    def buildProtocol(self, addr: IAddress | None) -> _Protocol:
        """The connection's protocol."""
        protocol = _Protocol(
            self._reactor,
            self._reply_timeout,
            dbid=self._address.database or None,
            username=self._address.username,
            password=self._address.password,
        )
        protocol.factory = self
        if self._address.sentinels and isinstance(addr, (IPv4Address, IPv6Address)):
            protocol.server = f"the master {addr.host}:{addr.port}: "
        self._built = protocol
        return protocol

    def stopTrying(self) -> None:
        """Asked by txredisapi after a failed login. The password may be mended in Redis."""

    def connectionError(self, why: str) -> None:
        """Told by txredisapi why it could not log in or select the database."""
        assert self._built is not None  # noqa: S101 - it is the caller
        self._built.why = why
