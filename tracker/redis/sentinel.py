"""Discovery of the master through Redis Sentinels.

The Sentinels are queried before each connection and while it lasts: a replaced master accepts
writes that will be lost, until it is reconfigured some ten seconds later. (Redis documentation,
"Guidelines for Redis clients with support for Redis Sentinel"; sentinel.c,
sentinelRefreshInstanceInfo, "+convert-to-slave".)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.durations import format_duration
from tracker.errors import Unavailable
from tracker.net.reasons import connect_error
from tracker.redis.address import HostAndPort
from tracker.redis.protocol import RedisFactory

#: Seconds within which a Sentinel must be connected to and reply.
SENTINEL_TIMEOUT: Final = 2.0
#: Seconds after the first reply within which other Sentinels may still reply.
AGREEMENT_TIMEOUT: Final = 0.5


class MasterNotFound(Exception):
    """The master is unknown, unreachable or replaced; the message gives the reason in one line."""


@implementer(IStreamClientEndpoint)
class SentinelEndpoint:
    """Endpoint of the server that Sentinels name as the master.

    All Sentinels are queried at once, and the majority decides. A Sentinel that is down costs no
    time, and one that missed a failover is outvoted.

    :param name: the name of the master at the Sentinels.
    :param sentinels: name in messages → endpoint.
    :param server: returns the endpoint of a server with this host and port.
    :param password: the password of the Sentinels.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        name: str,
        sentinels: Mapping[str, IStreamClientEndpoint],
        *,
        server: Callable[[str, int], IStreamClientEndpoint],
        password: str | None,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._sentinels = sentinels
        self._server = server
        self._password = password
        self._connected_to: HostAndPort | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """See IStreamClientEndpoint.

        Fails with :class:`MasterNotFound` if no Sentinel names a master, or the master does not
        accept the connection.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        host, port = self._connected_to = await self._locate()
        try:
            return await self._server(host, port).connect(factory)
        except Exception as error:  # noqa: BLE001 - only here the master's address is known
            raise MasterNotFound(f"the master {host}:{port}: {connect_error(error)}") from None

    async def confirm(self) -> None:
        """Check that the Sentinels still name the connected server.

        :raises MasterNotFound: if they name another one.
        """
        try:
            host, port = master = await self._locate()
        except MasterNotFound:
            return  # no Sentinel knows another master
        if master != self._connected_to:
            raise MasterNotFound(f"replaced; the master is now {host}:{port}")

    async def _locate(self) -> HostAndPort:
        queries = {
            sentinel: Deferred.fromCoroutine(self._query(endpoint))
            for sentinel, endpoint in self._sentinels.items()
        }
        return await _Vote(self._reactor, queries).result

    async def _query(self, endpoint: IStreamClientEndpoint) -> HostAndPort:
        # No reply timeout is needed, because _Vote has a deadline.
        protocol: Any = await endpoint.connect(RedisFactory(self._reactor))
        try:
            if self._password is not None:
                await protocol.execute_command("AUTH", self._password)
            master = await protocol.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name
            )
        except Unavailable as error:
            raise MasterNotFound(protocol.close_reason or str(error)) from None
        finally:
            protocol.transport.abortConnection()
        if master is None:
            raise MasterNotFound(f"unknown master {self._name}")
        try:
            host, port = master
            return host.decode("ascii"), int(port)
        except (ValueError, TypeError, AttributeError):
            raise MasterNotFound("not a Sentinel") from None


class _Vote:
    """A vote of several Sentinels; ``result`` fires as soon as the majority is clear."""

    def __init__(self, reactor: IReactorTime, queries: Mapping[str, Deferred[HostAndPort]]) -> None:
        self.result: Deferred[HostAndPort] = Deferred(lambda _: self._end())
        self._reactor = reactor
        self._queries = queries
        self._pending = set(queries)
        self._votes: Counter[HostAndPort] = Counter()
        self._reasons: dict[str, str] = {}
        self._deadline: IDelayedCall | None = None
        self._decided = False
        for sentinel, query in queries.items():
            query.addTimeout(SENTINEL_TIMEOUT, reactor, self._timed_out)
            query.addCallback(self._count)
            query.addErrback(self._failed, sentinel)
            query.addBoth(self._done, sentinel)

    def _timed_out(self, result: Any, timeout: float) -> None:
        raise MasterNotFound(f"no reply within {format_duration(timeout)}")

    def _count(self, master: HostAndPort) -> None:
        self._votes[master] += 1

    def _failed(self, failure: Failure, sentinel: str) -> None:
        self._reasons[sentinel] = connect_error(failure.value)

    def _done(self, _: None, sentinel: str) -> None:
        self._pending.discard(sentinel)
        if self._decided:
            return
        if not self._pending or max(self._votes.values(), default=0) > len(self._queries) / 2:
            self._decide()
        elif self._votes and self._deadline is None:
            self._deadline = self._reactor.callLater(AGREEMENT_TIMEOUT, self._decide)

    def _decide(self) -> None:
        self._end()
        if self._votes:
            self.result.callback(self._votes.most_common(1)[0][0])
        else:
            # The order of the URL makes equal reasons give equal lines.
            reasons = (f"{sentinel}: {self._reasons[sentinel]}" for sentinel in self._queries)
            message = f"no Sentinel names the master: {'; '.join(reasons)}"
            self.result.errback(MasterNotFound(message))

    def _end(self) -> None:
        self._decided = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        for sentinel in tuple(self._pending):
            self._queries[sentinel].cancel()
