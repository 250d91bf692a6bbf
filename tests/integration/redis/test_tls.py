"""Connections to Redis over TLS, and the certificates they trust."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.protocols.portforward import ProxyFactory

from tests.certificates import certify, key_of
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.waiting import until
from tracker.redis.address import RedisAddress


class Tunnel:
    """A TLS port in front of the test's Redis."""

    def __init__(self, certificate: Path, port: int) -> None:
        self.certificate = certificate
        self.port = port

    def address(self, ca: Path | None) -> RedisAddress:
        query = f"?ca={ca}" if ca else ""
        return RedisAddress.from_url(f"rediss://127.0.0.1:{self.port}/0{query}")


async def listen(certificate: Path, redis: RedisServer) -> tuple[Tunnel, object]:
    from twisted.internet import reactor

    endpoint = serverFromString(
        reactor,
        f"ssl:0:interface=127.0.0.1:privateKey={key_of(certificate)}:certKey={certificate}",
    )
    port = await endpoint.listen(ProxyFactory("127.0.0.1", redis.port))
    return Tunnel(certificate, port.getHost().port), port


@pytest_twisted.async_yield_fixture
async def tunnel(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Tunnel]:
    tunnel, port = await listen(certify(tmp_path, "127.0.0.1"), redis)
    yield tunnel
    await port.stopListening()  # type: ignore[attr-defined]


@ensureDeferred
async def test_certificate_of_the_given_ca_is_trusted(tunnel: Tunnel) -> None:
    connected = Connected(tunnel.address(tunnel.certificate))
    await connected.usable()
    assert await connected.connection.execute("PING") == b"PONG"
    await connected.connection.stopService()


@pytest.mark.parametrize("trusted", ["CAs of the system", "another CA"])
@ensureDeferred
async def test_certificate_of_an_unknown_ca_is_not_trusted(
    tunnel: Tunnel, trusted: str, tmp_path: Path
) -> None:
    ca = certify(tmp_path, "127.0.0.2") if trusted == "another CA" else None
    connected = Connected(tunnel.address(ca))
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    assert None not in connected.reports
    assert "certificate verify failed" in (connected.reports[0] or "")
    await connected.connection.stopService()


@ensureDeferred
async def test_certificate_for_another_name_is_not_trusted(
    redis: RedisServer, tmp_path: Path
) -> None:
    certificate = certify(tmp_path, "127.0.0.9")
    tunnel, port = await listen(certificate, redis)
    connected = Connected(tunnel.address(certificate))
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    assert None not in connected.reports
    await connected.connection.stopService()
    await port.stopListening()  # type: ignore[attr-defined]
