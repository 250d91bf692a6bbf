"""Reconnect whenever a connection is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Waits


async def stay_connected(
    waits: Waits, backoff: Backoff, serve: Callable[[], Awaitable[bool]]
) -> None:
    """Call ``serve`` repeatedly until ``waits`` is stopped.

    Twisted's ``ClientService`` does not fit: in 26.10 it raises NoTransition if the connection is
    lost during ``prepareConnection`` (in which ours log in, or wait for the TLS handshake), logs
    a line at each attempt, and reports the reason of a failure only to callers that wait for a
    connection.

    :param backoff: gives the delay between two calls; reset after a usable connection.
    :param serve: connects, and returns when the connection is lost or could not be made: True if
        it was usable. It returns soon after a stop.
    """
    while not waits.stopped:
        if await serve():
            backoff.succeeded()
        await waits.sleep(backoff.failed())
