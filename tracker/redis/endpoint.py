"""The endpoint of a Redis server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from tracker.net.certificates import trust_root
from tracker.reactor import Reactor
from tracker.redis.address import HostAndPort, RedisAddress, host_and_port
from tracker.redis.sentinel import SENTINEL_TIMEOUT, SentinelEndpoint

#: Seconds within which a connection to a server must be established.
CONNECT_TIMEOUT: Final = 3.0


def redis_endpoint(reactor: Reactor, address: RedisAddress) -> IStreamClientEndpoint:
    """Return the server's endpoint. With TLS, it verifies the certificate and its name.

    :raises OSError: if the file of CA certificates cannot be read.
    :raises ValueError: if that file contains no certificate.
    """
    if address.path:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_TIMEOUT)

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
