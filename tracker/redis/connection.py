"""One connection to Redis, which is made again whenever it is lost."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater

from tracker.errors import Refused, Unavailable
from tracker.observe.health import Condition
from tracker.reactor import Reactor
from tracker.redis.address import CONNECT_TIMEOUT, RedisAddress
from tracker.redis.protocol import READ_ONLY, RedisFactory, RedisProtocol
from tracker.redis.sentinel import NotFound, SentinelEndpoint, why_not_connected
from tracker.runtime.backoff import Backoff
from tracker.runtime.reconnect import stay_connected
from tracker.runtime.waits import Stopped, Waits
from tracker.untrusted import shown

#: Seconds without a byte, while a reply is due, after which a connection counts as dead.
REPLY_TIMEOUT: Final = 4.0
#: Seconds between two attempts to connect: at first, and at most.
FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 1.0
#: Seconds from one check of the server's role to the next.
CHECK_INTERVAL: Final = 1.0
# Service is to resume within 5 seconds of Redis' return. So these must stay below 5:
# REPLY_TIMEOUT + FIRST_RETRY, for an answer that is lost on the way, and
# CONNECT_TIMEOUT + LAST_RETRY, for an attempt that began just before the return.


class State(Enum):
    """State of a connection: each is followed by the next one, the last one by the first."""

    DISCONNECTED = "disconnected"
    """Not started, waiting for the next attempt, connecting, or stopped."""
    CHECKING = "checking"
    """Connected; it is not known yet whether the server is usable."""
    USABLE = "usable"
    """Commands are sent."""


class RedisConnection(Service):
    """A connection that is made again whenever it is lost.

    Commands go out at once, in order and without waiting for each other; none is
    kept for later: while the connection is down they fail with ``Unavailable``.

    txredisapi's own pools are not used: they keep commands while Redis is away, which
    would give up the bound on memory, and stop for good when a login fails.

    A connection is usable if it leads to a master that answers. That is checked every second, so
    that an outage is known before a device suffers from it.

    :param condition: met when the connection is usable; each failed attempt is reported.
    :param reply_timeout: seconds without a byte from Redis, while a reply is due, after which
        the connection is closed; must exceed the time that any command may block.
    :param require_master: reject replicas and servers that are still loading. If False, any
        server is usable that lets us log in, and nothing is asked of it unprompted.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: RedisAddress,
        condition: Condition,
        *,
        reply_timeout: float = REPLY_TIMEOUT,
        require_master: bool = True,
    ) -> None:
        self._reactor = reactor
        self._require_master = require_master
        self._address = address
        self._condition = condition
        self._factory = RedisFactory(reactor, reply_timeout)
        self.connections = 0
        """Number of connections that have been usable so far."""
        self._state = State.DISCONNECTED
        self._protocol: RedisProtocol | None = None  # unless it is disconnected
        self._connected_once: list[Deferred[None]] = []
        self._waits = Waits(reactor)
        self._loop: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self._waits = Waits(self._reactor)
        backoff = Backoff(self._reactor, FIRST_RETRY, LAST_RETRY)
        self._loop = Deferred.fromCoroutine(stay_connected(self._waits, backoff, self._serve))

    def stopService(self) -> Deferred[None]:
        """Disconnect; commands under way fail. Fires when the connection is gone."""
        super().stopService()
        waiting, self._connected_once = self._connected_once, []
        for deferred in waiting:
            deferred.errback(Unavailable("stopped"))
        self._waits.stop()
        if self._protocol is not None:
            self._protocol.give_up("stopped")
        return self._loop

    def execute(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command; fires with its answer (bulk strings as bytes).

        Fails with :class:`~tracker.errors.Unavailable` or :class:`~tracker.errors.Refused`.
        """
        if self._protocol is None or self._state is not State.USABLE:
            return fail(Unavailable("not connected"))
        return self._protocol.execute_command(*arguments)

    @property
    def connected(self) -> bool:
        """True if a command would be sent."""
        return self._state is State.USABLE

    def when_connected(self) -> Deferred[None]:
        """Return a Deferred that fires as soon as a command would be sent.

        It fails with :class:`~tracker.errors.Unavailable` if the service stops before.
        """
        if self.connected:
            return succeed(None)
        deferred: Deferred[None] = Deferred(self._connected_once.remove)
        self._connected_once.append(deferred)
        return deferred

    async def _serve(self) -> bool:
        """Connect, and serve commands until the connection is lost; return True if it did."""
        usable = False
        try:
            endpoint = self._address.endpoint(self._reactor)
            protocol: Any = await self._waits.result(endpoint.connect(self._factory))
        except Stopped:
            return False
        except Exception as error:  # noqa: BLE001 - reported, and tried again
            reason = why_not_connected(error)
        else:
            usable = await self._use(protocol, endpoint)
            reason = self._server_of(protocol) + protocol.why
        if not self._waits.stopped:
            self._condition.fails(f"{reason} ({self._address})")
        return usable

    def _server_of(self, protocol: RedisProtocol) -> str:
        """Return which server it is, where the address does not say so."""
        peer = protocol.transport.getPeer()
        if self._address.sentinels and isinstance(peer, IPv4Address | IPv6Address):
            return f"the master {peer.host}:{peer.port}: "
        return ""

    async def _use(self, protocol: RedisProtocol, endpoint: IStreamClientEndpoint) -> bool:
        """Serve commands by this connection until it is lost; return True if it was usable."""
        lost = protocol.whenDisconnected()
        self._protocol, self._state = protocol, State.CHECKING
        watched = Deferred.fromCoroutine(self._watch(protocol, endpoint))
        await lost
        was_usable = self.connected
        self._protocol, self._state = None, State.DISCONNECTED
        watched.cancel()
        return was_usable

    async def _watch(self, protocol: RedisProtocol, endpoint: IStreamClientEndpoint) -> None:
        """Admit the connection once it is usable, and close it when it no longer is."""
        overdue = self._reactor.callLater(
            CONNECT_TIMEOUT, protocol.give_up, f"no answer within {CONNECT_TIMEOUT:g} s"
        )
        try:
            # Connected is not yet usable: TLS may fail after this, the server may want a
            # password, be loading its data, or be a replica.
            await self._log_in(protocol)
            if self._require_master:
                await _check(protocol)
            overdue.cancel()
            self._admit()
            while self._require_master:
                await deferLater(self._reactor, CHECK_INTERVAL)
                await _check(protocol)
                if isinstance(endpoint, SentinelEndpoint):
                    await endpoint.confirm()
        except CancelledError:
            return
        except (Refused, Unavailable, NotFound) as error:
            protocol.give_up(str(error))
        finally:
            if overdue.active():
                overdue.cancel()

    async def _log_in(self, protocol: RedisProtocol) -> None:
        """Log in and select the database.

        :raises Refused, Unavailable: with the reason if that failed.
        """
        address = self._address
        if address.password is not None:
            user = (address.username,) if address.username else ()
            try:
                await protocol.execute_command("AUTH", *user, address.password)
            except Refused as error:
                raise Refused(f"Redis error: could not auth: {error}") from None
        if address.database:
            try:
                await protocol.execute_command("SELECT", address.database)
            except Refused as error:
                raise Refused(
                    f"Redis error: could not set dbid={address.database}: {error}"
                ) from None

    def _admit(self) -> None:
        self._state = State.USABLE
        self.connections += 1
        self._condition.met()
        waiting, self._connected_once = self._connected_once, []
        for deferred in waiting:
            deferred.callback(None)


async def _check(protocol: RedisProtocol) -> None:
    """Return if the server answers and is a master.

    :raises Refused, Unavailable: with the reason if not.
    """
    await protocol.execute_command("PING")
    try:
        reply = await protocol.execute_command("ROLE")
    except Refused as error:
        # Some users may not run ROLE, and some proxies do not know it.
        if str(error).startswith(("NOPERM", "ERR unknown command")):
            return
        raise
    role = reply[0] if isinstance(reply, list) and reply else None
    if not isinstance(role, bytes):
        raise Unavailable("no server: it does not report its role")
    if role != b"master":
        raise Unavailable(READ_ONLY if role == b"slave" else f"a {shown(role)}, no server")
