"""Find the master that Redis Sentinels name.

They are asked before each connection and while it lasts: a master that was replaced confirms writes
that will be lost, until it is reconfigured some ten seconds later. (Redis documentation,
"Guidelines for Redis clients with support for Redis Sentinel"; sentinel.c,
sentinelRefreshInstanceInfo, "+convert-to-slave".)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.errors import Unavailable
from tracker.redis.protocol import RedisFactory

#: Seconds for a Sentinel to be connected to and to answer.
ASK_TIMEOUT: Final = 2.0
#: Seconds that the first answer waits for others that agree.
AGREEMENT_TIMEOUT: Final = 0.5

Place = tuple[str, int]
"""Host and port."""


class NotFound(Exception):
    """No master was found, or it was replaced; the text gives the reason in one line."""


def why_not_connected(error: BaseException | None) -> str:
    """Return why an attempt to connect has failed, in one line."""
    return "the connection timed out" if isinstance(error, ConnectTimeout) else str(error)


@implementer(IStreamClientEndpoint)
class SentinelEndpoint:
    """Connects to the server that Sentinels name as the master.

    All Sentinels are asked at once, and the majority decides. One that is down costs no time, and
    one that missed a failover is outvoted.

    :param name: the name of the master at the Sentinels.
    :param sentinels: name in messages → endpoint.
    :param server: returns the endpoint of a server with this host and port.
    :param password: of the Sentinels.
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
        self._connected_to: Place | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """See IStreamClientEndpoint.

        Fails with :class:`NotFound` if no Sentinel names a master, or the master cannot be
        connected to.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        host, port = self._connected_to = await self._locate()
        try:
            return await self._server(host, port).connect(factory)
        except Exception as error:  # noqa: BLE001 - told with the place, which nobody else knows
            raise NotFound(f"the master {host}:{port}: {why_not_connected(error)}") from None

    async def confirm(self) -> None:
        """Check that the Sentinels still name the server that is connected to.

        :raises NotFound: if they name another one.
        """
        try:
            host, port = place = await self._locate()
        except NotFound:
            return  # no Sentinel knows another master
        if place != self._connected_to:
            raise NotFound(f"replaced, the master is {host}:{port} now")

    async def _locate(self) -> Place:
        asked = {
            sentinel: Deferred.fromCoroutine(self._ask(endpoint))
            for sentinel, endpoint in self._sentinels.items()
        }
        return await _Vote(self._reactor, asked).result

    async def _ask(self, endpoint: IStreamClientEndpoint) -> Place:
        # It needs no reply timeout, since callers have a deadline.
        protocol: Any = await endpoint.connect(RedisFactory(self._reactor))
        try:
            if self._password is not None:
                await protocol.execute_command("AUTH", self._password)
            place = await protocol.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name
            )
        except Unavailable as error:
            raise NotFound(protocol.why or str(error)) from None
        finally:
            protocol.transport.abortConnection()
        if place is None:
            raise NotFound(f"knows no master {self._name}")
        try:
            host, port = place
            return host.decode("ascii"), int(port)
        except (ValueError, TypeError, AttributeError):
            raise NotFound("is no Sentinel") from None


class _Vote:
    """A vote of several Sentinels; ``result`` fires as soon as the majority is clear."""

    def __init__(self, reactor: IReactorTime, asked: Mapping[str, Deferred[Place]]) -> None:
        self.result: Deferred[Place] = Deferred(lambda _: self._end())
        self._reactor = reactor
        self._asked = asked
        self._open = set(asked)
        self._answers: Counter[Place] = Counter()
        self._reasons: dict[str, str] = {}
        self._deadline: IDelayedCall | None = None
        self._decided = False
        for sentinel, answer in asked.items():
            answer.addTimeout(ASK_TIMEOUT, reactor, self._overdue)
            answer.addCallback(self._answered)
            answer.addErrback(self._failed, sentinel)
            answer.addBoth(self._done, sentinel)

    def _overdue(self, result: Any, timeout: float) -> None:
        raise NotFound(f"no answer within {timeout:g} s")

    def _answered(self, place: Place) -> None:
        self._answers[place] += 1

    def _failed(self, failure: Failure, sentinel: str) -> None:
        self._reasons[sentinel] = why_not_connected(failure.value)

    def _done(self, _: None, sentinel: str) -> None:
        self._open.discard(sentinel)
        if self._decided:
            return
        if not self._open or max(self._answers.values(), default=0) > len(self._asked) / 2:
            self._decide()
        elif self._answers and self._deadline is None:
            self._deadline = self._reactor.callLater(AGREEMENT_TIMEOUT, self._decide)

    def _decide(self) -> None:
        self._end()
        if self._answers:
            self.result.callback(self._answers.most_common(1)[0][0])
        else:
            # In the order of the URL, so that the same reasons give the same line.
            told = "; ".join(f"{sentinel}: {self._reasons[sentinel]}" for sentinel in self._asked)
            self.result.errback(NotFound(f"no Sentinel names the master: {told}"))

    def _end(self) -> None:
        self._decided = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        for sentinel in tuple(self._open):
            self._asked[sentinel].cancel()
