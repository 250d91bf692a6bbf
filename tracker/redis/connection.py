"""A connection to Redis that reconnects whenever it is lost."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater

from tracker.durations import format_duration
from tracker.errors import Refused, Unavailable
from tracker.net.reasons import connect_error
from tracker.observe.health import Condition
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.endpoint import CONNECT_TIMEOUT, redis_endpoint
from tracker.redis.protocol import READ_ONLY, RedisFactory, RedisProtocol
from tracker.redis.sentinel import MasterNotFound, SentinelEndpoint
from tracker.runtime.backoff import Backoff
from tracker.runtime.reconnect import stay_connected
from tracker.runtime.waits import Stopped, Waits
from tracker.untrusted import shown

#: Seconds without a byte, while a reply is due, after which a connection is closed.
REPLY_TIMEOUT: Final = 4.0
#: Seconds between two attempts to connect: the first delay, and the upper limit.
MIN_RETRY_DELAY: Final = 0.1
MAX_RETRY_DELAY: Final = 1.0
#: Seconds from one check of the server's role to the next.
CHECK_INTERVAL: Final = 1.0
# Service must resume within 5 seconds after Redis is back. Two sums therefore stay below 5:
# REPLY_TIMEOUT + MIN_RETRY_DELAY, for a reply that is lost on the network, and
# CONNECT_TIMEOUT + MAX_RETRY_DELAY, for an attempt that began just before Redis was back.


class State(Enum):
    """States of a connection, in their order; after the last one, the first one follows."""

    DISCONNECTED = "disconnected"
    """Not started, waiting for the next attempt, connecting, or stopped."""
    CHECKING = "checking"
    """Connected; the login and the check of the server's role are under way."""
    USABLE = "usable"
    """Ready to send commands."""


class RedisConnection(Service):
    """A connection that reconnects whenever it is lost.

    Commands are sent at once and in order, without waiting for earlier replies. They are not
    queued: while the connection is down, they fail with ``Unavailable``.

    txredisapi's own pools are not used: they queue commands while Redis is down, which
    would use unlimited memory, and they stop reconnecting when a login fails.

    A connection is usable if it leads to a master that replies. This is checked every second,
    in order to notice an outage before a device is affected.

    :param condition: met while the connection is usable; each failed attempt is reported to it.
    :param reply_timeout: seconds without a byte from Redis, while a reply is due, after which
        the connection is closed; must exceed the time that any command may block.
    :param require_master: reject replicas and servers that are still loading. If False, any
        server that accepts the login is usable, and it receives no checks.
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
        self._protocol: RedisProtocol | None = None  # None while disconnected
        self._connected_once: list[Deferred[None]] = []
        self._waits = Waits(reactor)
        self._loop: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Start connecting."""
        super().startService()
        self._waits = Waits(self._reactor)
        backoff = Backoff(self._reactor, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._loop = Deferred.fromCoroutine(stay_connected(self._waits, backoff, self._serve))

    def stopService(self) -> Deferred[None]:
        """Disconnect, and fail the commands under way. Fires when the connection is closed."""
        super().stopService()
        waiting, self._connected_once = self._connected_once, []
        for deferred in waiting:
            deferred.errback(Unavailable("stopped"))
        self._waits.stop()
        if self._protocol is not None:
            self._protocol.abort("stopped")
        return self._loop

    def execute(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command. Fires with its reply (bulk strings as bytes).

        Fails with :class:`~tracker.errors.Unavailable` or :class:`~tracker.errors.Refused`.
        """
        if self._protocol is None or self._state is not State.USABLE:
            return fail(Unavailable("not connected"))
        return self._protocol.execute_command(*arguments)

    @property
    def connected(self) -> bool:
        """True if the connection is usable."""
        return self._state is State.USABLE

    def when_connected(self) -> Deferred[None]:
        """Return a Deferred that fires as soon as the connection is usable.

        It fails with :class:`~tracker.errors.Unavailable` if the service stops before that.
        """
        if self.connected:
            return succeed(None)
        deferred: Deferred[None] = Deferred(self._connected_once.remove)
        self._connected_once.append(deferred)
        return deferred

    async def _serve(self) -> bool:
        """Connect, and stay until the connection is lost; return True if it was usable."""
        usable = False
        try:
            endpoint = redis_endpoint(self._reactor, self._address)
            protocol: Any = await self._waits.result(endpoint.connect(self._factory))
        except Stopped:
            return False
        except Exception as error:  # noqa: BLE001 - reported and retried
            reason = connect_error(error)
        else:
            usable = await self._use(protocol, endpoint)
            reason = self._server_prefix(protocol) + protocol.close_reason
        if not self._waits.stopped:
            self._condition.fails(f"{reason} ({self._address})")
        return usable

    def _server_prefix(self, protocol: RedisProtocol) -> str:
        """Return the server's address for a message, if the URL names only Sentinels."""
        peer = protocol.transport.getPeer()
        if self._address.sentinels and isinstance(peer, IPv4Address | IPv6Address):
            return f"the master {peer.host}:{peer.port}: "
        return ""

    async def _use(self, protocol: RedisProtocol, endpoint: IStreamClientEndpoint) -> bool:
        """Use this connection until it is lost; return True if it was usable."""
        lost = protocol.whenDisconnected()
        self._protocol, self._state = protocol, State.CHECKING
        supervision = Deferred.fromCoroutine(self._supervise(protocol, endpoint))
        await lost
        was_usable = self.connected
        self._protocol, self._state = None, State.DISCONNECTED
        supervision.cancel()
        return was_usable

    async def _supervise(self, protocol: RedisProtocol, endpoint: IStreamClientEndpoint) -> None:
        """Mark the connection as usable after the checks; close it as soon as one fails."""
        overdue = self._reactor.callLater(
            CONNECT_TIMEOUT,
            protocol.abort,
            f"no reply within {format_duration(CONNECT_TIMEOUT)}"
            f"{' over TLS' if self._address.tls else ''}",
        )
        try:
            # A connected server is not always usable: TLS may still fail, or the server may
            # require a password, be loading its data, or be a replica.
            await self._log_in(protocol)
            if self._require_master:
                await _check(protocol)
            overdue.cancel()
            self._set_usable()
            while self._require_master:
                await deferLater(self._reactor, CHECK_INTERVAL)
                await _check(protocol)
                if isinstance(endpoint, SentinelEndpoint):
                    await endpoint.confirm()
        except CancelledError:
            return
        except (Refused, Unavailable, MasterNotFound) as error:
            protocol.abort(str(error))
        finally:
            if overdue.active():
                overdue.cancel()

    async def _log_in(self, protocol: RedisProtocol) -> None:
        """Log in and select the database.

        :raises Refused, Unavailable: if that fails; the message gives the reason.
        """
        address = self._address
        if address.password is not None:
            user = (address.username,) if address.username else ()
            try:
                await protocol.execute_command("AUTH", *user, address.password)
            except Refused as error:
                raise Refused(f"login failed: {error}") from None
        if address.database:
            try:
                await protocol.execute_command("SELECT", address.database)
            except Refused as error:
                raise Refused(f"cannot select database {address.database}: {error}") from None

    def _set_usable(self) -> None:
        self._state = State.USABLE
        self.connections += 1
        self._condition.met()
        waiting, self._connected_once = self._connected_once, []
        for deferred in waiting:
            deferred.callback(None)


async def _check(protocol: RedisProtocol) -> None:
    """Check that the server replies and is a master.

    :raises Refused, Unavailable: if not; the message gives the reason.
    """
    await protocol.execute_command("PING")
    try:
        reply = await protocol.execute_command("ROLE")
    except Refused as error:
        # Some users have no permission for ROLE, and some proxies do not know it.
        if str(error).startswith(("NOPERM", "ERR unknown command")):
            return
        raise
    role = reply[0] if isinstance(reply, list) and reply else None
    if not isinstance(role, bytes):
        raise Unavailable("not a Redis server: it does not report its role")
    if role != b"master":
        raise Unavailable(
            READ_ONLY if role == b"slave" else f"not a Redis server: its role is {shown(role)}"
        )
