"""The endpoint of a Redis server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from zope.interface import implementer

from tracker.net.certificates import trust_root
from tracker.reactor import Reactor
from tracker.redis.address import HostAndPort, RedisAddress, host_and_port
from tracker.redis.sentinel import SENTINEL_TIMEOUT, SentinelEndpoint

#: Seconds within which a connection to a server must be established.
CONNECT_TIMEOUT: Final = 3.0
#: Seconds within which a server accepts connections after its start; a longer start is reported.
START_TIMEOUT: Final = 5.0
#: Seconds between two attempts to connect to a server that is starting.
START_POLL: Final = 0.05


def redis_endpoint(reactor: Reactor, address: RedisAddress) -> IStreamClientEndpoint:
    """Return the server's endpoint. With TLS, it verifies the certificate and its name.

    :raises OSError: if the file of CA certificates cannot be read.
    :raises ValueError: if that file contains no certificate.
    """
    if address.path:
        local = UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_TIMEOUT)
        return _StartingEndpoint(reactor, local) if address.embedded else local

    def tcp(server: HostAndPort, timeout: float) -> IStreamClientEndpoint:
        host, port = server
        plain = HostnameEndpoint(reactor, host, port, timeout=timeout)
        if not address.tls:
            return plain
        trusted = None if address.ca_file is None else trust_root(Path(address.ca_file))
        return wrapClientTLS(optionsForClientTLS(host, trustRoot=trusted), plain)

    if not address.sentinels:
        return tcp((address.host, address.port), CONNECT_TIMEOUT)
    return SentinelEndpoint(
        reactor,
        address.master,
        {host_and_port(one): tcp(one, SENTINEL_TIMEOUT) for one in address.sentinels},
        server=lambda host, port: tcp((host, port), CONNECT_TIMEOUT),
        password=address.sentinel_password,
    )


@implementer(IStreamClientEndpoint)
class _StartingEndpoint:
    """An endpoint that waits for a server that is starting."""

    def __init__(self, clock: IReactorTime, endpoint: IStreamClientEndpoint) -> None:
        self._clock = clock
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """Connect; fails with the last error if the server does not start in time."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        end = self._clock.seconds() + START_TIMEOUT
        while True:
            try:
                return await self._endpoint.connect(factory)
            except ConnectError:
                if self._clock.seconds() >= end:
                    raise
            await deferLater(self._clock, START_POLL)
