"""The client, with errors and outages of a real Directus."""

from __future__ import annotations

from collections.abc import Callable

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.directus.prepared import RESPONSE_TIMEOUT
from tests.directus.server import DirectusServer
from tracker.bridge.rest import DirectusClient, DirectusDown, DirectusError

Start = Callable[..., DirectusServer]


@ensureDeferred
async def test_rate_limit_is_reported_with_retry_after(start_directus: Start) -> None:
    from twisted.internet import reactor

    server = start_directus(
        RATE_LIMITER_ENABLED="true", RATE_LIMITER_POINTS="5", RATE_LIMITER_DURATION="30"
    )
    client = DirectusClient(reactor, server.url, server.TOKEN, timeout=RESPONSE_TIMEOUT)
    try:
        errors = await gatherResults([_error(client) for _ in range(10)])
    finally:
        await client.close()
    refused = [error for error in errors if error is not None]
    assert refused
    for error in refused:
        assert isinstance(error, DirectusDown)
        assert (error.status, error.code) == (429, "REQUESTS_EXCEEDED")
        assert error.retry_after is not None
        assert 20 <= error.retry_after <= 30


@ensureDeferred
async def test_client_recovers_after_directus_hangs_or_is_killed(start_directus: Start) -> None:
    from twisted.internet import reactor

    server = start_directus()
    client = DirectusClient(reactor, server.url, server.TOKEN, timeout=RESPONSE_TIMEOUT)
    hasty = DirectusClient(reactor, server.url, server.TOKEN, timeout=1)
    try:
        assert await _error(client) is None
        server.suspend()
        error = await _error(hasty)
        assert isinstance(error, DirectusDown)
        assert str(error) == f"Directus at {server.url}: GET /users/me: no response within 1s"
        server.resume()
        assert await _error(client) is None
        server.kill()
        error = await _error(client)
        assert isinstance(error, DirectusDown)
        assert "\n" not in str(error)
        server.start()
        assert await _error(client) is None
    finally:
        await client.close()
        await hasty.close()


def _error(client: DirectusClient) -> Deferred[DirectusError | None]:
    async def ask() -> DirectusError | None:
        try:
            await client.request("GET", "/users/me")
        except DirectusError as error:
            return error
        return None

    return Deferred.fromCoroutine(ask())
