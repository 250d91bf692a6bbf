"""A port that leads to another one, and changes what comes back from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.proxy import Pace, Proxy

#: Seconds for which a slow link sends at once.
_SLICE = 0.02


@contextmanager
def meddler(
    port: int,
    change: Callable[[bytes], bytes] = bytes,
    delay: float = 0.0,
    rate: float | None = None,
) -> Iterator[int]:
    """Yield a port for as long as the block lasts.

    :param change: applied to each piece that the server has written at once.
    :param delay: seconds by which each of them is late.
    :param rate: bytes a second in each direction, as over a slow link; None: all at once.
    """
    proxy = Proxy(port, change=change, delay=delay)
    if rate is not None:
        proxy.set_pace(Pace(max(1, int(rate * _SLICE)), _SLICE))
    try:
        yield proxy.port
    finally:
        proxy.close()
