"""A port that leads to another one, and changes what comes back from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.proxy import Proxy


@contextmanager
def meddler(
    port: int, change: Callable[[bytes], bytes] = bytes, delay: float = 0.0
) -> Iterator[int]:
    """Yield a port for as long as the block lasts.

    :param change: applied to each piece that the server has written at once.
    :param delay: seconds by which each of them is late.
    """
    proxy = Proxy(port, change=change, delay=delay)
    try:
        yield proxy.port
    finally:
        proxy.close()
