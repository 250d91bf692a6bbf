"""A proxy that changes, delays or slows down the replies of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.proxy import Pace, Proxy

#: Seconds between two writes of a slow link.
_SLICE = 0.02


@contextmanager
def reply_proxy(
    port: int,
    change: Callable[[bytes], bytes] = bytes,
    delay: float = 0.0,
    rate: float | None = None,
) -> Iterator[int]:
    """Yield the port of the proxy, which runs until the block ends.

    :param port: the port of the server.
    :param delay: seconds by which each chunk is delayed.
    :param rate: bytes per second in each direction, to simulate a slow link; None: no limit.
    """
    proxy = Proxy(port, change=change, delay=delay)
    if rate is not None:
        proxy.set_pace(Pace(max(1, int(rate * _SLICE)), _SLICE))
    try:
        yield proxy.port
    finally:
        proxy.close()
